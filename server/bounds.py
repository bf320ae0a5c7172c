"""Every bound of the server, with the reason for its number. The engine's bounds are in `engine.limits`.

These keep the process safe. What an operator may want to change is in the configuration instead.
"""

from __future__ import annotations

from engine.limits import SEGMENT_BYTES

# ---- connections -----------------------------------------------------------------------------------------------------

LISTEN_BACKLOG = 4_096
"""Connections that the kernel holds until we accept them: many reconnecting viewers overrun the usual 100."""

ACCEPT_PAUSE_SECONDS = 0.1
NO_FILES_TOLD_SECONDS = 60.0
"""While the kernel has no file for a connection: from one try to the next, and from one log line to the next."""

CONNECTIONS_PER_ADDRESS_MAX = 1_024
"""Connections of one client address in all lanes. A trusted proxy has no bound: it stands for many clients."""

LISTENER_RESERVED_FILES = 128
"""Files kept free of connections: for log, snapshots, threads, listeners, and for refusing connections."""

TURNED_AWAY_MAX = 32
"""Connections over the limit that get a refusal, at the same time. Further ones are just closed."""

RECEIVE_BYTES = 64 * 1024
"""One read from a connection. A large body takes few reads, and a thousand clients hold at most 64 MiB."""

SEND_BYTES = 64 * 1024
SEND_SECONDS_MAX = 20.0
"""One write to a connection, and its time. A client with less than 26 kbit/s, or one that does not read, is cut off."""

IDLE_SECONDS_MAX = 75.0
"""Between connecting, or the end of an answer, and the first byte of the next request. Load balancers keep an idle
connection for 60 s, and must be the first to close it: they lose a request that they send while we close. This and the
deadlines of a write, a head and a body are the defaults of `[http]`."""

EXPRESS_EVENTS_MAX = 512
EXPRESS_SWEEP_SECONDS = 1.0
"""Connections that the express loop reads before other tasks run, some 10 ms of work; and the time between two of its
checks for idle connections."""

HEADS_MAX = 4_096
HEAD_REMEMBERED_BYTES_MAX = 4 * 1024
"""Remembered heads of requests, about 1 KiB each, and the longest of them with its token: with HEAD_BYTES_MAX they
could take 100 MiB. When there are more, all are forgotten, which only costs time."""

LINGER_SECONDS_MAX = 2.0
LINGER_BYTES_MAX = 8 * 2**20
"""For the client to read the last answer and close. What it still sends is dropped, up to more than BODY_BYTES_MAX: a
client in the middle of a refused body should see the refusal."""

STARTUP_SECONDS_MAX = 60.0
"""For the ASGI application to start, and again to stop."""

DRAIN_SECONDS_MAX = 10.0
"""On SIGTERM: to answer the requests in flight, and to close the viewers, spread over this time."""

CUT_SECONDS_MAX = 1.0
"""For the tasks of cut connections to end. They have nothing to wait for, so none should need it."""

MANAGER_PROGRESS_SECONDS = 1.0
MANAGER_EXTENSION_USEC = 60_000_000
"""For the service manager: the time between two words of progress, and the time that each of them asks for. A minute is
far longer than any step of a recovery."""

YOUNG_OBJECTS_MAX = 50_000
"""New objects until Python's garbage collector checks them. A batch of a thousand has ten thousand in use at once: the
usual 700 would check them a dozen times in vain."""

RETRY_AFTER_SECONDS = 1
"""The Retry-After of an overloaded server."""

# ---- the disk --------------------------------------------------------------------------------------------------------

STORAGE_LOOK_SECONDS = 1.0
"""Between two looks whether the data directory is still ours. Until a look, two leaders could write: keep it short."""

LOCK_MISSING_SECONDS = 3 * STORAGE_LOOK_SECONDS
"""The wait of a start that finds a log without a lock: a process that lost the lock must have noticed by its end."""

DISK_LOW_BYTES = 4 * SEGMENT_BYTES
"""Less than this is told: the log and the next snapshot need it soon."""

DISK_FULL_RETRY_SECONDS = 5
"""The Retry-After while the disk is full, and the time between two attempts of what waits for room."""

EXPORTS_MAX, EXPORTS_PER_ADDRESS_MAX = 4, 2
EXPORT_SECONDS_MAX = 600.0
EXPORT_PART_ROWS = 100
"""Exports over HTTP that go on at once, in all and for one client: each holds 32 bytes a user. How long one may take: a
million rows are some 60 MB, so 1 Mbit/s is enough. And the rows that are made at once, half a millisecond of work."""

PAST_WAITERS_MAX = 8
PAST_SECONDS_MAX = 120.0
PAST_IDLE_SECONDS = 60.0
PAST_KEPT_MAX = 256
PAST_KEPT_SECONDS = 60.0
"""Questions about the past that wait for their turn, and the time of one: some ten million events without a snapshot.
How long the idle process that reads it is kept; answers that are kept, of some 30 KB at most, and how long."""

