"""The addresses that are configured, and which of them to ask. Pure.

    nodes = Nodes(["https://a.example", "https://b.example"])
    nodes.named("https://b.example/scores/increment", "/scores/increment")       1: the node that a redirect names
    nodes.writer = 1                                                             it answered as the leader

Rules:
- Nothing is sent to an address that is not configured, whatever an answer says: a request carries a token.
- Two addresses are the same if scheme, host, port and path are. Names are not resolved.
- `writer` and `reader` are the nodes that answered last. They are hints: any node may be asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


class Nodes:
    """The configured nodes, by their index. Raises ValueError for what is no address."""

    def __init__(self, urls: str | Iterable[str]) -> None:
        if not isinstance(urls, Iterable):
            raise TypeError(f"urls must be a str or a list of these, not {type(urls).__name__}")
        given = [urls] if isinstance(urls, str) else list(urls)
        if not given:
            raise ValueError("urls must name at least one node")
        self.urls = tuple(_checked(url) for url in given)
        self._keys = [_key(url) for url in self.urls]
        if len(set(self._keys)) < len(self._keys):
            raise ValueError(f"urls names a node twice: {', '.join(self.urls)}")
        self.writer = 0
        self.reader = 0

    def __len__(self) -> int:
        return len(self.urls)

    def named(self, address: object, target: str = "") -> int | None:
        """Give the node whose address, with `target` behind it, this is. None if it is not configured."""
        if not isinstance(address, str) or not address.endswith(target):
            return None
        try:
            key = _key(address[: len(address) - len(target)])
        except ValueError:
            return None
        return self._keys.index(key) if key in self._keys else None


def _checked(url: str) -> str:
    if not isinstance(url, str):
        raise TypeError(f"urls must be a str or a list of these, not {type(url).__name__}")
    _key(url)
    return url.rstrip("/")


def _key(url: str) -> tuple[str, str, int, str]:
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{url!r} is no address such as https://board.example")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"{parts.scheme}://{parts.hostname}: an address has no user, query or fragment")
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme], parts.path.rstrip("/")
