"""The file of a past period: the ranking that went in comes out, and no damage goes unseen."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path

import google_crc32c
import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import SnapshotDamaged
from snapshots import period_file
from snapshots.chunks import CHUNK_BYTES_MAX, CHUNK_HEADER_BYTES, HEADER_BYTES
from snapshots.period_file import PeriodHead, PeriodReader, PeriodRow, pack_period, verify
from tests.snapshots import images
from tests.snapshots.images import Bytes
from tests.snapshots.test_format import chunk, chunks_of

GOLDEN = Path(__file__).with_name("golden")


def head_of(rows: Sequence[PeriodRow]) -> PeriodHead:
    """A head that goes with the rows."""
    return PeriodHead("main", "2025-W50", 1_765_152_000_000, 1_765_756_800_123, 70, len(rows), bytes(range(16)))


def packed(rows: Sequence[PeriodRow], head: PeriodHead | None = None) -> bytes:
    """The whole file."""
    return b"".join(pack_period(head or head_of(rows), rows))


def numbered(count: int) -> list[PeriodRow]:
    """Rows of different users; every third shares the rank of the one before."""
    return [PeriodRow(n - (n % 3 == 1) + 1, f"user{n}", 9_000 - n, 1_765_700_000_000 + n, n + 1) for n in range(count)]


def sample() -> list[PeriodRow]:
    """A few rows with a bit of everything: a shared rank and the gap after it, long ids, the largest numbers."""
    return [
        PeriodRow(1, "ann", 2**53 - 1, 1_765_700_000_000, 2**53 - 1),
        PeriodRow(2, "bob", 20, 1_765_700_000_001, 7),
        PeriodRow(2, "čeněk 🦊", 20, 1_765_700_000_002, 8),
        PeriodRow(4, "d" * 128, 0, 0, 1),
    ]


def read_all(data: bytes, users: Sequence[str]) -> None:
    """Read whatever a reader can read."""
    reader = PeriodReader(Bytes(data), "the/path")
    reader.rows(0, reader.head.count)
    for user_id in users:
        reader.find(user_id)


@pytest.fixture(params=[(1_000, 4_096, 65_536), (3, 2, 2)], ids=["as they are", "small"])
def cuts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cuts as they are, or so small that few rows have many chunks."""
    for name, cut in zip(("ROWS", "INDEX", "WORDS"), request.param, strict=True):
        monkeypatch.setattr(period_file, name, cut)


@st.composite
def rankings(draw: st.DrawFn) -> list[PeriodRow]:
    """Any ranking: ranks ascend, repeat and leave gaps; ids are any texts."""
    ids = draw(st.lists(images.TEXTS, unique=True, max_size=13))
    ranks = accumulate(draw(st.lists(st.integers(0, 3), min_size=len(ids), max_size=len(ids))))
    numbers = st.tuples(images.SEQS, images.SEQS, images.SEQS)
    return [PeriodRow(rank, user_id, *draw(numbers)) for rank, user_id in zip(ranks, ids, strict=True)]


def check_against_list(rows: list[PeriodRow], missing: Sequence[str]) -> None:
    """Compare all that a reader gives with a plain list."""
    data = packed(rows)
    reader = PeriodReader(Bytes(data), "x")
    assert reader.head == verify(Bytes(data), "x") == head_of(rows)
    for count in range(len(rows) + 2):
        assert reader.top(count) == rows[:count]
        for start in range(len(rows) + 2):
            assert reader.rows(start, count) == rows[start : start + count]
    for position, row in enumerate(rows):
        assert reader.find(row.user_id) == (position, row)
    for user_id in missing:
        assert reader.find(user_id) is None


@pytest.mark.usefixtures("cuts")
@settings(deadline=None)
@given(st.data())
def test_a_reader_gives_what_a_plain_list_gives(data: st.DataObject) -> None:
    """The top, any rows, each user, and nothing for a user who is not there."""
    rows = data.draw(rankings())
    ids = {row.user_id for row in rows}
    check_against_list(rows, data.draw(st.lists(images.TEXTS.filter(lambda text: text not in ids), max_size=3)))


