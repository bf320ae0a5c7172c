"""Packing and reading snapshots: nothing is lost, one state is one file, and no damage goes unseen."""

from __future__ import annotations

import struct
from array import array
from pathlib import Path

import google_crc32c
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.board_rules import BoardDefinition, BoardRules
from engine.errors import SnapshotDamaged
from engine.image import StateImage
from engine.past_ranks import NOTHING, began_after
from engine.record import Tail
from snapshots import format as snapshot_format
from snapshots.digests import state_digest
from snapshots.format import CHUNK_BYTES_MAX, CHUNK_HEADER_BYTES, HEADER_BYTES, file_digest, pack, unpack, verify
from tests.snapshots import images
from tests.snapshots.images import Bytes

GOLDEN = Path(__file__).with_name("golden")


def packed(image: StateImage, tail: Tail) -> bytes:
    """The whole file."""
    return b"".join(pack(image, tail))


def chunks_of(data: bytes) -> list[bytes]:
    """Cut a file into its header and its chunks."""
    pieces = [data[:HEADER_BYTES]]
    offset = HEADER_BYTES
    while offset < len(data):
        end = offset + CHUNK_HEADER_BYTES + int(struct.unpack_from("<I", data, offset + 8)[0])
        pieces.append(data[offset:end])
        offset = end
    return pieces


def chunk(kind: bytes, ordinal: int, payload: bytes) -> bytes:
    """Make a chunk with a right checksum, by hand."""
    header = struct.pack("<4sII", kind, ordinal, len(payload))
    return header + struct.pack("<I", google_crc32c.value(header + payload)) + payload


@given(images.images())
def test_what_is_packed_is_read_back(state: tuple[StateImage, Tail]) -> None:
    """Any state comes back equal, with its tail, and `verify` agrees."""
    image, tail = state
    source = Bytes(packed(image, tail))
    assert unpack(source, "x") == (image, tail)
    assert verify(source, "x") == tail


@given(images.images())
def test_one_state_is_one_file(state: tuple[StateImage, Tail]) -> None:
    """Packing what was read gives the same bytes; the digest of the file is that of the state."""
    image, tail = state
    data = packed(image, tail)
    again, _ = unpack(Bytes(data), "x")
    assert packed(again, tail) == data
    assert state_digest(again) == state_digest(image)
    footer = chunks_of(data)[-1]
    assert footer[CHUNK_HEADER_BYTES : CHUNK_HEADER_BYTES + 32].hex() == file_digest(image)


def test_a_state_that_differs_by_one_number_has_another_digest() -> None:
    """The digest covers every part: boards and their definitions, users, actions, position."""
    image = images.sample()
    first = image.boards[0]
    others = [
        StateImage(3, 9, image.time_ms + 1, image.epochs, image.boards, image.users, image.actions),
        StateImage(3, 9, image.time_ms, [(1, 1), (8, 3)], image.boards, image.users, image.actions),
        StateImage(3, 9, image.time_ms, image.epochs, image.boards[:1], image.users, image.actions),
        StateImage(3, 9, image.time_ms, image.epochs, image.boards, images.users([]), image.actions),
        StateImage(3, 9, image.time_ms, image.epochs, image.boards, image.users, images.actions([])),
        StateImage(
            3,
            9,
            image.time_ms,
            image.epochs,
            [images.board(first.board_id, 8, [("ann", 30, 9, 1)]), image.boards[1]],
            image.users,
            image.actions,
        ),
    ]
    definition = BoardDefinition(BoardRules({"WIN": 1}))
    for each in (definition, msgspec.structs.replace(definition, closed=True)):
        defined = [msgspec.structs.replace(first, definition=each), image.boards[1]]
        others.append(msgspec.structs.replace(image, boards=defined))
    others.append(msgspec.structs.replace(image, noted=(7, 1)))
    for past_ranks in (began_after(["ann"], [1]), began_after(["ann"], [2]), NOTHING.noted(1, 2, [0], [1])):
        compared = [msgspec.structs.replace(first, past_ranks=past_ranks), image.boards[1]]
        others.append(msgspec.structs.replace(image, boards=compared))
    digests = {state_digest(other) for other in [image, *others]}
    assert len(digests) == 1 + len(others)


