"""The queue of reviews: GET /reviews, GET and POST /reviews/{reviewId}.

Rules:
- Who may decide may see all of it, on every node: a replica finds the same reviews (`engine.reviews`). A shard has
  those of its boards.
- The oldest review comes first. A cursor is the id of the last one of a page. So a page misses nothing, and a review
  that is decided meanwhile is seen as it is then.
- A decision is charged to its caller as one action is.
- Where a decision changes scores, what it concerns is gathered from the log first (`server.api.recounts`).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from engine.commands import DecideReview, ReviewReceipt
from engine.recount import Adds
from engine.review_decisions import reversal_of
from engine.reviews import Review
from engine.texts import id_fault
from server import bounds
from server.access.auth import Principal
from server.api.action_lookup import ActionLookup
from server.api.decoding import check_content
from server.api.dependencies import Dependencies
from server.api.gathering import actions_of_review
from server.api.reads import check_known, stale_fields
from server.api.recounts import Recounts
from server.api.review_forms import STATES, ReviewAnswer, ReviewsAnswer, decided_answer, decode_decision, review_object
from server.http.messages import JSON, NO_STORE, Refused, Request, Response, invalid, quoted
from server.http.target import limit_of, query_values

_encode = msgspec.json.Encoder().encode
_CURSOR = re.compile(r"([0-9]{1,16})-([0-9]{1,2})")


class Reviews:
    def __init__(self, dependencies: Dependencies, recounts: Recounts) -> None:
        self._scoreboard = dependencies.scoreboard
        self._lookup = ActionLookup(dependencies)
        self._checks = dependencies.checks
        self._freshness = dependencies.freshness
        self._limits = dependencies.limits
        self._clock_s = dependencies.clock_s
        self._audit = dependencies.audit
        self._metrics = dependencies.metrics
        self._log, self._ledger = dependencies.log, dependencies.ledger
        self._recounts = recounts

    def handlers(self) -> dict[str, Callable[[Request, Principal], Awaitable[Response]]]:
        """Give the handler of each route."""
        return {"reviews": self.list, "review": self.one, "decide_review": self.decide}

    async def list(self, request: Request, _caller: Principal) -> Response:
        """Answer with a page of the queue."""
        values = query_values(request.query, ("state", "boardId", "cursor", "limit"))
        state = values.get("state", "open")
        if state not in STATES:
            raise invalid("state", f"state must be one of {', '.join(STATES)}.", allowed=list(STATES))
        board_id = values.get("boardId")
        if board_id is not None:
            if fault := id_fault(board_id):
                raise invalid("boardId", f"boardId {fault}.")
            check_known(self._scoreboard, self._checks, board_id)
        limit = limit_of(values, bounds.LIST_LIMIT_DEFAULT, bounds.LIST_LIMIT_MAX)
        after = _place(values.get("cursor"))
        reviews = self._scoreboard.reviews
        chosen = [
            review
            for review in reviews.all()
            if (review.seq, review.place) > after
            and state in (review.state, "all")
            and board_id in (review.board_id, None)
        ]
        page = chosen[:limit]
        answer = ReviewsAnswer(
            reviews=[review_object(review, reviews.holds) for review in page],
            open=reviews.open_count,
            passed_over=reviews.passed_over,
            next_cursor=page[-1].review_id if len(chosen) > limit else None,
            epoch=self._scoreboard.epoch,
            seq=self._scoreboard.seq,
            **stale_fields(self._freshness),
        )
        return Response(200, _encode(answer), JSON, NO_STORE)

    async def one(self, request: Request, _caller: Principal) -> Response:
        """Answer with one review."""
        review = self._find(request.path_params["reviewId"])
        scoreboard = self._scoreboard
        answer = ReviewAnswer(
            review_object(review, scoreboard.reviews.holds), scoreboard.epoch, scoreboard.seq,
            **stale_fields(self._freshness),
        )  # fmt: skip
        return Response(200, _encode(answer), JSON, NO_STORE)

    async def decide(self, request: Request, caller: Principal) -> Response:
        """Have a decision logged, and answer with the review as it is now."""
        check_content(request)
        asked = decode_decision(request.body)
        self._limits.pass_caller(caller.sub, self._clock_s())
        review_id = request.path_params["reviewId"]
        command = DecideReview(
            review_id, asked.decision, asked.note, caller.sub, asked.reversal_id, preview=asked.preview
        )  # fmt: skip
        outcome = await self._recounts.submit(partial(self._gathered, command), "reviewId")
        assert isinstance(outcome, ReviewReceipt)
        review = self._find(review_id)
        if outcome.applied:
            self._audit.review_decided(review, outcome)
        if outcome.applied and outcome.reversal_id:
            self._metrics.reversed(len(outcome.actions), again=False)
        answer = decided_answer(
            review_object(review, self._scoreboard.reviews.holds), outcome, self._recounts.told(outcome.changes),
            preview=asked.preview,
        )  # fmt: skip
        return Response(200, _encode(answer), JSON, NO_STORE)

    async def _gathered(self, command: DecideReview) -> DecideReview:
        """Give a command what its decision needs of the log. Raises `Refused`, `Overloaded`."""
        reviews = self._scoreboard.reviews
        review = reviews.get(command.review_id)
        if review is None or review.state != "open":
            return command  # the writer says what is so
        place = (review.board_id, review.user_id)
        held = list(reviews.holds.of(place))
        adds = Adds(*place)
        if command.decision == "reverse":
            reversal_id = command.reversal_id or reversal_of(command.review_id)
            if await self._lookup.seq(reversal_id) is not None:
                return command
            adds = Adds(*place, review.since_ms)
        elif not held and review.board_id not in reviews.holding:
            return command
        assert self._ledger is not None, "a node that writes keeps the log"
        read = partial(actions_of_review, self._log, self._ledger, adds, held)
        actions = await self._recounts.in_thread(read)
        recount, rows = await self._recounts.of(actions, adds=adds)
        return msgspec.structs.replace(command, recount=recount, rows=rows)

    def _find(self, review_id: str) -> Review:
        review = self._scoreboard.reviews.get(review_id)
        if review is None:
            message = f"There is no review {quoted(review_id)}, or it was decided long ago and is no longer kept."
            raise Refused(404, "NOT_FOUND", message, {"field": "reviewId", "reviewId": quoted(review_id)})
        return review


def _place(cursor: str | None) -> tuple[int, int]:
    """Read a cursor: the place of the last review that was seen."""
    if cursor is None:
        return (0, 0)
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise invalid("cursor", "cursor must be the nextCursor of a page.")
    return int(match[1]), int(match[2])
