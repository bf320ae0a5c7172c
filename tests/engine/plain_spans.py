"""The periods of the plain model (`tests.engine.plain_boards`): hours, days, weeks of UTC, and seasons."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from engine.board_rules import BoardRules

START = datetime(1970, 1, 1, tzinfo=UTC)


class Span(NamedTuple):
    """A period."""

    id: str
    begins_ms: int
    ends_ms: int | None


def span_at(every: str, ms: int) -> Span:
    """Give the hour, day or week of UTC at a time."""
    day = START + timedelta(milliseconds=ms)
    hour = day.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    monday = day - timedelta(days=day.weekday())
    year, week, _ = day.isocalendar()
    begins, length, name = {
        "hour": (hour, timedelta(hours=1), f"{hour:%Y-%m-%dT%H}"),
        "day": (day, timedelta(days=1), f"{day:%Y-%m-%d}"),
        "week": (monday, timedelta(days=7), f"{year}-W{week:02}"),
    }[every]
    return Span(name, ms_of(begins), ms_of(begins + length))


def ms_of(at: datetime) -> int:
    """Give a time in ms since 1970."""
    return (at - START) // timedelta(milliseconds=1)


def named(span: Span, taken: Iterable[str]) -> Span:
    """Give a period an id that none of the others has."""
    ids = [span.id, *(f"{span.id}.{n}" for n in range(2, 1_000))]
    used = [number for number, each in enumerate(ids) if each in set(taken)]
    return Span(ids[max(used) + 1 if used else 0], span.begins_ms, span.ends_ms)


def first_span(rules: BoardRules, taken: Iterable[str], now_ms: int) -> Span | None:
    """Give the period that rules have at a time."""
    if rules.schedule is not None:
        return named(span_at(rules.schedule.every, now_ms), taken)
    if rules.season is not None:
        begins_ms = now_ms if rules.season.begins_ms is None else rules.season.begins_ms
        return named(Span(span_at("day", begins_ms).id, begins_ms, rules.season.ends_ms), taken)
    return None
