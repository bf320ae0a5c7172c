"""Every decoder, on any bytes: a value or its one documented error, whole and byte by byte; encoders, there and back.

The rules of each format have tests of their own: frames and segment headers in `engine`, snapshots in `snapshots`,
WebSocket frames in `server/http`.
"""

from __future__ import annotations

import gzip
import json
from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from engine.errors import SnapshotDamaged
from engine.image import StateImage
from engine.past_ranks import Change
from engine.record import (
    FRAME_MAGIC,
    FrameFault,
    Tail,
    find_frame,
    pack_frame,
    pack_segment_header,
    unpack_frame,
    unpack_header,
    unpack_segment_header,
)
from engine.segment import SegmentFile, read_content
from server.api.decoding import decode_batch, decode_increment, decode_user
from server.http.messages import Refused
from server.http.request_parser import RequestParser
from server.http.websocket import Closed, Fault, FrameEvent, FrameParser, text_frame
from server.live import encoding
from server.live.encoding import Entry, Rows
from snapshots.format import pack, unpack, verify
from tests.engine.logs import increments
from tests.sim.disk import Machine
from tests.sim.screens import payloads
from tests.sim.storage import Nothing
from tests.snapshots.images import Bytes, images

CHANGES = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 4), st.binary(max_size=5)), min_size=1, max_size=4)
"""An edit: where, how many bytes go, and the bytes in their place."""


