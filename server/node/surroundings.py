"""What a node gets from outside: the configuration, the disk, clocks, randomness, and a nursery.

A process gives it the real ones (`server.node.serving`), the simulation gives it simulated ones. Everything else of a
node is the same in both (`server.node.assembly`).
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import trio

from engine.clock import Clock
from engine.disk import Disk
from engine.errors import DiskFault, NoSpace
from engine.machine import Applied
from engine.recovery import Finding
from engine.scoreboard import Scoreboard
from server import bounds
from server.access.key_exchange import KeyExchange
from server.api.audit import Audit
from server.api.dependencies import Authenticator, Past
from server.api.pages import Page
from server.api.role_checks import RoleChecks
from server.http.messages import RequestHead
from server.metrics import Metrics
from server.node.shutdown import Guard, Shutdown, tell, tell_removed
from server.replication.freshness import Freshness
from server.replication.link import LinkTiming
from server.replication.messages import NodeRef
from server.settings.config import Config, LiveConfig
from snapshots.retention import Removed


class LiveChannel(Protocol):
    """The channel from a node to its viewers."""

    def board_changed(self, board_ids: Iterable[str]) -> None:
        """Note that events touched these boards, or that they became stale or fresh."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell viewers of changes, until cancelled."""

    async def serve_viewer(
        self, stream: trio.SocketStream, head: RequestHead, address: str, left: Callable[[], None], *,
        as_events: bool = False,
    ) -> bool:  # fmt: skip
        """Answer a request for the live channel. True: `left` is called when the viewer goes."""

    def watching(self, board_id: str) -> int:
        """Count the viewers of a board here."""

    def reload(self, config: LiveConfig) -> None:
        """Take another configuration."""

    async def close_all(self, seconds: float) -> None:
        """Accept no more viewers, and close all within `seconds`."""


MakeLive = Callable[[Scoreboard, Freshness, RoleChecks], LiveChannel]
"""Makes the live channel of a node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """See above. `url` is the address that the node listens on. `tasks` is a nursery that ends with the node.

    `clock` gives event times, and `clock_ms` the same in ms since 1970; `clock_s` never goes back. `tell` gets what the
    operator should know about the disk, `removed` each segment that was removed for its age. `applied` is called right
    after each frame was applied. `check_held` checks that the data directory is still ours (`engine.held_disk`).
    `past` reads the past of the data directory, None where nothing does. `key_warnings` gives what an operator should
    know of the issuers' keys. `random_bytes` draws identities. `node_id` is that of this process in the paths of nodes.
    """

    config: Config
    disk: Disk
    tasks: trio.Nursery
    shutdown: Shutdown
    guard: Guard
    url: str
    authenticator: Authenticator
    metrics: Metrics
    audit: Audit
    request_ids: Iterator[str]
    make_live: MakeLive
    applied: Callable[[Applied], None]
    clock: Clock
    check_held: Callable[[], None]
    key_exchange: KeyExchange = field(default_factory=KeyExchange)
    key_warnings: Callable[[], list[str]] = list
    pages: dict[str, Page] = field(default_factory=dict)
    clock_s: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = random.uniform
    past: Past | None = None
    random_bytes: Callable[[int], bytes] = secrets.token_bytes
    node_id: str = field(default_factory=lambda: secrets.token_hex(8))
    tell: Callable[[Finding | DiskFault], None] = tell
    removed: Callable[[Removed], None] = tell_removed

    def clock_ms(self) -> int:
        """Give the believed time, in ms since 1970."""
        return self.clock.now_ms()

    @property
    def node(self) -> NodeRef:
        """How this node is named in paths. An operator knows the name."""
        replication = self.config.replication
        name = replication.node_name or replication.public_url or self.url
        return NodeRef(self.node_id, name[: bounds.NODE_URL_CHARACTERS_MAX])

    @property
    def link_timing(self) -> LinkTiming:
        """The times of this node's links. A link is dead after ten missing heartbeats."""
        seconds = self.config.replication.heartbeat_seconds
        return LinkTiming(heartbeat_seconds=seconds, silence_seconds_max=10.0 * seconds)

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        self.tasks.start_soon(work)

    async def write_with_room(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write what must be on the disk: if it is full, as soon as there is room. Any other fault ends the process."""
        while True:
            try:
                return await write()
            except NoSpace as fault:
                self.tell(fault)
            except DiskFault as fault:
                return self.guard.disk_failed(fault)
            await trio.sleep(bounds.DISK_FULL_RETRY_SECONDS)
