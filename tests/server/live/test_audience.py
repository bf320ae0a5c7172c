"""A tick over an audience: each viewer gets what `Viewer.show` would give it, and no viewer is another's trouble.

Both ways to write pass: one by one, and by io_uring where the system has it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.board_rules import rules_of_points
from engine.scoreboard import Scoreboard
from server import bounds
from server.http.websocket import TEXT
from server.live import ring
from server.live.audience import Audience
from server.live.board_view import BoardView
from server.live.editions import NO_EDITION, Channel, Edition
from server.live.ring import Files, Ring, Short
from server.live.viewers import Viewer
from server.live.writing import Write, one_by_one, writing
from tests.engine.model import increment, perform
from tests.server.live.client_frames import take_server_frame

NEWEST = 4
Changes = list[tuple[str, int]]


@pytest.fixture(params=["one by one", "io_uring"])
def write(request: pytest.FixtureRequest) -> Iterator[Write]:
    """Each way to write."""
    if request.param == "one by one":
        yield one_by_one
        return
    made = Ring.open(bounds.SLICE_VIEWERS)
    if made is None:
        pytest.skip("this system lets us have no io_uring")
    yield made.write
    made.close()


class Row:
    """Viewers on socket pairs, all of one board that had NEWEST editions."""

    def __init__(self, write: Write) -> None:
        self.write = write
        self.audience = Audience[Viewer]()
        self.scoreboard = Scoreboard(rules_of_points({"main": {"ACTION_COMPLETED": 10}}))
        self.channel = Channel(BoardView("main"), self.scoreboard, lambda: 0)
        self.actions = 0
        for _ in range(NEWEST - 1):
            self.score()
        self.viewers: list[Viewer] = []
        self.left: list[Viewer] = []
        self.clients: list[socket.socket] = []

    def score(self) -> None:
        """Make another edition."""
        self.actions += 1
        perform(self.scoreboard, [increment("ann", str(self.actions))])
        self.channel.publish()

    @property
    def newest(self) -> Edition:
        """What all are to be shown."""
        return self.channel.published

    def add(self, edition: int = NEWEST - 1, *, deltas: bool = False) -> Viewer:
        """Add a viewer that has an edition."""
        ours, client = socket.socketpair()
        ours.setblocking(False)
        client.setblocking(False)
        viewer = Viewer(ours, self.channel, self.audience, "192.0.2.1", 0.0, deltas=deltas)
        viewer.edition = edition
        self.viewers.append(viewer)
        self.clients.append(client)
        return viewer

    def show(self) -> tuple[list[Viewer], Counter[str]]:
        """Show the newest edition to all. Gives the viewers with full sockets, and what was counted."""
        shown: Counter[str] = Counter()
        full: list[Viewer] = []
        for _ in self.audience.show(self.newest, self.write, shown, full.append):
            pass
        self.audience._check()
        return full, shown

    def received(self) -> list[bytes]:
        """Read what came to each client, as bytes."""
        return [drained(client) for client in self.clients]


def drained(client: socket.socket) -> bytes:
    """Read all that came to a client."""
    client.setblocking(False)
    data = b""
    with suppress(BlockingIOError):
        while more := client.recv(65_536):
            data += more
    return data


@contextmanager
def a_row(write: Write) -> Iterator[Row]:
    """A row of viewers that is closed at the end."""
    row = Row(write)
    try:
        yield row
    finally:
        for end in (*(viewer.socket for viewer in row.viewers), *row.clients):
            end.close()


STATES = st.tuples(
    st.integers(NO_EDITION, NEWEST + 1), st.booleans(), st.sampled_from(["idle", "idle", "idle", "busy", "closing"])
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STATES, max_size=12))
def test_each_viewer_is_shown_what_suits_it(write: Write, states: list[tuple[int, bool, str]]) -> None:
    """In whatever order formats and editions come, each gets the message that `for_viewer` names, or none."""
    with a_row(write) as row:
        expected, counted = [], Counter[str]()
        for edition, deltas, state in states:
            viewer = row.add(edition, deltas=deltas)
            if state == "busy":
                viewer.hold()
            elif state == "closing":
                viewer.close(1000)
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


CHANGES = st.lists(st.tuples(st.sampled_from(["come", "hold", "release", "go"]), st.integers(0, 9)), max_size=2)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 6), st.lists(CHANGES, max_size=6))
def test_tick_after_tick_each_viewer_is_shown_what_suits_it(write: Write, first: int, ticks: list[Changes]) -> None:
    """Whoever came, went, or was left to a task in between, or if nothing changed at all."""
    with a_row(write) as row:
        for _ in range(first):
            row.add()
        for changes in ticks:
            for what, which in changes:
                viewer = row.viewers[which % len(row.viewers)]
                if what == "come":
                    row.add(row.newest.number, deltas=which == 0)
                elif what == "go" and viewer not in row.left:
                    row.audience.leave(viewer.slot)
                    row.left.append(viewer)
                elif viewer not in row.left:
                    viewer.hold() if what == "hold" else viewer.release()
            row.score()
            newest = row.newest
            expected = [
                b"" if viewer in row.left or viewer.busy or viewer.edition == newest.number
                else newest.for_viewer(viewer.edition, deltas=viewer.deltas).frame
                for viewer in row.viewers
            ]  # fmt: skip
            full, shown = row.show()
            assert row.received() == expected
            assert (full, shown.total()) == ([], len([frame for frame in expected if frame]))


async def test_a_viewer_that_is_gone_is_passed_over(write: Write) -> None:
    """Its file descriptor may be somebody else's by now, so its socket is not even tried."""
    with a_row(write) as row:
        gone, here = row.add(), row.add()
        file = gone.socket.fileno()
        gone.hang_up()
        others = socket.socketpair()
        row.clients += others
        assert file in [each.fileno() for each in others]
        assert row.show() == ([], {"update": 1})
        assert (gone.edition, here.edition) == (NEWEST - 1, NEWEST)
        for each in others:
            each.setblocking(False)
        assert [bool(data) for data in row.received()] == [False, True, False, False]


