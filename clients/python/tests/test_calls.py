"""A call comes to the end that the answers call for, and sends nothing where it should not."""

from __future__ import annotations

import pickle

import pytest
from course import LOT, A, B, C, Course, answered, caller, receipt, slow

from scoreboard_client import calls, requests
from scoreboard_client.answers import Receipt, read_top
from scoreboard_client.calls import WAIT_FIRST_S, WAIT_MAX_S, Caller, call, jitter_s, retry_after_s
from scoreboard_client.effects import Answer, Fault, Steps
from scoreboard_client.errors import (
    ApiError,
    BoardClosed,
    Conflict,
    DeadlineExceeded,
    NotAnswered,
    NotLeader,
    OutcomeUnknown,
    RateLimited,
    Unauthenticated,
    UnexpectedAnswer,
)
from scoreboard_client.requests import Action

UNREACHABLE = Fault("connection refused", sent=False)
LOST = Fault("connection reset", sent=True)


def increment(of: Caller, deadline_s: float | None = None) -> Steps[Receipt]:
    return calls.increment(of, Action("bob", "a1"), deadline_s)


@pytest.mark.parametrize(
    "trouble",
    [
        answered(503, "OUTCOME_UNKNOWN"), answered(503, "OVERLOADED"), answered(503, "DISK_FULL"),
        answered(429, "RATE_LIMITED"), answered(503), answered(502), answered(504), LOST, UNREACHABLE, slow(10.0),
    ],
)  # fmt: skip
def test_what_may_pass_is_sent_again_as_it_was(trouble: Answer | Fault) -> None:
    """The second attempt has the same bytes, so the same actionId."""
    course = Course(trouble, receipt())
    assert course.run(increment(caller())).action_id == "a1"
    first, second = course.sent
    assert first.request == second.request
    assert course.waits == [LOT * WAIT_FIRST_S]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (answered(409, "CONFLICT"), Conflict),
        (answered(410, "BOARD_CLOSED"), BoardClosed),
        (answered(401, "UNAUTHENTICATED"), Unauthenticated),
        (answered(500, "INTERNAL_ERROR"), ApiError),
        (answered(418, "A_CODE_OF_LATER"), ApiError),
    ],
)
def test_what_will_not_pass_is_raised_at_once(answer: Answer, kind: type[ApiError]) -> None:
    """One attempt, no wait, the error's own class, code and details."""
    course = Course(answer)
    with pytest.raises(kind) as raised:
        course.run(increment(caller()))
    assert raised.value.status == answer.status
    assert raised.value.code == answer.json()["error"]["code"]
    assert course.waits == []


def test_a_limit_says_how_long_to_wait() -> None:
    """Retry-After, or the exact number in the details, and a random part so that not all come at once."""
    headers = {"retry-after": "2"}
    course = Course(answered(429, "RATE_LIMITED", headers, retryAfterSeconds=1.25), receipt())
    course.run(increment(caller()))
    assert course.waits == [1.25 + LOT * WAIT_FIRST_S]
    course = Course(answered(503, "OVERLOADED", {"retry-after": "3"}), receipt())
    course.run(increment(caller()))
    assert course.waits == [3 + LOT * WAIT_FIRST_S]


