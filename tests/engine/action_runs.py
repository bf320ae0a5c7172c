"""Small runs, the actions that are in them, and the plain way to know what is in which run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from unittest import mock

import numpy as np

from engine import action_blocks
from engine.action_blocks import Entries, RunInfo, block_digest, identity_of, layout, run_name
from engine.action_run import Columns, Run, write_run
from engine.disk import Disk
from tests.engine.logs import LOG_ID

PIECE_ENTRIES = 128
"""The least that is possible: one checksum covers as many."""


@contextmanager
def small_blocks(actions: int, partition: int = 16) -> Iterator[None]:
    """Have blocks of so few actions, ranges of about `partition` entries, and short pieces."""
    with (
        mock.patch.object(action_blocks, "BLOCK_ACTIONS", actions),
        mock.patch("engine.action_run.PARTITION_ENTRIES", partition),
        mock.patch("engine.action_run.PIECE_ENTRIES", PIECE_ENTRIES),
        mock.patch("engine.action_run_format.PIECE_ENTRIES", PIECE_ENTRIES),
    ):
        yield


def actions(blocks: int, seed: int = 1, *, clustered: bool = False) -> Columns:
    """Draw the actions of this many blocks. The seqs have gaps; some marks are FORGOTTEN.

    `clustered`: keys share their first word with others, or are next to the ends of what a word can be.
    """
    rng = np.random.default_rng(seed)
    count = blocks * action_blocks.BLOCK_ACTIONS
    digests = rng.integers(0, 2**64, 2 * count, np.uint64)
    if clustered:
        digests[0::2] = rng.choice(np.array([0, 1, 2**63, 2**64 - 2, 2**64 - 1], np.uint64), count)
    seqs = np.cumsum(rng.integers(1, 4, count)).astype(np.uint64)
    marks = rng.integers(0, 2**64, count, np.uint64) * (rng.random(count) < 0.9)
    return Columns(digests, seqs, marks)


def part(columns: Columns, first: int, end: int) -> Columns:
    """Take the blocks [first, end) out of columns."""
    begin, stop = first * action_blocks.BLOCK_ACTIONS, end * action_blocks.BLOCK_ACTIONS
    return Columns(columns.digests[2 * begin : 2 * stop], columns.seqs[begin:stop], columns.marks[begin:stop])


def entries_of(columns: Columns) -> list[tuple[int, int, int, int]]:
    """List (high, low, seq, mark) as a run must have them."""
    digests, seqs, marks = (np.asarray(column).tolist() for column in columns)
    # Sorting keeps the order of equal ones: that of the seqs.
    return sorted(zip(digests[0::2], digests[1::2], seqs, marks, strict=True), key=lambda entry: entry[0])


def info_of(columns: Columns, first: int) -> RunInfo:
    """Say what the run of these blocks is, by the definition."""
    block_actions = action_blocks.BLOCK_ACTIONS
    blocks = len(columns.seqs) // block_actions
    digests = [block_digest(each.digests, each.seqs) for n in range(blocks) for each in [part(columns, n, n + 1)]]
    seqs = columns.seqs
    return RunInfo(first, first + blocks, len(seqs), int(seqs[0]), int(seqs[-1]), identity_of(digests))


def listed(run: Run) -> list[tuple[int, int, int, int]]:
    """List all entries of a run."""
    pieces: list[Entries] = list(run.entries())
    return [tuple(entry) for piece in pieces for entry in piece.tolist()]


def find(run: Run, high: int, low: int) -> tuple[int, int] | None:
    """Look an action up as the index does."""
    found = [hit for entry in run.filter.places(high, low) if (hit := run.read(entry, high, low)) is not None]
    assert len(found) <= 1
    return found[0] if found else None


def opened(disk: Disk, directory: str, info: RunInfo) -> Run:
    return Run.open(disk, f"{directory}/{run_name(info)}", info, LOG_ID)


def seal(disk: Disk, directory: str, runs: Mapping[tuple[int, int], Run], columns: Columns, blocks: int) -> dict[
    tuple[int, int], Run
]:  # fmt: skip
    """Write and open the runs of this many blocks that are not in `runs`, from those that are and from memory."""
    sealed = max((end for _, end in runs), default=0)
    made = dict[tuple[int, int], Run]()
    for first, end in layout(blocks):
        run = runs.get((first, end))
        if run is None:
            sources: list[Run | Columns] = [each for at, each in runs.items() if first <= at[0] and at[1] <= end]
            if end > sealed:
                sources.append(part(columns, max(first, sealed), end))
            run = opened(disk, directory, write_run(disk, directory, sources, LOG_ID, first, end))
        made[first, end] = run
    return made
