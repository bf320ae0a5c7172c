"""The actor and the periods: the alarm, a full disk, a deposition, and which events share a frame."""

from __future__ import annotations

from collections.abc import Sequence

import trio
import trio.testing

from engine.actor import FULL_RETRY_SECONDS, Actor, Submission
from engine.board_rules import BoardRules, Rules
from engine.calendar import period_at
from engine.clock import GivenClock
from engine.commands import BoardReceipt, CloseBoard, FreezeBoard, Increment, PutBoard, Receipt, ResetBoard
from engine.errors import DiskFull, LeaderDeposed, OutcomeUnknown
from engine.events import BoardFrozen, BoardPut, Event, Incremented, PeriodChanged
from engine.local_log import LocalLog
from engine.machine import Applied, StateMachine
from engine.periods import CHANGES_IN_FRAME
from engine.schedule import Schedule
from engine.scoreboard import Scoreboard
from tests.engine.games import ms
from tests.engine.model import rows
from tests.engine.test_actor import MemoryLog, SlowLog, submit_into
from tests.engine.test_actor_full import FullLog

HOURLY = BoardRules({"WIN": 10}, schedule=Schedule("hour"))
EVENING = ms("2026-11-27 23:59")
SECONDS_LEFT = 60.0


class Evening:
    """An actor a minute before midnight; its clock goes with Trio's."""

    def __init__(self, make_log: type[MemoryLog] = MemoryLog, boards: Sequence[str] = ("cup",)) -> None:
        self.scoreboard = Scoreboard(Rules({}))
        period = period_at(Schedule("hour"), EVENING)
        for seq, board_id in enumerate(boards, 1):
            self.scoreboard.apply(BoardPut(seq, EVENING, board_id, HOURLY, "ops", period), 1)
        self.told: list[Applied] = []
        self.ended: list[str] = []
        self.log = make_log(self.scoreboard)
        self.log.tail = self.log.tail.__class__(bytes(16), 1, len(boards), 0)
        self.machine = StateMachine(
            self.scoreboard, LocalLog(self.log), self.told.append, lambda ended: self.ended.append(ended.past.period.id)
        )
        self._begun_s = trio.current_time()
        self.actor = Actor(self.machine, clock=GivenClock(self._now_ms), period_at=period_at)

    def _now_ms(self) -> int:
        return EVENING + round((trio.current_time() - self._begun_s) * 1_000)

    async def begin(self, nursery: trio.Nursery) -> None:
        """Run the actor and its alarm."""
        await nursery.start(self.actor.run)
        await nursery.start(self.actor.run_alarm)

    async def end(self, nursery: trio.Nursery) -> None:
        """End both."""
        await self.actor.drain()
        nursery.cancel_scope.cancel()

    def kinds(self) -> list[list[type[Event]]]:
        """List what the frames are made of."""
        return [[type(event) for event in frame] for frame in self.log.frames]


def win(user: str, action: str, board: str = "cup") -> Increment:
    """Make an action."""
    return Increment(user, action, "WIN", board, "game")


async def test_the_alarm_ends_a_period_without_writes(autojump_clock: trio.testing.MockClock) -> None:
    """At midnight and not before, once, told to the feed and to the keeper of periods."""
    evening = Evening()
    async with trio.open_nursery() as nursery:
        await evening.begin(nursery)
        await evening.actor.submit([win("ann", "a")])
        await trio.sleep(SECONDS_LEFT - 0.01)
        assert len(evening.log.frames) == 1
        await trio.sleep(0.02)
        [change] = evening.log.frames[1]
        assert isinstance(change, PeriodChanged)
        assert change.time_ms == ms("2026-11-28 00:00")
        assert [applied.events for applied in evening.told] == evening.log.frames
        assert evening.ended == ["2026-11-27T23"]
        assert evening.machine.tail == evening.log.tail
        await trio.sleep(3_500)
        assert len(evening.log.frames) == 2
        await trio.sleep(100)
        assert len(evening.log.frames) == 3, "the next hour ends as well"
        assert evening.ended == ["2026-11-27T23"], "nobody played in it"
        await evening.end(nursery)


