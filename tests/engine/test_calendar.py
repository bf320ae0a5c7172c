"""Periods of all kinds of schedule, the check of a schedule against the tz database, and the database's version."""

from __future__ import annotations

import os
import time
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import import_module, resources
from pathlib import Path
from shutil import copyfile
from timeit import repeat

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.calendar import period_at, schedule_fault, tz_version
from engine.schedule import Period, Schedule, form_fault
from tests.seeds import in_ci

DAY_MS = 86_400_000
NOW_MS = 1_795_788_000_000
"""2026-11-27T14:00Z, a Friday."""
PACKAGE_VERSION = import_module("tzdata").IANA_VERSION
ZONES = resources.files("tzdata").joinpath("zones").read_text().split()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Python looks for zones in this directory first."""
    zoneinfo.reset_tzpath(to=[tmp_path])
    yield tmp_path
    zoneinfo.reset_tzpath()


def put(directory: Path, name: str, source: str) -> None:
    """Install a zone's file under a name."""
    with resources.as_file(resources.files("tzdata.zoneinfo").joinpath(*source.split("/"))) as file:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        copyfile(file, directory / name)


# Periods

PERIODS = [
    (Schedule("hour"), Period("2026-11-27T14", NOW_MS, NOW_MS + 3_600_000)),
    (Schedule("hour", at=":15"), Period("2026-11-27T13", NOW_MS - 2_700_000, NOW_MS + 900_000)),
    (Schedule("hour", "Asia/Kolkata"), Period("2026-11-27T19", NOW_MS - 1_800_000, NOW_MS + 1_800_000)),
    (Schedule("day"), Period("2026-11-27", 1_795_737_600_000, 1_795_824_000_000)),
    (Schedule("day", at="14:00"), Period("2026-11-27", NOW_MS, NOW_MS + DAY_MS)),
    (Schedule("day", at="14:01"), Period("2026-11-26", NOW_MS + 60_000 - DAY_MS, NOW_MS + 60_000)),
    (Schedule("week"), Period("2026-W48", 1_795_392_000_000, 1_795_996_800_000)),
    (Schedule("week", at="friday 14:00"), Period("2026-W49", NOW_MS, NOW_MS + 7 * DAY_MS)),
    (Schedule("month"), Period("2026-11", 1_793_491_200_000, 1_796_083_200_000)),
    (Schedule("month", at="28 00:00"), Period("2026-10", 1_793_145_600_000, 1_795_824_000_000)),
    (Schedule("cron", cron="0 9 * * MON-FRI"), Period("2026-11-27T09:00", NOW_MS - 18_000_000, 1_796_029_200_000)),
    (Schedule("cron", cron="0 14 * * *"), Period("2026-11-27T14:00", NOW_MS, NOW_MS + DAY_MS)),
]


@pytest.mark.parametrize(("schedule", "period"), PERIODS)
def test_an_ordinary_instant_lies_in_the_period_that_a_person_would_name(schedule: Schedule, period: Period) -> None:
    """Worked by hand. 2026-11-27 is a Friday, and its week began on Monday the 23rd."""
    assert schedule_fault(schedule) is None
    assert period_at(schedule, NOW_MS) == period


@pytest.mark.parametrize(
    ("at", "day", "expected"),
    [
        ("monday 00:00", "2026-12-31", "2026-W53"),  # a year of 53 weeks, that of 28 December
        ("monday 00:00", "2027-01-03", "2026-W53"),
        ("monday 00:00", "2027-01-04", "2027-W01"),
        ("monday 00:00", "2024-12-30", "2025-W01"),  # its Thursday is 2 January
        ("thursday 00:00", "2026-12-31", "2026-W53"),  # its fourth day is Sunday 3 January
        ("friday 00:00", "2027-01-01", "2027-W01"),  # its fourth day is Monday 4 January
        ("sunday 00:00", "2026-12-27", "2026-W53"),  # its fourth day is Wednesday 30 December
    ],
)
def test_a_week_has_the_number_that_its_middle_has(at: str, day: str, expected: str) -> None:
    """Also at the turn of the year, when the number of the year is another than the date's."""
    time_ms = int(datetime.fromisoformat(f"{day}T12:00+00:00").timestamp()) * 1_000
    assert period_at(Schedule("week", at=at), time_ms).id == expected


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("1970-01-01T00:00", "1970-01-01"),
        ("1969-12-31T22:59", "1969-12-31"),  # Germany had +1 all year
        ("1969-12-31T23:00", "1970-01-01"),
        ("9000-01-01T22:59", "9000-01-01"),  # +1 in winter
        ("9000-01-01T23:00", "9000-01-02"),
        ("9000-07-01T21:59", "9000-07-01"),  # +2 in summer, by the rule that has no end
        ("9000-07-01T22:00", "9000-07-02"),
        ("0099-06-01T12:00", "0099-06-01"),  # years have four digits
    ],
)
def test_days_are_right_far_back_and_far_ahead(time: str, expected: str) -> None:
    """Before 1970, and beyond the last change that the database lists."""
    time_ms = int(datetime.fromisoformat(f"{time}+00:00").timestamp()) * 1_000
    assert period_at(Schedule("day", "Europe/Berlin"), time_ms).id == expected


