"""The single writer: one task owns the scoreboard and its log; everybody else sends it commands and waits.

A write goes through these steps, here and nowhere else, in this order:

    take what waits in the inbox → decide → append to the log, fdatasync → apply → answer → tell who listens

So what an answer, a reader or a viewer shows is on disk: log before reply. While the disk is busy with one frame the
next gathers in the inbox, so the more there is to do, the more records an fsync makes durable.

Reading needs no message: a frame is applied between two awaits, so whatever runs on the same event loop sees the state
whole, by plain calls on the scoreboard.

Rules:
- The inbox is bounded, in commands. When it is full a caller is told at once (`Overloaded`); nothing waits for room.
- A submission is decided, logged and answered as one: its commands never part into two frames.
- A deposed actor (`depose`: a newer epoch began elsewhere) writes no more. What waits is failed in that very moment,
  with `LeaderDeposed`, and so is what comes: nothing of it was done. The frame that the disk has just then becomes
  durable and is applied, because the state follows the log; but its callers are told `OutcomeUnknown`, and try again at
  the new leader. To acknowledge it would promise what the new leader may never have had, and a demotion sets aside.
- A caller that goes away is of no consequence: what it submitted is done all the same.
- After a failed write the actor is dead. Those whose commands were being written are told `OutcomeUnknown`, those who
  still waited `Overloaded`, and `run` raises, which stops the process. An fsync is never tried again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import trio

from engine.batch import Batch
from engine.commands import Command, Outcome
from engine.errors import LeaderDeposed, OutcomeUnknown, Overloaded
from engine.events import Event
from engine.limits import BATCH_COMMANDS_MAX, FRAME_RECORDS_MAX, INBOX_COMMANDS_MAX
from engine.log import Synced
from engine.machine import StateMachine
from engine.threads import run

_DEPOSED = "a newer epoch began elsewhere, so nothing is written here any more"


class ActorStatistics(msgspec.Struct, frozen=True):
    """How much waits, in commands, and whether new commands are taken."""

    waiting: int
    accepting: bool


class Submission:
    """Commands on their way. When they are done `error` says what went wrong, or `outcomes` has an answer for each."""

    __slots__ = ("commands", "error", "outcomes", "when_done")

    def __init__(self, commands: Sequence[Command], when_done: Callable[[Submission], None]) -> None:
        self.commands = commands
        self.outcomes: list[Outcome] = []
        self.error: Exception | None = None
        self.when_done = when_done

    def fail(self, error: Exception) -> None:
        """Be done, without answers."""
        self.error = error
        self.outcomes = []
        self.when_done(self)


class Actor:
    """Writes to a state machine, as long as `run` runs. On a replica it stands ready, and runs after a promotion."""

    def __init__(self, machine: StateMachine, *, clock_ms: Callable[[], int]) -> None:
        self._machine = machine
        self._clock_ms = clock_ms
        self._inbox: deque[Submission] = deque()
        self._waiting = 0
        self._accepting = True
        self._begun = False
        self._deposed = False
        self._wake = trio.Event()
        self._ended = trio.Event()

    async def submit(self, commands: Sequence[Command]) -> list[Outcome]:
        """Have commands decided and made durable; the answers are in the order of the commands.

        Raises `Overloaded` when the inbox is full or the actor ends, `LeaderDeposed` when the actor is: nothing was
        written. Raises `OutcomeUnknown` when the disk failed, or the actor was deposed, while they were being written.
        At most BATCH_COMMANDS_MAX commands.
        """
        done = trio.Event()
        submission = self.submit_nowait(commands, lambda _: done.set())
        await done.wait()
        if submission.error is not None:
            raise submission.error
        return submission.outcomes

    def submit_nowait(self, commands: Sequence[Command], when_done: Callable[[Submission], None]) -> Submission:
        """Hand commands over without waiting; `when_done` is called once, later, by the actor's task or by `depose`.

        It must be quick and must not raise: everybody else in the frame waits for it. Raises `Overloaded` and
        `LeaderDeposed`, as `submit`.
        """
        assert 0 < len(commands) <= BATCH_COMMANDS_MAX
        if self._deposed:
            raise LeaderDeposed(_DEPOSED)
        if not self._accepting:
            raise Overloaded("the server is stopping")
        if self._waiting + len(commands) > INBOX_COMMANDS_MAX:
            raise Overloaded(f"{self._waiting} commands are waiting already")
        submission = Submission(commands, when_done)
        self._inbox.append(submission)
        self._waiting += len(commands)
        self._wake.set()
        return submission

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `drain`. Raises `WriteFailed` when the log can't be written; the process must end then."""
        self._begun = True
        task_status.started()
        try:
            while self._inbox or self._accepting:
                if self._inbox:
                    await self._write_frame(self._take())
                else:
                    self._wake = trio.Event()
                    await self._wake.wait()
        finally:
            self._accepting = False
            self._fail_waiting(lambda: Overloaded("the server is stopping"))
            self._ended.set()

    async def drain(self) -> None:
        """Take no new commands, finish those that wait, and end `run`. Nothing to wait for if it never ran."""
        self._accepting = False
        self._wake.set()
        if self._begun:
            await self._ended.wait()

    def depose(self) -> None:
        """Write no more, as the rules say. `run` goes on until `drain`, with nothing to do. May be called again."""
        self._deposed = True
        self._fail_waiting(lambda: LeaderDeposed(_DEPOSED))

    def statistics(self) -> ActorStatistics:
        """Tell how much waits."""
        return ActorStatistics(self._waiting, self._accepting and not self._deposed)

    def _fail_waiting(self, error: Callable[[], Exception]) -> None:
        """Fail all that waits, each with an error of its own: one that all raise would keep the stacks of all."""
        while self._inbox:
            self._inbox.popleft().fail(error())
        self._waiting = 0

    def _take(self) -> list[Submission]:
        """Take as many submissions as fit in one frame, at least one."""
        taken = [self._inbox.popleft()]
        count = len(taken[0].commands)
        while self._inbox and count + len(self._inbox[0].commands) <= FRAME_RECORDS_MAX:
            submission = self._inbox.popleft()
            taken.append(submission)
            count += len(submission.commands)
        self._waiting -= count
        return taken

    async def _write_frame(self, taken: list[Submission]) -> None:
        try:
            batch = Batch(self._machine.scoreboard, self._clock_ms())
            for submission in taken:
                batch.decide(submission.commands)
            synced = None
            if batch.events:
                synced = await self._append(batch.events)
            # From here on the events are durable, and nothing may be awaited before all of them are applied.
            outcomes = batch.settle()
            start = 0
            for submission in taken:
                end = start + len(submission.commands)
                submission.outcomes = outcomes[start:end]
                start = end
            if synced is not None:
                self._machine.settled(batch.events, synced, self._waiting)
        except BaseException:
            for submission in taken:
                submission.fail(OutcomeUnknown("the write failed or was cut short; retry with the same actionId"))
            raise
        for submission in taken:
            if self._deposed:
                submission.fail(OutcomeUnknown("this leader was deposed meanwhile; retry with the same actionId"))
            else:
                submission.when_done(submission)

    async def _append(self, events: list[Event]) -> Synced:
        machine = self._machine
        append = partial(machine.log.append, events, machine.scoreboard.epoch)
        return await run(append, blocks=machine.log.blocks)
