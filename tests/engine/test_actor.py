"""The single writer: order of a write, group commit, bounds, failing disks. The log here is a list in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
import trio
import trio.testing

from engine.actor import Actor, Submission
from engine.board_rules import BoardRules, rules_of_points
from engine.clock import ClockReading, GivenClock
from engine.commands import CloseBoard, Command, Outcome, PutBoard, Receipt, Rejection
from engine.errors import DiskFull, LeaderDeposed, OutcomeUnknown, Overloaded, WriteFailed
from engine.events import ClockCorrected, Event
from engine.limits import BATCH_COMMANDS_MAX, FRAME_RECORDS_MAX, INBOX_COMMANDS_MAX
from engine.local_log import LocalLog
from engine.log import Synced, Tail
from engine.machine import ActorStatistics, Applied, StateMachine
from engine.record import Frame, events_of, pack_frame, unpack_frame
from engine.scoreboard import Scoreboard
from tests.engine.model import increment, told

PATIENCE_SECONDS = 20.0

RULES = rules_of_points({"main": {"ACTION_COMPLETED": 10}})


class MemoryLog:
    """A log that keeps frames in memory and fails when told to. Looks at the scoreboard to see what is shown when."""

    def __init__(self, scoreboard: Scoreboard) -> None:
        self.blocks = False
        self.full: DiskFull | None = None
        self.frames: list[list[Event]] = []
        self.tail = Tail(log_id=bytes(16), epoch=1, seq=0, checksum=0)
        self.broken = False
        self.seen_while_writing: list[int] = []
        self._scoreboard = scoreboard

    def make_room(self) -> None:
        """It is never full."""

    def append_frame(self, expected_seq: int, data: bytes) -> Synced:
        assert expected_seq == self.tail.seq
        frame = unpack_frame(data)
        events = events_of(frame)
        self.seen_while_writing.append(self._scoreboard.seq)
        if self.broken:
            raise WriteFailed("the disk is broken", path="log/1.log", offset=64, seq=events[0].seq)
        self.frames.append(events)
        self.tail = Tail(self.tail.log_id, frame.epoch, frame.last_seq, frame.checksum)
        return Synced(bytes=1, seconds=0.0)

    def read_from(self, seq: int) -> Iterator[Frame]:
        """Read what was appended."""
        for events in self.frames:
            if events[-1].seq >= seq:
                yield unpack_frame(pack_frame(events, epoch=1, previous=0))


class Bench:
    """An actor with its log, and what it told."""

    def __init__(self) -> None:
        self.scoreboard = Scoreboard(RULES)
        self.log = MemoryLog(self.scoreboard)
        self.told: list[Applied] = []
        self.machine = StateMachine(self.scoreboard, LocalLog(self.log), self.told.append)
        self.actor = Actor(self.machine, clock=GivenClock(lambda: 1_000))


async def submit_into(actor: Actor, commands: Sequence[Command], answers: list[object]) -> None:
    try:
        answers.append(await actor.submit(commands))
    except (Overloaded, OutcomeUnknown, LeaderDeposed, DiskFull) as error:
        answers.append(error)


async def test_an_increment_is_logged_then_applied_then_answered() -> None:
    """While the log is written the scoreboard still shows the state before; afterwards the answer is there."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.actor.run)
        outcomes = await bench.actor.submit([increment("ann", "a")])
        assert [told(outcome) for outcome in outcomes] == [("applied", 1, 10)]
        assert bench.log.seen_while_writing == [0]
        assert [applied.events for applied in bench.told] == bench.log.frames
        assert bench.machine.tail.seq == bench.scoreboard.seq == 1
        await bench.actor.drain()


async def test_what_waits_together_is_written_with_one_fsync() -> None:
    """Fifty callers that wait at the same moment share a frame, and each gets its own answer."""
    bench = Bench()
    answers: list[object] = []
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(submit_into, bench.actor, [increment(f"u{number}", f"a{number}")], answers)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.actor.statistics().waiting == 50
        await nursery.start(bench.actor.run)
        await bench.actor.drain()
    assert [len(frame) for frame in bench.log.frames] == [50]
    receipts = [answer[0] for answer in answers if isinstance(answer, list)]
    assert sorted(receipt.seq for receipt in receipts) == list(range(1, 51))
    assert all(receipt.action_id == f"a{receipt.user_id[1:]}" for receipt in receipts)


