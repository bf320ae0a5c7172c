"""The express loop: one task and one epoll wait for the next request of all kept connections of the express lane.

    park(connection) ─► epoll ─► read ─► whole and correct? ─► begin ─┐ many as one submission  ┌─► write, wait again
                          ▲               │ no                        └─────► actor ────────────┘      │
                          │               └─► wake the connection's own task                           │
                          └────────────────────────────────────────────────────────────────────────────┘

Theory of operation. A task for each connection would be woken twice for each request, by its socket and by its answer.
Each wake-up costs more than the request's own work. Here one wake-up reads from all connections, the actor gets one
message, and another wake-up writes the answers. The loop answers a correct request that comes whole in one read, as
nearly all do. Anything else wakes the connection's parked task. It has the deadlines, the limits and the faults of
HTTP; they are not repeated here.

Rules:
- A parked connection is in epoll, or busy with one request, or about to wake its task. Only the loop reads its socket.
- While a connection is busy, what its client sends (pipelining) stays unread. Its task reads it after the answer.
- Heads are remembered by digest, at most HEADS_MAX: callers repeat them, and to read a head is most of the work. Only
  the head of a whole, correct request is remembered, without its token.
- The rest of an answer that the socket does not take at once is left to the connection's task, which has a deadline.
- A connection that was cut, or whose task was cancelled, is forgotten at once: its file number may be used again.
- When the loop ends first, connections go on by themselves. One that still waits for an answer is cut: its client would
  take a later answer for the one that it still waits for.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256

import trio

from engine.actor import Submission
from engine.commands import Increment, Outcome
from engine.errors import OutcomeUnknown
from engine.limits import BATCH_COMMANDS_MAX
from server import bounds
from server.access.auth import Principal
from server.api.pipeline import Head, Pipeline
from server.api.routes import EXPRESS
from server.http.client_address import TrustedProxies, client_of
from server.http.connection import Connection
from server.http.messages import Request, joined_headers
from server.http.request_parser import HEAD_END, IncomingRequest
from server.http.response_head import head_ends

LANE = "express"

assert bounds.EXPRESS_EVENTS_MAX <= BATCH_COMMANDS_MAX  # what is read at once is one submission


def takes(inbound: IncomingRequest) -> bool:
    """Whether a request is for the express lane."""
    return (inbound.head.method, inbound.path) in EXPRESS


def request_of(connection: Connection, inbound: IncomingRequest, body: bytes, proxies: TrustedProxies) -> Request:
    """Make the pipeline's request of what the parser read."""
    head = inbound.head
    headers = joined_headers(head.headers)
    address = client_of(proxies, connection.peer[0], headers)
    return Request(head.method, head.path, head.query, headers, body, address)


class Parked:
    """A connection in the loop. `owed` is what its socket did not take; `last`: the connection ends after that.

    `more`: data is left that the loop must not read. `since` is when the connection became idle.
    """

    __slots__ = ("busy", "connection", "error", "file", "last", "more", "owed", "scope", "since", "watched", "woken")

    def __init__(self, connection: Connection, file: int, scope: trio.CancelScope, since: float) -> None:
        self.connection = connection
        self.file = file
        self.scope = scope
        self.since = since
        self.woken = trio.Event()
        self.error: Exception | None = None
        self.owed = b""
        self.busy = False
        self.watched = True
        self.more = False
        self.last = False


_Begun = tuple[Parked, Head]


