"""The actor on a full disk: who is refused, who is answered, when it tries again."""

from __future__ import annotations

from collections.abc import Sequence

import trio
import trio.testing
from msgspec import UNSET

from engine.actor import FULL_RETRY_SECONDS
from engine.commands import Receipt, Rejection
from engine.errors import DiskFull, LeaderDeposed
from engine.events import Event
from engine.log import Synced
from tests.engine.model import increment, put, told
from tests.engine.test_actor import Bench, MemoryLog, submit_into


class FullLog(MemoryLog):
    """A log that has no room while `full`. `asked` counts the attempts."""

    full = False
    asked = 0

    def append(self, events: Sequence[Event], epoch: int) -> Synced:
        """Append, or find the disk full."""
        self.asked += 1
        if self.full:
            raise DiskFull("the next segment does not fit", path="log/2.log", seq=events[0].seq)
        return super().append(events, epoch)


class FullBench(Bench):
    """An actor on such a log."""

    def __init__(self) -> None:
        super().__init__()
        self.full_log = self.log = self.machine.log = FullLog(self.scoreboard)


async def test_a_full_disk_refuses_what_needs_an_event_and_nothing_else(autojump_clock: trio.testing.MockClock) -> None:
    """A full disk ends the service: repeated actions and rejections get their answers, nothing is counted."""
    bench = FullBench()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.actor.run)
        await bench.actor.submit([increment("ann", "a")])
        bench.full_log.full = True
        answers: list[object] = []
        for commands in (
            [increment("ann", "b")],
            [increment("ann", "a")],
            [increment("ann", "c", reason="UNKNOWN")],
            [increment("ann", "a"), increment("ann", "d")],
            [put("ann", "Ann")],
        ):
            nursery.start_soon(submit_into, bench.actor, commands, answers)
        await trio.testing.wait_all_tasks_blocked()
        kinds = sorted(type(answer[0] if isinstance(answer, list) else answer).__name__ for answer in answers)
        assert kinds == ["DiskFull", "DiskFull", "DiskFull", "Receipt", "Rejection"]
        [receipt] = [answer[0] for answer in answers if isinstance(answer, list) and isinstance(answer[0], Receipt)]
        assert (receipt.applied, receipt.seq) == (False, 1)
        assert any(isinstance(answer, list) and isinstance(answer[0], Rejection) for answer in answers)
        assert bench.scoreboard.seq == 1
        assert bench.actor.statistics().full is not None
        assert bench.actor.statistics().accepting
        await bench.actor.drain()


async def test_writing_resumes_by_itself_without_asking_all_the_time(autojump_clock: trio.testing.MockClock) -> None:
    """However many callers come: one attempt a second, and the first one after there is room succeeds."""
    bench = FullBench()
    bench.full_log.full = True
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.actor.run)
        answers: list[object] = []
        for number in range(500):
            await submit_into(bench.actor, [increment("ann", f"a{number}")], answers)
        assert [type(answer) for answer in answers] == [DiskFull] * 500
        assert len({id(answer) for answer in answers}) == 500, "a shared error would collect the stacks of all"
        assert bench.full_log.asked == 1
        await trio.sleep(FULL_RETRY_SECONDS)
        await submit_into(bench.actor, [increment("ann", "b")], answers)
        assert bench.full_log.asked == 2
        bench.full_log.full = False
        await trio.sleep(FULL_RETRY_SECONDS)
        [outcome] = await bench.actor.submit([increment("ann", "a7")])
        assert told(outcome) == ("applied", 1, 10)
        assert bench.actor.statistics().full is None
        await bench.actor.drain()


async def test_a_deposed_actor_says_so_on_a_full_disk_too() -> None:
    """Its callers must go to the new leader, not come again here."""
    bench = FullBench()
    bench.full_log.full = True
    answers: list[object] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.actor.run)
        await submit_into(bench.actor, [increment("ann", "a")], answers)
        bench.actor.depose()
        await submit_into(bench.actor, [increment("ann", "b")], answers)
        await bench.actor.drain()
    assert [type(answer) for answer in answers] == [DiskFull, LeaderDeposed]
