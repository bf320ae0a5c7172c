"""Viewers that are slow, silent, rude or polite: what they cost, and how they are seen off."""

from __future__ import annotations

import socket

import msgspec
import pytest
import trio
from trio.testing import MockClock

from server import bounds
from server.access.lease import Lease
from server.http.websocket import BINARY, CLOSE, PING, PONG, TEXT, FrameParser, text_frame
from server.live.editions import Edition
from server.live.viewers import Viewer
from server.settings.config import LiveConfig
from tests.server.access.leases import Landlord, lease_of
from tests.server.live.client_frames import client_frame
from tests.server.live.watching import BareViewer, crowd, errors_in, open_site, stall

# Slow viewers


async def test_a_viewer_that_does_not_read_is_left_behind_and_then_closed(mock_clock: MockClock) -> None:
    """Others are served as before, at most one frame is kept for it; after 15 seconds with a full socket it is cut."""
    async with open_site() as site:
        site.score(*(f"user-{number}" for number in range(10)))
        witness = await BareViewer.open(site)
        await witness.message()
        slow = await BareViewer.open(site, receive_buffer=4096)
        await stall(site, mock_clock, witness)
        (stalled,) = (viewer for viewer in site.viewers if viewer.busy)
        kept = stalled.rest
        for number in range(20):
            crowd(site, 10_000 + number)
            mock_clock.jump(0.25)
            frame = text_frame(msgspec.json.encode(await witness.message()))
            assert stalled.rest is kept, "what is kept for a slow viewer never changes, so it never grows"
            assert kept is None or len(kept) <= len(frame)
        mock_clock.jump(bounds.VIEWER_DRAIN_SECONDS_MAX)
        await site.told.wait(lambda told: told.dropped["slow"] == 1)
        await site.told.wait(lambda told: told.count == 1)
        assert await slow.cut_off()
        crowd(site, 20_000)
        await witness.message()


@pytest.mark.parametrize(
    ("offer", "kind"), [("scoreboard.v1", "scoreboard_update"), ("scoreboard.delta.v1", "scoreboard_snapshot")]
)
async def test_a_viewer_that_reads_again_gets_the_newest(mock_clock: MockClock, offer: str, kind: str) -> None:
    """What it missed is not made up for: the frame that was begun is finished, and the next one is the newest."""
    async with open_site() as site:
        site.score(*(f"user-{number}" for number in range(10)))
        witness = await BareViewer.open(site)
        await witness.message()
        slow = await BareViewer.open(site, ("Sec-WebSocket-Protocol", offer), receive_buffer=4096)
        rounds = await stall(site, mock_clock, witness)
        for number in range(20):
            crowd(site, 10_000 + number)
            mock_clock.jump(0.25)
            newest = await witness.message()
        seqs: list[int] = []
        while not seqs or seqs[-1] != newest["seq"]:
            message = await slow.message()
            seqs.append(message["seq"])
        assert message["entries"] == newest["entries"] == site.shown()
        assert message["type"] == kind
        assert seqs == sorted(seqs)
        assert len(seqs) <= 1 + rounds + 1
        await slow.heard()
        assert not any(viewer.busy or viewer.rest for viewer in site.viewers)
        crowd(site, 20_000)
        mock_clock.jump(0.25)
        assert await slow.message() is not None


