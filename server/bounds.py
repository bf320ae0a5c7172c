"""Every bound of the server, by name, with why that number. The engine's bounds are in `engine.limits`.

What an operator may want to change is in the configuration instead; these are the edges that keep the process safe.
"""

from __future__ import annotations

# ---- connections -----------------------------------------------------------------------------------------------------

LISTEN_BACKLOG = 4_096
"""Connections that the kernel holds until we accept them: a burst of reconnecting viewers overruns the usual 100."""

ACCEPT_PAUSE_SECONDS = 0.1
"""After the kernel had no file for a connection, until the next try: soon, but not a busy loop."""

NO_FILES_TOLD_SECONDS = 60.0
"""Between two log lines about the same lack of files: it lasts, and each try fails like the one before."""

CONNECTIONS_PER_ADDRESS_MAX = 1_024
"""Connections of one client address in all lanes, unless it is a trusted proxy, which stands for many clients."""

DOOR_RESERVED_FILES = 128
"""Kept free of connections: log, snapshots, threads, the listeners, and answering those who find no place."""

TURNED_AWAY_MAX = 32
"""Connections that find no place and are told so, at once; beyond it they are just closed."""

RECEIVE_BYTES = 64 * 1024
"""One read from a connection: a large body in few turns, and a thousand clients hold no more than 64 MiB by it."""

SEND_BYTES = 64 * 1024
"""One write to a connection, which has to get through in SEND_SECONDS_MAX: at 26 kbit/s it does."""

SEND_SECONDS_MAX = 20.0
"""For one write to a client to get through; a client that does not read is cut off after it."""

IDLE_SECONDS_MAX = 60.0
"""Between connecting, or the end of an answer, and the first byte of the next request."""

REACTOR_EVENTS_MAX = 512
"""Connections of the express lane that are read before others get their turn: some 10 ms of work."""

REACTOR_SWEEP_SECONDS = 1.0
"""Between two looks at which of them are idle for too long."""

HEADS_MAX = 4_096
"""Heads of requests that are remembered, about 1 KiB each. When there are more, all are forgotten: whoever sends a new
head each time makes his requests slower and nobody else's wrong."""

HEAD_REMEMBERED_BYTES_MAX = 4 * 1024
"""The longest head that is remembered, its token included, which itself is not kept. Anybody can send heads of
HEAD_BYTES_MAX, each of them new, and 4,096 of those would be some 100 MiB."""

LINGER_SECONDS_MAX = 2.0
"""For the client to take in the last answer and close; meanwhile what it sends is dropped."""

LINGER_BYTES_MAX = 8 * 2**20
"""Dropped at most: a client in the middle of a body that was refused should see why, so more than BODY_BYTES_MAX."""

STARTUP_SECONDS_MAX = 60.0
"""For the application behind the door to start, and again to stop."""

DRAIN_SECONDS_MAX = 10.0
"""On SIGTERM: to answer what is in flight and to close the viewers, spread over this time."""

CUT_SECONDS_MAX = 1.0
"""For the tasks of connections that were cut to end. They have nothing left to wait for, so none should need it."""

YOUNG_OBJECTS_MAX = 50_000
"""Objects that Python makes before it looks for garbage among them. A batch of a thousand makes some ten thousand that
are all in use at once; at the usual 700 they would be looked through a dozen times, and nothing found."""

RETRY_AFTER_SECONDS = 1
"""What an overloaded server tells callers to wait."""

# ---- requests --------------------------------------------------------------------------------------------------------

HEAD_BYTES_MAX = 16 * 1024
"""Request line and headers together; h11 and most proxies draw the line here too. Beyond it: 431."""

HEAD_SECONDS_MAX = 10.0
"""From the first byte of a request to the end of its head."""

BODY_BYTES_MAX = 13 * 2**19
"""A request body, 6.5 MiB: 1,000 increments of four ids of 128 characters come to 6.2 MB where a client escapes each
character as 12 bytes, which many do with what is not ASCII (an emoji is two \\uXXXX). Beyond it: 413."""

BODY_SECONDS_MAX = 30.0
"""From the end of the head to the end of the body."""

SMALL_BODY_BYTES_MAX = 16 * 1024
"""A body that needs no room of its own: a thousand connections hold no more than 16 MiB of these."""

BODIES_BYTES_MAX = 256 * 2**20
"""The larger bodies of all connections together: each is small enough, but a thousand of them are gigabytes."""

BODIES_PER_ADDRESS_BYTES_MAX = 64 * 2**20
"""Of these, those of one client address that is no trusted proxy: ten of the very largest, hundreds of the usual."""

