"""The messages of leader and follower on a replication link. Pure.

    follower                                             leader
       │  GET /replication/log?after=SEQ&epoch=E&checksum=HEX8&logId=HEX32[&shard=K/N][&leader=URL]     (an upgrade)
       ├───────────────────────────────────────────────────►│
       │◄──────────── welcome │ snapshot_needed │ diverged │ deposed │ behind ─────────────┤  all but welcome: the end
       │◄──────────── binary: a frame of the log (with a shard: filtered), in order ───────┤
       │◄──────────── heartbeat, at least every `heartbeatSeconds`, idle or busy ──────────┤
       │◄──────────── mark, exactly between the frames where a snapshot was taken ─────────┤
       │◄──────────── digest, when the digests of that state are computed ─────────────────┤
       ├── position, about as often as a heartbeat ────────►│

Rules:
- Binary messages are frames; text messages are JSON objects with a `type`. Unknown fields and unknown types are
  ignored, so either side may be the newer one.
- An epoch or a seq is checked here to be one that a log can have.
- The hello has the follower's durable position, or what it has applied if it keeps no log. An empty follower sends
  `after=0`. A follower that does not know the log yet leaves out `logId` and `checksum`.
- `leader` is the address of the leader of the hello's epoch. The new leader tells it to the old one, and relays pass it
  on. An ordinary follower leaves it out.
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import quote

import msgspec

from engine.limits import SEQ_MAX
from engine.record import LOG_ID_BYTES, Tail, chain_start
from server import bounds
from server.http.messages import invalid
from server.http.target import query_values
from server.replication.sharding import Shard, parse_shard
from server.settings.values import check_node_url
from snapshots.digests import StateDigests

LOG_PATH = "/replication/log"
LOG_TARGET = ("GET", LOG_PATH)
SNAPSHOT_PATH = "/replication/snapshot"
FORK_PATH = "/replication/fork"
PROMOTE_PATH = "/replication/promote"
SCOPE = "log:read"

_Seq = Annotated[int, msgspec.Meta(ge=0, le=SEQ_MAX)]
_Epoch = Annotated[int, msgspec.Meta(ge=1, le=SEQ_MAX)]
_LogId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$")]
_Checksum = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}$")]
_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}")
_HELLO_FIELDS = ("after", "epoch", "checksum", "logId", "shard", "leader")


class _Message(msgspec.Struct, frozen=True, rename="camel", tag_field="type"):
    pass


class Welcome(_Message, frozen=True, tag="welcome"):
    """The follower may follow: frames come next. `epoch` and `seq` are the leader's position, `log_id` is in hex.

    `token_key` and `token_key_id` are what `server.access.key_exchange` tells of the key that tokens are signed with.
    """

    log_id: _LogId
    epoch: _Epoch
    seq: _Seq
    heartbeat_seconds: Annotated[float, msgspec.Meta(gt=0)]
    node_name: str = ""
    public_url: str | None = None
    token_key: Annotated[str, msgspec.Meta(max_length=bounds.TOKEN_KEY_CHARACTERS_MAX)] | None = None
    token_key_id: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{16})?$")] | None = None


class Heartbeat(_Message, frozen=True, tag="heartbeat"):
    """The leader's position."""

    epoch: _Epoch
    seq: _Seq
    time_ms: int


class Mark(_Message, frozen=True, tag="mark"):
    """The leader captured its state exactly after this seq."""

    seq: _Seq


class Digest(_Message, frozen=True, tag="digest"):
    """The digests of the state at a mark."""

    seq: _Seq
    digests: StateDigests


class SnapshotNeeded(_Message, frozen=True, tag="snapshot_needed"):
    """The log after the position is no longer kept, or damaged. It goes on at `first_seq`."""

    reason: str
    first_seq: _Seq


class Diverged(_Message, frozen=True, tag="diverged"):
    """The follower's position is not in the leader's history."""

    reason: str


class Deposed(_Message, frozen=True, tag="deposed"):
    """A newer epoch than ours began, so the follower must not follow us. `leader` is its leader's address if known."""

    epoch: _Epoch
    leader: str | None = None


class Behind(_Message, frozen=True, tag="behind"):
    """We are a replica too, and not as far as the follower yet: try again."""

    seq: _Seq


class Position(_Message, frozen=True, tag="position"):
    """The follower's position. `durable`: on its own disk, not only applied."""

    epoch: _Epoch
    seq: _Seq
    durable: bool


FromLeader = Welcome | Heartbeat | Mark | Digest | SnapshotNeeded | Diverged | Deposed | Behind
_encoder = msgspec.json.Encoder()
_from_leader = msgspec.json.Decoder(FromLeader)
_from_follower = msgspec.json.Decoder(Position)
_type_of = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KNOWN = {"welcome", "heartbeat", "mark", "digest", "snapshot_needed", "diverged", "deposed", "behind"}


