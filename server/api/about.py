"""The longer texts of the API's description: what it is for, and how the live channel speaks. Pure.

ABOUT      of the whole interface
LIVE       of GET /ws/scoreboard
PUT_BOARD  of PUT /boards/{boardId}
IMPORTS    of POST /boards/{boardId}/imports
SCORE      of GET /scores/{userId}
WALK       of GET /scoreboard
ERRORS     by status: the name of the response, and its codes
"""

from __future__ import annotations

from server import bounds

ABOUT = f"""A live scoreboard. Trusted backends report actions, each counted exactly once and on disk before the answer;
anybody reads the board, or watches it over a WebSocket.

Tokens are JSON Web Tokens in the header `Authorization: Bearer …`. The scope `admin` contains every other.

HEAD is allowed wherever GET is, OPTIONS everywhere. A path may end with one slash more. An unknown parameter is refused
by name, except `_`; pages and probes ignore parameters. Every answer has an `X-Request-Id`, which the request may
bring, unless the connection refused the request before it was read. A replica's answers to reads, refusals included,
have `X-Scoreboard-Lag-Records` and `X-Scoreboard-Lag-Ms`: how far it is behind its leader.

Bodies are at most {bounds.BODY_BYTES_MAX:,} bytes of JSON with only the fields named here. `null` for an optional field
is as if it was left out; the exception is `displayName`.

`epoch` and `seq` together are a position, compared in that order. A later answer never has a lower one. Two leaders of
one epoch, after two promotions at once, have different `history`, and their positions say nothing of each other."""

REVERSALS = """Takes actions back: scores are counted again as if they had never been, on every board on which they
counted, in past periods too. Name the actions by `actionIds`, or all of a `userId` or a `caller` between `from` and
`to`, which are seqs or times. With `preview` nothing changes, and the answer says what would.

All of it is one event: a reader sees the boards before it or after it. The actionIds stay used. A `reversalId` counts
once, as an actionId does. A reversal is taken back by naming its reversalId in `actionIds`, alone."""

IMPORTS = f"""Scores come in as they are, piece by piece, in order: at most {bounds.IMPORT_PIECE_ROWS_MAX:,} rows in a
request. `firstRow` is the number of the first one, from 0 on. Rows that are done are passed over, so a piece may be
sent again. A gap is refused with 409: `details.rowsDone` is the row that comes next. All pieces have the same
`importId`, `total`, `digest` and `merge`.

Without `merge` the board must have no scores when the import begins. With it a row counts by the board's mode. Of equal
scores the row that comes first is ahead. One bad row refuses its piece, and `details.field` names it: `rows[7].score`.
Reasons, ranges, feeds and rates do not apply. The server sees one piece at a time: a user who comes again in another
piece counts again. A body in MessagePack is answered in MessagePack."""

DECISIONS = """`accept`: the points are good, and what the board holds of the user counts, in its order.

`reverse`: what the user did on the board since the review's `since` is taken back, with all that the board holds, on
every board on which it counted. This makes a reversal with the id `reversalId`, or `review-` and the reviewId. If
`reversalId` names a reversal that was made before, nothing more is taken back; then no held action may be left.

With `preview` nothing changes, and the answer says what would. The user is watched anew. The same decision again
changes nothing."""

ERASURE = """Erases a user for good: off all boards and past periods at once, no longer registered. By `filesBy` no file
of the data directory has the id or the name: see server/PRIVACY.md, also for replicas and backups. The others keep
scores and ranks. The user's actions stay used: a retry gets 410 `ERASED`.

Send it again after a lost answer. `applied` is false while files still name the user; afterwards it is 404, because
nobody knows the id any more. Who scores under it later is a new user. A token that names a user may only erase that
user."""

LIVE = """Opens a WebSocket. The server sends the first ten rows at once, and again when they change, at most once per
interval.

The subprotocol chooses the messages:

- `scoreboard.v1`, or none: `scoreboard_snapshot` first, then `scoreboard_update`. Both have the fields of
  GET /scoreboard/top and `type`; updates leave `history` out.
- `scoreboard.delta.v1`: `scoreboard_snapshot` first and after a missed message, else `scoreboard_delta` with `baseSeq`
  (the seq that it applies to), `changed` (rows that are new or differ) and `left` (userIds that are no longer there).
- `scoreboard.token.<JWT>`, offered beside one of these, brings the token of a client that can't set headers. The server
  never selects it. So a browser that offers it alone closes the connection (1006).

The client need not send anything. It may send `{"type": "subscribe", "boardId", "userId"}`, and `unsubscribe` with the
same fields. Then it gets `scoreboard_user` at once, and again when this user's place changed: `rank`, `score`,
`gapToNext`, `count`, and `overtaken` (who passed since the last message, the nearest first; `overtakenMore`: there may
be others). Without `boardId` the board is that of the connection. Without `userId` the user is the one that the token
names. A token that names a user is good for this user only. A refused message gets `error` with `code`, `message` and
`details`, and the connection stays."""

