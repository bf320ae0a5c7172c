"""What retention lets go: never anything that a restart from either of two snapshots, or the audit trail, needs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.clock import ClockReading
from snapshots.retention import KEEP_MIN, KeptSegment, KeptSnapshot, Plan, decide

PER_SEGMENT = 100
NOW = ClockReading(10**9, 0, 0.0, trusted=True)


def last_ms(segment: KeptSegment) -> int:
    """In these tests the event n happened at n ms."""
    return segment.last_seq


def segments(count: int, *, first: int = 1, compressed: int = 0) -> list[KeptSegment]:
    """`count` segments of 100 events from the seq `first` on; the last one is written to."""
    return [
        KeptSegment(
            path=f"segment-{n}",
            first_seq=first + n * PER_SEGMENT,
            last_seq=first + (n + 1) * PER_SEGMENT - 1,
            sealed=n < count - 1,
            compressed=n < compressed,
        )
        for n in range(count)
    ]


def snapshots(*seqs: int, damaged: Sequence[int] = ()) -> list[KeptSnapshot]:
    """Snapshots at these seqs."""
    return [KeptSnapshot(path=f"snapshot-{seq}", seq=seq, valid=seq not in damaged) for seq in seqs]


def plan(kept: list[KeptSnapshot], log: list[KeptSegment], *, keep: int = 2, oldest_ms: int | None = None) -> Plan:
    """Decide, with the times of these tests."""
    keep_ms = None if oldest_ms is None else NOW.now_ms - oldest_ms
    return decide(kept, log, keep=keep, last_ms=last_ms, keep_ms=keep_ms, now=NOW)


def test_the_newest_two_snapshots_stay_and_older_ones_go() -> None:
    """With keep = 2 and four snapshots, the two oldest go."""
    assert plan(snapshots(400, 300, 200, 100), segments(5)).remove_snapshots == ["snapshot-200", "snapshot-100"]


def test_more_snapshots_stay_if_the_operator_wants_it() -> None:
    """With keep = 3 the third is kept, and the segments after it are left as they are."""
    decided = plan(snapshots(400, 300, 200, 100), segments(5), keep=3)
    assert decided.remove_snapshots == ["snapshot-100"]
    assert decided.compress == ["segment-0", "segment-1"]


def test_sealed_segments_below_the_older_snapshot_are_compressed_once() -> None:
    """Segments that end at or before the older snapshot are compressed, those compressed already are left alone."""
    assert plan(snapshots(400, 300), segments(5, compressed=1)).compress == ["segment-1", "segment-2"]


def test_a_segment_with_one_event_after_the_older_snapshot_is_left_as_it_is() -> None:
    """The segment that ends one event after the snapshot is needed to restart from it."""
    assert plan(snapshots(400, 299), segments(5)).compress == ["segment-0", "segment-1"]


def test_the_segment_that_is_written_to_is_never_touched() -> None:
    """Both snapshots are at the very end of the log; the last segment is full but not sealed."""
    decided = plan(snapshots(300, 299), segments(3), oldest_ms=10**9)
    assert decided.remove_segments == ["segment-0", "segment-1"]
    assert decided.compress == []


def test_by_default_no_segment_ever_goes() -> None:
    """Without an age the log is kept for good: it is the audit trail and the receipts."""
    assert plan(snapshots(900, 800), segments(10)).remove_segments == []


def test_with_an_age_the_oldest_segments_go_if_two_snapshots_cover_them() -> None:
    """Segments whose last event is older than the age go; the one with an event that is young enough stays."""
    decided = plan(snapshots(900, 800), segments(10), oldest_ms=350)
    assert decided.remove_segments == ["segment-0", "segment-1", "segment-2"]
    assert decided.first_seq == 301


def test_an_age_never_takes_what_a_snapshot_needs() -> None:
    """Everything is older than the age, yet all after the older snapshot stays."""
    decided = plan(snapshots(900, 350), segments(10), oldest_ms=10**9)
    assert decided.remove_segments == ["segment-0", "segment-1", "segment-2"]


def test_with_one_valid_snapshot_nothing_is_touched() -> None:
    """One snapshot is no cover, and a damaged one beside it is none either."""
    nothing = Plan([], [], [], first_seq=1)
    assert plan([], segments(5), oldest_ms=10**9) == nothing
    assert plan(snapshots(400), segments(5), oldest_ms=10**9) == nothing
    assert plan(snapshots(400, 300, damaged=[300]), segments(5), oldest_ms=10**9) == nothing


def test_a_damaged_snapshot_does_not_count_and_goes_only_when_it_is_old() -> None:
    """Of 500 (valid), 400 (damaged), 300, 200 (valid), 100 (damaged): 500 and 300 stay as cover, 400 as evidence."""
    decided = plan(snapshots(500, 400, 300, 200, 100, damaged=[400, 100]), segments(6))
    assert decided.remove_snapshots == ["snapshot-200", "snapshot-100"]
    assert decided.compress == ["segment-0", "segment-1", "segment-2"]


@pytest.mark.parametrize(
    ("log", "complaint"),
    [
        ([], "no segment"),
        ([segments(5)[0], *segments(5)[2:]], "ends at seq 100, but segment-2 begins at seq 201"),
        ([*segments(2), *segments(5)[2:]], "is written to, but"),
        (segments(5, first=302), "oldest snapshot that stays is at seq 300, but the log begins at seq 302"),
        (segments(2), "snapshot is at seq 300, but the log ends at seq 200"),
    ],
)
def test_nothing_goes_where_the_log_does_not_hang_together(log: list[KeptSegment], complaint: str) -> None:
    """A gap, a second end, a log that does not reach the snapshots: nothing is done, and it is said why."""
    decided = plan(snapshots(400, 300, 200), log, oldest_ms=10**9)
    assert decided.remove_snapshots == decided.compress == decided.remove_segments == []
    assert decided.objection is not None
    assert complaint in decided.objection


def test_a_log_that_begins_right_after_the_older_snapshot_is_no_gap() -> None:
    """Segments before it have gone by age; snapshot 300 and the segment from 301 on join."""
    assert plan(snapshots(400, 300), segments(5, first=301)).objection is None


def test_only_the_segments_that_may_go_are_asked_for_their_time() -> None:
    """Finding a time means reading a segment: the first that is too young is the last one asked."""
    asked = []

    def ask(segment: KeptSegment) -> int:
        asked.append(segment.path)
        return segment.last_seq

    decide(snapshots(900, 800), segments(10), keep=2, last_ms=ask, keep_ms=NOW.now_ms - 150, now=NOW)
    assert asked == ["segment-0", "segment-1"]


@st.composite
def directories(draw: st.DrawFn) -> tuple[list[KeptSnapshot], list[KeptSegment]]:
    """Any directory that a leader may come to: a whole log, maybe without its beginning, and snapshots of any seq."""
    first = draw(st.integers(1, 50))
    lengths = draw(st.lists(st.integers(1, 20), min_size=1, max_size=12))
    log = []
    for n, length in enumerate(lengths):
        last = first + length - 1
        sealed = n < len(lengths) - 1
        log.append(KeptSegment(f"segment-{n}", first, last, sealed, sealed and draw(st.booleans())))
        first = last + 1
    seqs = draw(st.sets(st.integers(0, log[-1].last_seq), max_size=6))
    kept = [KeptSnapshot(f"snapshot-{seq}", seq, draw(st.booleans())) for seq in sorted(seqs, reverse=True)]
    return kept, log


@given(directories(), st.integers(KEEP_MIN, 5), st.none() | st.integers(0, 300))
def test_what_stays_is_always_enough(
    directory: tuple[list[KeptSnapshot], list[KeptSegment]], keep: int, oldest_ms: int | None
) -> None:
    """Whatever is there: the newest valid snapshots stay, and from each of them the log goes on without a gap."""
    kept, log = directory
    decided = plan(kept, log, keep=keep, oldest_ms=oldest_ms)
    valid = [snapshot.seq for snapshot in kept if snapshot.valid]
    valid_after = [s.seq for s in kept if s.valid and s.path not in decided.remove_snapshots]
    assert valid_after[:keep] == valid[:keep]
    stay = [segment for segment in log if segment.path not in decided.remove_segments]
    assert stay == log[len(log) - len(stay) :]
    assert stay[0].first_seq == decided.first_seq
    assert log[-1] in stay
    if decided.remove_segments:
        assert len(valid_after) >= KEEP_MIN
        assert decided.first_seq <= min(valid_after) + 1
        assert oldest_ms is not None
        assert all(s.last_seq < oldest_ms for s in log if s.path in decided.remove_segments)
    for segment in log:
        if segment.path in decided.compress:
            assert segment.sealed
            assert not segment.compressed
            assert sum(segment.last_seq <= seq for seq in valid_after) >= KEEP_MIN
            assert segment in stay
