"""The bytes of a run, for who copies it to another place: each is proved before it is given, in little memory.

    with closing(RunBytes.open(disk, path)) as source:
        source.size, source.mark                   the mark is a checksum of what was written
        source.read_at(offset, length)
        source.prove(info, log_id)                 reads all of it, and compares which run it is

Theory: a run may take gigabytes, and its filter a tenth of that. Who only copies it needs neither lookups nor filter.
So the tables are read and proved in pieces, and the checksums of entries are read again with the entries.

Rules:
- The tables are proved when a run is opened, the entries each time.
- `engine.action_run` opens a run for lookups, and uses the footer and the errors from here.
"""

from __future__ import annotations

import google_crc32c
import numpy as np

from engine.action_blocks import DIGEST_BYTES, ENTRY, RunInfo, identity_of
from engine.action_run_format import (
    BLOCK_BYTES,
    FOOTER_BYTES,
    PIECE_BYTES,
    Footer,
    FooterFault,
    checksums_of,
    offsets_in,
    unpack_footer,
)
from engine.disk import Disk, File
from engine.errors import RunDamaged

REMEDY = "A node makes it anew from the log, now or at its start, if its events are still there. Else put it back."

CHECKSUM_BYTES = 4


def damaged(what: str, path: str, offset: int, seq: int | None) -> RunDamaged:
    """Say that a run does not verify. `seq` is its first one, if that is known."""
    return RunDamaged(f"the index of actions is damaged: {what}", path=path, offset=offset, seq=seq, remedy=REMEDY)


def read_footer(path: str, file: File, seq: int | None = None) -> tuple[Footer, int]:
    """Read the footer of a run, and where it begins. `seq` is the run's first one, if known. Raises `RunDamaged`."""
    offset = max(0, file.size() - FOOTER_BYTES)
    try:
        return unpack_footer(file.read_at(offset, FOOTER_BYTES), offset), offset
    except FooterFault as fault:
        raise damaged(str(fault), path, offset, seq) from fault


class RunBytes:
    """The bytes of one run, which is open."""

    def __init__(self, path: str, file: File, footer: Footer, offset: int) -> None:
        """Begin with a footer and where it begins. The tables are proved already."""
        self.path, self.footer = path, footer
        self.size = offset + FOOTER_BYTES
        self._file = file
        self._offsets = offsets_in(footer.count, footer.end - footer.first)
        self.mark = file.read_at(offset, FOOTER_BYTES)[-2 * CHECKSUM_BYTES :].hex()

    @classmethod
    def open(cls, disk: Disk, path: str) -> RunBytes:
        """Open a run and prove its tables. Raises `FileMissing`, `RunDamaged`, `DiskFault`."""
        file = disk.open(path)
        try:
            footer, offset = read_footer(path, file)
            checksum = 0
            for begin in range(ENTRY.itemsize * footer.count, offset, PIECE_BYTES):
                checksum = google_crc32c.extend(checksum, file.read_at(begin, min(PIECE_BYTES, offset - begin)))
            if checksum != footer.tables_checksum:
                tables = ENTRY.itemsize * footer.count
                raise damaged("the checksum of its tables is wrong", path, tables, footer.first_seq)
            return cls(path, file, footer, offset)
        except BaseException:
            file.close()
            raise

    @property
    def info(self) -> RunInfo:
        """Say which run it is."""
        begin, footer = self._offsets.digests, self.footer
        digests = self._file.read_at(begin, self._offsets.footer - begin)
        identity = identity_of(digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES))
        return RunInfo(footer.first, footer.end, footer.count, footer.first_seq, footer.last_seq, identity)

    def close(self) -> None:
        self._file.close()

    def read_at(self, offset: int, length: int) -> bytes:
        """Read bytes, fewer only at the end. The entries among them are proved. Raises `RunDamaged`, `DiskFault`."""
        end, tables = min(offset + length, self.size), self._offsets.starts
        if offset >= tables:
            return self._file.read_at(offset, max(0, end - offset))
        block = offset // BLOCK_BYTES
        begin = block * BLOCK_BYTES
        data = self._file.read_at(begin, max(end, min(tables, -(-end // BLOCK_BYTES) * BLOCK_BYTES)) - begin)
        self._prove(data[: tables - begin], block)
        return data[offset - begin : end - begin]

    def check(self, info: RunInfo, log_id: bytes) -> None:
        """Check that it is this run, of this log. Raises `RunDamaged`."""
        if (self.info, self.footer.log_id) != (info, log_id):
            raise damaged("this is not the run that belongs here", self.path, self._offsets.footer, info.first_seq)

    def prove(self, info: RunInfo, log_id: bytes) -> None:
        """Read all entries, too. Raises `RunDamaged`."""
        self.check(info, log_id)
        for offset in range(0, self._offsets.starts, PIECE_BYTES):
            self.read_at(offset, min(PIECE_BYTES, self._offsets.starts - offset))

    def _prove(self, entries: bytes, block: int) -> None:
        found = np.array(checksums_of(entries), "<u4").tobytes()
        expected = self._file.read_at(self._offsets.checksums + CHECKSUM_BYTES * block, len(found))
        if found != expected:
            places = range(0, len(found), CHECKSUM_BYTES)
            wrong = next(at for at in places if found[at : at + CHECKSUM_BYTES] != expected[at : at + CHECKSUM_BYTES])
            offset = (block + wrong // CHECKSUM_BYTES) * BLOCK_BYTES
            raise damaged("the checksum of entries is wrong", self.path, offset, self.footer.first_seq)