async def test_an_action_after_midnight_finds_the_new_hour(autojump_clock: trio.testing.MockClock) -> None:
    """Without the alarm too: the change is logged in a frame before it, with the time of the action."""
    evening = Evening()
    async with trio.open_nursery() as nursery:
        await nursery.start(evening.actor.run)
        await evening.actor.submit([win("ann", "a")])
        await trio.sleep(SECONDS_LEFT + 5)
        [receipt] = await evening.actor.submit([win("ann", "b")])
        assert isinstance(receipt, Receipt)
        assert (receipt.new_score, receipt.rank, receipt.previous_rank) == (10, 1, None)
        assert evening.kinds() == [[Incremented], [PeriodChanged], [Incremented]]
        assert {frame[0].time_ms for frame in evening.log.frames[1:]} == {ms("2026-11-28 00:00") + 5_000}
        await evening.end(nursery)


async def test_a_retry_after_midnight_ends_nothing_but_its_own_wait(autojump_clock: trio.testing.MockClock) -> None:
    """The client that sends yesterday's action again is told that it was counted, and the actor lives."""
    evening = Evening()
    async with trio.open_nursery() as nursery:
        await evening.begin(nursery)
        await evening.actor.submit([win("ann", "a")])
        await trio.sleep(SECONDS_LEFT + 5)
        [receipt] = await evening.actor.submit([win("ann", "a")])
        assert isinstance(receipt, Receipt)
        assert (receipt.applied, receipt.new_score) == (False, 0)
        assert evening.actor.statistics().accepting
        await evening.end(nursery)


