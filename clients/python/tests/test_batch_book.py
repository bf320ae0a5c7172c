"""Actions of many callers go out together, and each caller gets what became of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from course import LOT, A, B, Course, answered, caller

from scoreboard_client.answers import Receipt
from scoreboard_client.batch_book import BatchBook, Waiting, serve
from scoreboard_client.calls import WAIT_FIRST_S, Caller
from scoreboard_client.effects import Answer, Fault
from scoreboard_client.errors import (
    BatcherClosed,
    Conflict,
    DeadlineExceeded,
    InvalidRequest,
    NotLeader,
    RateLimited,
    Unauthorized,
    UnexpectedAnswer,
)
from scoreboard_client.requests import Action

BEGIN_S = 1_000.0


def gone() -> None:
    """Nobody needs to be woken."""


def book_of(*action_ids: str, size: int = 10) -> tuple[BatchBook, list[Waiting]]:
    """Make a book with these actions, whose callers leave when they are settled, and close it."""
    book = BatchBook(size, 0.005)
    return book, [add(book, action_id) for action_id in action_ids]


def add(book: BatchBook, action_id: str, now_s: float = BEGIN_S) -> Waiting:
    holder: list[Waiting] = []

    def leave() -> None:
        book.withdraw(holder[0])

    holder.append(book.add(Action("bob", action_id), leave, now_s))
    return holder[0]


def item(action_id: str, status: int = 200, code: str = "", **details: Any) -> dict[str, Any]:
    """Make one answer of a batch."""
    if code:
        return {"status": status, "error": {"code": code, "message": "", "details": details}}
    return {
        "status": 200, "userId": "bob", "newScore": 10, "delta": 10, "applied": True, "actionId": action_id,
        "boardId": "main", "epoch": 1, "seq": 7, "rank": 1, "previousRank": None,
    }  # fmt: skip


def batch(*items: dict[str, Any]) -> Answer:
    return Answer(200, {}, json.dumps(items).encode())


def serve_all(book: BatchBook, *events: Answer | Fault, of: Caller | None = None) -> Course:
    """Let one sender serve a book until it is empty."""
    book.close()
    course = Course(*events)
    course.run(serve(of or caller(), book))
    return course


def ids(course: Course) -> list[list[str]]:
    """Give the actions of each batch that was sent."""
    return [[one["actionId"] for one in json.loads(send.request.body)] for send in course.sent]


def test_each_caller_gets_its_own() -> None:
    """A receipt, a conflict and a bad request in one batch."""
    book, (one, two, three) = book_of("a1", "a2", "a3")
    serve_all(book, batch(item("a1"), item("a2", 409, "CONFLICT"), item("a3", 400, "INVALID_REQUEST", field="reason")))
    assert one.receipt().action_id == "a1"
    with pytest.raises(Conflict):
        two.receipt()
    with pytest.raises(InvalidRequest) as raised:
        three.receipt()
    assert raised.value.details == {"field": "reason"}


def test_a_batch_has_a_size_and_keeps_the_order() -> None:
    """Five actions in batches of two."""
    book, _ = book_of("a1", "a2", "a3", "a4", "a5", size=2)
    course = serve_all(book, batch(item("a1"), item("a2")), batch(item("a3"), item("a4")), batch(item("a5")))
    assert ids(course) == [["a1", "a2"], ["a3", "a4"], ["a5"]]


def test_the_first_of_a_batch_waits_no_longer_than_the_linger() -> None:
    """A batch that is whole does not wait at all."""
    book, _ = book_of("a1", size=2)
    assert book.take(BEGIN_S + 0.004) == []
    assert book.wait_s(BEGIN_S + 0.004) == pytest.approx(0.001)
    assert len(book.take(BEGIN_S + 0.005)) == 1
    seen = book.version
    add(book, "a2")
    assert book.version > seen, "a sender that sleeps must hear of the first"
    seen = book.version
    add(book, "a3")
    assert book.version > seen, "and of the one that makes a batch whole"
    assert len(book.take(BEGIN_S)) == 2
    assert book.wait_s(BEGIN_S) is None


def test_a_batch_that_failed_is_sent_again_as_it_was() -> None:
    """OUTCOME_UNKNOWN, a lost connection and a limit of the whole batch: the same actions, once more, after a wait."""
    book, (one, two) = book_of("a1", "a2")
    late = answered(429, "RATE_LIMITED", {"retry-after": "2"})
    lost = Fault("reset", sent=True)
    course = serve_all(book, answered(503, "OUTCOME_UNKNOWN"), lost, late, batch(item("a1"), item("a2")))
    assert ids(course) == [["a1", "a2"]] * 4
    assert [course.waits[0], course.waits[2]] == [LOT * WAIT_FIRST_S, 2 + LOT * 4 * WAIT_FIRST_S]
    assert (one.receipt().applied, two.receipt().applied) == (True, True)
    assert (one.attempts, one.counted) == (3, True)


def test_one_action_that_is_limited_waits_alone() -> None:
    """Its caller gets the receipt later; the others have theirs at once."""
    book, (one, two) = book_of("a1", "a2")
    course = serve_all(book, batch(item("a1", 429, "RATE_LIMITED", retryAfterSeconds=3), item("a2")), batch(item("a1")))
    assert ids(course) == [["a1", "a2"], ["a1"]]
    assert course.now_s == pytest.approx(BEGIN_S + 3 + WAIT_FIRST_S)
    assert isinstance(one.outcome, Receipt)
    assert isinstance(two.outcome, Receipt)
    assert one.attempts == 1


def test_a_bad_action_does_not_spoil_the_others() -> None:
    """The batch is refused as a whole, so it is cut in two, until the bad one is alone."""
    book, waiting = book_of("a1", "a2", "bad")
    refused = answered(400, "INVALID_REQUEST", field="body")
    course = serve_all(book, refused, batch(item("a1")), refused, batch(item("a2")), refused)
    assert ids(course) == [["a1", "a2", "bad"], ["a1"], ["a2", "bad"], ["a2"], ["bad"]]
    assert [isinstance(one.outcome, Receipt) for one in waiting] == [True, True, False]
    assert isinstance(waiting[2].outcome, InvalidRequest)


def test_what_is_left_of_a_batch_that_was_cut_is_sent_again() -> None:
    """The first half has its receipts already."""
    book, waiting = book_of("a1", "a2")
    refused = answered(413, "PAYLOAD_TOO_LARGE")
    course = serve_all(book, refused, batch(item("a1")), Fault("reset", sent=True), batch(item("a2")))
    assert ids(course) == [["a1", "a2"], ["a1"], ["a2"], ["a2"]]
    assert all(isinstance(one.outcome, Receipt) for one in waiting)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (answered(403, "UNAUTHORIZED"), Unauthorized),
        (batch(item("a1")), UnexpectedAnswer),
        (batch(item("a1"), {"status": 302}), UnexpectedAnswer),
        (batch(item("a2"), item("a1")), UnexpectedAnswer),
        (Answer(200, {}, b"<html>"), UnexpectedAnswer),
    ],
)
def test_what_will_not_pass_is_told_to_all(answer: Answer, kind: type[Exception]) -> None:
    """A token without the scope; an answer that is no scoreboard's."""
    book, waiting = book_of("a1", "a2")
    serve_all(book, answer)
    for one in waiting:
        with pytest.raises(kind):
            one.receipt()


