"""Every bound of the engine, and the reason for its value. The server's bounds are in `server.bounds`."""

from __future__ import annotations

SCORE_MAX = 2**53 - 1
"""The largest score. JavaScript and other JSON readers that use doubles hold no larger integer exactly."""

SEQ_MAX = 2**53 - 1
"""The largest seq, for the same reason. At a million events a second it lasts 285 years."""

ID_CHARACTERS_MAX = 128
"""Length of a userId, actionId, boardId or reason: room for two UUIDs and a prefix, short enough for a record."""

NAME_CHARACTERS_MAX = 128
"""Length of a displayName."""

REASONS_MAX = 1_000
"""Reasons on one board: the longest catalogue still fits in one chunk of a snapshot (1 MiB)."""

FEEDS_MAX = 8
"""Boards that a board feeds. Each of them costs an action about as much as the board itself."""

FEED_BYTES_MAX = 1_000
"""Bytes of the ids of these boards together: every record of a frame has them, and the frame must not grow too long."""

KEEP_PERIODS_DEFAULT = 52
KEEP_PERIODS_MAX = 1_000
"""Past periods of a board that are kept. The state lists them, with some 60 bytes each."""

NOTE_EVERY_MS = 3_600_000
"""Time between two notes of the ranks. A note of a board takes some 0.9 KB, and a day's are kept."""

NOTES_MAX = 32
"""Notes of a board that are kept: those of a day, and some that a clock which went back brings."""

WATCH_CALLERS_MAX = 100
"""Callers of one user that a watch may allow: it keeps the names of that many for each user of the last hour."""

OUTLIER_Z_MAX = 1_000
"""The largest `outlier_z`. Honest scores are rarely beyond 10."""

OPEN_REVIEWS_MAX = 10_000
"""Reviews that wait for a decision. More are not read by anybody: the limits of a watch are wrong then. Some 300 bytes
each."""

OPEN_HOLDS_MORE = 10_000
"""Reviews of boards that hold, for which there is room beyond the others: so flags of other boards prevent no hold."""

DECIDED_REVIEWS_KEPT = 10_000
"""Reviews that are kept after their decision, so that it can be read and repeated. The log has all of them."""

HELD_ACTIONS_MAX = 5_000
"""Actions of one user that a board holds until somebody decides. One event takes all of them back."""

HELD_MAX = 1_000_000
"""Actions that all boards hold together, at 8 bytes each."""

NOTE_CHARACTERS_MAX = 500
"""Length of the note of a decision. It is in the log for good."""

BATCH_COMMANDS_MAX = 1_000
"""Commands in one submission, which is one batch request."""

IMPORT_ROWS_MAX = 2_000
"""Rows of an import in one submission: a row may need two events, and one begins the import, so they fit in a frame."""

IMPORTS_MAX = 10_000
"""Imports that a log may have. The state remembers each of them for good, with some 200 bytes."""

INBOX_COMMANDS_MAX = 20_000
"""Commands that wait for the actor: about a second of work at full rate. More would only wait longer."""

FRAME_RECORDS_MAX = 4_096
"""Records in one frame, and commands that the actor takes from the inbox at once. An fsync then costs little for each
record, and the event loop is free again within some tens of milliseconds."""

FRAME_BYTES_MAX = 16 * 2**20
"""Length of a frame's body. Readers refuse a longer one before they allocate. FRAME_RECORDS_MAX records with the
longest ids (five of 128 characters, 4 bytes each) and FEED_BYTES_MAX take 15.5 MB, so every frame that we write
fits."""

SEGMENT_BYTES = 16 * 2**20
"""Length at which a segment is sealed: short enough to read or compress in a fraction of a second."""

CLOCK_STEP_MS = 1_000
"""How far the wall clock may leave the monotonic clock. More is a step. Time servers correct small errors by slewing,
which moves both clocks."""

CLOCK_LASTS_S = 60.0
"""The time that a step must last before it is believed. A time server that is started late, or an operator who sets the
clock wrongly, repairs it sooner. A longer time would only delay a repair that stays."""

CLOCK_TRUSTED_S = 3_600.0
"""The time without a step until a clock may decide that something is old. A clock that is wrong for less removes
nothing."""

CLOCK_STEPS_KEPT = 16
"""Steps that wait to be told. They are told every second; a clock that steps more often is told often enough."""
