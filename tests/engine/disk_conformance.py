"""What every disk must do: the real one, and any that stands in for it. A subclass gives the fixtures:

    class TestRealDisk(DiskConformance):
        @pytest.fixture
        def disk(self) -> Disk: ...

What is asked here is what the log and the snapshots build on. What becomes of unsynced bytes in a crash can't be asked
of a real disk; a simulated one has tests of its own for that.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.disk import PACE_BYTES, TMP, Disk, FileMissing
from engine.errors import DirectoryInUse, DiskFault, PlaceLost


class DiskConformance:
    """The suite. `root` is an empty directory of the disk."""

    @pytest.fixture
    def disk(self) -> Disk:
        """The disk under test."""
        raise NotImplementedError

    @pytest.fixture
    def root(self, disk: Disk) -> str:
        """An empty directory on it."""
        raise NotImplementedError

    def put(self, disk: Disk, path: str, data: bytes) -> None:
        """Make a file with these bytes."""
        file = disk.create(path)
        file.write_at(0, data)
        file.sync()
        file.close()

    def get(self, disk: Disk, path: str) -> bytes:
        """Read a whole file."""
        file = disk.open(path)
        try:
            return file.read_at(0, file.size() + 100)
        finally:
            file.close()

    def test_what_is_written_is_read(self, disk: Disk, root: str) -> None:
        """At any offset, over what was there, and from another handle."""
        file = disk.create(f"{root}/a")
        assert file.path == f"{root}/a"
        assert file.size() == 0
        file.write_at(0, b"hello world")
        file.write_at(6, b"there")
        file.sync()
        assert file.size() == disk.size(f"{root}/a") == 11
        assert file.read_at(0, 11) == b"hello there"
        assert self.get(disk, f"{root}/a") == b"hello there"
        file.close()

    def test_a_write_beyond_the_end_leaves_zeros_between(self, disk: Disk, root: str) -> None:
        """As a sparse file does."""
        file = disk.create(f"{root}/a")
        file.write_at(5, b"x")
        assert file.read_at(0, 10) == bytes(5) + b"x"
        file.close()

    def test_a_read_is_short_only_at_the_end(self, disk: Disk, root: str) -> None:
        """And empty after it."""
        self.put(disk, f"{root}/a", b"12345")
        file = disk.open(f"{root}/a")
        assert file.read_at(3, 10) == b"45"
        assert file.read_at(5, 10) == b""
        assert file.read_at(50, 10) == b""
        assert file.read_at(1, 0) == b""
        file.close()

    def test_telling_of_a_read_changes_nothing(self, disk: Disk, root: str) -> None:
        """It may be beyond the end, and the file may be closed."""
        file = disk.create(f"{root}/file")
        file.write_at(0, b"abcdef")
        file.will_read(2, 3)
        file.will_read(4096, 4096)
        assert file.read_at(2, 3) == b"cde"
        file.close()
        file.will_read(2, 3)

    def test_a_long_write_is_written_as_a_whole(self, disk: Disk, root: str) -> None:
        """Ten megabytes in one call."""
        data = bytes(range(256)) * 40_960
        self.put(disk, f"{root}/a", data)
        assert self.get(disk, f"{root}/a") == data

    def test_space_that_is_laid_out_holds_zeros_and_never_shortens(self, disk: Disk, root: str) -> None:
        """The length is there at once; what was written stays."""
        file = disk.create(f"{root}/a")
        file.write_at(0, b"head")
        file.preallocate(5000)
        assert file.size() == 5000
        assert file.read_at(0, 6000) == b"head" + bytes(4996)
        file.preallocate(100)
        assert file.size() == 5000
        file.close()

    def test_closing_twice_does_no_harm(self, disk: Disk, root: str) -> None:
        """So that cleaning up need not ask."""
        file = disk.create(f"{root}/a")
        file.close()
        file.close()

    def test_creating_over_a_file_is_refused(self, disk: Disk, root: str) -> None:
        """What is there stays as it is."""
        self.put(disk, f"{root}/a", b"old")
        with pytest.raises(DiskFault) as caught:
            disk.create(f"{root}/a")
        assert caught.value.path == f"{root}/a"
        assert self.get(disk, f"{root}/a") == b"old"

    def test_what_is_not_there_is_missing(self, disk: Disk, root: str) -> None:
        """One exception for it, with the path."""
        path = f"{root}/nowhere"
        assert not disk.exists(path)
        for act in (disk.open, disk.size, disk.remove, disk.list_directory):
            with pytest.raises(FileMissing) as caught:
                act(path)
            assert caught.value.path == path
        with pytest.raises(FileMissing):
            disk.rename(path, f"{root}/b")
        with pytest.raises(FileMissing):
            disk.open(path, write=True)
        with pytest.raises(FileMissing):
            disk.create(f"{path}/a")
        assert not disk.exists(path)

    def test_a_file_opened_for_reading_can_not_be_written(self, disk: Disk, root: str) -> None:
        """Whoever only reads a live log can't harm it by a mistake."""
        self.put(disk, f"{root}/a", b"old")
        file = disk.open(f"{root}/a")
        with pytest.raises(DiskFault):
            file.write_at(0, b"new")
        file.sync()
        file.close()
        assert self.get(disk, f"{root}/a") == b"old"

    def test_a_file_opened_for_writing_goes_on(self, disk: Disk, root: str) -> None:
        """Opening changes nothing."""
        self.put(disk, f"{root}/a", b"old")
        file = disk.open(f"{root}/a", write=True)
        file.write_at(3, b"er")
        file.close()
        assert self.get(disk, f"{root}/a") == b"older"

    def test_a_renamed_file_replaces_and_an_open_one_can_still_be_read(self, disk: Disk, root: str) -> None:
        """A reader keeps the file that it opened, under whatever name, removed or not."""
        self.put(disk, f"{root}/a", b"new")
        self.put(disk, f"{root}/b", b"old")
        reader = disk.open(f"{root}/b")
        disk.rename(f"{root}/a", f"{root}/b")
        disk.sync_directory(root)
        assert reader.read_at(0, 3) == b"old"
        assert self.get(disk, f"{root}/b") == b"new"
        assert disk.list_directory(root) == ["b"]
        disk.remove(f"{root}/b")
        assert reader.read_at(0, 3) == b"old"
        reader.close()
        assert disk.list_directory(root) == []

    def test_directories_are_made_with_those_above_and_stay(self, disk: Disk, root: str) -> None:
        """Making one again changes nothing; names are listed in order."""
        disk.make_directory(f"{root}/x/y")
        self.put(disk, f"{root}/x/y/b", b"")
        self.put(disk, f"{root}/x/y/a", b"")
        disk.make_directory(f"{root}/x/y")
        assert disk.exists(f"{root}/x")
        assert disk.list_directory(f"{root}/x") == ["y"]
        assert disk.list_directory(f"{root}/x/y") == ["a", "b"]

    def test_a_file_in_the_place_of_a_directory_is_a_fault(self, disk: Disk, root: str) -> None:
        """Nothing is made there."""
        self.put(disk, f"{root}/a", b"")
        with pytest.raises(DiskFault):
            disk.make_directory(f"{root}/a")
        with pytest.raises(DiskFault):
            disk.list_directory(f"{root}/a")

    def test_a_directory_is_renamed_with_all_that_is_in_it(self, disk: Disk, root: str) -> None:
        """Also in place of an empty one, never in place of one that holds something."""
        disk.make_directory(f"{root}/a/below")
        self.put(disk, f"{root}/a/below/file", b"kept")
        disk.make_directory(f"{root}/b")
        disk.rename(f"{root}/a", f"{root}/b")
        disk.sync_directory(root)
        assert disk.list_directory(root) == ["b"]
        assert self.get(disk, f"{root}/b/below/file") == b"kept"
        disk.make_directory(f"{root}/c")
        with pytest.raises(DiskFault):
            disk.rename(f"{root}/c", f"{root}/b")
        assert self.get(disk, f"{root}/b/below/file") == b"kept"
        assert disk.list_directory(root) == ["b", "c"]

    def test_a_file_is_renamed_into_another_directory(self, disk: Disk, root: str) -> None:
        """It is there then, and here no longer."""
        disk.make_directory(f"{root}/x")
        self.put(disk, f"{root}/a", b"moved")
        disk.rename(f"{root}/a", f"{root}/x/b")
        disk.sync_directory(root)
        disk.sync_directory(f"{root}/x")
        assert disk.list_directory(root) == ["x"]
        assert self.get(disk, f"{root}/x/b") == b"moved"

    def test_a_name_that_was_removed_can_be_given_again(self, disk: Disk, root: str) -> None:
        """Whoever has the old file open keeps it."""
        self.put(disk, f"{root}/a", b"old")
        old = disk.open(f"{root}/a", write=True)
        disk.remove(f"{root}/a")
        self.put(disk, f"{root}/a", b"new")
        old.write_at(0, b"OLD")
        old.sync()
        assert old.read_at(0, 3) == b"OLD"
        assert self.get(disk, f"{root}/a") == b"new"
        old.close()

    def test_two_handles_of_a_file_see_what_either_wrote(self, disk: Disk, root: str) -> None:
        """At once, synced or not; laid out space too."""
        first = disk.create(f"{root}/a")
        second = disk.open(f"{root}/a", write=True)
        first.write_at(0, b"one")
        second.write_at(3, b"two")
        first.preallocate(8)
        assert first.read_at(0, 9) == second.read_at(0, 9) == b"onetwo\0\0"
        assert second.size() == disk.size(f"{root}/a") == 8
        first.close()
        assert second.read_at(0, 3) == b"one"
        second.close()

    def test_a_file_that_was_closed_can_not_be_used(self, disk: Disk, root: str) -> None:
        """A bug of ours is a fault, and does not reach another file."""
        file = disk.create(f"{root}/a")
        file.close()
        for act in (lambda: file.write_at(0, b"x"), lambda: file.preallocate(9), lambda: file.read_at(0, 1), file.size):
            with pytest.raises(DiskFault):
                act()
        assert disk.size(f"{root}/a") == 0

    def test_a_lock_is_held_by_one(self, disk: Disk, root: str) -> None:
        """The second is told that it is in use, and by whom; after the release it is free."""
        lock = disk.lock(f"{root}/lock")
        with pytest.raises(DirectoryInUse, match=r"pid \d+") as caught:
            disk.lock(f"{root}/lock")
        assert caught.value.path == f"{root}/lock"
        assert caught.value.remedy
        lock.release()
        lock.release()
        disk.lock(f"{root}/lock").release()

    @pytest.mark.parametrize("paced", [False, True])
    def test_a_file_is_written_whole(self, disk: Disk, root: str, paced: bool) -> None:
        """Out of any number of pieces, in place of the old one; nothing else is left."""
        chunks = [b"a" * PACE_BYTES, b"b", b"", b"c" * PACE_BYTES, b"d"]
        path = f"{root}/a"
        for expected in (chunks, [b"short"], []):
            assert disk.write_whole(path, iter(expected), paced=paced) == len(b"".join(expected))
            assert self.get(disk, path) == b"".join(expected)
            assert disk.list_directory(root) == ["a"]

    def test_a_file_that_could_not_be_finished_never_appears(self, disk: Disk, root: str) -> None:
        """Whatever stops it: the old one stays, and no half of a new one."""

        def chunks() -> Iterator[bytes]:
            yield b"half"
            raise KeyboardInterrupt

        for before in (None, b"old"):
            if before is not None:
                self.put(disk, f"{root}/a", before)
            with pytest.raises(KeyboardInterrupt):
                disk.write_whole(f"{root}/a", chunks())
            assert disk.list_directory(root) == ([] if before is None else ["a"])
        assert self.get(disk, f"{root}/a") == b"old"

    def test_what_a_crash_left_of_an_unfinished_file_is_no_hindrance(self, disk: Disk, root: str) -> None:
        """The next one that is written under that name takes its place."""
        self.put(disk, f"{root}/a{TMP}", b"left over, and longer than the new one")
        disk.write_whole(f"{root}/a", [b"new"])
        assert disk.list_directory(root) == ["a"]
        assert self.get(disk, f"{root}/a") == b"new"

    def test_a_file_knows_whether_its_path_still_leads_to_it(self, disk: Disk, root: str) -> None:
        """Not after it was removed, replaced, or renamed, and not in a directory that was exchanged."""
        disk.make_directory(f"{root}/data")
        path = f"{root}/data/a"
        for change in (
            lambda: disk.remove(path),
            lambda: disk.write_whole(path, [b"another"]),
            lambda: disk.rename(path, f"{path}.old"),
        ):
            file = disk.create(path)
            file.check_place()
            change()
            with pytest.raises(PlaceLost) as lost:
                file.check_place()
            assert lost.value.path == path
            file.close()
            if disk.exists(path):
                disk.remove(path)
        file = disk.create(path)
        disk.rename(f"{root}/data", f"{root}/old")
        with pytest.raises(PlaceLost):
            file.check_place()
        disk.make_directory(f"{root}/data")
        self.put(disk, path, b"")
        with pytest.raises(PlaceLost):
            file.check_place()
        disk.remove(path)
        disk.rename(f"{root}/old", f"{root}/data")
        file.check_place()
        file.close()

    def test_a_lock_knows_whether_its_directory_is_still_the_same(self, disk: Disk, root: str) -> None:
        """It names what was lost: the lock, or the directory. A second process can lock what is there then."""
        disk.make_directory(f"{root}/data")
        lock = disk.lock(f"{root}/data/lock")
        lock.check_place()
        disk.remove(f"{root}/data/lock")
        with pytest.raises(PlaceLost, match="the lock") as lost:
            lock.check_place()
        assert lost.value.path == f"{root}/data/lock"
        another = disk.lock(f"{root}/data/lock")
        with pytest.raises(PlaceLost):
            lock.check_place()
        another.check_place()
        disk.rename(f"{root}/data", f"{root}/old")
        disk.make_directory(f"{root}/data")
        with pytest.raises(PlaceLost, match="the data directory") as lost:
            another.check_place()
        assert lost.value.path == f"{root}/data"
        lock.release()
        another.release()

    def test_the_free_space_is_told(self, disk: Disk, root: str) -> None:
        """Of the file system that a directory is on."""
        assert disk.free_bytes(root) > 0
        with pytest.raises(FileMissing):
            disk.free_bytes(f"{root}/nowhere")