def test_nodes_that_all_lead_elsewhere_are_told() -> None:
    """Nobody waits for his deadline to learn of a wrong configuration."""
    book, (one,) = book_of("a1")
    elsewhere = answered(421, "NOT_LEADER", leader="http://evil.example")
    course = serve_all(book, elsewhere, elsewhere, of=caller(A, B))
    assert course.nodes == [A, B]
    with pytest.raises(NotLeader, match=r"evil\.example"):
        one.receipt()


def test_a_caller_who_leaves_is_not_sent() -> None:
    """Nor is it sent again. The caller learns what stood in the way, and whether it may have been counted."""
    book, (one, two) = book_of("a1", "a2")
    book.withdraw(one)
    course = serve_all(book, batch(item("a2")))
    assert ids(course) == [["a2"]]
    assert two.outcome is not None
    with pytest.raises(DeadlineExceeded) as raised:
        one.receipt()
    assert (raised.value.attempts, raised.value.may_have_counted) == (0, False)


def test_the_deadline_names_the_last_trouble() -> None:
    """The limit that held it."""
    book, (one, two) = book_of("a1", "a2")
    course = Course(batch(item("a1", 429, "RATE_LIMITED", retryAfterSeconds=3), item("a2")))
    book.close()
    steps = serve(caller(), book)
    with pytest.raises(IndexError):
        course.run(steps)  # it would send a1 again, after three seconds
    book.withdraw(one)
    with pytest.raises(DeadlineExceeded) as raised:
        one.receipt()
    assert isinstance(raised.value.last, RateLimited)
    assert two.outcome is not None


def test_all_who_wait_are_told_when_the_batcher_ends() -> None:
    """Nobody waits for ever."""
    book, waiting = book_of("a1", "a2")
    book.abandon(BatcherClosed("closed"))
    for one in waiting:
        with pytest.raises(BatcherClosed):
            one.receipt()
    assert book.is_empty


@pytest.mark.parametrize(("size", "linger_s"), [(0, 0.1), (1_001, 0.1), (1, -1), (1, float("nan"))])
def test_a_batch_that_no_server_takes_is_refused(size: int, linger_s: float) -> None:
    """By the name of the setting."""
    with pytest.raises(ValueError, match=r"size|linger_s"):
        BatchBook(size, linger_s)
