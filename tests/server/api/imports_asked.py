"""What is asked of imports to hold their answers against the description: method, target, body, token, status."""

from __future__ import annotations

from typing import Any

from tests.server.api.support import ADMIN, KEEPER, READER

IMPORT = {"importId": "old", "digest": "d", "total": 2, "merge": True, "rows": [{"userId": "ann", "score": 1}]}
IMPORTS: list[tuple[str, str, Any, str | None, int]] = [
    ("POST", "/boards/fair/imports", IMPORT, None, 401),
    ("POST", "/boards/fair/imports", IMPORT, KEEPER, 403),
    ("POST", "/boards/fair/imports", {**IMPORT, "rows": []}, ADMIN, 400),
    ("POST", "/boards/nowhere/imports", IMPORT, ADMIN, 404),
    ("POST", "/boards/cup/imports", IMPORT, ADMIN, 410),
    ("POST", "/boards/fair/imports", {**IMPORT, "firstRow": 1}, ADMIN, 409),
    ("POST", "/boards/fair/imports", IMPORT, ADMIN, 200),
    ("POST", "/boards/imports?boardId=fair", {**IMPORT, "firstRow": 1}, ADMIN, 200),
    ("GET", "/boards/fair/imports", None, ADMIN, 200),
    ("GET", "/boards/imports?boardId=fair&importId=old", None, ADMIN, 200),
    ("GET", "/boards/imports?boardId=nowhere", None, ADMIN, 404),
    ("GET", "/boards/fair/imports/old", None, ADMIN, 200),
    ("GET", "/boards/fair/imports/new", None, ADMIN, 404),
    ("GET", "/boards/fair/imports/new", None, READER, 403),
]
