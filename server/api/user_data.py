"""GET /users/{userId}/data: all that is kept about a person, as JSON, for this person.

    the registration, scores on every board, rows in past periods that are kept, reviews, and page by page the log

Rules:
- It is for tokens with `scores:read`, and for the user's own, as the history is (`server.api.history`).
- What a freeze hides from a caller is left out: scores are those that the public sees, and reviews on a frozen board
  are not told, because they say how it stands now.
- The log is the long part, so it comes in pages: `nextCursor` leads on, and later pages have all of the rest again, as
  it is then.
- A past period that can't be read now fails the whole answer: a person must not be told less than there is.
"""

from __future__ import annotations

import msgspec

from server.access.auth import Principal
from server.api.dependencies import Dependencies
from server.api.history import History
from server.api.periods import Periods
from server.api.review_forms import review_object
from server.api.routes import LIVE_VIEW
from server.api.user_data_forms import KeptScore, Registration, UserDataAnswer
from server.http.messages import JSON, NO_STORE, Request, Response
from server.live.encoding import iso_ms

_encode = msgspec.json.Encoder().encode


class UserData:
    """Answers what is kept about users."""

    def __init__(self, dependencies: Dependencies, history: History) -> None:
        self._scoreboard = dependencies.scoreboard
        self._periods = Periods(dependencies.scoreboard, dependencies.periods)
        self._history = history

    async def data(self, request: Request, caller: Principal) -> Response:
        """Answer with all that is kept about a user. Raises `Refused`, `Overloaded`."""
        user_id = request.path_params["userId"]
        page = await self._history.page(request, caller)
        if isinstance(page, Response):
            return page
        past_scores = await self._past_scores(user_id, is_live=caller.may(LIVE_VIEW))
        user, reviews = self._scoreboard.users.get(user_id), self._scoreboard.reviews
        boards = {} if caller.may(LIVE_VIEW) else self._scoreboard.boards
        frozen = {board_id for board_id, board in boards.items() if board.frozen is not None}
        answer = UserDataAnswer(
            user_id=user_id,
            registered=None if user is None else Registration(user.display_name, user.active),
            scores=self._scores(user_id, is_live=caller.may(LIVE_VIEW)),
            past_scores=past_scores,
            reviews=[
                review_object(each, reviews.holds)
                for each in reviews.all()
                if each.user_id == user_id and each.board_id not in frozen
            ],
            entries=page.entries,
            next_cursor=page.next_cursor,
            complete=page.complete,
            oldest_seq=page.oldest_seq,
            epoch=page.epoch,
            seq=page.seq,
            stale=page.stale,
            age_ms=page.age_ms,
        )
        return Response(200, _encode(answer), JSON, NO_STORE)

    def _scores(self, user_id: str, *, is_live: bool) -> list[KeptScore]:
        kept: list[KeptScore] = []
        for board_id, board in sorted(self._scoreboard.boards.items()):
            shown = board if is_live else board.public
            score, updated_ms = shown.score(user_id), shown.updated_ms(user_id)
            if score is not None and updated_ms is not None:
                kept.append(KeptScore(board_id, score, shown.rank(user_id), iso_ms(updated_ms)))
        return kept

    async def _past_scores(self, user_id: str, *, is_live: bool) -> list[KeptScore]:
        kept: list[KeptScore] = []
        for board_id, board in sorted(self._scoreboard.boards.items()):
            shown = board if is_live else board.public
            for past in () if shown.definition is None else shown.definition.past:
                found = await self._periods.find(board_id, past, user_id)
                if found is not None:
                    row = found[0]
                    kept.append(KeptScore(board_id, row.score, row.rank, iso_ms(row.updated_ms), past.period.id))
        return kept
