"""What may go from a data directory, decided before anything is touched. Pure: facts in, a plan out.

Let `floor` be the seq of the oldest snapshot that stays. Then:

    what                                            stays                    goes
    ---------------------------------------------   ----------------------   -----------------------------------------
    the newest `keep` valid snapshots               always                   never
    a valid snapshot older than these               -                        yes
    a damaged snapshot                              above the floor          below it, when nobody can need it
    the segment that is written to                  always                   never
    a segment with an event above the floor         always                   never
    a sealed segment, all of it at most the floor   compressed               only if an age is set, its last event is
                                                                             older, and every segment before it goes

Rules:
- Only snapshots that were read back and proved count as valid. With fewer than two of them nothing is compressed and
  nothing goes: `keep` is at least 2, so what goes is covered by two snapshots, and either may be lost.
- What stays must hang together: the segments without a gap, and the first of them reaching back to the floor. If it
  does not, the plan is to do nothing, and to say why: that is damage, and nothing is deleted where there is damage.
- Segments go from the oldest on, never from the middle, and the times of events never go back; so the first one that is
  too young ends it, and no later one is asked for its time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec

KEEP_MIN = 2
"""A snapshot can be damaged when it is needed, so there is always one before it."""


class KeptSegment(msgspec.Struct, frozen=True):
    """A segment of the log. `last_seq` is below `first_seq` if it has no events; `sealed`: not written to any more."""

    path: str
    first_seq: int
    last_seq: int
    sealed: bool
    compressed: bool


class KeptSnapshot(msgspec.Struct, frozen=True):
    """A snapshot, and whether it proved to be whole."""

    path: str
    seq: int
    valid: bool


class Plan(msgspec.Struct, frozen=True):
    """Paths to act on. `first_seq` is where the log begins afterwards; `objection` says why a plan is to do nothing."""

    remove_snapshots: list[str]
    compress: list[str]
    remove_segments: list[str]
    first_seq: int
    objection: str | None = None


def decide(
    snapshots: Sequence[KeptSnapshot],
    segments: Sequence[KeptSegment],
    *,
    keep: int,
    last_ms: Callable[[KeptSegment], int],
    oldest_ms: int | None,
) -> Plan:
    """Decide what goes.

    `segments` are in the order of their seqs. `oldest_ms`: segments whose last event is older go; None: none do.
    `last_ms` gives the time of a segment's last event; it is only asked for those that may go.
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
    remove = _aged(covered, last_ms, oldest_ms)
    stay = covered[len(remove) :]
    return Plan(
        remove_snapshots=[snapshot.path for snapshot in snapshots if snapshot.seq < floor],
        compress=[segment.path for segment in stay if not segment.compressed],
        remove_segments=[segment.path for segment in remove],
        first_seq=segments[len(remove)].first_seq,
    )


def _objection(segments: Sequence[KeptSegment], floor: int) -> str | None:
    """Say why segments do not hang together, or do not reach the floor; None if all is well."""
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
    covered: Sequence[KeptSegment], last_ms: Callable[[KeptSegment], int], oldest_ms: int | None
) -> list[KeptSegment]:
    """List the segments at the beginning whose last event is older than `oldest_ms`."""
    remove: list[KeptSegment] = []
    if oldest_ms is not None:
        for segment in covered:
            if last_ms(segment) >= oldest_ms:
                break
            remove.append(segment)
    return remove
