"""Periods at changes of the clocks. The instants of the tables were worked out by hand from the tz database's rules.

Each table names its rule as `tzdata.zi` has it: `u` is UTC, `s` the zone's standard time, no letter the clocks' own
time. All dates are past, so that no later version of the database moves them.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from engine.calendar import period_at
from engine.schedule import Period, Schedule


@pytest.fixture(params=["system", "package"], autouse=True)
def _source(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both databases that Python may find must give the same past."""
    if request.param == "package":
        zoneinfo.reset_tzpath(to=())
    yield
    zoneinfo.reset_tzpath()


def ms(text: str) -> int:
    """Give the milliseconds of a UTC time such as 2025-03-29T23:00."""
    return int(datetime.fromisoformat(f"{text}:00+00:00").timestamp()) * 1_000


def shown(time_ms: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)).strftime("%Y-%m-%dT%H:%M")


def seen(schedule: Schedule, first: str, count: int) -> list[tuple[str, str]]:
    """List the ids and the beginnings of periods that follow each other, from the one that lies at `first` on."""
    found, time_ms = list[tuple[str, str]](), ms(first)
    for _ in range(count):
        period = period_at(schedule, time_ms)
        assert period.ends_ms is not None
        found.append((period.id, shown(period.begins_ms)))
        time_ms = period.ends_ms
    return found


DAYS = [
    # Germany (EU): forward on the last Sunday of March at 1u, back on the last Sunday of October at 1u; +1 and +2.
    ("Europe/Berlin", "2025-03-30", "2025-03-29T23:00", "2025-03-30T22:00"),  # 23 hours
    ("Europe/Berlin", "2025-10-26", "2025-10-25T22:00", "2025-10-26T23:00"),  # 25 hours
    # USA: forward on the second Sunday of March (Su>=8) at 2, back on the first of November (Su>=1) at 2; -5 and -4.
    ("America/New_York", "2025-03-09", "2025-03-09T05:00", "2025-03-10T04:00"),
    ("America/New_York", "2025-11-02", "2025-11-02T04:00", "2025-11-03T05:00"),
    # Ireland: standard time (+1) is the summer's, and from October to March `-1` is saved; the instants are the EU's.
    ("Europe/Dublin", "2025-03-30", "2025-03-30T00:00", "2025-03-30T23:00"),
    ("Europe/Dublin", "2025-10-26", "2025-10-25T23:00", "2025-10-27T00:00"),
    # Chile: forward on the first Sunday on or after 2 September at 4u, which is 00:00 at -4: no midnight, it is 01:00.
    ("America/Santiago", "2025-09-06", "2025-09-06T04:00", "2025-09-07T04:00"),
    ("America/Santiago", "2025-09-07", "2025-09-07T04:00", "2025-09-08T03:00"),
    # Chile: back on the first Sunday on or after 2 April at 3u, which is 24:00 at -3: the Saturday has 23:00 twice.
    ("America/Santiago", "2025-04-05", "2025-04-05T03:00", "2025-04-06T04:00"),
    ("America/Santiago", "2025-04-06", "2025-04-06T04:00", "2025-04-07T04:00"),
    # Cuba: forward on the second Sunday of March (Su>=8) at 0s, which is 5u: no midnight, it is 01:00.
    ("America/Havana", "2025-03-09", "2025-03-09T05:00", "2025-03-10T04:00"),
    # Cuba: back on the first Sunday of November (Su>=1) at 0s, which is 01:00 at -4: midnight is there twice.
    ("America/Havana", "2025-11-01", "2025-11-01T04:00", "2025-11-02T04:00"),
    ("America/Havana", "2025-11-02", "2025-11-02T04:00", "2025-11-03T05:00"),
    # Egypt: forward on the last Friday of April at 0, which is 22u of Thursday at +2: no midnight, it is 01:00.
    ("Africa/Cairo", "2025-04-24", "2025-04-23T22:00", "2025-04-24T22:00"),
    ("Africa/Cairo", "2025-04-25", "2025-04-24T22:00", "2025-04-25T21:00"),
    # Egypt: back on the last Thursday of October at 24, which is 21u at +3: 23:00 to 24:00 is there twice.
    ("Africa/Cairo", "2025-10-30", "2025-10-29T21:00", "2025-10-30T22:00"),
    ("Africa/Cairo", "2025-10-31", "2025-10-30T22:00", "2025-10-31T22:00"),
    # Lord Howe Island: forward by 0:30 on the first Sunday of October (Su>=1) at 2, from +10:30 to +11: 23.5 hours.
    ("Australia/Lord_Howe", "2025-10-05", "2025-10-04T13:30", "2025-10-05T13:00"),
    # Lord Howe Island: back by 0:30 on the first Sunday of April (Su>=1) at 2, from +11 to +10:30: 24.5 hours.
    ("Australia/Lord_Howe", "2025-04-06", "2025-04-05T13:00", "2025-04-06T13:30"),
    # Samoa: "-11 WS 2011 D 29 24", with an hour of summer time, so at -10; then +13, with it +14. There was no 30th.
    ("Pacific/Apia", "2011-12-29", "2011-12-29T10:00", "2011-12-30T10:00"),
    ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00", "2011-12-31T10:00"),
]


