"""Restoring in tests: the source must stay as it was, and the target must be whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.events import EpochBegun
from engine.log_reader import scan
from engine.record import events_of
from engine.scoreboard import Scoreboard
from snapshots.opening import Progress
from snapshots.restore import RestoreReport, restore
from snapshots.state import read_state
from tests.snapshots.directories import BEGUN_MS, RULES, SEGMENT_BYTES, InlineDisk, Leader, Told, contents, digest

NOW_MS = BEGUN_MS + 10**9


def run(
    source: Path,
    target: Path,
    *,
    until_seq: int | None = None,
    until_ms: int | None = None,
    told: Told | None = None,
    disk: InlineDisk | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> RestoreReport:
    """Restore, and make sure that the source stayed as it was, whatever came of it."""
    before = contents(source) if source.exists() else {}
    try:
        return restore(
            disk or InlineDisk(),
            str(source),
            str(target),
            until_seq=until_seq,
            until_ms=until_ms,
            clock_ms=lambda: NOW_MS,
            tell=told or Told(),
            progress=progress,
            segment_bytes=SEGMENT_BYTES,
        )
    finally:
        assert (contents(source) if source.exists() else {}) == before


def state_at(directory: Path, seq: int) -> Scoreboard:
    """The state of a directory after a seq."""
    return read_state(InlineDisk(), str(directory), RULES, until_seq=seq, tell=Told())[0]


def check(source: Path, target: Path, report: RestoreReport) -> None:
    """Check that the target is the source up to the report's seq, then the new epoch, and can be served from."""
    expected = state_at(source, report.seq)
    begun = EpochBegun(report.seq + 1, report.time_ms, report.epoch, f"restored up to seq {report.seq} of epoch 1")
    leader = Leader(target)
    begun = msgspec.structs.replace(begun, history=bytes.fromhex(leader.scoreboard.mark.history))
    if expected.epoch > 1:
        begun = msgspec.structs.replace(begun, note=begun.note[:-1] + str(expected.epoch))
    expected.apply(begun, report.epoch)
    leader.scoreboard._check()
    assert leader.digest() == digest(expected)
    assert leader.told.all == []
    assert report.boards == sum(1 for board in expected.boards.values() if len(board))
    assert report.actions == len(expected.actions)
    assert (leader.tail.epoch, leader.tail.seq) == (report.epoch, report.seq + 1)
    frames = list(scan(InlineDisk(), str(target / "log")))
    events = [event for frame in frames for event in events_of(frame)]
    assert events[-1] == begun
    assert report.events == len(events) - 1
    assert events[0].seq == (report.first_seq if report.first_seq is not None else report.seq + 1)
    leader.play(3)
    leader.close()
    again = Leader(target)
    assert again.digest() == leader.digest()
    again.close()
