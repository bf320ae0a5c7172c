"""The handlers of the routes that answer by themselves: the pipeline checks the head, they do all the rest.

    handlers = handlers_of(dependencies, boards, reads, submit)      by the name in `server.api.routes`

Increments, users and changes of boards are not here: the pipeline takes these steps itself, in every lane.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from engine.commands import Command, Outcome
from server.access.auth import Principal
from server.api.boards import Boards
from server.api.dependencies import Dependencies
from server.api.erasures import Erasures
from server.api.exports import Exports
from server.api.feeds import Feeds
from server.api.flags import FlagRoutes
from server.api.history import History
from server.api.imports import Imports
from server.api.lists import Lists
from server.api.operations import Operations
from server.api.quorum import Quorum
from server.api.reads import Reads
from server.api.receipts import Receipts
from server.api.reversals import Reversals
from server.api.reviews import Reviews
from server.api.user_data import UserData
from server.api.webhooks import Webhooks
from server.http.messages import Request, Response

Handler = Callable[[Request, Principal], Awaitable[Response]]
Submit = Callable[[Sequence[Command]], Awaitable[list[Outcome]]]
"""Has commands decided and made durable."""

_OPERATIONS = (
    "live", "stream", "promote", "followers", "healthz", "readyz", "metrics", "openapi", "docs", "console", "index",
    "element",
)  # fmt: skip


def handlers_of(dependencies: Dependencies, boards: Boards, reads: Reads, submit: Submit) -> dict[str, Handler]:
    """Make the handlers of a node."""
    reversals = Reversals(dependencies, dependencies.limits, submit)
    lists, history, operations = Lists(dependencies), History(dependencies), Operations(dependencies)
    return {
        "walk": lists.walk,
        "query": lists.query,
        **{name: getattr(reads, name) for name in ("top", "score", "around")},
        "action": Receipts(dependencies).action,
        **{name: getattr(boards, name) for name in ("boards", "board", "periods")},
        "export": Exports(dependencies).export,
        **Feeds(dependencies).handlers(),
        "history": history.history,
        "user_data": UserData(dependencies, history).data,
        **{name: getattr(reversals, name) for name in ("reverse", "reversal")},
        **Reviews(dependencies, reversals.recounts).handlers(),
        **Imports(dependencies, submit).handlers(),
        **FlagRoutes(dependencies, dependencies.limits, submit).handlers(),
        **Webhooks(dependencies).handlers(),
        **Quorum(dependencies).handlers(),
        "erase_user": Erasures(dependencies, dependencies.limits, submit).erase,
        **{name: getattr(operations, name) for name in _OPERATIONS},
    }