REVEAL_STEP_MAX = 1_000
"""Rows of one reveal: a screen of them takes a few milliseconds."""

IMPORT_PIECE_ROWS_MAX, IMPORT_PIECES_WAITING_MAX = 1_000, 8
"""Rows of an import in one request: 20 ms of the writer, in which others wait. With 2,000 they wait twice as long, and
the import gains half (`bench.imports_http`). And requests that wait for one."""

REVERSAL_ACTIONS_MAX, REVERSALS_WAITING_MAX = 10_000, 8
"""Actions of a reversal: that many scores stop the loop for some tenth of a second. And reversals that wait for one."""

PERIOD_READERS_MAX, PERIOD_WAITERS_MAX = 4, 200
"""Readings of past periods at once, and those that wait for a thread. One takes less than a millisecond."""

PERIOD_FETCH_SECONDS = 60.0
"""The time between two attempts to get the files of past periods that a node lacks."""

# ---- requests --------------------------------------------------------------------------------------------------------

HEAD_BYTES_MAX = 16 * 1024
"""Request line and headers together, as in h11 and most proxies. Beyond it: 431."""

BODY_BYTES_MAX = 13 * 2**19
"""A request body, 6.5 MiB: 1,000 increments of four ids of 128 characters are 6.2 MB if each character is escaped as 12
bytes (an emoji is two \\uXXXX). Beyond it: 413."""

HEAD_SECONDS_MAX = 10.0
BODY_SECONDS_MAX = 30.0
"""From the first byte of a request to the end of its head, and from there to the end of the body."""

SMALL_BODY_BYTES_MAX = 16 * 1024
"""A body that is not counted in BODIES_BYTES_MAX: a thousand connections hold at most 16 MiB of these."""

BODIES_BYTES_MAX = 256 * 2**20
BODIES_PER_ADDRESS_BYTES_MAX = 64 * 2**20
"""The larger bodies of all connections together, and of one client address that is no trusted proxy: ten of the largest
size, hundreds of the usual one."""

FRAMING_BODY_DIVISOR = 8
FRAMING_BYTES_MAX = 64 * 1024
"""What chunk sizes and trailers may add to a body: this much, and an eighth of the body. Each chunk costs a call, so a
body in chunks of a byte or two would cost a second of the processor. Ten thousand chunks of any size are fine, and
beyond them chunks of some 50 bytes. An empty line costs a call too, and counts as four bytes."""

QUERY_FIELDS_MAX = 100
"""Parameters of a query. Ours are four, and proxies add a few."""

PREFLIGHT_HEADERS_CHARACTERS_MAX = 1_024
"""The list of headers in a preflight that is sent back: tracing and a few more need some 200."""

PREFLIGHT_SECONDS = 600
"""How long a browser may remember a preflight; Chromium has at most 7,200."""

TOP_LIMIT_DEFAULT = 10
TOP_LIMIT_MAX = 50
"""Rows of GET /scoreboard/top. The live channel always has 10."""

AROUND_LIMIT_DEFAULT = 5
AROUND_LIMIT_MAX = 25
"""Neighbours on each side in GET /scores/{userId}/around."""

LIST_LIMIT_DEFAULT = 100
LIST_LIMIT_MAX = 1_000
"""Rows of a page of GET /scoreboard: some ms of work."""

BOARDS_MAX = 10_000
"""Boards that there can be, closed ones too: GET /boards lists them in one answer, and each user that is put visits
all of them."""

QUERY_USERS_MAX = 1_000
"""Users of POST /scores/query."""

WALKS_MAX = 8
WALK_SHARED_SECONDS = 1.0
WALK_IDLE_SECONDS = 60.0
"""Orders of boards that are pinned for walks (`engine.pinned`), at most 80 MB; how long new walks share one, and how
long one waits for the next page."""

RECEIPT_READERS_MAX, RECEIPT_WAITERS_MAX = 4, 64
"""Receipts that are read from the log at once, and requests that wait for that; others get 503. Each read may inflate a
compressed segment: 16 MiB, and some 100 ms of a thread."""

# ---- tokens, keys and rates ------------------------------------------------------------------------------------------

TOKEN_CHARACTERS_MAX = 8 * 1024
"""A bearer token. A longer one is refused before any work on it."""

TOKEN_LEEWAY_SECONDS = 30
"""Clocks differ by seconds; a minute would be the most."""

LEASE_GRACE_SECONDS = 25
"""From `exp` of a token to the end of a connection that it has opened: within the leeway, with a sweep and a close."""

LEASE_CHECK_SECONDS = 1.0
"""Between two looks whether the token of a link is still good."""

