"""The loop of a tick: each viewer gets what `Viewer.show` would give it, and no viewer is another's trouble."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.board_rules import rules_of_points
from engine.scoreboard import Scoreboard
from server.http.websocket import TEXT
from server.live.board_view import BoardView
from server.live.editions import NO_EDITION, Channel, Edition
from server.live.viewers import Viewer, show_all
from tests.engine.model import increment, perform
from tests.server.live.client_frames import take_server_frame

if TYPE_CHECKING:
    from typing_extensions import Buffer  # in the standard library from Python 3.12 on

NEWEST = 4


class Row:
    """Viewers on socket pairs, all of one board that had NEWEST editions."""

    def __init__(self) -> None:
        scoreboard = Scoreboard(rules_of_points({"main": {"ACTION_COMPLETED": 10}}))
        self.channel = Channel(BoardView("main"), scoreboard, lambda: 0)
        for number in range(NEWEST - 1):
            perform(scoreboard, [increment("ann", str(number))])
            self.channel.publish()
        self.viewers: list[Viewer] = []
        self.clients: list[socket.socket] = []

    @property
    def newest(self) -> Edition:
        """What all are to be shown."""
        return self.channel.published

    def add(self, edition: int = NEWEST - 1, *, deltas: bool = False) -> Viewer:
        """Add a viewer that has an edition."""
        ours, client = socket.socketpair()
        ours.setblocking(False)
        client.setblocking(False)
        viewer = Viewer(ours, self.channel, "192.0.2.1", 0.0, deltas=deltas)
        viewer.edition = edition
        self.viewers.append(viewer)
        self.clients.append(client)
        return viewer

    def show(self) -> tuple[list[Viewer], Counter[str]]:
        """Show the newest edition to all. Gives the viewers with full sockets, and what was counted."""
        shown: Counter[str] = Counter()
        return show_all(self.viewers, self.newest, shown), shown

    def received(self) -> list[bytes]:
        """Read what came to each client, as bytes."""
        received = []
        for client in self.clients:
            data = b""
            try:
                while more := client.recv(65_536):
                    data += more
            except BlockingIOError:
                pass
            received.append(data)
        return received


@contextmanager
def a_row() -> Iterator[Row]:
    """A row of viewers that is closed at the end."""
    row = Row()
    try:
        yield row
    finally:
        for end in (*(viewer.socket for viewer in row.viewers), *row.clients):
            end.close()


STATES = st.tuples(
    st.integers(NO_EDITION, NEWEST + 1), st.booleans(), st.sampled_from(["idle", "idle", "idle", "busy", "closing"])
)


@settings(deadline=None)
@given(st.lists(STATES, max_size=12))
def test_each_viewer_is_shown_what_suits_it(states: list[tuple[int, bool, str]]) -> None:
    """In whatever order formats and editions come, each gets the message that `for_viewer` names, or none."""
    with a_row() as row:
        expected, counted = [], Counter[str]()
        for edition, deltas, state in states:
            viewer = row.add(edition, deltas=deltas)
            viewer.busy, viewer.closing = state == "busy", state == "closing"
            if state != "idle" or edition >= NEWEST:
                expected.append(b"")
                continue
            message = row.newest.for_viewer(edition, deltas=deltas)
            expected.append(message.frame)
            counted[message.kind] += 1
        full, shown = row.show()
        assert row.received() == expected
        assert (full, shown) == ([], counted)
        for viewer, (edition, _, _), frame in zip(row.viewers, states, expected, strict=True):
            assert viewer.edition == (NEWEST if frame else edition)
            assert viewer.rest is None


def test_a_viewer_that_is_gone_is_passed_over() -> None:
    """Its file descriptor may be somebody else's by now, so its socket is not even tried."""
    with a_row() as row:
        gone, here = row.add(), row.add()
        gone.gone = True
        assert row.show() == ([], {"update": 1})
        assert (gone.edition, here.edition) == (NEWEST - 1, NEWEST)
        assert [bool(data) for data in row.received()] == [False, True]


async def test_a_broken_socket_ends_that_viewer_alone() -> None:
    """It is hung up on, not counted and not waited for; those after it are shown the edition."""
    with a_row() as row:
        broken, here = row.add(), row.add()
        row.clients[0].close()
        assert row.show() == ([], {"update": 1})
        assert (broken.gone, here.gone, here.edition) == (True, False, NEWEST)


def test_a_full_socket_keeps_nothing_and_is_to_be_waited_for() -> None:
    """The viewer still has its old edition, so once its socket drains it is owed the newest one."""
    with a_row() as row:
        full, here = row.add(), row.add()
        try:
            while True:
                full.socket.send(b"\0")
        except BlockingIOError:
            pass
        assert row.show() == ([full], {"update": 1})
        assert (full.edition, full.rest, here.edition) == (NEWEST - 1, None, NEWEST)


def test_what_a_socket_took_only_in_part_goes_on_where_it_stopped() -> None:
    """The edition counts as shown, and the rest is a view of the frame that all share."""
    with a_row() as row:
        slow, here = row.add(), row.add()
        slow.socket = Stingy(slow.socket)
        frame = row.newest.for_viewer(NEWEST - 1, deltas=False).frame
        assert row.show() == ([slow], {"update": 2})
        assert (slow.edition, here.edition) == (NEWEST, NEWEST)
        assert slow.rest is not None
        assert slow.rest.obj is frame
        assert slow.push()
        first, second = row.received()
        assert first == second == frame
        opcode, _ = take_server_frame(bytearray(first)) or (None, b"")
        assert opcode == TEXT


class Stingy(socket.socket):
    """A socket that takes seven bytes at its first write."""

    def __init__(self, other: socket.socket) -> None:
        super().__init__(other.family, other.type, other.proto, fileno=other.detach())
        self.setblocking(False)
        self.first = True

    def send(self, data: Buffer, flags: int = 0) -> int:
        """Write, at first only a little."""
        whole = memoryview(data)
        part, self.first = whole[:7] if self.first else whole, False
        return super().send(part, flags)
