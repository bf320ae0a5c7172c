r"""The `Forwarded` header (RFC 7239), read from its end. Pure.

    list(hops('for="[2001:db8::1]:80";proto=https, for=192.0.2.7'))      # ["192.0.2.7", "[2001:db8::1]:80"]

    elements are separated by `,` and pairs by `;`, outside of quotes      for=192.0.2.7;by=10.0.0.1, for="[::1]"
    a value is a token or a quoted string with `\` before a character

Rules:
- The end of the header is what the last proxy appended; what stands before it may be made up. So elements are cut off
  at the end. Nothing that stands before an element can change how it is read, not even an open quote.
- An element without exactly one correct `for` is the empty hop, which is no address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_PAIR = re.compile(r'[ \t]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^\s";,=]+)[ \t]*', re.ASCII)
_ESCAPED = re.compile(r"\\(.)")


def hops(header: str) -> Iterator[str]:
    """Give the `for` of each element, the last one first, without its quotes."""
    end = len(header)
    while end >= 0:
        comma = _separator_before(header, end)
        yield _for_of(header[comma + 1 : end])
        end = comma


def _separator_before(header: str, end: int) -> int:
    """Find the last comma before `end` that is in no quotes; -1 without one."""
    quoted = False
    for place in range(end - 1, -1, -1):
        character = header[place]
        if character == '"':
            quoted = not quoted or _is_escaped(header, place)
        elif character == "," and not quoted:
            return place
    return -1


def _is_escaped(header: str, place: int) -> bool:
    first = place
    while first > 0 and header[first - 1] == "\\":
        first -= 1
    return (place - first) % 2 == 1


def _for_of(element: str) -> str:
    found: list[str] = []
    place = 0
    while True:
        pair = _PAIR.match(element, place)
        if pair is None:
            return ""
        if pair[1].lower() == "for":
            found.append(pair[2])
        place = pair.end()
        if place == len(element):
            break
        if element[place] != ";":
            return ""
        place += 1
    if len(found) != 1:
        return ""
    value = found[0]
    return _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value
