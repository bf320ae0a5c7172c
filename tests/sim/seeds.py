"""Seeds that once failed. They stay: each runs on the sound system, and on the variant that has the fault again.

A seed gives the same run only while the simulation draws the same. If a change makes a seed harmless, its test fails;
then `python -m tests.sim` on the variant finds another seed.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.sim.broken_indexes import (
    ABSENT_FOR_EVER,
    FILTER_MISSES,
    KEPT_IN_RUNS,
    LEFT_EARLY,
    NAMED_EARLY,
    RENAMED_EARLY,
    SEALED_LAST,
    TIDIED,
    TIDIED_LATE,
    TIDIED_UNSYNCED,
)
from tests.sim.variants import (
    BELIEVED,
    FOUND_DURABLE,
    HEADS_OVERLOOKED,
    KEPT_IN_LOG,
    KEPT_IN_PERIODS,
    MADE_DURABLE,
    NAMES_SYNCED,
    OLDER_KEPT,
    PLACED_DURABLY,
    SERVED_EARLY,
    UNCOVERED,
    ZEROS_COUNTED,
)
from tests.sim.world import ERASING_SEEDS, NOTED_SEEDS

SEEDS: Sequence[tuple[int, str, str]] = (
    (
        67,
        NAMES_SYNCED,
        (
            "A segment was renamed by a process that ended before it synced the directory. The next one appended to "
            "it, and a power cut took it away."
        ),
    ),
    (
        18,
        SEALED_LAST,
        (
            "A period ended while actions were sealed, right before a snapshot was captured. The snapshot covered the "
            "log that makes its file, and a power cut came before the file."
        ),
    ),
    (
        257,
        ZEROS_COUNTED,
        (
            "A bit flipped in the last frame, which ended with a zero byte. It was taken for torn, and cut, though its "
            "events were acknowledged."
        ),
    ),
    (
        44,
        HEADS_OVERLOOKED,
        (
            "A bit flipped in the length of a frame. It was taken for torn, and cut with all that followed, though "
            "its events were acknowledged."
        ),
    ),
    (
        145,
        HEADS_OVERLOOKED,
        (
            "Bits flipped in two frames at two power cuts, one of them in a length. No whole frame was left behind "
            "the damage, and both were cut, though their events were acknowledged."
        ),
    ),
    (
        31_080,
        SERVED_EARLY,
        (
            "A replica whose log was damaged was emptied, and began anew. It served its empty board to a viewer who "
            "had seen more."
        ),
    ),
    (
        900_523,
        TIDIED_LATE,
        (
            "A user was erased, and called settled, while files of actions that a removed snapshot had named still "
            "told which actions were the user's."
        ),
    ),
    (
        7_700_171,
        TIDIED_UNSYNCED,
        (
            "Such files were removed, and the directory was not synced. A power cut after the erasure was settled "
            "brought them back."
        ),
    ),
)

SEARCHED = {
    UNCOVERED: (NOTED_SEEDS, 4), KEPT_IN_LOG: (ERASING_SEEDS, 16), KEPT_IN_PERIODS: (ERASING_SEEDS, 16),
    KEPT_IN_RUNS: (ERASING_SEEDS, 16), BELIEVED: (20_101, 1), FILTER_MISSES: (8, 1), ABSENT_FOR_EVER: (23, 1),
    TIDIED: (31, 1), LEFT_EARLY: (14, 1), NAMED_EARLY: (2, 1),
}  # fmt: skip
"""Where the search for a fault begins that few runs show, and its step: the other seeds lack what the fault needs.

The others are searched for among all seeds from 1.
"""

SOUGHT = (MADE_DURABLE, PLACED_DURABLY, OLDER_KEPT, FOUND_DURABLE, RENAMED_EARLY)
"""Faults without a seed. Theirs are void since boards are events, and some hundred runs find no new one. The last of
them is found by crashes at each step (`tests/sim/test_crashes.py`).

`python -m tests.sim` must look for longer: a kill has to come between two certain steps, and a power cut after it.
"""
