"""Taking users out of the files of a directory, one kind of file at a time.

    content = rewritten(disk, segment, change)              of the log; None: it has nothing of these users
    paths = rewrite_periods(store, names)                   `names(seq)` gives what stands for whom in that period
    paths = remove_torn(disk, log_directory, change)
    is_named_in(disk, path, users)                          a snapshot, which is never rewritten: it goes as a whole

`snapshots.erasing` does it in a directory that nobody serves, `snapshots.settling` in one that is served.

Rules:
- Each file is replaced as a whole: written beside, synced, renamed.
- In a past period the row stays, under the pseudonym, so ranks and counts do. Readers leave it out.
- What was made of corrections goes: the next reader makes it anew.
- What recovery cut off and kept beside the log goes if it names a user: nothing reads it again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing

import msgspec
from msgspec.structs import replace

from engine.disk import Disk, FileMissing
from engine.errors import LogDamaged
from engine.record import FrameFault
from engine.rewriting import SEARCHED_MAX, ErasedBy, Forgetting, rewrite_content
from engine.segment import SegmentFile, read_content
from snapshots.period_file import ROWS, PeriodReader, PeriodRow, pack_period
from snapshots.period_store import PeriodStore

NamesAt = Callable[[int], Mapping[str, str]]
"""From the seq that ended a period to the pseudonyms that stand for users in its file."""

SEARCHED_BYTES = 2**20
"""Bytes of a snapshot that are searched at once. A snapshot is as large as the state, so it is not read whole."""

_TORN = ".torn-"


def rewritten(disk: Disk, segment: SegmentFile, change: Forgetting) -> bytes | None:
    """Give the content of a segment without the users; None if it has none of them. Raises `LogDamaged`."""
    try:
        return rewrite_content(read_content(disk, segment), change)
    except FrameFault as fault:
        raise LogDamaged(
            f"this segment can't be rewritten: {fault.reason}", path=segment.path, seq=segment.first_seq,
            remedy="`scoreboard log verify` says more. The erasure is in the log; erase again when it is mended.",
        ) from fault  # fmt: skip


def rewrite_periods(store: PeriodStore, names_at: NamesAt) -> list[str]:
    """Put pseudonyms into the files of past periods; give the paths of what changed or went."""
    paths: list[str] = []
    for seq in store.list():
        try:
            reader = store.open(seq)
            names = {user_id: name for user_id, name in names_at(seq).items() if reader.find(user_id) is not None}
            if names:
                store.take(seq, pack_period(reader.head, _renamed(reader, names)))
                paths.append(store.path(seq))
        except FileMissing:
            continue  # no board calls for it any more
    paths += store.remove_corrected()  # they name whom their files named
    store.make_final()
    return paths


def pseudonym_at(seq: int, erasures: Sequence[ErasedBy]) -> str | None:
    """Give the pseudonym of the first erasure after an event; None if there is none."""
    return next((pseudonym for erased_seq, pseudonym in erasures if erased_seq > seq), None)


def _renamed(reader: PeriodReader, names: Mapping[str, str]) -> Iterator[PeriodRow]:
    for start in range(0, reader.head.count, ROWS):
        for row in reader.rows(start, ROWS):
            yield replace(row, user_id=names.get(row.user_id, row.user_id))


def remove_torn(disk: Disk, directory: str, change: Forgetting) -> list[str]:
    """Remove what recovery cut off from a log if it names one of the users; give the paths."""
    removed: list[str] = []
    for name in disk.list_directory(directory):
        path = f"{directory}/{name}"
        if _TORN in name:
            with closing(disk.open(path)) as file:
                is_theirs = change.may_touch(file.read_at(0, file.size()))
            if is_theirs:
                disk.remove(path)
                removed.append(path)
    if removed:
        disk.sync_directory(directory)
    return removed


def is_named_in(disk: Disk, path: str, users: Collection[str]) -> bool:
    """Whether a snapshot may name one of the users, also a damaged one. Many may always: a search takes too long.

    Like `snapshots.finding` it looks for whole texts of msgpack. A text of a part that two chunks share is not found.
    """
    if len(users) > SEARCHED_MAX:
        return True
    needles = [msgspec.msgpack.encode(user_id) for user_id in users]
    overlap = max(map(len, needles), default=1) - 1  # a text may begin in one piece and end in the next
    with closing(disk.open(path)) as file:
        for offset in range(0, file.size(), SEARCHED_BYTES):
            data = file.read_at(offset, SEARCHED_BYTES + overlap)
            if any(needle in data for needle in needles):
                return True
    return False
