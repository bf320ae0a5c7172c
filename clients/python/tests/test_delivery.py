"""A sender sends an outbox in its order, loses nothing, and tells what it can't send."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from course import LOT, A, B, Course, answered, caller
from test_batch_book import batch, ids, item

from scoreboard_client import DeadlineExceeded
from scoreboard_client.calls import WAIT_FIRST_S, Caller
from scoreboard_client.delivery import LOCK_S, POLL_S, Held, Told, deliver
from scoreboard_client.effects import Answer, Fault
from scoreboard_client.outbox import Outbox, SetAside

LOST = Fault("reset", sent=True)


class Case:
    """An outbox with some actions, and what its sender tells."""

    def __init__(self, root: Path, *action_ids: str) -> None:
        self.outbox = Outbox(root / "outbox.db")
        self.told: list[Told] = []
        self.over = False
        for action_id in action_ids:
            self.outbox.put("bob", action_id=action_id)

    def drain(self, *events: Answer | Fault | Exception, of: Caller | None = None) -> Course:
        """Send until it is empty."""
        course = Course(*events)
        self.count = course.run(
            deliver(of or caller(), self.outbox, self.told.append, lambda: self.over, until_empty=True)
        )
        return course

    def aside(self) -> list[str]:
        return [one.action.action_id for one in self.told if isinstance(one, SetAside)]

    def held(self) -> list[str]:
        return [type(one.trouble).__name__ for one in self.told if isinstance(one, Held)]


def test_it_sends_in_order_and_removes_what_is_counted(tmp_path: Path) -> None:
    """A repeat is counted, too: it was sent before a crash."""
    case = Case(tmp_path, "a1", "a2")
    course = case.drain(batch(item("a1") | {"applied": False, "delta": 0}, item("a2")))
    assert ids(course) == [["a1", "a2"]]
    assert (case.count, case.outbox.count(), case.told) == (2, 0, [])
    assert case.outbox.try_lock(), "it is the sender no more"


@pytest.mark.parametrize(
    "trouble", [LOST, answered(503, "OUTCOME_UNKNOWN"), answered(429, "RATE_LIMITED"), answered(500, "INTERNAL_ERROR")]
)
def test_what_may_pass_holds_all_and_is_told(tmp_path: Path, trouble: Answer | Fault) -> None:
    """The same batch is sent again, after a wait."""
    case = Case(tmp_path, "a1", "a2")
    course = case.drain(trouble, batch(item("a1"), item("a2")))
    assert ids(course) == [["a1", "a2"]] * 2
    assert course.waits == [LOT * WAIT_FIRST_S]
    assert len(case.held()) == 1
    assert case.outbox.count() == 0


def test_a_drain_with_a_deadline_ends(tmp_path: Path) -> None:
    """While the board is down, and while another sender has the outbox. Nothing is lost."""
    case = Case(tmp_path, "a1")
    last = []
    for events in ([LOST] * 99, []):
        steps = deliver(caller(), case.outbox, case.told.append, lambda: False, until_empty=True, deadline_s=2.0)
        with pytest.raises(DeadlineExceeded) as raised:
            Course(*events).run(steps)
        last.append(str(raised.value.last))
        assert case.outbox.count() == 1
        assert case.outbox.try_lock() is bool(events), "the first is the sender no more; now this test is"
    assert "reset" in last[0]
    assert "another sender" in last[1]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_token_or_an_address_that_is_wrong_loses_nothing(tmp_path: Path, status: int) -> None:
    """Somebody mends it, and it goes on."""
    case = Case(tmp_path, "a1")
    case.drain(*[answered(status, "CODE")] * 5, batch(item("a1")))
    assert [one.attempts for one in case.told if isinstance(one, Held)] == [1, 2, 3, 4, 5]
    assert case.aside() == []


def test_an_answer_that_is_no_scoreboard_s_loses_nothing(tmp_path: Path) -> None:
    """A proxy's page."""
    case = Case(tmp_path, "a1")
    case.drain(Answer(200, {}, b"<html>"), batch(item("a1")))
    assert case.held() == ["UnexpectedAnswer"]


