"""The live channel of a simulated run: the server's editions and messages, sent over connections that may break.

The real broadcaster writes to sockets, which have no virtual time, so a few lines here take its place. A tick publishes
an edition. Each viewer gets the message that brings it from its edition to this one. A viewer with a full connection
gets none, and later the newest state.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import trio

from engine.scoreboard import Scoreboard
from server.api.role_checks import RoleChecks
from server.http.messages import Refused, RequestHead
from server.live.board_view import BoardView
from server.live.editions import NO_EDITION, Channel
from server.live.switch import SwitchedOff
from server.replication.freshness import Freshness
from server.settings.config import LiveConfig
from tests.sim.books import Books, Broken, shown_rows
from tests.sim.trace import Trace

if TYPE_CHECKING:
    from tests.sim.network import Network

TICK_S = 0.25


class Connection:
    """A viewer's connection, as the server sees it: messages arrive in order, or the connection breaks."""

    def __init__(self, channel: Channel, *, deltas: bool) -> None:
        self.channel = channel
        self.deltas = deltas
        self.edition = NO_EDITION
        self.full = False
        self.sending, self.arriving = trio.open_memory_channel[bytes](math.inf)

    def show(self) -> None:
        """Send the newest state, if the viewer does not have it and there is room."""
        published = self.channel.published if self.edition else self.channel.newest()
        if not self.full and self.edition < published.number:
            message = published.for_viewer(self.edition, deltas=self.deltas)
            self.edition = published.number
            self.sending.send_nowait(message.frame)