FRAMING_BODY_DIVISOR = 8
FRAMING_BYTES_MAX = 64 * 1024
"""What chunk sizes and trailers may add to a body: this much, and an eighth of the body. So ten thousand chunks of any
size are fine, and beyond it chunks of some 50 bytes. Each costs a call, and in chunks of a byte or two a body would
cost a second of the processor. An empty line in a chunked body costs a call too, and counts as four bytes."""

QUERY_FIELDS_MAX = 100
"""Parameters of a query; we know two, and proxies add a few."""

PREFLIGHT_SECONDS = 600
"""How long a browser may remember what a preflight said; Chromium remembers at most 7,200."""

TOP_LIMIT_DEFAULT = 10
TOP_LIMIT_MAX = 50
"""Rows of GET /scoreboard/top; the live channel always has 10."""

AROUND_LIMIT_DEFAULT = 5
AROUND_LIMIT_MAX = 25
"""Neighbours on each side in GET /scores/{userId}/around."""

RECEIPT_READERS_MAX = 4
"""Receipts read from the log at once. Each may inflate a compressed segment: 16 MiB, and some 100 ms of a thread."""

RECEIPT_WAITERS_MAX = 64
"""Requests that wait for one of those; beyond it they are told to come back."""

# ---- tokens, keys and rates ------------------------------------------------------------------------------------------

TOKEN_CHARACTERS_MAX = 8 * 1024
"""A bearer token; larger ones are refused before anything is computed from them."""

TOKEN_LEEWAY_SECONDS = 30
"""RFC 8725 and common sense: clocks differ by seconds; a minute would be the most."""

TOKEN_TTL_SECONDS_MAX = 3_650 * 86_400
"""A token that we mint: ten years, for a slip of the pen. Whoever wants one for ever should not get it by accident."""

VERIFIED_TOKENS_MAX = 4_096
"""Verified tokens that are remembered, by digest."""

KEY_FILE_BYTES_MAX = 64 * 1024
"""A file with a key; the longest PEM of a key that makes sense has some 3 KB."""

JWKS_BYTES_MAX = 256 * 1024
"""The answer of a JWKS endpoint."""

JWKS_SECONDS_MAX = 5.0
"""One fetch of a JWKS, from start to end."""

JWKS_REFRESH_SECONDS = 3_600.0
"""Between two fetches that nothing asks for: so long may a key that its issuer withdrew still be good."""

JWKS_REFRESH_SECONDS_MIN = 30.0
"""Between two fetches that unknown key ids ask for: a flood of made-up key ids must not become a flood of fetches."""

JWKS_FIRST_RETRY_SECONDS = 1.0
"""After a fetch that failed; doubled from one to the next, up to JWKS_REFRESH_SECONDS_MIN."""

RATE_KEYS_MAX = 200_000
"""Callers or users whose recent rate is remembered at once; about 100 bytes each."""

# ---- the live channel ------------------------------------------------------------------------------------------------

RESERVED_FILES = 512
"""File descriptors kept free of viewers: log, snapshots, HTTP connections, threads. Viewers get what is left."""

VIEWER_READ_BYTES = 4 * 1024
"""What is read from a viewer at once; whoever sends more waits for the next turn with it."""

VIEWER_MESSAGE_BYTES_MAX = 4 * 1024
"""A frame from a viewer. Viewers have nothing to say but pings, pongs and close."""

VIEWER_SAYS_BYTES_MAX = 16 * 1024
"""What a viewer may send between two of our pings. A ping of the largest kind each second comes to a quarter of it; ten
viewers who send nothing but pings, as fast as they can, would otherwise make everybody else wait 60 times as long."""

VIEWER_PING_SECONDS = 25.0
"""Between pings; below the 30 to 60 seconds after which proxies drop silent connections."""

VIEWER_SILENCE_SECONDS_MAX = 60.0
"""A viewer that was not heard of for so long (two missed pongs) is dead."""

VIEWER_DRAIN_SECONDS_MAX = 15.0
"""A viewer whose socket stays full for so long is closed."""

VIEWER_CLOSE_SECONDS_MAX = 5.0
"""For a viewer to end the connection after a close frame."""

GOODBYE_PAUSE_SECONDS_MAX = 0.005
"""Between two close frames at the end: a few viewers need not be spread over all of the time."""

SLICE_VIEWERS = 256
"""Viewers between two checkpoints: 2 to 3 ms of writing. Every other task has its turn at a checkpoint, and under heavy
writes that is another batch of them: so the more slices there are, the longer the last viewers wait."""

SWEEP_SECONDS = 1.0
"""Between two looks at who is silent or wants a ping: both are told in tens of seconds."""

# ---- replication -----------------------------------------------------------------------------------------------------

