"""Answers what viewers ask for: a subscription to one user's place, or its end.

    subscriptions = Subscriptions(lines, check_board, metrics, push)
    subscriptions.answer(viewer, message)       # the viewer is then owed a message or a refusal
    subscriptions.leave(viewer)

Rules:
- A board that is left out is that of the connection. A user who is left out is the one that the token names.
- A token that names a user subscribes to this user only. Any other viewer may subscribe to any user: it may read the
  same from GET /scores/{userId}.
- A refusal does not end the connection. It is counted by its code, as that of a request.
- The state of lines is made with the first message of a viewer. So the others, nearly all, cost nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from server.http.messages import Refused, invalid
from server.http.websocket import Message
from server.live.board_view import BoardView
from server.live.lines import Lines, ViewerLines
from server.live.viewer_messages import SUBSCRIBE, Wish, error_frame, read_wish
from server.live.viewers import Viewer


class SubscriptionMetrics(Protocol):
    """What subscriptions need of `server.metrics`."""

    def subscriptions(self, count: int) -> None: ...
    def failed(self, code: str) -> None: ...


class Subscriptions:
    """The subscriptions of all viewers. `push` writes what a viewer is owed."""

    def __init__(
        self,
        lines: Lines,
        check_board: Callable[[str], None],
        metrics: SubscriptionMetrics,
        push: Callable[[Viewer], None],
    ) -> None:
        self._lines = lines
        self._check_board = check_board
        self._metrics = metrics
        self._push = push

    def answer(self, viewer: Viewer, message: Message) -> None:
        """Do what a message asks for. The viewer is owed the answer; the caller pushes."""
        if viewer.lines is None:
            viewer.lines = ViewerLines(partial(self._push, viewer))
        try:
            self._fulfil(viewer, viewer.lines, read_wish(message))
        except Refused as refused:
            self._metrics.failed(refused.code)
            viewer.lines.refuse(error_frame(refused))

    def _fulfil(self, viewer: Viewer, own: ViewerLines, wish: Wish) -> None:
        board_id = wish.board_id or viewer.channel.view.board_id
        user_id = wish.user_id or viewer.user_id
        if user_id is None:
            raise invalid("userId", "userId is missing, and the token of this connection names no user.")
        if viewer.user_id not in (None, user_id):
            message = "This token may only subscribe to its own user."
            raise Refused(403, "UNAUTHORIZED", message, {"field": "userId"})
        if wish.kind == SUBSCRIBE:
            self._check_board(board_id)
            self._lines.check(board_id)
            self._lines.subscribe(own, BoardView(board_id, live=viewer.channel.view.live), user_id)
        else:
            self._lines.unsubscribe(own, board_id, user_id)
        self._metrics.subscriptions(len(self._lines))

    def leave(self, viewer: Viewer) -> None:
        """End the subscriptions of a viewer that is gone."""
        if viewer.lines is not None:
            self._lines.leave(viewer.lines)
            viewer.lines = None  # it refers to the viewer, and a circle would stay in memory for long
            self._metrics.subscriptions(len(self._lines))