class Channels:
    """The live side of one process."""

    def __init__(
        self, scoreboard: Scoreboard, clock_ms: Callable[[], int], freshness: Freshness, checks: RoleChecks
    ) -> None:
        self._channels: dict[BoardView, Channel] = {}
        self._scoreboard = scoreboard
        self._clock_ms = clock_ms
        self._freshness = freshness
        self._checks = checks
        self._connections: list[Connection] = []
        self._changed = trio.Event()

    def connect(self, view: BoardView, *, deltas: bool) -> Connection:
        """Let a viewer in, and send it the board at once. Raises `Refused` if the state here is not vouched for."""
        self._checks.check_read()
        if not self._scoreboard.flags.live:
            raise SwitchedOff
        channel = self._channels.get(view)
        if channel is None:
            if self._scoreboard.board(view.board_id) is None:
                raise Refused(404, "NOT_FOUND", "There is no such board.")
            channel = Channel(view, self._scoreboard, self._clock_ms, self._freshness.stale_ms)
            self._channels[view] = channel
        connection = Connection(channel, deltas=deltas)
        self._connections.append(connection)
        connection.show()
        return connection

    def board_changed(self, board_ids: Iterable[str]) -> None:
        """Note that events touched these boards. Each change may be that of the flag."""
        if not self._scoreboard.flags.live:
            self.close()
        changed = set(board_ids)
        if any(channel.is_behind for view, channel in self._channels.items() if view.board_id in changed):
            self._changed.set()

    async def serve_viewer(
        self, stream: trio.SocketStream, head: RequestHead, address: str, left: Callable[[], None], *,
        as_events: bool = False,
    ) -> bool:  # fmt: skip
        """Never called: viewers of a simulated run connect by `connect`."""
        raise AssertionError(f"no socket of {address} comes here: {stream}, {head}, {as_events}")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Publish at most once in each interval; serve the viewers that were full before."""
        task_status.started()
        while True:
            with trio.move_on_after(4 * TICK_S):
                await self._changed.wait()
            self._changed = trio.Event()
            for channel in self._channels.values():
                if channel.is_behind:
                    channel.publish()
            for connection in self._connections:
                connection.show()
            await trio.sleep(TICK_S)

    def watching(self, board_id: str) -> int:
        """See `Live`."""
        return sum(connection.channel.view.board_id == board_id for connection in self._connections)

    def reload(self, config: LiveConfig) -> None:
        """Never called: no process of a simulated run gets a signal."""
        raise AssertionError(f"nobody reloads here: {config}")

    async def close_all(self, _seconds: float) -> None:
        """See `Live`."""
        self.close()

    def close(self) -> None:
        """Break all connections."""
        for connection in self._connections:
            connection.sending.close()
        self._connections.clear()


class Viewer:
    """Watches one board, connects again after each cut, and keeps the rows that a page would draw."""

    def __init__(
        self, name: str, board_id: str, *, deltas: bool, books: Books, trace: Trace, live: bool = False
    ) -> None:
        """`live`: it may see the present of a frozen board."""
        self.name = name
        self.board_id = board_id
        self.live = live
        self.deltas = deltas
        self.rows: list[dict[str, Any]] = []
        self.position = (0, 0)
        self._books = books
        self._trace = trace

    async def watch(self, network: Network, dice: random.Random) -> None:
        """Watch until cancelled."""
        while True:
            process = network.process()
            if process is None or network.is_cut:
                await trio.sleep(0.3)
                continue
            await network.delay()
            if not process.alive:
                continue
            try:
                connection = process.channels.connect(BoardView(self.board_id, self.live), deltas=self.deltas)
            except Refused:
                self._books.counts["viewers refused"] += 1
                await trio.sleep(0.3)
                continue
            self._trace.note(self.name, "connected")
            begun = False
            async for frame in connection.arriving:
                await network.delay()
                if network.loses() or network.is_cut:
                    break
                self._take(frame, begun)
                begun = True
                if not network.calm and dice.random() < 0.2:
                    connection.full = True
                    await trio.sleep(dice.uniform(0.0, 1.0))
                    connection.full = False
            connection.arriving.close()
            connection.full = True
            self._books.counts["viewers cut off"] += 1

    def _take(self, frame: bytes, begun: bool) -> None:
        """Take in a message as a page does; after the end of a period there are two at once."""
        ended: dict[str, Any] | None = None
        for text in payloads(frame):
            message = json.loads(text)
            if message["type"] == "scoreboard_period":
                ended = message
            else:
                self._take_rows(message, begun, ended)

    def _take_rows(self, message: dict[str, Any], begun: bool, ended: dict[str, Any] | None) -> None:
        kind, position = message["type"], (message["epoch"], message["seq"])
        if kind == "scoreboard_delta":
            if not (begun and self.deltas and (message["epoch"], message["baseSeq"]) == self.position):
                raise Broken(f"{self.name} has {self.position} and was sent a delta from {message['baseSeq']}")
            rows = {row["userId"]: row for row in self.rows}
            for user in message["left"]:
                del rows[user]
            rows |= {row["userId"]: row for row in message["changed"]}
            self.rows = sorted(rows.values(), key=lambda row: int(row["rank"]))
        else:
            if ended is None and begun is (kind == "scoreboard_snapshot") and not self.deltas:
                raise Broken(f"{self.name} was sent a {kind}")
            self.rows = message["entries"]
        self.position = self._books.forward(self.name, self.position, position)
        edition = self._books.shown(self.board_id, message, self.rows, live=self.live)
        if ended is not None and edition is not None:
            if ended["seq"] != edition.ended_seq:
                raise Broken(f"{self.name} was told that {ended['seq']} ended a period: {edition.ended_seq} did")
            self._books.shown_past(self.board_id, ended, live=self.live)
            self._books.counts["scoreboard_period"] += 1
        self._books.counts[kind] += 1
        self._trace.note(self.name, kind, position)

    def check_last(self) -> None:
        """Compare its last rows with the board."""
        rows = shown_rows(self.rows)
        expected = self._books.top(self.board_id, live=self.live)
        if rows != expected:
            raise Broken(f"{self.name} shows {rows} at last, a plain sort gives {expected}")


def payloads(frames: bytes) -> list[bytes]:
    """Take text frames from the server apart (RFC 6455, 5.2)."""
    found = []
    while frames:
        assert frames[0] == 0x81
        start = {126: 4, 127: 10}.get(frames[1], 2)
        length = frames[1] if start == 2 else int.from_bytes(frames[2:start], "big")
        assert len(frames) >= start + length
        found.append(frames[start : start + length])
        frames = frames[start + length :]
    return found
