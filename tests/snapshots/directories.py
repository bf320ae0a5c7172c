"""Data directories for tests: a leader that is only its state and its log, and ways to look at what it left.

Segments are small here, so that a few hundred events make several. Time is the seq in seconds, so that every frame has
a time of its own.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from engine.batch import Batch
from engine.board_rules import rules_of_points
from engine.commands import Command, Increment, PutUser
from engine.disk import RealDisk, RealFile
from engine.errors import DiskFault
from engine.events import EpochBegun
from engine.record import HEADER_BYTES, SEGMENT_HEADER_BYTES, Frame, FrameFault, Tail, unpack_frame
from engine.recovery import Finding
from engine.scoreboard import Scoreboard
from snapshots.digests import state_digest
from snapshots.opening import Opened, Progress, open_directory
from snapshots.store import SnapshotInfo, Store

RULES = rules_of_points({"main": {"ACTION_COMPLETED": 10, "BONUS": 25}, "weekly": {"ACTION_COMPLETED": 1}})
LOG_ID = bytes(range(1, 17))
SEGMENT_BYTES = 4096
BEGUN_MS = 1_765_000_000_000


class InlineDisk(RealDisk):
    """A real disk that is used from the event loop itself: nothing depends on when a thread is done."""

    blocks = False


class Killed(BaseException):
    """Stands for `kill -9`: nothing may catch it."""


class MortalDisk(InlineDisk):
    """A disk whose user is killed at step `dies_at`: before a file is made, renamed, removed, or before a sync of it.

    From then on nothing reaches the disk any more, whatever the dying code still tries.
    """

    def __init__(self, dies_at: int) -> None:
        self._left = dies_at

    def live_for(self, steps: int) -> None:
        """Be killed that many steps from now."""
        self._left = steps

    def _step(self) -> None:
        self._left -= 1
        if self._left <= 0:
            raise Killed

    def create(self, path: str, mode: int = 0o600) -> RealFile:
        """Live, then create."""
        self._step()
        return super().create(path, mode)

    def rename(self, old: str, new: str) -> None:
        """Live, then rename."""
        self._step()
        super().rename(old, new)

    def remove(self, path: str) -> None:
        """Live, then remove."""
        self._step()
        super().remove(path)

    def sync_directory(self, path: str) -> None:
        """Live, then sync."""
        self._step()
        super().sync_directory(path)

    def write_whole(self, path: str, chunks: Iterable[bytes], mode: int = 0o600, paced: bool = False) -> int:
        """Live through each chunk."""

        def mortal() -> Iterable[bytes]:
            for chunk in chunks:
                self._step()
                yield chunk

        return super().write_whole(path, mortal(), mode, paced)


class Told:
    """Collects what is told."""

    def __init__(self) -> None:
        self.all: list[Finding | DiskFault] = []

    def __call__(self, what: Finding | DiskFault) -> None:
        """Take one."""
        self.all.append(what)

    @property
    def faults(self) -> list[DiskFault]:
        """Those that are faults."""
        return [what for what in self.all if isinstance(what, DiskFault)]


class Leader:
    """State and log of one directory, without tasks: each `write` is one frame. The way of a write is the actor's."""

    def __init__(
        self, directory: Path, *, seed: int = 1, segment_bytes: int = SEGMENT_BYTES, log_id: bytes = LOG_ID
    ) -> None:
        self.directory = directory
        self.told = Told()
        self.progress: list[Progress] = []
        self.opened: Opened = open_directory(
            InlineDisk(),
            str(directory),
            RULES,
            tell=self.told,
            progress=self.progress.append,
            random_bytes=lambda count: log_id[:count],
            segment_bytes=segment_bytes,
        )
        self.scoreboard = self.opened.scoreboard
        self.log = self.opened.log
        self.store = Store(InlineDisk(), str(directory))
        self._random = random.Random(seed)

    @property
    def tail(self) -> Tail:
        """Where the log ends."""
        return self.log.tail

    def write(self, commands: Sequence[Command]) -> None:
        """Decide, log, apply, as one frame."""
        batch = Batch(self.scoreboard, BEGUN_MS + 1000 * (self.scoreboard.seq + 1))
        batch.decide(commands)
        if batch.events:
            self.log.append(batch.events, self.scoreboard.epoch)
        batch.settle()

    def play(self, frames: int, *, per_frame: int = 4) -> None:
        """Write so many frames of a lively game: increments of both boards, and users who come, rename and go."""
        for _ in range(frames):
            self.write([self._command(n) for n in range(per_frame)])

    def _command(self, n: int) -> Command:
        # Increments of those who happen to be inactive are refused, which is as it should be: they make no event.
        chance = self._random.random()
        user = f"user-{self._random.randrange(40)}"
        if chance < 0.1:
            return PutUser(user, f"Name {self.scoreboard.seq}-{n}", self._random.random() < 0.7, "backend")
        board = "weekly" if chance < 0.3 else "main"
        return Increment(user, f"action-{self.scoreboard.seq}-{n}", "ACTION_COMPLETED", board, "backend")

    def begin_epoch(self) -> None:
        """Begin the next epoch, as a new leader does."""
        scoreboard = self.scoreboard
        event = EpochBegun(scoreboard.seq + 1, scoreboard.time_ms, scoreboard.epoch + 1, "test")
        self.log.append([event], event.epoch)
        scoreboard.apply(event, event.epoch)

    def snapshot(self) -> SnapshotInfo:
        """Save the state as it is now."""
        return self.store.save(self.scoreboard.capture(), self.tail)

    def digest(self) -> str:
        """The digest of the state as it is now."""
        return digest(self.scoreboard)

    def close(self) -> None:
        """Let go of the log. What is on disk is what a killed process would leave."""
        self.log.close()


