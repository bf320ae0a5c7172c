"""Whose request it is: X-Forwarded-For from trusted proxies only, read from the right."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from server.http.client_address import TrustedProxies, address_group

PROXIES = TrustedProxies(map(ip_network, ["10.0.0.0/8", "192.0.2.7", "2001:db8:ffff::/48"]))


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("203.0.113.5", "", "203.0.113.5"),
        ("203.0.113.5", "198.51.100.1", "203.0.113.5"),
        ("10.1.2.3", "", "10.1.2.3"),
        ("10.1.2.3", "198.51.100.1", "198.51.100.1"),
        ("192.0.2.7", "198.51.100.1", "198.51.100.1"),
        ("192.0.2.8", "198.51.100.1", "192.0.2.8"),
        ("10.1.2.3", "6.6.6.6, 198.51.100.1, 10.9.9.9", "198.51.100.1"),
        ("10.1.2.3", "10.4.4.4, 10.5.5.5", "10.4.4.4"),
        ("10.1.2.3", "198.51.100.1:4711", "198.51.100.1"),
        ("10.1.2.3", "[2001:DB8::1]:4711", "2001:db8::1"),
        ("10.1.2.3", "2001:db8:0:0::1", "2001:db8::1"),
        ("2001:db8:ffff::9", "198.51.100.1", "198.51.100.1"),
        ("::ffff:10.1.2.3", "::ffff:198.51.100.1", "198.51.100.1"),
        ("10.1.2.3", "198.51.100.1:_hidden", "198.51.100.1"),
        ("10.1.2.3", "198.51.100.1:http", "10.1.2.3"),
        ("10.1.2.3", "[2001:db8::1", "10.1.2.3"),
        ("10.1.2.3", "198.51.100.1, unknown", "10.1.2.3"),
        ("10.1.2.3", "198.51.100.1, , 10.9.9.9", "10.9.9.9"),
        ("10.1.2.3", "198.51.100.1 198.51.100.2", "10.1.2.3"),
        ("not an address", "198.51.100.1", "not an address"),
    ],
)
def test_the_client_is_the_last_hop_that_no_proxy_vouches_for(peer: str, forwarded_for: str, client: str) -> None:
    """What a trusted proxy appended is believed, what stood there before is whatever the client made up."""
    assert PROXIES.client(peer, forwarded_for) == client


def test_asking_again_with_the_answer_changes_nothing() -> None:
    """A layer may ask for a client that another layer has already found."""
    once = PROXIES.client("10.1.2.3", "6.6.6.6, 198.51.100.1, 10.9.9.9")
    assert PROXIES.client(once, "6.6.6.6, 198.51.100.1, 10.9.9.9") == once


def test_without_proxies_none_is_believed() -> None:
    """The header is anybody's to write."""
    none = TrustedProxies()
    assert none.client("127.0.0.1", "198.51.100.1") == "127.0.0.1"
    assert not none.trusts("127.0.0.1")


def test_trust_is_by_address_and_network() -> None:
    """An address is trusted in whatever form it is written, and what is no address is not."""
    assert PROXIES.trusts("10.255.0.1")
    assert PROXIES.trusts("::ffff:10.255.0.1")
    assert not PROXIES.trusts("11.0.0.1")
    assert not PROXIES.trusts("")


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:ffff:ffff:ffff", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("odd", "odd"),
    ],
)
def test_an_ipv6_client_counts_by_its_network(address: str, group: str) -> None:
    """A client with one IPv6 address has 2^64 of them."""
    assert address_group(address) == group
