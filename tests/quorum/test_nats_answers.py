"""What answers of JetStream mean, and answers that no honest stream would give."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.record import Tail, chain_start
from server.quorum import nats_api as api
from server.quorum import nats_limits as limits
from server.quorum import nats_stream
from server.quorum.nats_api import ApiFault, Placed, StreamInfo, read_answer
from server.quorum.nats_connection import NatsOptions
from server.quorum.nats_setup import beat_config, log_config
from server.quorum.nats_stream import NatsStream
from server.quorum.stream import Origin, PlacePurged, StreamRefused, Unanswered
from tests.quorum.fake_server import NOBODY, Answer, FakeServer, fake_server

ORIGIN = Origin(Tail(bytes(16), 1, 0, chain_start(bytes(16))))
GET = "$JS.API.STREAM.MSG.GET.log"
INFO = "$JS.API.STREAM.INFO.log"
PUBLISH = "scoreboard.log.log"


def error(err_code: int, code: int = 400, description: str = "so it is") -> bytes:
    return json.dumps({"error": {"code": code, "err_code": err_code, "description": description}}).encode()


BUSY = error(10008, 503)


@pytest.mark.parametrize(
    ("err_code", "code", "key"),
    [
        (10059, 404, "quorum.stream"),
        (10060, 400, "quorum.stream"),
        (10109, 400, "sealed"),
        (10054, 400, "max_msg_size"),
        (10039, 503, "jetstream"),
        (10076, 503, "jetstream"),
        (10110, 500, "deny_purge"),
        (10065, 400, "quorum.stream"),
        (10074, 500, "cluster"),
        (19999, 400, ""),
    ],
)
def test_what_a_person_must_mend_is_refused(err_code: int, code: int, key: str) -> None:
    """With the setting. An unknown error that blames the request is among them."""
    with pytest.raises(StreamRefused, match=f"so it is \\({err_code}\\)") as refused:
        read_answer(error(err_code, code), Placed, stream="log")
    assert refused.value.key == key
    assert "{" not in str(refused.value).replace("{ store_dir", "")


@pytest.mark.parametrize(
    ("err_code", "code"),
    [(10008, 503), (10009, 500), (10118, 500), (10167, 429), (10041, 500), (10004, 503), (19999, 500)],
)
def test_what_may_pass_is_no_answer(err_code: int, code: int) -> None:
    """An unknown error that blames the server is among them."""
    with pytest.raises(Unanswered, match="so it is"):
        read_answer(error(err_code, code), Placed, stream="log")


@pytest.mark.parametrize(("err_code", "code"), [(10002, 400), (10023, 503), (10028, 500), (10047, 500), (10077, 503)])
def test_servers_without_room_are_no_answer_because_a_purge_makes_some(err_code: int, code: int) -> None:
    with pytest.raises(Unanswered, match="max_file_store"):
        read_answer(error(err_code, code), Placed, stream="log")


@pytest.mark.parametrize("payload", [b"", b"hello", b"[]", b"{}", b'{"stream":1,"seq":2}', b"\xff"])
def test_an_answer_that_is_none_of_jetstream_is_refused(payload: bytes) -> None:
    """Somebody else answers the subject."""
    with pytest.raises(StreamRefused, match="none of JetStream"):
        read_answer(payload, Placed, stream="log")


def test_a_wrong_place_says_which_is_the_newest_if_the_server_knows() -> None:
    with pytest.raises(ApiFault) as fault:
        read_answer(error(10071, description="wrong last sequence: 17"), Placed, stream="log", told=api.WRONG_LAST)
    assert fault.value.error.wrong_last == 17
    with pytest.raises(ApiFault) as fault:
        read_answer(error(10164, description="wrong last sequence"), Placed, stream="log", told=api.WRONG_LAST)
    assert fault.value.error.wrong_last is None


# ---- a stream that a test plays --------------------------------------------------------------------------------------


def info(config: dict[str, Any], first: int, last: int, created: str = "then") -> bytes:
    state = {"messages": last - first + 1, "bytes": 0, "first_seq": first, "last_seq": last}
    return json.dumps({"config": config, "created": created, "state": state}).encode()


def stored(seq: int, data: bytes, subject: str = PUBLISH) -> bytes:
    return json.dumps({"message": {"subject": subject, "seq": seq, "data": base64.b64encode(data).decode()}}).encode()


@asynccontextmanager
async def played(first: int = 1, last: int = 0, **answers: Answer) -> AsyncIterator[tuple[FakeServer, NatsStream]]:
    """Open a stream with these ends at a server that has only what a test gives it."""
    async with fake_server({"max_payload": 2**23}) as server:
        options = NatsOptions(servers=[server.url], stream="log")
        server.answers = {
            "$JS.API.INFO": b'{"streams":2}',
            INFO: info(log_config(options, ORIGIN), first, last),
            "$JS.API.STREAM.INFO.log_BEAT": info(beat_config(options), 1, 0),
            GET: error(10037, 404, "no message found"),
        }
        async with NatsStream.open(options, name="node") as stream:
            yield server, stream


async def test_a_start_waits_for_servers_that_are_not_ready_yet() -> None:
    """They have started a moment ago: JetStream does not answer, and then the stream elects its leader."""
    answers: dict[str, Iterator[bytes]] = {}

    def later(subject: str, *earlier: bytes) -> None:
        last = server.answers[subject]
        assert isinstance(last, bytes)
        answers[subject] = iter(earlier)
        server.answers[subject] = lambda _head, _payload: next(answers[subject], last)

    async with played() as (server, stream):
        later("$JS.API.INFO", NOBODY, BUSY)
        later(INFO, BUSY)
        later("$JS.API.STREAM.INFO.log_BEAT", BUSY, NOBODY)
        options = NatsOptions(servers=[server.url], stream="log")
        async with NatsStream.open(options, name="second") as second:
            assert second.origin == stream.origin


@pytest.mark.parametrize(
    "answer",
    [{"stream": "log", "seq": 7}, {"stream": "other", "seq": 6}, {"stream": "log", "seq": 6, "duplicate": True}],
)
async def test_a_frame_that_came_elsewhere_is_refused(answer: dict[str, Any]) -> None:
    """Another place, another stream, or a frame that the stream says it had already."""
    async with played() as (server, stream):
        server.answers[PUBLISH] = json.dumps(answer).encode()
        with pytest.raises(StreamRefused, match="not the stream that we know"):
            await stream.place(5, b"frame")


async def test_a_beat_that_came_elsewhere_is_refused() -> None:
    async with played() as (server, stream):
        server.answers["scoreboard.log.beat"] = b'{"stream":"log","seq":1}'
        with pytest.raises(StreamRefused, match="not to log_BEAT"):
            await stream.beat(b"beat")


@pytest.mark.parametrize("said", ["wrong last sequence: 6", "wrong last sequence"])
async def test_a_refused_place_is_believed_only_if_a_frame_is_there(said: str) -> None:
    """A server refuses also because of a frame that is on its way, and that may never arrive."""
    async with played(1, 5) as (server, stream):
        server.answers[PUBLISH] = error(10071 if ":" in said else 10164, description=said)
        with pytest.raises(Unanswered, match="on its way to place 6"):
            await stream.place(5, b"frame")
        server.answers[GET] = stored(6, b"another")
        assert not await stream.place(5, b"frame")


async def test_a_server_that_is_behind_refuses_nothing() -> None:
    """It was cut off, and knows less than we do."""
    async with played(1, 9) as (server, stream):
        server.answers[PUBLISH] = error(10071, description="wrong last sequence: 3")
        server.answers[GET] = stored(6, b"a frame")
        with pytest.raises(Unanswered, match="up to 3 refused place 6"):
            await stream.place(5, b"frame")


@pytest.mark.parametrize(
    "answers",
    [
        {PUBLISH: BUSY},
        {PUBLISH: error(10071, description="wrong last sequence: 6")},
        {PUBLISH: error(10071, description="wrong last sequence: 6"), GET: BUSY},
        {PUBLISH: error(10071, description="wrong last sequence: 3")},
        {PUBLISH: error(10071, description="wrong last sequence: 3"), INFO: BUSY},
    ],
)
async def test_a_server_that_only_refuses_is_left(answers: dict[str, Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is cut off says at once what it cannot do. That is as good as silence."""
    monkeypatch.setattr(limits, "UNANSWERED_SECONDS", 0.0)
    async with played(1, 5) as (server, stream):
        before = server.connections
        server.answers |= answers
        for _ in range(2):
            with pytest.raises(Unanswered):
                await stream.place(5, b"frame")
        await server.wait(lambda: server.connections == before + 1)


