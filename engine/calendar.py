"""The periods of a schedule: which one an instant lies in. It reads the tz database, and nothing else.

    schedule_fault(schedule)                 None, or the field that is wrong and a sentence about it
    period_at(schedule, time_ms)             Period("2026-W48", 1_795_388_400_000, 1_795_993_200_000)
    tz_version()                             "2026f": the tz database that gave the answer

A mark is a local time at which the schedule says that a period begins. These rules make instants of marks:

    the mark, on the zone's clocks    day, week, month, cron at set times    hour              cron with wildcards
    is there once                     begins there                           begins there      begins there
    is skipped                        at the first instant after the gap     the same          does not begin
    is there twice                    at the first of the two                at each of them   at each of them

What holds:
- A period is half open, and the next one begins where it ends. So each instant lies in exactly one period.
- A period is never empty. If more marks fall on one instant, the last mark names the period: Samoa had no 30 December
  2011, so no period has its name.
- A period is named by its mark, not by the time that clocks show at its beginning. A day that begins at 01:00, because
  there is no midnight, is still that day.
- A mark that is there twice, and begins a period each time, gives the second one the suffix `.2`.
- A week has the number of the ISO week that its fourth day lies in.
- The same database and the same arguments give the same period. The machine's own zone has no part in it.

Cron expressions are those of the library cronsim: as Debian's cron reads them, and `L`, `LW`, `5L` and `1#2` beside.
An expression is at set times if neither its minute nor its hour begins with a star. Otherwise it has wildcards.
cronsim treats clock changes by the same rules, and it is exact about them when it steps forward from an ordinary time.
Within a repeated hour it is not: it gives times before the one that it was asked about, and misses times when it steps
back. So cronsim only says which local times match. What the clocks do is decided here, for all kinds of schedule.

Theory: `_Zone.local` maps instants to local times. It is a straight line but for its jumps, the changes. The shortest
time between two changes of a zone is a week, and no jump is longer than a day. So a window of 25 hours holds at most
one change, and outside it no mark is reached twice. The database is read anew at each call: 50 µs, and an update of the
machine's zones is seen without a restart.
"""

from __future__ import annotations

import re
import zoneinfo
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Protocol

from cronsim import CronSim, CronSimError

from engine.schedule import DAY_MAX, Moment, Period, Schedule, form_fault, moment_of

HOUR_S = 3_600
DAY_S = 86_400

WINDOW_S = 25 * HOUR_S
"""How far a change of the clocks can move a mark: a jump of a whole day (Samoa in 2011), and an hour to spare."""

CHANGES_MAX = 64
"""How many changes of the clocks a search may pass. Cron marks that all fall into gaps need more, and are refused."""

REFERENCE_MS = 1_767_225_600_000
"""2026-01-01T00:00Z, for the check of cron expressions. It is fixed, so that all nodes come to the same verdict."""

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  (a local time has no zone)
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


def schedule_fault(schedule: Schedule) -> tuple[str, str] | None:
    """Give the first field that is wrong, and a sentence about what is wrong and what is allowed."""
    fault = form_fault(schedule)
    if fault is not None:
        return fault
    try:
        _Zone(schedule.zone)
    except ValueError as error:
        return "zone", f"{error} zone must be one of its names, such as Europe/Berlin or UTC."
    if schedule.every != "cron":
        return None
    try:
        CronSim(schedule.cron, _EPOCH)
    except CronSimError as error:
        return "cron", f"cron has a {str(error).lower()} field, or one that fits no month: {schedule.cron!r}."
    try:
        period_at(schedule, REFERENCE_MS)
    except ValueError as error:
        return "cron", f"cron must match again and again, and {schedule.cron!r} does not: {error}"
    return None


def period_at(schedule: Schedule, time_ms: int) -> Period:
    """Give the period in which an instant lies.

    The schedule must be one without a fault. It takes a tenth of a millisecond, and some milliseconds for a cron
    expression that matches once in years. Raises ValueError if the zone is unknown, or if a cron expression has no
    match in the 50 years before or after the instant. It does so too if the period is not within the years 1 to 9999,
    with two days to spare.
    """
    try:
        zone, marks, at_s = _Zone(schedule.zone), _marks_of(schedule), time_ms // 1_000
        if _is_once(schedule):
            mark, begins_s, ends_s = _once(zone, marks, at_s)
        else:
            fills_gaps = schedule.every == "hour"
            mark, begins_s = _last(zone, marks, at_s, fills_gaps)
            ends_s = _next(zone, marks, at_s, fills_gaps)
        second = not _is_once(schedule) and zone.reached(mark) != begins_s
        return Period(_name(schedule, mark) + ".2" * second, begins_s * 1_000, ends_s * 1_000)
    except OverflowError:
        raise ValueError(f"The period of time {time_ms} ms reaches beyond the years 1 to 9999.") from None


