"""Which schedules can be written, and what is said about the others."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.schedule import CRON_CHARS_MAX, Moment, Schedule, form_fault, moment_of

BEGINNINGS: list[tuple[Schedule, Moment]] = [
    (Schedule("hour"), Moment(0, 0)),
    (Schedule("hour", at=":15"), Moment(0, 15)),
    (Schedule("hour", at=":59"), Moment(0, 59)),
    (Schedule("day"), Moment(0, 0)),
    (Schedule("day", at="06:00"), Moment(0, 360)),
    (Schedule("day", at="23:59"), Moment(0, 1_439)),
    (Schedule("week"), Moment(0, 0)),
    (Schedule("week", at="monday 00:00"), Moment(0, 0)),
    (Schedule("week", at="Sunday 06:30"), Moment(6, 390)),
    (Schedule("week", at="WEDNESDAY 00:00"), Moment(2, 0)),
    (Schedule("month"), Moment(1, 0)),
    (Schedule("month", at="1 06:00"), Moment(1, 360)),
    (Schedule("month", at="28 23:59"), Moment(28, 1_439)),
]


@pytest.mark.parametrize(("schedule", "moment"), BEGINNINGS)
def test_a_beginning_is_a_day_and_a_minute(schedule: Schedule, moment: Moment) -> None:
    """Without `at`, it is the natural one."""
    assert form_fault(schedule) is None
    assert moment_of(schedule) == moment


@pytest.mark.parametrize(
    ("every", "at"),
    [
        *(("hour", at) for at in ("15", ":60", ":5", "00:15", ": 15", " :15", ":15\n", ":١٥")),
        *(("day", at) for at in ("24:00", "6:00", "06:60", "0600", "06:00:00", "06:00 ", "monday 06:00", "-1:00")),
        *(("week", at) for at in ("mon 06:00", "monday", "monday  06:00", "montag 06:00", "1 06:00", "06:00")),
        *(("month", at) for at in ("0 00:00", "32 00:00", "1", "01 00:00", "1 24:00", "monday 00:00", "-1 00:00")),
    ],
)
def test_another_form_is_refused_with_one_that_is_allowed(every: Any, at: str) -> None:
    """The sentence shows what was written, and an example that can be copied."""
    fault = form_fault(Schedule(every, at=at))
    assert fault is not None
    field, sentence = fault
    assert field == "at"
    assert repr(at) in sentence
    example = sentence.split('such as "')[1].split('"')[0]
    assert form_fault(Schedule(every, at=example)) is None


@pytest.mark.parametrize("day", [29, 30, 31])
def test_a_month_begins_on_a_day_that_every_month_has(day: int) -> None:
    """The sentence says the reason: it is not the form that is wrong."""
    fault = form_fault(Schedule("month", at=f"{day} 00:00"))
    assert fault is not None
    assert fault[0] == "at"
    assert f"not every month has a day {day}" in fault[1]


@pytest.mark.parametrize(
    ("schedule", "field", "words"),
    [
        (Schedule("cron", at="06:00", cron="0 6 * * *"), "at", "the cron expression says when"),
        (Schedule("day", cron="0 6 * * *"), "cron", "allowed only if every is cron"),
        (Schedule("cron"), "cron", "five fields"),
        (Schedule("cron", cron="0 6 * *"), "cron", "not 4"),
        (Schedule("cron", cron="0 0 6 * * *"), "cron", "seconds and years are not allowed"),
        (Schedule("cron", cron="0 0 6 * * * 2026"), "cron", "not 7"),
        (Schedule("cron", cron="@daily"), "cron", "five fields"),
        (Schedule("cron", cron="*/" + "9" * 5_000 + " * * * *"), "cron", f"at most {CRON_CHARS_MAX} characters"),
        (Schedule("year"), "every", "hour, day, week, month, cron"),  # type: ignore[arg-type]
    ],
)
def test_fields_that_do_not_fit_each_other_are_refused(schedule: Schedule, field: str, words: str) -> None:
    """By the field that an operator must change."""
    fault = form_fault(schedule)
    assert fault is not None
    assert fault[0] == field
    assert words in fault[1]


@pytest.mark.parametrize(
    "zone",
    [
        *(
            "",
            " ",
            ".",
            "/UTC",
            "/etc/passwd",
            "../etc",
            "Europe/../UTC",
            "Europe/",
            "Europe//Berlin",
            "Europe\\Berlin",
        ),
        *("a\0b", "UTC\n", "Ürümqi", "\ud800", "+01:00", "A" * 65, "tzdata.zi", "zone.tab"),
        *("localtime", "posixrules", "right/UTC", "posix/UTC"),
    ],
)
def test_a_name_that_no_zone_has_is_refused_without_a_look_at_the_disk(zone: str) -> None:
    """Paths, odd characters, and files of a system's directory that are no zones."""
    fault = form_fault(Schedule("day", zone))
    assert fault is not None
    assert fault[0] == "zone"
    assert "Europe/Berlin" in fault[1]
    assert len(fault[1]) < 200


def test_a_schedule_is_written_as_short_as_it_can_be() -> None:
    """Fields that were not set do not appear, and come back as they were."""
    schedule = Schedule("week", zone="Europe/Berlin")
    data = msgspec.json.encode(schedule)
    assert data == b'{"every":"week","zone":"Europe/Berlin"}'
    assert msgspec.json.decode(data, type=Schedule) == schedule


def test_a_moment_is_not_made_of_what_has_none() -> None:
    """Cron has no beginning of this kind, and a wrong one is not guessed."""
    for schedule in (Schedule("cron", cron="0 6 * * *"), Schedule("day", at="6 o'clock")):
        with pytest.raises(ValueError, match="says no beginning"):
            moment_of(schedule)
