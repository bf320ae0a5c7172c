"""A run: a file with the actions of some sealed blocks, sorted by key. It is derived from the log and never the truth.

    info = write_run(disk, directory, [run, columns], log_id, first, end)     durable when it returns
    run = Run.open(disk, f"{directory}/{run_name(info)}", info, log_id)
    for entry in run.filter.places(high, low): run.read(entry, high, low)     (seq, mark), or None: another key
    rewrite_forgotten(disk, run, seqs)                                        then open it again

The bytes are drawn in `engine.action_run_format`.

Theory: an action that is new needs no read, because the filter says so. A repeated one needs one read of 4 KiB. A run
is joined from its sources in one pass by ranges of `high`, so it takes some 45 MB beside its filter, however long it
is. Entries of one `high` stay in the order of their seqs, so the bytes follow from the actions and the marks.

Rules:
- A file appears whole or not at all. It never changes. An erasure puts another file in its place, with the same keys
  and seqs, and FORGOTTEN for marks.
- All that is read is proved: the tables when a run is opened, the entries each time. `RunDamaged` names file and
  offset, and the first seq of the run. Who owns the log makes the run anew.
- All methods of a `Run` but `close` may be called in any thread. A run that nobody refers to closes itself, so after
  its last read.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from struct import Struct
from typing import NamedTuple
from weakref import finalize

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from engine import action_blocks
from engine.action_blocks import (
    DIGEST_BYTES,
    ENTRY,
    FORGOTTEN,
    Entries,
    RunInfo,
    Words,
    block_digest,
    identity_of,
    run_name,
)
from engine.action_filter import WINDOW, Filter
from engine.action_run_bytes import damaged, read_footer
from engine.action_run_format import (
    BLOCK_BYTES,
    ENTRIES,
    FOOTER_BYTES,
    PIECE_BYTES,
    PIECE_ENTRIES,
    Footer,
    checksums_in,
    checksums_of,
    offsets_in,
    packed,
)
from engine.disk import Disk, File
from engine.errors import RunDamaged

PARTITION_ENTRIES = 2**18
"""Entries that are sorted together on average: 8 MiB, of which there are some copies for a moment."""

_unpack_entry = Struct("<4Q").unpack_from
_checksum = google_crc32c.value
_ENTRY_BYTES = ENTRY.itemsize
_WORDS = _ENTRY_BYTES // 8


class Columns(NamedTuple):
    """Actions of whole blocks in memory, in the order of their seqs: two words each in `digests`."""

    digests: array[int] | Words
    seqs: array[int] | Words
    marks: array[int] | Words


class Run:
    """An open run, with one file descriptor. `forgotten` counts its FORGOTTEN marks."""

    def __init__(
        self, path: str, file: File, info: RunInfo, log_id: bytes, forgotten: int, keys: Filter,
        checksums: NDArray[np.uint32], block_digests: list[bytes],
    ) -> None:  # fmt: skip
        self.path, self.info, self.log_id, self.forgotten = path, info, log_id, forgotten
        self.filter, self.block_digests = keys, block_digests
        self._file = file
        self._checksums = checksums
        self._checksums_view = memoryview(checksums)  # type: ignore[arg-type]  # indexed by Python it is quicker
        self._entries_bytes = info.count * _ENTRY_BYTES
        self._close = finalize(self, file.close)
        self._close.atexit = False

    @classmethod
    def open(cls, disk: Disk, path: str, info: RunInfo | None, log_id: bytes) -> Run:
        """Open a run and prove its tables. `info`: which run it must be; None if that is not known.

        Raises `FileMissing`, `RunDamaged`, `DiskFault`.
        """
        file = disk.open(path)
        try:
            return _opened(path, file, info, log_id)
        except BaseException:
            file.close()
            raise

    def close(self) -> None:
        """Close the file at once: no read may go on. Closing it twice does no harm."""
        self._close()

    @property
    def memory_bytes(self) -> int:
        """What it takes in memory: its filter, and a checksum for each ENTRIES entries."""
        return self.filter.bytes + self._checksums.nbytes

    @property
    def file_bytes(self) -> int:
        return offsets_in(self.info.count, self.info.end - self.info.first).footer + FOOTER_BYTES

    def read(self, entry: int, high: int, low: int) -> tuple[int, int] | None:
        """Read seq and mark of an entry; None if it is of another key. One read of 4 KiB. Raises `RunDamaged`."""
        block, place = divmod(entry, ENTRIES)
        offset = block * BLOCK_BYTES
        data = self._file.read_at(offset, min(BLOCK_BYTES, self._entries_bytes - offset))
        if _checksum(data) != self._checksums_view[block]:
            raise self._wrong(block)
        found_high, found_low, seq, mark = _unpack_entry(data, _ENTRY_BYTES * place)
        return (seq, mark) if found_low == low and found_high == high else None

    def will_read(self, entry: int) -> None:
        """Have the disk begin a read of this entry. For who reads several, one after the other."""
        self._file.will_read(entry // ENTRIES * BLOCK_BYTES, BLOCK_BYTES)

    def entries(self) -> Iterator[Entries]:
        """Read all entries, in pieces. Raises `RunDamaged`."""
        for first in range(0, self.info.count, PIECE_ENTRIES):
            block, count = first // ENTRIES, min(PIECE_ENTRIES, self.info.count - first)
            data = self._file.read_at(first * _ENTRY_BYTES, count * _ENTRY_BYTES)
            expected = self._checksums[block : block + checksums_in(count)].tolist()
            found = checksums_of(data)
            if found != expected:
                pairs = zip_longest(found, expected)
                raise self._wrong(block + next(n for n, (one, other) in enumerate(pairs) if one != other))
            yield np.frombuffer(data, ENTRY)

    def _wrong(self, block: int) -> RunDamaged:
        what = "the checksum of entries is wrong"
        return damaged(what, self.path, block * BLOCK_BYTES, self.info.first_seq)


def _opened(path: str, file: File, info: RunInfo | None, log_id: bytes) -> Run:
    footer, offset = read_footer(path, file, None if info is None else info.first_seq)
    if footer.log_id != log_id:
        raise damaged("the run belongs to another log", path, offset, footer.first_seq)
    keys, checksums, block_digests = _read_tables(path, file, footer)
    found = RunInfo(
        footer.first, footer.end, footer.count, footer.first_seq, footer.last_seq, identity_of(block_digests)
    )
    if info is not None and found != info:
        raise damaged("this is not the run that belongs here", path, offset, info.first_seq)
    return Run(path, file, found, log_id, footer.forgotten, keys, checksums, block_digests)


def _read_tables(path: str, file: File, footer: Footer) -> tuple[Filter, NDArray[np.uint32], list[bytes]]:
    """Read and prove filter, checksums and digests of the blocks. Raises `RunDamaged`."""
    count, blocks = footer.count, footer.end - footer.first
    offsets = offsets_in(count, blocks)
    starts = np.zeros((1 << footer.bits) + 1, "<u4")
    prints16 = np.zeros(count + WINDOW, "<u2")
    prints8 = bytearray(count + WINDOW)
    checksums = np.zeros(checksums_in(count), "<u4")
    digests = np.zeros(DIGEST_BYTES * blocks, np.uint8)
    checksum = 0
    for offset, column in (
        (offsets.starts, starts),
        (offsets.prints16, prints16[:count]),
        (offsets.prints8, np.frombuffer(prints8, np.uint8)[:count]),
        (offsets.checksums, checksums),
        (offsets.digests, digests),
    ):
        checksum = _fill(file, offset, column.view(np.uint8), checksum)
    if checksum != footer.tables_checksum:
        raise damaged("the checksum of its tables is wrong", path, offsets.starts, footer.first_seq)
    keys = Filter(starts.astype(np.uint32, copy=False), prints16.astype(np.uint16, copy=False), prints8)
    block_digests = [digests[at : at + DIGEST_BYTES].tobytes() for at in range(0, len(digests), DIGEST_BYTES)]
    return keys, checksums.astype(np.uint32, copy=False), block_digests


def _fill(file: File, offset: int, column: NDArray[np.uint8], checksum: int) -> int:
    """Read a table into memory; give the checksum of all tables so far. What the file lacks stays zero."""
    for begin in range(0, len(column), PIECE_BYTES):
        data = file.read_at(offset + begin, min(PIECE_BYTES, len(column) - begin))
        column[begin : begin + len(data)] = np.frombuffer(data, np.uint8)
        checksum = google_crc32c.extend(checksum, data)
    return checksum


def write_run(
    disk: Disk, directory: str, sources: Sequence[Run | Columns], log_id: bytes, first: int, end: int
) -> RunInfo:
    """Write the run of the blocks [first, end) from the sources that have them, in order. It replaces one of its name.

    Nothing may be added to the arrays of `Columns` meanwhile. Raises `RunDamaged` for a source, `WriteFailed`.
    """
    block_actions = action_blocks.BLOCK_ACTIONS
    block_digests: list[bytes] = []
    for source in sources:
        if isinstance(source, Run):
            assert source.info.first == first + len(block_digests)
            block_digests += source.block_digests
        else:
            assert len(source.seqs) == len(source.marks)
            for at in range(0, len(source.seqs), block_actions):
                stop = at + block_actions
                block_digests.append(block_digest(source.digests[2 * at : 2 * stop], source.seqs[at:stop]))
    count = (end - first) * block_actions
    assert len(block_digests) == end - first
    assert sum(source.info.count if isinstance(source, Run) else len(source.seqs) for source in sources) == count
    info = RunInfo(first, end, count, _seqs(sources[0])[0], _seqs(sources[-1])[1], identity_of(block_digests))
    disk.make_directory(directory)
    pieces = packed(_joined(sources, count), info, log_id, block_digests, None)
    disk.write_whole(f"{directory}/{run_name(info)}", pieces, paced=True)
    return info


def rewrite_forgotten(disk: Disk, run: Run, seqs: Iterable[int]) -> bool:
    """Put a file in the place of a run's in which the actions of these events are FORGOTTEN. Open it again then.

    False: nothing was to do, and the file is the same. Raises `RunDamaged`, `WriteFailed`.
    """
    wanted = np.array(sorted({seq for seq in seqs if run.info.first_seq <= seq <= run.info.last_seq}), np.uint64)
    if not len(wanted) or not any(_hits(piece, wanted).any() for piece in run.entries()):
        return False
    pieces = packed(_forgetting(run, wanted), run.info, run.log_id, run.block_digests, run.filter)
    disk.write_whole(run.path, pieces, paced=True)
    return True


def _hits(piece: Entries, wanted: Words) -> NDArray[np.bool_]:
    """Tell which of these entries are to be forgotten and are not yet. `wanted` are seqs, sorted."""
    seqs = piece["seq"]
    nearest = wanted[np.searchsorted(wanted, seqs).clip(max=len(wanted) - 1)]
    hits: NDArray[np.bool_] = (nearest == seqs) & (piece["mark"] != FORGOTTEN)
    return hits


def _forgetting(run: Run, wanted: Words) -> Iterator[Entries]:
    for piece in run.entries():
        changed = piece.copy()
        changed["mark"][_hits(piece, wanted)] = FORGOTTEN
        yield changed


def _seqs(source: Run | Columns) -> tuple[int, int]:
    """Give the first and the last seq of a source."""
    if isinstance(source, Run):
        return source.info.first_seq, source.info.last_seq
    return int(source.seqs[0]), int(source.seqs[-1])


def _joined(sources: Sequence[Run | Columns], count: int) -> Iterator[Entries]:
    """Give the entries of all sources, sorted, range by range of `high`."""
    bits = ((count - 1) // PARTITION_ENTRIES).bit_length()
    readers = [_RunReader(source) if isinstance(source, Run) else _ColumnsReader(source) for source in sources]
    for number in range(1 << bits):
        low = number << 64 - bits
        yield _partition(readers, low, low + (1 << 64 - bits) - 1)


def _partition(readers: Sequence[_RunReader | _ColumnsReader], low: int, last: int) -> Entries:
    """Give the entries of all readers whose `high` is in a range, sorted; those of one `high` in their order."""
    entries = np.concatenate([np.empty(0, ENTRY), *(part for reader in readers for part in reader.between(low, last))])
    order = np.argsort(entries["high"], kind="stable")
    # As rows of words they are copied quicker than as records.
    rows = entries.view("<u8").reshape(-1, _WORDS)
    return rows.take(order, axis=0).reshape(-1).view(ENTRY)


class _RunReader:
    """Reads a run from its beginning to its end, range by range."""

    def __init__(self, run: Run) -> None:
        self._pieces = run.entries()
        self._left = np.empty(0, ENTRY)

    def between(self, _low: int, last: int) -> Iterator[Entries]:
        """Give the entries whose `high` is at most `last`, after those that were given before."""
        while True:
            stop = int(np.searchsorted(self._left["high"], np.uint64(last), "right"))
            if stop:
                yield self._left[:stop]
                self._left = self._left[stop:]
            if len(self._left) or (piece := next(self._pieces, None)) is None:
                return
            self._left = piece


class _ColumnsReader:
    """Picks out of columns what is in a range. It looks through all of them each time, and keeps nothing."""

    def __init__(self, columns: Columns) -> None:
        self._digests, self._seqs, self._marks = (np.asarray(column) for column in columns)

    def between(self, low: int, last: int) -> Iterator[Entries]:
        """Give the entries whose `high` is in this range, in the order of their seqs."""
        highs = self._digests[0::2]
        places = np.flatnonzero((highs >= np.uint64(low)) & (highs <= np.uint64(last)))
        entries = np.empty(len(places), ENTRY)
        entries["high"], entries["low"] = highs[places], self._digests[1::2][places]
        entries["seq"], entries["mark"] = self._seqs[places], self._marks[places]
        yield entries
