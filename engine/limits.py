"""Every bound of the engine, by name, with why that number. The server's bounds are in `server.bounds`."""

from __future__ import annotations

SCORE_MAX = 2**53 - 1
"""The largest score: the largest integer that JSON readers which use doubles, JavaScript among them, hold exactly."""

SEQ_MAX = 2**53 - 1
"""The largest seq, for the same reason. At a million events a second it lasts 285 years."""

ID_CHARACTERS_MAX = 128
"""userId, actionId, boardId and reason: room for two UUIDs and a prefix, small enough to keep in every record."""

NAME_CHARACTERS_MAX = 128
"""displayName."""

BATCH_COMMANDS_MAX = 1_000
"""Commands in one submission (one batch request)."""

INBOX_COMMANDS_MAX = 20_000
"""Commands waiting for the actor: about a second of work at full rate; beyond it, waiting only adds latency."""

FRAME_RECORDS_MAX = 4_096
"""Records that one fsync makes durable, and commands that the actor takes from the inbox at once: enough that the fsync
costs next to nothing per record, few enough that the event loop is back within some tens of milliseconds."""

FRAME_BYTES_MAX = 16 * 2**20
"""Length of a frame's body. Readers refuse a longer one before they allocate. FRAME_RECORDS_MAX records of the longest
ids (five of 128 characters, 4 bytes each) come to 11 MB, so that a frame which we write always fits."""

SEGMENT_BYTES = 16 * 2**20
"""A segment is sealed once it is this long: small enough to compress or read through in a fraction of a second."""
