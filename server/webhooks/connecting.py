"""Connections to receivers. The address is judged after its name was resolved, and is the one that is connected to.

    backend = GuardedBackend(allow_private=False, resolve=resolve)
    httpcore.AsyncConnectionPool(network_backend=backend)          raises `AddressRefused` where it connects

Rules:
- Between the look at an address and the connection nobody resolves the name again. So a name that leads elsewhere the
  second time (DNS rebinding) gains nothing.
- Of several addresses those that are allowed are tried, in the order of the resolver. If none is, nothing is connected.
- A look-up has few threads of its own: those of the disk never wait for a name server.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import httpcore
import trio

from server.webhooks.addresses import is_public
from server.webhooks.limits import ADDRESSES_MAX, CONNECT_SECONDS, RESOLVERS

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Gives the addresses of a host. Raises OSError."""


class AddressRefused(Exception):
    """The receiver's name leads only to addresses that are not allowed."""


class Resolver:
    """The resolver of the system."""

    def __init__(self) -> None:
        self._threads = trio.CapacityLimiter(RESOLVERS)

    async def __call__(self, host: str, port: int) -> list[str]:
        """Give the addresses of a host, each once. Raises OSError."""
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await trio.to_thread.run_sync(look_up, abandon_on_cancel=True, limiter=self._threads)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """What httpcore connects with. See above."""

    def __init__(self, *, allow_private: bool, resolve: Resolve) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        self._inner = httpcore.TrioBackend()

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,  # noqa: ASYNC109
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:  # fmt: skip
        """Resolve, judge, connect. Raises `AddressRefused`, `httpcore.ConnectError`."""
        try:
            found = await self._resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"the name {host} is not known: {error.strerror or error}") from error
        allowed = [address for address in found if self._allow_private or is_public(address)]
        if not allowed:
            where = ", ".join(found[:ADDRESSES_MAX]) or "nowhere"
            raise AddressRefused(f"{host} leads to {where}, which is not public; allow_private = true allows it")
        fault: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in allowed[:ADDRESSES_MAX]:
            try:
                return await self._inner.connect_tcp(
                    address, port, min(timeout or CONNECT_SECONDS, CONNECT_SECONDS), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                fault = error
        raise fault

    async def connect_unix_socket(self, path: str, *_args: Any, **_more: Any) -> httpcore.AsyncNetworkStream:
        """Refuse: a receiver is a URL."""
        raise AddressRefused(f"{path} is no address")

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)
