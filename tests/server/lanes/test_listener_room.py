"""The listener's bounds on connections: in all, of one address, and by the kernel's files."""

from __future__ import annotations

import errno
import resource
from ipaddress import ip_network

import pytest
import trio
from structlog.typing import EventDict

from server.http.client_address import TrustedProxies
from tests.server.lanes.support import Doorway, open_door


async def refused_for_lack_of_room(doorway: Doorway) -> None:
    client = await doorway.connect()
    answer = await client.answer()
    assert (answer.status, answer.code()) == (503, "OVERLOADED")
    assert answer.headers["retry-after"] == "1"
    assert await client.ended()
    await client.stream.aclose()


async def test_connections_of_one_address_are_bounded() -> None:
    """Beyond the bound 503 with Retry-After, without a word from the client; whoever goes makes room."""
    async with open_door(connections_per_address_max=2) as doorway:
        first, second = await doorway.connect(), await doorway.connect()
        await first.ask()
        await second.ask()
        await refused_for_lack_of_room(doorway)
        await refused_for_lack_of_room(doorway)
        assert (await first.ask()).body == b"hello"
        await second.stream.aclose()
        await doorway.counts.wait_open(1)
        assert (await doorway.ask_once()).body == b"hello"
        assert doorway.counts.refusals == {"OVERLOADED": 2}


async def test_a_trusted_proxy_stands_for_many_clients() -> None:
    """So it is not bounded as one."""
    proxies = TrustedProxies([ip_network("127.0.0.1")])
    async with open_door(connections_per_address_max=1, proxies=proxies) as doorway:
        clients = [await doorway.connect() for _ in range(5)]
        for client in clients:
            assert (await client.ask()).body == b"hello"


async def test_connections_in_all_are_bounded() -> None:
    """Also for proxies."""
    proxies = TrustedProxies([ip_network("127.0.0.1")])
    async with open_door(connections_max=1, proxies=proxies) as doorway:
        client = await doorway.connect()
        await client.ask()
        await refused_for_lack_of_room(doorway)
        await client.stream.aclose()
        await doorway.counts.wait_open(0)
        assert (await doorway.ask_once()).body == b"hello"


async def test_without_a_number_the_file_limit_is_the_bound() -> None:
    """A connection is a file, and the log needs some too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with open_door(files_reserved=soft - 33, turned_away_max=32) as doorway:
        client = await doorway.connect()
        await client.ask()
        await refused_for_lack_of_room(doorway)


async def test_when_too_many_are_turned_away_the_rest_is_closed_at_once() -> None:
    """Being told takes a connection too, for as long as the client wants it to."""
    async with open_door(connections_max=1, turned_away_max=1, linger_seconds_max=3600) as doorway:
        client = await doorway.connect()
        await client.ask()
        told = await doorway.connect()
        assert (await told.answer()).status == 503
        not_told = await doorway.connect()
        await not_told.was_reset()
        assert doorway.counts.refusals == {"OVERLOADED": 2}
        await told.stream.aclose()


async def test_accepting_outlives_a_lack_of_files(monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]) -> None:
    """It is told once, and counted, and tried again until the kernel has a file."""
    accept = trio.SocketListener.accept
    errors = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EPERM]

    async def failing(listener: trio.SocketListener) -> trio.SocketStream:
        if errors:
            raise OSError(errors.pop(), "no")
        return await accept(listener)

    monkeypatch.setattr(trio.SocketListener, "accept", failing)
    async with open_door(accept_pause_seconds=0.001) as doorway:
        assert (await doorway.ask_once()).body == b"hello"
        assert not errors
        assert doorway.counts.faults == {"EPERM": 1}
    assert [line["error"] for line in logged if line["event"] == "accept_failed"] == ["EPERM"]


async def test_a_client_that_is_gone_before_it_is_looked_at_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket has no peer any more, which is how the kernel says so."""

    def getpeername(_socket: object) -> object:
        raise OSError(errno.ENOTCONN, "gone")

    async with open_door() as doorway:
        with monkeypatch.context() as patched:
            patched.setattr("trio._socket._SocketType.getpeername", getpeername)
            gone = await doorway.connect()
            await gone.was_reset()
        assert (await doorway.ask_once()).body == b"hello"
        assert not doorway.counts.faults