async def test_a_viewer_is_passed_over_only_while_a_task_writes_to_it(write: Write) -> None:
    """The task brings it up to date; from then on it is shown what comes with all the others."""
    with a_row(write) as row:
        slow, closing = row.add(), row.add()
        for viewer in (slow, closing):
            viewer.hold()
        assert row.show() == ([], {})
        closing.close(1000)
        for viewer in (slow, closing):
            viewer.release()
        assert row.show() == ([], {"update": 1})
        assert (slow.edition, closing.edition) == (NEWEST, NEWEST - 1)


async def test_a_slot_is_the_next_ones(write: Write) -> None:
    """Whoever takes it begins without an edition, and the audience is no larger."""
    with a_row(write) as row:
        viewers = [row.add(NEWEST) for _ in range(3)]
        viewers[1].hang_up()
        row.audience.leave(viewers[1].slot)
        assert set(row.audience) == {viewers[0], viewers[2]}
        newcomer = row.add(NO_EDITION)
        assert (newcomer.slot, row.audience.count) == (1, 3)
        assert row.show() == ([], {"snapshot": 1})
        assert (newcomer.edition, viewers[2].edition) == (NEWEST, NEWEST)


def test_an_audience_grows(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    """Past the room that it begins with, and in slices."""
    monkeypatch.setattr(bounds, "SLICE_VIEWERS", 50)
    with a_row(write) as row:
        for _ in range(130):
            row.add()
        assert row.show() == ([], {"update": 130})
        frame = row.newest.for_viewer(NEWEST - 1, deltas=False).frame
        assert row.received() == [frame] * 130
        assert row.show() == ([], {})


async def test_a_broken_socket_ends_that_viewer_alone(write: Write) -> None:
    """It is hung up on, not counted and not waited for; those after it are shown the edition."""
    with a_row(write) as row:
        broken, here = row.add(), row.add()
        row.clients[0].close()
        assert row.show() == ([], {"update": 1})
        assert (broken.gone, here.gone, here.edition) == (True, False, NEWEST)


def test_a_full_socket_keeps_nothing_and_is_to_be_waited_for(write: Write) -> None:
    """The viewer still has its old edition, so once its socket drains it is owed the newest one."""
    with a_row(write) as row:
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
    with a_row(stingily) as row:
        slow, here = row.add(), row.add()
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


def stingily(files: Files, frame: bytes) -> Short:
    """Write as if the first socket had room for seven bytes."""
    assert one_by_one(files[:1], frame[:7]) == one_by_one(files[1:], frame) == []
    return [(0, 7)]


def test_each_way_to_write_says_what_the_kernel_says(write: Write) -> None:
    """Of each socket: how much it took, that it is full, that the other end is gone, that it is no socket."""
    pairs = [socket.socketpair() for _ in range(4)]
    for ours, _ in pairs:
        ours.setblocking(False)
    files = np.array([ours.fileno() for ours, _ in pairs], np.int32)
    pairs[1][1].close()
    pairs[2][0].close()
    big = b"x" * 4_000_000
    first, second, last = dict(write(files, big)), dict(write(files, big)), write(files[:0], big)
    assert 0 < first[0] == first[3] < len(big)
    assert second == {0: -errno.EAGAIN, 1: -errno.EPIPE, 2: -errno.EBADF, 3: -errno.EAGAIN}
    assert (first[1], first[2]) == (second[1], second[2])
    assert last == []
    for index in (0, 3):
        assert len(drained(pairs[index][1])) == first[index]  # once there is space, nothing comes by itself
    for pair in pairs:
        for end in pair:
            end.close()


def test_a_ring_goes_round(write: Write) -> None:
    """However often it is used, and for however many at once, each socket gets its frame once."""
    pairs = [socket.socketpair() for _ in range(8)]
    for ours, client in pairs:
        ours.setblocking(False)
        client.setblocking(False)
    for number, count in enumerate([8, bounds.SLICE_VIEWERS, 104, bounds.SLICE_VIEWERS - 8] * 12):
        files = np.resize(np.array([ours.fileno() for ours, _ in pairs], np.int32), count)
        assert write(files, b"%05d" % number) == []
        for _, client in pairs:
            assert client.recv(65_536) == b"%05d" % number * (count // 8)
    for pair in pairs:
        for end in pair:
            end.close()


def test_what_the_kernel_has_no_memory_for_counts_as_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes only some of the requests. The others are never done by the next call, whose files are other ones."""
    ours = Ring.open(8)
    if ours is None:
        pytest.skip("this system lets us have no io_uring")
    pairs = [socket.socketpair() for _ in range(5)]
    files = np.array([mine.fileno() for mine, _ in pairs], np.int32)
    real = ring._enter
    for round_number, takes in enumerate([3, 5, -1, 5, 0, 2, 5]):
        with monkeypatch.context() as patched:
            patched.setattr(ring, "_enter", lambda file, _count, takes=takes: real(file, takes) if takes > 0 else takes)
            short = ours.write(files, b"%d" % round_number)
        assert short == [(index, -errno.EAGAIN) for index in range(max(0, takes), 5)]
        for index, (_, client) in enumerate(pairs):
            client.setblocking(False)
            if index < takes:
                assert client.recv(100) == b"%d" % round_number
            else:
                with pytest.raises(BlockingIOError):
                    client.recv(100)
    ours.close()
    for pair in pairs:
        for end in pair:
            end.close()


@pytest.mark.parametrize("has_ring", [True, False])
def test_where_there_is_no_ring_sockets_are_written_to_one_by_one(
    monkeypatch: pytest.MonkeyPatch, has_ring: bool
) -> None:
    """A container runtime may forbid it."""
    if not has_ring:
        monkeypatch.setattr(Ring, "open", lambda _entries: None)
    elif Ring.open(8) is None:
        pytest.skip("this system lets us have no io_uring")
    with writing(8) as write:
        assert (write is one_by_one) is not has_ring


def test_a_kernel_that_refuses_a_ring_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its reason: here, that no ring can be so large, or that it may be made and not used."""
    assert Ring.open(2**20) is None
    monkeypatch.setattr(ring, "_enter", lambda _file, _count: -1)
    files = len(os.listdir("/proc/self/fd"))
    assert Ring.open(8) is None
    assert len(os.listdir("/proc/self/fd")) == files
