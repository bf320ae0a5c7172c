"""The filter of a run: which of its entries may be an action's. It lies in memory, 3.5 bytes an action.

    filter = Filter.make(highs, lows)               the keys of a run, sorted by their first word
    filter.places(high, low)                        entries that may be this key's; for a new action nearly always none
    Filters([filter, …]).places_all(highs, lows)    the same for the keys of a frame and the runs of a state together

      starts      u32     for each bucket its first entry, and at the end the number of entries
      prints16    u16     for each entry bits 0 to 15 of the second word of its key
      prints8     u8      bits 16 to 23

A bucket has the entries whose first word begins with the same bits. There are so many buckets that one has about
BUCKET_ENTRIES entries. Example with 4 buckets and the starts 0, 2, 2, 5, 9: a key with the first word 0xBF… (bits
10…) is in the bucket 2, so it may be at the entries 2, 3 and 4.

Theory: a Bloom filter of 28 bits an action would say yes wrongly for 1.4 of a million new keys. This one does for 0.5,
and a yes names the entry, so a repeated action costs one read. It must be sorted as the entries are, which a run is.

Rules:
- A key that is there is never missed: its entry is in its bucket, and has its fingerprints.
- A key that is not there is said to be there with a chance of BUCKET_ENTRIES / 2^24.
- A caller chooses actionIds, but keys are their digests. To fill one bucket of a run of a million he must try 100,000
  ids for each. The bucket is then slower, and nothing else.
- Nothing changes after it was made, so all threads may read.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from engine.action_blocks import Words

BUCKET_ENTRIES = 8
"""Entries of a bucket on average; between 4 and 8 if the number of entries is no power of two."""

WINDOW = 16
"""Entries that `places_all` looks at for every key. Of 1,000 buckets 4 are longer; these are searched one by one."""

BITS_LEAST = 1
WORD_BITS = 64
ENTRIES_MAX = 2**32 - 1


def bits_for(count: int) -> int:
    """Give the number of bits that choose the bucket, in a run of this many entries."""
    return max(BITS_LEAST, (count - 1).bit_length() - BUCKET_ENTRIES.bit_length() + 1)


class Filter:
    """The filter of a run of `count` entries. The three columns are as in the run's file, but with WINDOW more prints.

    `starts` has u32, `prints16` u16, `prints8` bytes.
    """

    __slots__ = (
        "_find", "_prints16", "_starts", "count", "prints8", "prints16", "shift", "starts", "windows",
    )  # fmt: skip

    def __init__(self, starts: NDArray[np.uint32], prints16: NDArray[np.uint16], prints8: bytearray) -> None:
        self.count = len(prints8) - WINDOW
        assert len(prints16) == len(prints8)
        assert int(starts[-1]) == self.count
        self.starts, self.prints16, self.prints8 = starts, prints16, prints8
        self.shift = WORD_BITS + 1 - len(starts).bit_length()
        assert len(starts) == (1 << WORD_BITS - self.shift) + 1
        # Indexed by Python, a memoryview is twice as fast as an array of numpy.
        self._starts = memoryview(starts)  # type: ignore[arg-type]
        self._prints16 = memoryview(prints16)  # type: ignore[arg-type]
        self._find = prints8.find
        # Window n shows the prints of the entries from n on. As numbers of 16 bytes they are copied quickest.
        self.windows = np.ndarray((self.count + 1,), np.complex128, prints8, 0, (1,))

    @classmethod
    def make(cls, highs: Words, lows: Words) -> Filter:
        """Make the filter of keys that are sorted by their first word."""
        maker = FilterMaker(len(highs))
        maker.add(highs, lows)
        return maker.made()

    @property
    def bits(self) -> int:
        """How many bits of a key choose its bucket."""
        return WORD_BITS - self.shift

    @property
    def bytes(self) -> int:
        return self.starts.nbytes + self.prints16.nbytes + len(self.prints8)

    def places(self, high: int, low: int) -> list[int]:
        """List the entries that may be this key's. O(entries of its bucket)."""
        starts, bucket = self._starts, high >> self.shift
        place = self._find(low >> 16 & 0xFF, starts[bucket], starts[bucket + 1])
        return [] if place < 0 else self._places_from(place, starts[bucket + 1], low)

    def _places_from(self, place: int, end: int, low: int) -> list[int]:
        """List these entries, from the first one on that has the right eight bits."""
        places = []
        while place >= 0:
            if self._prints16[place] == low & 0xFFFF:
                places.append(place)
            place = self._find(low >> 16 & 0xFF, place + 1, end)
        return places

    def _check(self) -> None:
        assert self.starts[0] == 0
        assert (self.starts[:-1] <= self.starts[1:]).all()