@given(
    st.sampled_from([Schedule("hour"), Schedule("week"), Schedule("month"), Schedule("cron", cron="0 0 29 2 *")]),
    st.sampled_from([-(10**30), -62_135_596_800_000, 253_402_300_799_999, 253_402_300_800_000, 10**30]),
)
def test_a_time_that_no_calendar_has_is_refused(schedule: Schedule, time_ms: int) -> None:
    """With one kind of error, and a sentence."""
    with pytest.raises(ValueError, match="reaches beyond the years 1 to 9999"):
        period_at(schedule, time_ms)


@cache
def changes(zone: str) -> list[int]:
    """List the days with a change of a zone's clocks since 1970. Two changes are at least a week apart."""
    clocks = zoneinfo.ZoneInfo.no_cache(zone)

    def offset(day: int) -> timedelta | None:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).astimezone(clocks).utcoffset()

    weeks = [day for day in range(0, 25_000, 6) if offset(day) != offset(day + 6)]
    return [day for first in weeks for day in range(first, first + 6) if offset(day) != offset(day + 1)]


KINDS = [
    *((("hour", at, "")) for at in (":00", ":15", ":30", ":45")),
    *((("day", at, "")) for at in ("00:00", "00:30", "02:30", "23:30")),
    *((("week", at, "")) for at in ("", "sunday 00:00", "sunday 02:30")),
    *((("month", at, "")) for at in ("", "26 02:30")),
    *((("cron", "", cron)) for cron in ("0 9 * * MON-FRI", "30 2 * * *", "0,30 0-3 * * *", "0-59 1,23 * * *")),
    *((("cron", "", cron)) for cron in ("*/20 * * * *", "*/30 2 * * *", "0 */2 * * SUN", "15 * L * *", "0 0 29 2 *")),
]


@st.composite
def asked(draw: st.DrawFn) -> tuple[Schedule, int]:
    """A schedule in any zone, and an instant: half of them are near a change of its clocks."""
    zone = draw(st.sampled_from(ZONES))
    every, at, cron = draw(st.sampled_from(KINDS))
    near, days = draw(st.booleans()), changes(zone)
    if near and days:
        day: int = draw(st.sampled_from(days))
        time_ms = day * DAY_MS + draw(st.integers(-2 * DAY_MS, 3 * DAY_MS))
    else:
        time_ms = draw(st.integers(-2 * 10**12, 221 * 10**12))
    return Schedule(every, zone, at, cron), time_ms  # type: ignore[arg-type]


@given(asked())
@settings(max_examples=in_ci(120, 400), deadline=None)
def test_periods_cover_all_time_without_a_gap_or_an_overlap(case: tuple[Schedule, int]) -> None:
    """Each instant lies in its period, and the neighbours join, with other ids."""
    schedule, time_ms = case
    assume(schedule.zone != "Factory")
    period = period_at(schedule, time_ms)
    assert period.ends_ms is not None
    assert period.begins_ms <= time_ms < period.ends_ms
    assert period_at(schedule, period.begins_ms) == period
    assert period_at(schedule, period.ends_ms - 1) == period
    after, before = period_at(schedule, period.ends_ms), period_at(schedule, period.begins_ms - 1)
    assert after.begins_ms == period.ends_ms
    assert before.ends_ms == period.begins_ms
    assert len({before.id, period.id, after.id}) == 3


