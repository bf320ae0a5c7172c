"""The actor, the single writer: one task owns the scoreboard and its log. Others send it commands and wait.

    await nursery.start(actor.run)
    outcomes = await actor.submit(commands)

A write takes these steps, only here, and in this order:

    correct the clock → change periods → take the inbox → decide → append to the log, fdatasync → apply
    → publish (`on_applied`) → answer

So everything in an answer or on a screen is on disk. While the disk writes one frame, the next gathers in the inbox:
the higher the load, the more records one fsync makes durable. A frame is applied between two awaits, so code on the
same event loop reads a whole state, by plain calls on the scoreboard.

Rules:
- The inbox is bounded, in commands. If it is full, a caller gets `Overloaded` at once.
- The commands of one submission are decided, logged and answered together, in one frame, also if the caller goes away.
- A deposed actor (`depose`: a newer epoch began elsewhere) writes no more. Waiting and new submissions fail at once
  with `LeaderDeposed`: nothing of them was done. The frame that is being written becomes durable and is applied,
  because the state follows the log. But its callers get `OutcomeUnknown` and retry at the new leader: the new leader
  may not have that frame, and a demotion would set it aside.
- A frame whose place another node has (`LostPlace`) deposes the actor: nothing of it was done. In a quorum a deposed
  actor may lead again (`reinstate`), once it is at `rest`.
- While nobody knows whether the frame in flight is written (`doubt`), its callers have `OutcomeUnknown`, waiting and
  new submissions fail with `NoQuorum`, and nothing is decided.
- A submission that changes boards has a frame of its own: what comes after it is decided by the new rules. So have a
  reversal, the decision of a review, a flag, and rows of an import, which count in the inbox by their number.
- A submission that needs a read of older actions waits for it (`engine.action_reading`); others go before it. If it
  has a sender for each command, only the commands that need a read wait.
- A period that is over is changed before anything later is decided, so an increment belongs to the period of its time.
- On a full disk (`engine.room`) the actor tries to make room once in FULL_RETRY_SECONDS, also while nobody writes. What
  fits into the live segment is written meanwhile. A frame that does not fit is taken apart: its submissions are tried
  one by one, because some need no event and some may fit. So is a frame that is too long for the log.
- After a failed write the actor is dead. The callers of that frame get `OutcomeUnknown`, waiting ones `Overloaded`, and
  `run` raises, which stops the process. An fsync is never tried again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from math import inf
from typing import Any

import trio

from engine.action_reading import ActionReader, OnDamage
from engine.alarm import ring_when_due
from engine.batch import Batch
from engine.clock import Clock
from engine.commands import AloneCommand, Command, ImportRows, Increment, Outcome
from engine.corrections import Corrector
from engine.errors import DiskFull, FrameTooLong, LeaderDeposed, LostPlace, NoQuorum, OutcomeUnknown, Overloaded
from engine.events import ClockCorrected, Event
from engine.limits import BATCH_COMMANDS_MAX, FRAME_RECORDS_MAX, INBOX_COMMANDS_MAX
from engine.log_facts import Synced
from engine.machine import ActorStatistics, StateMachine
from engine.periods import PeriodAt, due_changes, no_calendar
from engine.record import pack_frame
from engine.threads import run
from engine.unseen import Unseen, show_unseen

FULL_RETRY_SECONDS = 1.0
"""From an attempt that found the disk full to the next one. An attempt takes some ms, and holds up all other writes."""

_DEPOSED = "a newer epoch began elsewhere, so nothing is written here any more"

WhenDone = Callable[["Submission"], None]
Senders = Sequence[Any]


class Submission:
    """Commands, and who sent each, if several did. When they are done, there is an `error`, or an outcome for each."""

    __slots__ = ("commands", "error", "is_alone", "outcomes", "senders", "weight", "when_done")

    def __init__(self, commands: Sequence[Command], when_done: WhenDone, senders: Senders) -> None:
        self.commands, self.senders = commands, senders
        self.weight, self.is_alone = len(commands), False
        if type(commands[0]) is not Increment:
            self.is_alone = isinstance(commands[0], AloneCommand)
            self.weight = sum(len(each.rows) if isinstance(each, ImportRows) else 1 for each in commands)
        self.outcomes: list[Outcome] = []
        self.error: Exception | None = None
        self.when_done = when_done

    def fail(self, error: Exception) -> None:
        """Answer with an error, unless the callers have theirs already."""
        if self.error is None:
            self.error, self.outcomes = error, []
            self.when_done(self)


class Actor:
    """Writes to a state machine while `run` runs: on a replica only after a promotion."""

    def __init__(
        self,
        machine: StateMachine,
        *,
        clock: Clock,
        on_correction: Callable[[ClockCorrected], None] = lambda _: None,
        on_lost: Callable[[LostPlace], None] = lambda _: None,
        on_damage: OnDamage = lambda _: None,
        period_at: PeriodAt = no_calendar,
    ) -> None:
        """`on_lost` is told why the actor deposed itself, `on_damage` of a damaged file. Both are quick."""
        self._period_at = period_at
        self._machine, self._clock = machine, clock
        self._corrector = Corrector(clock.bounds)
        self._on_correction, self._on_lost = on_correction, on_lost
        self._inbox: deque[Submission] = deque()
        self._waiting = 0
        self._accepting, self._begun, self._deposed = True, False, False
        self._doubt: str | None = None
        self.reader = ActionReader[Submission](
            machine.scoreboard, blocks=machine.log.blocks, give_back=self._give_back, on_damage=on_damage
        )
        self._in_flight: Sequence[Submission] = ()
        self._appending = False
        self._rested = trio.lowlevel.ParkingLot()
        self._room_due_s = inf  # the next attempt to make room; never if there is room
        self._alarmed = False
        self._apart = 0  # submissions at the head of the inbox, each of which gets a frame of its own
        self._wake = trio.Event()
        self._ended = trio.Event()
        self._may_be_due = True  # a correction of the clock
        clock.on_taken(self._clock_taken)

    async def submit(self, commands: Sequence[Command]) -> list[Outcome]:
        """Have at most BATCH_COMMANDS_MAX commands decided and made durable; give their outcomes in order.

        Raises `Overloaded` (also a kind of it), `LeaderDeposed`, `DiskFull`: nothing was written. And `OutcomeUnknown`.
        """
        done = trio.Event()
        submission = self.submit_nowait(commands, lambda _: done.set())
        await done.wait()
        if submission.error is not None:
            raise submission.error
        return submission.outcomes

    def submit_nowait(self, commands: Sequence[Command], when_done: WhenDone, senders: Senders = ()) -> Submission:
        """Submit commands without waiting. Raises `Overloaded` and `LeaderDeposed`, as `submit`.

        `when_done` is called once, later, by the actor's task or by `depose`. It must be quick and must not raise,
        because the other submissions of the frame wait for it. With `senders` it may be called for parts instead.
        """
        assert 0 < len(commands) <= BATCH_COMMANDS_MAX
        if self._deposed:
            raise LeaderDeposed(_DEPOSED)
        if not self._accepting:
            raise Overloaded("the server is stopping")
        if self._doubt is not None:
            raise NoQuorum(self._doubt)
        submission = Submission(commands, when_done, senders)
        waiting = self._waiting + self.reader.weight
        if waiting + submission.weight > INBOX_COMMANDS_MAX:
            raise Overloaded(f"{waiting} commands are waiting already")
        self._inbox.append(submission)
        self._waiting += submission.weight
        self._wake.set()
        return submission

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until `drain`. Raises `WriteFailed` if the log can't be written; the process must end then."""
        self._begun = True
        if self._machine.log.full is not None:
            self._room_due_s = trio.current_time()  # it filled up while this was a replica
        task_status.started()
        try:
            while self._inbox or self._accepting or self.reader.weight:
                is_full = self._room_due_s < inf and not self._deposed
                if is_full and self._room_due_s <= trio.current_time():
                    await self._make_room()
                elif self._may_be_due and not self._deposed:
                    with suppress(LeaderDeposed):
                        await self._correct()
                elif self._inbox:
                    await self._write_frame(self._take())
                elif self._alarmed and not self._deposed:
                    await self._change_periods_alone()
                elif is_full:
                    self._wake = trio.Event()
                    with trio.move_on_at(self._room_due_s):
                        await self._wake.wait()
                else:
                    self._wake = trio.Event()  # without a timeout, which would cost as much as the decision
                    await self._wake.wait()
        finally:
            self._accepting = False
            self._fail_waiting(lambda: Overloaded("the server is stopping"))
            self._ended.set()

    async def run_alarm(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Wake the actor when a period ends, so that it ends also if nobody plays. Until cancelled."""

        def ring() -> None:
            self._alarmed = True
            self._wake.set()

        task_status.started()
        await ring_when_due(lambda: self._machine.scoreboard.due_ms, self._clock, ring)

    def _give_back(self, submission: Submission) -> None:
        """Take back a submission that waited for the disk; it may have failed meanwhile."""
        if submission.error is None:
            self._inbox.appendleft(submission)
            self._waiting += submission.weight
        self._wake.set()

    async def drain(self) -> None:
        """Accept no new commands, finish those that wait, end `run`."""
        self._accepting = False
        self._wake.set()
        if self._begun:
            await self._ended.wait()

    def depose(self) -> None:
        """Write no more, as the rules say. `run` goes on idle until `drain`. A second call does no harm."""
        self._deposed = True
        self._fail_waiting(lambda: LeaderDeposed(_DEPOSED))

    async def rest(self) -> None:
        """Wait until a deposed actor writes nothing any more: from then on another task may write to the machine."""
        assert self._deposed
        while self._appending:
            await self._rested.park()

    def reinstate(self) -> None:
        """Write again after a deposition. The actor is at rest, and the epoch is ours."""
        assert self._deposed
        assert not self._appending
        self._deposed, self._may_be_due = False, True
        self._room_due_s = inf if self._machine.log.full is None else trio.current_time()
        self._wake.set()

    def doubt(self, why: str | None) -> None:
        """Note that nobody knows whether the frame in flight is written, and why; None: it is known again."""
        self._doubt = why
        if why is not None:
            for submission in self._in_flight:
                submission.fail(OutcomeUnknown(f"{why}; retry with the same actionId"))
            self._in_flight = ()
            self._fail_waiting(lambda: NoQuorum(why))

    def statistics(self) -> ActorStatistics:
        return ActorStatistics(self._waiting + self.reader.weight, self._accepting and not self._deposed)

    def _clock_taken(self) -> None:
        self._may_be_due = True
        self._wake.set()

    def _fail_waiting(self, error: Callable[[], Exception]) -> None:
        """Fail all waiting submissions, each with its own error: a shared one would collect the stacks of all."""
        while self._inbox:
            self._inbox.popleft().fail(error())
        self.reader.fail_waiting(error)
        self._waiting = self._apart = 0

    def _take(self) -> list[Submission]:
        """Take as many submissions as fit in one frame, at least one."""
        taken = [self._inbox.popleft()]
        count = taken[0].weight
        alone, self._apart = self._apart > 0 or taken[0].is_alone, max(0, self._apart - 1)
        while not alone and self._inbox and not self._inbox[0].is_alone:
            if count + self._inbox[0].weight > FRAME_RECORDS_MAX:
                break
            taken.append(self._inbox.popleft())
            count += taken[-1].weight
        self._waiting -= count
        return taken

    async def _correct(self) -> None:
        """Log a correction of the clock if one is due. If it does not fit, it waits until there is room."""
        self._may_be_due = False
        scoreboard = self._machine.scoreboard
        correction = self._corrector.due(self._clock.read(), scoreboard.seq, scoreboard.time_ms)
        if correction is not None:
            try:
                synced = await self._append([correction])
            except DiskFull:
                return
            self._on_correction(correction)
            scoreboard.apply(correction, scoreboard.epoch)
            self._machine.settled([correction], synced, self._waiting)

    async def _change_periods(self) -> int:
        """Log the changes of periods that are due; give the time, at which none is.

        Raises `DiskFull`, and `LeaderDeposed` after a change during which the actor was deposed.
        """
        scoreboard = self._machine.scoreboard
        while True:
            now_ms = max(self._clock.now_ms(), scoreboard.time_ms)
            if self._may_be_due and not self._deposed:  # this reading took a step over: correct before it is used
                await self._correct()
                if self._deposed:
                    raise LeaderDeposed(_DEPOSED)
                continue
            due_ms = scoreboard.due_ms
            if self._deposed or due_ms is None or due_ms > now_ms:
                return now_ms
            events: list[Event] = [*due_changes(scoreboard, now_ms, self._period_at)]
            synced = await self._append(events)
            for event in events:
                scoreboard.apply(event, scoreboard.epoch)
            self._machine.settled(events, synced, self._waiting)
            if self._deposed:
                raise LeaderDeposed(_DEPOSED)

    async def _change_periods_alone(self) -> None:
        self._alarmed = False
        with suppress(DiskFull, LeaderDeposed):  # after a full disk the alarm rings again
            await self._change_periods()

    async def _write_frame(self, taken: list[Submission]) -> None:
        self._in_flight = taken
        try:
            now_ms = await self._change_periods()
            if taken[0].is_alone:
                await show_unseen(self._machine.log, taken[0].commands)
                if self._deposed:
                    raise LeaderDeposed(_DEPOSED)
            if self._machine.scoreboard.actions.sealed.count and not (taken := self.reader.part(taken)):
                return
            self._in_flight = taken  # no await from here to the decision
            batch = Batch(self._machine.scoreboard, now_ms, self._period_at)
            for submission in taken:
                batch.decide(submission.commands)
            synced = await self._append(batch.events) if batch.events else None
            # The events are durable now. No await until all of them are applied.
            outcomes = iter(batch.settle())
            for submission in taken:
                submission.outcomes = list(islice(outcomes, len(submission.commands)))
            if synced is not None:
                self._machine.settled(batch.events, synced, self._waiting)
        except (DiskFull, FrameTooLong) as unfit:
            self._refuse_or_part(taken, unfit)
            return
        except Unseen as unseen:
            taken[0].fail(unseen.fault)  # it is alone, and nothing was decided by it
            return
        except LeaderDeposed:
            for submission in taken:
                submission.fail(LeaderDeposed(_DEPOSED))
            return
        except BaseException:
            for submission in taken:
                submission.fail(OutcomeUnknown("the write failed or was cut short; retry with the same actionId"))
            raise
        finally:
            self._in_flight = ()
        for submission in taken:
            if self._deposed:
                submission.fail(OutcomeUnknown("this leader was deposed meanwhile; retry with the same actionId"))
            elif submission.error is None:
                submission.when_done(submission)

    async def _append(self, events: list[Event]) -> Synced:
        scoreboard, log = self._machine.scoreboard, self._machine.log
        frame = pack_frame(events, epoch=scoreboard.epoch, previous=log.tail.checksum)
        if len(frame) > log.frame_bytes_max:
            raise FrameTooLong(len(frame), log.frame_bytes_max)
        self._appending = True
        try:
            return await log.append(scoreboard.seq, frame)
        except DiskFull:
            self._room_due_s = min(self._room_due_s, trio.current_time() + FULL_RETRY_SECONDS)
            raise
        except LostPlace as lost:
            self.depose()
            self._on_lost(lost)
            raise LeaderDeposed(str(lost)) from lost
        finally:
            self._appending = False
            self._rested.unpark_all()

    async def _make_room(self) -> None:
        log = self._machine.log
        try:
            await run(log.make_room, blocks=log.blocks)
        except DiskFull:
            self._room_due_s = trio.current_time() + FULL_RETRY_SECONDS
        else:
            self._room_due_s = inf
            self._may_be_due = True

    def _refuse_or_part(self, taken: list[Submission], unfit: DiskFull | FrameTooLong) -> None:
        """Refuse a submission that does not fit; put several that share a frame back, to be tried one by one."""
        if self._deposed:
            for submission in taken:
                submission.fail(LeaderDeposed(_DEPOSED))
        elif len(taken) == 1:
            taken[0].fail(unfit)
        else:
            self._inbox.extendleft(reversed(taken))
            self._waiting += sum(submission.weight for submission in taken)
            self._apart = len(taken)
