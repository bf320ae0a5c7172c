"""A wire between two nodes: a TCP proxy that can be cut, stalled, and made to refuse, and whose far end may move.

A node is given the wire's address once and for all. Where the node at its far end listens changes with each start of
it; the wire is told, and carries new connections there. As long as nobody is there, a connection is closed at once.
"""

from __future__ import annotations

import trio

PIECE_BYTES = 2**14


class Wire:
    """Carries bytes both ways, or not. `port` is where it listens; `target` is the port at the far end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.target: int | None = None
        self.carried = 0
        self.cuts = 0
        self._refusing = False
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

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    def cut(self) -> None:
        """Cut all connections that are open now."""
        for scope in self._open:
            self.cuts += 1
            scope.cancel()

    def refuse(self) -> None:
        """Cut all connections, and let nobody in."""
        self._refusing = True
        self.cut()

    def stall(self) -> None:
        """Carry nothing any more, in either direction; connections stay open, and new ones are let in."""
        self._flowing = trio.Event()

    def mend(self) -> None:
        """Carry everything again."""
        self._refusing = False
        self._flowing.set()

    def lead_to(self, port: int) -> None:
        """Carry new connections there. Those that are open stay where they are."""
        self.target = port

    async def _carry(self, client: trio.SocketStream) -> None:
        if self._refusing or self.target is None:
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
                        nursery.start_soon(self._pump, client, server, nursery)
                        nursery.start_soon(self._pump, server, client, nursery)
            finally:
                self._open.discard(scope)

    async def _pump(self, source: trio.SocketStream, target: trio.SocketStream, nursery: trio.Nursery) -> None:
        try:
            while data := await source.receive_some(PIECE_BYTES):
                await self._flowing.wait()
                await target.send_all(data)
                self.carried += len(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        nursery.cancel_scope.cancel()
