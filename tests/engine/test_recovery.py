"""The recovery table: it has a row for everything, and the judgement picks the right one. No files here."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import LogDamaged
from engine.events import Incremented
from engine.record import HEADER_BYTES, LENGTH_OFFSET, chain_start, pack_frame, unpack_frame, unpack_header
from engine.recovery import (
    SECTOR_BYTES,
    TABLE,
    TRAILING_ZEROS_MAX,
    Action,
    Situation,
    finding,
    judge_end,
    misfit,
    refusal,
)
from tests.engine.logs import LOG_ID, increments

START = chain_start(LOG_ID)
FIRST = pack_frame(increments(1, 3), epoch=1, previous=START)
FIRST_CHECKSUM = unpack_header(FIRST).checksum
SECOND = pack_frame(increments(4, 30), epoch=1, previous=FIRST_CHECKSUM)
THIRD = pack_frame(increments(34, 2), epoch=1, previous=unpack_header(SECOND).checksum)
ROOM = bytes(4096)


def judged(rest: bytes, *, before: bytes = FIRST, sealed: bool = False) -> Situation:
    """Judge a segment in which `rest` follows the first frame."""
    return judge_end(before + rest, len(before), seq=3, checksum=FIRST_CHECKSUM, epoch=1, sealed=sealed)


def test_every_situation_has_a_row_and_every_refusal_a_remedy() -> None:
    """There is nothing that recovery can find and not name; what it can't put right it says how to."""
    assert set(TABLE) == set(Situation)
    for row in TABLE.values():
        assert row.sentence
        assert bool(row.remedy) is (row.action is not Action.GO_ON)


@pytest.mark.parametrize("situation", [key for key, row in TABLE.items() if row.action is Action.REFUSE])
def test_a_refusal_says_where_and_what_to_do(situation: Situation) -> None:
    """Path, offset and seq, the sentence of the row, and a remedy with everything filled in."""
    error = refusal(situation, directory="/srv/data/log", path="/srv/data/log/1.log", offset=64, good=41, next_seq=99)
    assert isinstance(error, LogDamaged)
    assert (error.path, error.offset, error.seq) == ("/srv/data/log/1.log", 64, 42)
    assert TABLE[situation].sentence in str(error)
    assert "{" not in error.remedy
    if "{restore}" in TABLE[situation].remedy:
        assert "`scoreboard restore --from /srv/data --to NEWDIR --until-seq 41`" in error.remedy


def test_what_the_snapshot_covers_is_not_given_up() -> None:
    """Damage before the snapshot: the command takes everything after it too, and names no seq to stop at."""
    error = refusal(Situation.SEALED_DAMAGED, directory="data/log", path="p", offset=64, good=41, covered=900)
    assert "`scoreboard restore --from data --to NEWDIR`" in error.remedy
    assert "--until-seq" not in error.remedy
    error = refusal(Situation.SEALED_DAMAGED, directory="data/log", path="p", offset=64, good=900, covered=900)
    assert "`scoreboard restore --from data --to NEWDIR --until-seq 900`" in error.remedy


def test_where_nothing_can_be_restored_nothing_is_promised() -> None:
    """A log that begins late has no state before its beginning."""
    error = refusal(Situation.HEADER_DAMAGED, directory="data/log", path="p", good=41, until=0)
    assert error.remedy == "Put the undamaged file back from a backup."
    assert error.seq == 42


def test_where_nothing_good_is_left_no_command_is_promised() -> None:
    """There is no seq 0 to restore to; then only a backup helps."""
    error = refusal(Situation.HEADER_DAMAGED, directory="data/log", path="p", offset=0, good=0, detail="why")
    assert error.remedy == "Put the undamaged file back from a backup."
    assert error.what.endswith(": why")


def test_the_seq_to_restore_to_may_be_another_than_the_last_good_one() -> None:
    """Of a log that ends before its snapshot, the snapshot is what is left."""
    error = refusal(Situation.ENDS_EARLY, directory="log", path="p", offset=0, good=0, until=77)
    assert "`scoreboard restore --from . --to NEWDIR --until-seq 77`" in error.remedy
    assert error.seq == 1


def test_a_finding_tells_the_same_of_what_was_put_right() -> None:
    """For the rows that let recovery go on."""
    told = finding(Situation.TORN_TAIL, path="p", offset=64, seq=7, detail="12 bytes are kept")
    assert told.message == TABLE[Situation.TORN_TAIL].sentence + ": 12 bytes are kept"
    assert (told.path, told.offset, told.seq) == ("p", 64, 7)
    with pytest.raises(AssertionError):
        finding(Situation.HEADER_DAMAGED, path="p")