def tz_version(zone: str = "UTC") -> str:
    """Give the version of the tz database that serves a zone, such as "2026f"; "unknown" if it does not say.

    Python looks into the system's directories first, then into the package tzdata. Both have a file that begins with
    the version. The package's constant is not used: it stays the old one if the package is updated meanwhile.
    """
    try:
        for directory in map(Path, zoneinfo.TZPATH):
            if (directory / zone).is_file():
                return _version_in((directory / "tzdata.zi").read_bytes())
        return _version_in(resources.files("tzdata.zoneinfo").joinpath("tzdata.zi").read_bytes())
    except (OSError, ImportError):
        return "unknown"


def _version_in(rules: bytes) -> str:
    found = re.match(rb"# version ([0-9A-Za-z.+-]{1,32})\s", rules)
    return found[1].decode() if found else "unknown"


class _Zone:
    """The clocks of a zone. Instants are seconds since 1970 in UTC, local times the same on the zone's clocks."""

    def __init__(self, name: str) -> None:
        try:
            self._zone = zoneinfo.ZoneInfo.no_cache(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"The tz database has no zone {name[:64]!r}.") from None

    def _offset(self, at_s: int) -> int:
        offset = (_EPOCH_UTC + timedelta(seconds=at_s)).astimezone(self._zone).utcoffset()
        assert offset is not None
        return offset // _SECOND

    def _offsets(self, local_s: int) -> tuple[int, int]:
        """Give the offsets before and after a change near a local time. The first is the smaller in a gap."""
        local = (_EPOCH + timedelta(seconds=local_s)).replace(tzinfo=self._zone)
        first, second = local.utcoffset(), local.replace(fold=1).utcoffset()
        assert first is not None
        assert second is not None
        return first // _SECOND, second // _SECOND

    def local(self, at_s: int) -> int:
        """Give the local time of an instant."""
        return at_s + self._offset(at_s)

    def is_skipped(self, local_s: int) -> bool:
        """Whether clocks never show a local time: it is in a gap."""
        first, second = self._offsets(local_s)
        return first < second

    def reached(self, local_s: int) -> int:
        """Give the first instant at which clocks show a local time, or a later one because it is skipped."""
        first, second = self._offsets(local_s)
        return local_s - first if first >= second else self._change(local_s - second, local_s - first)

    def left(self, local_s: int) -> int:
        """Give the last instant at which clocks show a local time that is not skipped."""
        return local_s - self._offsets(local_s)[1]

    def change_before(self, at_s: int) -> int | None:
        """Give the first instant of the present offset, if it is in the window that ends with `at_s`."""
        return self._change(at_s - WINDOW_S, at_s) if self._offset(at_s - WINDOW_S) != self._offset(at_s) else None

    def change_after(self, at_s: int) -> int | None:
        """Give the first instant of the next offset, if it is in the window that begins after `at_s`."""
        return self._change(at_s, at_s + WINDOW_S) if self._offset(at_s + WINDOW_S) != self._offset(at_s) else None

    def _change(self, before_s: int, after_s: int) -> int:
        """Give the instant of the one change between two instants. O(log): 17 steps for a day."""
        offset = self._offset(after_s)
        while after_s - before_s > 1:
            middle_s = (before_s + after_s) // 2
            if self._offset(middle_s) == offset:
                after_s = middle_s
            else:
                before_s = middle_s
        return after_s


class _Marks(Protocol):
    """The local times at which a schedule says that a period begins."""

    def upto(self, local_s: int) -> int:
        """Give the last mark that is not after a local time."""

    def after(self, local_s: int) -> int:
        """Give the first mark after a local time."""


class _Steps:
    """Marks at equal distances: hours, days and weeks."""

    def __init__(self, first_s: int, step_s: int) -> None:
        self._first_s = first_s
        self._step_s = step_s

    def upto(self, local_s: int) -> int:
        return local_s - (local_s - self._first_s) % self._step_s

    def after(self, local_s: int) -> int:
        return self.upto(local_s) + self._step_s


class _Months:
    """A mark on the same day of each month."""

    def __init__(self, moment: Moment) -> None:
        assert 1 <= moment.day <= DAY_MAX
        self._in_month = timedelta(days=moment.day - 1, minutes=moment.minute)

    def _begun(self, local_s: int) -> datetime:
        """Give the first day of the month whose mark is the last one."""
        day = _EPOCH + timedelta(seconds=local_s) - self._in_month
        return day.replace(day=1, hour=0, minute=0, second=0)

    def upto(self, local_s: int) -> int:
        return (self._begun(local_s) + self._in_month - _EPOCH) // _SECOND

    def after(self, local_s: int) -> int:
        following = (self._begun(local_s) + timedelta(days=31)).replace(day=1)
        return (following + self._in_month - _EPOCH) // _SECOND


