"""Who watches sees every state once, in order, whatever becomes of the stream."""

from __future__ import annotations

import json
from typing import Any

import pytest
from course import A, B, Course, answered, caller

from scoreboard_client.answers import Position
from scoreboard_client.effects import Answer, Fault
from scoreboard_client.errors import ApiError, Unauthenticated, UnexpectedAnswer
from scoreboard_client.event_stream import EVENT_BYTES_MAX, EventReader
from scoreboard_client.watching import STREAM_AGAIN_S, watch

OPENED = Answer(200, {"content-type": "text/event-stream"}, b"")
CUT = Fault("reset", sent=True)
NOBODY = Fault("refused", sent=False)
STREAM, POLL = "/sse/scoreboard", "/scoreboard/top"


def body(seq: int, score: int, epoch: int = 1, **other: object) -> dict[str, object]:
    rows = [{"userId": "bob", "score": score, "rank": 1}]
    time = "2025-12-15T12:34:56.000Z"
    return {"entries": rows, "generatedAt": time, "boardId": "main", "epoch": epoch, "seq": seq, **other}


def event(seq: int, score: int, epoch: int = 1, kind: str = "update", **other: object) -> bytes:
    data = json.dumps({"type": f"scoreboard_{kind}", **body(seq, score, epoch, **other)})
    return f"id: {epoch}-{seq}-abc\ndata: {data}\n\n".encode()


def top(seq: int, score: int, etag: str = '"1-1"') -> Answer:
    return Answer(200, {"etag": etag}, json.dumps(body(seq, score)).encode())


def scores(course: Course) -> list[int]:
    return [state.entries[0].score for state in course.emitted]


def run(course: Course, *urls: str, renews_token: bool = False) -> Course:
    course.run_for_ever(watch(caller(*urls, renews_token=renews_token), "main"))
    return course


def test_a_stream_is_shown_and_resumed_where_it_broke() -> None:
    """The last id is sent back; the server said how long to wait."""
    course = run(
        Course(OPENED, b"retry: 3000\n\n" + event(4, 10, kind="snapshot"), event(5, 20), CUT, OPENED, event(6, 30))
    )
    assert scores(course) == [10, 20, 30]
    assert [state.kind for state in course.emitted] == ["snapshot", "update", "update"]
    assert course.emitted[1].position == Position(1, 5)
    assert "last-event-id" not in course.sent[0].request.headers
    assert course.sent[1].request.headers["last-event-id"] == "1-5-abc"
    assert 3.0 <= course.waits[0] < 3.2


def test_nothing_goes_back_and_nothing_comes_twice() -> None:
    """Another node is behind; a new leader's epoch is newer, whatever its seq; the same state again is passed over."""
    course = run(
        Course(OPENED, event(5, 20), CUT, OPENED, event(4, 10), event(5, 20), event(6, 30), event(2, 25, epoch=2))
    )
    assert scores(course) == [20, 30, 25]


def test_the_end_of_a_period_is_a_state() -> None:
    """Its last rows, then the rows of the next one."""
    period: dict[str, Any] = {"period": "2026-W48", "startsAt": None, "endsAt": None, "next": "2026-W49", "count": 1}
    course = run(Course(OPENED, event(5, 20), event(6, 20, kind="period", **period), event(6, 0, kind="snapshot")))
    assert [(state.kind, state.period) for state in course.emitted] == [
        ("update", None), ("period", "2026-W48"), ("snapshot", None),
    ]  # fmt: skip


def test_a_message_of_a_later_version_is_passed_over() -> None:
    """So a newer server may say more."""
    course = run(Course(OPENED, b'data: {"type": "scoreboard_news"}\n\n', event(5, 20)))
    assert scores(course) == [20]


@pytest.mark.parametrize(
    "refused",
    [
        answered(503, "OVERLOADED", {"retry-after": "5"}), answered(404, "NOT_FOUND"), answered(406), answered(502),
        Answer(200, {"content-type": "text/html"}, b""),
    ],
)  # fmt: skip
def test_it_polls_where_the_stream_is_refused(refused: Answer) -> None:
    """With the ETag, and it comes back to the stream."""
    polls: list[Answer] = [top(4, 10)] + [Answer(304, {}, b"")] * 13 + [top(5, 20)]
    course = run(Course(refused, *polls, OPENED, event(6, 30)))
    assert scores(course) == [10, 20, 30]
    assert course.targets == [STREAM] + [POLL] * 15 + [STREAM]
    assert course.sent[2].request.headers == {"if-none-match": '"1-1"'}
    assert course.now_s == 1_000 + STREAM_AGAIN_S


def test_it_waits_as_long_as_the_refusal_says() -> None:
    """The live channel was switched off for a minute."""
    course = run(Course(answered(503, "OVERLOADED", {"retry-after": "60"}), *[Answer(304, {}, b"")] * 30, OPENED))
    assert course.targets == [STREAM] + [POLL] * 30 + [STREAM]


def test_a_stream_that_says_nothing_is_as_good_as_refused() -> None:
    """A proxy holds it back."""
    course = run(Course(OPENED, Fault("silent", sent=True), top(4, 10)))
    assert course.targets == [STREAM, POLL]
    assert scores(course) == [10]


def test_a_node_that_is_gone_is_left() -> None:
    """For the stream and for polls."""
    course = run(Course(NOBODY, OPENED, event(5, 20)), A, B)
    assert course.nodes == [A, B]
    course = run(Course(answered(503, "OVERLOADED"), NOBODY, top(4, 10)), A, B)
    assert course.nodes == [A, A, B]


@pytest.mark.parametrize("status", [400, 401, 403, 410])
def test_what_will_not_pass_is_raised(status: int) -> None:
    """A bad token, an unknown board."""
    with pytest.raises(ApiError) as raised:
        run(Course(answered(status, "CODE")))
    assert raised.value.status == status
    with pytest.raises(ApiError):
        run(Course(answered(406), answered(status, "CODE")))


def test_a_board_that_no_node_has_is_told() -> None:
    """All nodes have another shard."""
    lacks = answered(421, "WRONG_SHARD", shard="2/2")
    assert run(Course(lacks, OPENED, event(5, 20)), A, B).nodes == [A, B]
    with pytest.raises(ApiError, match="WRONG_SHARD"):
        run(Course(lacks, lacks), A, B)


def test_a_token_that_expired_is_renewed_once() -> None:
    """A private board closes the stream when its token ends."""
    refused = answered(401, "UNAUTHENTICATED")
    assert scores(run(Course(refused, OPENED, event(5, 20), CUT, refused, OPENED), renews_token=True)) == [20]
    with pytest.raises(Unauthenticated):
        run(Course(refused, refused), renews_token=True)


def test_events_are_read_however_they_are_cut() -> None:
    """Byte by byte, with each kind of line end, a mark at the beginning, comments and fields that nobody knows."""
    text = (
        "\ufeff: hello\r\nid: 7\r\ndata: a\r\ndata:b\r\n\r\n:\r\revent: x\rdata: ü\r\rid: 8\n\nretry: 1500\n\ndata\n\n"
    )
    for size in (1, 2, 3, 1_000):
        reader = EventReader()
        data = text.encode()
        events = [one for at in range(0, len(data), size) for one in reader.feed(data[at : at + size])]
        assert events == ["a\nb", "ü", ""]
        assert (reader.last_id, reader.retry_s) == ("8", 1.5)


def test_an_event_has_a_bound() -> None:
    """A stream without an end of line does not fill the memory."""
    with pytest.raises(UnexpectedAnswer, match="bytes"):
        EventReader().feed(b"data: " + b"x" * EVENT_BYTES_MAX)
