"""One connection: every wait for the client has an end, and so has the connection, in whatever state it is."""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest
import trio

from server.http.admission import BodyMemory
from server.http.connection import Stalled
from server.http.messages import Refused
from tests.server.lanes.support import GET, LARGE_BYTES, LAST_GET, connected

POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
SHORT = 0.05
"""A deadline that a test waits for."""


# ---- deadlines for reading -------------------------------------------------------------------------------------------


async def test_a_client_that_says_nothing_is_not_waited_for() -> None:
    """There is no request to answer, so there is no answer."""
    async with connected(idle_seconds_max=SHORT) as (connection, _client):
        assert not await connection.read_head()


async def test_empty_lines_don_t_keep_a_connection_from_being_idle() -> None:
    """They are no request, however often they come."""
    async with connected(idle_seconds_max=SHORT) as (connection, client), trio.open_nursery() as nursery:

        async def dribble() -> None:
            while True:
                await client.send(b"\r\n")
                await trio.sleep(SHORT / 5)

        nursery.start_soon(dribble)
        assert not await connection.read_head()
        nursery.cancel_scope.cancel()


async def test_a_head_has_a_deadline_however_busily_it_comes() -> None:
    """From its first byte to its last: what comes in between prolongs nothing."""
    async with connected(head_seconds_max=SHORT) as (connection, client), trio.open_nursery() as nursery:

        async def dribble() -> None:
            await client.send(b"GET / HTTP/1.1\r\n")
            while True:
                await client.send(b"A: b\r\n")
                await trio.sleep(SHORT / 5)

        nursery.start_soon(dribble)
        with pytest.raises(Refused) as refused:
            await connection.read_head()
        assert (refused.value.status, refused.value.code) == (408, "INVALID_REQUEST")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
async def test_a_body_has_a_deadline(framing: bytes) -> None:
    """Whichever way its length is told."""
    async with connected(body_seconds_max=SHORT) as (connection, client):
        await client.send(POST + framing + b"\r\n\r\n1")
        assert await connection.read_head()
        with pytest.raises(Refused) as refused:
            await connection.read_body(connection.take_request())
        assert (refused.value.status, refused.value.code) == (408, "INVALID_REQUEST")


@pytest.mark.parametrize("sent", [b"G", GET[:-1], POST + b"Content-Length: 5\r\n\r\n1234"])
async def test_a_request_that_ends_too_early_is_none(sent: bytes) -> None:
    """The client closed its sending side in the middle; it may still read the answer."""
    async with connected() as (connection, client):
        await client.send(sent)
        await client.stream.send_eof()

        async def read() -> None:
            assert await connection.read_head()
            await connection.read_body(connection.take_request())

        with pytest.raises(Refused) as refused:
            await read()
        assert refused.value.status == 400


async def test_a_client_that_closes_between_requests_is_at_its_end() -> None:
    """Also after an empty line."""
    async with connected() as (connection, client):
        await client.send(b"\r\n")
        await client.stream.send_eof()
        assert not await connection.read_head()


async def test_a_lane_that_goes_on_by_itself_is_given_everything() -> None:
    """The stream, the head, and what was read after it."""
    async with connected() as (connection, client):
        await client.send(GET + b"more")
        assert await connection.read_head()
        stream, head = connection.take_stream()
        assert (head.target, head.rest) == ("/", b"more")
        assert stream is connection.stream


# ---- memory of bodies ------------------------------------------------------------------------------------------------


