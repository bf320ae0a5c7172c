"""The client's address, from the connection's peer and X-Forwarded-For. Pure.

    address = proxies.client(peer, forwarded_for)
    group = address_group(address)          # what is counted as one client

Rules:
- X-Forwarded-For is believed only from a peer that the operator named as a proxy. Any client can write the header; only
  what a trusted proxy appended to it is known.
- So it is read from the right. Each trusted proxy vouches for the entry before its own. The first address that is not a
  trusted proxy is the client. The leftmost entry, which many servers take, may be made up by the client.
- An entry that is no address ends the search: the proxy that passed it on counts as the client.
- One client has one name: IPv4 in IPv6 (`::ffff:192.0.2.1`) is IPv4; IPv6 is in its shortest form, without a zone.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address

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

    def client(self, peer: str, forwarded_for: str = "") -> str:
        """Find the client of a connection with `peer`; `forwarded_for` is the header, its lines joined by commas."""
        address = _parse(peer)
        if address is None:
            return peer
        if self._networks and forwarded_for:
            for entry in reversed(forwarded_for.split(",")):
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
    """Drop the client's port, which some proxies append: `192.0.2.1:5000`, `[2001:db8::1]:5000`."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry
