"""How values of the configuration are written: addresses, networks, ages, URLs, points. Pure.

    parse_duration("12h")      43_200

A parser raises ValueError with what is allowed. `server.settings.config` adds the key and the source. The message never
repeats the value, because some values are secrets.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

import msgspec

from engine.errors import ScoreboardError

Network = IPv4Network | IPv6Network

FOREVER = "forever"

_AGE = re.compile(r"([1-9][0-9]{0,8})([smhd])", re.ASCII)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_HOST_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104  # as addresses they are refused here, not bound
_DEFAULT_PORTS = {"http": 80, "https": 443}

BIND_ALLOWED = (
    'HOST:PORT such as "127.0.0.1:8080", "[::1]:8080" or "0.0.0.0:0" (port 0 takes a free one), or a list of them'
)
AGE_ALLOWED = 'a whole number and s, m, h or d, such as "30m", "12h" or "90d"'


class ConfigError(ScoreboardError):
    """An unknown key, or a value that is not allowed: the process does not start until the operator corrects it.

    `key` is the full name (`limits.user_per_minute`). `message` says what is wrong and what is allowed.
    """

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        self.message = message
        super().__init__(f"{key}: {message}")


class Address(msgspec.Struct, frozen=True):
    """Where to listen. `host` is a name or an address without brackets. For port 0 the kernel takes a free one."""

    host: str
    port: int


def parse_bind(text: str) -> Address:
    """Parse HOST:PORT, with IPv6 in brackets."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]:")
        host_is_good = is_address(host, IPv6Address)
    else:
        host, _, port = text.rpartition(":")
        host_is_good = is_address(host, IPv4Address) or is_host_name(host)
    if not host_is_good or not re.fullmatch("[0-9]{1,5}", port, re.ASCII) or int(port) > 65_535:
        raise ValueError(f"must be {BIND_ALLOWED}")
    return Address(host, int(port))


def parse_binds(texts: str | tuple[str, ...]) -> tuple[Address, ...]:
    """Parse the value of `bind`: one HOST:PORT, or several different ones."""
    addresses = tuple(parse_bind(text) for text in ((texts,) if isinstance(texts, str) else texts))
    if not addresses:
        raise ValueError(f"must be {BIND_ALLOWED}")
    fixed = [address for address in addresses if address.port]
    if len(set(fixed)) < len(fixed):
        raise ValueError("must name each address once")
    return addresses


def is_address(text: str, kind: type[IPv4Address] | type[IPv6Address]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def is_host(text: str) -> bool:
    return is_address(text, IPv4Address) or is_address(text, IPv6Address) or is_host_name(text)


def is_host_name(text: str) -> bool:
    labels = text.split(".")
    # Four numbers that are no address are a typing mistake, not a name.
    return len(text) <= 253 and all(map(_HOST_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def parse_networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Parse networks. An address is a network of one."""
    networks: list[Network] = []
    for text in texts:
        try:
            networks.append(ip_network(text))
        except ValueError as error:
            allowed = 'each must be an address or a network, such as "10.0.0.7" or "10.0.0.0/8"'
            if "host bits" in str(error):
                allowed += "; a network has no bits set behind its prefix"
            raise ValueError(allowed) from None
    return tuple(networks)


def parse_duration(text: str) -> int:
    """Parse "90s", "30m", "12h" or "7d" into seconds."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise ValueError(f"must be {AGE_ALLOWED}")
    return int(match[1]) * _UNIT_SECONDS[match[2]]


def parse_keep(text: str) -> int | None:
    """Parse how long something is kept: seconds; None: for ever."""
    if text == FOREVER:
        return None
    try:
        return parse_duration(text)
    except ValueError:
        raise ValueError(f'must be "{FOREVER}" or {AGE_ALLOWED}') from None


def check_jwks_url(text: str) -> None:
    """Check the address of the keys. Who alters that answer can sign tokens, hence HTTPS."""
    if not text:
        return
    url = split_url(text)
    if url is None or not url.hostname or url.scheme not in _DEFAULT_PORTS or re.search(r"[\s\x00-\x20\x7f]", text):
        raise ValueError("must be an https:// URL")
    if "@" in url.netloc or url.fragment:
        raise ValueError("must be an https:// URL without a user, a password or a fragment")
    if url.scheme == "http" and not _is_loopback(url.hostname):
        raise ValueError("must be an https:// URL; http:// only on this machine (localhost, 127.0.0.1, [::1])")


def check_node_url(text: str) -> None:
    """Check the address of a node, which followers or clients use."""
    if not text:
        return
    url = split_url(text)
    if url is None or not url.hostname or not is_host(url.hostname) or url.scheme not in _DEFAULT_PORTS:
        raise ValueError('must be http:// or https:// and a host, as "http://leader.example:8080"')
    if "@" in url.netloc or url.query or url.fragment or not text.isprintable() or not text.isascii() or " " in text:
        raise ValueError("must be an address without a user, a query or a fragment")


def address_for(url: str, other_host: str) -> str | None:
    """Give a node's own address if the node at `other_host` can use it, else None.

    A wildcard is no address. A loopback address is only for a node that was reached over the loopback.
    """
    host = urlsplit(url).hostname or ""
    if _is_loopback(host):
        return url if _is_loopback(other_host) else None
    return None if host in _WILDCARDS else url


def split_url(text: str) -> SplitResult | None:
    """Take a URL apart; None if it is none."""
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        return None
    return url


def masked_url(text: str) -> str:
    """Give a URL as it may be shown: without a user, a password or a token. Also what is no good URL."""
    before, at, after = text.rpartition("@")
    scheme, slashes, _ = before.partition("://")
    return f"{scheme if slashes else ''}{slashes}***@{after}" if at else text


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
