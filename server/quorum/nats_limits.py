"""The bounds of what a node and the servers of NATS say to each other, by name, each with its reason. Pure."""

from __future__ import annotations

from engine.limits import FRAME_BYTES_MAX
from engine.record import HEADER_BYTES

# ---- what the servers send -------------------------------------------------------------------------------------------

LINE_BYTES_MAX = 64 * 1024
"""A line of the protocol. INFO lists the addresses of the cluster; the other lines have a few hundred bytes."""

HEADERS_BYTES_MAX = 64 * 1024
"""The headers of a message: the server refuses longer ones in JetStream itself."""

MESSAGE_BYTES_MAX = (FRAME_BYTES_MAX + HEADER_BYTES) * 4 // 3 + 128 * 1024
"""A message with its headers: the longest frame in base64, as an answer of the API holds it, and what stands around."""

RECEIVE_BYTES = 256 * 1024
"""One read from the connection."""

# ---- the connection --------------------------------------------------------------------------------------------------

CONNECT_SECONDS = 2.0
"""To connect to one server, with TLS, until it answers a PING: a server that is there needs some milliseconds."""

QUIET_SECONDS = 1.0
SILENCE_SECONDS = 2.0
"""A connection that brought nothing for this long is asked by a PING. One that brings nothing for so long after that is
dead: a standby has to hear the leader again before it takes over, which it does after 3 s."""

UNANSWERED_MAX = 2
UNANSWERED_SECONDS = 0.5
UNANSWERED_FORGOTTEN_SECONDS = 10.0
"""Requests in a row without an answer, and how long that lasts: then another server is asked, because this one may be
cut off from the others. A server answers at once that it cannot, so a number alone would be reached at once, too. And
after how long one request without an answer has nothing to do with the next."""

RETRY_SECONDS = 0.1
RETRY_SECONDS_MAX = 2.0
"""The bound of the random wait after a round of all servers in vain, doubled each time up to the second. A quorum that
is back should have its nodes back soon."""

OUTBOX_BYTES_MAX = 64 * 2**20
"""What waits to be sent. One frame is in flight, and a frame that got no answer is sent again, twice. More waits only
if the server does not read, and then the connection is cut."""

SAY_BYTES_MAX = 256 * 1024
"""A word that needs no answer is dropped while more than this waits to be sent."""

WORDS_MAX = 256
"""Words that wait for `hear`: a minute of those of three nodes. Older ones are dropped."""

# ---- the stream ------------------------------------------------------------------------------------------------------

READ_SECONDS = 1.0
"""For the answer to a read. It is short, because a standby notices by its reads that a stream has a leader again."""

API_SECONDS = 2.0
"""For an answer of JetStream's API. While a stream elects a leader it gives none, and the asker asks again."""

OPEN_SECONDS = 10.0
"""To open the stream: the time in which a stream has a leader again after a machine died, and a little more."""

READ_REQUESTS_MAX = 256
READ_AHEAD_BYTES = 4 * 2**20
"""Frames that are asked for at the same time: so many, and so many bytes of them as the last one was long. With 64
requests a node read half as many short frames a second."""

READ_BYTES_MAX = 16 * 2**20
"""Frames of one `read`, and one frame more of any length."""

FRAME_WANTED_BYTES = 4 * 2**20
"""What each server must take as one message (`max_payload`): a frame of 4,096 events with ids of usual length has less
than 1 MiB, and one with the longest ids that anybody uses has less than 4."""
