"""The ids of a board's users, packed: 4 bytes a user beside the id's own, where a list of strings takes some 70. Pure.

    ids = UserIds(["ann", "bob"])
    ids.append("cid")
    ids[1], ids[0:2]                     "bob", ["ann", "bob"]: strings are made when somebody reads them

Invariants:
- The id of slot i is the UTF-8 in `data[bounds[i] : bounds[i + 1]]`, and `tags[i]` is its tag.
- `_recent` has ids that were read one by one, by slot.
- It only grows, because images share it (see `engine.image`): whoever takes users out makes another one. A reader in
  another thread reads slices, never a memoryview: the bytes could not grow while it exists.

A tag is 32 bits of the string's hash. It is another one in each process, so it is in no snapshot. `engine.slots` finds
users by it, and reads the fields of this class: a call for each would cost as much as the lookup.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray

TAG_MASK = (1 << 32) - 1

ROWS_AT_ONCE = 1_000

RECENT = 128
"""Strings that are kept: the first rows are read again and again."""


class UserIds:
    """A list of strings that only grows."""

    __slots__ = ("_recent", "bounds", "data", "tags")

    def __init__(self, user_ids: Iterable[str] = ()) -> None:
        self.data = bytearray()
        self.bounds = array("I", (0,))
        self.tags = array("I")
        self._recent: dict[int, str] = {}
        rest = iter(user_ids)
        while part := list(islice(rest, ROWS_AT_ONCE)):
            self.extend(part)

    def __len__(self) -> int:
        return len(self.tags)

    @property
    def bytes(self) -> int:
        return len(self.data) + (self.bounds.itemsize + self.tags.itemsize) * len(self.tags)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        bounds = self.bounds
        if isinstance(at, int):
            text = self._recent.get(at)
            if text is None:
                text = self.data[bounds[at] : bounds[at + 1]].decode()
                if len(self._recent) >= RECENT:
                    self._recent.clear()
                self._recent[at] = text
            return text
        start, stop, step = at.indices(len(self.tags))
        assert step == 1
        if start >= stop:
            return []
        bounds = bounds[start : stop + 1]
        data, first = self.data[bounds[0] : bounds[-1]], bounds[0]
        if data.isascii():
            text = data.decode()
            return [text[begin - first : end - first] for begin, end in pairwise(bounds)]
        return [data[begin - first : end - first].decode() for begin, end in pairwise(bounds)]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), ROWS_AT_ONCE):
            yield from self[start : start + ROWS_AT_ONCE]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, UserIds):
            return NotImplemented
        return self.data == other.data and self.bounds == other.bounds

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __repr__(self) -> str:
        return f"UserIds({list(self)!r})"

    def append(self, user_id: str) -> None:
        data = user_id.encode()
        if self.bounds[-1] + len(data) > TAG_MASK:
            self.extend((user_id,))
            return
        self.tags.append(hash(user_id) & TAG_MASK)
        self.data += data
        self.bounds.append(len(self.data))

    def extend(self, user_ids: Sequence[str]) -> None:
        """Add ids, in the order of their slots."""
        data, lengths = _packed(user_ids)
        tags = np.fromiter(map(hash, user_ids), np.int64, len(user_ids)) & TAG_MASK
        self.tags.frombytes(tags.astype(np.uint32).tobytes())
        end = self.bounds[-1]
        if end + len(data) > TAG_MASK and self.bounds.typecode == "I":
            self.bounds = array("Q", self.bounds)
        self.data += data
        ends = np.cumsum(lengths, dtype=np.int64) + end
        self.bounds.frombytes(ends.astype(self.bounds.typecode).tobytes())

    def are_at(self, slots: NDArray[np.int64], user_ids: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each of these slots has the id beside it. NOBODY has none."""
        data, listed = _packed(user_ids)
        lengths = np.array(listed, np.int64)
        bounds = np.frombuffer(self.bounds, np.dtype(self.bounds.typecode))
        begins = bounds[slots].astype(np.int64)
        same: NDArray[np.bool_] = bounds[slots + 1] - begins == lengths
        # Byte i of the joined ids stands beside byte `places[i]` of ours.
        ends = np.cumsum(lengths)
        places = np.arange(len(data)) + np.repeat(begins - ends + lengths, lengths)
        theirs = np.frombuffer(self.data, np.uint8).take(places, mode="clip")
        differs = theirs != np.frombuffer(data, np.uint8)
        if differs.any():
            count = np.concatenate(([0], np.cumsum(differs)))
            same &= count[ends] == count[ends - lengths]
        return same

    def copy(self, count: int | None = None) -> UserIds:
        """Give the first `count` ids, or all of them."""
        return self.arranged(len(self) if count is None else count, {})

    def arranged(self, count: int, others: Mapping[int, int]) -> UserIds:
        """Give the first `count` ids, where the slots in `others` have the ids of the slots that they lead to."""
        bounds, done, pieces = self.bounds, 0, []
        lengths = np.diff(np.frombuffer(bounds, np.dtype(bounds.typecode))[: count + 1])
        arranged = UserIds()
        arranged.tags = self.tags[:count]
        for slot, source in sorted(others.items()):
            pieces += [self.data[bounds[done] : bounds[slot]], self.data[bounds[source] : bounds[source + 1]]]
            lengths[slot] = bounds[source + 1] - bounds[source]
            arranged.tags[slot] = self.tags[source]
            done = slot + 1
        pieces.append(self.data[bounds[done] : bounds[count]])
        arranged.data = bytearray().join(pieces) if others else pieces[0]
        arranged.bounds = array(bounds.typecode, (0,))
        arranged.bounds.frombytes(np.cumsum(lengths, dtype=lengths.dtype).tobytes())
        return arranged

    def _check(self) -> None:
        assert len(self.bounds) == len(self.tags) + 1
        assert self.bounds[0] == 0
        assert self.bounds[-1] == len(self.data)
        assert list(self.tags) == [hash(user_id) & TAG_MASK for user_id in self]


def _packed(user_ids: Sequence[str]) -> tuple[bytes, list[int]]:
    """Give the UTF-8 of these ids, joined, and the length of each."""
    joined = "".join(user_ids)
    if joined.isascii():
        return joined.encode(), list(map(len, user_ids))
    encoded = [user_id.encode() for user_id in user_ids]
    return b"".join(encoded), list(map(len, encoded))
