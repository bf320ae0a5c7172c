"""The blocks of applied actions, and which of them share a run. All nodes with one log agree on this, so on their runs.

    layout(6)                                [(0, 4), (4, 5), (5, 6)]: the runs that hold the blocks 0 to 5
    digest = block_digest(digests, seqs)     of the BLOCK_ACTIONS actions of a block, in the order of their seqs
    name = run_name(info)                    0000000000-0000000004-9c0f5b1f7e0a4d3c.run

The n-th applied action has the ordinal n = 0, 1, 2 … A block has BLOCK_ACTIONS actions of consecutive ordinals. Only
whole blocks are sealed, the oldest first, into runs: files that never change but for what an erasure forgets
(`engine.action_run`).

Rules:
- The runs follow from the number of sealed blocks alone, whatever the steps in which they were sealed: its digits in
  base FAN, the largest first. So an action is written about once for each digit, and few runs are asked for a key.
- A run has at most RUN_BLOCKS_MAX blocks. Beyond that there are several of this size.
- The digest of a block proves which actions are in it, in which order, with which seqs. Marks are left out, because an
  erasure changes them. The identity of a run is the digest of its blocks' digests.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from hashlib import blake2b

import msgspec
import numpy as np
from numpy.typing import NDArray

BLOCK_ACTIONS = 2**18
"""Actions of a block. In memory they take 11 MB; a log at full speed makes a block in 3 seconds. Read at run time."""

FAN = 4
"""Runs of one size that are joined into one. A larger one means fewer copies of an action, and more runs to ask."""

RUN_BLOCKS_MAX = FAN**6
"""Blocks of the largest runs: 2^30 actions, 38 GB. The filter counts entries in 32 bits (`engine.action_filter`)."""

FORGOTTEN = 0
"""The mark of an action whose user was erased."""

DIGEST_BYTES = 32

ENTRY = np.dtype([("high", "<u8"), ("low", "<u8"), ("seq", "<u8"), ("mark", "<u8")])
"""An action in a run. `high` and `low` are the words of its key, as struct's "<QQ" reads them."""

Words = NDArray[np.uint64]
Entries = NDArray[np.void]


class RunInfo(msgspec.Struct, frozen=True, array_like=True):
    """A run: its blocks [first, end), the number of its actions, their first and last seq, and its identity."""

    first: int
    end: int
    count: int
    first_seq: int
    last_seq: int
    identity: bytes


def layout(blocks: int) -> list[tuple[int, int]]:
    """List the runs (first block, end block) that hold this many sealed blocks, in the order of their blocks."""
    runs: list[tuple[int, int]] = []
    first, size = 0, RUN_BLOCKS_MAX
    while first < blocks:
        while size > blocks - first:
            size //= FAN
        runs.append((first, first + size))
        first += size
    return runs


def block_digest(digests: array[int] | Words, seqs: array[int] | Words) -> bytes:
    """Give the digest of a block: two words for each action in `digests`, one in `seqs`, in the order of ordinals."""
    assert len(digests) == 2 * len(seqs)
    hashed = blake2b(little_endian(digests), digest_size=DIGEST_BYTES)
    hashed.update(little_endian(seqs))
    return hashed.digest()


def identity_of(block_digests: Iterable[bytes]) -> bytes:
    """Give the identity of the run of these blocks."""
    return blake2b(b"".join(block_digests), digest_size=DIGEST_BYTES).digest()


def run_name(info: RunInfo) -> str:
    """Give the name of the file of a run."""
    return f"{info.first:010}-{info.end:010}-{info.identity.hex()[:16]}.run"


def little_endian(column: array[int] | Words) -> bytes:
    """Give the bytes of a column of 64-bit words, the lowest byte first on every machine."""
    return np.asarray(column).astype("<u8", copy=False).tobytes()
