"""What the service is wired to, and how little it asks of each part.

The protocols here are the whole of what the service uses of the parts that do I/O, so a test can stand in for any of
them with a few lines, and the one place that builds everything sees what it has to give.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

import msgspec

from engine.actor import ActorStatistics, Submission
from engine.commands import Command, Outcome
from engine.events import Event
from engine.scoreboard import Scoreboard
from server.access.auth import Principal
from server.api.audit import Audit
from server.api.pages import Page
from server.api.standing import Standing
from server.http.messages import Refused, Response
from server.metrics import Metrics


class Writer(Protocol):
    """The actor: owns the scoreboard, makes commands durable."""

    @property
    def scoreboard(self) -> Scoreboard:
        """The state; read by plain calls from the event loop."""

    async def submit(self, commands: Sequence[Command]) -> list[Outcome]:
        """Decide commands and make them durable; raise `Overloaded`, `LeaderDeposed`, `OutcomeUnknown`."""

    def submit_nowait(self, commands: Sequence[Command], when_done: Callable[[Submission], None]) -> object:
        """The same without waiting: `when_done` gets the outcomes or the error; raise as `submit`."""

    def statistics(self) -> ActorStatistics:
        """Tell how much waits, and whether new commands are taken."""


ANYBODY = Principal(sub="", scopes=frozenset(), user=None, expires_s=math.inf)
"""Whoever sends a request that needs no token."""


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


class Position(Protocol):
    """Where a frame of the log stands."""

    @property
    def epoch(self) -> int:
        """The epoch that the frame was written in."""


class LogReader(Protocol):
    """The log, as far as receipts are read from it."""

    @property
    def blocks(self) -> bool:
        """Whether `event_at` waits for a disk."""

    def event_at(self, seq: int) -> tuple[Position, Event]:
        """Give one event; raise `NoLongerKept`."""


class StorageState(msgspec.Struct, frozen=True):
    """What log and snapshots hold on disk; a snapshot's seq and time are None before the first."""

    log_bytes: int
    log_segments: int
    snapshot_seq: int | None
    snapshot_ms: int | None
    snapshots_failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything that the service is built from.

    `not_ready` gives the reason why requests should go elsewhere, None if they are welcome. `clock_ms` is wall-clock
    time in ms since 1970, `clock_s` a clock that never goes back. `new_request_id` makes an id for a request without.
    `origins` are those whose pages may read public answers, in lower case; None: all.
    """

    writer: Writer
    log: LogReader
    authenticator: Authenticator
    caller_rates: Rates
    user_rates: Rates
    metrics: Metrics
    audit: Audit
    pages: dict[str, Page] = field(default_factory=dict)
    storage: Callable[[], StorageState]
    not_ready: Callable[[], str | None]
    public_reads: bool
    origins: frozenset[str] | None
    clock_ms: Callable[[], int]
    clock_s: Callable[[], float]
    new_request_id: Callable[[], str]
    standing: Standing = field(default_factory=Standing)
    followers: Callable[[], int] = lambda: 0
    promote: Promote = field(default_factory=lambda: _cannot_promote)


async def _cannot_promote() -> tuple[int, int]:
    raise Refused(409, "CONFLICT", "This node is the leader already.")


def request_ids(process: str) -> Callable[[], str]:
    """Make ids for requests that come without one: the process's part, and a number.

    Asking the system for random bytes each time costs more than reading the request.
    """
    numbers = count(1)
    return lambda: f"{process}-{next(numbers):06x}"