async def test_large_bodies_share_a_room_that_small_ones_do_not_need() -> None:
    """When it is full the next large body is refused, a small one is not; a body that is done releases its memory."""
    memory = BodyMemory(150_000, 150_000)
    large = POST + b"Content-Length: 100000\r\n\r\n" + bytes(100_000)
    async with connected(memory) as (first, client1), connected(memory) as (second, client2):
        await client1.send(large)
        assert await first.read_head()
        assert len(await first.read_body(first.take_request())) == 100_000
        await client2.send(POST + b"Content-Length: 2\r\n\r\n")
        assert await second.read_head()
        await client2.send(b"ok")
        assert await second.read_body(second.take_request()) == b"ok"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client2.send, large)
            assert await second.read_head()
            with pytest.raises(Refused) as refused:
                await second.read_body(second.take_request())
            assert (refused.value.status, refused.value.code) == (503, "OVERLOADED")
            assert dict(refused.value.headers)["retry-after"]
            nursery.start_soon(second.refuse, refused.value)
            assert (await client2.answer()).code() == "OVERLOADED"
            await client2.stream.aclose()
        assert memory.used == 100_000
        first.release_body()
        assert memory.used == 0


async def test_what_was_chunked_takes_up_no_more_than_it_is() -> None:
    """While it comes, what is kept counts; when it is there, its length."""
    memory = BodyMemory(10**6, 10**6)
    async with connected(memory) as (connection, client):
        chunks = b"".join(b"4000\r\n" + bytes(0x4000) + b"\r\n" for _ in range(8))
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        assert await connection.read_head()
        assert len(await connection.read_body(connection.take_request())) == 8 * 0x4000
        assert memory.used == 8 * 0x4000
        connection.close()
        assert memory.used == 0


async def test_a_refusal_lets_go_of_what_came_before_it_lingers() -> None:
    """A client that waits for the answer must not keep the memory of its body."""
    async with connected() as (connection, client):
        await client.send(POST + b"Content-Length: 100001\r\n\r\n" + bytes(100_000))
        await client.stream.send_eof()
        assert await connection.read_head()
        with pytest.raises(Refused) as refused:
            await connection.read_body(connection.take_request())
        assert connection._parser.held == 100_000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.refuse, refused.value)
            assert (await client.answer()).status == 400
            assert connection._parser.held == 0
            assert refused.value.__traceback__ is None, "it holds the frames, and they what they had read"


async def test_a_connection_that_ended_holds_nothing_of_what_came() -> None:
    """Even if something refers to the connection long after its end, as an exception may."""
    async with connected() as (connection, client):
        await client.send(POST + b"Content-Length: 100001\r\n\r\n" + bytes(100_000))
        assert await connection.read_head()

        async def read() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await connection.read_body(connection.take_request())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            while connection._parser.held < 100_000:
                await trio.lowlevel.checkpoint()
            await client.reset()
        connection.close()
        assert connection._parser.held == 0


# ---- writing ---------------------------------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    """The deadline holds although the write is shielded from cancellation; nothing can be written afterwards."""
    async with connected(send_seconds_max=SHORT) as (connection, client):
        with pytest.raises(Stalled), trio.CancelScope(shield=True):
            await connection.send(bytes(LARGE_BYTES))
        assert connection.gone
        with pytest.raises(trio.BrokenResourceError):
            await connection.send(b"more")
        assert await client.was_reset()


