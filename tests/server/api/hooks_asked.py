"""Requests about webhooks, and a stand-in for the hooks of a node."""

from __future__ import annotations

from typing import Any

from server.api.webhook_forms import WebhookCursor, WebhookObject

NAME = "shop"


class OneHook:
    """One hook, which has delivered up to `seq`. `enabled` counts how often it was asked to go on."""

    def __init__(self, seq: int = 17) -> None:
        self.seq = seq
        self.enabled = 0

    def statuses(self) -> list[WebhookObject]:
        """See `server.api.dependencies.Hooks`."""
        return [
            WebhookObject(
                name=NAME, url="https://shop.example/hooks", events=("top.changed",), boards=(),
                cursor=WebhookCursor(1, self.seq), lag=0, failures=0, last_error=None, last_error_at=None,
                disabled=False,
            )
        ]  # fmt: skip

    async def enable(self, name: str) -> WebhookObject | None:
        """See `server.api.dependencies.Hooks`."""
        if name != NAME:
            return None
        self.enabled += 1
        return self.statuses()[0]


ADMIN, READER = "Bearer ops admin", "Bearer reader scores:read"

HOOKS: list[tuple[str, str, Any, str | None, int]] = [
    ("GET", "/webhooks", None, ADMIN, 200),
    ("GET", "/webhooks", None, READER, 403),
    ("GET", "/webhooks", None, None, 401),
    ("GET", "/webhooks?name=shop", None, ADMIN, 400),
    ("POST", f"/webhooks/{NAME}/enable", None, ADMIN, 200),
    ("POST", f"/webhooks/{NAME}/enable", None, READER, 403),
    ("POST", "/webhooks/other/enable", None, ADMIN, 404),
    ("POST", "/webhooks/a%2Fb/enable", None, ADMIN, 404),
]
"""Method, path, body, token and status."""
