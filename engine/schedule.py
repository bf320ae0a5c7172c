"""When a board begins anew: the schedule that an operator writes, and the period that comes of it. Pure.

    schedule = Schedule("week", zone="Europe/Berlin", at="monday 06:00")
    form_fault(schedule)                     None, or the field that is wrong and a sentence about it
    moment_of(schedule)                      Moment(day=0, minute=360): on the first day of the week, at 06:00

    every    at                the natural beginning    a period is named
    hour     :15               :00                      2026-11-27T14
    day      06:00             00:00                    2026-11-27
    week     monday 06:00      monday 00:00             2026-W48
    month    1 06:00           1 00:00                  2026-11
    cron     (`cron` says it)                           2026-11-27T09:00

Rules:
- `at` is a time on the clocks of `zone`, and "" stands for the natural beginning.
- A month begins on one of its days 1 to 28. Not every month has a later day.
- `cron` is set exactly if `every` is "cron". It has five fields: no seconds and no years.
- The form of a zone's name is checked here, with no look at a disk. Whether there is such a zone, and what the fields
  of `cron` mean, is known to `engine/calendar.py`. Its `schedule_fault` checks all of it.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, get_args

import msgspec

Every = Literal["hour", "day", "week", "month", "cron"]

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
NATURAL = {"hour": ":00", "day": "00:00", "week": "monday 00:00", "month": "1 00:00"}

DAY_MAX = 28
"""The last day that every month has."""

CRON_CHARS_MAX = 256
"""The longest cron expression: all 60 minutes as a list need 169 characters."""

ZONE_CHARS_MAX = 64
"""The longest name of a zone: the tz database's longest has 32 characters."""

_CLOCK = "(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9])"
_FORMS = {
    "hour": re.compile(":(?P<minute>[0-5][0-9])"),
    "day": re.compile(_CLOCK),
    "week": re.compile(f"(?P<day>{'|'.join(WEEKDAYS)}) {_CLOCK}", re.IGNORECASE | re.ASCII),
    "month": re.compile(f"(?P<day>[1-9]|[12][0-9]|3[01]) {_CLOCK}"),
}
_ALLOWED = {
    "hour": 'the minute of the hour, such as ":15"',
    "day": 'a time from 00:00 to 23:59, such as "06:00"',
    "week": 'an English weekday and a time, such as "monday 06:00"',
    "month": f'a day from 1 to {DAY_MAX} and a time, such as "1 06:00"',
}
_ZONE = re.compile("[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z][A-Za-z0-9_+-]*)*")
"""Every name of the tz database has this form. No name of this form leads out of the database's directory."""

_MACHINES_OWN = re.compile("(localtime|posixrules|(right|posix)/.*)")
"""Files in a system's directory that are no zones: they differ from machine to machine, or count leap seconds."""


class Schedule(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How often a board begins anew, and when, on whose clocks."""

    every: Every
    zone: str = "UTC"
    at: str = ""
    """The forms are in the drawing above; "" is the natural beginning."""
    cron: str = ""
    """Minute, hour, day of the month, month, day of the week; only if `every` is "cron"."""


class Season(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A board that is open once, between two instants. None: from the beginning on, or without an end."""

    begins_ms: int | None = None
    ends_ms: int | None = None


class Period(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One period: the instants from its beginning to before its end. None: it has no end."""

    id: str
    begins_ms: int
    ends_ms: int | None


class Moment(NamedTuple):
    """When in its hour, day, week or month a period begins."""

    day: int
    """Of a week, 0 is its first day, the Monday; of a month, 1 is its first day; else 0."""
    minute: int
    """Minutes since the beginning of that day; for an hour, since the beginning of the hour."""


def moment_of(schedule: Schedule) -> Moment:
    """Give when a period begins. Raises ValueError if `at` is not of the form that `every` asks for."""
    form = _FORMS.get(schedule.every)
    found = form and form.fullmatch(schedule.at or NATURAL[schedule.every])
    if not found:
        raise ValueError(f"{_shown(schedule.at)} says no beginning for every {_shown(schedule.every)}")
    parts = found.groupdict()
    day = parts.get("day", "0").lower()
    return Moment(
        WEEKDAYS.index(day) if day in WEEKDAYS else int(day), int(parts.get("hour", "0")) * 60 + int(parts["minute"])
    )


def form_fault(schedule: Schedule) -> tuple[str, str] | None:
    """Give the first field whose form is wrong, and a sentence about what is wrong and what is allowed."""
    every = schedule.every
    if every not in get_args(Every):
        return "every", f"every must be one of {', '.join(get_args(Every))}, not {_shown(every)}."
    if every == "cron":
        if schedule.at:
            return "at", "at must not be set if every is cron: the cron expression says when a period begins."
        fault = _cron_fault(schedule.cron)
    else:
        if schedule.cron:
            return "cron", f"cron must not be set if every is {every}: it is allowed only if every is cron."
        fault = _at_fault(schedule)
    return fault or _zone_fault(schedule.zone)


def _at_fault(schedule: Schedule) -> tuple[str, str] | None:
    try:
        moment = moment_of(schedule)
    except ValueError:
        return "at", f"at must be {_ALLOWED[schedule.every]}, not {_shown(schedule.at)}."
    if schedule.every == "month" and moment.day > DAY_MAX:
        reason = f"not every month has a day {moment.day}"
        return "at", f"at must be {_ALLOWED['month']}, not {_shown(schedule.at)}: {reason}."
    return None


def _cron_fault(cron: str) -> tuple[str, str] | None:
    if len(cron) > CRON_CHARS_MAX:
        return "cron", f"cron must have at most {CRON_CHARS_MAX} characters, not {len(cron)}."
    fields = len(cron.split())
    if fields != 5:
        wanted = "minute, hour, day of the month, month and day of the week"
        return "cron", f"cron must have five fields ({wanted}), not {fields}: seconds and years are not allowed."
    return None


def _zone_fault(zone: str) -> tuple[str, str] | None:
    if len(zone) > ZONE_CHARS_MAX or not _ZONE.fullmatch(zone) or _MACHINES_OWN.fullmatch(zone):
        return "zone", f"zone must be a name of the tz database, such as Europe/Berlin or UTC, not {_shown(zone)}."
    return None


def _shown(text: str) -> str:
    """Give what an operator wrote, cut to a length that a message can hold."""
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
