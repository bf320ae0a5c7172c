"""What the table of routes does not say of a route: purpose, bodies, answers, errors. Pure.

    OPERATIONS["increment"].errors        a row for each handler; `server.api.openapi` makes the description of them

The texts are for those who call the API. Longer ones are in `server.api.about`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from server.api import (
    about,
    answers,
    decoding,
    erasure_forms,
    flag_forms,
    follower_forms,
    history_forms,
    import_forms,
    reversal_forms,
    review_forms,
    user_data_forms,
    webhook_forms,
)
from server.settings.board_form import BoardForm

_TEXT = "text/plain"


class Either(msgspec.Struct, frozen=True):
    """An answer that is one of two structs."""

    one: Any
    other: Any


class Operation(msgspec.Struct, frozen=True):
    """What the table of routes does not say of a route.

    `answer` is a struct; a tuple of structs for an array of items of these kinds; `Either` of two structs; the media
    type of any other answer, or a frozenset of them; or None for no body. `links` names rows of LINKS, `headers` those
    of the answer that only this route has. `made`: the answer may be 201 too. `needs_body`: the body may not be empty.
    `packed`: the body may be MessagePack, and so is the answer then.
    """

    tag: str
    about: str
    answer: Any
    errors: tuple[int, ...] = ()
    parameters: tuple[str, ...] = ()
    body: Any = None
    etag: bool = False
    links: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    made: bool = False
    needs_body: bool = True
    packed: bool = False


BATCH = list[decoding.IncrementBody]
BATCH_ANSWER = (answers.BatchItemAnswer, answers.BatchItemError)

LINKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "receipt": ("action", ("actionId",)),
    "score": ("score", ("userId", "boardId")),
    "around": ("around", ("userId", "boardId")),
    "rename": ("put_user", ("userId",)),
    "board": ("board", ("boardId",)),
    "reset": ("reset_board", ("boardId",)),
    "import": ("import", ("boardId", "importId")),
    "close": ("close_board", ("boardId",)),
    "reversal": ("reversal", ("reversalId",)),
}
"""An operation that an answer leads to, and the fields of the answer that are its parameters."""

OPERATIONS: dict[str, Operation] = {
    "increment": Operation(
        "Scores",
        "The reason's points come from the board's catalogue. Where that has a range, `value` chooses within it, and "
        "the token needs the scope `scores:value` too. An actionId counts once, for ever. Sent again with the same "
        "user, board, reason and value, the answer has `applied: false`, `delta: 0`, the original's position and the "
        "current score, and costs nothing of the user's limit: repeats have a limit for each caller (`repeats`). With "
        "others it is a conflict. A token that names a user may only increment that user.",
        answers.IncrementAnswer,
        (307, 400, 401, 403, 409, 410, 413, 421, 429, 500, 503),
        body=decoding.IncrementBody,
        links=("receipt", "score", "around"),
    ),
    "increment_batch": Operation(
        "Scores",
        "One answer per item, in order, as if each had been sent alone. An item that is refused leaves the others "
        "alone. All of the batch is on disk before the answer. The limits count every item. Headers count the refused "
        "items; where a limit refused any, `Retry-After` has the longest wait. A batch in MessagePack is answered in "
        "MessagePack.",
        BATCH_ANSWER,
        (307, 400, 401, 403, 413, 421, 500, 503),
        body=BATCH,
        headers=("X-Scoreboard-Refused", "X-Scoreboard-Rate-Limited", "RetryAfter"),
        packed=True,
    ),
    "top": Operation(
        "Boards",
        "The best score first; of equal scores, the one that was reached first. `period` asks for the last rows of one "
        "that has ended. What does not hold of a board is left out of the answer. " + about.AS_OF,
        answers.TopAnswer,
        (400, 401, 403, 404, 410, 421, 500, 503),
        ("topLimit", "boardIdDefault", "period", "view", "asOfSeq", "asOf", "minSeq", "minEpoch"),
        etag=True,
    ),
    "walk": Operation(
        "Boards",
        about.WALK,
        answers.WalkAnswer,
        (400, 401, 403, 404, 410, 421, 500, 503),
        ("listLimit", "boardIdDefault", "cursor", "period", "view", "minSeq", "minEpoch"),
    ),
    "query": Operation(
        "Boards",
        "In the order of the board. `rank` is among all, `rankAmong` among the users that were asked for. `unranked` "
        "are those without a score, and the inactive ones.",
        answers.QueryAnswer,
        (400, 401, 403, 413, 421, 500, 503),
        ("view", "minSeq", "minEpoch"),
        body=decoding.QueryBody,
    ),
    "score": Operation(
        "Boards",
        about.SCORE,
        answers.ScoreAnswer,
        (400, 401, 403, 404, 421, 500, 503),
        ("userId", "boardIdDefault", "period", "view", "minSeq", "minEpoch"),
        links=("around", "rename"),
    ),
    "around": Operation(
        "Boards",
        "`limit` counts the neighbours on each side; at the edges of the board the other side has more. An inactive "
        "user has none. Without a token that may read, the answer about one is 404.",
        answers.AroundAnswer,
        (400, 401, 403, 404, 421, 500, 503),
        ("userId", "aroundLimit", "boardIdDefault", "period", "view", "minSeq", "minEpoch"),
    ),
    "put_user": Operation(
        "Users",
        "Name at least one field; the other stays as it is. `displayName: null` takes the name away. A name has at "
        "least one character that can be seen. An inactive user can't be incremented and is on no board, but keeps the "
        "score.",
        answers.UserAnswer,
        (307, 400, 401, 403, 413, 421, 429, 500, 503),
        ("userId",),
        body=decoding.UserBody,
    ),
    "boards": Operation(
        "Boards",
        "Sorted by id. `rules` and `tzdata` are for tokens with `boards:write` or `scores:read`. A shard lists the "
        "boards that it holds. With `boardId` the answer is that of GET /boards/{boardId}.",
        Either(answers.BoardsAnswer, answers.BoardAnswer),
        (400, 401, 403, 404, 421, 500, 503),
        ("boardIdFilter", "view", "minSeq", "minEpoch"),
    ),
    "board": Operation(
        "Boards",
        "`rules` and `tzdata` are for tokens with `boards:write` or `scores:read`.",
        answers.BoardAnswer,
        (400, 401, 403, 404, 421, 500, 503),
        ("boardId", "view", "minSeq", "minEpoch"),
    ),
    "put_board": Operation(
        "Boards",
        about.PUT_BOARD,
        answers.BoardChangedAnswer,
        (307, 400, 401, 403, 409, 410, 413, 421, 429, 500, 503),
        ("boardId",),
        body=BoardForm,
        links=("board", "reset", "close"),
        made=True,
    ),
    "close_board": Operation(
        "Boards",
        "The board can be read as before. Each write to it is answered with 410 `BOARD_CLOSED`, for ever. A board that "
        "is closed already is answered with `applied: false`.",
        answers.BoardChangedAnswer,
        (307, 400, 401, 403, 404, 421, 429, 500, 503),
        ("boardId",),
    ),
    "reset_board": Operation(
        "Boards",
        "Ends the running period now; the next one begins empty. With `period` in the body, the id of the one to end, "
        "a reset that was done already is refused with 409. So it can be sent again.",
        answers.BoardChangedAnswer,
        (307, 400, 401, 403, 404, 409, 410, 413, 421, 429, 500, 503),
        ("boardId",),
        body=decoding.ResetBody,
        needs_body=False,
    ),
    "periods": Operation(
        "Boards",
        "The last one first. A period in which nobody scored has a count of 0.",
        answers.PeriodsAnswer,
        (400, 401, 403, 404, 421, 500, 503),
        ("boardId", "view", "minSeq", "minEpoch"),
    ),
    "freeze_board": Operation(
        "Boards",
        "From then on the public sees the board as it was, everywhere, while actions go on counting. With `at` it is "
        "frozen at that time. `view=live` shows the present to tokens with `scores:read`.",
        answers.BoardChangedAnswer,
        (307, 400, 401, 403, 404, 409, 413, 421, 429, 500, 503),
        ("boardId",),
        body=decoding.FreezeBody,
        needs_body=False,
    ),
    "unfreeze_board": Operation(
        "Boards",
        "The public sees the present again. A freeze that was planned is dropped.",
        answers.BoardChangedAnswer,
        (307, 400, 401, 403, 404, 413, 421, 429, 500, 503),
        ("boardId",),
    ),
    "reveal_board": Operation(
        "Boards",
        "Shows the public the next `step` rows as they are now: first the users who came after the freeze, then row "
        "by row from the last place up. After the last row the board is no longer frozen. Not safe to repeat blindly: "
        "each request shows more.",
        answers.BoardChangedAnswer,
        (307, 400, 401, 403, 404, 409, 413, 421, 429, 500, 503),
        ("boardId",),
        body=decoding.RevealBody,
        needs_body=False,
    ),
    "export": Operation(
        "Boards",
        about.EXPORT,
        frozenset({"text/csv", "application/x-ndjson"}),
        (400, 401, 403, 404, 421, 500, 503),
        ("boardId", "format", "period", "view", "minSeq", "minEpoch"),
        headers=("Content-Disposition", "X-Scoreboard-Epoch", "X-Scoreboard-Seq"),
    ),
    "imports": Operation(
        "Boards",
        "In the order in which they began. With `importId` the answer is that of GET /boards/{boardId}/imports/"
        "{importId}.",
        Either(import_forms.ImportsAnswer, import_forms.ImportAnswer),
        (400, 401, 403, 404, 421, 500, 503),
        ("boardId", "importIdFilter", "minSeq", "minEpoch"),
    ),
    "import_rows": Operation(
        "Boards",
        about.IMPORTS,
        import_forms.ImportedAnswer,
        (307, 400, 401, 403, 404, 409, 410, 413, 421, 500, 503),
        ("boardId",),
        body=import_forms.ImportBody,
        links=("import",),
        packed=True,
    ),
    "import": Operation(
        "Boards",
        "`rowsDone` of `rows` are done: the row of that number comes next.",
        import_forms.ImportAnswer,
        (400, 401, 403, 404, 421, 500, 503),
        ("boardId", "importId", "minSeq", "minEpoch"),
    ),
    "action": Operation(
        "Scores",
        "The receipt is read from the log. Once the log no longer goes back that far, only the position is known. "
        "`reversedBy` is there while a reversal holds the action back.",
        answers.ActionAnswer,
        (400, 401, 403, 404, 421, 500, 503),
        ("actionId", "minSeq", "minEpoch"),
    ),
    "history": Operation(
        "Corrections",
        "Why a score is what it is. For tokens with `scores:read`, and for the user's own. `complete` is false once "
        "the log no longer goes back to its beginning. A page may have fewer entries than asked for, and lead on.",
        history_forms.HistoryAnswer,
        (400, 401, 403, 421, 500, 503),
        ("userId", "boardIdFilter", "cursor", "listLimit", "minSeq", "minEpoch"),
    ),
    "user_data": Operation(
        "Users",
        "For the person, or for who answers one: registration, scores, rows in past periods that are kept, reviews, "
        "and the log page by page, as the history gives it. For tokens with `scores:read`, and for the user's own.",
        user_data_forms.UserDataAnswer,
        (400, 401, 403, 421, 500, 503),
        ("userId", "cursor", "listLimit", "minSeq", "minEpoch"),
    ),
    "erase_user": Operation(
        "Users",
        about.ERASURE,
        erasure_forms.ErasedAnswer,
        (307, 400, 401, 403, 404, 409, 421, 429, 500, 503),
        ("userId",),
    ),
    "reverse": Operation(
        "Corrections",
        about.REVERSALS,
        reversal_forms.ReversalAnswer,
        (307, 400, 401, 403, 409, 413, 421, 429, 500, 503),
        body=reversal_forms.ReversalBody,
        links=("reversal",),
    ),
    "reversal": Operation(
        "Corrections",
        "Read from the log: who took which actions back, why, and the scores that this gave.",
        reversal_forms.LoggedReversal,
        (400, 401, 403, 404, 409, 421, 500, 503),
        ("reversalId", "minSeq", "minEpoch"),
    ),
    "reviews": Operation(
        "Corrections",
        "The oldest first. The `watch` of a board's rules says what flags. A flag changes nothing of the board. With "
        "`action` hold, what the user does later does not count there until the review is decided.",
        review_forms.ReviewsAnswer,
        (400, 401, 403, 500, 503),
        ("reviewState", "boardIdFilter", "cursor", "listLimit", "minSeq", "minEpoch"),
    ),
    "review": Operation(
        "Corrections",
        "Decided ones are kept until there are 10,000 newer decisions.",
        review_forms.ReviewAnswer,
        (400, 401, 403, 404, 500, 503),
        ("reviewId", "minSeq", "minEpoch"),
    ),
    "decide_review": Operation(
        "Corrections",
        about.DECISIONS,
        review_forms.DecidedAnswer,
        (307, 400, 401, 403, 404, 409, 413, 421, 429, 500, 503),
        ("reviewId",),
        body=review_forms.DecisionBody,
    ),
    "live_flag": Operation(
        "Operations", "As this node knows it.", flag_forms.FlagAnswer, (400, 401, 403, 500, 503), ("minSeq", "minEpoch")
    ),
    "put_live_flag": Operation(
        "Operations",
        "Logged, so every node obeys, also after a restart. Off: WebSockets are closed with 1013, streams end, new "
        "ones get 503 with a `Retry-After` of their own, up to 30 seconds. Reads and pages go on.",
        flag_forms.FlagPutAnswer,
        (307, 400, 401, 403, 413, 421, 429, 500, 503),
        body=flag_forms.FlagBody,
    ),
    "webhooks": Operation(
        "Operations",
        "Only a leader delivers, so only a leader answers. See server/WEBHOOKS.md.",
        webhook_forms.WebhooksAnswer,
        (307, 400, 401, 403, 421, 500, 503),
    ),
    "enable_webhook": Operation(
        "Operations",
        "A hook that was disabled goes on where it stopped. One that waits after a failure tries again at once.",
        webhook_forms.WebhookAnswer,
        (307, 400, 401, 403, 404, 421, 500, 503),
        ("webhookName",),
    ),
    "live": Operation("Boards", about.LIVE, None, (400, 401, 403, 426, 503), ("boardIdDefault", "view")),
    "stream": Operation(
        "Boards", about.STREAM, "text/event-stream", (400, 401, 403, 503), ("boardIdDefault", "view", "lastEventId")
    ),
    "promote": Operation(
        "Operations",
        "Begins the next epoch here, durably, and tells the old leader if it can be reached. Only a replica that holds "
        "every board and keeps its log can be promoted.",
        answers.PromotedAnswer,
        (401, 403, 409, 500, 503),
    ),
    "followers": Operation(
        "Operations",
        "Each replica reports its position again and again. Whoever follows a replica is told by that replica.",
        follower_forms.FollowersAnswer,
        (400, 401, 403, 500, 503),
    ),
    "healthz": Operation("Operations", "Answers while the process is alive.", answers.HealthAnswer),
    "readyz": Operation(
        "Operations",
        "503, with the reason, while stopping or behind. A leader that was replaced says `NOT_LEADER`. With "
        "`role=leader` only the leader is ready, and in a quorum only while a majority answers it.",
        answers.ReadyAnswer,
        (400, 503),
        ("readyRole",),
    ),
    "metrics": Operation("Operations", "For Prometheus.", _TEXT, (500,)),
}