def test_a_date_in_retry_after_is_compared_with_the_answer_s_own() -> None:
    """The clock of this machine may be wrong."""
    headers = {"retry-after": "Wed, 21 Oct 2015 07:28:09 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}
    assert retry_after_s(Answer(503, headers, b"")) == 9.0
    assert retry_after_s(Answer(503, {"retry-after": "soon"}, b"")) == 0.0
    assert retry_after_s(Answer(503, {"retry-after": headers["retry-after"]}, b"")) == 0.0


def test_waits_grow_and_have_a_bound() -> None:
    """Full jitter: from 0 to a bound that doubles."""
    assert [jitter_s(failures, 1.0) for failures in (1, 2, 3)] == [WAIT_FIRST_S, 2 * WAIT_FIRST_S, 4 * WAIT_FIRST_S]
    assert jitter_s(1_000, 1.0) == WAIT_MAX_S
    assert jitter_s(5, 0.0) == 0.0


def test_the_deadline_ends_a_call_with_what_stood_in_the_way() -> None:
    """The last error is at hand, and whether the action may have been counted."""
    course = Course(UNREACHABLE, answered(429, "RATE_LIMITED", {"retry-after": "31"}))
    with pytest.raises(DeadlineExceeded) as raised:
        course.run(increment(caller()))
    assert isinstance(raised.value.last, RateLimited)
    assert raised.value.may_have_counted is False
    assert course.now_s < 1_001, "it does not wait for what comes too late"
    course = Course(answered(503, "OUTCOME_UNKNOWN", {"retry-after": "60"}))
    with pytest.raises(DeadlineExceeded) as raised:
        course.run(increment(caller()))
    assert isinstance(raised.value.last, OutcomeUnknown)
    assert raised.value.may_have_counted is True
    assert "same actionId" in str(raised.value)


def test_no_attempt_is_longer_than_what_is_left() -> None:
    """A call of 12 s has an attempt of 10 s and one of less than 2 s."""
    course = Course(slow(10.0), slow(1.95))
    with pytest.raises(DeadlineExceeded) as raised:
        course.run(increment(caller(), deadline_s=12.0))
    assert course.sent[0].seconds == 10.0
    assert course.sent[1].seconds == pytest.approx(2.0 - LOT * WAIT_FIRST_S)
    assert isinstance(raised.value.last, NotAnswered)


def test_a_redirect_is_followed_to_a_configured_node_only() -> None:
    """By Location or by details.leader, at once; the next call begins there."""
    nodes = caller(A, B, C)
    moved = answered(307, "NOT_LEADER", {"location": f"{C}/scores/increment"}, leader=C)
    course = Course(moved, receipt())
    course.run(increment(nodes))
    assert course.nodes == [A, C]
    assert course.waits == []
    course = Course(answered(421, "NOT_LEADER", leader="HTTP://B.example:8080/"), receipt())
    course.run(increment(nodes))
    assert course.nodes == [C, B]
    course = Course(receipt())
    course.run(increment(nodes))
    assert course.nodes == [B]


@pytest.mark.parametrize("leader", ["http://evil.example", "https://a.example", f"{A}:81", f"{A}@evil.example", "x", 7])
def test_nothing_is_sent_to_an_address_that_is_not_configured(leader: object) -> None:
    """The token would go there. The other nodes are asked; the error names the address."""
    headers = {"location": f"{leader}/scores/increment"} if isinstance(leader, str) else {}
    stranger = answered(307, "NOT_LEADER", headers, leader=leader)
    course = Course(stranger, stranger)
    with pytest.raises(NotLeader) as raised:
        course.run(increment(caller(A, B)))
    assert course.nodes == [A, B]
    assert str(leader) in raised.value.message
    course = Course(stranger, receipt())
    course.run(increment(caller(A, B)))
    assert course.nodes == [A, B], "another node may lead all the same"


def test_every_node_has_its_turn_while_replicas_lead_back_to_a_dead_leader() -> None:
    """A is dead, and B still believes in it. C was promoted: it is asked before A again."""
    back = answered(307, "NOT_LEADER", {"location": f"{A}/scores/increment"})
    course = Course(UNREACHABLE, back, UNREACHABLE, receipt())
    course.run(increment(caller(A, B, C)))
    assert course.nodes == [A, B, A, C]


def test_a_node_that_knows_no_leader_is_asked_again() -> None:
    """A promotion is under way."""
    course = Course(answered(421, "NOT_LEADER", leader=None), receipt())
    course.run(increment(caller()))
    assert course.nodes == [A, A]
    assert len(course.waits) == 1


def test_nodes_that_lead_to_each_other_are_left_after_some_hops() -> None:
    """The attempt ends, the call waits, and goes on."""
    to_b = answered(307, "NOT_LEADER", {"location": f"{B}/scores/increment"})
    to_a = answered(307, "NOT_LEADER", {"location": f"{A}/scores/increment"})
    course = Course(to_b, to_a, to_b, to_a, receipt())
    course.run(increment(caller(A, B)))
    assert course.nodes == [A, B, A, B, B]
    assert len(course.waits) == 1


def test_another_redirect_is_a_wrong_address() -> None:
    """As that of a proxy from http to https: the text says what to configure."""
    with pytest.raises(UnexpectedAnswer, match="https://a\\.example/scores/increment"):
        Course(answered(301, headers={"location": "https://a.example/scores/increment"})).run(increment(caller()))


def test_a_callable_is_asked_once_more_for_a_token() -> None:
    """The first one may have expired on the way. A second 401 is final, and so is the first one of a fixed token."""
    refused = answered(401, "UNAUTHENTICATED")
    course = Course(refused, receipt())
    course.run(increment(caller(renews_token=True)))
    assert course.waits == []
    with pytest.raises(Unauthenticated):
        Course(refused, refused).run(increment(caller(renews_token=True)))
    with pytest.raises(Unauthenticated):
        Course(refused).run(increment(caller()))


def test_an_answer_that_is_no_scoreboard_s_names_the_field() -> None:
    """A proxy's page with 200, and a receipt without a field."""
    with pytest.raises(UnexpectedAnswer, match="the receipt is no JSON object"):
        Course(Answer(200, {}, b"<html>")).run(increment(caller()))
    with pytest.raises(UnexpectedAnswer, match="newScore is None, not int"):
        Course(receipt(newScore=None)).run(increment(caller()))
    with pytest.raises(UnexpectedAnswer, match="of the action 'a2', not of 'a1'"):
        Course(receipt(action_id="a2")).run(increment(caller()))
    with pytest.raises(UnexpectedAnswer, match="newScore is True, not int"):
        Course(receipt(newScore=True)).run(increment(caller()))


def test_a_read_asks_another_node_where_one_is_behind_or_lacks_the_board() -> None:
    """503 REPLICA_BEHIND and 421 WRONG_SHARD; if all lack the board, that is said."""
    top = answered(
        200, boardId="main", entries=[], epoch=1, seq=0, generatedAt="2025-12-15T12:34:56.000Z"
    )  # fmt: skip
    read = requests.top("main", None, None)
    nodes = caller(A, B, C)
    course = Course(answered(503, "REPLICA_BEHIND"), answered(421, "WRONG_SHARD", shard="1/2"), top)
    assert course.run(call(nodes, read, read_top, writes=False)).entries == ()
    assert course.nodes == [A, B, C]
    course = Course(top)
    course.run(call(nodes, read, read_top, writes=False))
    assert course.nodes == [C], "reads stay where they were answered"
    lacks = answered(421, "WRONG_SHARD", shard="1/2")
    with pytest.raises(ApiError, match="WRONG_SHARD"):
        Course(lacks, lacks, lacks).run(call(nodes, read, read_top, writes=False))


def test_errors_can_be_handed_to_another_process() -> None:
    """Workers pickle what they raise."""
    error = Conflict(409, "CONFLICT", "It was used.", {"actionId": "a1"})
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.details) == (Conflict, str(error), error.details)
    late = pickle.loads(pickle.dumps(DeadlineExceeded(error, 3, may_have_counted=True)))
    assert (late.attempts, late.may_have_counted, late.last.code) == (3, True, "CONFLICT")
