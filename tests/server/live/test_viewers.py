"""One viewer's side of the socket, byte by byte, and the registry of all of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.board_rules import rules_of_points
from engine.scoreboard import Scoreboard
from server.http.websocket import CLOSE, PING, PONG, TEXT, server_frame, text_frame
from server.live.audience import Audience
from server.live.board_view import BoardView
from server.live.editions import NO_EDITION, Channel
from server.live.viewers import Viewer, Viewers, places_for, take_over
from tests.engine.model import increment, perform
from tests.server.live.client_frames import take_server_frame

BIG = text_frame(b"x" * 1_000_000)


def make_channel() -> Channel:
    """Make the channel of a board on which nothing happened yet."""
    scoreboard = Scoreboard(rules_of_points({"main": {"ACTION_COMPLETED": 10}}))
    return Channel(BoardView("main"), scoreboard, lambda: 0)


class Pair:
    """A viewer on one end of a socket pair, and the client on the other."""

    def __init__(self) -> None:
        ours, self.client = socket.socketpair()
        ours.setblocking(False)
        self.client.setblocking(False)
        self.viewer = Viewer(ours, make_channel(), Audience(), "192.0.2.1", 0.0, deltas=False)

    def read(self) -> list[tuple[int, bytes]]:
        """Read all that came: whole frames, and nothing else."""
        data = self.read_bytes()
        frames = []
        while frame := take_server_frame(data):
            frames.append(frame)
        assert not data
        return frames

    def read_bytes(self, count: int | None = None) -> bytearray:
        """Read all that came, or the first `count` bytes."""
        data = bytearray()
        while count is None or len(data) < count:
            try:
                received = self.client.recv(65_536 if count is None else count - len(data))
            except BlockingIOError:
                break
            if not received:
                break
            data += received
        return data

    def read_while_pushing(self) -> bytearray:
        """Read and let the viewer write, in turns, until nothing is owed."""
        data = bytearray()
        while True:
            done = self.viewer.push()
            data += self.read_bytes()
            if done:
                return data


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A pair that is closed at the end."""
    made = Pair()
    yield made
    made.viewer.socket.close()
    made.client.close()


# Writing


def test_a_message_goes_out_whole_and_nothing_is_kept(pair: Pair) -> None:
    """The usual case: the socket takes all of it."""
    assert pair.viewer.show(7, text_frame(b"hello"))
    assert (pair.viewer.edition, pair.viewer.rest) == (7, None)
    assert pair.read() == [(TEXT, b"hello")]


def test_the_rest_of_a_frame_is_kept_without_a_copy(pair: Pair) -> None:
    """What the socket does not take stays a view of the frame that all viewers share."""
    assert not pair.viewer.show(7, BIG)
    rests = [pair.viewer.rest]
    assert pair.viewer.edition == 7
    data = pair.read_bytes(200_000)
    assert not pair.viewer.push()
    rests.append(pair.viewer.rest)
    data += pair.read_while_pushing()
    assert bytes(data) == BIG
    for rest in rests:
        assert rest is not None
        assert rest.obj is BIG
        assert 0 < len(rest) < len(BIG)
    assert pair.viewer.rest is None


def test_a_frame_of_which_nothing_was_taken_is_forgotten(pair: Pair) -> None:
    """The socket was full before: the viewer keeps its old edition, and nothing of the new one."""
    fill(pair.viewer.socket)
    assert not pair.viewer.show(7, text_frame(b"hello"))
    assert (pair.viewer.edition, pair.viewer.rest) == (NO_EDITION, None)


def fill(full: socket.socket) -> None:
    """Fill a socket to the last byte."""
    for size in (1000, 1):
        try:
            while True:
                full.send(b"\0" * size)
        except BlockingIOError:
            pass


def test_a_frame_that_was_begun_is_finished_before_anything_else(pair: Pair) -> None:
    """A pong and a newer edition wait for the rest of the frame before; so the client sees whole frames, in order."""
    viewer = pair.viewer
    assert not viewer.show(1, BIG)
    viewer.pong(b"later")
    data = pair.read_while_pushing()
    assert take_server_frame(data) == (TEXT, b"x" * 1_000_000)
    assert take_server_frame(data) == (PONG, b"later")
    assert not data


