"""The actor on a full disk: who is refused, who is answered, when it tries again."""

from __future__ import annotations

import trio
import trio.testing

from engine.actor import FULL_RETRY_SECONDS
from engine.commands import Receipt, Rejection
from engine.errors import DiskFull, LeaderDeposed
from engine.local_log import LocalLog
from engine.log import Synced
from engine.record import events_of, unpack_frame
from tests.engine.model import increment, put, told
from tests.engine.test_actor import Bench, MemoryLog, submit_into


class FullLog(MemoryLog):
    """A log that lays out no segment while `roomless`. `fit` events in a frame need none. `asked` counts attempts."""

    roomless = False
    fit = 0
    asked = 0

    def append_frame(self, expected_seq: int, data: bytes) -> Synced:
        """Append, or find the disk full."""
        events = events_of(unpack_frame(data))
        if len(events) > self.fit:
            if self.full is not None:
                raise self.full.again()
            self.lay_out(events[0].seq)
        return super().append_frame(expected_seq, data)

    def lay_out(self, seq: int) -> None:
        """Lay out a segment if there is room."""
        self.asked += 1
        if self.roomless:
            self.full = DiskFull("the next segment does not fit", path="log/2.log", seq=seq)
            raise self.full
        self.full = None

    def make_room(self) -> None:
        """Try again."""
        if self.full is not None:
            self.lay_out(self.tail.seq + 1)


class FullBench(Bench):
    """An actor on such a log."""

    def __init__(self) -> None:
        super().__init__()
        self.full_log = self.log = FullLog(self.scoreboard)
        self.machine.log = LocalLog(self.log)


async def test_a_full_disk_refuses_what_needs_an_event_and_nothing_else(autojump_clock: trio.testing.MockClock) -> None:
    """A full disk ends the service: repeated actions and rejections get their answers, nothing is counted."""
    bench = FullBench()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.actor.run)
        await bench.actor.submit([increment("ann", "a")])
        bench.full_log.roomless = True
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
        assert bench.full_log.full is not None
        assert bench.actor.statistics().accepting
        await bench.actor.drain()


async def test_writing_resumes_by_itself_without_asking_all_the_time(autojump_clock: trio.testing.MockClock) -> None:
    """However many callers come: one attempt a second, and the first one after there is room succeeds."""
    bench = FullBench()
    bench.full_log.roomless = True
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
        bench.full_log.roomless = False
        await trio.sleep(FULL_RETRY_SECONDS)
        [outcome] = await bench.actor.submit([increment("ann", "a7")])
        assert told(outcome) == ("applied", 1, 10)
        assert bench.full_log.full is None
        await bench.actor.drain()


async def test_room_is_found_while_nobody_writes(autojump_clock: trio.testing.MockClock) -> None:
    """The log has room again within a second, so that an operator sees it. Then it is not asked any more."""
    bench = FullBench()
    bench.full_log.roomless = True
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.actor.run)
        await submit_into(bench.actor, [increment("ann", "a")], [])
        await trio.sleep(3.5 * FULL_RETRY_SECONDS)
        assert bench.full_log.asked == 4
        bench.full_log.roomless = False
        await trio.sleep(FULL_RETRY_SECONDS)
        assert bench.full_log.full is None
        await trio.sleep(10 * FULL_RETRY_SECONDS)
        assert bench.full_log.asked == 5
        await bench.actor.drain()


async def test_what_fits_is_written_beside_what_does_not(autojump_clock: trio.testing.MockClock) -> None:
    """A batch that needs a new segment takes nobody with it who came at the same time. The disk stays full."""
    bench = FullBench()
    bench.full_log.roomless, bench.full_log.fit = True, 1
    answers: list[object] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.actor.run)
        for turn in range(3):
            batch = [increment("ann", f"b{turn}-{number}") for number in range(3)]
            for commands in ([increment("bob", f"{turn}-1")], batch, [increment("bob", f"{turn}-2")]):
                nursery.start_soon(submit_into, bench.actor, commands, answers)
            await trio.testing.wait_all_tasks_blocked()
            assert bench.full_log.full is not None
        assert sum(isinstance(answer, DiskFull) for answer in answers) == 3
        assert sum(isinstance(answer, list) and isinstance(answer[0], Receipt) for answer in answers) == 6
        assert (bench.full_log.asked, bench.actor.statistics().waiting) == (1, 0)
        await bench.actor.drain()


async def test_a_deposed_actor_says_so_on_a_full_disk_too() -> None:
    """Its callers must go to the new leader, not come again here."""
    bench = FullBench()
    bench.full_log.roomless = True
    answers: list[object] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.actor.run)
        await submit_into(bench.actor, [increment("ann", "a")], answers)
        bench.actor.depose()
        await submit_into(bench.actor, [increment("ann", "b")], answers)
        await bench.actor.drain()
    assert [type(answer) for answer in answers] == [DiskFull, LeaderDeposed]