async def test_a_cut_ends_a_write_that_is_shielded() -> None:
    """That is what ends the process on SIGTERM though a client does not read."""
    async with connected() as (connection, client), trio.open_nursery() as nursery:

        async def write(task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            with pytest.raises(trio.BrokenResourceError), trio.CancelScope(shield=True):
                await connection.send(bytes(LARGE_BYTES))

        await nursery.start(write)
        await client.stream.receive_some(1)
        connection.cut()
        assert await client.was_reset()


async def test_writing_to_a_client_that_is_gone_lets_others_run() -> None:
    """A loop that does nothing else must not starve the process."""
    async with connected() as (connection, client):
        await client.reset()
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            for _ in range(100):
                try:
                    await connection.send(b"x")
                except trio.BrokenResourceError:
                    assert connection.gone
            nursery.cancel_scope.cancel()
        assert turns >= 90


# ---- the end ---------------------------------------------------------------------------------------------------------


async def test_a_client_in_the_middle_of_sending_sees_the_refusal() -> None:
    """What it still sends is read and dropped: closing at once would reset the connection, and the answer with it."""
    async with connected() as (connection, client), trio.open_nursery() as nursery:
        nursery.start_soon(connection.refuse, Refused(413, "PAYLOAD_TOO_LARGE", "too large"))
        await client.send(bytes(4 * 2**20))
        answer = await client.answer()
        assert (answer.status, answer.code()) == (413, "PAYLOAD_TOO_LARGE")
        assert answer.headers["connection"] == "close"
        assert "date" in answer.headers
        assert await client.ended()
        await client.stream.aclose()


async def test_a_client_that_never_closes_is_left_after_a_while() -> None:
    """It may take in the answer, but not hold the connection for ever."""
    async with connected(linger_seconds_max=SHORT) as (connection, client):
        await connection.refuse(Refused(400, "INVALID_REQUEST", "no"))
        assert (await client.answer()).code() == "INVALID_REQUEST"


async def test_a_client_that_never_stops_sending_is_left_after_some_bytes() -> None:
    """However fast it is."""
    async with connected(linger_bytes_max=10**6) as (connection, client), trio.open_nursery() as nursery:

        async def send_for_ever() -> None:
            with suppress(trio.BrokenResourceError):
                while True:
                    await client.send(bytes(2**16))

        nursery.start_soon(send_for_ever)
        await connection.linger()
        connection.close()


async def test_the_answer_to_head_has_no_body() -> None:
    """Not even that of a refusal; and whatever was refused next was not a HEAD."""
    async with connected() as (connection, client), trio.open_nursery() as nursery:
        await client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await connection.read_head()
        nursery.start_soon(connection.refuse, Refused(500, "INTERNAL_ERROR", "no"))
        assert int((await client.answer(to_head=True)).headers["content-length"]) > 0
        assert await client.ended()
        await client.stream.aclose()
    async with connected() as (connection, client), trio.open_nursery() as nursery:
        await client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\nnonsense")
        assert await connection.read_head()
        assert await connection.read_body(connection.take_request()) == b""
        with pytest.raises(Refused) as refused:
            await connection.read_head()
        nursery.start_soon(connection.refuse, refused.value)
        assert (await client.answer()).code() == "INVALID_REQUEST"
        await client.stream.aclose()


async def test_closing_soon_is_at_once_when_there_is_no_request() -> None:
    """Whether somebody waits for one already or only afterwards."""
    async with connected() as (connection, _client), trio.open_nursery() as nursery:

        async def wait(task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            assert not await connection.read_head()

        await nursery.start(wait)
        connection.close_soon()
    async with connected() as (connection, _client):
        connection.close_soon()
        assert not await connection.read_head()


async def test_closing_soon_leaves_time_for_a_request_that_is_here() -> None:
    """Half a head, or a whole one that was not read yet, is a request in flight."""
    async with connected() as (connection, client), trio.open_nursery() as nursery:
        await client.send(LAST_GET[:20])

        async def finish() -> None:
            connection.close_soon()
            await client.send(LAST_GET[20:])

        nursery.start_soon(finish)
        assert await connection.read_head()
    async with connected() as (connection, client):
        await client.send(GET)
        while not connection.stream.socket.is_readable():
            await trio.lowlevel.checkpoint()
        connection.close_soon()
        assert await connection.read_head()


async def test_a_connection_may_be_closed_and_cut_in_any_order() -> None:
    """Also after a viewer took the socket out of the stream."""
    async with connected() as (connection, client):
        connection.cut()
        connection.close_soon()
        connection.close()
        connection.cut()
        assert await client.was_reset()
    async with connected() as (connection, client):
        with socket.socket(fileno=connection.stream.socket.detach()) as taken:
            connection.cut()
            connection.close()
            taken.sendall(b"still the viewer's")
            assert await client.stream.receive_some() == b"still the viewer's"