def test_after_a_full_socket_only_the_given_edition_is_owed(pair: Pair) -> None:
    """Whatever was published meanwhile, the viewer gets one message: that of the edition that it is brought to."""
    viewer, scoreboard = pair.viewer, Scoreboard(rules_of_points({"main": {"ACTION_COMPLETED": 10}}))
    channel = Channel(BoardView("main"), scoreboard, lambda: 0)
    viewer.show(channel.published.number, b"")
    for number in range(5):
        perform(scoreboard, [increment("ann", str(number))])
        channel.publish()
    assert viewer.push(channel.published)
    ((opcode, message),) = pair.read()
    assert opcode == TEXT
    assert b'"type":"scoreboard_update"' in message
    assert b'"seq":5' in message
    assert viewer.push(channel.published)
    assert pair.read() == []


def test_an_older_edition_is_never_shown(pair: Pair) -> None:
    """A viewer that came between two ticks has a newer edition than the published one, and keeps it."""
    pair.viewer.show(9, b"")
    assert pair.viewer.push(make_channel().published)
    assert pair.viewer.edition == 9
    assert pair.read() == []


def test_the_first_write_is_the_answer_and_the_snapshot(pair: Pair) -> None:
    """One piece, so that the client has its rows with the answer to its handshake."""
    channel = make_channel()
    pair.viewer.begin(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", channel.newest())
    assert pair.viewer.push()
    head, _, frame = bytes(pair.read_bytes()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert frame == channel.newest().for_viewer(NO_EDITION, deltas=False).frame
    assert pair.viewer.edition == channel.newest().number


# Control frames


def test_of_control_frames_the_latest_is_owed(pair: Pair) -> None:
    """Pongs do not queue up: only the latest ping is answered."""
    for number in range(1000):
        pair.viewer.pong(str(number).encode())
    assert pair.viewer.push()
    assert pair.read() == [(PONG, b"999")]


def test_a_ping_does_not_displace_a_pong(pair: Pair) -> None:
    """Our ping only asks for a sign of life; the pong was asked for, and proves to us that there is one."""
    pair.viewer.pong(b"asked for")
    pair.viewer.ping(5.0)
    assert pair.viewer.pinged == 5.0
    assert pair.viewer.push()
    assert pair.read() == [(PONG, b"asked for")]
    pair.viewer.ping(6.0)
    assert pair.viewer.push()
    assert pair.read() == [(PING, b"")]


def test_a_close_is_the_last_frame(pair: Pair) -> None:
    """It displaces whatever waits, nothing displaces it, and the sending side is shut behind it."""
    pair.viewer.pong(b"too late")
    pair.viewer.close(1012, "bye")
    pair.viewer.close(1000)
    pair.viewer.pong(b"x")
    pair.viewer.ping(1.0)
    assert pair.viewer.push(make_channel().published)
    assert pair.read() == [(CLOSE, b"\x03\xf4bye")]
    assert pair.client.recv(1) == b""


def test_a_close_waits_for_the_frame_that_was_begun(pair: Pair) -> None:
    """The client reads the frame to its end, then the close, then the end of the connection."""
    assert not pair.viewer.show(1, BIG)
    pair.viewer.close(1012)
    data = pair.read_while_pushing()
    assert take_server_frame(data) == (TEXT, b"x" * 1_000_000)
    assert take_server_frame(data) == (CLOSE, b"\x03\xf4")
    assert pair.client.recv(1) == b""


def test_a_control_frame_may_be_cut_too(pair: Pair) -> None:
    """When the socket takes only a part of a pong, the rest follows, however small the parts."""
    viewer = pair.viewer
    fill(viewer.socket)
    viewer.pong(b"p" * 125)
    assert not viewer.push()
    junk = bytearray()
    while True:
        junk += pair.read_bytes(1)
        if viewer.push():
            break
    junk += pair.read_bytes()
    assert bytes(junk).lstrip(b"\0") == server_frame(PONG, b"p" * 125)


# The end


async def test_hanging_up_wakes_who_waits() -> None:
    """Tasks that wait for the socket to be readable or writable are told that it is closed."""
    pair = Pair()
    fill(pair.viewer.socket)

    async def wait_readable() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await trio.lowlevel.wait_readable(pair.viewer.socket)

    async def wait_writable() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await trio.lowlevel.wait_writable(pair.viewer.socket)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_readable)
        nursery.start_soon(wait_writable)
        await trio.testing.wait_all_tasks_blocked()
        pair.viewer.hang_up(abort=True)
    assert pair.viewer.gone
    pair.viewer.hang_up()
    with pytest.raises(OSError, match="Bad file descriptor"):
        pair.viewer.show(1, b"x")
    pair.client.close()


async def test_the_viewer_takes_the_connection_over() -> None:
    """The stream is left empty, so closing it later ends nothing; what was on its way is still there to be read."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    client = await trio.open_tcp_stream(*listener.socket.getsockname())
    stream = await listener.accept()
    await client.send_all(b"early")
    taken = take_over(stream)
    await stream.aclose()
    await trio.lowlevel.wait_readable(taken)
    assert taken.recv(10) == b"early"
    with pytest.raises(BlockingIOError):
        taken.recv(10)
    taken.send(b"answer")
    assert await client.receive_some() == b"answer"
    taken.close()
    await client.aclose()
    await listener.aclose()


# The registry


def test_whoever_has_an_ipv6_network_counts_as_one() -> None:
    """The addresses of a /64 share the places of one, as they share connections."""
    viewers = Viewers(places=10, places_per_address=2)
    viewers.reserve("2001:db8::1")
    viewers.reserve("2001:db8::2")
    assert viewers.fault("2001:db8::3") is not None
    assert viewers.fault("2001:db8:0:1::1") is None
    assert viewers.fault("192.0.2.1") is None
    viewers.release("2001:db8::1")
    assert viewers.fault("2001:db8::3") is None
    viewers.release("2001:db8::2")
    viewers._check()


@pytest.mark.parametrize(
    ("max_viewers", "files_max", "places"),
    [(19_000, None, 19_000), (19_000, 20_000, 19_000), (19_000, 1024, 512), (19_000, 512, 0), (19_000, 256, 0)],
)
def test_files_bound_the_places(max_viewers: int, files_max: int | None, places: int) -> None:
    """What is configured, but no more than the process can open beside what it needs itself."""
    assert places_for(max_viewers, files_max, 512) == places


class Registry(RuleBasedStateMachine):
    """Viewers come and go in any order; a plain list of them says what the registry must say."""

    def __init__(self) -> None:
        super().__init__()
        self.viewers = Viewers(places=6, places_per_address=3)
        self.channels = [make_channel() for _ in range(2)]
        self.channels[1].view = BoardView("weekly")
        self.reserved: list[str] = []
        self.joined: list[Viewer] = []
        self.sockets = socket.socketpair()

    def taken(self, address: str) -> int:
        """Count the places of an address."""
        return self.reserved.count(address) + sum(viewer.address == address for viewer in self.joined)

    @rule(address=st.sampled_from("abc"))
    def come(self, address: str) -> None:
        """A place is given exactly if there is one."""
        full = len(self.reserved) + len(self.joined) == 6 or self.taken(address) == 3
        assert (self.viewers.fault(address) is not None) == full
        if not full:
            self.viewers.reserve(address)
            self.reserved.append(address)

    @precondition(lambda self: self.reserved)
    @rule()
    def give_up(self) -> None:
        """A handshake fails after its place was reserved."""
        self.viewers.release(self.reserved.pop())

    @precondition(lambda self: self.reserved)
    @rule(board=st.integers(0, 1))
    def join(self, board: int) -> None:
        """A handshake succeeds."""
        channel = self.channels[board]
        audience = self.viewers.audience(channel.view)
        self.joined.append(Viewer(self.sockets[0], channel, audience, self.reserved.pop(0), 0.0, deltas=False))

    @precondition(lambda self: self.joined)
    @rule(which=st.integers(0, 5))
    def leave(self, which: int) -> None:
        """A viewer goes."""
        self.viewers.leave(self.joined.pop(which % len(self.joined)))

    @invariant()
    def agrees(self) -> None:
        """Each viewer is counted once, on the right board."""
        self.viewers._check()
        assert len(self.viewers) == len(self.joined)
        assert sorted(self.viewers.everyone(), key=id) == sorted(self.joined, key=id)
        for channel in self.channels:
            of_board = {viewer for viewer in self.joined if viewer.channel is channel}
            assert set(self.viewers.audience(channel.view)) == of_board
            assert self.viewers.count(channel.view) == len(of_board)

    def teardown(self) -> None:
        """Close what was opened."""
        for end in self.sockets:
            end.close()


test_the_registry_keeps_count = Registry.TestCase