@pytest.mark.parametrize("zone", ["", "Asia/Tokyo"])
def test_the_machines_own_zone_has_no_part_in_it(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever TZ says, UTC is UTC and Berlin is Berlin."""
    expected = [period_at(Schedule("day", name), NOW_MS) for name in ("UTC", "Europe/Berlin")]
    own = os.environ.get("TZ")
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert [period_at(Schedule("day", name), NOW_MS) for name in ("UTC", "Europe/Berlin")] == expected
    finally:
        monkeypatch.undo()
        time.tzset()
        assert os.environ.get("TZ") == own


@pytest.mark.parametrize("schedule", [schedule for schedule, _ in PERIODS])
def test_a_period_is_found_within_a_millisecond(schedule: Schedule) -> None:
    """The best of many tries, so that a busy machine does not fail it."""
    assert min(repeat(lambda: period_at(schedule, NOW_MS), number=1, repeat=50)) < 0.001


# Faults


@pytest.mark.parametrize("zone", ["Mars/Base", "Europe", "America/Argentina", "europe/berlin", "X" * 64, "zones"])
def test_a_zone_that_the_database_does_not_know_is_a_fault(zone: str) -> None:
    """Its form is right, so only the database can tell: also a directory of it is no zone."""
    schedule = Schedule("day", zone)
    assert form_fault(schedule) is None
    fault = schedule_fault(schedule)
    assert fault is not None
    assert fault[0] == "zone"
    assert (
        fault[1]
        == f"The tz database has no zone {zone!r}. zone must be one of its names, such as Europe/Berlin or UTC."
    )
    with pytest.raises(ValueError, match="has no zone"):
        period_at(schedule, NOW_MS)


def test_every_zone_of_the_database_is_allowed() -> None:
    """The form that names must have leaves none out."""
    assert [zone for zone in ZONES if schedule_fault(Schedule("day", zone)) is not None] == []
    assert len(ZONES) > 500


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("60 * * * *", "bad minute field"),
        ("* * * * MON-", "bad day-of-week field"),
        ("*/0 * * * *", "bad minute field"),
        ("0 0 30 2 *", "fits no month"),
        # On leap days that are a Monday, but only on days 1 and 30: cronsim looks for it in vain.
        ("0 0 */29 2 MON#5", "no match in the 50 years"),
        # On the fifth Sunday of March, when German clocks skip the hour.
        ("* 2 * 3 SUN#5", "local times that clocks skip"),
    ],
)
def test_a_cron_expression_that_never_matches_is_a_fault(cron: str, words: str) -> None:
    """It is found, not searched for without end."""
    fault = schedule_fault(Schedule("cron", "Europe/Berlin", cron=cron))
    assert fault is not None
    assert fault[0] == "cron"
    assert words in fault[1]
    assert repr(cron) in fault[1]


def test_a_cron_expression_that_matches_once_in_40_years_is_allowed() -> None:
    """Leap days that are Sundays: 1880 and 1920 are the furthest apart, because 1900 was no leap year."""
    schedule = Schedule("cron", cron="0 0 29 2 */7")
    assert schedule_fault(schedule) is None
    years = [period_at(schedule, (year - 1970) * 365 * DAY_MS).id[:4] for year in (1900, 1930, 2010, 2040)]
    assert years == ["1880", "1920", "2004", "2032"]


def test_the_form_is_checked_before_the_database() -> None:
    """So a path is never opened."""
    fault = schedule_fault(Schedule("day", "../../etc/passwd"))
    assert fault is not None
    assert fault[0] == "zone"
    assert schedule_fault(Schedule("day", at="noon")) == form_fault(Schedule("day", at="noon"))


# The database


def test_the_version_is_that_of_the_source_which_serves(directory: Path) -> None:
    """The system's directory if it has the zone, else the package."""
    (directory / "tzdata.zi").write_text("# version 1999z\n# This zic input file is in the public domain.\n")
    assert tz_version() == PACKAGE_VERSION
    put(directory, "UTC", "UTC")
    assert tz_version() == "1999z"
    assert tz_version("Europe/Berlin") == PACKAGE_VERSION


@pytest.mark.parametrize("rules", [None, b"", b"# version \n", b"R x 1990 o\n", b"\xff\xfe", b"# version " + b"x" * 99])
def test_a_version_that_cannot_be_known_is_unknown(directory: Path, rules: bytes | None) -> None:
    """Some systems come without the file, or with another one."""
    put(directory, "UTC", "UTC")
    if rules is not None:
        (directory / "tzdata.zi").write_bytes(rules)
    assert tz_version() == "unknown"


def test_a_database_that_changes_is_seen_at_the_next_question(directory: Path) -> None:
    """A country changes its rules, the system is updated, and the server is not restarted."""
    put(directory, "Europe/Berlin", "Etc/GMT-5")
    day = Schedule("day", "Europe/Berlin")
    assert period_at(day, NOW_MS).begins_ms == 1_795_737_600_000 - 5 * 3_600_000
    put(directory, "Europe/Berlin", "Etc/GMT-6")
    assert period_at(day, NOW_MS).begins_ms == 1_795_737_600_000 - 6 * 3_600_000
    put(directory, "Europe/Berlin", "Europe/Berlin")
    assert period_at(day, NOW_MS).begins_ms == 1_795_737_600_000 - 1 * 3_600_000