async def test_a_frame_is_bounded_and_never_parts_a_submission() -> None:
    """Batches that do not fit together go into the next frame, whole."""
    bench = Bench()
    answers: list[object] = []
    per_frame = FRAME_RECORDS_MAX // BATCH_COMMANDS_MAX
    async with trio.open_nursery() as nursery:
        for number in range(per_frame + 1):
            batch = [increment("ann", f"{number}-{n}") for n in range(BATCH_COMMANDS_MAX)]
            nursery.start_soon(submit_into, bench.actor, batch, answers)
        await trio.testing.wait_all_tasks_blocked()
        await nursery.start(bench.actor.run)
        await bench.actor.drain()
    assert [len(frame) for frame in bench.log.frames] == [per_frame * BATCH_COMMANDS_MAX, BATCH_COMMANDS_MAX]


async def test_a_change_of_boards_has_a_frame_of_its_own() -> None:
    """What waits before it is decided by the old rules, and what waits behind it by the new ones."""
    bench = Bench()
    answers: list[object] = []
    waiting: list[list[Command]] = [
        [increment("ann", "a1")],
        [increment("ann", "a2")],
        [PutBoard("main", BoardRules({"ACTION_COMPLETED": 3}), "ops")],
        [increment("ann", "a3")],
        [CloseBoard("main", "ops")],
        [increment("ann", "a4")],
    ]
    async with trio.open_nursery() as nursery:
        for commands in waiting:
            bench.actor.submit_nowait(commands, lambda done: answers.append(done.outcomes[0]))
        await nursery.start(bench.actor.run)
        await bench.actor.drain()
    assert [[type(event).__name__ for event in frame] for frame in bench.log.frames] == [
        ["Incremented", "Incremented"], ["BoardPut"], ["Incremented"], ["BoardClosed"],
    ]  # fmt: skip
    scores = [answer.new_score for answer in answers if isinstance(answer, Receipt)]
    assert scores == [10, 20, 23]
    assert isinstance(answers[-1], Rejection)
    assert answers[-1].code == "BOARD_CLOSED"


async def test_duplicates_and_rejections_cost_the_log_nothing() -> None:
    """A submission in which nothing new is decided is answered without a frame."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.actor.run)
        await bench.actor.submit([increment("ann", "a")])
        outcomes = await bench.actor.submit([increment("ann", "a"), increment("ann", "b", "NOPE")])
        assert [told(outcome)[0] for outcome in outcomes] == ["duplicate", "INVALID_REQUEST"]
        assert len(bench.log.frames) == len(bench.told) == 1
        await bench.actor.drain()


async def test_a_full_inbox_refuses_at_once() -> None:
    """The command that does not fit gets Overloaded without waiting; the others are done in the end."""
    bench = Bench()
    answers: list[object] = []
    async with trio.open_nursery() as nursery:
        for number in range(INBOX_COMMANDS_MAX // BATCH_COMMANDS_MAX):
            batch = [increment("ann", f"{number}-{n}") for n in range(BATCH_COMMANDS_MAX)]
            nursery.start_soon(submit_into, bench.actor, batch, answers)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Overloaded):
            await bench.actor.submit([increment("ann", "one too many")])
        await nursery.start(bench.actor.run)
        await bench.actor.drain()
    assert bench.scoreboard.seq == INBOX_COMMANDS_MAX
    assert bench.scoreboard.action_seq("one too many") is None


async def test_a_caller_that_went_away_has_its_command_done_all_the_same() -> None:
    """Cancelling the wait does not take the command back."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0):
            await bench.actor.submit([increment("ann", "a")])
        await nursery.start(bench.actor.run)
        await bench.actor.drain()
    assert bench.scoreboard.action_seq("a") == 1


