"""Seeds that once failed. They stay: each runs on the sound system, and on the variant that has the fault again.

A seed gives the same run only while the simulation draws the same. If a change makes a seed harmless, its test fails;
then `python -m tests.sim` on the variant finds another seed.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.sim.variants import (
    HEADS_OVERLOOKED,
    MADE_DURABLE,
    NAMES_SYNCED,
    OLDER_KEPT,
    PLACED_DURABLY,
    SERVED_EARLY,
    ZEROS_COUNTED,
)

SEEDS: Sequence[tuple[int, str, str]] = (
    (
        66,
        MADE_DURABLE,
        (
            "A directory was made by a process that ended before it synced its parent. The next one took it for "
            "durable, and a power cut took the log away."
        ),
    ),
    (
        91,
        NAMES_SYNCED,
        (
            "The first segment was renamed by a process that was killed before it synced the directory. The next one "
            "appended to it, and a power cut took it away."
        ),
    ),
    (
        566,
        ZEROS_COUNTED,
        (
            "A bit flipped in the last frame, which ended with the zero byte of a score of 256. It was taken for torn, "
            "and cut, though its events were acknowledged."
        ),
    ),
    (
        104_976,
        HEADS_OVERLOOKED,
        (
            "A bit flipped in the length of the last frame but one, and another in the last one. No whole frame was "
            "left behind the damage, and both were cut, though their events were acknowledged."
        ),
    ),
    (
        180_517_439_258,
        HEADS_OVERLOOKED,
        (
            "A bit flipped in the length of the last frame but one, and at the next power cut one in the head of the "
            "last one, which was then none. Both were cut, though their events were acknowledged."
        ),
    ),
    (
        4_986,
        PLACED_DURABLY,
        (
            "A replica was killed after it had put a fetched snapshot in its place and before it had synced that. The "
            "next one began a log behind the snapshot, and a power cut took the snapshot away."
        ),
    ),
    (
        2_151,
        SERVED_EARLY,
        (
            "A replica's directory was emptied, and it began anew with a snapshot that was older than what it had "
            "shown. It was served before it had caught up, and who read it saw the board go back."
        ),
    ),
    (
        704_517,
        OLDER_KEPT,
        (
            "A preparation was killed after it had placed a snapshot, which was damaged at the next start, and put "
            "right later. The log began behind a newer one, and retention removed nothing any more for its sake."
        ),
    ),
)
