"""Logs that are damaged: what their files hold, and the refusal that opening them must give."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.disk import RealDisk
from engine.errors import LogDamaged
from engine.log import Tail
from engine.log_reader import scan
from engine.recovery import TABLE, Situation
from tests.engine.logs import Opened


def segments_of(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.log"))


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def refused(directory: Path, situation: Situation, *, after: Tail | None = None) -> LogDamaged:
    """Open a log that must be refused for this reason, and left as it is."""
    before = contents(directory)
    with pytest.raises(LogDamaged) as caught:
        Opened(directory, after=after)
    assert contents(directory) == before
    error = caught.value
    assert TABLE[situation].sentence in str(error)
    if "--until-seq" in error.remedy and situation not in {Situation.ENDS_EARLY, Situation.LOG_GONE}:
        # The command that is promised reads the log up to there, so that must work.
        assert error.seq is not None
        frames = list(scan(RealDisk(), str(directory), until_seq=error.seq - 1))
        assert frames[-1].last_seq >= error.seq - 1
    return error


def place(error: LogDamaged) -> tuple[str, int | None, int | None]:
    return error.path, error.offset, error.seq


def restores_to(error: LogDamaged, directory: Path, seq: int) -> bool:
    return f"`scoreboard restore --from {directory.parent} --to NEWDIR --until-seq {seq}`" in error.remedy