STREAM = """The live channel for whoever takes no WebSocket: `scoreboard_snapshot` at once, then `scoreboard_update` as
the rows change, and `scoreboard_period` when a period ended. Each is the `data` of an event. The `id` is the position:
epoch, seq, and the beginning of the epoch's identity. A client that sends the last one back as `Last-Event-ID`, as
browsers do, gets no snapshot if the board has not moved since. A comment comes every 15 seconds. `retry` differs for
each client, so that not all come back at once. The token goes into `Authorization`, which a browser's EventSource can't
set."""

PUT_BOARD = """Makes a board (201), or replaces its rules (200). What is left out has its default. `applied` is false if
the board has these rules already.

`points`: a number, also below 0, or a range. A score never goes below 0. A reason with a range takes the `value` of the
request. `score` and `order` stay as they are while the board has scores. `feeds` names boards on which each action
counts too, by their own rules. `period` is a schedule or a season. A schedule has `every`, an IANA `zone`, and the
beginning `at`; with `every` cron it has a `cron` expression instead. A season has `starts`, `ends`, or both. New rules
hold at once, for the running period too. `keep_periods` past periods are kept."""

SCORE = """`percentile`: of the other ranked users, the percentage behind this one. `gapToNext`: the points by which the
next better user leads, 0 if that one was only earlier, null for the first. An inactive user has a score, but no rank.
Without a token that may read, the answer about one is 404."""

WALK = """Send `nextCursor` of each page as `cursor` of the next, until it is null. All pages show the moment of the
first: each user who was ranked then is listed once, with the score and rank of that moment, however scores move
meanwhile. Names are of now. 410 `CURSOR_EXPIRED`: the walk was idle for a minute, too many users moved, or it was
another node's; begin again. Walks that begin within a second share a moment, unless they name `minSeq`."""

AS_OF = """`asOfSeq` and `asOf` ask for the board as it was, with a token that has `scores:read`, and without the other
parameters: `seq`, `generatedAt` and names are those of then. It is read from a snapshot and the log, one question at a
time, which takes seconds; then 503 `OVERLOADED`. 410 `NO_LONGER_KEPT`: they do not go back so far."""

EXPORT = """Columns: `rank`, `userId`, `displayName`, `score`, `updatedAt`, `reachedSeq`. All rows are of the moment of
the headers `X-Scoreboard-Epoch` and `X-Scoreboard-Seq`, and come while they are made: the answer has no length. If it
can't be sent to its end, the connection is cut. A few exports at once; then 503."""

ERRORS = {
    400: ("InvalidRequest", "`INVALID_REQUEST`: the request is not well formed; `details.field` names the fault."),
    401: ("Unauthenticated", "`UNAUTHENTICATED`: no token, or one that does not verify."),
    403: ("Unauthorized", "`UNAUTHORIZED`: the token lacks a scope (`details.anyOf`) or is for another user."),
    404: ("NotFound", "`NOT_FOUND`: it does not exist."),
    409: (
        "Conflict",
        (
            "`CONFLICT`: it contradicts what is there; nothing was changed. An actionId was applied to another user, "
            "board, reason or value; a board has scores, or another period runs; nothing is there to reverse; the log "
            "does not explain a score. `BOARD_NOT_OPEN`: the season begins at `details.startsAt`."
        ),
    ),
    410: (
        "Gone",
        (
            "`CURSOR_EXPIRED`: begin again without a cursor. `BOARD_CLOSED`: the board was closed, or its season is "
            "over; it can only be read. `NO_LONGER_KEPT`: snapshots and log do not go back so far. `ERASED`: "
            "the action counted for a user who was erased since."
        ),
    ),
    413: ("PayloadTooLarge", "`PAYLOAD_TOO_LARGE`: the body is too long."),
    307: ("ToLeader", "`NOT_LEADER`: this is a replica; `Location` has the address at the leader."),
    421: (
        "Misdirected",
        (
            "`NOT_LEADER`: only the leader does that; `details.leader` is its address, if known. A leader that was "
            "replaced names the newer `details.epoch` and its `details.history` too. `WRONG_SHARD`: `details.shard` "
            "has the board."
        ),
    ),
    426: ("UpgradeRequired", "`INVALID_REQUEST`: this is a WebSocket."),
    429: ("RateLimited", "`RATE_LIMITED`: `details` name the limit, its number per minute, and when to retry."),
    500: ("InternalError", "`INTERNAL_ERROR`: a bug; `details.requestId` is in the server's logs."),
    503: (
        "Unavailable",
        (
            "`OVERLOADED`, `DISK_FULL`, `NO_QUORUM`: nothing was done. `OUTCOME_UNKNOWN`: it may be done; send it "
            "again with the same actionId. `REPLICA_BEHIND`: the replica is not that far yet; `details` have its lag. "
            "`NOT_LEADER`: readiness of a leader that was replaced, or of a node that was to lead; `details` name the "
            "newer epoch and its leader, if known. "
            "`KEYS_UNAVAILABLE`: it cannot be known yet whether the token's key is its issuer's; send it again later. "
            "`PAST_UNAVAILABLE`: the files of the past can't be read on this node."
        ),
    ),
}