async def test_a_failed_write_ends_the_actor_and_nobody_is_told_yes() -> None:
    """Those in the frame get OutcomeUnknown, later ones Overloaded, and run raises what the disk said."""
    bench = Bench()
    bench.log.broken = True
    answers: list[object] = []
    full = [increment("ann", f"{n}") for n in range(BATCH_COMMANDS_MAX)]
    failure: WriteFailed | None = None
    async with trio.open_nursery() as nursery:
        for _ in range(FRAME_RECORDS_MAX // BATCH_COMMANDS_MAX):
            nursery.start_soon(submit_into, bench.actor, full, answers)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(submit_into, bench.actor, full, answers)
        await trio.testing.wait_all_tasks_blocked()
        try:
            await bench.actor.run()
        except WriteFailed as error:
            failure = error
    assert failure is not None
    assert (failure.path, failure.offset, failure.seq) == ("log/1.log", 64, 1)
    kinds = [type(answer) for answer in answers]
    assert kinds.count(OutcomeUnknown) == FRAME_RECORDS_MAX // BATCH_COMMANDS_MAX
    assert kinds.count(Overloaded) == 1
    assert bench.scoreboard.seq == 0
    assert bench.told == []
    with pytest.raises(Overloaded):
        await bench.actor.submit([increment("ann", "later")])


async def test_draining_finishes_what_waits_and_takes_nothing_new() -> None:
    """Everything submitted before the drain is answered; what comes after is refused."""
    bench = Bench()
    answers: list[object] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(submit_into, bench.actor, [increment("ann", "a")], answers)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(bench.actor.run)
        await bench.actor.drain()
        with pytest.raises(Overloaded):
            await bench.actor.submit([increment("ann", "b")])
    (outcomes,) = answers
    assert isinstance(outcomes, list)
    first: Outcome = outcomes[0]
    assert told(first) == ("applied", 1, 10)


async def test_a_capture_belongs_to_the_end_of_what_was_applied() -> None:
    """The image's seq is the tail's."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.actor.run)
        await bench.actor.submit([increment("ann", "a"), increment("ben", "b")])
        image, tail = bench.machine.capture()
        assert image.seq == tail.seq == 2
        assert image.boards[0].user_ids[: image.boards[0].count] == ["ann", "ben"]
        await bench.actor.drain()


async def test_without_waiting_the_answers_come_by_a_call() -> None:
    """Once, later, with the outcomes in the order of the commands, and when they can be seen in the scoreboard."""
    bench = Bench()
    seen: list[tuple[Submission, int]] = []
    async with trio.open_nursery() as nursery:
        commands = [increment("ann", "a"), increment("ann", "a"), increment("ann", "b", "NOPE")]
        submission = bench.actor.submit_nowait(commands, lambda done: seen.append((done, bench.scoreboard.seq)))
        other = bench.actor.submit_nowait([increment("ben", "b")], lambda done: seen.append((done, len(seen))))
        assert (bench.actor.statistics().waiting, seen) == (4, [])
        await nursery.start(bench.actor.run)
        await bench.actor.drain()
    assert seen == [(submission, 2), (other, 1)]
    assert [told(outcome)[0] for outcome in submission.outcomes] == ["applied", "duplicate", "INVALID_REQUEST"]
    assert [told(outcome) for outcome in other.outcomes] == [("applied", 2, 10)]
    assert (submission.error, other.error) == (None, None)
    assert [len(frame) for frame in bench.log.frames] == [2]


async def test_without_waiting_a_full_inbox_and_an_ended_actor_refuse_at_once() -> None:
    """Nothing was taken then, and nobody is called."""
    bench = Bench()
    called: list[Submission] = []
    full = [increment("ann", str(n)) for n in range(BATCH_COMMANDS_MAX)]
    async with trio.open_nursery() as nursery:
        for _ in range(INBOX_COMMANDS_MAX // BATCH_COMMANDS_MAX):
            bench.actor.submit_nowait(full, called.append)
        with pytest.raises(Overloaded):
            bench.actor.submit_nowait([increment("ann", "one too many")], called.append)
        await nursery.start(bench.actor.run)
        await bench.actor.drain()
    assert len(called) == INBOX_COMMANDS_MAX // BATCH_COMMANDS_MAX
    with pytest.raises(Overloaded):
        bench.actor.submit_nowait([increment("ann", "late")], called.append)
    assert len(called) == INBOX_COMMANDS_MAX // BATCH_COMMANDS_MAX
    assert bench.scoreboard.seq == BATCH_COMMANDS_MAX, "the others were repetitions"


async def test_without_waiting_a_failed_write_is_told_by_the_call() -> None:
    """OutcomeUnknown to what was being written, Overloaded to what waited behind it; each is called once."""
    bench = Bench()
    bench.log.broken = True
    called: list[Submission] = []
    full = [increment("ann", str(n)) for n in range(BATCH_COMMANDS_MAX)]
    in_frame = FRAME_RECORDS_MAX // BATCH_COMMANDS_MAX
    for _ in range(in_frame + 1):
        bench.actor.submit_nowait(full, called.append)
    with pytest.raises(WriteFailed):
        await bench.actor.run()
    assert [type(done.error) for done in called] == [OutcomeUnknown] * in_frame + [Overloaded]
    assert all(done.outcomes == [] for done in called)
    assert bench.actor.statistics().waiting == 0


class SlowLog(MemoryLog):
    """A log whose append, in its thread, waits until it is let go."""

    def __init__(self, scoreboard: Scoreboard) -> None:
        super().__init__(scoreboard)
        self.blocks = True
        self.begun = threading.Event()
        self.let_go = threading.Event()

    def append_frame(self, expected_seq: int, data: bytes) -> Synced:
        self.begun.set()
        assert self.let_go.wait(PATIENCE_SECONDS)
        return super().append_frame(expected_seq, data)


class SlowBench(Bench):
    """An actor that stands in the middle of a write for as long as a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.log: SlowLog = SlowLog(self.scoreboard)
        self.machine = StateMachine(self.scoreboard, LocalLog(self.log), self.told.append)
        self.actor = Actor(self.machine, clock=GivenClock(lambda: 1_000))

    async def wait_writing(self) -> None:
        """Wait until the disk has a frame."""
        assert await trio.to_thread.run_sync(self.log.begun.wait, PATIENCE_SECONDS)


async def test_a_deposed_actor_fails_what_waits_and_what_comes() -> None:
    """At once, each with an error of its own; nothing is written, and the actor can still be drained."""
    bench = Bench()
    called: list[Submission] = []
    answers: list[object] = []
    async with trio.open_nursery() as nursery:
        for number in range(3):
            bench.actor.submit_nowait([increment("ann", f"{number}")], called.append)
        bench.actor.depose()
        assert [type(done.error) for done in called] == [LeaderDeposed] * 3
        assert len({id(done.error) for done in called}) == 3
        assert bench.actor.statistics() == ActorStatistics(waiting=0, accepting=False)
        await nursery.start(bench.actor.run)
        with pytest.raises(LeaderDeposed):
            bench.actor.submit_nowait([increment("ann", "late")], called.append)
        await submit_into(bench.actor, [increment("ann", "later")], answers)
        assert [type(answer) for answer in answers] == [LeaderDeposed]
        bench.actor.depose()
        await bench.actor.drain()
    assert len(called) == 3
    assert (bench.log.frames, bench.told, bench.scoreboard.seq) == ([], [], 0)


async def test_what_the_disk_has_when_an_actor_is_deposed_is_applied_and_acknowledged_to_nobody() -> None:
    """OutcomeUnknown to the callers of that frame, also to one that repeats; the state is what the log says."""
    bench = SlowBench()
    written: list[Submission] = []
    waiting: list[Submission] = []
    async with trio.open_nursery() as nursery:
        bench.actor.submit_nowait([increment("ann", "a"), increment("ben", "b")], written.append)
        bench.actor.submit_nowait([increment("ann", "a")], written.append)
        await nursery.start(bench.actor.run)
        await bench.wait_writing()
        bench.actor.submit_nowait([increment("ann", "c")], waiting.append)
        bench.actor.depose()
        assert [type(done.error) for done in waiting] == [LeaderDeposed], "it is not kept waiting by the disk"
        assert written == []
        bench.log.let_go.set()
        await bench.actor.drain()
    assert [(type(done.error), done.outcomes) for done in written] == [(OutcomeUnknown, [])] * 2
    assert [[event.seq for event in frame] for frame in bench.log.frames] == [[1, 2]]
    assert [applied.events for applied in bench.told] == bench.log.frames
    assert bench.machine.tail == bench.log.tail
    assert bench.scoreboard.seq == bench.log.tail.seq == 2
    assert [bench.scoreboard.action_seq(action) for action in ("a", "b", "c")] == [1, 2, None]


async def test_a_deposed_actor_whose_write_fails_ends_like_any_other() -> None:
    """The disk's fault is the process's end, deposed or not."""
    bench = SlowBench()
    bench.log.broken = True
    called: list[Submission] = []
    failure: WriteFailed | None = None

    async def run() -> None:
        nonlocal failure
        try:
            await bench.actor.run()
        except WriteFailed as error:
            failure = error

    bench.actor.submit_nowait([increment("ann", "a")], called.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await bench.wait_writing()
        bench.actor.depose()
        bench.log.let_go.set()
    assert failure is not None
    assert [type(done.error) for done in called] == [OutcomeUnknown]
    assert bench.scoreboard.seq == 0


class SetClock(GivenClock):
    """A steady clock's readings, set by the test. `take` is a step that is taken over."""

    def __init__(self, now_ms: int) -> None:
        super().__init__(lambda: self.at_ms)
        self.at_ms = now_ms
        self.taken_ms = 0
        self._observers: list[Callable[[], None]] = []

    def read(self) -> ClockReading:
        return ClockReading(self.at_ms, self.taken_ms, 0.0, trusted=True)

    def on_taken(self, observer: Callable[[], None]) -> None:
        self._observers.append(observer)

    def take(self, step_ms: int) -> None:
        self.at_ms += step_ms
        self.taken_ms += step_ms
        for observer in self._observers:
            observer()


async def test_a_log_that_is_ahead_of_the_clock_is_corrected_before_the_first_event() -> None:
    """In a frame of its own, told before it is written, also when nobody submits anything."""
    bench, clock, told_of = Bench(), SetClock(5_000), list[ClockCorrected]()
    bench.scoreboard.time_ms = 900_000
    actor = Actor(bench.machine, clock=clock, on_correction=told_of.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(actor.run)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.log.frames == [told_of]
        assert (told_of[0].time_ms, told_of[0].ahead_ms, bench.scoreboard.time_ms) == (5_000, 895_000, 5_000)
        [receipt] = await actor.submit([increment("ann", "a")])
        assert told(receipt) == ("applied", 2, 10)
        await actor.drain()
    assert [event.time_ms for frame in bench.log.frames for event in frame] == [5_000, 5_000]
    assert [applied.events for applied in bench.told] == bench.log.frames


async def test_a_step_back_that_is_taken_over_is_corrected_at_once() -> None:
    """An idle leader is woken for it; a step forward needs no correction."""
    bench, clock = Bench(), SetClock(900_000)
    actor = Actor(bench.machine, clock=clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(actor.run)
        await actor.submit([increment("ann", "a")])
        clock.take(50_000)
        await actor.submit([increment("ann", "b")])
        assert len(bench.log.frames) == 2
        clock.take(-50_000)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.log.frames[2:] == [[ClockCorrected(3, 900_000, 2, 50_000, "stepped back")]]
        await actor.drain()


class LateClock(SetClock):
    """A clock whose next reading takes a step over, as a reading does that finds that the step has lasted."""

    later_ms = 0

    def now_ms(self) -> int:
        step_ms, self.later_ms = self.later_ms, 0
        if step_ms:
            self.take(step_ms)
        return self.at_ms


async def test_a_step_that_the_reading_for_a_frame_takes_over_is_corrected_before_the_frame() -> None:
    """Otherwise the correction would count the frame among the events that are ahead, though its time is right."""
    bench, clock = Bench(), LateClock(900_000)
    actor = Actor(bench.machine, clock=clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(actor.run)
        await actor.submit([increment("ann", "a")])
        clock.later_ms = -50_000
        await actor.submit([increment("ann", "b")])
        await actor.drain()
    assert bench.log.frames[1] == [ClockCorrected(2, 850_000, 1, 50_000, "stepped back")]
    assert [event.time_ms for event in bench.log.frames[2]] == [850_000]


async def test_a_deposed_actor_corrects_no_clock() -> None:
    """It writes no more."""
    bench, clock = Bench(), SetClock(900_000)
    actor = Actor(bench.machine, clock=clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(actor.run)
        await actor.submit([increment("ann", "a")])
        actor.depose()
        clock.take(-50_000)
        await trio.testing.wait_all_tasks_blocked()
        assert len(bench.log.frames) == 1
        await actor.drain()
