"""DELETE /users/{userId}: what the caller and everybody else is told, who may, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.board_rules import Rules
from engine.errors import LogDamaged, NoLongerKept, NoSpace
from engine.events import Event, UserErased
from server.api import gathered
from server.live.encoding import iso_ms
from tests.server.api.support import ERASER, READER, REGISTRAR, WRITER, Bench, Reply, both_ways, open_bench
from tests.server.api.test_past_periods import play


async def erase(bench: Bench, user: str, token: str = ERASER) -> Reply:
    return await bench.ask("DELETE", f"/users/{user}", token=token)


@both_ways
async def test_a_user_is_erased_and_a_repeat_changes_nothing(through_quart: bool) -> None:
    """It is answered as before while the files name the user, and with 404 when nobody knows the id any more."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.ask("PUT", "/users/ann", {"displayName": "Ann"}, token=REGISTRAR)
        for action in ("a1", "a2"):
            await bench.increment("ann", action)
        await bench.increment("ben", "b1")
        done = await erase(bench, "ann")
        assert done.status == 200
        assert done.json == {
            "userId": "ann", "erased": True, "applied": True, "epoch": 1, "seq": 5, "actions": 2,
            "filesBy": iso_ms(bench.log.events[-1].time_ms + 86_400_000),
        }  # fmt: skip
        assert bench.erasing.waited == 1, "past periods are free of the user before the answer"
        assert (await erase(bench, "ann")).json == {**done.json, "applied": False}
        by_query = await bench.ask("DELETE", "/users?userId=ann", token=ERASER)
        assert by_query.json == {**done.json, "applied": False}
        assert bench.scoreboard.seq == 5
        change = bench.erasing.unsettled.change
        assert change is not None
        bench.log.events[:] = [change.event(event) for event in bench.log.events]
        bench.erasing.unsettled.settle(5)
        later = await erase(bench, "ann")
        assert (later.status, later.code, later.details) == (404, "NOT_FOUND", {"field": "userId", "userId": "ann"})
        assert (await bench.increment("ann", "a1")).code == "ERASED"
        assert (await bench.ask("GET", "/scores/ann/history", token=READER)).json["entries"] == []
        assert [row["userId"] for row in (await bench.ask("GET", "/scoreboard/top")).json["entries"]] == ["ben"]


async def test_who_comes_back_is_another_user() -> None:
    """With a history of its own, and erased by itself."""
    async with open_bench() as bench:
        await bench.increment("ann", "a1")
        assert (await erase(bench, "ann")).json["seq"] == 2
        await bench.increment("ann", "a2")
        history = (await bench.ask("GET", "/scores/ann/history", token=READER)).json["entries"]
        assert [entry["seq"] for entry in history] == [3]
        again = (await erase(bench, "ann")).json
        assert (again["applied"], again["seq"], again["actions"]) == (True, 4, 1)
        events = [event for event in bench.log.events if isinstance(event, UserErased)]
        assert [event.pseudonym for event in events] == ["\x001", "\x002"]


async def test_the_line_in_the_log_names_nobody() -> None:
    """That log is not rewritten. It has the number and who asked, unless that is the user."""
    async with open_bench() as bench:
        for user in ("ann", "ben"):
            await bench.increment(user, f"of {user}")
        await erase(bench, "ann")
        assert (await erase(bench, "ben", token="Bearer ben users:erase ben")).status == 200
        lines = [line for line in bench.lines if line["event"] == "user_erased"]
        assert [(line["number"], line["caller"], line["actions"], line["seq"]) for line in lines] == [
            (1, "dpo", 1, 3), (2, "the user", 1, 4),
        ]  # fmt: skip
        assert "ben" not in str(lines)


async def test_only_the_scope_may_and_a_user_only_for_itself() -> None:
    """A token that names a user may not erase another one."""
    async with open_bench() as bench:
        await bench.increment("ann", "a1")
        assert (await erase(bench, "ann", token=WRITER)).status == 403
        other = await erase(bench, "ann", token="Bearer phone users:erase ben")
        assert (other.status, other.details) == (403, {"field": "userId"})
        assert (await bench.ask("DELETE", "/users/ann")).status == 401
        assert bench.scoreboard.seq == 1


async def test_a_user_of_a_past_period_alone_is_erased(tmp_path: Path) -> None:
    """The log no longer has the actions, and no board the user."""
    async with open_bench(rules=Rules({}), periods=tmp_path) as bench:
        await play(bench)
        seq = bench.scoreboard.seq
        past = [(each, row.user_id) for each in bench.kept.store.list() for row in bench.kept.store.open(each).top(9)]  # type: ignore[union-attr]  # it keeps periods
        gone = next(user for _, user in past)
        for board in bench.scoreboard.boards.values():
            board.leave([gone], seq)
        bench.log.first_seq = seq + 1
        done = await erase(bench, gone)
        assert (done.status, done.json["actions"]) == (200, 0)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (LogDamaged("a bit fell over", path="log/1.log", seq=1), (409, "CONFLICT")),
        (NoLongerKept(1, 2), (503, "OVERLOADED")),
    ],
)
async def test_a_log_that_can_not_be_read_erases_nobody(
    fault: Exception, expected: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The actions would not all be known. A segment that goes meanwhile is tried again, a few times."""
    async with open_bench() as bench:
        await bench.increment("ann", "a1")
        asked = 0

        def broken(*_: Any, **__: Any) -> Iterator[Event]:
            nonlocal asked
            asked += 1
            raise fault

        monkeypatch.setattr(bench.dependencies.ledger, "events_of", broken)
        refused = await erase(bench, "ann")
        assert (refused.status, refused.code) == expected
        assert asked == (gathered.ATTEMPTS if expected[0] == 503 else 1)
        assert bench.scoreboard.seq == 1


async def test_a_full_disk_does_not_take_the_answer_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user is erased; past periods follow when there is room."""
    async with open_bench() as bench:
        await bench.increment("ann", "a1")

        async def no_room() -> None:
            raise NoSpace("no space", path="periods")

        monkeypatch.setattr(bench.erasing, "hidden", no_room)
        assert (await erase(bench, "ann")).json["applied"] is True
