"""Which addresses a webhook may be delivered to. Pure.

    is_public("93.184.216.34")       True
    is_public("127.0.0.1")           False: so are private, link-local, shared, multicast and reserved ones

Rules:
- An IPv6 address that only stands for an IPv4 address (mapped, or of NAT64) is judged by that one. One of 6to4, which
  has one inside, is judged by both.
- What can't be read as an address is not public.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """Whether an address leads to the internet, and not into this machine or its own network."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return all(each.is_global and not each.is_multicast and not each.is_reserved for each in _meant(address))


def _meant(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address | IPv6Address]:
    """Give the addresses that are reached by one."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None or address in _NAT64:
            yield IPv4Address(int(address) & 0xFFFF_FFFF)
            return
        if address.sixtofour is not None:
            yield address.sixtofour
    yield address
