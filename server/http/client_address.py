"""The client's address, from the connection's peer and X-Forwarded-For or Forwarded. Pure.

    address = proxies.client(peer, forwarded_for, forwarded)
    group = address_group(address)          # what is counted as one client

Rules:
- The headers are believed only from a peer that the operator named as a proxy. Any client can write them; only what a
  trusted proxy appended is known.
- Where both come, X-Forwarded-For is read and Forwarded is not. Most proxies append to the first and pass on the second
  as the client wrote it. A proxy that writes Forwarded must remove X-Forwarded-For.
- So it is read from the right. Each trusted proxy vouches for the entry before its own. The first address that is not a
  trusted proxy is the client. The leftmost entry, which many servers take, may be made up by the client.
- An entry that is no address ends the search: the proxy that passed it on counts as the client. `unknown` and hidden
  names such as `_x` are no addresses. A port behind an address is dropped.
- One client has one name: IPv4 in IPv6 (`::ffff:192.0.2.1`) is IPv4; IPv6 is in its shortest form, without a zone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from server.http.forwarded import hops

Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address

_WITH_PORT = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?", re.ASCII)

_GROUP_PREFIX_BITS = 64
"""An IPv6 provider gives each customer at least a /64, so one client has 2^64 addresses."""

_PARSED_MAX = 4_096
"""Parsed addresses that are remembered, of 200 bytes each. Every request looks up its connection's peer."""


class TrustedProxies:
    """The proxies in front of this server, as networks. An address is the network of itself alone."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)

    def trusts(self, address: str) -> bool:
        """Say whether this address is one of the proxies."""
        parsed = _parse(address)
        return parsed is not None and self._trusts(parsed)

    def client(self, peer: str, forwarded_for: str = "", forwarded: str = "") -> str:
        """Find the client of a connection with `peer`; the others are the headers, their lines joined by commas."""
        address = _parse(peer)
        if address is None:
            return peer
        if self._networks and (forwarded_for or forwarded):
            for entry in reversed(forwarded_for.split(",")) if forwarded_for else hops(forwarded):
                if not self._trusts(address):
                    break
                before = _parse(_without_port(entry.strip()))
                if before is None:
                    break
                address = before
        return str(address)

    def _trusts(self, address: _Address) -> bool:
        # An address is never in a network of the other family, so the two families need no separate treatment.
        return any(address in network for network in self._networks)


def client_of(proxies: TrustedProxies, peer: str, headers: Mapping[str, str]) -> str:
    """Find the client of a request by all of its headers, which are joined and have names in lower case."""
    return proxies.client(peer, headers.get("x-forwarded-for", ""), headers.get("forwarded", ""))


def address_group(address: str) -> str:
    """Give what is counted as one client: an IPv4 address, or the /64 of an IPv6 address."""
    parsed = _parse(address)
    if parsed is None or parsed.version == 4:
        return address if parsed is None else str(parsed)
    return str(IPv6Network((int(parsed), _GROUP_PREFIX_BITS), strict=False))


@lru_cache(maxsize=_PARSED_MAX)
def _parse(text: str) -> _Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _without_port(entry: str) -> str:
    """Drop the port of `192.0.2.1:5000`, `[2001:db8::1]:5000`, or a hidden one, `192.0.2.1:_a`."""
    parts = _WITH_PORT.fullmatch(entry)
    return entry if parts is None else parts[1] or parts[2]
