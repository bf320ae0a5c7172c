"""What is asked of pages for other places to hold their answers against the description."""

from __future__ import annotations

from typing import Any

SHOWN: list[tuple[str, str, Any, str | None, int]] = [
    ("GET", "/embed", None, None, 200),
    ("GET", "/embed?boardId=anything&rows=no", None, None, 200),
    ("GET", "/wall", None, None, 200),
    ("GET", "/qr.svg", None, None, 400),
    ("GET", "/viewers", None, None, 200),
    ("GET", "/viewers?boardId=nowhere", None, None, 400),
    ("GET", "/viewers?board=main", None, None, 400),
]
