"""What the table of routes does not say of the pages, as `server.api.descriptions` does of the other routes. Pure."""

from __future__ import annotations

from server.api.descriptions import Operation
from server.api.showing_forms import ViewersAnswer
from server.http.messages import JSON

_HTML = "text/html"
_JAVASCRIPT = "text/javascript"
_SVG = "image/svg+xml"
_WALL = """The whole width, for the back of a room: a title, time to the end, a QR code, how many watch. The query takes
`boardId`, `rows`, `title`, `lang`, `theme` (auto, light, dark, or transparent, to lie over a stream) and `qr=no`; the
fragment takes `#token=`."""

PAGES: dict[str, Operation] = {
    "viewers": Operation(
        "Boards",
        "WebSockets and streams of events together. Other nodes are not counted.",
        ViewersAnswer,
        (400, 401, 403, 421, 500, 503),
        ("boardIdDefault",),
    ),
    "openapi": Operation("Pages", "OpenAPI 3.1.", JSON, etag=True),
    "docs": Operation("Pages", "Loads nothing but the description.", _HTML, etag=True),
    "console": Operation(
        "Pages", "Has no data of its own: it asks the other routes with your token.", _HTML, (404,), etag=True
    ),
    "index": Operation("Pages", "Shows `?boardId=`; falls back to polling.", _HTML, etag=True),
    "embed": Operation(
        "Pages",
        "The element alone. The sites of `allowed_origins` may frame it. Takes what `/wall` takes.",
        _HTML,
        etag=True,
    ),
    "wall": Operation("Pages", _WALL, _HTML, etag=True),
    "qr": Operation(
        "Pages",
        "The address is on the host of the request. `base` may say the scheme and the path under which it is seen.",
        _SVG,
        (400, 421, 500),
        ("boardIdDefault", "base"),
        etag=True,
    ),
    "element": Operation("Pages", "Shows a board on any page.", _JAVASCRIPT, etag=True),
}
