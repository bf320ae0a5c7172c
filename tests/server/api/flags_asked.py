"""What is asked of flags to hold their answers against the description: method, target, body, token, status."""

from __future__ import annotations

from typing import Any

from tests.server.api.support import ADMIN, KEEPER

FLAGS: list[tuple[str, str, Any, str | None, int]] = [
    ("GET", "/flags/live", None, None, 401),
    ("GET", "/flags/live", None, KEEPER, 403),
    ("GET", "/flags/live", None, ADMIN, 200),
    ("GET", "/flags/live?minSeq=x", None, ADMIN, 400),
    ("PUT", "/flags/live", {"enabled": False}, None, 401),
    ("PUT", "/flags/live", {"enabled": False}, KEEPER, 403),
    ("PUT", "/flags/live", {"enabled": "no"}, ADMIN, 400),
    ("PUT", "/flags/live", {"enabled": False}, ADMIN, 200),
    ("GET", "/flags/live", None, ADMIN, 200),
    ("PUT", "/flags/live", {"enabled": True}, ADMIN, 200),
    ("PUT", "/flags/live", {"enabled": True}, ADMIN, 200),
]