class ExpressLoop:
    """One for the process. While it does not `run`, each connection's task waits for its own socket."""

    def __init__(self, pipeline: Pipeline, proxies: TrustedProxies) -> None:
        self._pipeline = pipeline
        self._proxies = proxies
        self._epoll: select.epoll | None = None
        self._parked: dict[int, Parked] = {}
        self._heads: dict[bytes, tuple[Head, int]] = {}
        self._tops: list[Head] = []
        self._asking: list[_Begun] = []
        self._asked: list[tuple[Principal, bytes]] = []
        self._done: deque[tuple[float, Submission]] = deque()
        self._wake = trio.Event()
        self._ends = head_ends()  # of the heads that are written now
        self._written_at = 0.0  # the time of what is written now

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        with select.epoll() as epoll:
            self._epoll = epoll
            try:
                async with trio.open_nursery() as tasks:
                    tasks.start_soon(self._read_all)
                    tasks.start_soon(self._answer_all)
                    tasks.start_soon(self._sweep)
                    task_status.started()
            finally:
                self._epoll = None
                for parked in list(self._parked.values()):
                    if parked.busy:
                        parked.connection.cut()
                    self._hand_over(parked)

    async def park(self, connection: Connection) -> Parked | None:
        """Let the loop answer requests until the connection's own task has something to do.

        None: the connection is to end, because it was idle for too long or the process stops.
        """
        file = connection.stream.socket.fileno()
        if self._epoll is None or file < 0:
            await trio.lowlevel.checkpoint()
            return Parked(connection, file, trio.CancelScope(), 0.0)
        with trio.CancelScope() as scope:
            parked = Parked(connection, file, scope, trio.current_time())
            self._epoll.register(file, select.EPOLLIN)
            try:
                self._parked[file] = parked
                connection.idle = scope
                if connection.closing:
                    connection.close_soon()
                await parked.woken.wait()
            finally:
                self._forget(parked)
                connection.idle = None
        if scope.cancelled_caught:
            return None
        if parked.error is not None:
            raise parked.error
        return parked

    # Reading

    async def _read_all(self) -> None:
        epoll = self._epoll
        assert epoll is not None
        while True:
            await trio.lowlevel.wait_readable(epoll.fileno())
            began_s = self._pipeline.now_s()
            self._ends, self._written_at = head_ends(), trio.current_time()
            for file, _ in epoll.poll(0, bounds.EXPRESS_EVENTS_MAX):
                parked = self._parked.get(file)
                if parked is None or parked.scope.cancel_called:
                    continue
                if parked.busy:
                    parked.more = True
                    self._unwatch(parked)
                    continue
                try:
                    self._read(parked, began_s)
                except Exception as error:
                    self._blame(parked, error)
            if self._tops:
                self._pipeline.took(self._tops[0].route, LANE, began_s, len(self._tops))
                self._tops.clear()
            if self._asked:
                self._submit(began_s)

    def _read(self, parked: Parked, began_s: float) -> None:
        try:
            data = os.read(parked.file, bounds.RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        end = data.find(HEAD_END) + len(HEAD_END)
        if end < len(HEAD_END):
            if data:
                parked.connection.read_nowait(data)
            self._hand_over(parked)
            return
        digest = sha256(data[:end]).digest()
        known = self._heads.get(digest)
        if known is not None and len(data) == end + known[1]:
            if self._pipeline.holds(known[0]):
                self._begin(parked, known[0], data[end:], began_s)
                return
            del self._heads[digest]
        read = parked.connection.read_nowait(data)
        head = None if read is None else self._recognise(parked, read[0])
        if read is None or head is None:
            self._hand_over(parked)
            return
        body = read[1]
        if len(data) == end + len(body):  # never so for a chunked body, which is longer than what is in it
            self._remember(digest, end, head, len(body))
        parked.connection.drop_request()
        # `is_blank`, not `begun`: the parser may keep half of an empty line, and the next read belongs to it.
        parked.more = not parked.connection.is_blank
        self._begin(parked, head, body, began_s)

    def _remember(self, digest: bytes, head_bytes: int, head: Head, body_bytes: int) -> None:
        if head_bytes > bounds.HEAD_REMEMBERED_BYTES_MAX:
            return
        if len(self._heads) >= bounds.HEADS_MAX:
            self._heads.clear()
        self._heads[digest] = (head, body_bytes)

    def _recognise(self, parked: Parked, inbound: IncomingRequest) -> Head | None:
        if not inbound.keep_alive or not takes(inbound):
            return None
        return self._pipeline.recognise(request_of(parked.connection, inbound, b"", self._proxies))

    # Answering

    def _begin(self, parked: Parked, head: Head, body: bytes, began_s: float) -> None:
        parked.busy = True
        parked.connection.idle = None
        if head.top is None:
            self._asking.append((parked, head))
            self._asked.append((head.caller, body))
            return
        try:
            answer = self._pipeline.wire(head, self._pipeline.top(head), self._ends[parked.connection.closing])
        except Exception as error:
            self._pipeline.took(head.route, LANE, began_s, 1)
            self._fail(parked, head, error)
        else:
            self._tops.append(head)
            self._write(parked, answer)

    def _submit(self, began_s: float) -> None:
        """Admit all increments that were read, and submit those that were not refused."""
        asking, asked = self._asking, self._asked
        self._asking, self._asked = [], []
        try:
            admitted = self._pipeline.admit(asked, began_s)
        except Exception as error:
            admitted = [error] * len(asked)
        begun: list[_Begun] = []
        commands: list[Increment] = []
        for (parked, head), command in zip(asking, admitted, strict=True):
            if isinstance(command, Exception):
                self._fail(parked, head, command)
            else:
                begun.append((parked, head))
                commands.append(command)
        failed = len(asked) - len(begun)
        if begun:
            try:
                self._pipeline.submit(commands, partial(self._note_done, began_s), begun)
            except Exception as error:
                self._fail_all(begun, error)
                failed = len(asked)
        if failed:
            self._pipeline.took(asking[0][1].route, LANE, began_s, failed)

    def _note_done(self, began_s: float, submission: Submission) -> None:
        self._done.append((began_s, submission))
        self._wake.set()

    async def _answer_all(self) -> None:
        while True:
            while not self._done:
                self._wake = trio.Event()
                await self._wake.wait()
            # No variable here may keep these requests while the loop waits.
            self._answer(*self._done.popleft())
            if self._done:  # else the next wait lets others run
                await trio.lowlevel.checkpoint()

    def _answer(self, began_s: float, submission: Submission) -> None:
        begun: Sequence[_Begun] = submission.senders
        self._ends, self._written_at = head_ends(), trio.current_time()
        if submission.error is None:
            self._end_all(begun, submission.outcomes)
        else:
            if isinstance(submission.error, OutcomeUnknown):
                self._pipeline.count_unknown(len(begun))
            self._fail_all(begun, submission.error)
        self._pipeline.took(begun[0][1].route, LANE, began_s, len(begun))

    def _end_all(self, begun: Sequence[_Begun], outcomes: list[Outcome]) -> None:
        self._pipeline.count(outcomes)
        render, wire = self._pipeline.render, self._pipeline.wire
        for (parked, head), outcome in zip(begun, outcomes, strict=True):
            try:
                answer = wire(head, render(head, outcome), self._ends[parked.connection.closing])
            except Exception as error:
                self._fail(parked, head, error)
            else:
                self._write(parked, answer)

    def _fail_all(self, begun: Sequence[_Begun], error: Exception) -> None:
        for parked, head in begun:
            self._fail(parked, head, error)

    def _fail(self, parked: Parked, head: Head, error: Exception) -> None:
        connection = parked.connection
        address = client_of(self._proxies, connection.peer[0], head.request.headers)
        try:
            answer = self._pipeline.failed(head, error, address, self._ends[parked.connection.closing])
        except Exception as fault:
            self._blame(parked, fault)
        else:
            self._write(parked, answer)

    def _blame(self, parked: Parked, error: Exception) -> None:
        """Raise an error in the connection's own task."""
        parked.error = error
        self._hand_over(parked)

    def _write(self, parked: Parked, data: bytes) -> None:
        """Write an answer. Then the connection is idle, or its task goes on with what is left."""
        connection = parked.connection
        if connection.gone:
            self._hand_over(parked)  # it was cut, and nothing else would wake its task
        if self._parked.get(parked.file) is not parked:
            return
        parked.last = connection.closing
        try:
            sent = os.write(parked.file, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            connection.gone = True
            sent = len(data)
        parked.busy = False
        if sent == len(data) and not (parked.last or parked.more or connection.gone):
            parked.since = self._written_at
            connection.idle = parked.scope
            return
        parked.owed = data[sent:]
        self._hand_over(parked)

    def _hand_over(self, parked: Parked) -> None:
        """Let a connection's own task go on."""
        self._forget(parked)
        parked.woken.set()

    def _forget(self, parked: Parked) -> None:
        if self._parked.get(parked.file) is parked:
            del self._parked[parked.file]
            self._unwatch(parked)

    def _unwatch(self, parked: Parked) -> None:
        if parked.watched and self._epoll is not None:
            parked.watched = False
            with suppress(OSError):  # epoll has dropped it already if it was cut
                self._epoll.unregister(parked.file)

    async def _sweep(self) -> None:
        """End connections that were idle for too long."""
        while True:
            await trio.sleep(bounds.EXPRESS_SWEEP_SECONDS)
            now = trio.current_time()
            for parked in list(self._parked.values()):
                if now - parked.since >= parked.connection.idle_seconds_max:
                    parked.connection.end_idle()