async def test_pings_that_nobody_reads_add_up_to_nothing(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A viewer that never reads a pong is held to one pong, however often it pings, and closed as a slow one."""
    monkeypatch.setattr(bounds, "VIEWER_SAYS_BYTES_MAX", 2**40)
    async with open_site() as site:
        viewer = await BareViewer.open(site, receive_buffer=4096)
        ping = client_frame(PING, b"x" * 125) * 100
        while not any(viewer.busy for viewer in site.viewers):
            await viewer.stream.send_all(ping)
        (stalled,) = site.viewers
        for _ in range(50):
            await viewer.stream.send_all(ping)
            await trio.testing.wait_all_tasks_blocked()
            assert stalled.control is None or len(stalled.control) == 127
            assert stalled.rest is None or len(stalled.rest) <= 127
        mock_clock.jump(bounds.VIEWER_DRAIN_SECONDS_MAX)
        await site.told.wait(lambda told: told.dropped["slow"] == 1)


# Pings and goodbyes


async def test_a_ping_is_answered() -> None:
    """With the payload that it came with; of several in one piece the last one counts."""
    async with open_site() as site:
        viewer = await BareViewer.open(site)
        await viewer.message()
        await viewer.send(PING, b"are you there?")
        assert await viewer.frame() == (PONG, b"are you there?")
        await viewer.stream.send_all(client_frame(PING, b"1") + client_frame(PING, b"2"))
        assert await viewer.frame() == (PONG, b"2")


async def test_what_comes_with_the_handshake_is_heard() -> None:
    """What the listener read after the head is the beginning of the client's first frame."""
    async with open_site() as site:
        site.read_too_much = client_frame(PING, b"early")
        viewer = await BareViewer.open(site)
        await viewer.message()
        assert await viewer.frame() == (PONG, b"early")


async def test_viewers_are_pinged_and_live_as_long_as_they_answer(mock_clock: MockClock) -> None:
    """A ping every 25 seconds; a viewer that answers stays, however long nothing happens."""
    async with open_site() as site:
        viewer = await BareViewer.open(site)
        await viewer.message()
        for _ in range(6):
            mock_clock.jump(bounds.VIEWER_PING_SECONDS)
            assert await viewer.frame() == (PING, b"")
            await viewer.send(PONG)
            await viewer.heard()
        assert site.told.count == 1


async def test_a_viewer_that_is_never_heard_of_is_dropped(mock_clock: MockClock) -> None:
    """Two pings without an answer, 60 seconds of silence: the peer is dead, and its place is free."""
    async with open_site() as site:
        viewer = await BareViewer.open(site)
        await viewer.message()
        for _ in range(2):
            mock_clock.jump(bounds.VIEWER_PING_SECONDS)
            assert await viewer.frame() == (PING, b"")
        assert site.told.count == 1
        mock_clock.jump(bounds.VIEWER_SILENCE_SECONDS_MAX - 2 * bounds.VIEWER_PING_SECONDS)
        await site.told.wait(lambda told: told.count == 0)
        assert site.told.dropped == {"silent": 1}
        assert await viewer.cut_off()


@pytest.mark.parametrize(("payload", "code"), [(b"\x03\xe8bye", 1000), (b"\x0f\xa0", 4000), (b"", None)])
async def test_a_goodbye_is_answered_in_kind(mock_clock: MockClock, payload: bytes, code: int | None) -> None:
    """The close frame comes back with its code, and then the connection ends; it is the server that closes."""
    async with open_site() as site:
        viewer = await BareViewer.open(site)
        await viewer.send(CLOSE, payload)
        assert await viewer.closed() == code
        await site.told.wait(lambda told: told.count == 0)
        assert not site.told.dropped


async def test_a_viewer_that_just_goes_is_forgotten() -> None:
    """No close frame, an end or a reset: its place is free."""
    async with open_site() as site:
        viewer = await BareViewer.open(site)
        await viewer.stream.aclose()
        await site.told.wait(lambda told: told.count == 0)
        viewer = await BareViewer.open(site)
        viewer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await viewer.stream.aclose()
        await site.told.wait(lambda told: told.count == 0)
        site.check()


async def test_a_viewer_that_can_not_be_answered_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sent a ping and went: writing the pong fails, which ends this viewer and nothing else."""

    def broken(_viewer: Viewer, _edition: Edition | None = None) -> bool:
        raise BrokenPipeError

    async with open_site() as site:
        viewer, other = await BareViewer.open(site), await BareViewer.open(site)
        await viewer.message()
        await other.message()
        with monkeypatch.context() as patched:
            patched.setattr(Viewer, "push", broken)
            await viewer.send(PING)
            await site.told.wait(lambda told: told.count == 1)
        await other.heard()
        assert await viewer.cut_off()


async def test_a_fault_of_ours_with_the_words_of_one_viewer_ends_that_viewer_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One task hears all of them, and goes on."""
    async with open_site() as site:
        unlucky, other = await BareViewer.open(site), await BareViewer.open(site)
        await unlucky.message()
        await other.message()
        with monkeypatch.context() as patched:
            patched.setattr(FrameParser, "feed", lambda _parser, _data: 1 // 0)
            await unlucky.send(PING)
            await site.told.wait(lambda told: told.count == 1)
        await other.heard()
        assert await unlucky.cut_off()
        (fault,) = errors_in(site.lines)
        assert fault["event"] == "viewer_failed"
        site.lines.remove(fault)


async def test_many_viewers_may_speak_and_go_at_once() -> None:
    """Also more than are heard in one turn; each is answered, and whoever went is forgotten."""
    async with open_site(LiveConfig(interval_ms=10)) as site:
        viewers = [await BareViewer.open(site) for _ in range(40)]
        for viewer in viewers:
            await viewer.send(PING, b"x")
        for viewer in viewers[::2]:
            await viewer.send(CLOSE, b"\x03\xe8")
        for viewer in viewers[::2]:
            assert await viewer.closed() == 1000
        await site.told.wait(lambda told: told.count == 20)
        site.check()
        site.score("ann")
        for viewer in viewers[1::2]:
            while (await viewer.frame())[0] != PONG:
                pass
            await viewer.heard()
        assert site.told.messages["update"] == 20


async def test_a_message_that_means_nothing_is_refused_and_does_no_harm() -> None:
    """Text and binary messages get an error; the viewer is served as before."""
    async with open_site() as site:
        viewer = await BareViewer.open(site)
        await viewer.message()
        for opcode, payload in ((TEXT, b"hello"), (BINARY, b"\x00" * 4096)):
            await viewer.send(opcode, payload)
            refusal = await viewer.message()
            assert (refusal["type"], refusal["code"]) == ("error", "INVALID_REQUEST")
            assert refusal["details"] == {"field": "message"}
        site.score("ann")
        assert (await viewer.message())["seq"] == 1


@pytest.mark.parametrize("flood", [client_frame(PING), client_frame(TEXT, b"x"), client_frame(PONG, b"x" * 125)])
async def test_a_viewer_that_never_stops_talking_is_sent_away(mock_clock: MockClock, flood: bytes) -> None:
    """Even correct frames cost us more than they cost the viewer, and all others wait meanwhile."""
    async with open_site() as site:
        viewer, other = await BareViewer.open(site), await BareViewer.open(site)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(viewer.stream.send_all, flood * (bounds.VIEWER_SAYS_BYTES_MAX // len(flood) + 1))
            assert await viewer.closed() == 1008
        assert site.told.dropped == {"protocol": 1}
        await other.heard()


async def test_a_flood_that_comes_with_the_handshake_is_not_read_either(mock_clock: MockClock) -> None:
    """It counts like everything else."""
    async with open_site() as site:
        site.read_too_much = client_frame(PING) * (bounds.VIEWER_SAYS_BYTES_MAX // 6 + 1)
        viewer = await BareViewer.open(site)
        assert await viewer.closed() == 1008


async def test_a_viewer_may_say_something_for_as_long_as_it_stays(mock_clock: MockClock) -> None:
    """Only what it says between two of our pings counts: a client that pings each second is never sent away."""
    async with open_site() as site:
        viewer = await BareViewer.open(site)
        await viewer.message()
        for _ in range(8):
            for _ in range(int(bounds.VIEWER_PING_SECONDS)):
                await viewer.send(PING, b"x" * 125)
                assert await viewer.frame() == (PONG, b"x" * 125)
            mock_clock.jump(bounds.VIEWER_PING_SECONDS)
            assert await viewer.frame() == (PING, b"")
        assert site.told.count == 1


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(b"\x81\x02hi", 1002, id="not masked"),
        pytest.param(client_frame(TEXT, b"\xff"), 1007, id="not UTF-8"),
        pytest.param(client_frame(TEXT, b"x" * 100_000), 1009, id="100 KB, of which we read 4"),
    ],
)
async def test_a_viewer_that_breaks_the_protocol_is_told_so(mock_clock: MockClock, sent: bytes, code: int) -> None:
    """It gets a close frame with the code, even while it is still sending, and is gone."""
    async with open_site() as site:
        viewer = await BareViewer.open(site)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(viewer.stream.send_all, sent)
            assert await viewer.closed() == code
        assert site.told.dropped == {"protocol": 1}
        await viewer.stream.aclose()
        await site.told.wait(lambda told: told.count == 0)


async def test_who_does_not_close_after_the_close_frame_is_closed(mock_clock: MockClock) -> None:
    """The other end has five seconds to end the connection; then we do."""
    async with open_site() as site:
        viewer = await BareViewer.open(site)
        await viewer.stream.send_all(b"\x81\x00")
        assert await viewer.closed() == 1002
        await trio.testing.wait_all_tasks_blocked()
        assert site.told.count == 1
        mock_clock.jump(bounds.VIEWER_CLOSE_SECONDS_MAX)
        await site.told.wait(lambda told: told.count == 0)


# Viewers whose token is no longer good


async def test_a_viewer_of_a_private_board_is_closed_when_its_token_has_expired(mock_clock: MockClock) -> None:
    """1008 with the reason `token expired`, at the next sweep; a viewer whose token is good stays."""
    landlords = {"Bearer old": Landlord(), "Bearer new": Landlord()}

    async def authorize(authorization: str | None) -> Lease:
        assert authorization is not None
        return lease_of(landlords[authorization])

    async with open_site(authorize=authorize) as site:
        old = await BareViewer.open(site, ("Authorization", "Bearer old"))
        new = await BareViewer.open(site, ("Authorization", "Bearer new"))
        await old.message()
        await new.message()
        landlords["Bearer old"].ended = True
        mock_clock.jump(bounds.SWEEP_SECONDS)
        assert await old.frame() == (CLOSE, b"\x03\xf0token expired")
        await old.send(CLOSE, b"\x03\xf0")
        await site.told.wait(lambda told: told.count == 1)
        assert site.told.dropped == {"expired": 1}
        site.score("ann")
        await new.message()


async def test_a_viewer_that_does_not_close_with_its_token_is_cut_off(mock_clock: MockClock) -> None:
    """It may send pings as it likes: its place is free after a few seconds."""
    landlord = Landlord()

    async def authorize(authorization: str | None) -> Lease:
        return lease_of(landlord)

    async with open_site(authorize=authorize) as site:
        viewer = await BareViewer.open(site, ("Authorization", "Bearer x"))
        await viewer.message()
        landlord.ended = True
        mock_clock.jump(bounds.SWEEP_SECONDS)
        assert (await viewer.frame())[0] == CLOSE
        await viewer.send(PING)
        mock_clock.jump(bounds.VIEWER_CLOSE_SECONDS_MAX)
        await site.told.wait(lambda told: told.count == 0)
        assert await viewer.cut_off()
