"""Parts of frames: what was kept arrives as it was sent and where it belongs, or the reader says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import EpochBegun, Event, Incremented, UserPut
from engine.filtered_frame import FilteredFrame, link_start, pack_filtered, unpack_filtered
from engine.record import Frame, FrameFault, pack_frame, unpack_frame

TIME_MS = 1_700_000_000_000


def event(seq: int, kind: str) -> Event:
    if kind == "user":
        return UserPut(seq, TIME_MS, f"user-{seq}", "Name", True, "backend")
    return Incremented(seq, TIME_MS, kind, f"user-{seq}", f"action-{seq}", 10, "WON", "backend", 10)


def frame_of(kinds: list[str], first_seq: int = 1, previous: int = 7) -> Frame:
    events = [event(seq, kind) for seq, kind in enumerate(kinds, first_seq)]
    return unpack_frame(pack_frame(events, epoch=1, previous=previous))


def wanted(found: Event) -> bool:
    return not isinstance(found, Incremented) or found.board_id == "mine"


def sent(frame: Frame, link: int = 5) -> bytes:
    return pack_filtered(frame, wanted, link)[0]


@given(st.lists(st.sampled_from(["mine", "other", "user"]), min_size=1, max_size=30), st.integers(1, 2**40))
def test_what_is_kept_has_its_own_seq_and_the_head_is_the_frames(kinds: list[str], first_seq: int) -> None:
    """Each kept event is the very one of the frame; the head gives the position, also where nothing was kept."""
    frame = frame_of(kinds, first_seq)
    data, link = pack_filtered(frame, wanted, 5)
    filtered = unpack_filtered(data, 5)
    assert filtered.events == [event(seq, kind) for seq, kind in enumerate(kinds, first_seq) if kind != "other"]
    assert (filtered.header.first_seq, filtered.header.last_seq) == (frame.first_seq, frame.last_seq)
    assert (filtered.header.previous, filtered.header.checksum) == (frame.previous, frame.checksum)
    assert filtered.link == link


def test_the_beginning_of_an_epoch_goes_to_everyone() -> None:
    """Without it a replica of some boards would not know in which epoch it lives."""
    frame = unpack_frame(pack_frame([EpochBegun(4, TIME_MS, 2, "promoted")], epoch=2, previous=7))
    assert unpack_filtered(sent(frame), 5).events == [EpochBegun(4, TIME_MS, 2, "promoted")]


@given(st.data())
def test_a_flipped_bit_anywhere_is_found(data: st.DataObject) -> None:
    """Head, places, records: the link covers all of them."""
    whole = bytearray(sent(frame_of(["mine", "other", "user", "mine"])))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(FrameFault):
        unpack_filtered(bytes(whole), 5)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_part_or_a_fault(data: bytes) -> None:
    """Nothing else is raised, whatever comes."""
    with pytest.raises(FrameFault):
        unpack_filtered(data, 5)
    with pytest.raises(FrameFault):
        unpack_filtered(b"prt1" + data, 5)


def test_a_part_that_was_cut_off_is_found() -> None:
    """At every length."""
    whole = sent(frame_of(["mine", "other", "mine"]))
    for length in range(len(whole)):
        with pytest.raises(FrameFault):
            unpack_filtered(whole[:length], 5)


def test_the_link_finds_what_was_lost_doubled_or_swapped() -> None:
    """Each filtered frame proves that it comes right after the one before it."""
    link, sent_frames = link_start(7), []
    for first_seq in (1, 2, 3):
        data, link = pack_filtered(frame_of(["mine"], first_seq), wanted, link)
        sent_frames.append(data)
    first: FilteredFrame = unpack_filtered(sent_frames[0], link_start(7))
    assert unpack_filtered(sent_frames[1], first.link).events == [event(2, "mine")]
    for wrong in (sent_frames[0], sent_frames[2]):
        with pytest.raises(FrameFault, match="link"):
            unpack_filtered(wrong, first.link)
    with pytest.raises(FrameFault, match="link"):
        unpack_filtered(sent_frames[0], link_start(8))