TOKEN_TTL_SECONDS_MAX = 3_650 * 86_400
"""A token, ten years: a typing mistake must not make a token for ever, and no issuer means a longer time. A number that
is further ahead is in milliseconds."""

VERIFIED_TOKENS_MAX = 4_096
"""Verified tokens that are remembered."""

KEY_FILE_BYTES_MAX = 64 * 1024
"""A file with a key. The longest useful PEM has some 3 KB."""

TOKEN_KEY_CHARACTERS_MAX = 1_024
"""A public key that a leader tells. In PEM form an Ed25519 key has 113."""

JWKS_BYTES_MAX = 256 * 1024
JWKS_SECONDS_MAX = 5.0
"""One fetch of a JWKS: its answer, and its time from start to end."""

JWKS_REFRESH_SECONDS = 3_600.0
"""Between two regular fetches. A withdrawn key is accepted for up to this time."""

JWKS_REFRESH_SECONDS_MIN = 30.0
"""Between two fetches for unknown keys: a flood of invented key ids must not become a flood of fetches."""

JWKS_REDIRECTS_MAX = 3
"""Redirects within the issuer's host: one for a slash at the end, one for a new path, one to spare."""

JWKS_TRIES_MAX = 8
"""Keys that are tried for a token without a key id, each some 0.1 ms. Issuers have two or three of an algorithm."""

JWKS_FIRST_RETRY_SECONDS = 1.0
"""After a failed fetch; doubled each time, up to JWKS_REFRESH_SECONDS_MIN."""

RATE_KEYS_MAX = 200_000
"""Callers or users whose recent rate is remembered; about 100 bytes each."""

# ---- the live channel ------------------------------------------------------------------------------------------------

RESERVED_FILES = 512
"""Files kept free of viewers: for log, snapshots, HTTP connections, threads."""

VIEWER_READ_BYTES = 4 * 1024
VIEWER_MESSAGE_BYTES_MAX = 4 * 1024
"""One read from a viewer, and one message. Viewers send pings, pongs, close, and subscriptions: two ids of 128
characters that are escaped as emoji are 3 KB."""

VIEWER_SAYS_BYTES_MAX = 16 * 1024
"""What a viewer may send between two of our pings: four times as much as a ping of the largest size each second.
Without it, ten viewers that ping as fast as they can make all others wait 60 times as long."""

SUBSCRIPTIONS_PER_VIEWER_MAX = 8
SUBSCRIPTIONS_MAX = 20_000
"""Users whose places one viewer is told: its own on several boards. And all of them: as many as there are viewers. Each
takes 1 KB. A change of its user's place costs some 25 µs, up to 80 if ten are named who passed. Any other change of the
board costs 10."""

SLICE_SUBSCRIPTIONS = 32
"""Subscriptions, and viewers who are heard, between two checkpoints: 2 to 3 ms of looking and writing."""

OVERTAKEN_MAX = 10
"""Users who are named as having overtaken another. If there are more, the message says so."""

MOVES_MAX = 16_384
"""Changed keys of one board that are remembered from one tick to the next: 5 MB, and some 25 ms of sorting. That is
twice what single increments change in 250 ms. Viewers whose sockets are full need older ones too, and get up to half of
the room."""

REPLIES_MAX = 16
"""Refusals of messages that a viewer is still to be sent. Further ones are dropped until it reads."""

VIEWER_PING_SECONDS = 25.0
"""Between pings. Proxies drop silent connections after 30 to 60 seconds."""

VIEWER_SILENCE_SECONDS_MAX = 60.0
VIEWER_DRAIN_SECONDS_MAX = 15.0
"""A viewer is closed when it is silent (two missed pongs), or its socket is full, for this long."""

VIEWER_CLOSE_SECONDS_MAX = 5.0
"""For a viewer to end the connection after a close frame."""

GOODBYE_PAUSE_SECONDS_MAX = 0.005
"""Between two close frames on shutdown: a few viewers need not take all of DRAIN_SECONDS_MAX."""

SLICE_VIEWERS = 512
"""Viewers between two checkpoints: some 3 ms of writing. At a checkpoint the other tasks run, and under load that is
another batch of writes: the more slices there are, the longer the last viewers wait."""

SWEEP_SECONDS = 1.0
"""Between two checks for silent viewers and due pings: both take tens of seconds."""

# ---- replication -----------------------------------------------------------------------------------------------------

SHARDS_MAX = 1_024
"""Shards of one leader. Each is at least a process, and the leader filters the log for each follower."""

FOLLOWERS_MAX = 64
"""Links to followers at once. For more, replicas relay to others at no cost to the leader."""

HEARTBEAT_SECONDS = 1.0
"""Between two heartbeats, and between two positions of a follower. Lag in seconds is exact enough."""

