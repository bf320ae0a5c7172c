"""The snapshot files of a directory: they appear whole, are listed newest first, and are believed only when proved."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

import pytest

from engine.errors import DiskFault, SnapshotDamaged, WriteFailed
from engine.image import StateImage
from engine.record import Tail
from snapshots.store import Store
from tests.snapshots import images
from tests.snapshots.directories import InlineDisk, flip


def state(seq: int) -> tuple[StateImage, Tail]:
    """A small state at a seq, and its tail."""
    rows = [("ann", 10 * seq, seq, 1), ("bob", 5, seq - 1, 1)]
    board = images.board("main", seq, rows)
    image = StateImage(1, seq, seq, [(1, 1)], [board], images.users([]), images.actions([]))
    return image, Tail(log_id=bytes(16), epoch=1, seq=seq, checksum=seq)


def store_of(directory: Path) -> Store:
    """The store of a data directory."""
    return Store(InlineDisk(), str(directory))


def test_a_directory_without_snapshots_has_none(tmp_path: Path) -> None:
    """A new directory, which has no folder for snapshots yet, lists none and has nothing to tidy."""
    assert store_of(tmp_path).list() == []
    assert list(store_of(tmp_path).tidy()) == []


def test_what_was_saved_is_listed_newest_first_and_loaded(tmp_path: Path) -> None:
    """Three snapshots, saved in any order: listed by seq, with their real sizes, each with its own state."""
    store = store_of(tmp_path)
    saved = [store.save(*state(seq)) for seq in (20, 300, 1)]
    assert store.list() == [saved[1], saved[0], saved[2]]
    for info in store.list():
        assert store.load(info) == state(info.seq)
        assert store.verify(info) == state(info.seq)[1]
        assert Path(info.path).stat().st_size == info.bytes
        assert Path(info.path).name == f"{info.seq:020}.snapshot"


def test_a_snapshot_is_for_its_owner_alone(tmp_path: Path) -> None:
    """User ids and names are nobody else's business."""
    info = store_of(tmp_path).save(*state(1))
    assert stat.S_IMODE(Path(info.path).stat().st_mode) == 0o600


def test_a_damaged_snapshot_says_which_and_where(tmp_path: Path) -> None:
    """The error has the path, the offset, the seq, and what to do."""
    store = store_of(tmp_path)
    info = store.save(*state(7))
    flip(Path(info.path), 40)
    for read in (store.load, store.verify):
        with pytest.raises(SnapshotDamaged, match="goes on from the snapshot before it") as caught:
            read(info)
        assert (caught.value.path, caught.value.seq) == (info.path, 7)
        assert caught.value.offset is not None


def test_a_snapshot_under_another_ones_name_is_refused(tmp_path: Path) -> None:
    """Somebody copied the snapshot of seq 5 over that of seq 9: it proves itself, but not to be what it is called."""
    store = store_of(tmp_path)
    old, new = store.save(*state(5)), store.save(*state(9))
    Path(new.path).write_bytes(Path(old.path).read_bytes())
    for read in (store.load, store.verify):
        with pytest.raises(SnapshotDamaged, match="the snapshot of seq 5, under the name of another"):
            read(new)


def test_leftovers_of_interrupted_writes_are_not_listed_and_tidied(tmp_path: Path) -> None:
    """What a crash left under an unfinished name goes; snapshots, and files that somebody else put there, stay."""
    store = store_of(tmp_path)
    info = store.save(*state(5))
    directory = Path(store.directory)
    leftovers = [
        directory / f"{6:020}.snapshot.tmp",
        directory / f"{6:020}.snapshot.00ff00ff",
        directory / f"{6:020}.snapshot.00ff00ff.tmp",
    ]
    others = [directory / "README", directory / "copy of.snapshot", directory / "6.snapshot.tmp"]
    for path in leftovers + others:
        path.write_bytes(b"half")
    assert store.list() == [info]
    assert sorted(store.tidy()) == sorted(map(str, leftovers))
    assert sorted(directory.iterdir()) == sorted([Path(info.path), *others])


class FullDisk(InlineDisk):
    """A disk that is full after some bytes of a file."""

    def write_whole(self, path: str, chunks: Iterable[bytes], mode: int = 0o600, paced: bool = False) -> int:
        """Write, and fail at the third chunk."""

        def until_full() -> Iterable[bytes]:
            for number, chunk in enumerate(chunks):
                if number == 3:
                    raise WriteFailed("no space", path=path)
                yield chunk

        return super().write_whole(path, until_full(), mode, paced)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    """The disk gets full while a snapshot is replaced: the one that was there is whole, and nothing else is left."""
    info = store_of(tmp_path).save(*state(5))
    other = state(5)[0]
    with pytest.raises(WriteFailed):
        Store(FullDisk(), str(tmp_path)).save(other, state(5)[1])
    assert store_of(tmp_path).load(info) == state(5)
    assert list(Path(info.path).parent.iterdir()) == [Path(info.path)]


def test_two_who_save_the_same_seq_at_once_do_not_write_into_one_file(tmp_path: Path) -> None:
    """A tool saves the seq that the owner is just saving: whichever ends first, each finds its own file."""
    store = store_of(tmp_path)
    image, tail = state(5)
    tool = Store(_Interrupted(lambda: store.save(image, tail)), str(tmp_path))
    info = tool.save(image, tail, mark="abcd")
    assert store.list() == [info]
    assert store.load(info) == (image, tail)


class _Interrupted(InlineDisk):
    """A disk on which something else happens in the middle of a write."""

    def __init__(self, happen: object) -> None:
        self._happen = happen

    def write_whole(self, path: str, chunks: Iterable[bytes], mode: int = 0o600, paced: bool = False) -> int:
        """Write one chunk, let it happen, write the rest."""

        def interrupted() -> Iterable[bytes]:
            for number, chunk in enumerate(chunks):
                if number == 1:
                    assert callable(self._happen)
                    self._happen()
                yield chunk

        return super().write_whole(path, interrupted(), mode, paced)


def test_a_snapshot_that_goes_while_it_is_read_is_missing_not_damaged(tmp_path: Path) -> None:
    """Retention of a running leader takes a snapshot away after it was listed: no false alarm."""
    store = store_of(tmp_path)
    info = store.save(*state(5))
    store.remove(info.path)
    with pytest.raises(DiskFault) as caught:
        store.load(info)
    assert not isinstance(caught.value, SnapshotDamaged)