def test_lists_that_went_on_growing_after_the_image_was_taken_do_not_matter() -> None:
    """User ids and actions are shared with the living state; what lies beyond `count` is not packed."""
    image, tail = images.sample(), images.sample_tail()
    before = packed(image, tail)
    image.boards[0].user_ids.append("later")
    image.users.user_ids.append("later")
    image.actions.digests.extend([1, 2])
    image.actions.seqs.append(10)
    image.actions.marks.append(1)
    assert packed(image, tail) == before


@pytest.mark.parametrize("count", [1, 4, 5, 6, 10, 11])
def test_every_way_that_a_count_falls_on_the_cuts_comes_back(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With cuts at 5, counts below, at and beyond the cut are packed into the fewest chunks and read back."""
    for name in ("TEXTS", "WORDS", "BYTES"):
        monkeypatch.setattr(snapshot_format, name, 5)
    numbers = range(count)
    image = StateImage(
        epoch=1,
        seq=count,
        time_ms=1,
        epochs=[(1, 1)],
        boards=[images.board("main", count, [(f"user{n}", n, n, n) for n in numbers])],
        users=images.users([(f"user{n}", None, n % 2 == 0) for n in numbers]),
        actions=images.actions([(n, n, n, n) for n in numbers]),
    )
    tail = Tail(log_id=bytes(16), epoch=1, seq=count, checksum=1)
    data = packed(image, tail)
    assert unpack(Bytes(data), "x") == (image, tail)
    of_count = -(-count // 5)
    of_digests = -(-2 * count // 5)
    assert len(chunks_of(data)) == 1 + 2 + 4 * of_count + 3 * of_count + of_digests + 2 * of_count + 1


def test_no_block_is_long_even_with_the_longest_ids() -> None:
    """Thousands of ids of 128 characters of 4 bytes: every block that is written stays at about 1 MiB."""
    count = 2 * snapshot_format.TEXTS + 1
    rows = [("🦊" * 124 + f"{n:04}", 1, n + 1, 1) for n in range(count)]
    image = StateImage(1, count, 1, [(1, 1)], [images.board("main", count, rows)], images.users([]), images.actions([]))
    tail = Tail(log_id=bytes(16), epoch=1, seq=count, checksum=1)
    blocks = list(pack(image, tail))
    assert max(map(len, blocks)) <= CHUNK_BYTES_MAX + CHUNK_HEADER_BYTES
    source = Bytes(b"".join(blocks))
    assert unpack(source, "x") == (image, tail)
    assert source.longest_read <= CHUNK_BYTES_MAX


def test_every_flipped_byte_is_found_and_placed() -> None:
    """Each single byte of a file, changed in each of a few ways, is refused, at or before the chunk that has it."""
    data = packed(images.sample(), images.sample_tail())
    starts = [0]
    for piece in chunks_of(data):
        starts.append(starts[-1] + len(piece))
    for offset in range(len(data)):
        chunk_start = max(start for start in starts if start <= offset)
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[offset] ^= flip
            for read in (unpack, verify):
                with pytest.raises(SnapshotDamaged) as caught:
                    read(Bytes(bytes(damaged)), "the/path")
                assert caught.value.path == "the/path"
                assert caught.value.offset == chunk_start


def test_every_truncation_is_found() -> None:
    """A file that ends early, wherever that is, is refused."""
    data = packed(images.sample(), images.sample_tail())
    for length in range(len(data)):
        for read in (unpack, verify):
            with pytest.raises(SnapshotDamaged, match=r"ends within|magic"):
                read(Bytes(data[:length]), "x")


@pytest.mark.parametrize("rest", [b"\0", b"more", bytes(4096)])
def test_bytes_after_the_end_are_found(rest: bytes) -> None:
    """A file that goes on after its footer is refused."""
    data = packed(images.sample(), images.sample_tail()) + rest
    for read in (unpack, verify):
        with pytest.raises(SnapshotDamaged, match=f"{len(rest)} bytes after the end"):
            read(Bytes(data), "x")


@settings(max_examples=200)
@given(st.data())
def test_chunks_that_are_lost_doubled_or_moved_are_found(data: st.DataObject) -> None:
    """Every chunk is whole, but one is missing, or there twice, or two have changed places: found where it begins."""
    pieces = chunks_of(packed(images.sample(), images.sample_tail()))
    one = data.draw(st.integers(1, len(pieces) - 1))
    other = data.draw(st.integers(1, len(pieces) - 1).filter(lambda n: n != one))
    match data.draw(st.sampled_from(["lost", "doubled", "swapped"])):
        case "lost":
            wrong = one
            del pieces[one]
        case "doubled":
            wrong = other
            pieces.insert(other, pieces[one])
        case _:
            wrong = min(one, other)
            pieces[one], pieces[other] = pieces[other], pieces[one]
    for read in (unpack, verify):
        with pytest.raises(SnapshotDamaged) as caught:
            read(Bytes(b"".join(pieces)), "x")
        assert caught.value.offset == sum(map(len, pieces[:wrong]))


def test_a_chunk_of_another_snapshot_is_found_by_the_digest() -> None:
    """A chunk that is whole and in its place, but from another file, does not fit the digest of the whole."""
    image = images.sample()
    pieces = chunks_of(packed(image, images.sample_tail()))
    first = image.boards[0]
    rows = [("ann", 99, 9, 1), ("bob", 20, 4, 1), ("čeněk", 0, 5, 1)]
    other_board = images.board(first.board_id, first.seq, rows)
    other_image = StateImage(
        3, 9, image.time_ms, image.epochs, [other_board, image.boards[1]], image.users, image.actions
    )
    other = chunks_of(packed(other_image, images.sample_tail()))
    assert other[4][:4] == pieces[4][:4] == b"bsco"
    pieces[4] = other[4]
    for read in (unpack, verify):
        with pytest.raises(SnapshotDamaged, match="digest of the whole"):
            read(Bytes(b"".join(pieces)), "x")


@pytest.mark.parametrize(
    ("number", "kind", "payload", "complaint"),
    [
        (1, b"stat", b"\xc0", "says nothing"),
        (1, b"stat", b"\x97\x03\x09\x01\x90\xcf" + b"\xff" * 8 + b"\0\0", "b'uids' where b'bord' belongs"),
        (1, b"what", b"\xc0", "b'what' where b'stat' belongs"),
        (1, b"stat", b"\x97\x03\x09\x01\x90\xff\0\0", "says nothing"),
        (3, b"bids", b"\x92\xa3ann\xa3bob", "2 texts in a chunk b'bids' instead of 3"),
        (3, b"bids", b"\x93\xa3ann\xa3bob\x01", "says nothing"),
        (4, b"bsco", bytes(16), "of 16 bytes instead of 24"),
        (4, b"bsco", bytes(32), "of 32 bytes instead of 24"),
    ],
)
def test_a_chunk_that_is_whole_but_makes_no_sense_is_refused(
    number: int, kind: bytes, payload: bytes, complaint: str
) -> None:
    """Right checksums do not help a file whose counts and contents contradict each other."""
    pieces = chunks_of(packed(images.sample(), images.sample_tail()))
    pieces[number] = chunk(kind, number, payload)
    with pytest.raises(SnapshotDamaged, match=complaint):
        unpack(Bytes(b"".join(pieces)), "x")


@pytest.mark.parametrize("length", [0, CHUNK_BYTES_MAX + 1, 2**32 - 1])
def test_a_length_out_of_bounds_is_refused_before_anything_is_read(length: int) -> None:
    """A chunk that claims gigabytes, or nothing, is refused on its header alone."""
    data = packed(images.sample(), images.sample_tail())[:HEADER_BYTES]
    source = Bytes(data + struct.pack("<4sIII", b"stat", 1, length, 0) + bytes(64))
    with pytest.raises(SnapshotDamaged, match=f"of {length} bytes"):
        unpack(source, "x")
    assert source.longest_read == CHUNK_HEADER_BYTES


def test_counts_that_claim_more_than_there_is_cost_no_memory() -> None:
    """A count of 2^60 users is believed chunk by chunk only: the first that is missing ends it."""
    pieces = chunks_of(packed(images.sample(), images.sample_tail()))
    pieces[2] = chunk(b"bord", 2, b"\x93\xa4main\x09\xcf" + (2**60).to_bytes(8, "big"))
    with pytest.raises(SnapshotDamaged, match="3 texts in a chunk"):
        unpack(Bytes(b"".join(pieces)), "x")


def test_another_version_is_refused_by_its_number() -> None:
    """A file of a version that does not exist yet says so, rather than that it is damaged."""
    header = struct.pack("<8sI", b"scoresnp", 6)
    data = header + struct.pack("<I", google_crc32c.value(header)) + bytes(100)
    with pytest.raises(SnapshotDamaged, match=r"version 6; this program reads versions \(1, 2, 3, 4, 5\)"):
        unpack(Bytes(data), "x")


def test_a_footer_of_another_state_is_refused() -> None:
    """The place in the log that the footer names must be that of the state."""
    pieces = chunks_of(packed(images.sample(), images.sample_tail()))
    footer = bytearray(pieces[-1][CHUNK_HEADER_BYTES:])
    footer[56:64] = (8).to_bytes(8, "little")
    pieces[-1] = chunk(b"foot", len(pieces) - 1, bytes(footer))
    with pytest.raises(SnapshotDamaged, match="that of another state"):
        unpack(Bytes(b"".join(pieces)), "x")


def test_the_file_of_version_1_is_as_it_always_was() -> None:
    """What version 1 wrote once is still read, and still written, byte for byte."""
    golden = (GOLDEN / "version-1.snapshot").read_bytes()
    assert unpack(Bytes(golden), "x") == (images.sample(), images.sample_tail())
    assert packed(images.sample(), images.sample_tail()) == golden


def test_the_file_of_an_empty_state_is_as_it_always_was() -> None:
    """The smallest file: no boards, users, actions."""
    image = StateImage(1, 0, 0, [(1, 1)], [], images.users([]), images.actions([]))
    tail = Tail(log_id=bytes(16), epoch=1, seq=0, checksum=0)
    golden = (GOLDEN / "version-1-empty.snapshot").read_bytes()
    assert unpack(Bytes(golden), "x") == (image, tail)
    assert packed(image, tail) == golden


def test_the_file_of_version_2_is_as_it_always_was() -> None:
    """It has the identities of epochs. A state without any is written as version 1."""
    image = msgspec.structs.replace(images.sample(), histories=[(3, bytes(range(100, 116)))])
    golden = (GOLDEN / "version-2.snapshot").read_bytes()
    assert unpack(Bytes(golden), "x") == (image, images.sample_tail())
    assert packed(image, images.sample_tail()) == golden
    assert golden[8] == 2
    assert verify(Bytes(golden), "x") == images.sample_tail()


@pytest.mark.parametrize("histories", [[], [(3, bytes(range(100, 116)))]])
def test_the_file_of_version_3_is_as_it_always_was(histories: list[tuple[int, bytes]]) -> None:
    """It has the definitions of boards, with and without identities of epochs. A board without one has the old head."""
    image = msgspec.structs.replace(images.sample_with_definitions(), histories=histories)
    golden = (GOLDEN / ("version-3.snapshot" if histories else "version-3-plain.snapshot")).read_bytes()
    assert unpack(Bytes(golden), "x") == (image, images.sample_tail())
    assert packed(image, images.sample_tail()) == golden
    assert golden[8] == 3
    assert verify(Bytes(golden), "x") == images.sample_tail()
    heads = [piece[CHUNK_HEADER_BYTES] for piece in chunks_of(golden) if piece[:4] == b"bord"]
    assert heads == [0x94, 0x94, 0x93]


def test_the_file_of_version_4_is_as_it_always_was() -> None:
    """It has the ranks of earlier moments: of a board, of what the public sees of it, and of one without rules."""
    image = images.sample_with_past_ranks()
    golden = (GOLDEN / "version-4.snapshot").read_bytes()
    assert unpack(Bytes(golden), "x") == (image, images.sample_tail())
    assert packed(image, images.sample_tail()) == golden
    assert golden[8] == 4
    assert verify(Bytes(golden), "x") == images.sample_tail()
    heads = [piece[CHUNK_HEADER_BYTES] for piece in chunks_of(golden) if piece[:4] == b"bord"]
    assert heads == [0x94, 0x95, 0x95, 0x95]


def test_version_5_has_parts() -> None:
    """Its golden file reads and writes as it was drawn."""
    image = images.sample_with_parts()
    golden = (GOLDEN / "version-5.snapshot").read_bytes()
    assert unpack(Bytes(golden), "x") == (image, images.sample_tail())
    assert packed(image, images.sample_tail()) == golden
    assert golden[8] == 5


def test_a_long_part_has_many_chunks() -> None:
    """And comes back whole."""
    image = msgspec.structs.replace(images.sample(), parts=(("reversals", bytes(range(256)) * 4096),))
    data = packed(image, images.sample_tail())
    assert [piece[:4] for piece in chunks_of(data)].count(b"part") == 2
    assert unpack(Bytes(data), "x")[0] == image


@pytest.mark.parametrize("parts", [(("zebra", b"1"),), (("reversals", b"1"), ("imports", b"1")), (("imports", b""),)])
def test_parts_that_are_not_known_or_not_in_order_are_refused(parts: tuple[tuple[str, bytes], ...]) -> None:
    """A part of a newer version says something of the state that must not be forgotten."""
    image = msgspec.structs.replace(images.sample(), parts=parts)
    with pytest.raises(SnapshotDamaged, match="part"):
        unpack(Bytes(packed(image, images.sample_tail())), "x")


def test_a_state_is_written_as_the_oldest_version_that_can_hold_it() -> None:
    """So nodes of two versions of this program agree on digests until the log has something new."""
    plain, defined, histories = images.sample(), images.sample_with_definitions(), [(3, bytes(16))]
    states = [plain, msgspec.structs.replace(plain, histories=histories), defined]
    states.append(msgspec.structs.replace(defined, histories=histories))
    states.append(msgspec.structs.replace(plain, noted=(7, 1)))
    begun = msgspec.structs.replace(plain.boards[0], past_ranks=began_after(["ann"], [1]))
    states.append(msgspec.structs.replace(plain, boards=[begun]))
    states.append(msgspec.structs.replace(plain, parts=(("imports", b"1"),)))
    assert [packed(image, images.sample_tail())[8] for image in states] == [1, 2, 3, 3, 4, 4, 5]


def test_columns_are_little_endian_words() -> None:
    """A score of 258 lies in the file as 02 01 00 …, whatever machine wrote it."""
    image = StateImage(
        1, 1, 1, [(1, 1)], [images.board("main", 1, [("ann", 258, 1, 1)])], images.users([]), images.actions([])
    )
    pieces = chunks_of(packed(image, Tail(log_id=bytes(16), epoch=1, seq=1, checksum=1)))
    assert pieces[4] == chunk(b"bsco", 4, b"\x02\x01\0\0\0\0\0\0")
    assert array("Q", [258]).itemsize == 8
