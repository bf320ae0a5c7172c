"""Directories with a user who must be forgotten, the ways in which that is done, and what is left of the user.

leader = make(directory)                       a served directory with Ann in every kind of file
erase(directory, ANN)                          as `scoreboard erase users` does, on a stopped one
opened = opened_at(directory, disk); settle(directory, opened, disk)          as a served one does
traces(directory, ANN, NAME) == []
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from engine.commands import EraseUser, Increment, PutUser
from engine.disk import Disk
from engine.ledger import Ledger
from engine.scoreboard import Scoreboard
from engine.traces import newest_first
from engine.unsettled import Unsettled
from engine.user_index import make_missing
from snapshots.erasing import ErasureReport, erase_users
from snapshots.opening import Opened, open_directory
from snapshots.settling import Settled, settle_files
from snapshots.state import read_state
from snapshots.store import Store
from tests.snapshots.directories import BEGUN_MS, RULES, SEGMENT_BYTES, InlineDisk, Leader, Told, contents
from tests.snapshots.leagues import League

ANN, NAME = "ann@example.org", "Ann Kathrin Example"


def erase(directory: Path, *users: str, disk: Disk | None = None) -> ErasureReport:
    """Erase users, as the command does."""
    return erase_users(
        disk or InlineDisk(),
        str(directory),
        users,
        caller="dpo",
        clock_ms=lambda: BEGUN_MS + 10**9,
        tell=Told(),
        segment_bytes=SEGMENT_BYTES,
    )


def traces(directory: Path, *texts: str) -> list[str]:
    """Give the files that have one of these texts in any form, found without the code under test."""
    return [
        name
        for name, data in contents(directory).items()
        if any(text.encode() in (gzip.decompress(data) if name.endswith(".gz") else data) for text in texts)
    ]


def make(directory: Path) -> Leader:
    """Make a directory with segments, compressed ones among them, two snapshots and a side file, all with Ann."""
    leader = Leader(directory)
    leader.write([PutUser(ANN, NAME, True, ANN)])
    for turn in range(12):
        leader.play(4)
        leader.write([Increment(ANN, f"of {ANN} {turn}", "BONUS", "main", ANN if turn % 2 else "shop")])
        if turn in (5, 9):
            leader.snapshot()
    for info in leader.log.segments()[:3]:
        leader.log.compress(info)
    (directory / "log" / f"{1:020}.log.torn-4711").write_bytes(f"x{ANN}x".encode())
    (directory / "log" / f"{1:020}.log.torn-4712").write_bytes(b"somebody else")
    return leader


def state(directory: Path) -> Scoreboard:
    """Read the state of a directory from its snapshot and its log."""
    scoreboard, _ = read_state(InlineDisk(), str(directory), RULES, tell=Told())
    scoreboard.end_replay()
    return scoreboard


def standings(scoreboard: Scoreboard, *without: str) -> list[Any]:
    """Give users and scores of all boards, best first."""
    boards = sorted(scoreboard.boards.items())
    return [
        (board_id, [(row.user_id, row.score) for row in board.top(100) if row.user_id not in without])
        for board_id, board in boards
    ]


def command(opened: Opened | Leader | League, user: str, *, in_past: bool = False) -> EraseUser:
    """Make the command, as the route does."""
    seq, ledger = opened.scoreboard.seq, Ledger(InlineDisk(), opened.log)
    return EraseUser(user, "dpo", newest_first(user, seq, (event for _, event in ledger.events_of(user))), in_past)


def erased(directory: Path, *users: str) -> Leader:
    """Make a directory in which users were erased, with nothing done to its files."""
    leader = make(directory)
    for user in users:
        leader.write([command(leader, user)])
        leader.play(3)
    return leader


def opened_at(directory: Path, disk: Disk) -> Opened:
    return open_directory(disk, str(directory), RULES, tell=Told(), segment_bytes=SEGMENT_BYTES)


def settle(directory: Path, opened: Opened, disk: Disk) -> Settled | None:
    """Do what a checkpoint does, with an index for each segment before and after it."""
    unsettled, store = Unsettled(opened.unsettled), Store(disk, str(directory))
    make_missing(disk, opened.log)
    info = store.save(opened.scoreboard.capture(), opened.log.tail)
    done = settle_files(disk, str(directory), opened.log, store, info, unsettled.erasures)
    make_missing(disk, opened.log)
    return done
