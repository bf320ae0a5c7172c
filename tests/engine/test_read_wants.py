"""Reading sealed actions: the disk is told of all reads before it has to wait for the first."""

from __future__ import annotations

from pathlib import Path

from engine.action_run import Run
from engine.disk import RealDisk, RealFile
from engine.sealed_actions import Want, read_wants
from tests.engine.action_runs import actions, entries_of, seal, small_blocks


class ToldFile(RealFile):
    """A file that notes what it is told of, and what is read."""

    calls: list[tuple[str, int]]

    def read_at(self, offset: int, length: int) -> bytes:
        """Note it, and read."""
        self.calls.append(("read", offset))
        return super().read_at(offset, length)

    def will_read(self, offset: int, length: int) -> None:
        """Note it."""
        self.calls.append(("told", offset))
        super().will_read(offset, length)


def reads(run: Run, wants: list[Want], calls: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Read, and give what the file was asked for."""
    calls.clear()
    found = read_wants(wants)
    assert [each.key for each in found] == [want.key for want in wants]
    assert all(each.seq for each in found)
    return list(calls)


def test_the_disk_is_told_of_all_reads_first(tmp_path: Path) -> None:
    """One alone is read at once."""
    calls: list[tuple[str, int]] = []

    class Noting(ToldFile):
        """With one list for all files."""

    Noting.calls = calls
    disk = RealDisk()
    disk.file_type = Noting
    with small_blocks(400):
        columns = actions(1)
        [run] = seal(disk, str(tmp_path / "actions"), {}, columns, 1).values()
    entries = entries_of(columns)
    wants = [
        Want(high.to_bytes(8, "little") + low.to_bytes(8, "little"), run, at)
        for at, (high, low, _, _) in enumerate(entries)
        if at in (3, 200, 399)
    ]
    blocks = [0, 4096, 3 * 4096]
    assert reads(run, wants, calls) == [("told", at) for at in blocks] + [("read", at) for at in blocks]
    assert reads(run, wants[:1], calls) == [("read", 0)]
