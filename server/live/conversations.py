"""Reads what viewers say, and sees them off: one task for all of them.

    conversations = Conversations(viewers, broadcast, subscriptions, metrics, goodbyes)
    viewer = Viewer(…, on_gone=conversations.gone)
    conversations.begin(viewer, owe, early)       # while `run` runs in another task

    readable ──► hear: pings, pongs, subscriptions ──► answered
                   └─► its last frame ──► a task for that viewer, until the other end closes
    hang_up ──► gone: its file is forgotten ──► see off: place, subscriptions and connection are let go

Viewers send pings, pongs, close frames and subscriptions (`server.live.subscriptions`), and nearly always nothing. A
task for each that waits would weigh more than all else that a viewer keeps. So all sockets are in one epoll, and one
task waits until that is readable.

Rules:
- A file is in the epoll from `begin` until its viewer is gone or has said its last word.
- Whatever the words of one viewer raise ends that viewer alone.
- Any task may hang up on a viewer, even in the middle of a tick. So it is seen off later, by a task of its own.
- After our close frame the sending side is shut, and the other end has some time to close. To close the socket with
  unread data would reset the connection, and the close frame might be lost.
- When `run` ends, nobody stays.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import structlog
import trio

from server import bounds
from server.http.websocket import POLICY_VIOLATION, Closed, Fault, FrameEvent, Message, Ping
from server.live.broadcast import Broadcast, LiveMetrics
from server.live.goodbyes import Goodbyes
from server.live.subscriptions import Subscriptions
from server.live.viewers import Viewer, Viewers

log = structlog.get_logger()


class Conversations:
    """See above."""

    def __init__(
        self,
        viewers: Viewers,
        broadcast: Broadcast,
        subscriptions: Subscriptions,
        metrics: LiveMetrics,
        goodbyes: Goodbyes,
    ) -> None:
        self._viewers = viewers
        self._broadcast = broadcast
        self._subscriptions = subscriptions
        self._metrics = metrics
        self._goodbyes = goodbyes
        self._epoll = select.epoll()
        self._by_file: dict[int, Viewer] = {}
        self._leaving: list[Viewer] = []
        self._someone_left = trio.Event()
        self._tasks: trio.Nursery | None = None

    def begin(self, viewer: Viewer, owe: Callable[[], None], early: bytes) -> None:
        """Write what a new viewer is owed, and hear it from now on. `early` is what it has said already."""
        self._metrics.viewers(len(self._viewers))
        with self._alone(viewer):
            owe()
            file = viewer.socket.fileno()
            self._epoll.register(file, select.EPOLLIN)
            self._by_file[file] = viewer
            self._broadcast.push(viewer)
            if not self._handle(viewer, early):
                self._await_end(viewer)

    async def run(self) -> None:
        """Hear viewers, and see them off, until cancelled."""
        try:
            async with trio.open_nursery() as self._tasks:
                self._tasks.start_soon(self._hear_all)
                self._tasks.start_soon(self._see_off)
        finally:
            self._tasks = None
            for viewer in self._viewers.everyone():
                viewer.hang_up()
            self._let_go()
            self._epoll.close()

    @contextmanager
    def _alone(self, viewer: Viewer) -> Iterator[None]:
        """Let whatever is raised end this viewer alone."""
        try:
            yield
        except OSError:
            viewer.hang_up()
        except Exception:
            log.exception("viewer_failed")
            viewer.hang_up()

    async def _hear_all(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for file, _ in self._epoll.poll(0, bounds.SLICE_SUBSCRIPTIONS):
                viewer = self._by_file.get(file)
                if viewer is not None:  # else another one of this slice ended it
                    with self._alone(viewer):
                        self._hear(viewer)

    def _hear(self, viewer: Viewer) -> None:
        data = viewer.read(bounds.VIEWER_READ_BYTES)
        if data is None:
            return
        viewer.heard = trio.current_time()
        if not data:
            viewer.hang_up()
        elif not self._handle(viewer, data):
            self._await_end(viewer)

    def _handle(self, viewer: Viewer, data: bytes) -> bool:
        """Do what a viewer's frames ask for. False: that was its last frame."""
        events = self._events(viewer, data)
        asked = False
        for event in events:
            if isinstance(event, Ping):
                viewer.pong(event.payload)
            elif isinstance(event, Message):
                self._subscriptions.answer(viewer, event)
                asked = True
            elif isinstance(event, Closed):
                viewer.close(event.code)
            elif isinstance(event, Fault):
                log.debug("viewer_broke_protocol", reason=event.reason, address=viewer.address)
                self._metrics.viewers_dropped("protocol")
                viewer.close(event.code, event.reason)
        if viewer.control is not None:
            self._broadcast.push(viewer)
        elif asked:
            self._broadcast.push_lines(viewer)
        last = events[-1] if events else None
        if isinstance(last, Closed) and not viewer.busy:
            viewer.hang_up()  # after both close frames the server closes the connection (RFC 6455, 7.1.1)
        return not isinstance(last, Closed | Fault)

    def _events(self, viewer: Viewer, data: bytes) -> list[FrameEvent]:
        # To read a frame costs us more than it costs the viewer to send it.
        viewer.said += len(data)
        if viewer.said > bounds.VIEWER_SAYS_BYTES_MAX:
            return [Fault(POLICY_VIOLATION, "a viewer must not send so much")]
        return [] if viewer.as_events else viewer.parser.feed(data)

    # The end of a viewer

    def _await_end(self, viewer: Viewer) -> None:
        """Hear a viewer no more; give its other end time to close."""
        if viewer.gone:
            return
        self._forget(viewer)
        if self._tasks is None:  # the process is ending
            viewer.hang_up()
        else:
            self._tasks.start_soon(self._wait_closed, viewer)

    async def _wait_closed(self, viewer: Viewer) -> None:
        """Wait for the other end to close after its last frame; drop what it still sends."""
        with suppress(OSError, trio.ClosedResourceError), trio.move_on_after(bounds.VIEWER_CLOSE_SECONDS_MAX):
            while not viewer.gone and viewer.read(bounds.VIEWER_READ_BYTES) != b"":
                await trio.lowlevel.wait_readable(viewer.socket)
        viewer.hang_up()

    def gone(self, viewer: Viewer) -> None:
        """Note that a viewer is gone; its socket is still open."""
        self._forget(viewer)
        self._leaving.append(viewer)
        self._someone_left.set()

    def _forget(self, viewer: Viewer) -> None:
        file = viewer.socket.fileno()
        if self._by_file.pop(file, None) is not None:
            self._epoll.unregister(file)

    async def _see_off(self) -> None:
        while True:
            await self._someone_left.wait()
            self._someone_left = trio.Event()
            self._let_go()

    def _let_go(self) -> None:
        leaving, self._leaving = self._leaving, []
        for viewer in leaving:
            self._viewers.leave(viewer)
            self._subscriptions.leave(viewer)
            viewer.left()
        if leaving:
            self._metrics.viewers(len(self._viewers))
            self._goodbyes.left()
