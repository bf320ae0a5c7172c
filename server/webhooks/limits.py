"""The bounds of webhooks by name, each with its reason. Pure."""

from __future__ import annotations

ATTEMPT_SECONDS = 15.0
"""For one attempt, from the look-up of the name to the answer. Standard Webhooks recommends 15 to 30 seconds."""

CONNECT_SECONDS = 5.0
"""For one address of the receiver. A host that is there answers within a round trip."""

ADDRESSES_MAX = 4
"""Addresses of one name that are tried in an attempt: more would not fit into its time."""

RESOLVERS = 4
"""Look-ups of names at once, of all hooks together. A look-up holds a thread, also after its caller has left."""

ANSWER_BYTES_MAX = 2**16
"""Of a receiver's answer, which is not looked at: so much is read so that the connection can be used again."""

IDLE_SECONDS = 60.0
"""An idle connection to a receiver is kept so long: a busy board sends the next delivery within it."""

RETRY_SECONDS = 1.0
RETRY_SECONDS_MAX = 3_600.0
"""The bound of the first wait after a failure, and of all waits: it doubles in between."""

SAVE_SECONDS = 60.0
"""How much of the log a start may have to read again where nothing had to be delivered."""

RARE_EVENTS_KEPT = 10_000
"""Seqs of rare events that are remembered, 80 KB. A hook that is further behind reads the log."""

SCANNED_FRAMES = 10_000
SCANNED_FOUND_MAX = 1_000
"""Frames that one turn of a thread reads of the log, and what it may find: some ten ms, and a megabyte."""

HELD_BACK_MAX = 10_000
"""Deliveries about frozen boards that wait for the end of the freeze, of one hook: as many as open reviews."""

OVERTAKEN_LOOK = 1_000
"""Rows in which a start looks for who stood among the first ten before. Nobody falls further unseen."""

ERROR_CHARACTERS_MAX = 300
"""Of an error in a log line and in an answer: some libraries put whole answers into theirs."""
