"""The answers of GET /quorum and POST /quorum/step-down. Pure."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from server.api.answers import Epoch, SeqOrNone

Place = Annotated[int, Meta(ge=0, description="A place on the stream; each holds one frame of the log. 0: none yet")]
Lag = Annotated[int, Meta(ge=0, description="Events that the node that tells this has, and the other has not")]
HeardMs = Annotated[int, Meta(ge=0, description="Since the node was heard last")]
Count = Annotated[int, Meta(ge=0, description="Since the start of this node")]


class QuorumLeader(msgspec.Struct, frozen=True):
    """The leader as this node knows it. `url` is where clients find it."""

    name: str
    url: str


class QuorumNode(msgspec.Struct, frozen=True, rename="camel"):
    """A node that was heard, or the one that tells this (`self`), with the end of what is on its disk.

    `role` is a word such as `leading` and `following`. `leads`: it takes itself for the leader.
    """

    name: str
    url: str
    role: str
    leads: bool
    epoch: Epoch
    seq: SeqOrNone
    place: Place
    lag_records: Lag
    heard_ms: HeardMs
    own: Annotated[bool, Meta(description="Whether it is the node that tells this")] = msgspec.field(name="self")


class QuorumStream(msgspec.Struct, frozen=True):
    """The stream that holds the log. Its ends are there on the leader: it has asked for them lately."""

    name: str
    first: Place | UnsetType = UNSET
    last: Place | UnsetType = UNSET
    bytes: Annotated[int, Meta(ge=0)] | UnsetType = UNSET


class QuorumAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """GET /quorum. `leader` is null while none is known. `confirmed`: this node leads, and a majority says so.

    `takeovers` are the epochs that this node won, `depositions` those that it led and lost, `doubts` the frames whose
    outcome it did not know for a time.
    """

    role: str
    epoch: Epoch
    seq: SeqOrNone
    place: Place
    leader: QuorumLeader | None
    confirmed: bool
    nodes: list[QuorumNode]
    stream: QuorumStream
    takeovers: Count
    depositions: Count
    doubts: Count


class SteppedDownAnswer(msgspec.Struct, frozen=True):
    """POST /quorum/step-down: the epoch that ended, and its last event."""

    epoch: Epoch
    seq: SeqOrNone
