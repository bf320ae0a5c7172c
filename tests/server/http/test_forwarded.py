"""The `Forwarded` header: read from its end, whatever stands before it; believed from trusted proxies only."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.http.client_address import TrustedProxies
from server.http.forwarded import hops

PROXIES = TrustedProxies(map(ip_network, ["10.0.0.0/8", "2001:db8:ffff::/48"]))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("for=192.0.2.60;proto=http;by=203.0.113.43", ["192.0.2.60"]),
        ('For="[2001:db8:cafe::17]:4711"', ["[2001:db8:cafe::17]:4711"]),
        ("for=192.0.2.43, for=198.51.100.17", ["198.51.100.17", "192.0.2.43"]),
        ("for=192.0.2.43,for=198.51.100.17", ["198.51.100.17", "192.0.2.43"]),
        ("proto=https ; FOR=192.0.2.43", ["192.0.2.43"]),
        ('for="_gazonk"', ["_gazonk"]),
        ("for=unknown", ["unknown"]),
        ('for="192.0.2.43:47011"', ["192.0.2.43:47011"]),
        ("for=[2001:db8::1]", ["[2001:db8::1]"]),
        (r'for="192\.0.2.1"', ["192.0.2.1"]),
        ('host="a,b;c=d";for=192.0.2.1, by=x', ["", "192.0.2.1"]),
        (r'host="a\",for=6.6.6.6";for=192.0.2.1', ["192.0.2.1"]),
        ("by=10.0.0.1", [""]),
        ("for=192.0.2.1;for=192.0.2.2", [""]),
        ("for", [""]),
        ("for=", [""]),
        ("for=192.0.2.1;", [""]),
        ("for= 192.0.2.1", [""]),
        ("", [""]),
        (",", ["", ""]),
        ('for="192.0.2.1', [""]),
        ('for=", for=192.0.2.1', ["192.0.2.1", ""]),
        ('x="\\", for=192.0.2.1', ["192.0.2.1", ""]),
    ],
)
def test_the_hops_of_a_header(header: str, expected: list[str]) -> None:
    """Quoted or not, with and without ports, hidden and unknown; an element that is not correct is the empty hop."""
    assert list(hops(header)) == expected


@given(st.text(alphabet='for=12.;,"\\ \t[]:_x', max_size=60))
@example('for="')
@example('for="\\')
def test_nothing_before_an_element_changes_how_it_is_read(made_up: str) -> None:
    """A client writes what it likes; what the proxy appended is read first, and as it stands."""
    for appended in ("for=192.0.2.1", 'for="[2001:db8::1]:80";proto=https', r'host="a\",b";for=192.0.2.9;by=_p'):
        assert next(hops(f"{made_up}, {appended}")) == next(hops(appended)) != ""


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.1.2.3", "for=198.51.100.1", "198.51.100.1"),
        ("10.1.2.3", 'for="198.51.100.1:4711"', "198.51.100.1"),
        ("10.1.2.3", 'for="198.51.100.1:_hidden"', "198.51.100.1"),
        ("10.1.2.3", 'for="[2001:DB8::1]:4711"', "2001:db8::1"),
        ("10.1.2.3", 'for="[2001:db8::1]"', "2001:db8::1"),
        ("10.1.2.3", 'for=6.6.6.6, for=198.51.100.1;by=10.9.9.9, for="10.9.9.9:80"', "198.51.100.1"),
        ("2001:db8:ffff::9", "for=198.51.100.1", "198.51.100.1"),
        ("::ffff:10.1.2.3", 'for="[::ffff:198.51.100.1]"', "198.51.100.1"),
        ("10.1.2.3", "for=198.51.100.1, for=unknown", "10.1.2.3"),
        ("10.1.2.3", "for=198.51.100.1, for=_a, for=10.4.4.4", "10.4.4.4"),
        ("10.1.2.3", "for=198.51.100.1, by=10.9.9.9", "10.1.2.3"),
        ("10.1.2.3", 'for="198.51.100.1:port"', "10.1.2.3"),
        ("10.1.2.3", 'for="[2001:db8::1]x"', "10.1.2.3"),
        ("203.0.113.5", "for=198.51.100.1", "203.0.113.5"),
    ],
)
def test_the_client_is_the_last_hop_that_no_proxy_vouches_for(peer: str, forwarded: str, client: str) -> None:
    """As with X-Forwarded-For: from the right, up to the first address that is no trusted proxy."""
    assert PROXIES.client(peer, "", forwarded) == client
    assert TrustedProxies().client(peer, "", forwarded) == TrustedProxies().client(peer)


def test_where_both_headers_come_the_older_one_counts() -> None:
    """A proxy that appends to X-Forwarded-For passes Forwarded on as the client wrote it."""
    assert PROXIES.client("10.1.2.3", "198.51.100.1", "for=6.6.6.6") == "198.51.100.1"
    assert PROXIES.client("10.1.2.3", "unknown", "for=6.6.6.6") == "10.1.2.3"
    assert PROXIES.client("10.1.2.3", "", "for=198.51.100.1") == "198.51.100.1"
