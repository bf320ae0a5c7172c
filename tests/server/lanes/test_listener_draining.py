"""Draining a listener: what came in time is answered, what does not end is cut."""

from __future__ import annotations

import pytest
import trio
from structlog.typing import EventDict

from tests.server.lanes.requests import SHORT, WATCH, get
from tests.server.lanes.support import GET, Played, open_listener


async def test_draining_answers_what_is_here_and_closes_what_is_idle() -> None:
    """No new connection is accepted; the answer in flight says that it is the last; then `run` ends."""
    played = Played()
    async with open_listener(played) as served, trio.open_nursery() as nursery:
        idle, silent, busy = [await served.connect() for _ in range(3)]
        await idle.ask()
        await busy.send(get(b"/wait"))
        await served.counts.wait_open(3)
        while len(played.scopes) < 2:
            await trio.lowlevel.checkpoint()
        nursery.start_soon(served.listener.drain, 3600)
        assert await idle.ended()
        assert await silent.ended()
        with pytest.raises(OSError):
            await served.connect()
        played.release.set()
        answer = await busy.answer()
        assert (answer.body, answer.headers["connection"]) == (b"hello", "close")
        assert await busy.ended()
        await busy.stream.aclose()
    assert played.lifespan == ["lifespan.startup", "lifespan.shutdown"]


async def test_draining_answers_those_whom_the_kernel_has_let_in() -> None:
    """The kernel has connected them and they have sent their request, but they are not accepted yet."""
    async with open_listener() as served:
        clients = [trio.socket.socket() for _ in range(20)]
        for client in clients:
            await client.connect(("127.0.0.1", served.port))
            await client.send(GET)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.listener.drain, 3600)
            for client in clients:
                assert (await client.recv(1_000)).startswith(b"HTTP/1.1 200")
                client.close()


async def test_draining_cuts_what_does_not_end(logged: list[EventDict]) -> None:
    """A client that does not read, one that does not finish its request, a viewer, a handler that hangs."""
    async with open_listener() as served:
        clients = [await served.connect() for _ in range(4)]
        for client, sent in zip(clients, (get(b"/large"), b"GET / HT", WATCH, get(b"/wait")), strict=True):
            await client.send(sent)
        await served.counts.wait_open(4)
        while not served.live.heads or len(served.application.scopes) < 2:
            await trio.lowlevel.checkpoint()
        await served.listener.drain(SHORT)
        for client in clients:
            await client.was_reset()
    assert [line["count"] for line in logged if line["event"] == "connections_cut"] == [4]


async def test_cancelling_a_door_does_not_wait_for_a_client_that_does_not_read() -> None:
    """Hypercorn shields its writes from cancellation; the listener takes their socket away."""
    async with open_listener(send_seconds_max=3600) as served:
        client = await served.connect()
        await client.send(get(b"/large"))
        await client.stream.receive_some(1)
        served.scope.cancel()


async def test_a_pipelined_request_is_answered_while_draining() -> None:
    """It came in time; its answer is the last."""
    played = Played()
    async with open_listener(played) as served, trio.open_nursery() as nursery:
        client = await served.connect()
        await client.send(get(b"/wait"))
        await played.started.wait()
        nursery.start_soon(served.listener.drain, 3600)
        await trio.testing.wait_all_tasks_blocked()
        played.release.set()
        assert (await client.answer()).headers["connection"] == "close"
        assert await client.ended()
        await client.stream.aclose()


async def test_a_door_that_is_drained_before_it_opened_ends() -> None:
    """A signal may come at any moment."""
    async with open_listener() as served:
        await served.listener.drain(0.0)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OSError):
            await served.connect()
