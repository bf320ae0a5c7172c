"""The examples of the API's description: one small story, played against a fresh leader. Pure.

    REQUESTS["increment"]      the body of the request to this handler
    ANSWERS["increment"]       its answer
    ERRORS[409]                an error answer

    alice is registered; she gets points; a batch has points for bob, a repetition and a conflict; all is read. Then a
    board is made, read, frozen, revealed (nobody is on it, so that ends the freeze), reset and closed. Last, alice's
    action is taken back, a board with a watch is made, dora is flagged on it, and somebody finds her points good. The
    scores of an older system are imported to a board of their own, which is read as a contest. dora is erased, and the
    live channel is switched off.

A test plays the story and compares each answer with its example. So no example is out of date.
"""

from __future__ import annotations

from typing import Any

from server.api.feed_examples import FEEDS

USER_ID = "alice"
ACTION_ID = "quest-7-alice"
BOARD_ID = "cup"
REVIEW_ID = "11-0"
IMPORT_ID = "season-1"

REQUESTS: dict[str, Any] = {
    "put_user": {"displayName": "Alice", "active": True},
    "query": {"userIds": ["bob", "carol"], "boardId": "main"},
    "increment": {"userId": "alice", "actionId": "quest-7-alice", "reason": "ACTION_COMPLETED"},
    "put_board": {
        "title": "Winter cup",
        "points": {"WIN": 10, "LATE": -5, "LAP": {"min": 1, "max": 3_600_000}},
        "score": "sum",
        "order": "descending",
        "ranks": "shared",
        "period": {"every": "week", "zone": "Europe/Berlin", "at": "monday 06:00"},
        "keep_periods": 52,
        "feeds": [],
    },
    "freeze_board": {},
    "put_live_flag": {"enabled": False},
    "reverse": {"reversalId": "dispute-17", "reason": "played with a bot", "actionIds": ["quest-7-alice"]},
    "reveal_board": {"step": 1},
    "reset_board": {"period": "2025-W51"},
    "decide_review": {"decision": "accept", "note": "It was a good day."},
    "import_rows": {
        "importId": "season-1",
        "digest": "sha256:9f86d081",
        "total": 2,
        "firstRow": 0,
        "merge": False,
        "rows": [
            {"userId": "alice", "score": 4711, "reachedAt": "2025-11-30T18:00:00Z"},
            {"userId": "eve", "score": 4711, "displayName": "Eve"},
        ],
    },
    "increment_batch": [
        {"userId": "bob", "actionId": "quest-8-bob"},
        {"userId": "alice", "actionId": "quest-7-alice"},
        {"userId": "bob", "actionId": "quest-7-alice"},
    ],
}

_TIME = "2025-12-15T12:34:56.000Z"
_ROWS = [{"userId": "alice", "displayName": "Alice", "score": 10, "rank": 1}, {"userId": "bob", "score": 10, "rank": 2}]
_CONFLICT = {
    "code": "CONFLICT",
    "message": "action 'quest-7-alice' was already applied to another user, board or reason; nothing was changed",
    "details": {"field": "actionId", "actionId": "quest-7-alice", "seq": 2},
}
_INCREMENTED = {
    "userId": "alice", "newScore": 10, "delta": 10, "applied": True, "actionId": "quest-7-alice", "boardId": "main",
    "epoch": 1, "seq": 2, "rank": 1, "previousRank": None,
}  # fmt: skip

_PUBLIC = {
    "boardId": "cup", "title": "Winter cup", "score": "sum", "order": "descending", "ranks": "shared",
    "period": "2025-W51", "startsAt": "2025-12-15T05:00:00.000Z", "endsAt": "2025-12-22T05:00:00.000Z", "over": False,
    "closed": False, "count": 0, "epoch": 1, "seq": 4,
}  # fmt: skip
_BOARD = {**_PUBLIC, "rules": REQUESTS["put_board"], "tzdata": "2025b"}
_RESET = {**_BOARD, "period": "2025-W51.2", "startsAt": _TIME, "applied": True, "seq": 7}
_REVIEW = {
    "reviewId": "11-0", "boardId": "fair", "userId": "dora", "rule": "growth_per_minute", "value": 10, "limit": 5,
    "score": 10, "since": _TIME, "seq": 11, "time": _TIME, "state": "open",
}  # fmt: skip
_DECIDED = {
    **_REVIEW, "state": "accepted", "decidedAt": _TIME, "decidedBy": "judge", "decidedSeq": 12,
    "note": "It was a good day.",
}  # fmt: skip
_PAST = {
    "period": "2025-W51", "startsAt": "2025-12-15T05:00:00.000Z", "endsAt": _TIME, "count": 0, "seq": 7,
}  # fmt: skip

