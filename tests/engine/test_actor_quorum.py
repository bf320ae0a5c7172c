"""The actor on a log that others write too: a lost place, doubt about a frame, rest, and leading again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import trio
import trio.testing

from engine.actor import Actor
from engine.clock import GivenClock
from engine.commands import Command, Receipt
from engine.errors import DiskFull, FrameTooLong, LeaderDeposed, LostPlace, NoQuorum, OutcomeUnknown
from engine.log_facts import Synced
from engine.machine import Applied, StateMachine
from engine.record import Frame, Tail, unpack_frame
from engine.scoreboard import Scoreboard
from tests.engine.model import increment
from tests.engine.test_actor import RULES, submit_into


class SharedLog:
    """A log whose appends wait until they are `let_go`, and lose their place if `lost`."""

    blocks = False
    full: DiskFull | None = None
    frame_bytes_max = 10_000

    def __init__(self) -> None:
        self.tail = Tail(log_id=bytes(16), epoch=1, seq=0, checksum=0)
        self.waits = False
        self.lost = False
        self.begun = trio.Event()
        self.let_go = trio.Event()
        self.frames: list[bytes] = []

    def make_room(self) -> None:
        """It is never full."""

    async def append(self, expected_seq: int, frame: bytes) -> Synced:
        """Take a frame."""
        assert expected_seq == self.tail.seq
        self.begun.set()
        if self.waits:
            await self.let_go.wait()
        if self.lost:
            raise LostPlace("another frame is there")
        header = unpack_frame(frame)
        self.frames.append(frame)
        self.tail = Tail(self.tail.log_id, header.epoch, header.last_seq, header.checksum)
        return Synced(len(frame), 0.0, frame)

    def read_from(self, seq: int) -> Iterator[Frame]:
        """Read what was appended."""
        return (frame for frame in map(unpack_frame, self.frames) if frame.last_seq >= seq)


class QuorumBench:
    """An actor on such a log."""

    def __init__(self) -> None:
        self.scoreboard = Scoreboard(RULES)
        self.log = SharedLog()
        self.told: list[Applied] = []
        self.losses: list[str] = []
        self.actor = Actor(
            StateMachine(self.scoreboard, self.log, self.told.append),
            clock=GivenClock(lambda: 1_000),
            on_lost=lambda lost: self.losses.append(str(lost)),
        )


async def test_a_lost_place_deposes_and_nothing_of_the_frame_is_done(autojump_clock: trio.testing.MockClock) -> None:
    """Its callers are told so, and later ones too; the state is as before."""
    bench = QuorumBench()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.actor.run)
        await bench.actor.submit([increment("ann", "a")])
        bench.log.lost = True
        with pytest.raises(LeaderDeposed):
            await bench.actor.submit([increment("ann", "b")])
        with pytest.raises(LeaderDeposed):
            await bench.actor.submit([increment("ann", "c")])
        assert bench.losses == ["another frame is there"]
        assert bench.scoreboard.seq == bench.log.tail.seq == 1
        nursery.cancel_scope.cancel()


async def test_while_a_frame_is_in_doubt_nothing_is_decided(autojump_clock: trio.testing.MockClock) -> None:
    """Its callers learn that the outcome is unknown, waiting and new ones that there is no quorum; then all goes on."""
    bench = QuorumBench()
    answers: list[object] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.actor.run)
        bench.log.waits = True
        nursery.start_soon(submit_into, bench.actor, [increment("ann", "a")], answers)
        await bench.log.begun.wait()
        nursery.start_soon(submit_into, bench.actor, [increment("ann", "b")], answers)
        await trio.testing.wait_all_tasks_blocked()
        bench.actor.doubt("no server answers")
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(type(answer).__name__ for answer in answers) == ["NoQuorum", "OutcomeUnknown"]
        with pytest.raises(NoQuorum, match="no server answers"):
            await bench.actor.submit([increment("ann", "c")])
        bench.actor.doubt(None)
        bench.log.let_go.set()
        again = await bench.actor.submit([increment("ann", "a")])
        assert isinstance(again[0], Receipt)
        assert (again[0].applied, again[0].seq) == (False, 1)
        assert len(bench.told) == 1
        nursery.cancel_scope.cancel()


async def test_a_deposed_actor_rests_when_its_frame_is_settled(autojump_clock: trio.testing.MockClock) -> None:
    """The frame is placed after all: it is applied, its callers don't know, and then the actor leads again."""
    bench = QuorumBench()
    answers: list[object] = []
    rested = trio.Event()

    async def rest() -> None:
        await bench.actor.rest()
        rested.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(bench.actor.run)
        bench.log.waits = True
        nursery.start_soon(submit_into, bench.actor, [increment("ann", "a")], answers)
        await bench.log.begun.wait()
        bench.actor.depose()
        nursery.start_soon(rest)
        await trio.testing.wait_all_tasks_blocked()
        assert not rested.is_set()
        bench.log.let_go.set()
        await rested.wait()
        assert [type(answer) for answer in answers] == [OutcomeUnknown]
        assert bench.scoreboard.seq == bench.log.tail.seq == 1
        bench.actor.reinstate()
        [receipt] = await bench.actor.submit([increment("ann", "b")])
        assert isinstance(receipt, Receipt)
        assert receipt.applied
        nursery.cancel_scope.cancel()


async def submit_and_note(actor: Actor, commands: Sequence[Command], answers: list[object]) -> None:
    """Submit, and note the outcomes or that it was too long."""
    try:
        answers.append(await actor.submit(commands))
    except FrameTooLong as too_long:
        answers.append(too_long)


async def test_a_frame_that_is_too_long_is_taken_apart(autojump_clock: trio.testing.MockClock) -> None:
    """What fits alone is written; a submission that does not fit alone is refused, and nothing of it is done."""
    bench = QuorumBench()
    answers: list[object] = []
    long = [increment("ann", f"a{number:0100}") for number in range(60)]
    longer = [increment("ben", f"b{number:0100}") for number in range(120)]
    async with trio.open_nursery() as nursery:
        for commands in (long, longer, [increment("cyd", "c")]):
            nursery.start_soon(submit_and_note, bench.actor, commands, answers)
        await trio.testing.wait_all_tasks_blocked()
        await nursery.start(bench.actor.run)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(type(answer).__name__ for answer in answers) == ["FrameTooLong", "list", "list"]
        assert all(len(frame) <= bench.log.frame_bytes_max for frame in bench.log.frames)
        assert bench.scoreboard.seq == bench.log.tail.seq == 61
        with pytest.raises(FrameTooLong, match="at most 10000 fit here"):
            await bench.actor.submit(longer)
        nursery.cancel_scope.cancel()