def changed(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Replace bytes as the edits say."""
    for place, cut, put in changes:
        at = place % (len(data) + 1)
        data = data[:at] + put + data[at + cut :]
    return data


@given(st.integers(1, 30), CHANGES)
def test_a_changed_frame_is_refused_or_is_the_same(count: int, changes: list[tuple[int, int, bytes]]) -> None:
    """Whatever was changed, no reader takes it for another frame."""
    packed = pack_frame(increments(1, count), epoch=1, previous=7)
    data = changed(packed, changes)
    for read in (unpack_header, unpack_frame):
        try:
            value = read(data)
        except FrameFault:
            continue
        if read is unpack_frame:
            assert (value, data[: len(packed)]) == (unpack_frame(packed), packed)
    found = find_frame(data, 0)
    assert found is None or found[1] == unpack_frame(packed)


@given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda rest: b"scorelog\1\0\0\0" + rest))
def test_any_bytes_are_a_head_of_a_segment_or_the_fault(data: bytes) -> None:
    """A good head packs to the same bytes again."""
    try:
        header = unpack_segment_header(data)
    except FrameFault:
        return
    assert pack_segment_header(header) == data[:64]


@given(
    st.binary(max_size=200) | CHANGES.map(lambda changes: changed(gzip.compress(b"scorelog" * 40, mtime=0), changes))
)
@example(b"")
def test_any_bytes_are_a_compressed_segment_or_the_fault(data: bytes) -> None:
    """Unpacking raises only its documented error."""
    disk = Machine(Nothing()).boot()
    disk.write_whole("/1.log.gz", [data])
    try:
        content = read_content(disk, SegmentFile("/1.log.gz", 1, True, len(data)))
    except FrameFault:
        return
    assert content == gzip.decompress(data)


@settings(max_examples=60)
@given(images(), CHANGES)
def test_a_changed_snapshot_is_refused_or_is_the_same(
    state: tuple[StateImage, Tail], changes: list[tuple[int, int, bytes]]
) -> None:
    """The reader that builds a state and the one that only proves it say the same."""
    image, tail = state
    packed = b"".join(pack(image, tail))
    data = changed(packed, changes)
    if data == packed:
        assert unpack(Bytes(data), "p")[1] == verify(Bytes(data), "p") == tail
    else:
        for read in (unpack, verify):
            with pytest.raises(SnapshotDamaged):
                read(Bytes(data), "p")


@given(st.binary(max_size=400))
def test_any_bytes_are_a_snapshot_or_damaged(data: bytes) -> None:
    """Random bytes are no snapshot."""
    for read in (unpack, verify):
        with pytest.raises(SnapshotDamaged):
            read(Bytes(data), "p")


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
@example(FRAME_MAGIC, [])
def test_any_bytes_from_a_viewer_are_events_or_one_fault(data: bytes, cuts: list[int]) -> None:
    """Whole, byte by byte, in any pieces: the same events, and nothing after a fault or a goodbye."""

    def read(pieces: list[bytes]) -> list[FrameEvent]:
        parser = FrameParser()
        return [event for piece in pieces for event in parser.feed(piece)]

    whole = read([data])
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    assert read([data[place : place + 1] for place in range(len(data))]) == whole
    assert read([data[start:stop] for start, stop in pairwise(places)]) == whole
    assert not any(isinstance(event, Fault | Closed) for event in whole[:-1])


@given(st.binary(max_size=70_000))
def test_any_text_frame_of_the_server_is_read_back(text: bytes) -> None:
    """The few lines of the simulated viewers read what the server wrote."""
    assert payloads(text_frame(text) + text_frame(text)) == [text, text]


HEADS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ]
)


@given(st.binary(max_size=200) | st.tuples(HEADS, CHANGES).map(lambda both: changed(*both)))
def test_any_bytes_from_a_client_are_requests_or_one_refusal(data: bytes) -> None:
    """Whole and byte by byte: the same requests, then the same refusal or none."""

    def read(pieces: list[bytes]) -> tuple[list[tuple[str, str, bytes]], int | None]:
        parser = RequestParser(body_bytes_max=1_000)
        found: list[tuple[str, str, bytes]] = []
        inbound = None
        try:
            for piece in pieces:
                parser.receive(piece)
                while True:
                    inbound = inbound or parser.next_head()
                    body = parser.next_body() if inbound is not None else None
                    if inbound is None or body is None:
                        break
                    found.append((inbound.head.method, inbound.head.target, body))
                    inbound = None
        except Refused as refused:
            return found, refused.status
        return found, None

    whole = read([data])
    assert read([data[place : place + 1] for place in range(len(data))]) == whole
    assert whole[1] in {None, 400, 413, 417, 431, 501, 505}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.binary(max_size=100) | JSON_VALUES.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
FIELDS = ["userId", "actionId", "boardId", "reason", "displayName", "active", "delta"]
NEAR = st.dictionaries(st.sampled_from(FIELDS), st.text(max_size=6) | st.booleans() | st.none() | st.integers())


@given(BODIES | NEAR.map(lambda value: json.dumps(value).encode()))
@example(b'{"userId":"\\ud800","actionId":"a"}')
@example(b"[" * 5000)
def test_any_body_is_read_or_refused(body: bytes) -> None:
    """The refusal is 400 with the field at fault; no other exception gets out."""
    for read in (decode_increment, decode_user, lambda data: decode_batch(data, 10)):
        fault: Refused | None = None
        try:
            assert read(body)
        except Refused as refused:
            fault = refused
        assert fault is None or (fault.status, fault.code, "field" in fault.details) == (400, "INVALID_REQUEST", True)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


PLACES = st.sampled_from([UNSET, None, 0, 3, -99])
MOVES = st.none() | st.builds(Change, PLACES, PLACES)


@st.composite
def top_rows(draw: st.DrawFn) -> Rows:
    """Draw the first rows of a board."""
    users = draw(st.lists(TEXTS, max_size=10, unique=True))
    scores = sorted((draw(st.integers(0, 2**53 - 1)) for _ in users), reverse=True)
    ranked = enumerate(zip(users, scores, strict=True), 1)
    return tuple(
        Entry(user_id=user, display_name=draw(st.none() | TEXTS), score=score, rank=rank, change=draw(MOVES))
        for rank, (user, score) in ranked
    )


@given(top_rows(), top_rows(), TEXTS, st.integers(1, 2**53 - 1), st.integers(0, 2**53 - 2))
def test_any_live_message_is_read_back_by_a_page(
    before: Rows, after: Rows, board_id: str, epoch: int, seq: int
) -> None:
    """A snapshot and an update give their rows; a delta gives the rows after it from the rows before."""

    def plain(rows: Rows) -> list[dict[str, object]]:
        return [
            {"userId": row.user_id, "score": row.score, "rank": row.rank}
            | ({} if row.display_name is None else {"displayName": row.display_name})
            | ({} if row.change is None else {"change": msgspec.to_builtins(row.change)})
            for row in rows
        ]

    moment = encoding.Moment(board_id, epoch, seq + 1, 0)
    position = {"boardId": board_id, "epoch": epoch, "seq": seq + 1}
    for encode in (encoding.snapshot_message, encoding.update_message):
        message = json.loads(encode(after, moment))
        assert message["entries"] == plain(after)
        assert position.items() <= message.items()
    delta = json.loads(encoding.delta_message(before, after, seq, moment))
    assert ({**position, "baseSeq": seq}).items() <= delta.items()
    rows = {row["userId"]: row for row in plain(before)}
    for user in delta["left"]:
        del rows[user]
    rows |= {row["userId"]: row for row in delta["changed"]}
    assert sorted(rows.values(), key=lambda row: json.dumps(row["rank"]).zfill(9)) == plain(after)
