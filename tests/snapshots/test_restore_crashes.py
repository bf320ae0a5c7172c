"""A restore that fails or is killed: the target is whole, or there is none."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from engine.errors import DirectoryInUse, WriteFailed
from snapshots.restore import UNFINISHED
from tests.snapshots.directories import InlineDisk, Killed, Leader, MortalDisk, contents, history
from tests.snapshots.restoring import check, run


class DyingDisk(InlineDisk):
    """A disk on which the write number `fails_at` fails, counting whole files, appends' segments and renames."""

    def __init__(self, fails_at: int) -> None:
        self.steps = 0
        self.fails_at = fails_at

    def sync_directory(self, path: str) -> None:
        """Every file that is made, renamed or removed durably ends here."""
        self.steps += 1
        if self.steps == self.fails_at:
            raise WriteFailed("the disk is gone", path=path)
        super().sync_directory(path)


def test_a_restore_that_fails_leaves_no_target_and_can_be_run_again(tmp_path: Path) -> None:
    """Whatever step the disk fails at: no target, the source as it was, no data left; and the next restore succeeds."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 40, snapshots=[20])
    (source / "signing.key").write_bytes(b"key")
    fails_at, failures = 0, 0
    while not target.exists():
        fails_at += 1
        try:
            run(source, target, disk=DyingDisk(fails_at))
        except WriteFailed:
            if not target.exists():
                failures += 1
                leftover = target.with_name(target.name + UNFINISHED)
                assert set(contents(leftover) if leftover.exists() else {}) <= {"lock"}
    assert failures > 5
    leader = Leader(target)
    assert leader.tail.epoch == 2
    leader.close()


def test_a_target_that_is_whole_is_said_to_be_though_its_name_may_not_last(tmp_path: Path) -> None:
    """Only the last sync fails: the error tells that, and what to do after a power cut; the target can be served."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 20)

    class Nameless(InlineDisk):
        def sync_directory(self, path: str) -> None:
            if target.exists():
                raise WriteFailed("can't sync the directory: Input/output error", path=path)
            super().sync_directory(path)

    with pytest.raises(WriteFailed, match=r"was restored, is whole and was read back") as failed:
        run(source, target, disk=Nameless())
    assert (failed.value.path, failed.value.seq) == (str(tmp_path), Leader(source).tail.seq + 1)
    assert str(target) + UNFINISHED in failed.value.remedy
    leader = Leader(target)
    assert leader.tail.epoch == 2
    leader.close()


def test_a_restore_that_is_killed_anywhere_leaves_no_half_target(tmp_path: Path) -> None:
    """Killed at each step in turn: there is no target, or it is whole; and the next restore succeeds."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 30, snapshots=[15])
    dies_at = 0
    while not target.exists():
        dies_at += 1
        with contextlib.suppress(Killed):
            run(source, target, disk=MortalDisk(dies_at))
    assert dies_at > 20
    leader = Leader(target)
    assert leader.tail.epoch == 2
    leader.close()
    again = tmp_path / "again"
    with pytest.raises(Killed):
        run(source, again, disk=MortalDisk(dies_at // 2))
    check(source, again, run(source, again))


def test_what_an_interrupted_restore_left_is_cleared(tmp_path: Path) -> None:
    """A restore was killed and left half of a directory: the next one with the same target is not led astray by it."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 30)
    leftover = target.with_name(target.name + UNFINISHED)
    history(leftover, 50, snapshots=[10, 50])
    report = run(source, target)
    check(source, target, report)
    assert not leftover.exists()


def test_two_restores_to_one_target_do_not_mix(tmp_path: Path) -> None:
    """While one runs, the other is refused."""
    source, target = tmp_path / "source", tmp_path / "target"
    history(source, 10)
    building = target.with_name(target.name + UNFINISHED)
    building.mkdir()
    lock = InlineDisk().lock(str(building / "lock"))
    with pytest.raises(DirectoryInUse):
        run(source, target)
    lock.release()
    check(source, target, run(source, target))
