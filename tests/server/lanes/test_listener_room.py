"""The listener's bounds on connections: in all, of one address, and by the kernel's files."""

from __future__ import annotations

import errno
import resource
from ipaddress import ip_network

import pytest
import trio
from structlog.typing import EventDict

from server.http.client_address import TrustedProxies
from tests.server.lanes.support import Served, open_listener


async def refused_over_the_limit(served: Served) -> None:
    client = await served.connect()
    answer = await client.answer()
    assert (answer.status, answer.code()) == (503, "OVERLOADED")
    assert answer.headers["retry-after"] == "1"
    assert await client.ended()
    await client.stream.aclose()


async def test_connections_of_one_address_are_bounded() -> None:
    """Beyond the limit a client gets 503 with Retry-After before it sends; when one leaves another may come."""
    async with open_listener(connections_per_address_max=2) as served:
        first, second = await served.connect(), await served.connect()
        await first.ask()
        await second.ask()
        await refused_over_the_limit(served)
        await refused_over_the_limit(served)
        assert (await first.ask()).body == b"hello"
        await second.stream.aclose()
        await served.counts.wait_open(1)
        assert (await served.ask_once()).body == b"hello"
        assert served.counts.refusals == {"OVERLOADED": 2}


async def test_a_trusted_proxy_stands_for_many_clients() -> None:
    """So it is not bounded as one."""
    proxies = TrustedProxies([ip_network("127.0.0.1")])
    async with open_listener(connections_per_address_max=1, proxies=proxies) as served:
        clients = [await served.connect() for _ in range(5)]
        for client in clients:
            assert (await client.ask()).body == b"hello"


async def test_connections_in_all_are_bounded() -> None:
    """Also for proxies."""
    proxies = TrustedProxies([ip_network("127.0.0.1")])
    async with open_listener(connections_max=1, proxies=proxies) as served:
        client = await served.connect()
        await client.ask()
        await refused_over_the_limit(served)
        await client.stream.aclose()
        await served.counts.wait_open(0)
        assert (await served.ask_once()).body == b"hello"


async def test_without_a_number_the_file_limit_is_the_bound() -> None:
    """A connection is a file, and the log needs some too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with open_listener(files_reserved=soft - 33, turned_away_max=32) as served:
        client = await served.connect()
        await client.ask()
        await refused_over_the_limit(served)


async def test_when_too_many_are_turned_away_the_rest_is_closed_at_once() -> None:
    """Being told takes a connection too, for as long as the client wants it to."""
    async with open_listener(connections_max=1, turned_away_max=1, linger_seconds_max=3600) as served:
        client = await served.connect()
        await client.ask()
        told = await served.connect()
        assert (await told.answer()).status == 503
        not_told = await served.connect()
        await not_told.was_reset()
        assert served.counts.refusals == {"OVERLOADED": 2}
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
    async with open_listener(accept_pause_seconds=0.001) as served:
        assert (await served.ask_once()).body == b"hello"
        assert not errors
        assert served.counts.faults == {"EPERM": 1}
    assert [line["error"] for line in logged if line["event"] == "accept_failed"] == ["EPERM"]


async def test_a_client_that_is_gone_before_it_is_looked_at_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket has no peer any more, which is how the kernel says so."""

    def getpeername(_socket: object) -> object:
        raise OSError(errno.ENOTCONN, "gone")

    async with open_listener() as served:
        with monkeypatch.context() as patched:
            patched.setattr("trio._socket._SocketType.getpeername", getpeername)
            gone = await served.connect()
            await gone.was_reset()
        assert (await served.ask_once()).body == b"hello"
        assert not served.counts.faults
