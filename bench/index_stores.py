"""The stores that the bench of the index fills and asks: our runs, and two libraries. Each has the same methods.

    store = STORES["runs"](directory)
    store.add(keys, seqs, marks)            a block of actions, durable when it returns
    store.known(keys)                       the seq of each key, None for one that is not there
    store.close()

The index is derived from the log. So a store may lose a block that was not finished, but none that was. A library gets
what suits that: RocksDB no log of its own, LMDB a transaction for each block. Keys are sorted before they are added,
because both libraries take them quicker then.
"""

from __future__ import annotations

import importlib
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from bench.servers import Missing
from engine.action_blocks import Words, layout, run_name
from engine.action_filter import Filters
from engine.action_run import Columns, Run, write_run
from engine.disk import RealDisk

LOG_ID = bytes(range(16))
MAP_BYTES = 2**40
"""Address space that LMDB may use; it takes what it needs."""
TOGETHER = 32
"""From this number of keys on, our filters are asked for all of them together."""

_two_words = struct.Struct("<QQ")


class Store(Protocol):
    """See above. Keys are bytes of 16, `keys` of `add` two words each."""

    def add(self, keys: Words, seqs: Words, marks: Words) -> None: ...

    def known(self, keys: list[bytes]) -> list[int | None]: ...

    def close(self) -> None: ...


class Runs:
    """Our runs, sealed block by block as at checkpoints."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._disk = RealDisk()
        self._runs: dict[tuple[int, int], Run] = {}
        with suppress(FileNotFoundError):
            for name in sorted(os.listdir(directory)):
                run = Run.open(self._disk, f"{directory}/{name}", None, LOG_ID)
                self._runs[run.info.first, run.info.end] = run

    def add(self, keys: Words, seqs: Words, marks: Words) -> None:
        blocks = max((end for _, end in self._runs), default=0) + 1
        made: dict[tuple[int, int], Run] = {}
        for first, end in layout(blocks):
            if (first, end) in self._runs:
                made[first, end] = self._runs[first, end]
                continue
            sources: list[Run | Columns] = [run for at, run in self._runs.items() if first <= at[0] and at[1] <= end]
            if end == blocks:
                sources.append(Columns(keys, seqs, marks))
            info = write_run(self._disk, self._directory, sources, LOG_ID, first, end)
            made[first, end] = Run.open(self._disk, f"{self._directory}/{run_name(info)}", info, LOG_ID)
        for at, run in self._runs.items():
            if at not in made:
                run.close()
                self._disk.remove(run.path)
        self._runs = made

    def known(self, keys: list[bytes]) -> list[int | None]:
        found: list[int | None] = [None] * len(keys)
        if len(keys) < TOGETHER:
            for number, key in enumerate(keys):
                high, low = _two_words.unpack(key)
                for run in self._runs.values():
                    for entry in run.filter.places(high, low):
                        if (hit := run.read(entry, high, low)) is not None:
                            found[number] = hit[0]
            return found
        words = np.frombuffer(b"".join(keys), np.uint64)
        highs, lows = words[0::2], words[1::2]
        runs = list(self._runs.values())
        for at, number, entry in Filters(run.filter for run in runs).places_all(highs, lows):
            if (hit := runs[at].read(entry, *_two_words.unpack(keys[number]))) is not None:
                found[number] = hit[0]
        return found

    def close(self) -> None:
        for run in self._runs.values():
            run.close()


class Rocks:
    """RocksDB through rocksdict, with a Bloom filter of so many bits a key. Filters and indexes stay in memory."""

    def __init__(self, directory: str, bits: int) -> None:
        self._rocksdict = rocksdict = _library("rocksdict")
        table = rocksdict.BlockBasedOptions()
        table.set_bloom_filter(bits, False)
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(table)
        options.set_compression_type(rocksdict.DBCompressionType.none())  # digests do not compress
        self._write = rocksdict.WriteOptions()
        self._write.disable_wal = True
        # Named, because an existing database is opened without its filter otherwise: the file of its options lacks it.
        self._database = rocksdict.Rdict(directory, options, column_families={"default": options})

    def add(self, keys: Words, seqs: Words, marks: Words) -> None:
        batch = self._rocksdict.WriteBatch(raw_mode=True)
        for key, value in _sorted_pairs(keys, seqs, marks):
            batch.put(key, value)
        self._database.write(batch, self._write)
        self._database.flush()

    def known(self, keys: list[bytes]) -> list[int | None]:
        values = [self._database.get(keys[0])] if len(keys) == 1 else self._database.get(list(keys))
        return [None if value is None else _two_words.unpack(value)[0] for value in values]

    def close(self) -> None:
        self._database.close()


class Lmdb:
    """LMDB: a B+ tree in one file, which is mapped into memory."""

    def __init__(self, directory: str) -> None:
        self._environment = _library("lmdb").open(directory, map_size=MAP_BYTES, readahead=False)

    def add(self, keys: Words, seqs: Words, marks: Words) -> None:
        with self._environment.begin(write=True) as transaction, transaction.cursor() as cursor:
            cursor.putmulti(_sorted_pairs(keys, seqs, marks))

    def known(self, keys: list[bytes]) -> list[int | None]:
        with self._environment.begin(buffers=True) as transaction:
            values = map(transaction.get, keys)
            return [None if value is None else _two_words.unpack(value)[0] for value in values]

    def close(self) -> None:
        self._environment.close()


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing("pip install '.[bench]'") from error


def _sorted_pairs(keys: Words, seqs: Words, marks: Words) -> list[tuple[bytes, bytes]]:
    """List (key, seq and mark), sorted as bytes."""
    data, values = keys.tobytes(), np.column_stack((seqs, marks)).tobytes()
    pairs = [(data[at : at + 16], values[at : at + 16]) for at in range(0, len(data), 16)]
    pairs.sort()
    return pairs


STORES: dict[str, Callable[[str], Store]] = {
    "runs": Runs,
    "rocksdict, 10 bits": lambda directory: Rocks(directory, 10),
    "rocksdict, 28 bits": lambda directory: Rocks(directory, 28),
    "lmdb": Lmdb,
}