class _Cron:
    """The matches of a cron expression. cronsim searches 50 years: leap days on Sundays, the rarest, need 40."""

    def __init__(self, cron: str) -> None:
        self._cron = cron

    def upto(self, local_s: int) -> int:
        """Ask about the next second: cronsim gives only what is before a time."""
        return self._found(CronSim(self._cron, _EPOCH + timedelta(seconds=local_s + 1), reverse=True), "before")

    def after(self, local_s: int) -> int:
        return self._found(CronSim(self._cron, _EPOCH + timedelta(seconds=local_s)), "after")

    def _found(self, matches: CronSim, side: str) -> int:
        match = next(matches, None)
        if match is None:
            raise ValueError(f"There is no match in the 50 years {side} the time in question.")
        return (match - _EPOCH) // _SECOND


def _marks_of(schedule: Schedule) -> _Marks:
    if schedule.every == "cron":
        return _Cron(schedule.cron)
    moment = moment_of(schedule)
    if schedule.every == "month":
        return _Months(moment)
    if schedule.every == "week":
        monday = 4  # 5 January 1970
        return _Steps((monday + moment.day) * DAY_S + moment.minute * 60, 7 * DAY_S)
    return _Steps(moment.minute * 60, HOUR_S if schedule.every == "hour" else DAY_S)


def _is_once(schedule: Schedule) -> bool:
    """Whether a mark begins one period only, though clocks may show it twice. The first column of the rules."""
    if schedule.every == "cron":
        minute, hour, *_ = schedule.cron.split()
        return not minute.startswith("*") and not hour.startswith("*")
    return schedule.every != "hour"


def _name(schedule: Schedule, mark_s: int) -> str:
    mark = _EPOCH + timedelta(seconds=mark_s)
    match schedule.every:
        case "hour":
            return mark.isoformat(timespec="hours")
        case "day":
            return mark.date().isoformat()
        case "week":
            year, week, _ = (mark + timedelta(days=3)).isocalendar()
            return f"{year:04}-W{week:02}"
        case "month":
            return mark.date().isoformat()[:7]
        case "cron":
            return mark.isoformat(timespec="minutes")


def _once(zone: _Zone, marks: _Marks, at_s: int) -> tuple[int, int, int]:
    """Give the mark, the beginning and the end of the period at an instant. Each mark begins one period.

    A mark begins its period when clocks first reach it. So what counts is the furthest that clocks have been: if they
    were put back within the window, that was just before.
    """
    change_s = zone.change_before(at_s)
    furthest = zone.local(at_s) if change_s is None else max(zone.local(at_s), zone.local(change_s - 1))
    mark = marks.upto(furthest)
    return mark, zone.reached(mark), zone.reached(marks.after(furthest))


def _last(zone: _Zone, marks: _Marks, at_s: int, fills_gaps: bool) -> tuple[int, int]:
    """Give the last beginning of a period up to an instant, and its mark. A mark begins a period each time.

    If no mark was reached since the last change, the search goes on before the change.
    """
    for _ in range(CHANGES_MAX):
        change_s, local = zone.change_before(at_s), zone.local(at_s)
        mark = marks.upto(local)
        if change_s is None or mark >= zone.local(change_s):
            if local - mark < WINDOW_S:
                return mark, at_s - (local - mark)
            if not zone.is_skipped(mark):
                return mark, zone.left(mark)
            at_s = zone.reached(mark) - 1
        elif fills_gaps and mark > zone.local(change_s - 1):
            return mark, change_s
        else:
            at_s = change_s - 1
    raise ValueError(f"The last {CHANGES_MAX} matches are local times that clocks skip.")


def _next(zone: _Zone, marks: _Marks, at_s: int, fills_gaps: bool) -> int:
    """Give the first beginning of a period after an instant. The mirror of `_last`."""
    passed = zone.local(at_s)
    for _ in range(CHANGES_MAX):
        change_s, local, mark = zone.change_after(at_s), zone.local(at_s), marks.after(passed)
        begins_s = at_s + (mark - local)
        if change_s is None or begins_s < change_s:
            if mark - local < WINDOW_S:
                return begins_s
            if not zone.is_skipped(mark):
                return zone.reached(mark)
            at_s = zone.reached(mark)
        elif fills_gaps and mark < zone.local(change_s):
            return change_s
        else:
            at_s = change_s
        passed = zone.local(at_s) - 1  # the search goes on with the change itself, which may be a mark
    raise ValueError(f"The next {CHANGES_MAX} matches are local times that clocks skip.")