@pytest.mark.usefixtures("cuts")
@settings(deadline=None)
@given(st.data())
def test_users_who_share_a_digest_are_told_apart(data: st.DataObject) -> None:
    """Three digests for all users: equal ones run over the cuts of the index, and ids decide."""

    def crowded(user_id: str) -> bytes:
        return (len(user_id) % 3).to_bytes(8, "little")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(period_file, "digest_of", crowded)
        rows = data.draw(rankings())
        ids = {row.user_id for row in rows}
        check_against_list(rows, [text for text in ("a", "bb", "ccc") if text not in ids])


def test_users_who_share_a_digest_stand_in_the_index_by_their_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the bytes would depend on how the machine sorts."""
    monkeypatch.setattr(period_file, "digest_of", lambda user_id: (len(user_id) % 2).to_bytes(8, "little"))
    rows = [PeriodRow(1, "x" * (n + 1), 1, 1, 1) for n in range(127)]
    entries = chunks_of(packed(rows))[3][CHUNK_HEADER_BYTES:]
    assert list(struct.unpack("<127I", entries[8 * 127 :])) == [*range(1, 127, 2), *range(0, 127, 2)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 13])
def test_every_way_that_a_count_falls_on_the_cuts_comes_back(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts below, at and beyond the cuts are packed into the fewest chunks."""
    for name, cut in (("ROWS", 3), ("INDEX", 2), ("WORDS", 4)):
        monkeypatch.setattr(period_file, name, cut)
    check_against_list(numbered(count), ["nobody"])
    rows_chunks, index_chunks = -(-count // 3), -(-count // 2)
    kinds = [piece[:4] for piece in chunks_of(packed(numbered(count)))[1:]]
    directory = -(-(rows_chunks + 2 * index_chunks) // 4)
    assert kinds == [b"head"] + rows_chunks * [b"rows"] + index_chunks * [b"indx"] + directory * [b"dirc"] + [b"foot"]


@pytest.mark.parametrize("count", [999, 1_000, 1_001, 4_095, 4_096, 4_097, 8_192])
def test_counts_around_the_real_cuts_come_back(count: int) -> None:
    """A thousand rows in a chunk, 4,096 entries in a chunk of the index."""
    rows = numbered(count)
    data = packed(rows)
    reader = PeriodReader(Bytes(data), "x")
    assert reader.rows(0, count + 1) == rows
    for position in {0, 998, count // 2, count - 2, count - 1}:
        assert reader.find(f"user{position}") == (position, rows[position])
    assert reader.find(f"user{count}") is None
    assert verify(Bytes(data), "x").count == count


def test_the_rows_are_read_once_and_give_the_same_bytes() -> None:
    """Rows may come from a generator, and packing is deterministic."""
    rows = numbered(2_500)

    def stream() -> Iterator[PeriodRow]:
        yield from rows

    assert b"".join(pack_period(head_of(rows), stream())) == packed(rows)


def test_no_chunk_is_long_even_with_the_longest_ids() -> None:
    """A thousand ids of 128 characters of 4 bytes, with the largest numbers, stay below the limit."""
    most = 2**53 - 1
    rows = [PeriodRow(most, "🦊" * 124 + f"{n:04}", most, most, most) for n in range(period_file.ROWS + 1)]
    assert max(map(len, pack_period(head_of(rows), rows))) < CHUNK_BYTES_MAX


def test_finding_a_user_reads_two_chunks() -> None:
    """One of the index and one of rows, in two reads each, however many there are."""

    class Counting(Bytes):
        reads = 0

        def read_at(self, offset: int, length: int) -> bytes:
            self.reads += 1
            return super().read_at(offset, length)

    source = Counting(packed(numbered(9_000)))
    reader = PeriodReader(source, "x")
    source.reads = 0
    assert reader.find("user8000") is not None
    assert source.reads == 4


@pytest.mark.parametrize("count", [2, 4])
def test_rows_that_are_not_as_many_as_the_head_says_are_a_bug(count: int) -> None:
    """The file is not finished then."""
    with pytest.raises(AssertionError, match="rows than the head says"):
        packed(numbered(count), head_of(numbered(3)))


def test_ranks_that_do_not_ascend_are_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a chunk of rows, and from one to the next."""
    monkeypatch.setattr(period_file, "ROWS", 2)
    rows = numbered(4)
    for wrong in ([rows[3], rows[0]], [rows[0], rows[3], rows[2]]):
        with pytest.raises(AssertionError, match="ascend"):
            packed(wrong)


# Damage


@pytest.mark.usefixtures("cuts")
def test_every_flipped_byte_is_found_and_placed() -> None:
    """`verify` refuses each of them, and so does whoever reads the damaged chunk. Both say where, and what to do."""
    rows = numbered(7)
    data = packed(rows)
    ends = list(accumulate(map(len, chunks_of(data))))
    footer = ends[-2]
    for offset in range(len(data)):
        begins = max(end for end in (0, *ends) if end <= offset)
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[offset] ^= flip
            with pytest.raises(SnapshotDamaged, match="from the log") as caught:
                verify(Bytes(bytes(damaged)), "the/path")
            assert (caught.value.path, caught.value.offset) == ("the/path", begins)
            with pytest.raises(SnapshotDamaged, match="from the log") as caught:
                read_all(bytes(damaged), [row.user_id for row in rows])
            assert caught.value.path == "the/path"
            assert caught.value.offset in {begins, footer}


@pytest.mark.usefixtures("cuts")
def test_damage_of_one_chunk_leaves_the_others_readable() -> None:
    """Only reads of the damaged rows fail."""
    rows = numbered(5_000)
    data = packed(rows)
    first_rows = sum(map(len, chunks_of(data)[:2]))
    data = data[: first_rows + 20] + b"\xff" + data[first_rows + 21 :]
    reader = PeriodReader(Bytes(data), "x")
    with pytest.raises(SnapshotDamaged) as caught:
        reader.top(1)
    assert caught.value.offset == first_rows
    assert reader.rows(1_500, 3) == rows[1_500:1_503]
    assert reader.find("user4999") == (4_999, rows[4_999])


@pytest.mark.usefixtures("cuts")
@pytest.mark.parametrize("count", [0, 7])
def test_every_truncation_is_found(count: int) -> None:
    """A file that ends early, wherever that is, is refused when it is opened."""
    data = packed(numbered(count))
    for length in range(len(data)):
        for read in (PeriodReader, verify):
            with pytest.raises(SnapshotDamaged):
                read(Bytes(data[:length]), "x")


def test_a_file_shorter_than_its_footer_is_refused_unread() -> None:
    """It ends after the shortest head that there can be: nothing is read before its beginning."""

    class Strict(Bytes):
        def read_at(self, offset: int, length: int) -> bytes:
            assert offset >= 0
            return super().read_at(offset, length)

    data = packed([], PeriodHead("", "", 0, None, 0, 0, bytes(16)))
    for length in range(len(data)):
        with pytest.raises(SnapshotDamaged):
            PeriodReader(Strict(data[:length]), "x")


@pytest.mark.parametrize("rest", [b"\0", b"more", bytes(4096)])
def test_bytes_after_the_end_are_found(rest: bytes) -> None:
    """A file that goes on after its footer is refused."""
    data = packed(sample()) + rest
    with pytest.raises(SnapshotDamaged, match=f"{len(rest)} bytes after the end"):
        verify(Bytes(data), "x")
    with pytest.raises(SnapshotDamaged, match="no whole footer at the end"):
        PeriodReader(Bytes(data), "x")


@pytest.mark.usefixtures("cuts")
def test_a_chunk_of_another_file_is_found_by_the_digest() -> None:
    """It is whole and in its place, but from the file of another period."""
    rows = numbered(7)
    other = [msgspec.structs.replace(row, score=row.score ^ 1) for row in rows]
    pieces = chunks_of(packed(rows))
    pieces[2] = chunks_of(packed(other))[2]
    with pytest.raises(SnapshotDamaged, match="digest of the whole"):
        verify(Bytes(b"".join(pieces)), "x")


@pytest.mark.usefixtures("cuts")
def test_chunks_that_have_changed_places_are_found() -> None:
    """Two chunks of rows, or of the index, whichever way the file is read."""
    rows = numbered(8_001)
    for kind in (b"rows", b"indx"):
        pieces = chunks_of(packed(rows))
        first = next(number for number, piece in enumerate(pieces) if piece[:4] == kind)
        pieces[first], pieces[first + 1] = pieces[first + 1], pieces[first]
        data = b"".join(pieces)
        with pytest.raises(SnapshotDamaged, match="where chunk"):
            verify(Bytes(data), "x")
        with pytest.raises(SnapshotDamaged):
            read_all(data, [row.user_id for row in rows])


def refitted(number: int, kind: bytes, payload: bytes, log_id: bytes = bytes(range(16)), gap: bytes = b"") -> bytes:
    """The file of the sample with another chunk in one place; the directory and the digest fit it.

    `log_id`: that of the footer. `gap`: bytes before the footer.
    """
    pieces = chunks_of(packed(sample()))
    pieces[number] = chunk(kind, number, payload)
    offsets = [0, *accumulate(map(len, pieces))]
    if number != 4:
        first_digest = pieces[3][CHUNK_HEADER_BYTES : CHUNK_HEADER_BYTES + 8]
        pieces[4] = chunk(b"dirc", 4, struct.pack("<2Q", offsets[2], offsets[3]) + first_digest)
    before = b"".join(pieces[:5])
    digest = blake2b(before, digest_size=32).digest()
    return before + gap + chunk(b"foot", 5, struct.pack("<32sQ16s", digest, offsets[4], log_id))


@pytest.mark.parametrize(
    ("number", "kind", "payload", "complaint"),
    [
        (1, b"head", b"\xc0", "says nothing"),
        (1, b"rows", b"\xc0", "b'rows' where b'head' belongs"),
        (2, b"rows", b"\x91\x95\x01\xa3ann\x01\x01\x01", "1 rows in a chunk instead of 4"),
        (2, b"rows", b"\x91\x94\x01\xa3ann\x01\x01", "says nothing"),
        (2, b"what", b"\xc0", "b'what' where b'rows' belongs"),
        (3, b"indx", bytes(36), "of 36 bytes instead of 48"),
    ],
)
def test_a_chunk_that_is_whole_but_makes_no_sense_is_refused(
    number: int, kind: bytes, payload: bytes, complaint: str
) -> None:
    """Right checksums do not help a file whose counts and contents contradict each other."""
    with pytest.raises(SnapshotDamaged, match=complaint):
        read_all(refitted(number, kind, payload), ["ann", "bob"])


def test_an_index_that_leads_beyond_the_last_row_is_refused() -> None:
    """The digests are right, and each leads to a row that does not exist."""
    digests = chunks_of(packed(sample()))[3][CHUNK_HEADER_BYTES : CHUNK_HEADER_BYTES + 32]
    with pytest.raises(SnapshotDamaged, match="beyond the last row"):
        read_all(refitted(3, b"indx", digests + 4 * struct.pack("<I", 4)), ["ann"])


def test_a_directory_that_leads_elsewhere_is_found() -> None:
    """All is whole, but the offsets are wrong: `verify` sees it, and a reader does not take the wrong chunk."""
    first_digest = chunks_of(packed(sample()))[4][-8:]
    data = refitted(4, b"dirc", struct.pack("<2Q", HEADER_BYTES, HEADER_BYTES) + first_digest)
    with pytest.raises(SnapshotDamaged, match="does not lead to the chunks"):
        verify(Bytes(data), "x")
    reader = PeriodReader(Bytes(data), "x")
    for read in (lambda: reader.top(1), lambda: reader.find("ann")):
        with pytest.raises(SnapshotDamaged, match="chunk 1 where chunk"):
            read()


def test_a_footer_that_is_not_that_of_the_file_is_refused() -> None:
    """It names another log, or does not follow the directory. Made with the right values it is accepted."""
    rows = chunks_of(packed(sample()))[2][CHUNK_HEADER_BYTES:]
    assert refitted(2, b"rows", rows) == packed(sample())
    for data, complaint in (
        (refitted(2, b"rows", rows, log_id=bytes(16)), "that of another"),
        (refitted(2, b"rows", rows, gap=b"gap"), "not at the footer|the file ends within|possible"),
    ):
        for read in (PeriodReader, verify):
            with pytest.raises(SnapshotDamaged, match=complaint):
                read(Bytes(data), "x")


def test_another_version_is_refused_by_its_number() -> None:
    """A file of a version that does not exist yet says so; a snapshot is not taken for a period."""
    for magic, version, complaint in ((b"scoreprd", 2, "period file version 2"), (b"scoresnp", 1, "not a period file")):
        header = struct.pack("<8sI", magic, version)
        data = header + struct.pack("<I", google_crc32c.value(header)) + bytes(100)
        for read in (PeriodReader, verify):
            with pytest.raises(SnapshotDamaged, match=complaint):
                read(Bytes(data), "x")


# Golden files


@pytest.mark.parametrize(("name", "rows"), [("version-1.period", sample()), ("version-1-empty.period", [])])
def test_the_file_of_version_1_is_as_it_always_was(name: str, rows: list[PeriodRow]) -> None:
    """What version 1 wrote once is still read, and still written, byte for byte."""
    golden = (GOLDEN / name).read_bytes()
    head = golden_head(rows)
    assert packed(rows, head) == golden
    reader = PeriodReader(Bytes(golden), name)
    assert (reader.head, reader.rows(0, 9)) == (head, rows)
    assert verify(Bytes(golden), name) == head


def golden_head(rows: list[PeriodRow]) -> PeriodHead:
    """The head of a golden file. The end of the empty one is not known."""
    return head_of(rows) if rows else msgspec.structs.replace(head_of(rows), ends_ms=None)


def test_a_foreign_reader_finds_the_same_ranking() -> None:
    """The golden file read with `struct` and the `msgpack` package, as the drawings say."""
    data = (GOLDEN / "version-1.period").read_bytes()
    assert data[:16] == struct.pack("<8sII", b"scoreprd", 1, google_crc32c.value(data[:12]))
    pieces = chunks_of(data)[1:]
    payloads = [piece[CHUNK_HEADER_BYTES:] for piece in pieces]
    assert [struct.unpack_from("<4sI", piece) for piece in pieces] == [
        (b"head", 1),
        (b"rows", 2),
        (b"indx", 3),
        (b"dirc", 4),
        (b"foot", 5),
    ]
    offsets = list(accumulate([16, *map(len, pieces)]))
    head = ["main", "2025-W50", 1_765_152_000_000, 1_765_756_800_123, 70, 4, bytes(range(16))]
    assert msgpack.unpackb(payloads[0]) == head
    rows = msgpack.unpackb(payloads[1])
    assert rows == [[row.rank, row.user_id, row.score, row.updated_ms, row.reached_seq] for row in sample()]
    digests = [int.from_bytes(blake2b(row[1].encode(), digest_size=8).digest(), "little") for row in rows]
    entries = sorted((digest, position) for position, digest in enumerate(digests))
    assert struct.unpack("<4Q4I", payloads[2]) == (*(one[0] for one in entries), *(one[1] for one in entries))
    assert struct.unpack("<3Q", payloads[3]) == (offsets[1], offsets[2], entries[0][0])
    digest = blake2b(data[: offsets[4]], digest_size=32).digest()
    assert payloads[4] == struct.pack("<32sQ16s", digest, offsets[3], bytes(range(16)))
