"""The sockets that a node listens on: one or more for each address of `bind`.

    listeners = await listen(config.addresses)
    urls = urls_of(listeners)

Rules:
- All addresses are bound, or none: a node that is half reachable would look well from one side.
- `[::]` takes both families, as its operator expects: IPV6_V6ONLY is switched off. It stays on where the list has an
  IPv4 address with the same port, which Linux refuses otherwise. A system without IPv6 gets the IPv4 wildcard instead,
  and a warning.
- A name is bound at every address that it has.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

import structlog
import trio

from server import bounds
from server.lanes.listener import open_listeners
from server.settings.config import ConfigError
from server.settings.values import Address, address_for

ANY_V6 = "::"
ANY_V4 = "0.0.0.0"  # noqa: S104  # the operator asked for every address
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

log = structlog.get_logger()


async def listen(addresses: Sequence[Address]) -> list[trio.SocketListener]:
    """Bind all addresses. Raises ConfigError that names the one that can't be bound."""
    listeners: list[trio.SocketListener] = []
    try:
        for address in addresses:
            listeners += await _bind(address, both_families=not _has_v4(addresses, address.port))
    except OSError as error:
        for listener in listeners:
            listener.socket.close()
        raise ConfigError("bind", f"can't listen on {_written(address)}: {error.strerror or error}") from error
    return listeners


def urls_of(listeners: Sequence[trio.SocketListener]) -> list[str]:
    """Give the address of each socket, as a URL."""
    return [url_of(listener.socket.getsockname()[:2]) for listener in listeners]


def own_url(urls: Sequence[str]) -> str:
    """Choose the address that is told to other nodes: the first that they can use, or else the first."""
    return next((url for url in urls if address_for(url, "another-machine") is not None), urls[0])


def url_of(address: tuple[str, int]) -> str:
    """Write host and port as a URL."""
    host, port = address
    return f"http://{_written(Address(host, port))}"


async def _bind(address: Address, *, both_families: bool) -> list[trio.SocketListener]:
    if address.host != ANY_V6 or not both_families:
        return await open_listeners(address.host, address.port, bounds.LISTEN_BACKLOG)
    try:
        return [await _bind_both(address.port)]
    except OSError as error:
        if error.errno not in _NO_IPV6:
            raise
        log.warning("ipv6_not_available", bind=_written(address), instead=f"{ANY_V4}:{address.port}")
        return await open_listeners(ANY_V4, address.port, bounds.LISTEN_BACKLOG)


async def _bind_both(port: int) -> trio.SocketListener:
    """Bind the wildcard of both families with one socket. The rest is as in `trio.open_tcp_listeners`."""
    sock = trio.socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        await sock.bind((ANY_V6, port))
        sock.listen(bounds.LISTEN_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(sock)


def _has_v4(addresses: Sequence[Address], port: int) -> bool:
    """Whether an IPv4 address, or a name that may have one, is to be bound with this port."""
    return port != 0 and any(":" not in address.host and address.port == port for address in addresses)


def _written(address: Address) -> str:
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