@pytest.mark.parametrize(("status", "code"), [(400, "INVALID_REQUEST"), (409, "CONFLICT"), (410, "ERASED"), (403, "X")])
def test_an_action_that_is_refused_for_good_is_set_aside_and_told(tmp_path: Path, status: int, code: str) -> None:
    """The others count. It is still on disk, with the reason."""
    case = Case(tmp_path, "a1", "poison", "a3")
    case.drain(batch(item("a1"), item("poison", status, code), item("a3")))
    assert (case.count, case.aside(), case.held()) == (2, ["poison"], [])
    (aside,) = case.outbox.set_aside()
    assert (aside.action.action_id, aside.status, aside.code) == ("poison", status, code)


def test_an_action_that_spoils_its_batch_is_found(tmp_path: Path) -> None:
    """The batch is cut in half until it is alone. The order is kept."""
    case = Case(tmp_path, "a1", "poison", "a3")
    refused = answered(400, "INVALID_REQUEST", field="body")
    course = case.drain(refused, batch(item("a1")), refused, refused, batch(item("a3")))
    assert ids(course) == [["a1", "poison", "a3"], ["a1"], ["poison", "a3"], ["poison"], ["a3"]]
    assert case.aside() == ["poison"]
    assert case.outbox.count() == 0


def test_a_limit_of_one_action_holds_what_comes_later(tmp_path: Path) -> None:
    """It is the first of the next batch, after the wait that was asked for. A fault of the server's holds, too."""
    case = Case(tmp_path, "a1", "a2", "a3")
    course = case.drain(
        batch(item("a1"), item("a2", 429, "RATE_LIMITED", retryAfterSeconds=3), item("a3", 500, "INTERNAL_ERROR")),
        batch(item("a2"), item("a3")),
    )
    assert ids(course) == [["a1", "a2", "a3"], ["a2", "a3"]]
    assert course.waits == [3 + LOT * WAIT_FIRST_S]
    assert case.aside() == []


def test_it_goes_to_the_next_node_when_one_is_gone(tmp_path: Path) -> None:
    """And to the leader that a node names."""
    case = Case(tmp_path, "a1")
    leads = answered(421, "NOT_LEADER", leader=A)
    course = case.drain(LOST, leads, batch(item("a1")), of=caller(A, B))
    assert course.nodes == [A, B, A]


def test_a_token_that_can_t_be_had_holds(tmp_path: Path) -> None:
    """The callable raised. It is told, and asked again."""
    case = Case(tmp_path, "a1")
    case.drain(LookupError("no token"), batch(item("a1")))
    assert case.held() == ["LookupError"]
    assert case.count == 1


def test_a_disk_that_fails_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was counted can't be removed. It is sent again, and the server knows it."""
    case = Case(tmp_path, "a1")
    settle, faults = case.outbox.settle, [sqlite3.OperationalError("disk full")]

    def settle_later(*arguments: Any) -> Any:
        if faults:
            raise faults.pop()
        return settle(*arguments)

    monkeypatch.setattr(case.outbox, "settle", settle_later)
    course = case.drain(batch(item("a1")), batch(item("a1")))
    assert ids(course) == [["a1"], ["a1"]]
    assert (case.held(), case.count, case.outbox.count()) == (["OperationalError"], 1, 0)


def test_a_second_sender_waits_for_the_first(tmp_path: Path) -> None:
    """It sends nothing, and can be ended meanwhile."""
    case = Case(tmp_path, "a1")
    other = Outbox(case.outbox.path)
    assert other.try_lock()
    course = Course()
    looks = iter([False, False, True])
    steps = deliver(caller(), case.outbox, case.told.append, lambda: next(looks), until_empty=True)
    assert course.run(steps) == 0
    assert course.waits == [LOCK_S] * 2
    other.unlock()
    case.drain(batch(item("a1")))
    assert case.count == 1


def test_it_looks_for_new_actions_until_it_is_told_to_end(tmp_path: Path) -> None:
    """Another process may put them in."""
    case = Case(tmp_path)
    course = Course()
    looks = iter([False, False, True])
    steps = deliver(caller(), case.outbox, case.told.append, lambda: next(looks), until_empty=False)
    assert course.run(steps) == 0
    assert course.waits == [POLL_S] * 2