class Filters:
    """The filters of several runs, which are asked together.

    One by one, each key would wait for the memory. numpy requests the windows of all keys together. With few keys a
    call of numpy takes longer than its work, so the runs share all calls but those that look into one filter.
    """

    __slots__ = ("_filters", "_shifts")

    def __init__(self, filters: Iterable[Filter]) -> None:
        self._filters = list(filters)
        self._shifts = np.array([each.shift for each in self._filters], np.uint64)[:, np.newaxis]

    def places(self, high: int, low: int) -> list[tuple[int, int]]:
        """List (number of the filter, entry) for the entries that may be this key's."""
        return [(number, at) for number, each in enumerate(self._filters) for at in each.places(high, low)]

    def places_all(self, highs: Words, lows: Words) -> list[tuple[int, int, int]]:
        """List (number of the filter, number of the key, entry) for the entries that may be one of these keys'."""
        count, shape = len(highs), (len(self._filters), len(highs))
        buckets = (highs >> self._shifts).astype(np.int64)
        bounds, windows = np.empty((2, *shape), np.uint32), np.empty(shape, np.complex128)
        for number, each in enumerate(self._filters):
            at = buckets[number]
            bounds[0, number] = starts = each.starts[at]
            bounds[1, number] = each.starts[at + 1]
            windows[number] = each.windows[starts]
        starts, ends = bounds.astype(np.int64).reshape(2, -1)
        prints = (lows >> np.uint64(16)).astype(np.uint8).repeat(WINDOW)
        same = np.flatnonzero(windows.view(np.uint8) == prints)
        asked = same // WINDOW  # number of the filter · count + number of the key
        places = starts[asked] + same % WINDOW
        within = places < ends[asked]
        asked, places = asked[within], places[within]
        numbers, keys = divmod(asked, count)
        prints16 = np.empty(len(asked), np.uint16)
        cuts = np.searchsorted(numbers, range(len(self._filters) + 1)).tolist()
        for each, (begin, end) in zip(self._filters, pairwise(cuts), strict=True):
            if begin < end:
                prints16[begin:end] = each.prints16[places[begin:end]]
        good = prints16 == lows[keys].astype(np.uint16)
        found = list(zip(numbers[good].tolist(), keys[good].tolist(), places[good].tolist(), strict=True))
        for at in np.flatnonzero(ends - starts > WINDOW).tolist():
            number, key = divmod(at, count)
            beyond = int(starts[at]) + WINDOW
            its = self._filters[number].places(int(highs[key]), int(lows[key]))
            found += [(number, key, place) for place in its if place >= beyond]
        return found


class FilterMaker:
    """Makes the filter of `count` keys, which come in pieces. All pieces together are sorted by the first word."""

    def __init__(self, count: int) -> None:
        assert 0 < count <= ENTRIES_MAX
        self._bits = bits_for(count)
        self._count = count
        self._done = 0
        self._starts = np.zeros((1 << self._bits) + 1, np.uint32)
        self._prints16 = np.zeros(count + WINDOW, np.uint16)
        self._prints8 = bytearray(count + WINDOW)

    def add(self, highs: Words, lows: Words) -> None:
        """Add the next keys."""
        if not len(highs):
            return
        buckets = (highs >> np.uint64(WORD_BITS - self._bits)).astype(np.int64)
        first = int(buckets[0])
        counts = np.bincount(buckets - first).astype(np.uint32)
        self._starts[first + 1 : first + 1 + len(counts)] += counts
        begin, self._done = self._done, self._done + len(highs)
        self._prints16[begin : self._done] = lows.astype(np.uint16)
        np.frombuffer(self._prints8, np.uint8)[begin : self._done] = (lows >> np.uint64(16)).astype(np.uint8)

    def made(self) -> Filter:
        """Give the filter; every key was added."""
        assert self._done == self._count
        np.cumsum(self._starts, out=self._starts)
        return Filter(self._starts, self._prints16, self._prints8)
