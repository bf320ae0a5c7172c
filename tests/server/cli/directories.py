"""Data directories for the tests of the command, made with the engine and without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner, Result
from msgspec import UNSET

from engine.batch import Batch
from engine.board_rules import rules_of_points
from engine.commands import Command, Increment, PutUser
from engine.disk import RealDisk
from engine.limits import SEGMENT_BYTES
from server.cli.main import main
from snapshots.opening import Opened, open_directory
from snapshots.store import SnapshotInfo, Store

RULES = rules_of_points({"main": {"ACTION_COMPLETED": 10}})
BEGIN_MS = 1_765_802_096_000
"""2025-12-15T12:34:56Z, the time of the first frame; each later one is a second after the one before."""


def run(*arguments: str | Path) -> Result:
    """Run the command as its user would, in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def increment(user_id: str, action_id: str) -> Increment:
    """Count one action on the board `main`."""
    return Increment(user_id, action_id, "ACTION_COMPLETED", "main", "shop")


def put_user(user_id: str, name: str) -> PutUser:
    """Give a user a name."""
    return PutUser(user_id, name, UNSET, "ops")


def open_for_writing(path: Path, segment_bytes: int = SEGMENT_BYTES) -> Opened:
    """Open a directory as a leader would."""
    return open_directory(RealDisk(), str(path), RULES, tell=_nothing_odd, segment_bytes=segment_bytes)


def _nothing_odd(found: object) -> None:
    raise AssertionError(found)


def write(opened: Opened, frames: Sequence[Sequence[Command]]) -> None:
    """Have commands decided, logged and applied; each list is one frame."""
    for commands in frames:
        scoreboard = opened.scoreboard
        now_ms = max(BEGIN_MS, scoreboard.time_ms + 1000)
        batch = Batch(scoreboard, now_ms)
        batch.decide(commands)
        opened.log.append(batch.events, scoreboard.epoch)
        batch.settle()


def make(path: Path, frames: Sequence[Sequence[Command]], segment_bytes: int = SEGMENT_BYTES) -> Path:
    """Make a directory with these frames, which no process owns."""
    opened = open_for_writing(path, segment_bytes)
    write(opened, frames)
    opened.log.close()
    return path


def increments(count: int, start: int = 0) -> list[list[Command]]:
    """Make frames of one increment each, for two users in turn."""
    return [[increment(f"user-{number % 2}", f"action-{number}")] for number in range(start, start + count)]


def save_snapshot(path: Path) -> SnapshotInfo:
    """Write a snapshot of the end of a directory's log."""
    opened = open_for_writing(path)
    opened.log.close()
    return Store(RealDisk(), str(path)).save(opened.scoreboard.capture(), opened.log.tail)


def segments(path: Path) -> list[Path]:
    """List the log's files, oldest first."""
    return sorted((path / "log").iterdir())


def flip(file: Path, needle: bytes) -> int:
    """Damage the byte at which `needle` begins; give its offset."""
    content = bytearray(file.read_bytes())
    offset = content.index(needle)
    content[offset] ^= 0x01
    file.write_bytes(content)
    return offset
