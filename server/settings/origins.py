"""The origins of pages that may read answers and open the live channel: one list and one matcher for both. Pure.

    origins = parse_origins(("https://game.example", "https://*.example.com", "http://localhost:*", "null"))
    "https://eu.play.example.com" in origins        # True

    "*"                         every origin; stands alone
    "https://game.example"      this origin
    "https://*.example.com"     each host below example.com, by one label or more; never example.com itself
    "http://localhost:*"        this host with any port, and without one
    "null"                      what browsers send for a page without an origin of its own: a file, a sandboxed frame

Rules:
- Origins are compared as RFC 6454, section 6.2 writes them: in lower case, without the scheme's default port.
- `*` stands for whole labels at the front of a host, or for a whole port. So no origin is allowed by a name that only
  ends alike, such as https://evil-example.com.
- An origin that a client sent is matched as a whole. A pattern allows only a scheme, a host and a port.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from server.settings.values import is_address, is_host_name

ANY_ORIGIN = "*"
NO_ORIGIN = "null"

_WRITTEN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<below>\*\.)?(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)"
    r"(?::(?P<port>\*|[0-9]{1,5}))?",
    re.ASCII,
)
_LABELS = r"(?:[a-z0-9_-]+\.)+"
_ANY_PORT = r"(?::[0-9]{1,5})?"
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_CHARACTERS_MAX = 300
"""A host has at most 253. A longer origin is allowed by no pattern."""

_FRAME_SOURCE = re.compile(r"[a-z][a-z0-9+.-]*://(?:\*\.)?[a-z0-9-]+(?:\.[a-z0-9-]+)*(?::(?:\*|[0-9]+))?", re.ASCII)
"""What Content-Security-Policy has a form for: no address in brackets, no underscore."""

ALLOWED = (
    'each must be SCHEME://HOST or SCHEME://HOST:PORT, as "https://game.example"; with "*." at the front of HOST for '
    'every host below it, with "*" as PORT for every port; or "null"'
)


class OriginList:
    """The allowed origins; `origin in origins` takes an Origin header as it came. `exact` are those without a `*`."""

    def __init__(self, exact: Iterable[str], patterns: Iterable[str] = ()) -> None:
        self.exact = frozenset(exact)
        self._patterns = re.compile("|".join(patterns) or r"(?!)", re.ASCII)

    def __contains__(self, origin: object) -> bool:
        if not isinstance(origin, str):
            return False
        origin = _comparable(origin)
        if origin in self.exact:
            return True
        return len(origin) <= _CHARACTERS_MAX and self._patterns.fullmatch(origin) is not None


def parse_origins(texts: tuple[str, ...]) -> OriginList | None:
    """Parse a list of allowed origins; None: all are allowed. Raises ValueError with what is allowed."""
    if texts == (ANY_ORIGIN,):
        return None
    if ANY_ORIGIN in texts:
        raise ValueError(f'"{ANY_ORIGIN}" allows every origin and stands alone')
    exact, patterns = [], []
    for text in texts:
        written = text.lower()
        if written == NO_ORIGIN:
            exact.append(written)
        elif "*" in written:
            patterns.append(_pattern(_parse(written)))
        else:
            _parse(written)
            exact.append(_comparable(written))
    return OriginList(exact, patterns)


def frame_ancestors(texts: tuple[str, ...]) -> str:
    """Give the value of `frame-ancestors` for a list that `parse_origins` takes: who may frame a page.

    Never more than the list allows: what that directive has no form for may not frame, "null" among it.
    """
    if texts == (ANY_ORIGIN,):
        return ANY_ORIGIN
    sources = [text.lower() for text in texts if _FRAME_SOURCE.fullmatch(text.lower())]
    return " ".join(dict.fromkeys(sources)) or "'none'"


def _parse(written: str) -> re.Match[str]:
    parsed = _WRITTEN.match(written)
    rest = written[parsed.end() :] if parsed is not None else written
    if parsed is not None and rest[:1] in ("/", "?", "#"):
        raise ValueError("each is a scheme, a host and perhaps a port, without a path (no / at the end)")
    if parsed is None or rest or not _is_good(**parsed.groupdict()):
        raise ValueError(ALLOWED)
    return parsed


def _is_good(scheme: str, below: str | None, host: str, port: str | None) -> bool:  # noqa: ARG001  # as in `_WRITTEN`
    if port is not None and port != "*" and int(port) > 65_535:
        return False
    if host.startswith("["):
        return not below and is_address(host[1:-1], IPv6Address)
    return is_host_name(host) or (not below and is_address(host, IPv4Address))


def _pattern(parsed: re.Match[str]) -> str:
    """Write a pattern as a regular expression over origins as browsers write them."""
    scheme, below, host, port = parsed.group("scheme", "below", "host", "port")
    ports = _ANY_PORT if port == "*" else f":{int(port)}" if port not in (None, _DEFAULT_PORTS.get(scheme)) else ""
    return f"{re.escape(scheme)}://{_LABELS if below else ''}{re.escape(host)}{ports}"


def _comparable(origin: str) -> str:
    """Write an origin in lower case without the scheme's default port, as browsers do."""
    origin = origin.lower()
    scheme, _, host = origin.partition("://")
    return origin.removesuffix(f":{_DEFAULT_PORTS[scheme]}") if host and scheme in _DEFAULT_PORTS else origin
