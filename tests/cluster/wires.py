"""A wire between two nodes: a TCP proxy that can be cut, stalled, slowed, made to refuse, or to change what comes back.

A node keeps the wire's address for good. The port of the node at the far end changes with each start; the test tells it
to the wire, which carries new connections there. While no node is there, the wire closes a new connection at once.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

PIECE_BYTES = 2**14


class Wire:
    """Carries bytes both ways, or not. `port` is where it listens; `target` is the port at the far end.

    Bytes that come back go through `change`; after `cut_after` more of them the wire cuts the connection, once.
    `on_forth` sees the bytes of the node that connected. `delay_seconds` is how long the wire keeps each piece.
    """

    def __init__(self, name: str, target: int | None = None) -> None:
        self.name = name
        self.port = 0
        self.target = target
        self.carried = 0
        self.cuts = 0
        self.connections = 0
        self.refusing = False
        self.change: Callable[[bytes], bytes] | None = None
        self.cut_after: int | None = None
        self.on_forth: Callable[[bytes], None] | None = None
        self.delay_seconds = 0.0
        self._flowing = trio.Event()
        self._flowing.set()
        self._open: set[trio.CancelScope] = set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, until cancelled."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._carry, [listener])

    @property
    def url(self) -> str:
        """Where a node finds it."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Cut all connections that are open now."""
        for scope in self._open:
            self.cuts += 1
            scope.cancel()

    def refuse(self) -> None:
        """Cut all connections, and refuse new ones."""
        self.refusing = True
        self.cut()

    def stall(self) -> None:
        """Carry nothing any more, in either direction; connections stay open, and new ones are let in."""
        self._flowing = trio.Event()

    def mend(self) -> None:
        """Carry everything again, at once."""
        self.refusing, self.delay_seconds = False, 0.0
        self._flowing.set()

    def lead_to(self, port: int) -> None:
        """Carry new connections to this port. Open ones stay as they are."""
        self.target = port

    async def _carry(self, client: trio.SocketStream) -> None:
        self.connections += 1
        if self.refusing or self.target is None:
            await trio.aclose_forcefully(client)
            return
        with trio.CancelScope() as scope:
            self._open.add(scope)
            try:
                async with client:
                    try:
                        server = await trio.open_tcp_stream("127.0.0.1", self.target)
                    except OSError:
                        return
                    async with server, trio.open_nursery() as nursery:
                        nursery.start_soon(self._pump, client, server, False, nursery)
                        nursery.start_soon(self._pump, server, client, True, nursery)
            finally:
                self._open.discard(scope)

    async def _pump(
        self, source: trio.SocketStream, target: trio.SocketStream, back: bool, nursery: trio.Nursery
    ) -> None:
        try:
            while data := await source.receive_some(PIECE_BYTES):
                await self._flowing.wait()
                if self.delay_seconds:
                    await trio.sleep(self.delay_seconds)
                is_last = False
                if back:
                    data, is_last = self._worked_on(data)
                elif self.on_forth is not None:
                    self.on_forth(data)
                await target.send_all(data)
                if is_last:
                    break
                self.carried += len(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        nursery.cancel_scope.cancel()

    def _worked_on(self, data: bytes) -> tuple[bytes, bool]:
        """Give the changed bytes that are carried back, and whether the connection is cut after them."""
        if self.change is not None:
            data = self.change(data)
        if self.cut_after is None:
            return data, False
        carried, left = data[: self.cut_after], self.cut_after - len(data)
        self.cut_after = left if left > 0 else None
        return carried, left <= 0
