"""The longer texts of the API's description: what it is for, and how the live channel speaks. Pure.

ABOUT      of the whole interface
LIVE       of GET /ws/scoreboard
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

LIVE = """Opens a WebSocket. The server sends the first ten rows at once, and again when they change, at most once per
interval. The client need not send anything.

The subprotocol chooses the messages:

- `scoreboard.v1`, or none: `scoreboard_snapshot` first, then `scoreboard_update`. Both have the fields of
  GET /scoreboard/top and `type`; updates leave `history` out.
- `scoreboard.delta.v1`: `scoreboard_snapshot` first and after a missed message, else `scoreboard_delta` with `baseSeq`
  (the seq that it applies to), `changed` (rows that are new or differ) and `left` (userIds that are no longer there).
- `scoreboard.token.<JWT>`, offered beside one of these, brings the token of a client that can't set headers. The server
  never selects it."""
