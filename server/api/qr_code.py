"""The QR code that leads from a wall to the page: an address in, an SVG out. Pure.

    address = page_address("board.example", "main", "https://board.example/live/")
    svg = qr_svg(address)

Rules:
- The host of the address is that of the request. Otherwise anybody could have this server draw a code that leads to
  another one. A page knows the scheme and the path under which it is seen, which a server behind a proxy does not: so
  it may say them (`base`). The port is the page's too, because proxies leave it out.
- The code has the quiet zone of four modules that readers need, and a light ground of its own, on dark walls too.
"""

from __future__ import annotations

import re
from functools import lru_cache
from io import BytesIO
from urllib.parse import quote, urlsplit

import segno

from server.http.messages import invalid
from server.http.target import DEFAULT_BOARD

ADDRESS_CHARACTERS_MAX = 400
"""A longer one makes a code that no camera reads from the back of a room. It takes some 30 ms."""

CODES_KEPT = 64
"""A node shows the same few codes again and again."""

QUIET_MODULES = 4

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)


def page_address(host: str, board_id: str, base: str | None = None) -> str:
    """Give the address of the page that shows a board. `host` is the request's. Raises `Refused`."""
    known = _HOST.fullmatch(host)
    if known is None:
        raise invalid("Host", "The request names no host, so there is no address for a code.")
    origin, path = f"http://{host}", "/"
    if base is not None:
        try:
            parts = urlsplit(base)
            theirs = _HOST.fullmatch(parts.netloc)
        except ValueError:
            theirs = None
        if theirs is None or parts.scheme not in ("http", "https") or not parts.path.isascii():
            raise invalid("base", "base is the address of a page of this server, http:// or https://.")
        if theirs[1].lower() != known[1].lower():
            raise invalid("base", "base must have the host to which the request was sent.")
        origin, path = f"{parts.scheme}://{parts.netloc}", parts.path[: parts.path.rfind("/") + 1] or "/"
    address = f"{origin}{path}" + ("" if board_id == DEFAULT_BOARD else f"?boardId={quote(board_id, safe='')}")
    if len(address) > ADDRESS_CHARACTERS_MAX:
        raise invalid("boardId", f"The address has more than {ADDRESS_CHARACTERS_MAX} characters: too many for a code.")
    return address


@lru_cache(maxsize=CODES_KEPT)
def qr_svg(address: str) -> bytes:
    """Draw the code of an address."""
    drawing = BytesIO()
    segno.make(address, error="m", micro=False).save(
        drawing, kind="svg", border=QUIET_MODULES, dark="#000", light="#fff", xmldecl=False, omitsize=True,
        svgclass=None, lineclass=None,
    )  # fmt: skip
    return drawing.getvalue()
