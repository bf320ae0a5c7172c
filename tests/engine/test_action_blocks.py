"""Which blocks of actions share a run, and what proves a block."""

from __future__ import annotations

from array import array
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.action_blocks import FAN, RUN_BLOCKS_MAX, RunInfo, block_digest, identity_of, layout, run_name

BLOCKS = st.integers(0, 5 * RUN_BLOCKS_MAX)


@pytest.mark.parametrize(
    ("blocks", "runs"),
    [
        (0, []),
        (1, [(0, 1)]),
        (3, [(0, 1), (1, 2), (2, 3)]),
        (4, [(0, 4)]),
        (6, [(0, 4), (4, 5), (5, 6)]),
        (27, [(0, 16), (16, 20), (20, 24), (24, 25), (25, 26), (26, 27)]),
        (2 * RUN_BLOCKS_MAX + 1, [(0, 4096), (4096, 8192), (8192, 8193)]),
    ],
)
def test_the_runs_of_a_number_of_blocks(blocks: int, runs: list[tuple[int, int]]) -> None:
    """They are in the names of files on every node, so they stay as they are."""
    assert layout(blocks) == runs


@given(BLOCKS)
def test_the_runs_hold_every_block_once_and_are_few(blocks: int) -> None:
    """Without a gap, the larger ones first; of each size fewer than FAN, but for the largest."""
    runs = layout(blocks)
    assert [first for first, _ in runs] == [0, *(end for _, end in runs)][: len(runs)]
    assert sum(end - first for first, end in runs) == blocks
    sizes = [end - first for first, end in runs]
    assert sizes == sorted(sizes, reverse=True)
    assert all(sizes.count(size) < FAN for size in sizes if size < RUN_BLOCKS_MAX)
    assert set(sizes) <= {FAN**power for power in range(7)}


@given(BLOCKS, st.integers(1, 300))
def test_a_run_is_joined_from_whole_runs_and_new_blocks(blocks: int, more: int) -> None:
    """Whatever was sealed before: no run of before lies in two runs of after."""
    after = layout(blocks + more)
    for first, end in layout(blocks):
        assert sum(begin <= first and end <= stop for begin, stop in after) == 1


def test_the_digest_of_a_block_is_drawn_from_keys_and_seqs_alone() -> None:
    """Its bytes are those of the keys, then those of the seqs, whatever the columns are made of."""
    keys = [bytes(range(n, n + 16)) for n in range(5)]
    seqs = array("Q", [3, 4, 7, 8, 2**40])
    digests = array("Q", b"".join(keys))
    expected = blake2b(b"".join(keys) + b"".join(seq.to_bytes(8, "little") for seq in seqs), digest_size=32).digest()
    assert block_digest(digests, seqs) == expected
    assert block_digest(np.array(digests, np.uint64), np.array(seqs, np.uint64)) == expected
    assert block_digest(digests, array("Q", [3, 4, 7, 8, 9])) != expected
    assert block_digest(digests[2:] + digests[:2], seqs) != expected


def test_the_identity_of_a_run_is_in_its_name() -> None:
    """Names of runs sort as their blocks do."""
    identity = identity_of([b"1" * 32, b"2" * 32])
    assert identity == blake2b(b"1" * 32 + b"2" * 32, digest_size=32).digest()
    name = run_name(RunInfo(4, 6, 2 * 2**18, 7, 9_999_999, identity))
    assert name == f"0000000004-0000000006-{identity.hex()[:16]}.run"