def test_zeros_to_the_end_of_the_file_are_a_clean_end() -> None:
    """As many as there are, none too; sealed or not."""
    for rest in (b"", b"\0", ROOM):
        assert judged(rest) is Situation.CLEAN_END
        assert judged(rest, sealed=True) is Situation.CLEAN_END


@pytest.mark.parametrize("score", [256, 65_536, 2**32, 2**40])
def test_a_flipped_bit_in_a_frame_that_ends_with_zeros_is_damage(score: int) -> None:
    """A score may end with zero bytes; the frame is all there, was perhaps acknowledged, and must not be cut."""
    event = increments(4, 1)[0]
    assert isinstance(event, Incremented)
    last = pack_frame([msgspec.structs.replace(event, new_score=score)], epoch=1, previous=FIRST_CHECKSUM)
    assert last.endswith(b"\0")
    for place in range(8 * len(last)):
        damaged = bytearray(last + ROOM)
        damaged[place // 8] ^= 1 << place % 8
        assert judged(bytes(damaged)) is Situation.LAST_FRAME_DAMAGED, place


def test_two_damaged_frames_are_not_a_torn_one() -> None:
    """With the length of the first one gone and the second one damaged as well, there is no whole frame any more."""
    damaged = bytearray(SECOND + THIRD + ROOM)
    damaged[LENGTH_OFFSET + 1] ^= 0x40
    damaged[len(SECOND) + HEADER_BYTES + 5] ^= 1
    assert judged(bytes(damaged)) is Situation.DAMAGE_BEFORE_FRAMES


@given(st.data())
def test_a_frame_without_some_of_its_sectors_is_torn(data: st.DataObject) -> None:
    """Whatever sectors the crash kept, or however many bytes of it: never damage, and never a whole frame.

    Where nothing but the last integer's bytes could be missing it is taken for damage: that no disk does, and a score
    of 256 ends with such a byte.
    """
    before = data.draw(st.integers(0, 2 * SECTOR_BYTES))
    end = before + len(SECOND)
    sectors = range(before // SECTOR_BYTES, (end - 1) // SECTOR_BYTES + 1)
    kept = data.draw(st.sets(st.sampled_from(list(sectors)), max_size=len(sectors) - 1))
    cut = data.draw(st.integers(TRAILING_ZEROS_MAX + 1, end - before))
    torn = bytearray(before + len(SECOND) + len(ROOM))
    if data.draw(st.booleans()):
        torn[before : end - cut] = SECOND[: len(SECOND) - cut]
    else:
        for sector in kept:
            start, stop = max(before, sector * SECTOR_BYTES), min(end, (sector + 1) * SECTOR_BYTES)
            torn[start:stop] = SECOND[start - before : stop - before]
    situation = judge_end(bytes(torn), before, seq=3, checksum=FIRST_CHECKSUM, epoch=1, sealed=False)
    assert situation is (Situation.TORN_TAIL if torn.strip(b"\0") else Situation.CLEAN_END)


@given(st.integers(0, len(SECOND) - 2), st.integers(0, 7), st.integers(0, 2 * SECTOR_BYTES))
@example(0, 0, SECTOR_BYTES - HEADER_BYTES)
def test_a_last_frame_that_is_all_there_but_wrong_is_damage(place: int, bit: int, before: int) -> None:
    """No crash makes that: a bit flipped in a frame that was written to its end, head or body, is not cut away."""
    damaged = bytearray(SECOND)
    damaged[place] ^= 1 << bit
    for rest in (bytes(damaged) + ROOM, bytes(damaged)):
        assert judged(rest, before=bytes(before)) is Situation.LAST_FRAME_DAMAGED


def test_every_bit_of_the_head_of_a_short_last_frame_counts() -> None:
    """One event, as a quiet server writes it: a third of the frame is its head."""
    short = pack_frame(increments(4, 1), epoch=1, previous=FIRST_CHECKSUM)
    for place in range(HEADER_BYTES):
        for bit in range(8):
            damaged = bytearray(short)
            damaged[place] ^= 1 << bit
            assert judged(bytes(damaged) + ROOM) is Situation.LAST_FRAME_DAMAGED, (place, bit)


def test_a_wrong_length_is_found_out_whatever_it_is() -> None:
    """The frame is whole with the right one; so it was written, however far the wrong one reaches."""
    for length in (1, len(SECOND) - HEADER_BYTES - 1, len(SECOND), len(ROOM), 10**6, 2**24):
        damaged = SECOND[:8] + length.to_bytes(4, "little") + SECOND[12:]
        assert judged(damaged + ROOM) is Situation.LAST_FRAME_DAMAGED


def test_a_damaged_head_after_a_wrong_length_still_proves_that_it_was_synced() -> None:
    """Two faults in two frames at the end, in any bit of the later head but its magic, or of the length before it."""
    for bit in range(32):
        length = int.from_bytes(SECOND[8:12], "little") ^ 1 << bit
        wrong = SECOND[:8] + length.to_bytes(4, "little") + SECOND[12:]
        for place in range(HEADER_BYTES):
            damaged = bytearray(THIRD)
            damaged[place] ^= 1 << bit % 8
            found = judged(wrong + bytes(damaged) + ROOM)
            assert found in {Situation.DAMAGE_BEFORE_FRAMES, Situation.LAST_FRAME_DAMAGED}, (bit, place)


def test_what_stands_behind_the_end_that_a_head_gives_was_written_later() -> None:
    """So the frame, or another after it, was synced: nothing of that is torn, whatever is wrong with it."""
    short = SECOND[:8] + (20).to_bytes(4, "little") + bytes(HEADER_BYTES - 12) + SECOND[HEADER_BYTES:]
    head = bytearray(short[:HEADER_BYTES])
    head[12:HEADER_BYTES] = SECOND[12:HEADER_BYTES]
    assert judged(bytes(head) + bytes(20) + b"\xff" * 40 + ROOM) is Situation.LAST_FRAME_DAMAGED
    assert judged(bytes(head) + bytes(20) + ROOM) is Situation.TORN_TAIL


def test_a_frame_that_the_file_is_too_short_for_is_torn() -> None:
    """As after a copy that was cut off."""
    assert judged(SECOND[:-1]) is Situation.TORN_TAIL
    assert judged(SECOND[:20]) is Situation.TORN_TAIL


def test_bytes_that_are_no_frame_at_all_are_damage() -> None:
    """A crash leaves zeros where it kept the frame from being written, and nothing else."""
    assert judged(b"\xff" * 300 + ROOM) is Situation.LAST_FRAME_DAMAGED
    assert judged(b"\xff" * HEADER_BYTES + ROOM) is Situation.TORN_TAIL


@pytest.mark.parametrize("place", [0, 9, 30, 200])
def test_damage_before_a_whole_frame_is_never_torn(place: int) -> None:
    """What follows was written after it was synced, so it held acknowledged events."""
    damaged = bytearray(SECOND)
    damaged[place] ^= 4
    assert judged(bytes(damaged) + THIRD + ROOM) is Situation.DAMAGE_BEFORE_FRAMES
    assert judged(bytes(len(SECOND)) + THIRD + ROOM) is Situation.DAMAGE_BEFORE_FRAMES


def test_anything_wrong_in_a_sealed_segment_is_damage() -> None:
    """It was synced as a whole before the next one was begun."""
    assert judged(SECOND[:100] + ROOM, sealed=True) is Situation.SEALED_DAMAGED


def test_a_whole_frame_that_does_not_follow_has_a_situation_of_its_own() -> None:
    """Doubled, moved, lost before it, from another history, or from an older epoch."""
    assert judged(FIRST + ROOM) is Situation.FRAME_DOUBLED
    assert judged(THIRD + ROOM) is Situation.FRAMES_MISSING
    assert judged(pack_frame(increments(4, 1), epoch=1, previous=5) + ROOM) is Situation.FRAME_FOREIGN
    assert judged(THIRD, sealed=True) is Situation.FRAMES_MISSING
    older = unpack_frame(SECOND)
    assert misfit(older, 3, FIRST_CHECKSUM, 1) is None
    assert misfit(older, 3, FIRST_CHECKSUM, 2) is Situation.FRAME_FOREIGN


def test_to_judge_a_frame_that_follows_is_our_own_bug() -> None:
    """The cursor would have gone on."""
    with pytest.raises(AssertionError):
        judged(SECOND)


def test_the_readme_explains_every_row() -> None:
    """An operator finds what a message means, and nothing that does not exist."""
    readme = (Path(__file__).parents[2] / "engine" / "README.md").read_text()
    rows = [line.split("`")[1] for line in readme.splitlines() if line.startswith("| `") and "`" in line[3:]]
    assert [name for name in rows if name.isupper()] == [situation.name for situation in Situation]
