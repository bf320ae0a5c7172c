"""A data directory whose boards end periods: `League` is a leader on any disk, without tasks.

    league = League(disk, directory); league.win("cup", "ann"); seq = league.reset("cup")

Its boards have no schedule, so a period ends when a test wants it to.
"""

from __future__ import annotations

from contextlib import closing

from engine.batch import Batch
from engine.board_events import EndedPeriod
from engine.board_rules import BoardRules, Rules
from engine.commands import Command, Increment, PutBoard, PutUser, Rejection, ResetBoard
from engine.disk import Disk
from snapshots.digests import StateDigests, digests_of
from snapshots.opening import open_directory
from snapshots.period_file import PeriodHead, verify
from snapshots.period_store import PeriodStore
from snapshots.periods import write_ended
from snapshots.store import SnapshotInfo, Store
from tests.snapshots.directories import LOG_ID, SEGMENT_BYTES, Told

RULES = BoardRules({"WIN": 10, "LATE": -5}, ranks="shared", keep_periods=3)
BEGUN_MS = 1_765_000_000_000


class League:
    """State, log and period files of a directory. Without `keeps` the files of ended periods are not written."""

    def __init__(self, disk: Disk, directory: str, *, keeps: bool = True) -> None:
        self.disk = disk
        self.directory = directory
        self.keeps = keeps
        self.told = Told()
        disk.make_directory(directory)
        self.opened = open_directory(
            disk, directory, Rules({}), tell=self.told, random_bytes=lambda count: LOG_ID[:count],
            segment_bytes=SEGMENT_BYTES,
        )  # fmt: skip
        self.scoreboard, self.log = self.opened.scoreboard, self.opened.log
        self.store, self.periods = Store(disk, directory), PeriodStore(disk, directory)
        self.ended: list[EndedPeriod] = []

    @property
    def seq(self) -> int:
        """The seq of the last event."""
        return self.scoreboard.seq

    def write(self, *commands: Command) -> None:
        """Decide, log, apply, as one frame, and keep the periods that ended."""
        batch = Batch(self.scoreboard, BEGUN_MS + 1_000 * self.seq)
        batch.decide(commands)
        if batch.events:
            self.log.append(batch.events, self.scoreboard.epoch)
        assert not any(isinstance(outcome, Rejection) for outcome in batch.settle())
        for ended in self.scoreboard.take_ended():
            self.ended.append(ended)
            if self.keeps:
                write_ended(self.periods, ended, self.log.tail.log_id)

    def put(self, board_id: str, rules: BoardRules = RULES) -> None:
        """Make a board."""
        self.write(PutBoard(board_id, rules, "ops"))

    def win(self, board_id: str, *users: str) -> None:
        """Count an action of each user."""
        seq = self.seq
        self.write(*(Increment(user, f"{seq}-{n}", "WIN", board_id, "game") for n, user in enumerate(users)))

    def hide(self, user: str) -> None:
        """Take a user off the boards."""
        self.write(PutUser(user, None, False, "ops"))

    def reset(self, board_id: str) -> int:
        """End a period; give the seq."""
        self.write(ResetBoard(board_id, "ops"))
        return self.seq

    def rows(self, seq: int) -> list[tuple[int, str, int]]:
        """List the rows of a past period."""
        return [(row.rank, row.user_id, row.score) for row in self.periods.open(seq).top(100)]

    def head(self, seq: int) -> PeriodHead:
        """Prove the file of a past period; give its head."""
        path = self.periods.path(seq)
        with closing(self.disk.open(path)) as file:
            return verify(file, path)

    def snapshot(self) -> SnapshotInfo:
        """Save the state as it is now."""
        return self.store.save(self.scoreboard.capture(), self.log.tail)

    def digests(self) -> StateDigests:
        """The digests of the state as it is now."""
        return digests_of(self.scoreboard.capture())

    def close(self) -> None:
        """Let go of the log, and close the files."""
        self.log.close()
        self.periods.close()


def play(league: League) -> tuple[int, int]:
    """Play two periods on a board, with ties, a hidden user and points in the third; give the seqs of their ends."""
    league.put("cup")
    league.win("cup", "ann", "bob", "cid", "ann", "dan")
    league.hide("dan")
    first = league.reset("cup")
    league.win("cup", "bob")
    second = league.reset("cup")
    league.win("cup", "eve", "eve")
    return first, second


FIRST = [(1, "ann", 20), (2, "bob", 10), (2, "cid", 10)]
SECOND = [(1, "bob", 10)]
"""The rows of these two periods."""