NOTIFY_AGAIN_HEARTBEATS = 5
"""Heartbeats between two times that a promoted leader asks the node that it followed for an epoch that outranks its
own. Two promotions at once are rare, and a question is one short link."""

WAITING_AFTER_SECONDS = 2.0
"""A new replica listens after this time, or the first failed attempt, if it still has no log: probes do not wait."""

REFUSAL_BYTES_MAX = 64 * 1024
"""The body of a refusal that a new replica reads: some hundred bytes, and a path."""

PATH_NODES_MAX = 16
"""Nodes in the path from a follower to its leader. A tree of relays is rarely deeper than three."""

NODE_ID_CHARACTERS_MAX = 64
"""The id of a node's process on links. Ours have 16."""

LINK_SILENCE_SECONDS_MAX = 10.0
"""A link that was silent for ten heartbeats is dead, even if it is open."""

LINK_OPEN_SECONDS_MAX = 10.0
LINK_CLOSE_SECONDS_MAX = 2.0
"""For a link to connect and to be accepted or refused, and for the other side to answer a close."""

RECONNECT_SECONDS = 0.2
RECONNECT_SECONDS_MAX = 10.0
"""Before a follower reconnects: at random between 0 and the first of these, doubled each time up to the second."""

LINK_LIVED_SECONDS = 30.0
"""After a link of this age the next attempt waits as little as the first one did."""

RING_BYTES = 8 * 2**20
"""The newest frames, kept in memory for followers: some seconds at full rate. Older ones are read from the disk."""

SHIP_BYTES = 2**18
"""Frames in one write to a follower. A longer frame goes alone."""

SHIP_SECONDS = 0.005
"""The pause after a write that was not full. Under load the leader makes a frame each millisecond. So a follower costs
at most 200 writes a second, and a replica is fresh within milliseconds."""

CATCH_UP_BYTES, CATCH_UP_READERS_MAX = 2**20, 4
"""One read from the log for a follower that is behind, some milliseconds of a thread; and how many followers read at
once, because each holds a segment, 16 MiB."""

INTAKE_BYTES = 4 * 2**20
"""What a follower has received and not applied, and one frame more of any length. Beyond it the leader waits."""

FOLLOWER_MESSAGE_BYTES_MAX = 4 * 1024
"""A message from a follower, which only tells its position."""

NODE_URL_CHARACTERS_MAX = 512
"""The address that a node tells another one: a host name has at most 253 characters, and a prefix is short."""

LINK_MESSAGES_MAX = 16
"""Messages between the WebSocket and its reader: a few, so that neither waits for each step of the other."""

MARKS_KEPT = 4
"""Checkpoints whose digests are kept. They are minutes apart; a follower further behind compares at the next one."""

SNAPSHOT_STREAMS_MAX = 4
SNAPSHOT_PIECE_BYTES = 256 * 1024
"""Snapshots that are sent at once, and one read from each. A further follower is told to retry."""

SNAPSHOT_READ_SECONDS_MAX = 20.0
"""A download that was silent for this long is cut and resumed."""

DAMAGED_DOWNLOADS_MAX = 3
"""Damaged downloads in a row until the follower gives up: a bit may flip on the way, but not each time."""

POSITION_WAITERS_MAX = 1_024
"""Reads that wait for a position (minSeq) at once. Others are refused at once."""

STALE_HEARTBEATS = 3
"""Missing heartbeats until a replica calls its answers stale: one lost heartbeat is normal, three are not."""

# ---- logs and metrics ------------------------------------------------------------------------------------------------

LOG_LINES_PER_SECOND = 20
LOG_EVENT_KINDS_MAX = 100
"""Lines of one event that clients can cause, less than 2 GB a day at worst; and the number of events: ours are some
twenty constant names."""

LOG_TEXT_CHARACTERS_MAX = 2_000
"""A value in a log line. The longest useful one is a path with the longest ids, some 1,600."""

LOG_TRACE_CHARACTERS_MAX = 20_000
LOG_ITEMS_MAX = 100
LOG_DEPTH_MAX = 6
"""A stack in a log line; the items of a list or table, and the levels of nested ones. A deeper one becomes text."""

LABEL_VALUES_MAX = 32
"""Values of one label of a metric. Ours are some twenty, and each is a series in Prometheus' memory."""

PATH_CHARACTERS_TOLD_MAX = 200
QUOTED_CHARACTERS_MAX = 128
"""What a log or an answer repeats of a client's text: enough to recognise it. An id fits."""

REASON_CHARACTERS_TOLD_MAX = 300
"""Why a replica has no link, in the answer of /readyz. Parts of it are the leader's words."""

INTEGER_CHARACTERS_MAX = 40
"""An integer in the environment: Python's time to read one grows with the square of its length."""
