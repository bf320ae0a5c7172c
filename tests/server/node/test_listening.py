"""The sockets of `bind`: several addresses, both families, and all or none."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from server.node import listening, start
from server.node.listening import listen, own_url, urls_of
from server.settings.config import ConfigError
from server.settings.values import Address
from tests.e2e import leader as outside
from tests.e2e.client import Client
from tests.server.node.test_start import _own_logging, config_of, stop

__all__ = ["_own_logging"]

HAS_IPV6 = socket.has_dualstack_ipv6()
needs_ipv6 = pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")


async def reaches(host: str, port: int) -> bool:
    """Whether something listens there."""
    try:
        async with await trio.open_tcp_stream(host, port):
            return True
    except OSError:
        return False


async def close(listeners: list[trio.SocketListener]) -> None:
    """Close all."""
    for listener in listeners:
        await listener.aclose()


async def test_each_address_of_a_list_is_bound() -> None:
    """In the order of the list, with a free port for each 0."""
    listeners = await listen([Address("127.0.0.1", 0), Address("127.0.0.2", 0)])
    first, second = (listener.socket.getsockname() for listener in listeners)
    assert urls_of(listeners) == [f"http://127.0.0.1:{first[1]}", f"http://127.0.0.2:{second[1]}"]
    assert await reaches("127.0.0.1", first[1])
    assert await reaches("127.0.0.2", second[1])
    await close(listeners)


@pytest.mark.parametrize(
    ("urls", "own"),
    [
        (["http://127.0.0.1:80"], "http://127.0.0.1:80"),
        (["http://127.0.0.1:80", "http://192.0.2.7:80"], "http://192.0.2.7:80"),
        (["http://[::]:80", "http://[::1]:80", "http://[2001:db8::1]:80"], "http://[2001:db8::1]:80"),
        (["http://[::]:80", "http://127.0.0.1:80"], "http://[::]:80"),
    ],
)
def test_other_nodes_are_told_an_address_that_they_can_use(urls: list[str], own: str) -> None:
    """Neither a wildcard nor one of this machine alone, if there is another."""
    assert own_url(urls) == own


async def test_all_are_bound_or_none() -> None:
    """The address that is taken is named, and the one before it is free again."""
    (taken,) = await listen([Address("127.0.0.1", 0)])
    (free,) = await listen([Address("127.0.0.1", 0)])
    port, other = taken.socket.getsockname()[1], free.socket.getsockname()[1]
    await close([free])
    with pytest.raises(ConfigError, match=f"^bind: can't listen on 127.0.0.1:{port}: Address already in use"):
        await listen([Address("127.0.0.1", other), Address("127.0.0.1", port)])
    assert not await reaches("127.0.0.1", other)
    await close([taken])


@needs_ipv6
async def test_the_ipv6_wildcard_takes_both_families() -> None:
    """One socket, one port, one URL."""
    listeners = await listen([Address("::", 0)])
    (listener,) = listeners
    port = listener.socket.getsockname()[1]
    assert urls_of(listeners) == [f"http://[::]:{port}"]
    assert await reaches("127.0.0.1", port)
    assert await reaches("::1", port)
    await close(listeners)


@needs_ipv6
async def test_the_wildcards_of_both_families_may_share_a_port() -> None:
    """A list with both is a usual one; the IPv6 socket is then for IPv6 alone."""
    (one,) = await listen([Address("::", 0)])
    port = one.socket.getsockname()[1]
    await close([one])
    listeners = await listen([Address("0.0.0.0", port), Address("::", port)])
    assert urls_of(listeners) == [f"http://0.0.0.0:{port}", f"http://[::]:{port}"]
    assert await reaches("127.0.0.1", port)
    assert await reaches("::1", port)
    await close(listeners)


async def test_without_ipv6_the_wildcard_is_that_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a system can't do more, and the operator is told."""

    async def refuse(_port: int) -> trio.SocketListener:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(listening, "_bind_both", refuse)
    with capture_logs() as logged:
        listeners = await listen([Address("::", 0)])
    port = listeners[0].socket.getsockname()[1]
    assert urls_of(listeners) == [f"http://0.0.0.0:{port}"]
    assert [(line["event"], line["log_level"]) for line in logged] == [("ipv6_not_available", "warning")]
    await close(listeners)


async def test_a_node_serves_at_each_of_its_addresses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And says all of them when it is ready. A client over IPv4 is told by its IPv4 address, whatever the socket."""
    bind = '["127.0.0.1:0", "[::]:0"]' if HAS_IPV6 else "127.0.0.1:0, 127.0.0.2:0"
    config = config_of(tmp_path / "data", SCOREBOARD_BIND=bind)
    seen: list[str] = []

    async def use(urls: tuple[str, ...]) -> None:
        seen.extend(urls)
        for url in urls:
            host, _, port = url.removeprefix("http://").rpartition(":")
            async with Client(host.replace("[::]", "127.0.0.1"), int(port), outside.token("users:write")) as client:
                assert (await client.get("/healthz")).status == 200
                assert (await client.put("/users/u1", {"displayName": ""})).status == 400
        await stop("")

    with trio.fail_after(outside.ALARM_SECONDS):
        async with trio.open_nursery() as nursery:
            assert await start.serve(config, lambda *urls: nursery.start_soon(use, urls)) == 0
    lines = capsys.readouterr().err
    assert len(seen) == 2
    assert all(url in lines for url in seen)
    assert "::ffff:" not in lines
