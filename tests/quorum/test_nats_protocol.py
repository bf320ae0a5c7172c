"""The protocol of NATS: however the network cuts it, the events are the same, and what is too long is refused."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.quorum import nats_protocol as protocol
from server.quorum.nats_limits import HEADERS_BYTES_MAX, LINE_BYTES_MAX, MESSAGE_BYTES_MAX
from server.quorum.nats_protocol import Error, Event, Info, Message, Parser, Ping, Pong, ProtocolFault

HEAD = b"NATS/1.0\r\nKey: value\r\n\r\n"
ALL = b"".join(
    (
        b'INFO {"server_id":"A","version":"2.15.1","max_payload":8388608,"headers":true,"new":[1]}\r\n',
        b"+OK\r\nPING\r\nPONG\r\nping\r\n",
        b"MSG a.b 1 5\r\nhe\r\no\r\n",
        b"MSG a.b 1 _INBOX.x 0\r\n\r\n",
        b"HMSG  c  22\t%d %d\r\n%bpay\r\n" % (len(HEAD), len(HEAD) + 3, HEAD),
        b"HMSG _INBOX.x.1 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
        b"-ERR 'Authorization Violation'\r\n",
    )
)
EVENTS: list[Event] = [
    Info(server_id="A", version="2.15.1", max_payload=8388608, headers=True),
    Ping(),
    Pong(),
    Ping(),
    Message("a.b", 1, "", b"", b"he\r\no"),
    Message("a.b", 1, "_INBOX.x", b"", b""),
    Message("c", 22, "", HEAD, b"pay"),
    Message("_INBOX.x.1", 1, "", b"NATS/1.0 503\r\n\r\n", b""),
    Error("Authorization Violation"),
]


def events(*pieces: bytes) -> list[Event]:
    parser = Parser()
    found = []
    for piece in pieces:
        parser.feed(piece)
        while (event := parser.next_event()) is not None:
            found.append(event)
    return found


@given(st.lists(st.integers(0, len(ALL)), max_size=12))
def test_the_events_do_not_depend_on_where_the_bytes_are_cut(cuts: list[int]) -> None:
    """Also in the middle of a line's end, or of a payload that holds one."""
    edges = [0, *sorted(cuts), len(ALL)]
    assert events(*(ALL[start:end] for start, end in itertools.pairwise(edges))) == EVENTS


def test_the_events_are_the_same_byte_by_byte() -> None:
    assert events(*(ALL[at : at + 1] for at in range(len(ALL)))) == EVENTS


@given(st.binary(max_size=200))
def test_any_bytes_give_events_or_a_fault(data: bytes) -> None:
    """And nothing else: the server may be none of NATS."""
    with contextlib.suppress(ProtocolFault):
        events(data)


@given(st.sampled_from([b"MSG ", b"HMSG ", b"INFO ", b"-ERR "]), st.binary(max_size=60))
def test_any_line_of_a_known_kind_gives_events_or_a_fault(verb: bytes, rest: bytes) -> None:
    with contextlib.suppress(ProtocolFault):
        events(verb + rest + b"\r\n")


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"MSG a 1\r\n",
        b"MSG a 1 b c 2\r\n",
        b"MSG a x 2\r\n",
        b"MSG a 1 -1\r\n",
        b"MSG a 1 %d\r\n" % (MESSAGE_BYTES_MAX + 1),
        b"MSG a 1 99999999999999999999\r\n",
        b"HMSG a 1 %d %d\r\n" % (HEADERS_BYTES_MAX + 1, HEADERS_BYTES_MAX + 1),
        b"HMSG a 1 5 4\r\n",
        b"MSG a 1 2\r\nabcd",
        b"INFO nothing\r\n",
        b"INFO []\r\n",
        b"x" * (LINE_BYTES_MAX + 1),
        b"x" * (LINE_BYTES_MAX + 1) + b"\r\n",
    ],
)
def test_what_the_protocol_does_not_know_is_a_fault(line: bytes) -> None:
    """A length over its bound is refused when its line is read, before a byte of it has come."""
    with pytest.raises(ProtocolFault):
        events(line)


def test_the_longest_line_and_the_status_of_headers() -> None:
    assert events(b"-ERR '%b'\r\n" % (b"x" * (LINE_BYTES_MAX - 7))) == [Error("x" * (LINE_BYTES_MAX - 7))]
    assert [event.status for event in EVENTS if isinstance(event, Message)] == [0, 0, 0, 503]
    assert Message("a", 1, "", b"NATS/1.0 404 No Messages\r\n\r\n", b"").status == 404
    assert Message("a", 1, "", b"NATS/1.0 x\r\n\r\n", b"").status == 0


def test_what_is_sent() -> None:
    """The bytes as the documentation of the protocol has them."""
    assert protocol.subscribe("a.*", 7) == b"SUB a.* 7\r\n"
    assert protocol.publish("a", b"xy") == b"PUB a 2\r\nxy\r\n"
    assert protocol.publish("a", b"", reply="r") == b"PUB a r 0\r\n\r\n"
    sent = protocol.publish("a", b"xy", reply="r", headers=(("K", "1"), ("L", "2")))
    assert sent == b"HPUB a r 24 26\r\nNATS/1.0\r\nK: 1\r\nL: 2\r\n\r\nxy\r\n"
    assert protocol.connect({"verbose": False}) == b'CONNECT {"verbose":false}\r\n'


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB b 0", "a\tb", "a\x00"])
def test_a_subject_cannot_smuggle_a_line(subject: str) -> None:
    with pytest.raises(AssertionError):
        protocol.publish(subject or " ", b"")
    with pytest.raises(AssertionError):
        protocol.publish("a", b"", headers=(("Key", f"{subject}\r\n"),))
