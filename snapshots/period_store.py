"""The files of past periods: DATA/periods/00000000000001000000.period, named by the seq of the event that ended it.

    store = PeriodStore(disk, data_directory)
    store.write(head, rows)
    store.open(head.seq).top(10)
    store.open_corrected(head.seq, correction).top(10)          `snapshots.corrected_period`

Rules:
- A file appears whole or not at all: it is written under another name, synced and renamed. `list` never shows the
  unfinished file of an interrupted write, and `remove_other` removes it.
- A file with such a name never changes, so reading needs no lock. Only the owner of the directory writes and removes.
  After an erasure another file takes its place. Who reads the old one goes on with it, to the last read.
- At most OPEN_MAX files stay open: those of the readers that were asked for last. A reader whose file was closed still
  serves: it opens the file for each read. So nobody needs to give a reader back.
- Every method may be called in any thread. Writing and removing take turns, so a removal never meets a file that is
  being written. Opening takes turns too: it is four short reads.

Invariant: `_open` has at most OPEN_MAX files, the one that was used longest ago first. No other file stays open, except
while a read of it goes on.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import closing, contextmanager
from threading import Lock
from typing import NamedTuple
from weakref import finalize

from msgspec.structs import replace

from engine.disk import TMP, Disk, File
from engine.errors import SnapshotDamaged
from snapshots.corrected_period import Correction
from snapshots.period_file import REMEDY, PeriodHead, PeriodReader, PeriodRow, pack_period

DIRECTORY = "periods"

OPEN_MAX = 16
"""Files that stay open. A year has 52 weeks, but only the last few are read often."""

_NAME = re.compile(r"(\d{20})\.period")
_DERIVED = re.compile(r"(\d{20})-[0-9a-f]{16}\.corrected")
_UNFINISHED = re.compile(r"\d{20}(\.period|-[0-9a-f]{16}\.corrected)" + re.escape(TMP))


class PeriodStore:
    """The period files of one data directory."""

    def __init__(self, disk: Disk, data_directory: str, open_max: int = OPEN_MAX) -> None:
        assert open_max > 0
        self._disk = disk
        self.directory = f"{data_directory}/{DIRECTORY}"
        self._open_max = open_max
        self._changing = Lock()
        self._opening = Lock()
        self._open: OrderedDict[str, _Open] = OrderedDict()

    def has(self, seq: int) -> bool:
        return self._disk.exists(self.path(seq))

    def list(self) -> list[int]:
        """List the seqs of the periods that have a file, lowest first."""
        return sorted(int(match[1]) for name in self._names() if (match := _NAME.fullmatch(name)) is not None)

    def write(self, head: PeriodHead, rows: Iterable[PeriodRow]) -> bool:
        """Write the file of a period. When this returns, it is durable. False: it existed, and `rows` are not read.

        It is synced in small portions, so that a sync of the log need not wait for all of it.
        """
        with self._changing:
            if self._keep(head.seq):
                return False
            self._disk.make_directory(self.directory)
            self._disk.write_whole(self.path(head.seq), pack_period(head, rows), paced=True)
            return True

    def keep(self, seq: int) -> bool:
        """Make the file of a period durable if it is there; tell whether it is."""
        with self._changing:
            return self._keep(seq)

    def _keep(self, seq: int) -> bool:
        if not self.has(seq):
            return False
        self._disk.make_directory(self.directory)  # syncs its name
        self._disk.sync_directory(self.directory)  # the process that wrote the file may have ended before it did
        return True

    def adopt(self, seq: int, path: str) -> None:
        """Take a file of this period that was fetched, synced and proved; it lies in the data directory."""
        with self._changing:
            self._disk.make_directory(self.directory)
            self._disk.rename(path, self.path(seq))
            self._disk.sync_directory(self.directory)
            self._let_go(self.path(seq))

    def take(self, seq: int, pieces: Iterable[bytes]) -> None:
        """Write the file of a period from the bytes of another node's or directory's file, which were proved."""
        with self._changing:
            self._disk.make_directory(self.directory)
            self._disk.write_whole(self.path(seq), pieces, paced=True)
            self._let_go(self.path(seq))

    def _let_go(self, path: str) -> None:
        """Open a file anew for the next reader, because another one takes its place. It closes with its last reader."""
        with self._opening:
            if (opened := self._open.pop(path, None)) is not None:
                finalize(opened.reader, opened.source.close)

    def open(self, seq: int) -> PeriodReader:
        """Give a reader of a period's file. Raises `FileMissing` if it is gone, `SnapshotDamaged` if it is damaged.

        The reader's methods raise the same errors.
        """
        return self._opened(seq, self.path(seq))

    def open_corrected(self, seq: int, correction: Correction) -> PeriodReader:
        """Give a reader of a period as corrections left it. The file for that is made if it is not there.

        Raises the same errors as `open`, and `NoSpace`.
        """
        path = f"{self.directory}/{seq:020}-{correction.mark}.corrected"
        with self._changing:
            if not self._disk.exists(path):
                reader = self.open(seq)
                head = replace(reader.head, count=correction.corrected.count)
                rows = correction.rows(reader, reader.head.count)
                self._disk.write_whole(path, pack_period(head, rows), paced=True)
            return self._opened(seq, path)  # before anybody may remove it

    def _opened(self, seq: int, path: str) -> PeriodReader:
        with self._opening:
            opened = self._open.get(path)
            if opened is None:
                opened = self._open[path] = self._open_file(seq, path)
                while len(self._open) > self._open_max:
                    _, oldest = self._open.popitem(last=False)
                    oldest.source.close()
            self._open.move_to_end(path)
            return opened.reader

    def _open_file(self, seq: int, path: str) -> _Open:
        source = _ClosingFile(self._disk, path)
        try:
            reader = PeriodReader(source, path)
            if reader.head.seq != seq:
                what = f"this is the file of the period that seq {reader.head.seq} ended, under the name of another"
                raise SnapshotDamaged(what, path=path, seq=seq, remedy=REMEDY)
        except BaseException:
            source.close()
            raise
        return _Open(source, reader)

    def remove_other(self, kept: Set[int], marks: Set[str] = frozenset()) -> Sequence[str]:
        """Remove the files of all periods but these, and what interrupted writes left; give their paths.

        `marks` are those of the corrections whose files stay.

        A power cut may bring a file back; that does no harm until `make_final`. Any file with another name stays.
        """
        with self._changing:
            others = [seq for seq in self.list() if seq not in kept]
            unfinished = [f"{self.directory}/{name}" for name in self._names() if _UNFINISHED.fullmatch(name)]
            removed = [self.path(seq) for seq in others]
            derived = [name for name in self._names() if _DERIVED.fullmatch(name) and name[21:37] not in marks]
            removed += [f"{self.directory}/{name}" for name in derived]
            for path in removed:
                self._remove_period(path)
            for path in unfinished:
                self._disk.remove(path)
        return removed + unfinished

    def remove_before(self, seq: int) -> Sequence[str]:
        """Remove the files of the periods that ended before a seq, and what was made of them; give the paths."""
        with self._changing:
            paths = [self.path(each) for each in self.list() if each < seq]
            for path in paths:
                self._remove_period(path)
            if paths:
                self._disk.sync_directory(self.directory)
        return [*paths, *self.remove_corrected()]

    def make_final(self) -> None:
        """See to it that a power cut brings no file back that was removed: it may name a user who is erased."""
        if self._disk.exists(self.directory):
            self._disk.sync_directory(self.directory)

    def remove_corrected(self) -> Sequence[str]:
        """Remove what was made of corrections, and what interrupted writes left; give the paths.

        The next reader makes it anew.
        """
        with self._changing:
            names = [name for name in self._names() if _DERIVED.fullmatch(name) or _UNFINISHED.fullmatch(name)]
            paths = [f"{self.directory}/{name}" for name in names]
            for path in paths:
                self._let_go(path)  # who reads it goes on, to the last read
                self._disk.remove(path)
            if paths:
                self._disk.sync_directory(self.directory)  # a power cut must bring none back
        return paths

    def _remove_period(self, path: str) -> None:
        with self._opening:  # so that nobody opens it between the two steps, and keeps a file that is gone
            if (opened := self._open.pop(path, None)) is not None:
                opened.source.close()
            self._disk.remove(path)

    def close(self) -> None:
        """Close all files. The readers go on serving, as those do whose files were closed for others."""
        with self._opening:
            while self._open:
                _, opened = self._open.popitem()
                opened.source.close()

    def path(self, seq: int) -> str:
        return f"{self.directory}/{seq:020}.period"

    def _names(self) -> Sequence[str]:
        return self._disk.list_directory(self.directory) if self._disk.exists(self.directory) else []

    def _check(self) -> None:
        with self._opening:
            assert len(self._open) <= self._open_max
            assert all(path == self.path(reader.head.seq) or "-" in path for path, (_, reader) in self._open.items())
            assert all(source.is_open for source, _ in self._open.values())


class _ClosingFile:
    """A file that may be closed while other threads read it: the last of these reads closes it.

    After that each read opens the file for itself. It is the same file then, because it never changes.
    """

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._lock = Lock()
        self._file: File | None = disk.open(path)
        self._reads = 0
        self._closed = False

    @property
    def is_open(self) -> bool:
        return not self._closed

    def size(self) -> int:
        with self._lent() as file:
            return file.size()

    def read_at(self, offset: int, length: int) -> bytes:
        with self._lent() as file:
            return file.read_at(offset, length)

    def close(self) -> None:
        """Close the file now, or after the reads that go on."""
        with self._lock:
            self._closed = True
            self._close_unused()

    @contextmanager
    def _lent(self) -> Iterator[File]:
        with self._lock:
            file = None if self._closed else self._file
            if file is not None:
                self._reads += 1
        if file is None:
            with closing(self._disk.open(self._path)) as file:
                yield file
            return
        try:
            yield file
        finally:
            with self._lock:
                self._reads -= 1
                self._close_unused()

    def _close_unused(self) -> None:
        if self._closed and not self._reads and self._file is not None:
            self._file.close()
            self._file = None


class _Open(NamedTuple):
    source: _ClosingFile
    reader: PeriodReader
