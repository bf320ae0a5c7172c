"""Deciding the erasure of a user: who is known, which actions it names, and what the writer adds to it."""

from __future__ import annotations

import pytest
import trio

from engine import erasure_decisions
from engine.action_blocks import FORGOTTEN
from engine.actions import key_of
from engine.commands import EraseReceipt, EraseUser, Receipt, Rejection
from engine.erased import unpack_seqs
from engine.events import Event, Incremented, UserErased, UserPut
from engine.scoreboard import Scoreboard
from engine.traces import Traces, newest_first
from tests.engine.model import increment, perform, put
from tests.engine.test_actor import RULES, Bench


def erase(scoreboard: Scoreboard, user: str, *actions: int, in_past: bool = False) -> EraseReceipt | Rejection:
    """Erase a user of whom the log has these actions."""
    traces = Traces(user, scoreboard.seq)
    traces.actions, traces.is_present = list(actions), bool(actions)
    [outcome] = perform(scoreboard, [EraseUser(user, "dpo", traces, in_past)], 5_000)
    assert isinstance(outcome, EraseReceipt | Rejection)
    return outcome


def test_a_user_is_erased_once_and_a_repeat_finds_nobody() -> None:
    """The actions stay used; whoever comes back under the same id may be erased again, as another one."""
    scoreboard = Scoreboard(RULES)
    perform(
        scoreboard, [put("ann", "Ann"), increment("ann", "one"), increment("ben", "two"), increment("ann", "three")]
    )
    assert erase(scoreboard, "ann", 2, 4) == EraseReceipt("ann", True, 1, 5, 5_000, 2)
    assert scoreboard.actions.mark_at(scoreboard.actions.find(key_of("three"))) == FORGOTTEN
    assert scoreboard.board("main") is not None
    assert scoreboard.boards["main"].score("ann") is None
    assert scoreboard.users.get("ann") is None
    again = erase(scoreboard, "ann")
    assert isinstance(again, Rejection)
    assert (again.code, again.details, scoreboard.seq) == ("NOT_FOUND", {"field": "userId", "userId": "ann"}, 5)
    [retry] = perform(scoreboard, [increment("ann", "one")])
    assert isinstance(retry, Rejection)
    assert retry.code == "ERASED"
    perform(scoreboard, [increment("ann", "four")])
    assert erase(scoreboard, "ann", 6) == EraseReceipt("ann", True, 1, 7, 5_000, 1)
    assert scoreboard.erasures.count == 2
    scoreboard._check()


def test_a_user_is_known_by_any_trace() -> None:
    """In the log, in a past period, registered, or on a board whose log is no longer kept."""
    scoreboard = Scoreboard(RULES)
    perform(scoreboard, [put("registered", None), increment("scored", "one")])
    assert isinstance(erase(scoreboard, "nobody"), Rejection)
    for user, actions, in_past in (
        ("registered", (), False),
        ("scored", (), False),
        ("past", (), True),
        ("log", (2,), False),
    ):
        assert isinstance(erase(scoreboard, user, *actions, in_past=in_past), EraseReceipt), user


def test_a_user_with_more_actions_than_one_event_can_name_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is erased rather than a part."""
    monkeypatch.setattr(erasure_decisions, "PACKED_BYTES_MAX", 2)
    scoreboard = Scoreboard(RULES)
    perform(scoreboard, [increment("ann", f"action {number}") for number in range(4)])
    refused = erase(scoreboard, "ann", 1, 2, 3)
    assert isinstance(refused, Rejection)
    assert refused.code == "CONFLICT"
    assert "3 actions" in refused.message
    assert scoreboard.seq == 4
    assert isinstance(erase(scoreboard, "ann", 1, 2), EraseReceipt)


def test_traces_are_the_same_from_either_end() -> None:
    """Up to the last erasure, which is where the ledger ends."""
    events: list[Event] = [
        UserErased(1, 0, "ann", "\x001", "dpo", b""),
        UserPut(2, 0, "ann", "Ann", True, "c"),
        Incremented(3, 0, "main", "ann", "one", 1, "r", "c", 1),
        Incremented(4, 0, "main", "ben", "two", 1, "r", "c", 1),
        Incremented(5, 0, "main", "ann", "three", 1, "r", "c", 2),
    ]
    forward, nobody = Traces("ann"), Traces("eve")
    for event in events:
        forward.take(event)
        nobody.take(event)
    theirs = [event for event in reversed(events) if getattr(event, "user_id", "") == "ann" and event.seq > 1]
    backward = newest_first("ann", 5, theirs)
    assert (forward.actions, forward.is_present, forward.seq) == ([3, 5], True, 5)
    assert (backward.actions, backward.is_present, backward.seq) == ([3, 5], True, 5)
    assert (forward.erasures, forward.counts) == ([(1, "\x001")], [0])
    assert (nobody.actions, nobody.is_present) == ([], False)


async def test_the_writer_completes_an_erasure() -> None:
    """The sender saw the first action only. The second one was waiting before the erasure, the third one behind it."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.actor.run)
        await bench.actor.submit([increment("ann", "one")])
        traces = Traces("ann")
        traces.take(bench.log.frames[0][0])
        bench.actor.submit_nowait([increment("ann", "two")], lambda _: None)
        erasure = bench.actor.submit_nowait([EraseUser("ann", "dpo", traces)], lambda _: None)
        [behind] = await bench.actor.submit([increment("ann", "three")])
        await bench.actor.drain()
    assert [len(frame) for frame in bench.log.frames] == [1, 1, 1, 1]
    event = bench.log.frames[2][0]
    assert isinstance(event, UserErased)
    assert unpack_seqs(event.actions) == [1, 2]
    [receipt] = erasure.outcomes
    assert isinstance(receipt, EraseReceipt)
    assert isinstance(behind, Receipt)
    assert (receipt.actions, behind.new_score) == (2, behind.delta)