SHARDS_MAX = 1_024
"""Shards of one leader: each is at least a process, and the leader filters for each of its followers."""

FOLLOWERS_MAX = 64
"""Links to followers at once. Each reads and is written to by itself; beyond that a relay costs the leader nothing."""

HEARTBEAT_SECONDS = 1.0
"""Between two heartbeats, and two positions: lag is told in seconds at the best, and a follower costs two messages."""

LINK_SILENCE_SECONDS_MAX = 10.0
"""A link on which nothing was heard for ten heartbeats is dead, though it be open."""

LINK_OPEN_SECONDS_MAX = 10.0
"""To connect, and to be let in or refused."""

LINK_CLOSE_SECONDS_MAX = 2.0
"""For the other side to answer a close; after it the connection is just cut."""

RECONNECT_SECONDS = 0.2
RECONNECT_SECONDS_MAX = 10.0
"""Before a follower comes again: at random between 0 and the first of these, doubled each time up to the second."""

LINK_LIVED_SECONDS = 30.0
"""A link that lived so long was a good one: the next attempt waits as little as the first one did."""

RING_BYTES = 8 * 2**20
"""The newest frames that are kept for followers at the end of the log: some seconds at full rate. Who is further behind
reads from the disk."""

SHIP_BYTES = 2**18
"""Frames that go to a follower in one write, if so many are ready; a longer frame goes alone."""

SHIP_SECONDS = 0.005
"""A write that was not full is followed by none for so long. Under load the leader makes a frame each millisecond; this
way a follower costs it 200 writes a second at the most, and a replica is still fresh within milliseconds."""

CATCH_UP_BYTES = 2**20
"""Read from the log at once for a follower that is behind: some milliseconds of a thread, and what it may hold."""

CATCH_UP_READERS_MAX = 4
"""Followers for whom the log is read at once: each holds a segment, 16 MiB."""

INTAKE_BYTES = 4 * 2**20
"""Received and not applied yet, on a follower; beyond it the leader waits. One frame more, whatever its length."""

FOLLOWER_MESSAGE_BYTES_MAX = 4 * 1024
"""A message from a follower, which has nothing to say but its position."""

NODE_URL_CHARACTERS_MAX = 512
"""The address of a node that another one tells: a host's name has at most 253, and a prefix is short."""

LINK_MESSAGES_MAX = 16
"""Messages between the WebSocket and whoever takes them: a few, so that neither waits for each turn of the other."""

MARKS_KEPT = 4
"""Checkpoints whose digests are remembered. They are minutes apart, so a follower that is further behind than these
compares at the next one."""

SNAPSHOT_STREAMS_MAX = 4
"""Snapshots that are sent at once; a new follower is told to come again."""

SNAPSHOT_PIECE_BYTES = 256 * 1024
"""Read from a snapshot at once while it is sent."""

SNAPSHOT_READ_SECONDS_MAX = 20.0
"""A download on which nothing came for so long is cut and resumed."""

DAMAGED_DOWNLOADS_MAX = 3
"""Downloads that do not verify, until it is not tried again: a bit may flip on the way, but not always."""

POSITION_WAITERS_MAX = 1_024
"""Reads that wait for a position (minSeq) at once; beyond it they are told at once that it is not here."""

STALE_HEARTBEATS = 3
"""Heartbeats that may be missing until what a replica serves is called stale: one lost is no news, three are."""

# ---- what is told ----------------------------------------------------------------------------------------------------

LOG_LINES_PER_SECOND = 20
"""Of one event that clients can cause: plenty to read, and less than 2 GB a day at the very worst."""

LOG_EVENT_KINDS_MAX = 100
"""Events that are counted apart for that; ours are some twenty, and constant names."""

LOG_TEXT_CHARACTERS_MAX = 2_000
"""A value in a line of the log. The longest that means something is a path with the longest ids, some 1,600."""

LOG_TRACE_CHARACTERS_MAX = 20_000
"""A stack in a line of the log."""

LOG_ITEMS_MAX = 100
"""Of a list or a table in a line of the log."""

LOG_DEPTH_MAX = 6
"""Of lists and tables in one another in a line of the log; what is deeper is shown as text."""

LABEL_VALUES_MAX = 32
"""Values of one label of a metric; ours are some twenty, and each is a series in Prometheus' memory."""

PATH_CHARACTERS_TOLD_MAX = 200
QUOTED_CHARACTERS_MAX = 128
"""What is repeated, to a log or to a caller, of what a client sent: enough to recognise it; an id fits."""

INTEGER_CHARACTERS_MAX = 40
"""An integer in the environment: the time that Python takes to read one grows with its length squared."""
