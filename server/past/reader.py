"""The process that reads the past, seen from the server: one question at a time, a few that wait, and an end.

    reply = await reader.ask(Question("main", 10, seq=4711))          raises `Overloaded`
    await nursery.start(reader.run)

    ask ─► waiting (PAST_WAITERS_MAX) ─► run ─► stdin │ process: snapshot, log, rows │ stdout ─► the one who asked

Theory. To read a state takes seconds of pure Python. In a thread it would hold the interpreter, and every increment
would wait for it. So it is a process of its own with the lowest priority. There is one, so its memory, which is that of
a start, is taken once at most.

Rules:
- The process is started for the first question, and ended after PAST_IDLE_SECONDS without one.
- A question takes PAST_SECONDS_MAX at most. Then, and when the one who asked has gone, the process is killed: nothing
  else stops it. The next question starts another.
- Whoever waits for the question that was just answered gets the same answer.
- The process gets nothing of the server's settings but the directory and the rules: no keys, no tokens.
"""

from __future__ import annotations

import math
import os
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE

import msgspec
import structlog
import trio

from engine.errors import Overloaded
from server import bounds
from server.past.questions import Question, Reply, Start, decode_reply, line

COMMAND = (sys.executable, "-m", "server.past.worker")
_ROOT = Path(__file__).parents[2]

log = structlog.get_logger()


class _Job:
    """A question that waits for its reply. `scope` is that of its work, `why` says why there is no reply."""

    def __init__(self, question: Question, asked_s: float) -> None:
        self.question = question
        self.asked_s = asked_s
        self.reply: Reply | None = None
        self.why = ""
        self.done = trio.Event()
        self.scope = trio.CancelScope()


class PastReader:
    """See above. `run` may be called again after it ended."""

    def __init__(
        self, start: Start, *, command: Sequence[str] = COMMAND, seconds_max: float = bounds.PAST_SECONDS_MAX,
        idle_seconds: float = bounds.PAST_IDLE_SECONDS,
    ) -> None:  # fmt: skip
        self._start = start
        self._command = command
        self._seconds_max = seconds_max
        self._idle_seconds = idle_seconds
        self._jobs: deque[_Job] = deque()
        self._came = trio.Event()
        self._last: tuple[Question, Reply, float] | None = None
        self.process: trio.Process | None = None

    async def ask(self, question: Question) -> Reply:
        """Have a question answered. Raises `Overloaded`: too many wait, or it took too long."""
        if len(self._jobs) >= bounds.PAST_WAITERS_MAX:
            raise Overloaded("too many ask for the past")
        job = _Job(question, trio.current_time())
        self._jobs.append(job)
        self._came.set()
        try:
            await job.done.wait()
        finally:
            if not job.done.is_set():
                job.scope.cancel()
                if job in self._jobs:
                    self._jobs.remove(job)
        if job.reply is None:
            raise Overloaded(job.why)
        return job.reply

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer questions until cancelled."""
        task_status.started()
        try:
            while True:
                with trio.move_on_after(math.inf if self.process is None else self._idle_seconds):
                    while not self._jobs:
                        self._came = trio.Event()
                        await self._came.wait()
                if self._jobs:
                    await self._answer(self._jobs.popleft())
                else:
                    await self._stop()
        finally:
            with trio.CancelScope(shield=True):
                await self._stop()

    async def _answer(self, job: _Job) -> None:
        """Work on a question. Whatever happens, the one who asked is told."""
        last = self._last
        if last is not None and last[0] == job.question and job.asked_s <= last[2]:
            job.reply = last[1]
        else:
            job.why = "reading the past took too long"
            job.scope.deadline = trio.current_time() + self._seconds_max
            with job.scope:
                try:
                    job.reply = await self._converse(job.question)
                except (OSError, EOFError, trio.BrokenResourceError, msgspec.DecodeError) as error:
                    job.why = "the reader of the past ended"
                    log.error("past_reader_failed", kind=type(error).__name__)
            if job.reply is None:
                await self._stop()
            else:
                self._last = (job.question, job.reply, trio.current_time())
        job.done.set()

    async def _converse(self, question: Question) -> Reply:
        if self.process is None:
            await self._begin()
        process = self.process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.send_all(line(question))
        received = bytearray()
        while not received.endswith(b"\n"):
            data = await process.stdout.receive_some(bounds.RECEIVE_BYTES)
            if not data:
                raise EOFError
            received += data
        return decode_reply(bytes(received))

    async def _begin(self) -> None:
        environment = {name: text for name, text in os.environ.items() if not name.startswith("SCOREBOARD_")}
        # A session of its own: the interrupt of a terminal is for the server.
        self.process = await trio.lowlevel.open_process(
            self._command, stdin=PIPE, stdout=PIPE, cwd=_ROOT, env=environment, start_new_session=True
        )
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line(self._start))

    async def _stop(self) -> None:
        """End the process, if there is one, and forget what it said."""
        process, self.process, self._last = self.process, None, None
        if process is None:
            return
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    await stream.aclose()