@pytest.mark.parametrize(("zone", "day", "begins", "ends"), DAYS)
def test_days_at_a_change_begin_and_end_when_the_rules_say(zone: str, day: str, begins: str, ends: str) -> None:
    """Asked in the first minute, in the last one, and in the middle."""
    period = Period(day, ms(begins), ms(ends))
    for time_ms in (ms(begins), ms(ends) - 1, (ms(begins) + ms(ends)) // 2):
        assert period_at(Schedule("day", zone), time_ms) == period


FOLLOWING = [
    # Germany, forward on 2025-03-30 at 1u: there is no hour 2.
    (Schedule("hour", "Europe/Berlin"), "2025-03-30T00:10", ["01 00:00", "03 01:00", "04 02:00"]),
    # A minute 15 of the hour that is skipped comes at the first instant after the gap.
    (Schedule("hour", "Europe/Berlin", ":15"), "2025-03-30T00:20", ["01 00:15", "02 01:00", "03 01:15", "04 02:15"]),
    # Germany, back on 2025-10-26 at 1u: hour 2 is there at 0u and at 1u.
    (Schedule("hour", "Europe/Berlin"), "2025-10-26T00:10", ["02 00:00", "02.2 01:00", "03 02:00"]),
    (Schedule("hour", "Europe/Berlin", ":30"), "2025-10-25T23:40", ["01 23:30", "02 00:30", "02.2 01:30", "03 02:30"]),
    # USA, back on 2025-11-02 at 2, which is 6u.
    (Schedule("hour", "America/New_York"), "2025-11-02T05:00", ["01 05:00", "01.2 06:00", "02 07:00"]),
    # Cuba, back on 2025-11-02 at 5u.
    (Schedule("hour", "America/Havana"), "2025-11-02T04:00", ["00 04:00", "00.2 05:00", "01 06:00"]),
    # Egypt, back on 2025-10-30 at 21u; forward on 2025-04-25 at 0, which is 22u.
    (Schedule("hour", "Africa/Cairo"), "2025-10-30T20:00", ["23 20:00", "23.2 21:00", "00 22:00"]),
    (Schedule("hour", "Africa/Cairo"), "2025-04-24T21:00", ["23 21:00", "01 22:00", "02 23:00"]),
    # Chile, back on 2025-04-06 at 3u.
    (Schedule("hour", "America/Santiago"), "2025-04-06T02:00", ["23 02:00", "23.2 03:00", "00 04:00"]),
    # Lord Howe, back on 2025-04-06 at 15u of the day before, from 02:00 to 01:30: hour 1 has 90 minutes.
    (Schedule("hour", "Australia/Lord_Howe"), "2025-04-05T14:00", ["01 14:00", "02 15:30", "03 16:30"]),
    # Its 01:45 is there twice, half an hour apart, and its 01:30 comes back at the change itself.
    (Schedule("hour", "Australia/Lord_Howe", ":45"), "2025-04-05T14:45", ["01 14:45", "01.2 15:15", "02 16:15"]),
    (Schedule("hour", "Australia/Lord_Howe", ":30"), "2025-04-05T14:30", ["01 14:30", "01.2 15:00", "02 16:00"]),
    # Lord Howe, forward on 2025-10-05 at 15:30u of the day before, from 02:00 to 02:30.
    (Schedule("hour", "Australia/Lord_Howe"), "2025-10-04T14:30", ["01 14:30", "02 15:30", "03 16:00"]),
    (Schedule("hour", "Australia/Lord_Howe", ":15"), "2025-10-04T14:45", ["01 14:45", "02 15:30", "03 16:15"]),
]


@pytest.mark.parametrize(("schedule", "first", "hours"), FOLLOWING)
def test_hours_at_a_change_follow_each_other(schedule: Schedule, first: str, hours: list[str]) -> None:
    """Each is shown by its number on the clocks and its beginning in UTC."""
    found = seen(schedule, first, len(hours))
    assert [f"{name.split('T')[1]} {begins.split('T')[1]}" for name, begins in found] == hours


def test_after_a_skipped_day_the_hours_go_on() -> None:
    """Samoa, 2011-12-30 at 10u: of 24 skipped minutes 15, the last one names what is left of its hour."""
    hours = seen(Schedule("hour", "Pacific/Apia", ":15"), "2011-12-30T09:15", 3)
    assert hours == [
        ("2011-12-29T23", "2011-12-30T09:15"),
        ("2011-12-30T23", "2011-12-30T10:00"),
        ("2011-12-31T00", "2011-12-30T10:15"),
    ]
    assert seen(Schedule("hour", "Pacific/Apia"), "2011-12-30T09:00", 2)[1] == ("2011-12-31T00", "2011-12-30T10:00")


@pytest.mark.parametrize(
    ("schedule", "time", "expected"),
    [
        # A day that begins at a skipped time: Germany, 2025-03-30 02:30 is 1u.
        (Schedule("day", "Europe/Berlin", "02:30"), "2025-03-30T12:00", ("2025-03-30", "2025-03-30T01:00")),
        # A day that begins at a repeated time: Germany, 2025-10-26 02:30 is 0:30u first; at 1:10u clocks show 02:10.
        (Schedule("day", "Europe/Berlin", "02:30"), "2025-10-26T00:29", ("2025-10-25", "2025-10-25T00:30")),
        (Schedule("day", "Europe/Berlin", "02:30"), "2025-10-26T01:10", ("2025-10-26", "2025-10-26T00:30")),
        # Cuba, 2025-11-02 00:30 is 4:30u first; at 5:10u clocks show 00:10.
        (Schedule("day", "America/Havana", "00:30"), "2025-11-02T05:10", ("2025-11-02", "2025-11-02T04:30")),
        # Samoa, a day from noon on: the 30th's noon and its hours before 24:00 are skipped, so it has half a day.
        (Schedule("day", "Pacific/Apia", "12:00"), "2011-12-30T10:00", ("2011-12-30", "2011-12-30T10:00")),
        (Schedule("day", "Pacific/Apia", "12:00"), "2011-12-30T22:00", ("2011-12-31", "2011-12-30T22:00")),
        # A week from Sunday on, in Chile: Sunday 2025-09-07 has no midnight, and its fourth day is in week 37.
        (Schedule("week", "America/Santiago", "sunday 00:00"), "2025-09-10T00:00", ("2025-W37", "2025-09-07T04:00")),
        # A week with a change in it: Germany, from Monday 2025-10-20 00:00 at +2 to Monday 2025-10-27 00:00 at +1.
        (Schedule("week", "Europe/Berlin"), "2025-10-26T22:59", ("2025-W43", "2025-10-19T22:00")),
        (Schedule("week", "Europe/Berlin"), "2025-10-26T23:00", ("2025-W44", "2025-10-26T23:00")),
        # A month with a change in it: USA, November 2025 begins at -4 and ends at -5.
        (Schedule("month", "America/New_York"), "2025-11-01T04:00", ("2025-11", "2025-11-01T04:00")),
        (Schedule("month", "America/New_York"), "2025-12-01T04:59", ("2025-11", "2025-11-01T04:00")),
        # A month from a skipped midnight on: Chile, 7 September 2025.
        (Schedule("month", "America/Santiago", "7 00:00"), "2025-09-07T04:00", ("2025-09", "2025-09-07T04:00")),
    ],
)
def test_a_beginning_that_is_skipped_or_repeated_is_one_instant(
    schedule: Schedule, time: str, expected: tuple[str, str]
) -> None:
    """The first after the gap, or the first of the two."""
    assert seen(schedule, time, 1) == [expected]


@pytest.mark.parametrize(
    ("cron", "first", "expected"),
    [
        # At set times: what is skipped on 2025-03-30 comes at 1u, and of two matches there the last gives the name.
        ("30 2 * * *", "2025-03-30T00:59", ["03-29T02:30 01:30", "03-30T02:30 01:00", "03-31T02:30 00:30"]),
        ("0,30 2 * * *", "2025-03-30T01:00", ["03-30T02:30 01:00", "03-31T02:00 00:00"]),
        # At set times: what is repeated on 2025-10-26 comes at the first; at 1:10u and 1:40u it is over.
        ("30 2 * * *", "2025-10-26T01:10", ["10-26T02:30 00:30", "10-27T02:30 01:30"]),
        ("30 2 * * *", "2025-10-26T01:40", ["10-26T02:30 00:30", "10-27T02:30 01:30"]),
        # With wildcards: each time that clocks show, and none that they skip.
        ("*/30 * * * *", "2025-03-30T00:30", ["03-30T01:30 00:30", "03-30T03:00 01:00", "03-30T03:30 01:30"]),
        ("*/30 2 * * *", "2025-03-30T12:00", ["03-29T02:30 01:30", "03-31T02:00 00:00"]),
        (
            "*/30 2 * * *",
            "2025-10-26T00:00",
            ["10-26T02:00 00:00", "10-26T02:30 00:30", "10-26T02:00.2 01:00", "10-26T02:30.2 01:30"],
        ),
    ],
)
def test_cron_at_a_change(cron: str, first: str, expected: list[str]) -> None:
    """Germany: forward on 2025-03-30 at 1u, back on 2025-10-26 at 1u."""
    found = seen(Schedule("cron", "Europe/Berlin", cron=cron), first, len(expected))
    assert [f"{name[5:]} {begins[11:]}" for name, begins in found] == expected


WALKED = [
    ("Europe/Berlin", "2025-03-28"),
    ("Europe/Dublin", "2025-10-24"),
    ("America/Havana", "2025-03-07"),
    ("America/Havana", "2025-10-31"),
    ("America/Santiago", "2025-04-04"),
    ("America/Santiago", "2025-09-05"),
    ("Africa/Cairo", "2025-04-23"),
    ("Africa/Cairo", "2025-10-29"),
    ("Australia/Lord_Howe", "2025-04-04"),
    ("Australia/Lord_Howe", "2025-10-03"),
    ("Pacific/Apia", "2011-12-28"),
]


@pytest.mark.parametrize(("zone", "first"), WALKED)
def test_a_walk_of_five_days_by_minutes_finds_the_same_days_and_hours(zone: str, first: str) -> None:
    """A model without arithmetic: a day begins when clocks first show a new date, an hour when they show minute 15."""
    clocks = zoneinfo.ZoneInfo.no_cache(zone)
    days, hours = list[int](), list[int]()
    instant = datetime.fromisoformat(f"{first}T00:00+00:00")
    end = instant + timedelta(days=5)
    latest = before = instant.astimezone(clocks).replace(tzinfo=None)
    while (instant := instant + timedelta(minutes=1)) < end:
        local = instant.astimezone(clocks).replace(tzinfo=None)
        time_ms = int(instant.timestamp()) * 1_000
        if local.date() > latest.date():
            days.append(time_ms)
        skipped = local - timedelta(minutes=1) > before
        due = before.replace(minute=15) + timedelta(hours=before.minute >= 15)
        if local.minute == 15 or (skipped and due < local):
            hours.append(time_ms)
        latest, before = max(latest, local), local
    for begins, schedule in ((days, Schedule("day", zone)), (hours, Schedule("hour", zone, ":15"))):
        assert len(begins) > 3
        next_ms: int | None = begins[0]
        for expected_ms in begins:
            assert next_ms == expected_ms
            next_ms = period_at(schedule, expected_ms).ends_ms