ANSWERS: dict[str, Any] = {
    "put_user": {"userId": "alice", "displayName": "Alice", "active": True, "applied": True, "epoch": 1, "seq": 1},
    "increment": _INCREMENTED,
    "increment_batch": [
        {"status": 200, **_INCREMENTED, "userId": "bob", "actionId": "quest-8-bob", "seq": 3, "rank": 2},
        {"status": 200, **_INCREMENTED, "delta": 0, "applied": False, "previousRank": 1},
        {"status": 409, "error": _CONFLICT},
    ],
    "top": {"entries": _ROWS, "generatedAt": _TIME, "boardId": "main", "epoch": 1, "history": "0" * 32, "seq": 3},
    "walk": {
        "entries": _ROWS, "count": 2, "nextCursor": None, "generatedAt": _TIME, "boardId": "main", "epoch": 1,
        "history": "0" * 32, "seq": 3,
    },
    "query": {
        "entries": [{**_ROWS[1], "rankAmong": 1}], "unranked": ["carol"], "count": 2, "generatedAt": _TIME,
        "boardId": "main", "epoch": 1, "seq": 3,
    },
    "score": {
        **_ROWS[0], "count": 2, "percentile": 100.0, "gapToNext": None, "boardId": "main", "updatedAt": _TIME,
        "epoch": 1, "seq": 3,
    },
    "around": {"boardId": "main", "userId": "alice", "entries": _ROWS, "epoch": 1, "seq": 3, "generatedAt": _TIME},
    "put_board": {**_BOARD, "applied": True},
    "boards": {"boards": [_PUBLIC], "epoch": 1, "seq": 4},
    "board": _BOARD,
    "freeze_board": {**_BOARD, "frozenAt": _TIME, "revealed": 0, "applied": True, "seq": 5},
    "reveal_board": {**_BOARD, "applied": True, "seq": 6},
    "unfreeze_board": {**_BOARD, "applied": False, "seq": 6},
    "reset_board": _RESET,
    "periods": {"boardId": "cup", "periods": [_PAST], "epoch": 1, "seq": 7},
    "close_board": {**_RESET, "closed": True, "seq": 8},
    "action": {
        "actionId": "quest-7-alice",
        "applied": True,
        "epoch": 1,
        "seq": 2,
        "receipt": {
            "userId": "alice", "boardId": "main", "delta": 10, "newScore": 10, "reason": "ACTION_COMPLETED",
            "caller": "backend", "epoch": 1, "seq": 2, "time": _TIME,
        },
        "receiptStatus": "KEPT",
    },
    "reviews": {"reviews": [_REVIEW], "open": 1, "passedOver": 0, "nextCursor": None, "epoch": 1, "seq": 11},
    "review": {"review": _REVIEW, "epoch": 1, "seq": 11},
    "decide_review": {"review": _DECIDED, "applied": True, "preview": False, "epoch": 1, "seq": 12},
    "healthz": {"status": "ok"},
    "readyz": {"epoch": 1, "seq": 3, "status": "ready"},
    "promote": {"epoch": 2, "seq": 4},
    "quorum": {
        "role": "leading", "epoch": 1, "seq": 3, "place": 4,
        "leader": {"name": "east", "url": "https://scores.example"}, "confirmed": True,
        "nodes": [
            {
                "name": "east", "url": "https://scores.example", "role": "leading", "leads": True, "epoch": 1,
                "seq": 3, "place": 4, "lagRecords": 0, "heardMs": 0, "self": True,
            },
            {
                "name": "west", "url": "http://10.0.0.8:8080", "role": "following", "leads": False, "epoch": 1,
                "seq": 2, "place": 3, "lagRecords": 1, "heardMs": 120, "self": False,
            },
        ],
        "stream": {"name": "scoreboard", "first": 1, "last": 4, "bytes": 612},
        "takeovers": 1, "depositions": 0, "doubts": 0,
    },
    "step_down": {"epoch": 1, "seq": 3},
    "followers": {
        "followers": [
            {
                "address": "10.0.0.7", "epoch": 1, "seq": 3, "lagRecords": 0, "durable": True, "connectedAt": _TIME,
            },
        ],
        "epoch": 1,
        "seq": 3,
    },
}  # fmt: skip


ANSWERS |= FEEDS


def _error(code: str, message: str, **details: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "details": details}}


