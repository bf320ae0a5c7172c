"""What the pipeline is built from. `server.node.assembly` gives it, a test gives stand-ins.

    pipeline = Pipeline(Dependencies(scoreboard=scoreboard, writer=actor, log=log, ...))

A dependency that has more than one implementation is a protocol with the few methods that the pipeline calls. A replica
of one shard has neither an actor nor a log (`server.node.shard`), and tests need no signed tokens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from engine.action_reading import OnDamage
from engine.actor import Senders, WhenDone
from engine.commands import Command
from engine.events import Event
from engine.machine import ActorStatistics
from engine.record import Frame
from engine.scoreboard import Scoreboard
from engine.unsettled import Unsettled
from server.access.auth import Principal
from server.access.lease import Authenticates
from server.access.rates import WriteLimits
from server.api.audit import Audit
from server.api.pages import Page
from server.api.periods import NoPeriods, PeriodReader
from server.api.positions import Positions
from server.api.quorum_forms import QuorumAnswer
from server.api.role_checks import RoleChecks
from server.api.webhook_forms import WebhookObject
from server.live.clics import Version
from server.live.names import NameForm
from server.metrics import Metrics
from server.past.questions import Question, Reply
from server.replication.followers import FollowerInfo
from server.replication.freshness import Freshness
from server.role import CurrentRole


class Writer(Protocol):
    """The actor: decides commands and makes them durable."""

    def submit_nowait(self, commands: Sequence[Command], when_done: WhenDone, senders: Senders = ()) -> object:
        """Return at once. `when_done` gets the outcomes or the error. Raises `Overloaded`, `LeaderDeposed`.

        With `senders`, one for each command, it may get these in parts.
        """

    def statistics(self) -> ActorStatistics:
        """How many commands wait, and whether new ones are accepted."""


class Authenticator(Authenticates, Protocol):
    """Verifies callers, and remembers them for the express lane. See `server.access.auth`."""

    @property
    def generation(self) -> int:
        """Grows with each withdrawn key: earlier verifications are void."""

    def recall(self, authorization: str | None) -> Principal | None:
        """Give the remembered caller of an Authorization header."""

    def is_current(self, principal: Principal, generation: int) -> bool:
        """Whether a caller who was remembered in this generation is still verified."""


class ReceiptLog(Protocol):
    """The log that receipts are read from."""

    @property
    def blocks(self) -> bool:
        """Whether `event_at` waits for a disk."""

    def event_at(self, seq: int) -> tuple[Frame, Event]:
        """Give one event and its frame. Raises `NoLongerKept`."""

    def read_from(self, seq: int) -> Iterator[Frame]:
        """Give the durable frames from the one that holds `seq` on. Raises `NoLongerKept`."""


class LedgerReader(Protocol):
    """What the log says of users (`engine.ledger`)."""

    @property
    def oldest_seq(self) -> int:
        """The first seq that the log still has."""

    def events_of(self, user_id: str, *, before_seq: int | None = None) -> Iterator[tuple[int, Event]]:
        """Give epochs and events, the newest first."""

    def frames_of(self, users: Collection[str], *, from_seq: int, until_seq: int) -> Iterator[Frame]:
        """Give the frames that may concern users, the oldest first. Raises `NoLongerKept`."""


class Past(Protocol):
    """What reads the past (`server.past.reader`)."""

    async def ask(self, question: Question, /) -> Reply:
        """Have a question answered. Raises `Overloaded`."""


class StorageState(msgspec.Struct, frozen=True):
    """What log and snapshots hold on disk. `snapshot_seq` and `snapshot_ms` are None before the first snapshot.

    `free_bytes` is what is left on the disk, None if unknown. `warning` says what is wrong or soon will be.
    `erasures_pending` users were erased and are still in files, the first of them for `erasure_age_ms`.
    """

    log_bytes: int
    log_segments: int
    snapshot_seq: int | None
    snapshot_ms: int | None
    snapshots_failed: int = 0
    free_bytes: int | None = None
    warning: str | None = None
    erasures_pending: int = 0
    erasure_age_ms: int | None = None


class Erasing(Protocol):
    """What has the files of this node forget erased users (`server.node.erasure_keeper`)."""

    @property
    def unsettled(self) -> Unsettled:
        """The erasures whose users the files still name."""

    @property
    def within_ms(self) -> int:
        """In this time the files forget a user."""

    async def known(self) -> None:
        """Make sure that all unsettled erasures are known. Raises `LogDamaged`, `NoLongerKept`."""

    async def hidden(self) -> None:
        """Have past periods forget. Raises `DiskFault`."""


class Hooks(Protocol):
    """The webhooks of this node (`server.webhooks.webhooks`)."""

    def statuses(self) -> list[WebhookObject]:
        """Say how far each hook is."""

    async def enable(self, name: str) -> WebhookObject | None:
        """Have a hook deliver again; None if there is none of this name."""


class QuorumMember(Protocol):
    """The member of a quorum that this node is (`server.node.member`)."""

    def view(self) -> QuorumAnswer:
        """Say what this node knows of the quorum."""

    async def step_down(self) -> tuple[int, int]:
        """Let another node lead; give the epoch that ends and its last seq. Raises `Refused`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """`clock_ms` is wall-clock time in ms since 1970, `clock_s` a clock that never goes back.

    `request_ids` gives ids for requests that bring none. Pages of `origins` (None: all) may read
    public answers. `warnings` are what `/readyz` tells of a node that is ready. `promote` makes a replica the leader,
    gives the new epoch and its first seq, or raises `Refused`. On a node without a log `past`, `ledger` and `erasing`
    are None. `hooks` is None without webhooks, `quorum` on a node that is of none. `frame_ancestors` says in the form
    of a policy who may frame /embed, `viewers` how many watch a board. `on_damage` is told of a damaged file of older
    actions.
    """

    scoreboard: Scoreboard
    writer: Writer
    log: ReceiptLog
    on_damage: OnDamage = lambda _: None
    role: CurrentRole
    freshness: Freshness
    checks: RoleChecks
    positions: Positions
    authenticator: Authenticator
    limits: WriteLimits
    metrics: Metrics
    audit: Audit
    pages: dict[str, Page] = field(default_factory=dict)
    storage: Callable[[], StorageState]
    public_reads: bool
    origins: Container[str] | None
    frame_ancestors: str = "'none'"
    viewers: Callable[[str], int] = lambda _board_id: 0
    names: NameForm = "shown"
    clics_version: Version = "2023-06"
    clock_ms: Callable[[], int]
    clock_s: Callable[[], float]
    request_ids: Iterator[str]
    followers: Callable[[], list[FollowerInfo]]
    promote: Callable[[], Awaitable[tuple[int, int]]]
    periods: PeriodReader = field(default_factory=NoPeriods)
    warnings: Callable[[], list[str]] = list
    past: Past | None = None
    ledger: LedgerReader | None = None
    erasing: Erasing | None = None
    hooks: Hooks | None = None
    quorum: QuorumMember | None = None
