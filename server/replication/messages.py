"""The messages of leader and follower on a replication link. Pure.

    follower                                             leader
       │  GET /replication/log?after=SEQ&epoch=E&checksum=HEX8&logId=HEX32…     (an upgrade)
       ├───────────────────────────────────────────────────►│
       │◄────── welcome │ snapshot_needed │ diverged │ deposed │ behind │ no_leader ───────┤  all but welcome: the end
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
- The hello may go on with `&firstSeq=SEQ&history=HEX32`, the mark of its epoch (`engine.history`), with `&shard=K/N`
  and with `&leader=URL`. `leader` is the address of the leader of the hello's epoch. The new leader tells it to the old
  one, and relays pass it on. An ordinary follower leaves it out.
- Welcome and heartbeat have the mark of the sender's epoch. They also have the path from the sender to the leader, the
  sender first, and the age of the leader's last word at the sender. So each node knows its leader, and how old the word
  is, however many relays are between. A node that finds itself in the path follows itself.
- Marks, paths and ages are optional: older versions send none.
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import quote

import msgspec

from engine.history import HISTORY_BYTES, EpochMark
from engine.limits import SEQ_MAX
from engine.record import LOG_ID_BYTES, Tail, chain_start
from server import bounds
from server.http.messages import invalid
from server.http.target import query_values
from server.replication.sharding import Shard, parse_shard
from server.settings.values import check_node_url
from snapshots.digests import StateDigests
from snapshots.promotion import Successor, successor_of

LOG_PATH = "/replication/log"
LOG_TARGET = ("GET", LOG_PATH)
SNAPSHOT_PATH = "/replication/snapshot"
FORK_PATH = "/replication/fork"
PERIOD_PATH = "/replication/period"
ACTIONS_PATH = "/replication/actions"
PROMOTE_PATH = "/replication/promote"
SCOPE = "log:read"

_Seq = Annotated[int, msgspec.Meta(ge=0, le=SEQ_MAX)]
_Epoch = Annotated[int, msgspec.Meta(ge=1, le=SEQ_MAX)]
_LogId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$")]
_Checksum = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}$")]
_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}")
_HELLO_FIELDS = ("after", "epoch", "checksum", "logId", "firstSeq", "history", "shard", "leader")
_History = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?$")]


class _Message(msgspec.Struct, frozen=True, rename="camel", tag_field="type"):
    pass


class NodeRef(msgspec.Struct, frozen=True):
    """A node in a path: the id that its process drew, and a name for people."""

    id: Annotated[str, msgspec.Meta(max_length=bounds.NODE_ID_CHARACTERS_MAX)]
    name: Annotated[str, msgspec.Meta(max_length=bounds.NODE_URL_CHARACTERS_MAX)] = ""


Path = Annotated[tuple[NodeRef, ...], msgspec.Meta(max_length=bounds.PATH_NODES_MAX)]
"""Nodes, each of which follows the next one. The last one is the leader, if the path reaches it."""

_AgeMs = Annotated[int, msgspec.Meta(ge=0, le=SEQ_MAX)]


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
    first_seq: _Seq = 0
    history: _History = ""
    path: Path = ()
    age_ms: _AgeMs = 0
    token_key: Annotated[str, msgspec.Meta(max_length=bounds.TOKEN_KEY_CHARACTERS_MAX)] | None = None
    token_key_id: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{16})?$")] | None = None

    @property
    def mark(self) -> EpochMark:
        return EpochMark(self.epoch, self.first_seq, self.history)


class Heartbeat(_Message, frozen=True, tag="heartbeat"):
    """The sender's position. `leader_seq` is how far the leader's log reached when it was last heard."""

    epoch: _Epoch
    seq: _Seq
    time_ms: int
    first_seq: _Seq = 0
    history: _History = ""
    path: Path = ()
    age_ms: _AgeMs = 0
    leader_seq: _Seq = 0

    @property
    def mark(self) -> EpochMark:
        return EpochMark(self.epoch, self.first_seq, self.history)


class Mark(_Message, frozen=True, tag="mark"):
    """The leader captured its state exactly after this seq."""

    seq: _Seq


class Digest(_Message, frozen=True, tag="digest"):
    """The digests of the state at a mark."""

    seq: _Seq
    digests: StateDigests


class SnapshotNeeded(_Message, frozen=True, tag="snapshot_needed"):
    """The log after the position is no longer kept, damaged, or rewritten. It goes on at `first_seq`."""

    reason: str
    first_seq: _Seq


class Diverged(_Message, frozen=True, tag="diverged"):
    """The follower's position is not in our history. The mark is that of our epoch, `leader` our leader's address.

    So a leader that tells us of its epoch learns that ours outranks it.
    """

    reason: str
    epoch: _Epoch = 1
    first_seq: _Seq = 0
    history: _History = ""
    leader: str | None = None

    @property
    def successor(self) -> Successor:
        return Successor(self.epoch, self.leader, self.first_seq, self.history)


class Deposed(_Message, frozen=True, tag="deposed"):
    """An epoch began that outranks ours, so the follower must not follow us. `leader` is its leader's address if known.

    The rest is the mark of that epoch.
    """

    epoch: _Epoch
    leader: str | None = None
    first_seq: _Seq = 0
    history: _History = ""

    @property
    def successor(self) -> Successor:
        return Successor(self.epoch, self.leader, self.first_seq, self.history)


class Behind(_Message, frozen=True, tag="behind"):
    """We are a replica too, and not as far as the follower yet: try again."""

    seq: _Seq


class NoLeader(_Message, frozen=True, tag="no_leader"):
    """We are a replica too, and can't be followed: try again. `path` begins with us, and goes as far as we know."""

    reason: str
    path: Path = ()


