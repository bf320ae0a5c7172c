"""What happens to boards by itself: periods change, boards are frozen, ranks are noted. Pure: the calendar is given.

    events = due_changes(scoreboard, now_ms, period_at)             those that are due now, for one frame
    period = first_period(rules, (), now_ms, period_at)             the period of a board that is made now

Rules:
- Only a leader asks. What it logs is the truth: a replay and a replica never compute a period.
- A period that has begun keeps its end, whatever becomes of the tz database. The rules of a board may change it.
- The period after one that ended at T is the one that the calendar has for T. If that has passed too, the board goes on
  with the one of now, and those in between are noted as passed, the last `keep_periods` of them.
- No two periods of a board that are kept have one id. A second one gets ".2" at its end, as after a reset.
- A season has one period. When it ends, the board is over: its last ranking stays, and nothing counts any more. So is a
  board whose next period the calendar does not know.
- The clock may go back over a beginning (`ClockCorrected`). What ended stays ended.
- Ranks are noted once an hour (NOTE_EVERY_MS), before all other changes that are due: then the last event before tells
  since when they hold. Nothing is noted while the notes would stay what they are: nothing happened for a day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine.board_rules import BoardDefinition, BoardRules
from engine.dates import date_of
from engine.events import BoardEvent, BoardFrozen, PeriodChanged, RanksNoted
from engine.schedule import Period, Schedule
from engine.scoreboard import Scoreboard

DAY_MS = 86_400_000

CHANGES_IN_FRAME = 64
"""Changes that are logged together. With the most periods that passed they take some 3 MB."""

PeriodAt = Callable[[Schedule, int], Period]
"""Gives the period of a schedule in which an instant lies (`engine.calendar`)."""


def no_calendar(schedule: Schedule, _time_ms: int) -> Period:
    """Stand in where no board has a schedule. Raises ValueError."""
    raise ValueError(f"there is no calendar for {schedule.every!r}")


def first_period(rules: BoardRules, taken: Iterable[str], now_ms: int, period_at: PeriodAt) -> Period | None:
    """Give the period of a board from now on, None if its rules have none. `taken` are the ids of its other periods."""
    if rules.schedule is not None:
        period = period_at(rules.schedule, now_ms)
        return Period(unique_id(period.id, taken), period.begins_ms, period.ends_ms)
    if rules.season is not None:
        begins_ms = now_ms if rules.season.begins_ms is None else rules.season.begins_ms
        return Period(unique_id(date_id(begins_ms), taken), begins_ms, rules.season.ends_ms)
    return None


def due_changes(scoreboard: Scoreboard, now_ms: int, period_at: PeriodAt) -> list[BoardEvent | RanksNoted]:
    """List the changes that are due now, one for each board, at most CHANGES_IN_FRAME; ask again after them."""
    note_due_ms = scoreboard.dues.note_ms(scoreboard.seq)
    if note_due_ms is not None and note_due_ms <= now_ms:
        return [RanksNoted(scoreboard.seq + 1, now_ms, scoreboard.time_ms)]
    changes: list[BoardEvent | RanksNoted] = []
    for board_id in scoreboard.served():
        definition = scoreboard.boards[board_id].definition
        assert definition is not None
        due_ms = definition.due_ms
        if due_ms is not None and due_ms <= now_ms and len(changes) < CHANGES_IN_FRAME:
            seq = scoreboard.seq + 1 + len(changes)
            if due_ms == definition.freeze_at_ms:
                changes.append(BoardFrozen(seq, now_ms, board_id, None, ""))
            else:
                changes.append(_change(board_id, definition, now_ms, seq, period_at))
    return changes


def reset(
    board_id: str, definition: BoardDefinition, caller: str, seq: int, now_ms: int, period_at: PeriodAt
) -> PeriodChanged:
    """End the running period by hand; the next one begins now."""
    running, rules = definition.period, definition.rules
    taken = _ids(definition)
    if running is None:
        begins_ms = min(definition.begun_ms, now_ms)
        ended = Period(unique_id(date_id(now_ms), taken), begins_ms, now_ms)
        return PeriodChanged(seq, now_ms, board_id, ended, None, False, (), caller)
    # The running one may begin later than now: a clock that was ahead made it, and was corrected since.
    ended = Period(running.id, min(running.begins_ms, now_ms), now_ms)
    following = first_period(rules, taken, now_ms, period_at)
    if following is not None:  # the rules may have lost their periods while this one ran
        following = Period(following.id, now_ms, following.ends_ms)
    return PeriodChanged(seq, now_ms, board_id, ended, following, False, (), caller)


def unique_id(nominal: str, taken: Iterable[str]) -> str:
    """Give an id that none had: the nominal one, or with the number at its end that follows the highest of `taken`.

    Ids of periods that are not kept any more are no longer known. But the one before is, so numbers go only upwards.
    """
    highest = 0
    for other in taken:
        base, _, number = other.rpartition(".")
        if other == nominal:
            highest = max(highest, 1)
        elif base == nominal and number.isdecimal():
            highest = max(highest, int(number))
    return nominal if not highest else f"{nominal}.{highest + 1}"


def date_id(time_ms: int) -> str:
    """Give the UTC date of an instant, as the id of a period that no schedule names."""
    year, month, day = date_of(time_ms // DAY_MS)
    return f"{year:04}-{month:02}-{day:02}"


def _change(board_id: str, definition: BoardDefinition, now_ms: int, seq: int, period_at: PeriodAt) -> PeriodChanged:
    ended, schedule = definition.period, definition.rules.schedule
    assert ended is not None
    if schedule is None:
        return PeriodChanged(seq, now_ms, board_id, ended, None, True, (), "")
    try:
        following, passed = _following(definition, schedule, ended, now_ms, period_at)
    except ValueError:
        # The zone is gone from the database, or the expression never matches again. Nothing is guessed.
        return PeriodChanged(seq, now_ms, board_id, ended, None, True, (), "")
    taken = _ids(definition)
    named = []
    for period in (*passed, following):
        named.append(Period(unique_id(period.id, taken), period.begins_ms, period.ends_ms))
        taken.add(named[-1].id)
    return PeriodChanged(seq, now_ms, board_id, ended, named[-1], False, tuple(named[:-1]), "")


def _following(
    definition: BoardDefinition, schedule: Schedule, ended: Period, now_ms: int, period_at: PeriodAt
) -> tuple[Period, list[Period]]:
    """Give the period of now, and those that passed before it. Raises ValueError.

    If the zone's rules changed, the ended period may not be over by the new ones. It is, and the next one is longer.
    """
    due_ms = ended.ends_ms
    assert due_ms is not None
    ids = (ended.id, ended.id.rpartition(".")[0])
    following = period_at(schedule, now_ms)
    if following.begins_ms < due_ms and following.id in ids:
        following = period_at(schedule, following.ends_ms or now_ms)
        return Period(following.id, due_ms, following.ends_ms), []
    periods, is_whole = [following], following.begins_ms <= due_ms
    # Backwards, so that a board which slept for years costs no more than what it keeps.
    while not is_whole and len(periods) <= definition.rules.keep_periods:
        period = period_at(schedule, periods[0].begins_ms - 1)
        is_whole = period.begins_ms <= due_ms
        if period.begins_ms >= due_ms or period.id not in ids:
            periods.insert(0, period)
    if is_whole:
        periods[0] = Period(periods[0].id, due_ms, periods[0].ends_ms)
    return periods[-1], periods[:-1]


def _ids(definition: BoardDefinition) -> set[str]:
    ids = {past.period.id for past in definition.past}
    return ids if definition.period is None else ids | {definition.period.id}
