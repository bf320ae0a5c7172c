"""The webhooks of a node: GET /webhooks, POST /webhooks/{name}/enable.

Rules:
- Only a leader delivers, so only a leader answers. A replica sends its callers there.
- To enable a hook that is not disabled has it try at once what it waits to try again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from server.access.auth import Principal
from server.api.dependencies import Dependencies
from server.api.webhook_forms import WebhookAnswer, WebhooksAnswer
from server.http.messages import JSON, NO_STORE, Refused, Request, Response, quoted


class Webhooks:
    """Answers the routes."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._hooks = dependencies.hooks
        self._scoreboard = dependencies.scoreboard
        self._audit = dependencies.audit

    def handlers(self) -> dict[str, Callable[[Request, Principal], Awaitable[Response]]]:
        """Give the handler of each route."""
        return {"webhooks": self.list, "enable_webhook": self.enable}

    async def list(self, _request: Request, _caller: Principal) -> Response:
        """Answer with all hooks."""
        hooks = [] if self._hooks is None else self._hooks.statuses()
        answer = WebhooksAnswer(hooks, self._scoreboard.epoch, self._scoreboard.seq)
        return Response(200, msgspec.json.encode(answer), JSON, NO_STORE)

    async def enable(self, request: Request, caller: Principal) -> Response:
        """Have a hook deliver again. Raises `Refused`."""
        name = request.path_params["name"]
        found = None if self._hooks is None else await self._hooks.enable(name)
        if found is None:
            message = f"There is no webhook {quoted(name)} in the configuration."
            raise Refused(404, "NOT_FOUND", message, {"field": "name", "name": quoted(name)})
        self._audit.webhook_enabled(name, caller.sub)
        answer = WebhookAnswer(found, self._scoreboard.epoch, self._scoreboard.seq)
        return Response(200, msgspec.json.encode(answer), JSON, NO_STORE)