ANSWERS |= {
    "history": {
        "userId": "alice",
        "entries": [
            {
                "seq": 9, "epoch": 1, "time": _TIME, "type": "reversal", "caller": "referee",
                "reason": "played with a bot", "reversalId": "dispute-17", "again": False,
                "scores": [{"boardId": "main", "score": None}],
            },
            {
                "seq": 2, "epoch": 1, "time": _TIME, "type": "increment", "caller": "backend", "boardId": "main",
                "delta": 10, "newScore": 10, "reason": "ACTION_COMPLETED", "actionId": "quest-7-alice",
                "reversedBy": {
                    "reversalId": "dispute-17", "reason": "played with a bot", "caller": "referee", "epoch": 1,
                    "seq": 9, "time": _TIME,
                },
            },
            {
                "seq": 1, "epoch": 1, "time": _TIME, "type": "user", "caller": "registry", "displayName": "Alice",
                "active": True,
            },
        ],
        "nextCursor": None, "complete": True, "oldestSeq": 1, "epoch": 1, "seq": 9,
    },
    "user_data": {
        "userId": "alice", "registered": {"displayName": "Alice", "active": True}, "scores": [], "pastScores": [],
        "reviews": [], "entries": [], "nextCursor": None, "complete": True, "oldestSeq": 1, "epoch": 1, "seq": 9,
    },
    "viewers": {"boardId": "main", "viewers": 0},
    "live_flag": {"flag": "live", "enabled": True, "since": None, "epoch": 1, "seq": 18},
    "put_live_flag": {
        "flag": "live", "enabled": False, "since": _TIME, "epoch": 1, "seq": 19, "applied": True,
    },
    "erase_user": {
        "userId": "dora", "erased": True, "applied": True, "epoch": 1, "seq": 18, "actions": 1,
        "filesBy": "2025-12-16T12:34:56.000Z",
    },
    "reverse": {
        "reversalId": "dispute-17", "applied": True, "preview": False, "again": False, "epoch": 1, "seq": 9,
        "actions": 1, "users": 1, "forgotten": 0,
        "changes": [
            {
                "boardId": "main",
                "users": [{"userId": "alice", "oldScore": 10, "newScore": None, "delta": -10}],
                "top": [{"userId": "bob", "score": 10, "rank": 1}],
            }
        ],
    },
    "reversal": {
        "reversalId": "dispute-17", "reason": "played with a bot", "caller": "referee", "again": False, "actions": 1,
        "holding": 1, "changes": [{"boardId": "main", "users": [{"userId": "alice", "score": None}]}], "epoch": 1,
        "seq": 9, "time": "2025-12-15T12:34:56.000Z",
    },
}  # fmt: skip
_IMPORT = {
    "importId": "season-1", "boardId": "classic", "rows": 2, "rowsDone": 2, "finished": True, "merge": False,
    "digest": "sha256:9f86d081", "begunSeq": 14,
}  # fmt: skip
ANSWERS |= {
    "import_rows": {
        "importId": "season-1", "boardId": "classic", "rows": 2, "rowsDone": 2, "applied": 2, "finished": True,
        "epoch": 1, "seq": 17,
    },
    "imports": {"boardId": "classic", "imports": [_IMPORT], "epoch": 1, "seq": 17},
    "import": {**_IMPORT, "epoch": 1, "seq": 17},
}  # fmt: skip
ANSWERS["user_data"]["entries"] = ANSWERS["history"]["entries"]

_WEBHOOK = {
    "name": "shop", "url": "https://shop.example/hooks", "events": ["top.changed"], "boards": [],
    "cursor": {"epoch": 1, "seq": 17}, "lag": 0, "failures": 0, "lastError": None, "lastErrorAt": None,
    "disabled": False,
}  # fmt: skip
ANSWERS |= {
    "webhooks": {"webhooks": [_WEBHOOK], "epoch": 1, "seq": 17},
    "enable_webhook": {"webhook": _WEBHOOK, "epoch": 1, "seq": 17},
}

ERRORS: dict[int, Any] = {
    307: _error("NOT_LEADER", "This node is a replica: send it to the leader.", leader="https://scores.example"),
    400: _error("INVALID_REQUEST", "actionId is missing.", field="actionId"),
    401: _error("UNAUTHENTICATED", "A bearer token is required."),
    403: _error("UNAUTHORIZED", "The token lacks the scope scores:write.", anyOf=["scores:write"]),
    404: _error("NOT_FOUND", "This user has no score on this board.", userId="nobody", boardId="main"),
    409: {"error": _CONFLICT},
    410: _error(
        "CURSOR_EXPIRED", "This cursor has expired, or is another node's. Begin again without a cursor.", field="cursor"
    ),
    413: _error("PAYLOAD_TOO_LARGE", "The body of a request has at most 6815744 bytes.", maximum=6_815_744),
    421: _error(
        "NOT_LEADER",
        "This node was the leader until epoch 2 began elsewhere: nothing was done.",
        leader="https://scores.example",
        epoch=2,
    ),
    426: _error(
        "INVALID_REQUEST",
        "This is a WebSocket: open it on a connection of its own, with an Upgrade header.",
        field="Upgrade",
    ),
    429: _error(
        "RATE_LIMITED",
        "Too many requests for this user: at most 600 a minute.",
        limit="user",
        limitPerMinute=600,
        retryAfterSeconds=1,
        userId="alice",
    ),
    500: _error("INTERNAL_ERROR", "Something went wrong on our side.", requestId="0f3c9a7b21-000001"),
    503: _error("OVERLOADED", "Nothing was done, because the server is stopping. Try again later."),
}