def digest(scoreboard: Scoreboard) -> str:
    """The digest of a state."""
    return state_digest(scoreboard.capture())


def history(directory: Path, frames: int, *, snapshots: Sequence[int] = (), per_frame: int = 4) -> dict[int, str]:
    """Make a directory of so many frames, with snapshots after these; give the digest after each frame, by seq."""
    leader = Leader(directory)
    digests = {}
    for number in range(1, frames + 1):
        leader.play(1, per_frame=per_frame)
        digests[leader.scoreboard.seq] = leader.digest()
        if number in snapshots:
            leader.snapshot()
    leader.close()
    return digests


def segments(directory: Path) -> list[Path]:
    """The segments of a directory's log, oldest first."""
    return sorted((directory / "log").glob("*.log*"))


def snapshot_files(directory: Path) -> list[Path]:
    """The snapshots of a directory, oldest first."""
    return sorted((directory / "snapshots").glob("*.snapshot"))


def seq_of(path: Path) -> int:
    """The seq in the name of a segment or snapshot."""
    return int(path.name[:20])


def frames_in(path: Path) -> list[tuple[int, Frame]]:
    """The frames of a plain segment, with their offsets."""
    data = path.read_bytes()
    found: list[tuple[int, Frame]] = []
    offset = SEGMENT_HEADER_BYTES
    while True:
        try:
            frame = unpack_frame(data, offset)
        except FrameFault:
            return found
        found.append((offset, frame))
        offset += HEADER_BYTES + len(frame.body)


def all_frames(directory: Path) -> list[Frame]:
    """The frames of a log that has only plain segments."""
    return [frame for path in segments(directory) for _, frame in frames_in(path)]


def flip(path: Path, offset: int) -> None:
    """Flip a bit of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def damage_frame(directory: Path, seq: int) -> None:
    """Flip a bit in the body of the frame that holds a seq."""
    path = [path for path in segments(directory) if seq_of(path) <= seq][-1]
    offset = next(offset for offset, frame in frames_in(path) if frame.first_seq <= seq <= frame.last_seq)
    flip(path, offset + HEADER_BYTES + 3)


def damage_snapshot(path: Path) -> None:
    """Flip a bit in the middle of a snapshot."""
    flip(path, path.stat().st_size // 2)


def copy(directory: Path, name: str) -> Path:
    """Copy a directory, as a backup does."""
    target = directory.with_name(name)
    shutil.copytree(directory, target)
    return target


def contents(directory: Path) -> dict[str, bytes]:
    """All files below a directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()
    }
