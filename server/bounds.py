"""Every bound of the server, by name, with why that number. The engine's bounds are in `engine.limits`.

What an operator may want to change is in the configuration instead; these are the edges that keep the process safe.
"""

from __future__ import annotations

LISTEN_BACKLOG = 4_096
"""Connections that the kernel holds until we accept them: a burst of reconnecting viewers overruns the usual 100."""

CONNECTIONS_PER_ADDRESS_MAX = 1_024
"""Connections of one client address in all lanes, unless it is a trusted proxy, which stands for many clients."""

HEAD_BYTES_MAX = 16 * 1024
"""Request line and headers together; h11 and most proxies draw the line here too. Beyond it: 431."""

HEAD_SECONDS_MAX = 10.0
"""From the first byte of a request to the end of its head."""

IDLE_SECONDS_MAX = 60.0
"""Between connecting, or the end of an answer, and the first byte of the next request."""

BODY_BYTES_MAX = 5 * 2**19
"""A request body, 2.5 MiB: 1,000 increments with the longest ids, each character of 4 bytes, come to 2.2 MB. Beyond
it: 413."""

BODY_SECONDS_MAX = 30.0
"""From the end of the head to the end of the body."""

SEND_SECONDS_MAX = 20.0
"""For one write to a client to get through; a client that does not read is cut off after it."""

TOKEN_CHARACTERS_MAX = 8 * 1024
"""A bearer token; larger ones are refused before anything is computed from them."""

VERIFIED_TOKENS_MAX = 4_096
"""Verified tokens that are remembered, by digest."""

JWKS_BYTES_MAX = 256 * 1024
"""The answer of a JWKS endpoint."""

JWKS_SECONDS_MAX = 5.0
"""One fetch of a JWKS, from start to end."""

JWKS_REFRESH_SECONDS_MIN = 30.0
"""Between two fetches that unknown key ids ask for: a flood of made-up key ids must not become a flood of fetches."""

RATE_KEYS_MAX = 200_000
"""Callers or users whose recent rate is remembered at once; about 100 bytes each."""

TOP_LIMIT_DEFAULT = 10
TOP_LIMIT_MAX = 50
"""Rows of GET /scoreboard/top; the live channel always has 10."""

AROUND_LIMIT_DEFAULT = 5
AROUND_LIMIT_MAX = 25
"""Neighbours on each side in GET /scores/{userId}/around."""

VIEWER_MESSAGE_BYTES_MAX = 4 * 1024
"""A frame from a viewer. Viewers have nothing to say but pings, pongs and close."""

VIEWER_PING_SECONDS = 25.0
"""Between pings; below the 30 to 60 seconds after which proxies drop silent connections."""

VIEWER_SILENCE_SECONDS_MAX = 60.0
"""A viewer that was not heard of for so long (two missed pongs) is dead."""

VIEWER_DRAIN_SECONDS_MAX = 15.0
"""A viewer whose socket stays full for so long is closed."""

RESERVED_FILES = 512
"""File descriptors kept free of viewers: log, snapshots, HTTP connections, threads. Viewers get what is left."""

DRAIN_SECONDS_MAX = 10.0
"""On SIGTERM: to answer what is in flight and to close the viewers, spread over this time."""

RETRY_AFTER_SECONDS = 1
"""What an overloaded server tells callers to wait."""
