"""Surroundings for a part of a node that is tested by itself, and disks whose writes fail.

    async with open_world(directory) as world:
        Deposition(world, role, actor, scoreboard).begin(successor)

The disk does not wait for threads and nothing listens, so a step is over when all tasks are blocked.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import repeat
from pathlib import Path

import structlog
import trio

from engine.clock import GivenClock
from engine.disk import RealDisk
from engine.errors import NoSpace, WriteFailed
from server.access.auth import Authenticator
from server.access.issuers import trusted_issuers
from server.api.audit import Audit
from server.http.messages import RequestHead
from server.metrics import Metrics
from server.node.shutdown import Guard, Shutdown
from server.node.surroundings import Surroundings
from server.settings.config import LiveConfig
from tests.server.node.test_start import config_of
from tests.snapshots.directories import InlineDisk

NOW_MS = 1_765_802_096_000
URL = "http://127.0.0.1:8080"


class QuietLive:
    """A live channel without viewers. It notes what it is told."""

    def __init__(self) -> None:
        self.changed: list[list[str]] = []
        self.closed_in_s: list[float] = []

    def board_changed(self, board_ids: Iterable[str]) -> None:
        """See `LiveChannel`."""
        self.changed.append(list(board_ids))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `LiveChannel`."""
        task_status.started()

    async def serve_viewer(
        self, stream: trio.SocketStream, head: RequestHead, address: str, left: Callable[[], None], *,
        as_events: bool = False,
    ) -> bool:  # fmt: skip
        """See `LiveChannel`."""
        raise AssertionError("nobody comes")

    def watching(self, board_id: str) -> int:
        """See `LiveChannel`."""
        return 0

    def reload(self, config: LiveConfig) -> None:
        """See `LiveChannel`."""
        raise AssertionError(f"nobody reloads here: {config}")

    async def close_all(self, seconds: float) -> None:
        """See `LiveChannel`."""
        self.closed_in_s.append(seconds)


class FullDisk(InlineDisk):
    """A disk that takes nothing more once it is full."""

    full = True

    def write_whole(self, path: str, chunks: Iterable[bytes], mode: int = 0o600, paced: bool = False) -> int:
        """Fail, or write."""
        if self.full:
            raise WriteFailed("can't write: No space left on device", path=path)
        return super().write_whole(path, chunks, mode, paced)


class RoomlessDisk(InlineDisk):
    """A disk that is full for a while. Other than with `FullDisk`, it is known that nothing is wrong with it."""

    full = True

    def write_whole(self, path: str, chunks: Iterable[bytes], mode: int = 0o600, paced: bool = False) -> int:
        """Find no room, or write."""
        if self.full:
            raise NoSpace("can't write: No space left on device", path=path)
        return super().write_whole(path, chunks, mode, paced)


@asynccontextmanager
async def open_world(directory: Path, disk: RealDisk | None = None, **environ: str) -> AsyncIterator[Surroundings]:
    """Surroundings whose tasks are cancelled at the end of the block."""
    config = config_of(directory, **environ)
    shutdown = Shutdown()
    async with trio.open_nursery() as tasks:
        yield Surroundings(
            config=config,
            disk=disk or InlineDisk(),
            tasks=tasks,
            shutdown=shutdown,
            guard=Guard(shutdown),
            url=URL,
            authenticator=Authenticator(trusted_issuers(config)),
            metrics=Metrics(),
            audit=Audit(structlog.get_logger(), time.monotonic),
            request_ids=repeat("made-here"),
            make_live=lambda *_: QuietLive(),
            applied=lambda _: None,
            clock=GivenClock(lambda: NOW_MS),
            check_held=lambda: None,
            clock_s=trio.current_time,
        )
        tasks.cancel_scope.cancel()
