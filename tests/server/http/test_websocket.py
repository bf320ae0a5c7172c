"""Frames as the RFC has them: its own examples, every rule that a client can break, any way of cutting the bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, TextMessage
from wsproto.events import Ping as WsprotoPing
from wsproto.events import Pong as WsprotoPong

from server.bounds import VIEWER_MESSAGE_BYTES_MAX
from server.http import websocket
from server.http.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Closed,
    Fault,
    FrameEvent,
    FrameParser,
    Message,
)
from tests.server.live.client_frames import client_frame


def read(*pieces: bytes) -> list[FrameEvent]:
    """Feed a fresh parser piece by piece and give everything it tells."""
    parser = FrameParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def read_bytewise(data: bytes) -> list[FrameEvent]:
    """Feed a fresh parser byte by byte."""
    return read(*(data[i : i + 1] for i in range(len(data))))


def fault_code(data: bytes) -> int:
    """Read bytes that must end in a fault and give its code."""
    events = read(data)
    assert isinstance(events[-1], Fault), events
    return events[-1].code


# What the server sends


@pytest.mark.parametrize(
    ("payload_bytes", "header"),
    [(0, "8100"), (125, "817d"), (126, "817e007e"), (65_535, "817effff"), (65_536, "817f0000000000010000")],
)
def test_a_text_frame_has_the_shortest_length(payload_bytes: int, header: str) -> None:
    """On each side of the edges between the three forms, the length takes its shortest one."""
    payload = b"x" * payload_bytes
    assert websocket.text_frame(payload) == bytes.fromhex(header) + payload


def test_the_examples_of_the_rfc_are_made_and_read() -> None:
    """RFC 6455, section 5.7: the unmasked ones are what the server would make, the masked ones what it reads."""
    assert websocket.text_frame(b"Hello") == bytes.fromhex("810548656c6c6f")
    assert websocket.server_frame(PING, b"Hello") == bytes.fromhex("890548656c6c6f")
    assert read(bytes.fromhex("818537fa213d7f9f4d5158")) == [Message(TEXT, b"Hello")]
    assert read(bytes.fromhex("8a8537fa213d7f9f4d5158")) == [websocket.Pong(b"Hello")]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 100_000])
def test_another_implementation_reads_what_the_server_makes(size: int) -> None:
    """The client half of wsproto takes text of any length, ping, pong and close as they were meant."""
    client = Connection(ConnectionType.CLIENT)
    text = "é" * (size // 2)
    sent = [
        websocket.text_frame(text.encode()),
        websocket.server_frame(PING, b"there?"),
        websocket.server_frame(PONG, b"here"),
        websocket.close_frame(1012, "the server restarts"),
    ]
    client.receive_data(b"".join(sent))
    events = list(client.events())
    assert "".join(event.data for event in events if isinstance(event, TextMessage)) == text
    assert [event.payload for event in events if isinstance(event, WsprotoPing)] == [b"there?"]
    assert [event.payload for event in events if isinstance(event, WsprotoPong)] == [b"here"]
    assert events[-1] == CloseConnection(code=1012, reason="the server restarts")


def test_a_long_reason_is_cut_between_two_characters() -> None:
    """A close frame stays a control frame: a reason that is too long loses its end, but never half a character."""
    frame = websocket.close_frame(1002, "é" * 100)
    assert len(frame) == 2 + 2 + 122
    assert frame[4:].decode() == "é" * 61


def test_the_answer_to_a_close_without_a_code_has_none() -> None:
    """A client that gave no code gets none back."""
    assert websocket.close_frame(None) == b"\x88\x00"


# What a client sends


def test_every_kind_of_frame_is_told() -> None:
    """Text, binary, ping, pong and close come out as themselves, in order."""
    data = (
        client_frame(TEXT, "schön".encode())
        + client_frame(BINARY, b"\x00\xff")
        + client_frame(PING, b"a")
        + client_frame(PONG)
        + client_frame(CLOSE, b"\x03\xe8bye")
    )
    assert read(data) == [
        Message(TEXT, "schön".encode()),
        Message(BINARY, b"\x00\xff"),
        websocket.Ping(b"a"),
        websocket.Pong(b""),
        Closed(1000, "bye"),
    ]


def test_a_fragmented_message_is_put_together_around_control_frames() -> None:
    """Fragments make one message, even when a character is cut in two and a ping comes in between."""
    half, other_half = "ö".encode()[:1], "ö".encode()[1:]
    data = (
        client_frame(TEXT, half, fin=False)
        + client_frame(PING, b"now")
        + client_frame(CONTINUATION, other_half, fin=False)
        + client_frame(CONTINUATION)
        + client_frame(BINARY, b"next")
    )
    assert read(data) == [websocket.Ping(b"now"), Message(TEXT, "ö".encode()), Message(BINARY, b"next")]


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, VIEWER_MESSAGE_BYTES_MAX])
def test_messages_up_to_the_cap_are_taken(length: int) -> None:
    """The cap itself is still allowed, in one frame or in two."""
    payload = bytes(range(256)) * (length // 256 + 1)
    payload = payload[:length]
    assert read(client_frame(BINARY, payload)) == [Message(BINARY, payload)]
    cut = length // 2
    data = client_frame(BINARY, payload[:cut], fin=False) + client_frame(CONTINUATION, payload[cut:])
    assert read(data) == [Message(BINARY, payload)]


@pytest.mark.parametrize(
    ("header", "code"),
    [
        pytest.param("827e1001", 1009, id="one byte beyond the cap"),
        pytest.param("827f0000000000010000", 1009, id="64 KiB"),
        pytest.param("827f7fffffffffffffff", 1009, id="8 EiB"),
        pytest.param("827fffffffffffffffff", 1009, id="a length with its top bit set"),
    ],
)
def test_a_message_beyond_the_cap_is_refused_by_its_length_alone(header: str, code: int) -> None:
    """No byte of the payload has to come for that, nor the mask: nothing is kept for it."""
    data = bytearray.fromhex(header)
    data[1] |= websocket.MASKED
    assert fault_code(bytes(data)) == code


def test_fragments_beyond_the_cap_are_refused() -> None:
    """It is the message that is bounded, not just each of its frames."""
    part = b"x" * (VIEWER_MESSAGE_BYTES_MAX // 2)
    data = client_frame(TEXT, part, fin=False) + client_frame(CONTINUATION, part, fin=False)
    assert read(data) == []
    assert fault_code(data + client_frame(CONTINUATION, b"x")) == 1009


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(websocket.server_frame(TEXT, b"hi"), id="not masked"),
        pytest.param(websocket.server_frame(PING, b""), id="a ping, not masked"),
        pytest.param(client_frame(TEXT, b"", reserved=0x40), id="RSV1, as for compression"),
        pytest.param(client_frame(TEXT, b"", reserved=0x20), id="RSV2"),
        pytest.param(client_frame(PING, b"", reserved=0x10), id="RSV3 on a ping"),
        *(pytest.param(client_frame(opcode, b""), id=f"opcode {opcode}") for opcode in (3, 7, 11, 15)),
        pytest.param(client_frame(PING, b"", fin=False), id="a fragmented ping"),
        pytest.param(client_frame(CLOSE, b"", fin=False), id="a fragmented close"),
        pytest.param(client_frame(PONG, b"x" * 126), id="a long pong"),
        pytest.param(client_frame(CONTINUATION, b""), id="a continuation of nothing"),
        pytest.param(client_frame(TEXT, b"", fin=False) + client_frame(TEXT, b""), id="a text within a message"),
        pytest.param(client_frame(BINARY, b"") + client_frame(CONTINUATION, b""), id="a continuation after the end"),
        pytest.param(bytes.fromhex("82fe007d"), id="a length in two bytes that fits in one"),
        pytest.param(bytes.fromhex("82ff000000000000ffff"), id="a length in eight bytes that fits in two"),
        pytest.param(client_frame(CLOSE, b"\x03"), id="half a close code"),
        *(
            pytest.param(client_frame(CLOSE, code.to_bytes(2, "big")), id=f"close code {code}")
            for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
        ),
    ],
)
def test_a_broken_rule_is_a_protocol_error(data: bytes) -> None:
    """Each of these ends in 1002, whole or byte by byte."""
    assert fault_code(data) == 1002
    assert read_bytewise(data) == read(data)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999])
def test_close_codes_that_may_be_sent_are_taken(code: int) -> None:
    """The registered codes, and those left to libraries and applications."""
    assert read(client_frame(CLOSE, code.to_bytes(2, "big"))) == [Closed(code, "")]


def test_a_close_may_be_empty() -> None:
    """A close frame without code and reason is correct."""
    assert read(client_frame(CLOSE, b"")) == [Closed(None, "")]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(client_frame(TEXT, b"\xff"), id="never UTF-8"),
        pytest.param(client_frame(TEXT, b"\xed\xa0\x80"), id="a surrogate"),
        pytest.param(client_frame(TEXT, b"\xc0\x80"), id="an overlong zero"),
        pytest.param(client_frame(TEXT, "ö".encode()[:1]), id="half a character at the end"),
        pytest.param(
            client_frame(TEXT, "ö".encode()[:1], fin=False) + client_frame(CONTINUATION, b"x"), id="cut by a fragment"
        ),
        pytest.param(client_frame(CLOSE, b"\x03\xe8\xff"), id="a close reason"),
    ],
)
def test_text_that_is_not_utf8_is_invalid_data(data: bytes) -> None:
    """Each of these ends in 1007; binary messages may hold anything."""
    assert fault_code(data) == 1007


@pytest.mark.parametrize("last", [client_frame(CLOSE, b""), client_frame(TEXT, b"\xff"), b"\x81\x00"])
def test_nothing_is_read_after_the_end(last: bytes) -> None:
    """After a close or a fault, whatever follows is taken and forgotten, in the same piece or in a later one."""
    parser = FrameParser()
    assert len(parser.feed(last + client_frame(PING, b"more"))) == 1
    assert parser.feed(client_frame(PING, b"still more")) == []


def test_between_frames_nothing_is_kept() -> None:
    """An idle parser has no buffer: what it keeps are the shared empty bytes."""
    parser = FrameParser()
    parser.feed(client_frame(TEXT, b"x" * 1000)[:500])
    parser.feed(client_frame(TEXT, b"x" * 1000)[500:])
    assert parser._buffer == parser._fragments == b""


# Any client, and any way of cutting

payloads = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=60).map(str.encode),
    st.sampled_from([125, 126, VIEWER_MESSAGE_BYTES_MAX, VIEWER_MESSAGE_BYTES_MAX + 1]).map(lambda size: b"x" * size),
    st.integers(0, 65_535).map(lambda code: code.to_bytes(2, "big")),
)
some_frames = st.builds(
    client_frame,
    st.sampled_from([CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION, TEXT, PING, 3]),
    payloads,
    fin=st.sampled_from([True, True, True, False]),
    reserved=st.sampled_from([0, 0, 0, 0, 0, 0, 0x40]),
    mask=st.binary(min_size=4, max_size=4),
)
streams = st.one_of(st.lists(some_frames, max_size=8).map(b"".join), st.binary(max_size=300))


@given(streams, st.lists(st.integers(0, 10_000), max_size=10))
@example(client_frame(TEXT, b"x" * (VIEWER_MESSAGE_BYTES_MAX + 1)), [])
def test_the_pieces_make_no_difference(data: bytes, cuts: list[int]) -> None:
    """Whatever a client sends, good or bad: whole, byte by byte, or cut anywhere, it says the same."""
    whole = read(data)
    assert read_bytewise(data) == whole
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    assert read(*(data[a:b] for a, b in pairwise(edges))) == whole
    assert not any(isinstance(event, Closed | Fault) for event in whole[:-1])


@given(streams)
def test_what_a_parser_keeps_is_bounded(data: bytes) -> None:
    """At no moment does a parser hold more than one message and one frame of it."""
    parser = FrameParser()
    for byte in data:
        parser.feed(bytes([byte]))
        assert len(parser._buffer) <= VIEWER_MESSAGE_BYTES_MAX + 14
        assert len(parser._fragments) <= VIEWER_MESSAGE_BYTES_MAX


@given(st.lists(st.tuples(st.sampled_from(["text", "binary", "ping", "pong"]), st.text(max_size=40)), max_size=10))
def test_frames_of_another_implementation_are_read(sent: list[tuple[str, str]]) -> None:
    """What the client half of wsproto sends comes out as it went in."""
    client = Connection(ConnectionType.CLIENT)
    data = b""
    expected: list[FrameEvent] = []
    for kind, text in sent:
        payload = text.encode()
        if kind == "text":
            data += client.send(TextMessage(data=text))
            expected.append(Message(TEXT, payload))
        elif kind == "binary":
            data += client.send(BytesMessage(data=payload))
            expected.append(Message(BINARY, payload))
        elif kind == "ping":
            data += client.send(WsprotoPing(payload=payload[:125]))
            expected.append(websocket.Ping(payload[:125]))
        else:
            data += client.send(WsprotoPong(payload=payload[:125]))
            expected.append(websocket.Pong(payload[:125]))
    data += client.send(CloseConnection(code=1001, reason="leaving"))
    assert read(data) == [*expected, Closed(1001, "leaving")]
