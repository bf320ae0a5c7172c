"""The older applied actions, which lie in files: what of them is in memory, and how a thread reads the rest.

    wants = sealed.unread(keys)                what must be read before it is known whether these were applied
    found = read_wants(wants)                  in a worker thread
    sealed.note(found)                         from now on `places` has these keys
    place = sealed.places.get(key)             None: it is not among those that were read

`engine.action_run` has the files, `engine.action_filter` the filters. Sealed actions are in blocks
(`engine.action_blocks`): their runs hold the first `blocks` blocks of all applied actions, without a gap.

Invariants:
- A key is in a run exactly if an event with a seq up to `last_seq` applied its action. So a key that no filter knows,
  and that is not in memory, was never applied.
- What was found stays true for ever: an action keeps its seq. What was not found (`_absent`) is true of these runs
  only, so it goes with this object: whoever seals more makes another one.
- `places` has the keys that were read, at most READ_MAX; its values are places in `_seqs` and `_marks`. The oldest is
  overwritten.
- `forgotten` has the seqs of all sealed actions whose user was erased, whether or not the files say so already.

Only the event loop uses an object of this class. `read_wants` may run in any thread.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from engine import action_blocks
from engine.action_blocks import FORGOTTEN, RunInfo
from engine.action_filter import Filter, Filters
from engine.erased import pack_seqs, unpack_seqs
from engine.image import ACTIONS

READ_MAX = 65_536
"""Actions that were read and stay in memory, some 20 MiB."""

MANY = 16
"""From this number of keys on, the filters handle them together: numpy takes some 100 µs, a single key 0.8 µs a run."""

_two_words = struct.Struct("<QQ").unpack


class Run(Protocol):
    """An open file of sealed actions (`engine.action_run`)."""

    @property
    def info(self) -> RunInfo: ...

    @property
    def filter(self) -> Filter: ...

    @property
    def memory_bytes(self) -> int: ...

    def read(self, entry: int, high: int, low: int) -> tuple[int, int] | None:
        """Read seq and mark of an entry; None if it is of another key. Raises `DiskFault`."""

    def will_read(self, entry: int) -> None:
        """Have the disk begin a read of this entry."""


class Want(NamedTuple):
    """An entry of a run that may be the action of a key."""

    key: bytes
    run: Run
    entry: int


class Found(NamedTuple):
    """An action that was read. `seq` 0: no run has it."""

    key: bytes
    seq: int
    mark: int


class Manifest(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """What a snapshot says of sealed actions: their runs, the digests of their blocks, and which were forgotten."""

    block_actions: int
    runs: tuple[RunInfo, ...]
    digests: bytes
    forgotten: bytes


_decode = msgspec.msgpack.Decoder(Manifest).decode
_encode = msgspec.msgpack.Encoder().encode


def manifest_in(parts: Iterable[tuple[str, bytes]]) -> Manifest | None:
    """Give what the parts of a state say of sealed actions; None if none are sealed. Raises `msgspec.MsgspecError`."""
    data = dict(parts).get(ACTIONS)
    return None if data is None else _decode(data)


class SealedActions:
    """The sealed actions of a state. Without `runs` nothing can be looked up: enough for who only applies events.

    `reads` counts the actions that were read since the start.
    """

    def __init__(
        self, infos: Sequence[RunInfo] = (), digests: bytes = b"", forgotten: Iterable[int] = (),
        runs: Sequence[Run] | None = None,
    ) -> None:  # fmt: skip
        self.infos, self.digests = tuple(infos), digests
        self.forgotten = set(forgotten)
        self.runs = runs if infos else ()
        self._filters = Filters(run.filter for run in self.runs or ())
        self.count = sum(info.count for info in infos)
        self.last_seq = infos[-1].last_seq if infos else 0
        self.places: dict[bytes, int] = {}
        self._keys: list[bytes] = []
        self._seqs, self._marks = array("Q"), array("Q")
        self._next = 0
        self._absent: set[bytes] = set()
        self.reads = 0

    @classmethod
    def of(cls, manifest: Manifest | None, runs: Sequence[Run] | None = None) -> SealedActions:
        """Make the sealed actions of a snapshot. `runs` are the open files, in the order of the manifest."""
        if manifest is None:
            return cls()
        return cls(manifest.runs, manifest.digests, unpack_seqs(manifest.forgotten), runs)

    def grown(
        self, infos: Sequence[RunInfo], digests: bytes, runs: Sequence[Run], forgotten: Iterable[int]
    ) -> SealedActions:
        """Give the same with other runs, which have these actions and perhaps later ones."""
        other = SealedActions(infos, digests, forgotten, runs)
        assert other.count >= self.count
        other.places, other._keys, other._next = self.places, self._keys, self._next
        other._seqs, other._marks = self._seqs, self._marks
        other.reads = self.reads
        return other

    def opened(self, runs: Sequence[Run]) -> SealedActions:
        """Give the same with its runs, which were opened."""
        return self.grown(self.infos, self.digests, runs, self.forgotten)

    @property
    def blocks(self) -> int:
        """The number of sealed blocks."""
        return self.infos[-1].end if self.infos else 0

    @property
    def memory_bytes(self) -> int:
        """The memory of filters and digests, and of what was read (some 300 bytes each)."""
        filters = sum(run.memory_bytes for run in self.runs or ())
        return filters + len(self.digests) + 300 * len(self.places) + 64 * len(self.forgotten)

    # Looking up

    def unread(self, keys: Sequence[bytes]) -> list[Want]:
        """List what must be read before `places` is right about these keys. Most new keys need nothing."""
        runs = self.runs
        assert runs is not None, "these actions were not opened to be looked up"
        if not runs:
            return []
        if self.places or self._absent:
            places, absent = self.places, self._absent
            keys = [key for key in keys if key not in places and key not in absent]
        if len(keys) < MANY:
            wants = []
            for key in keys:
                wants += [Want(key, runs[run], entry) for run, entry in self._filters.places(*_two_words(key))]
            return wants
        words = np.frombuffer(b"".join(keys), "<u8").astype(np.uint64, copy=False)
        highs, lows = np.ascontiguousarray(words[0::2]), np.ascontiguousarray(words[1::2])
        return [Want(keys[at], runs[run], entry) for run, at, entry in self._filters.places_all(highs, lows)]

    def note(self, found: Iterable[Found]) -> None:
        """Take what `read_wants` found in these runs."""
        for key, seq, mark in found:
            self.reads += 1
            if not seq:
                if len(self._absent) >= READ_MAX:
                    self._absent.clear()
                self._absent.add(key)
            elif key not in self.places:
                self._keep(key, seq, mark)

    def _keep(self, key: bytes, seq: int, mark: int) -> None:
        place = self._next
        self._next = (place + 1) % READ_MAX
        if place < len(self._keys):
            del self.places[self._keys[place]]
            self._keys[place], self._seqs[place], self._marks[place] = key, seq, mark
        else:
            self._keys.append(key)
            self._seqs.append(seq)
            self._marks.append(mark)
        self.places[key] = place

    def seq_at(self, place: int) -> int:
        return self._seqs[place]

    def mark_at(self, place: int) -> int:
        """Give the mark of the action at a place that `places` has."""
        return FORGOTTEN if self._seqs[place] in self.forgotten else self._marks[place]

    # Into a snapshot

    def parts(self) -> tuple[tuple[str, bytes], ...]:
        """Give the part of a snapshot; none if nothing is sealed."""
        if not self.infos:
            return ()
        manifest = Manifest(action_blocks.BLOCK_ACTIONS, self.infos, self.digests, pack_seqs(sorted(self.forgotten)))
        return ((ACTIONS, _encode(manifest)),)


def read_wants(wants: Sequence[Want]) -> list[Found]:
    """Read what is wanted, and say of each key whether a run has it. Raises `DiskFault` for a damaged run.

    The disk is told of all reads first. One after the other, each would wait for it alone.
    """
    found: dict[bytes, Found] = {}
    for _, run, entry in wants if len(wants) > 1 else ():
        run.will_read(entry)
    for key, run, entry in wants:
        if key in found and found[key].seq:
            continue
        high, low = _two_words(key)
        read = run.read(entry, high, low)
        found[key] = Found(key, 0, 0) if read is None else Found(key, *read)
    return list(found.values())