async def test_a_full_disk_at_the_change_refuses_writes_until_there_is_room(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """No action is counted for the hour that is over, nor for the next one before the change is logged."""
    evening = Evening(FullLog)
    log = evening.log
    assert isinstance(log, FullLog)
    answers: list[object] = []
    async with trio.open_nursery() as nursery:
        await evening.begin(nursery)
        await evening.actor.submit([win("ann", "a")])
        log.roomless = True
        await trio.sleep(SECONDS_LEFT + 5)
        assert evening.kinds() == [[Incremented]]
        for number in range(3):
            nursery.start_soon(submit_into, evening.actor, [win("bob", f"b{number}")], answers)
        await trio.testing.wait_all_tasks_blocked()
        assert [type(answer) for answer in answers] == [DiskFull] * 3
        assert rows(evening.scoreboard.boards["cup"]) == [(1, "ann", 10)]
        assert evening.actor.statistics().waiting == 0
        log.roomless = False
        await trio.sleep(3 * FULL_RETRY_SECONDS)
        assert evening.kinds() == [[Incremented], [PeriodChanged]], "the alarm rang again"
        [receipt] = await evening.actor.submit([win("bob", "b")])
        assert isinstance(receipt, Receipt)
        assert receipt.new_score == 10
        await evening.end(nursery)


async def test_an_alarm_on_a_full_disk_asks_once_a_second(autojump_clock: trio.testing.MockClock) -> None:
    """However long there is no room, and nobody is told of it by an exception of the actor."""
    evening = Evening(FullLog)
    log = evening.log
    assert isinstance(log, FullLog)
    log.roomless = True
    async with trio.open_nursery() as nursery:
        await evening.begin(nursery)
        await trio.sleep(SECONDS_LEFT + 100)
        assert 90 <= log.asked <= 110
        assert evening.actor.statistics().accepting
        await evening.end(nursery)


async def test_an_actor_that_is_deposed_during_a_change_writes_no_more() -> None:
    """What the disk has is applied; neither the other changes that are due nor the action behind them are written."""
    boards = [f"board-{number:03}" for number in range(100)]
    evening = Evening(SlowLog, boards)
    log = evening.log
    assert isinstance(log, SlowLog)
    actor = Actor(evening.machine, clock=GivenClock(lambda: ms("2026-11-28 00:00")), period_at=period_at)
    called: list[Submission] = []
    actor.submit_nowait([win("ann", "a", boards[0])], called.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(actor.run)
        assert await trio.to_thread.run_sync(log.begun.wait, 20.0)
        actor.depose()
        log.let_go.set()
        await actor.drain()
    assert [len(frame) for frame in log.frames] == [CHANGES_IN_FRAME]
    assert [type(done.error) for done in called] == [LeaderDeposed]
    assert evening.scoreboard.seq == log.tail.seq == evening.machine.tail.seq
    assert [applied.events for applied in evening.told] == log.frames
    assert evening.scoreboard.action_seq("a") is None


async def test_the_periods_of_many_boards_that_end_together_share_frames(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A hundred boards take two frames, each board one change, and what is counted then is counted for the new hour."""
    boards = [f"board-{number:03}" for number in range(100)]
    evening = Evening(MemoryLog, boards)
    async with trio.open_nursery() as nursery:
        await evening.begin(nursery)
        await trio.sleep(SECONDS_LEFT)
        [receipt] = await evening.actor.submit([win("ann", "a", boards[99])])
        assert isinstance(receipt, Receipt)
        assert [len(frame) for frame in evening.log.frames] == [CHANGES_IN_FRAME, 100 - CHANGES_IN_FRAME, 1]
        changes = [event for frame in evening.log.frames[:2] for event in frame]
        assert [event.board_id for event in changes if isinstance(event, PeriodChanged)] == boards
        await evening.end(nursery)


async def test_a_command_about_a_board_is_alone_in_its_frame() -> None:
    """What came before it is decided by the old rules, what comes behind it by the new ones, all at the same moment."""
    evening = Evening()
    answers: list[object] = []
    async with trio.open_nursery() as nursery:
        for commands in (
            [win("ann", "a"), win("bob", "b")],
            [win("ann", "c")],
            [PutBoard("cup", BoardRules({"WIN": 3}, schedule=Schedule("hour")), "ops")],
            [win("ann", "d")],
            [FreezeBoard("cup", "ops")],
            [CloseBoard("cup", "ops")],
        ):
            evening.actor.submit_nowait(commands, lambda done: answers.append(done.outcomes[-1]))
        await nursery.start(evening.actor.run)
        await evening.end(nursery)
    assert [[type(event).__name__ for event in frame] for frame in evening.log.frames] == [
        ["Incremented"] * 3, ["BoardPut"], ["Incremented"], ["BoardFrozen"], ["BoardClosed"]
    ]  # fmt: skip
    scores = [answer.new_score for answer in answers if isinstance(answer, Receipt)]
    assert scores == [10, 20, 23]


async def test_a_deposed_actor_tells_the_caller_of_a_reset_that_its_outcome_is_unknown() -> None:
    """The reset is in the log here, and the new leader may not have it."""
    evening = Evening(SlowLog)
    log = evening.log
    assert isinstance(log, SlowLog)
    called: list[Submission] = []
    evening.actor.submit_nowait([ResetBoard("cup", "ops")], called.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(evening.actor.run)
        assert await trio.to_thread.run_sync(log.begun.wait, 20.0)
        evening.actor.depose()
        log.let_go.set()
        await evening.end(nursery)
    assert [type(done.error) for done in called] == [OutcomeUnknown]
    assert evening.kinds() == [[PeriodChanged]]


async def test_a_planned_freeze_comes_by_the_alarm(autojump_clock: trio.testing.MockClock) -> None:
    """Half a minute before midnight the board is frozen, and at midnight its period ends. Nobody asked again."""
    evening = Evening()
    async with trio.open_nursery() as nursery:
        await evening.begin(nursery)
        [receipt] = await evening.actor.submit([FreezeBoard("cup", "ops", EVENING + 30_000)])
        assert isinstance(receipt, BoardReceipt)
        await trio.sleep(31)
        assert evening.kinds()[1:] == [[BoardFrozen]]
        await trio.sleep(31)
        assert evening.kinds()[2:] == [[PeriodChanged]]
        await evening.end(nursery)