async def test_refusals_between_acknowledgements_are_no_reason_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNANSWERED_SECONDS", 0.0)
    async with played(1, 5) as (server, stream):
        before = server.connections
        for place in range(6, 10):
            server.answers[PUBLISH] = BUSY
            with pytest.raises(Unanswered):
                await stream.place(place - 1, b"frame")
            server.answers[PUBLISH] = json.dumps({"stream": "log", "seq": place}).encode()
            assert await stream.place(place - 1, b"frame")
        assert server.connections == before


@pytest.mark.parametrize("answer", [stored(8, b"x"), stored(7, b"x", "other")])
async def test_a_frame_of_another_place_is_never_given(answer: bytes) -> None:
    async with played(1, 9) as (server, stream):
        server.answers[GET] = answer
        with pytest.raises(StreamRefused, match="for place 7"):
            await stream.read(7, 1)


async def test_a_place_within_the_ends_without_a_frame_is_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at again: one of two servers may have been behind."""
    monkeypatch.setattr(nats_stream, "_HOLE_PAUSE_SECONDS", 0.0)
    async with played(1, 9) as (server, stream):
        with pytest.raises(StreamRefused, match="nothing at 7"):
            await stream.read(7, 1)
        looks = iter([error(10037, 404), error(10037, 404), stored(7, b"late")])
        server.answers[GET] = lambda _head, _payload: next(looks)
        assert list(await stream.read(7, 1)) == [b"late"]


async def test_the_end_and_the_beginning_of_what_is_left() -> None:
    async with played(5, 9) as (_, stream):
        assert list(await stream.read(10, 4)) == []
        with pytest.raises(PlacePurged):
            await stream.read(4, 4)


async def test_a_read_gives_what_came_before_the_answers_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some frames are better than none; the next read says what is wrong."""
    monkeypatch.setattr(limits, "API_SECONDS", 0.1)
    async with played(1, 9) as (server, stream):
        answers = iter([stored(1, b"a"), stored(2, b"b"), None])
        server.answers[GET] = lambda _head, _payload: next(answers, None)
        assert list(await stream.read(1, 3)) == [b"a", b"b"]
        with pytest.raises(Unanswered):
            await stream.read(3, 1)


def test_what_a_group_says_of_its_servers() -> None:
    """For `quorum status`: the leader, and how far the others are."""
    peer = {"name": "n2", "current": False, "offline": True, "active": 5_000_000_000, "lag": 7}
    state = {"messages": 1, "bytes": 2, "first_seq": 1, "last_seq": 1}
    answer = {"config": {}, "state": state, "cluster": {"name": "c", "leader": "n1", "replicas": [peer]}}
    group = read_answer(json.dumps(answer).encode(), StreamInfo, stream="log").cluster
    assert (group.leader, group.replicas[0].name, group.replicas[0].lag) == ("n1", "n2", 7)
    assert group.replicas[0].offline
    assert not group.replicas[0].current
