"""What is asked of erasures to hold their answers against the description: method, target, body, token, status."""

from __future__ import annotations

from typing import Any

from tests.server.api.support import ERASER, REGISTRAR

ERASURES: list[tuple[str, str, Any, str | None, int]] = [
    ("DELETE", "/users/new", None, REGISTRAR, 403),
    ("DELETE", "/users/new", None, None, 401),
    ("DELETE", "/users/new", None, ERASER, 200),
    ("DELETE", "/users?userId=new", None, ERASER, 200),
    ("DELETE", "/users/nobody", None, ERASER, 404),
    ("DELETE", "/users", None, ERASER, 400),
]
