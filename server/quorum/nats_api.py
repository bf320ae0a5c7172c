"""The API of JetStream as far as a quorum uses it: names, requests, answers, and what its errors mean. Pure.

    answer = read_answer(message.payload, StreamInfo)       # the answer, or raises what the error means

    $JS.API.STREAM.INFO.NAME       {}                  settings, ends, the group of servers
    $JS.API.STREAM.MSG.GET.NAME    {"seq": 7}          one message, from the leader of the stream
    $JS.API.STREAM.PURGE.NAME      {"seq": 7}          removes what is before it
    $JS.API.STREAM.CREATE|UPDATE|DELETE.NAME           settings
    scoreboard.NAME.log, scoreboard.NAME.beat          what the two streams take

An error has an HTTP-like `code` and an `err_code`, which says exactly what. Three kinds matter:

- `WRONG_LAST`: another message stands where ours was to stand, or is on its way there. The caller finds out which.
- A person must mend it: `StreamRefused`, with the setting and what to do.
- Anything else may pass, or may have been done after all: `Unanswered`. A full disk is among them, because a purge by
  the leader makes room.

Source: server/errors.json of nats-server 2.15.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from engine.errors import ScoreboardError
from server.quorum.stream import StreamRefused, Unanswered

EXPECTED_LAST = "Nats-Expected-Last-Sequence"
EXPECTED_STREAM = "Nats-Expected-Stream"

WRONG_LAST = frozenset({10071, 10164})
NO_MESSAGE = 10037
NO_STREAM = 10059
SEALED = 10109
NO_PEERS = frozenset({10005, 10074})

_REFUSED: dict[int, tuple[str, str]] = {
    NO_STREAM: ("quorum.stream", "Make it: scoreboard quorum init."),
    10003: ("version", "Check the version of nats-server."),
    10025: ("version", "Check the version of nats-server."),
    10039: ("jetstream", "Enable JetStream for the account in nats-server.conf: jetstream: enabled."),
    10054: ("max_msg_size", "Set it to -1: nats stream edit {stream} --max-msg-size=-1."),
    10056: ("quorum.stream", "Another stream answers in its place."),
    10058: ("quorum.stream", "Name another stream, or remove that one: nats stream rm {stream}."),
    10060: ("quorum.stream", "Another stream takes its subject: nats stream ls --subject scoreboard.{stream}.log."),
    10065: ("quorum.stream", "Another stream takes its subject: nats stream ls --subject scoreboard.{stream}.log."),
    10074: ("cluster", "Join three servers in a cluster: a cluster block in each nats-server.conf."),
    10076: ("jetstream", "Enable JetStream in nats-server.conf: jetstream {{ store_dir: … }}."),
    10096: ("quorum.stream", "Look at the log of nats-server."),
    SEALED: ("sealed", "It was exported for good, or sealed by hand. Nothing can be written to it any more."),
    10110: ("deny_purge", "It can be set only when the stream is made: scoreboard quorum init makes it anew."),
}
"""Errors that a person must mend: the setting, and what to do. Others with a code from 500 on may pass."""

_FULL = frozenset({10002, 10023, 10028, 10047, 10077})
"""The servers have no room. A purge makes some, or a person: max_file_store, or a larger disk."""

_WRONG_LAST_TEXT = re.compile(r"wrong last sequence: (\d+)")

Answer = TypeVar("Answer", bound=msgspec.Struct)


class ApiError(msgspec.Struct, frozen=True):
    """What JetStream says instead of an answer."""

    code: int = 0
    err_code: int = 0
    description: str = ""

    @property
    def wrong_last(self) -> int | None:
        """The newest place that a server knew of when it refused ours, if it says so."""
        found = _WRONG_LAST_TEXT.search(self.description)
        return int(found[1]) if found else None


class ApiFault(ScoreboardError):
    """An error whose meaning depends on what was asked. `read_answer` raises it for those that it is told of."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(f"{error.description} ({error.err_code})")
        self.error = error


class Placed(msgspec.Struct, frozen=True):
    """The acknowledgement of a message: a majority has it at place `seq`."""

    stream: str
    seq: int
    duplicate: bool = False


class StoredMessage(msgspec.Struct, frozen=True):
    """A message of a stream. msgspec reads `data` from base64."""

    subject: str
    seq: int
    data: bytes = b""


class StoredAnswer(msgspec.Struct, frozen=True):
    message: StoredMessage


class State(msgspec.Struct, frozen=True):
    """The ends of a stream. An empty one has `first_seq == last_seq + 1`, or 0 and 0 if it never held anything."""

    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    num_deleted: int = 0


class Peer(msgspec.Struct, frozen=True):
    """Another server of a stream. `active`: nanoseconds since it was heard. `lag`: entries that it is behind."""

    name: str
    current: bool = False
    offline: bool = False
    active: int = 0
    lag: int = 0


class Group(msgspec.Struct, frozen=True):
    """The servers of a stream. `leader` may be an old one if there is no quorum, and is empty during an election."""

    name: str = ""
    leader: str = ""
    replicas: list[Peer] = []


class StreamInfo(msgspec.Struct, frozen=True):
    """All about a stream. `config` is as the server has it."""

    config: dict[str, Any]
    state: State
    created: str = ""
    cluster: Group = Group()


class Purged(msgspec.Struct, frozen=True):
    success: bool = False
    purged: int = 0


class AccountInfo(msgspec.Struct, frozen=True):
    """That JetStream is there for our account."""

    streams: int = 0


class _Errors(msgspec.Struct, frozen=True):
    error: ApiError | None = None


def log_subject(stream: str) -> str:
    return f"scoreboard.{stream}.log"


def beat_subject(stream: str) -> str:
    return f"scoreboard.{stream}.beat"


def word_subject(stream: str) -> str:
    return f"scoreboard.{stream}.word"


def beat_stream(stream: str) -> str:
    """The name of the small stream beside the log's: it takes beats, and keeps the last one in memory."""
    return f"{stream}_BEAT"


def read_answer(payload: bytes, kind: type[Answer], *, stream: str, told: frozenset[int] = frozenset()) -> Answer:
    """Read an answer. Raises `ApiFault` for the errors in `told`, and `StreamRefused` or `Unanswered` for others."""
    try:
        error = msgspec.json.decode(payload, type=_Errors).error
        if error is None:
            return msgspec.json.decode(payload, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
        raise StreamRefused(f"the stream {stream} gave an answer that is none of JetStream: {fault}.") from fault
    if error.err_code in told:
        raise ApiFault(error)
    raise meaning(error, stream=stream)


def meaning(error: ApiError, *, stream: str) -> StreamRefused | Unanswered:
    """Give what an error means for whoever asked."""
    said = f"the stream {stream}: {error.description} ({error.err_code})"
    if error.err_code in _REFUSED:
        key, remedy = _REFUSED[error.err_code]
        return StreamRefused(f"{said}.", key=key, remedy=remedy.format(stream=stream))
    if error.err_code in _FULL:
        return Unanswered(f"{said}; the servers need room, on their disks or in max_file_store of nats-server.conf")
    return Unanswered(said) if error.code >= 500 or error.code == 429 else StreamRefused(f"{said}.")


def sequence_request(seq: int) -> bytes:
    """Ask for one place, or up to one place."""
    return b'{"seq":%d}' % seq
