"""Retention: which snapshots and segments of a data directory go. Pure: facts in, a plan out.

    plan = decide(snapshots, segments, keep=2, last_ms=…, keep_ms=None, now=reading)     before any file is touched

Let `floor` be the seq of the oldest snapshot that stays. Then:

    what                                            stays                    goes
    ---------------------------------------------   ----------------------   -----------------------------------------
    the newest `keep` valid snapshots               always                   never
    a valid snapshot older than these               -                        yes
    a damaged snapshot                              above the floor          below it, where it is not needed
    the segment that is written to                  always                   never
    a segment with an event above the floor         always                   never
    a sealed segment, all of it at most the floor   compressed               only if an age is set, its last event is
                                                                             older, and every segment before it goes

Rules:
- A snapshot is valid only after it was read back and proved. With fewer than two valid ones nothing is compressed and
  nothing goes. So two snapshots cover everything that goes, and either may be lost.
- The segments that stay must have no gap, and the first must reach back to the floor. Otherwise there is damage: then
  nothing goes, and the plan says why.
- Segments go from the oldest on, never from the middle. The first segment that is too young ends the search.
- Nothing goes by its age while the clock is not trusted (`engine.clock`): a clock that is wrong for less than an hour
  removes nothing.
- A segment whose last event is in the future was written by a wrong clock. It is as old as the segment after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec

from engine.clock import ClockReading

KEEP_MIN = 2
"""A snapshot may turn out to be damaged when it is needed, so the one before it is kept too."""


class KeptSegment(msgspec.Struct, frozen=True):
    """A segment of the log. Without events, `last_seq` is `first_seq - 1`. A sealed one is not written to any more."""

    path: str
    first_seq: int
    last_seq: int
    sealed: bool
    compressed: bool


class KeptSnapshot(msgspec.Struct, frozen=True):
    """A snapshot, and whether it was proved valid."""

    path: str
    seq: int
    valid: bool


class Plan(msgspec.Struct, frozen=True):
    """Paths to act on. The log then begins at `first_seq`. `objection` says why nothing may go, None if all is well.

    `ages_ms` has the age of the last event of each segment that goes.
    """

    remove_snapshots: list[str]
    compress: list[str]
    remove_segments: list[str]
    first_seq: int
    objection: str | None = None
    ages_ms: dict[str, int] = {}


class Removed(msgspec.Struct, frozen=True):
    """A segment that was removed for its age, which is that of its last event."""

    path: str
    first_seq: int
    last_seq: int
    age_ms: int


def decide(
    snapshots: Sequence[KeptSnapshot],
    segments: Sequence[KeptSegment],
    *,
    keep: int,
    last_ms: Callable[[KeptSegment], int],
    keep_ms: int | None,
    now: ClockReading,
) -> Plan:
    """Decide what goes.

    `segments` are in the order of their seqs. `keep_ms`: a covered segment goes if its last event is older; None: no
    segment goes. `last_ms` gives the time of a segment's last event; it is called only for segments that may go.
    """
    assert keep >= KEEP_MIN
    first_seq = segments[0].first_seq if segments else 1
    valid = sorted((snapshot for snapshot in snapshots if snapshot.valid), key=lambda snapshot: -snapshot.seq)
    if len(valid) < KEEP_MIN:
        return Plan([], [], [], first_seq)
    floor = valid[: max(keep, KEEP_MIN)][-1].seq
    objection = _objection(segments, floor)
    if objection is not None:
        return Plan([], [], [], first_seq, objection)
    covered = [segment for segment in segments[:-1] if segment.sealed and segment.last_seq <= floor]
    ages_ms = {} if keep_ms is None or not now.trusted else _aged(covered, last_ms, keep_ms, now.now_ms)
    remove = covered[: len(ages_ms)]
    stay = covered[len(remove) :]
    return Plan(
        remove_snapshots=[snapshot.path for snapshot in snapshots if snapshot.seq < floor],
        compress=[segment.path for segment in stay if not segment.compressed],
        remove_segments=[segment.path for segment in remove],
        first_seq=segments[len(remove)].first_seq,
        ages_ms=ages_ms,
    )


def _objection(segments: Sequence[KeptSegment], floor: int) -> str | None:
    """Say why the segments have a gap or do not reach the floor; None if all is well."""
    if not segments:
        return "there is no segment of the log"
    for before, after in pairwise(segments):
        if after.first_seq != before.last_seq + 1:
            return f"{before.path} ends at seq {before.last_seq}, but {after.path} begins at seq {after.first_seq}"
        if not before.sealed:
            return f"{before.path} is written to, but {after.path} follows it"
    if segments[0].first_seq > floor + 1:
        return f"the oldest snapshot that stays is at seq {floor}, but the log begins at seq {segments[0].first_seq}"
    if segments[-1].last_seq < floor:
        return f"a snapshot is at seq {floor}, but the log ends at seq {segments[-1].last_seq}"
    return None


def _aged(
    covered: Sequence[KeptSegment], last_ms: Callable[[KeptSegment], int], keep_ms: int, now_ms: int
) -> dict[str, int]:
    """Give path and age of the oldest segments, up to the first whose last event is not older than `keep_ms`."""
    ages_ms: dict[str, int] = {}
    in_future: list[str] = []
    for segment in covered:
        age_ms = now_ms - last_ms(segment)
        if age_ms < 0:
            in_future.append(segment.path)
            continue
        if age_ms <= keep_ms:
            break
        ages_ms |= dict.fromkeys([*in_future, segment.path], age_ms)
        in_future.clear()
    return ages_ms