class Position(_Message, frozen=True, tag="position"):
    """The follower's position. `durable`: on its own disk, not only applied."""

    epoch: _Epoch
    seq: _Seq
    durable: bool


FromLeader = Welcome | Heartbeat | Mark | Digest | SnapshotNeeded | Diverged | Deposed | Behind | NoLeader
_encoder = msgspec.json.Encoder()
_from_leader = msgspec.json.Decoder(FromLeader)
_from_follower = msgspec.json.Decoder(Position)
_type_of = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KNOWN = {"welcome", "heartbeat", "mark", "digest", "snapshot_needed", "diverged", "deposed", "behind", "no_leader"}


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
    first_seq: int = 0
    history: str = ""

    @property
    def mark(self) -> EpochMark:
        return EpochMark(self.epoch, self.first_seq, self.history)

    @property
    def successor(self) -> Successor:
        """Say who succeeds a node that this hello deposes."""
        return successor_of(self.mark, self.leader)

    @property
    def query(self) -> str:
        fields = [f"after={self.after}", f"epoch={self.epoch}"]
        if self.checksum is not None and self.log_id is not None:
            fields += [f"checksum={self.checksum:08x}", f"logId={self.log_id.hex()}"]
            if self.history:
                fields += [f"firstSeq={self.first_seq}", f"history={self.history}"]
        if self.shard is not None:
            fields.append(f"shard={self.shard}")
        if self.leader is not None:
            fields.append(f"leader={quote(self.leader, safe='')}")
        return "&".join(fields)


def hello_of(tail: Tail | None, shard: Shard | None, leader: str | None = None, mark: EpochMark | None = None) -> Hello:
    """Make the hello of a follower at `tail`, None for a follower that knows no log yet. `mark` is of its epoch."""
    if tail is None:
        return Hello(0, 1, None, None, shard, leader)
    hello = Hello(tail.seq, tail.epoch, tail.checksum, tail.log_id, shard, leader)
    if mark is None:
        return hello
    assert mark.epoch == tail.epoch, "a position has the mark of its own epoch"
    return msgspec.structs.replace(hello, first_seq=mark.first_seq, history=mark.history)


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
    mark = _mark(values, epoch)
    return Hello(after, epoch, number, log_id, shard, _leader(values), mark.first_seq, mark.history)


def _mark(values: dict[str, str], epoch: int) -> EpochMark:
    """Read the mark of a hello, which older versions leave out."""
    history = _hex(values, "history", HISTORY_BYTES)
    if history is None:
        return EpochMark(epoch)
    if "logId" not in values:
        raise invalid("history", "A history goes with the logId of a position.")
    return EpochMark(epoch, _number(values, "firstSeq", 1), history.hex())


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


class ForkQuestion(msgspec.Struct, frozen=True):
    """Where does your history leave ours, which has this epoch? `before`: ours leaves the epoch before this seq.

    `history` is the identity of the epoch, "" for an asker that does not compare it.
    """

    epoch: int
    history: str = ""
    before: int | None = None

    @property
    def query(self) -> str:
        fields = [f"epoch={self.epoch}"]
        if self.history:
            fields.append(f"history={self.history}")
        if self.before is not None:
            fields.append(f"before={self.before}")
        return "&".join(fields)


def parse_fork(query: str) -> ForkQuestion:
    """Read the query of a request for a fork. Raises `Refused`."""
    values = query_values(query, ("epoch", "history", "before"))
    history = _hex(values, "history", HISTORY_BYTES)
    before = _number(values, "before", 1) if "before" in values else None
    return ForkQuestion(_number(values, "epoch", 0), "" if history is None else history.hex(), before)


def parse_period(query: str) -> int:
    """Read the query of a request for the file of a past period: its seq. Raises `Refused`."""
    return _number(query_values(query, ("seq",)), "seq", 1)


def parse_actions(query: str) -> str:
    """Read the query of a request for a file of older actions: its name, which is not checked. Raises `Refused`."""
    name = query_values(query, ("name",)).get("name", "")
    if not name:
        raise invalid("name", "name must be that of a file of older actions.")
    return name


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
