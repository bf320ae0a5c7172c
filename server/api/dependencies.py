"""What the pipeline depends on, and how little it asks of each dependency.

The protocols here are all that the pipeline uses of what does I/O. So a test can stand in for any of them with a few
lines, and the one place that builds everything sees what it has to give.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

import msgspec

from engine.actor import ActorStatistics, Submission
from engine.commands import Command, Outcome
from engine.events import Event
from engine.record import Frame
from engine.scoreboard import Scoreboard
from server.access.auth import Principal
from server.api.audit import Audit
from server.api.pages import Page
from server.api.positions import Positions
from server.api.role_checks import RoleChecks
from server.http.messages import Response
from server.metrics import Metrics
from server.replication.freshness import Freshness
from server.role import CurrentRole


class Writer(Protocol):
    """The actor: decides commands and makes them durable."""

    async def submit(self, commands: Sequence[Command]) -> list[Outcome]:
        """Decide commands and make them durable; raise `Overloaded`, `LeaderDeposed`, `OutcomeUnknown`."""

    def submit_nowait(self, commands: Sequence[Command], when_done: Callable[[Submission], None]) -> object:
        """The same without waiting: `when_done` gets the outcomes or the error; raise as `submit`."""

    def statistics(self) -> ActorStatistics:
        """Tell how much waits, and whether new commands are taken."""


class Authenticator(Protocol):
    """Tells who a request comes from."""

    @property
    def generation(self) -> int:
        """Grows whenever what was verified before must be verified anew."""

    async def authenticate(self, authorization: str | None) -> Principal | Response:
        """Verify the value of an Authorization header; a `Response` is the refusal."""

    def recall(self, authorization: str | None) -> Principal | None:
        """Give whom an Authorization header stands for if that is remembered."""

    def is_current(self, principal: Principal, generation: int) -> bool:
        """Whether what was remembered in this generation still holds."""


class Rates(Protocol):
    """A rate limit over keys."""

    @property
    def per_minute(self) -> int:
        """The limit."""

    def wait_s(self, key: str, now_s: float, pending: int = 0) -> float:
        """Give the seconds until this key is under its limit, 0 if it is now; as if `pending` were charged already."""

    def room(self, key: str, now_s: float) -> int:
        """Give how many this key is allowed now, at once."""

    def take(self, key: str, now_s: float) -> float:
        """Count one for this key if it is under its limit, and give 0; else the seconds until it is."""

    def charge(self, key: str, now_s: float, count: int = 1) -> None:
        """Count so many for this key."""


Promote = Callable[[], Awaitable[tuple[int, int]]]
"""Make a replica the leader; gives the new epoch and its first seq. Raises `Refused` where that can't be done."""


class ReceiptLog(Protocol):
    """The log, as far as receipts are read from it."""

    @property
    def blocks(self) -> bool:
        """Whether `event_at` waits for a disk."""

    def event_at(self, seq: int) -> tuple[Frame, Event]:
        """Give one event, and its frame; raise `NoLongerKept`."""


class StorageState(msgspec.Struct, frozen=True):
    """What log and snapshots hold on disk; a snapshot's seq and time are None before the first."""

    log_bytes: int
    log_segments: int
    snapshot_seq: int | None
    snapshot_ms: int | None
    snapshots_failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """Everything that the pipeline is built from.

    `clock_ms` is wall-clock time in ms since 1970, `clock_s` a clock that never goes back. `new_request_id` makes an id
    for a request without. `origins` are those whose pages may read public answers, in lower case; None: all.
    """

    scoreboard: Scoreboard
    writer: Writer
    log: ReceiptLog
    role: CurrentRole
    freshness: Freshness
    checks: RoleChecks
    positions: Positions
    authenticator: Authenticator
    caller_rates: Rates
    user_rates: Rates
    metrics: Metrics
    audit: Audit
    pages: dict[str, Page] = field(default_factory=dict)
    storage: Callable[[], StorageState]
    public_reads: bool
    origins: frozenset[str] | None
    clock_ms: Callable[[], int]
    clock_s: Callable[[], float]
    new_request_id: Callable[[], str]
    followers: Callable[[], int]
    promote: Promote


def request_ids(process: str) -> Callable[[], str]:
    """Make ids for requests that come without one: the process's part, and a number.

    Asking the system for random bytes each time costs more than reading the request.
    """
    numbers = count(1)
    return lambda: f"{process}-{next(numbers):06x}"