class MessageFault(ValueError):
    """The other side sent a message that is not valid here."""


class Hello(msgspec.Struct, frozen=True):
    """A follower's position and wishes. `log_id` and `checksum` are None for a follower that knows no log yet."""

    after: int
    epoch: int
    checksum: int | None
    log_id: bytes | None
    shard: Shard | None
    leader: str | None = None

    @property
    def query(self) -> str:
        fields = [f"after={self.after}", f"epoch={self.epoch}"]
        if self.checksum is not None and self.log_id is not None:
            fields += [f"checksum={self.checksum:08x}", f"logId={self.log_id.hex()}"]
        if self.shard is not None:
            fields.append(f"shard={self.shard}")
        if self.leader is not None:
            fields.append(f"leader={quote(self.leader, safe='')}")
        return "&".join(fields)


def hello_of(tail: Tail | None, shard: Shard | None, leader: str | None = None) -> Hello:
    """Make the hello of a follower at `tail`, None for a follower that knows no log yet."""
    if tail is None:
        return Hello(0, 1, None, None, shard, leader)
    return Hello(tail.seq, tail.epoch, tail.checksum, tail.log_id, shard, leader)


def parse_hello(query: str) -> Hello:
    """Read the query of a request for the log. Raises `Refused`."""
    values = query_values(query, _HELLO_FIELDS)
    after, epoch = _number(values, "after", 0), _number(values, "epoch", 1)
    checksum = _hex(values, "checksum", 4)
    log_id = _hex(values, "logId", LOG_ID_BYTES)
    if (checksum is None) != (log_id is None) or (log_id is None and (after, epoch) != (0, 1)):
        raise invalid("logId", "A position needs checksum and logId, which go together.")
    shard = None
    if "shard" in values:
        try:
            shard = parse_shard(values["shard"])
        except ValueError as error:
            raise invalid("shard", f"{str(error)[:1].upper()}{str(error)[1:]}.") from None
    number = None if checksum is None else int.from_bytes(checksum, "big")
    if after == 0 and log_id is not None and number != chain_start(log_id):
        raise invalid("checksum", "The checksum before the first event is that of the log id.")
    return Hello(after, epoch, number, log_id, shard, _leader(values))


def _leader(values: dict[str, str]) -> str | None:
    """Read the address of a leader. Clients and operators see it, so only an address is accepted."""
    url = values.get("leader")
    if url is None:
        return None
    if not 0 < len(url) <= bounds.NODE_URL_CHARACTERS_MAX:
        raise invalid("leader", f"leader must have 1 to {bounds.NODE_URL_CHARACTERS_MAX} characters.")
    try:
        check_node_url(url)
    except ValueError as error:
        raise invalid("leader", f"leader {error}.") from None
    return url


def _number(values: dict[str, str], name: str, least: int) -> int:
    text = values.get(name, "")
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= SEQ_MAX:
        raise invalid(name, f"{name} must be a whole number from {least} to {SEQ_MAX}.")
    return int(text)


def parse_epoch(query: str) -> int:
    """Read the query of a request for a fork. Raises `Refused`."""
    return _number(query_values(query, ("epoch",)), "epoch", 0)


def _hex(values: dict[str, str], name: str, length: int) -> bytes | None:
    text = values.get(name)
    if text is None:
        return None
    if not re.fullmatch(f"[0-9a-f]{{{2 * length}}}", text):
        raise invalid(name, f"{name} must be {2 * length} digits of hex, in lower case.")
    return bytes.fromhex(text)


def encode(message: msgspec.Struct) -> str:
    return _encoder.encode(message).decode()


def decode_from_leader(text: str) -> FromLeader | None:
    """Read a leader's message; None for an unknown type. Raises `MessageFault`."""
    try:
        kind = msgspec.json.decode(_type_of.decode(text).get("type", msgspec.Raw(b'""')))
        return None if isinstance(kind, str) and kind not in _KNOWN else _from_leader.decode(text)
    except (msgspec.MsgspecError, TypeError) as error:
        raise MessageFault(f"the leader sent a message that says nothing: {error}") from error


def decode_from_follower(text: str) -> Position:
    """Read a follower's message. Raises `MessageFault`."""
    try:
        return _from_follower.decode(text)
    except msgspec.MsgspecError as error:
        raise MessageFault(f"the follower sent a message that says nothing: {error}") from error


class Fork(msgspec.Struct, frozen=True, rename="camel"):
    """The answer of `FORK_PATH`: the last place of the history before a newer epoch began."""

    log_id: _LogId
    epoch: _Epoch
    seq: _Seq
    checksum: _Checksum

    @property
    def tail(self) -> Tail:
        return Tail(bytes.fromhex(self.log_id), self.epoch, self.seq, int(self.checksum, 16))


def fork_of(tail: Tail) -> Fork:
    return Fork(tail.log_id.hex(), tail.epoch, tail.seq, f"{tail.checksum:08x}")
