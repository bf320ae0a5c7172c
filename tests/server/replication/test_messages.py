"""The messages of both sides: each is read as it was written, and an invalid one is refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.record import Tail, chain_start
from server.http.messages import Refused
from server.replication.messages import (
    Behind,
    Deposed,
    Digest,
    Diverged,
    Fork,
    ForkQuestion,
    Heartbeat,
    Hello,
    Mark,
    MessageFault,
    Position,
    SnapshotNeeded,
    Welcome,
    decode_from_follower,
    decode_from_leader,
    encode,
    fork_of,
    hello_of,
    parse_fork,
    parse_hello,
)
from server.replication.sharding import Shard
from snapshots.digests import StateDigests

LOG_ID = bytes(range(16))
START = f"{chain_start(LOG_ID):08x}"
DIGESTS = StateDigests("w", "u", "a", {"main": "m"})


@pytest.mark.parametrize(
    "message",
    [
        Welcome(LOG_ID.hex(), 1, 5, 1.0, "node", "http://public.example"),
        Heartbeat(1, 5, 1000),
        Mark(5),
        Digest(5, DIGESTS),
        SnapshotNeeded("gone", 7),
        Diverged("differs"),
        Deposed(3),
        Deposed(3, "http://new.example"),
        Behind(4),
    ],
)
def test_what_a_leader_says_comes_back(message: msgspec.Struct) -> None:
    """Each message is a JSON object with its type."""
    assert decode_from_leader(encode(message)) == message
    assert msgspec.json.decode(encode(message))["type"] == message.__struct_config__.tag


def test_what_is_not_known_is_for_a_newer_version() -> None:
    """An unknown type is skipped, an unknown field is ignored."""
    assert decode_from_leader('{"type": "greeting", "seq": -5}') is None
    assert decode_from_leader('{"type": "mark", "seq": 5, "more": true}') == Mark(5)


@pytest.mark.parametrize(
    "text",
    ["", "5", "[]", "{}" * 2, '{"type": 5}', '{"type": "mark"}', '{"type": "mark", "seq": -1}',
     '{"type": "mark", "seq": 9007199254740992}', '{"type": "heartbeat", "epoch": 0, "seq": 1, "timeMs": 1}',
     '{"type": "welcome", "logId": "xyz", "epoch": 1, "seq": 1, "heartbeatSeconds": 1}',
     '{"type": "welcome", "logId": "000102030405060708090a0b0c0d0e0f", "epoch": 1, "seq": 1, "heartbeatSeconds": 0}'],
)  # fmt: skip
def test_what_makes_no_sense_from_a_leader_is_a_fault(text: str) -> None:
    """Numbers that no log can have are faults too."""
    with pytest.raises(MessageFault):
        decode_from_leader(text)


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"type": "position"}', '{"type": "mark", "seq": 5}',
     '{"type": "position", "epoch": 1, "seq": -1, "durable": true}'],
)  # fmt: skip
def test_what_makes_no_sense_from_a_follower_is_a_fault(text: str) -> None:
    """A follower sends only positions."""
    with pytest.raises(MessageFault):
        decode_from_follower(text)
    assert decode_from_follower(encode(Position(1, 5, True))) == Position(1, 5, True)


tails = st.builds(
    Tail,
    log_id=st.binary(min_size=16, max_size=16),
    epoch=st.integers(1, 2**40),
    seq=st.integers(1, 2**53 - 1),
    checksum=st.integers(0, 2**32 - 1),
)


ADDRESSES = [None, "http://new.example:8080", "https://[2001:db8::1]/a%20prefix/+&=$;'x"]


@given(st.none() | tails, st.sampled_from([None, Shard(2, 4)]), st.sampled_from(ADDRESSES))
def test_a_hello_comes_back(tail: Tail | None, shard: Shard | None, leader: str | None) -> None:
    """It is the query of a request."""
    hello = hello_of(tail, shard, leader)
    assert parse_hello(hello.query) == hello


def test_an_empty_follower_that_knows_the_log_is_at_its_start() -> None:
    """Its checksum is that of the log id."""
    hello = hello_of(Tail(LOG_ID, 1, 0, chain_start(LOG_ID)), None)
    assert parse_hello(hello.query) == hello
    assert parse_hello("after=0&epoch=1") == Hello(0, 1, None, None, None)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "after"),
        ("after=x&epoch=1", "after"),
        ("after=-1&epoch=1", "after"),
        ("after=01&epoch=1", "after"),
        ("after=9007199254740992&epoch=1", "after"),
        ("after=0", "epoch"),
        ("after=0&epoch=0", "epoch"),
        ("after=5&epoch=1", "logId"),
        ("after=0&epoch=2", "logId"),
        (f"after=5&epoch=1&logId={LOG_ID.hex()}", "logId"),
        ("after=5&epoch=1&checksum=00000000", "logId"),
        (f"after=5&epoch=1&checksum=0&logId={LOG_ID.hex()}", "checksum"),
        (f"after=5&epoch=1&checksum=ABCDEF00&logId={LOG_ID.hex()}", "checksum"),
        ("after=5&epoch=1&checksum=00000000&logId=00", "logId"),
        (f"after=0&epoch=1&checksum=00000000&logId={LOG_ID.hex()}", "checksum"),
        ("after=0&epoch=1&shard=5/4", "shard"),
        ("after=0&epoch=1&after=0", "after"),
        ("after=0&epoch=1&leader=", "leader"),
        ("after=0&epoch=1&leader=new.example", "leader"),
        ("after=0&epoch=1&leader=ftp://new.example", "leader"),
        ("after=0&epoch=1&leader=javascript:alert(1)", "leader"),
        ("after=0&epoch=1&leader=http://user:secret@new.example", "leader"),
        ("after=0&epoch=1&leader=http://new.example/%3Fa=b", "leader"),
        ("after=0&epoch=1&leader=http://new.example/%0Ab", "leader"),
        ("after=0&epoch=1&leader=http://new.example/%C3%A4", "leader"),
        ("after=0&epoch=1&leader=http://new.example/a+b", "leader"),
        ("after=0&epoch=1&leader=http://new.example:99999", "leader"),
        ("after=0&epoch=1&leader=http://new.example/" + "a" * 500, "leader"),
        ("after=0&epoch=1&leader=http://a&leader=http://b", "leader"),
    ],
)
def test_a_hello_that_makes_no_sense_is_refused(query: str, field: str) -> None:
    """The refusal names the field."""
    with pytest.raises(Refused) as refused:
        parse_hello(query)
    assert refused.value.status == 400
    assert refused.value.details["field"] == field


def test_the_place_of_a_fork_comes_back() -> None:
    """It is the answer of the route."""
    tail = Tail(LOG_ID, 3, 500, 255)
    assert msgspec.json.decode(msgspec.json.encode(fork_of(tail)), type=Fork).tail == tail
    assert msgspec.json.encode(fork_of(tail)) == (
        b'{"logId":"000102030405060708090a0b0c0d0e0f","epoch":3,"seq":500,"checksum":"000000ff"}'
    )
    for question in (ForkQuestion(0), ForkQuestion(2, "ab" * 16), ForkQuestion(2, "ab" * 16, 7)):
        assert parse_fork(question.query) == question
    for query in ("epoch=-1", "epoch=2&history=ab", "epoch=2&before=0"):
        with pytest.raises(Refused):
            parse_fork(query)
