"""GET /scores/{userId}/history: every event of a user, the newest first, for those who may see it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from engine.board_rules import Rules, rules_of_points
from engine.disk import RealDisk
from engine.log import Log
from engine.user_index import make_missing
from server.api import history
from tests.server.api.support import KEEPER, READER, REFEREE, REGISTRAR, WRITER, Bench, both_ways, open_bench

ANN = "/scores/ann/history"


async def pages(bench: Bench, target: str, token: str = READER) -> list[int]:
    """The seqs of all pages, by their cursors."""
    seqs: list[int] = []
    cursor = ""
    while True:
        reply = await bench.ask("GET", f"{target}{cursor}", token=token)
        assert reply.status == 200, reply.json
        seqs += [entry["seq"] for entry in reply.json["entries"]]
        if reply.json["nextCursor"] is None:
            return seqs
        cursor = f"&cursor={reply.json['nextCursor']}"


@both_ways
async def test_all_that_the_log_says_of_a_user_comes_the_newest_first(through_quart: bool) -> None:
    """A registration, actions, and what took one of them back; nothing of others."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.ask("PUT", "/users/ann", {"displayName": "Ann"}, token=REGISTRAR)
        await bench.increment("ann", "a1")
        await bench.increment("bob", "b1")
        await bench.increment("ann", "a2")
        body = {"reversalId": "r1", "reason": "bot", "actionIds": ["a1"]}
        assert (await bench.ask("POST", "/reversals", body, token=REFEREE)).status == 200
        reply = await bench.ask("GET", ANN, token=READER)
        reversal, second, first, registration = reply.json["entries"]
        assert [entry["seq"] for entry in reply.json["entries"]] == [5, 4, 2, 1]
        assert (reversal["type"], reversal["reversalId"], reversal["scores"][0]["score"]) == ("reversal", "r1", 10)
        assert (first["delta"], first["newScore"], first["actionId"], first["caller"]) == (10, 10, "a1", "backend")
        assert (first["reversedBy"]["reversalId"], first["reversedBy"]["reason"]) == ("r1", "bot")
        assert "reversedBy" not in second
        assert (registration["type"], registration["displayName"], registration["active"]) == ("user", "Ann", True)
        assert (reply.json["complete"], reply.json["oldestSeq"], reply.json["nextCursor"]) == (True, 1, None)


async def test_pages_lead_through_all_of_it_once() -> None:
    """Whatever their length, and while more is counted."""
    async with open_bench() as bench:
        for number in range(7):
            await bench.increment("ann", f"a{number}")
            await bench.increment("bob", f"b{number}")
        everything = [13, 11, 9, 7, 5, 3, 1]
        for limit in (1, 2, 6, 7, 8):
            assert await pages(bench, f"{ANN}?limit={limit}") == everything
        first = (await bench.ask("GET", f"{ANN}?limit=3", token=READER)).json
        await bench.increment("ann", "later")
        following = await bench.ask("GET", f"{ANN}?limit=3&cursor={first['nextCursor']}", token=READER)
        assert [entry["seq"] for entry in following.json["entries"]] == [7, 5, 3]
        assert await pages(bench, "/scores/history?userId=ann&limit=4") == [15, *everything]


async def test_a_page_looks_at_so_many_events_and_leads_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a board that nothing is on, it is empty, and the cursor leads to the end."""
    monkeypatch.setattr(history, "EVENTS_MAX", 3)
    async with open_bench(rules=rules_of_points({"main": {"ACTION_COMPLETED": 10}, "other": {"WIN": 1}})) as bench:
        for number in range(8):
            await bench.increment("ann", f"a{number}")
        reply = await bench.ask("GET", f"{ANN}?boardId=other", token=READER)
        assert (reply.json["entries"], reply.json["nextCursor"]) == ([], "6")
        assert await pages(bench, f"{ANN}?boardId=other") == []
        assert await pages(bench, f"{ANN}?boardId=main&limit=100") == [8, 7, 6, 5, 4, 3, 2, 1]


async def test_only_the_user_and_those_who_read_scores_see_it() -> None:
    """A writer's token is not enough, one of another user neither."""
    async with open_bench() as bench:
        await bench.increment("ann", "a1")
        for token, status in (
            (None, 401), (WRITER, 403), (KEEPER, 403), ("Bearer b scores:write bob", 403),
            ("Bearer a scores:write ann", 200), (READER, 200), ("Bearer root admin", 200),
        ):  # fmt: skip
            assert (await bench.ask("GET", ANN, token=token)).status == status
        for target, field in (
            (f"{ANN}?cursor=x", "cursor"), (f"{ANN}?cursor=0", "cursor"), (f"{ANN}?limit=0", "limit"),
            (f"{ANN}?boardId=", "boardId"), (f"{ANN}?boardId=none", "boardId"), (f"{ANN}?view=live", "view"),
        ):  # fmt: skip
            refused = await bench.ask("GET", target, token=READER)
            assert (refused.status, refused.json["error"]["details"]["field"]) == (400, field)
        nobody = await bench.ask("GET", "/scores/nobody/history", token=READER)
        assert (nobody.status, nobody.json["entries"]) == (200, [])


async def test_a_freeze_hides_what_came_after_it() -> None:
    """From the user's own token, but for what it sent itself; not from one that may see the present."""
    async with open_bench(rules=Rules({})) as bench:
        await bench.ask("PUT", "/boards/cup", {"points": {"WIN": 10}}, token=KEEPER)

        async def win(number: int) -> None:
            body = {"userId": "ann", "actionId": f"w{number}", "boardId": "cup", "reason": "WIN"}
            assert (await bench.ask("POST", "/scores/increment", body, token=WRITER)).status == 200

        await win(1)
        assert (await bench.ask("POST", "/boards/cup/freeze", {}, token=KEEPER)).status == 200
        await win(2)
        seqs = await pages(bench, f"{ANN}?limit=5")
        assert len(seqs) == 2
        assert await pages(bench, f"{ANN}?limit=5", "Bearer a scores:write ann") == seqs[1:]
        assert await pages(bench, f"{ANN}?limit=5", "Bearer backend scores:write ann") == seqs


async def test_what_is_no_longer_kept_is_said() -> None:
    """The answer is not complete, and says from where on it is."""
    async with open_bench() as bench:
        for number in range(4):
            await bench.increment("ann", f"a{number}")
        bench.log.first_seq = 3
        reply = await bench.ask("GET", ANN, token=READER)
        assert [entry["seq"] for entry in reply.json["entries"]] == [4, 3]
        assert (reply.json["complete"], reply.json["oldestSeq"]) == (False, 3)


async def test_a_log_on_disk_is_read_by_its_indexes(tmp_path: Path) -> None:
    """Several segments, compressed ones too: each event is there once."""
    RealDisk().make_directory(str(tmp_path))
    log = Log.create(RealDisk(), str(tmp_path), log_id=bytes(16), segment_bytes=2200)
    try:
        async with open_bench(real_log=log) as bench:
            for number in range(60):
                await bench.increment(f"user-{number % 3}", f"a{number}")
            log.compress(log.segments()[0])
            make_missing(RealDisk(), log)
            assert len(log.segments()) >= 3
            assert await pages(bench, "/scores/user-1/history?limit=7") == list(range(59, 0, -3))
    finally:
        log.close()


async def test_a_few_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """When too many wait, one more is told to come again."""
    gate = trio.Event()

    async def slow(_work: object, *, blocks: bool, limiter: trio.CapacityLimiter) -> tuple[list[object], None]:
        assert blocks is False
        async with limiter:
            await gate.wait()
        return [], None

    monkeypatch.setattr(history, "run", slow)
    async with open_bench() as bench, trio.open_nursery() as nursery:
        statuses: list[int] = []

        async def ask() -> None:
            statuses.append((await bench.ask("GET", ANN, token=READER)).status)

        for _ in range(history.READERS_MAX + history.WAITERS_MAX):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        refused = await bench.ask("GET", ANN, token=READER)
        assert (refused.status, refused.code) == (503, "OVERLOADED")
        gate.set()
    assert statuses == [200] * (history.READERS_MAX + history.WAITERS_MAX)


async def test_a_person_is_given_all_that_is_kept(tmp_path: Path) -> None:
    """Registration, scores of now and of past periods, and the log; to the person and to who may read scores."""
    async with open_bench(rules=Rules({}), periods=tmp_path) as bench:
        week = {"points": {"WIN": 10}, "period": {"every": "week"}}
        await bench.ask("PUT", "/boards/cup", week, token=KEEPER)
        await bench.ask("PUT", "/users/ann", {"displayName": "Ann"}, token=REGISTRAR)
        for user, action in (("ann", "a1"), ("bob", "b1"), ("ann", "a2")):
            await bench.increment(user, action, boardId="cup", reason="WIN")
        bench.now_s += 7 * 86_400
        await bench.increment("ann", "a3", boardId="cup", reason="WIN")
        for token in (READER, f"{WRITER} ann"):
            told = (await bench.ask("GET", "/users/ann/data?limit=2", token=token)).json
            assert told["registered"] == {"displayName": "Ann", "active": True}
            assert [(each["boardId"], each["score"], each["rank"]) for each in told["scores"]] == [("cup", 10, 1)]
            past = [(each["period"], each["score"], each["rank"]) for each in told["pastScores"]]
            assert past == [("2025-W51", 20, 1)]
            assert [entry["actionId"] for entry in told["entries"]] == ["a3", "a2"]
            rest = await bench.ask("GET", f"/users/data?userId=ann&cursor={told['nextCursor']}", token=token)
            assert [entry["type"] for entry in rest.json["entries"]] == ["increment", "user"]
        nobody = (await bench.ask("GET", "/users/nobody/data", token=READER)).json
        assert (nobody["registered"], nobody["scores"], nobody["pastScores"], nobody["entries"]) == (None, [], [], [])
        assert (await bench.ask("GET", "/users/ann/data", token=f"{WRITER} bob")).status == 403
        await bench.ask("POST", "/boards/cup/freeze", token=KEEPER)
        assert (await bench.increment("ann", "a4", boardId="cup", reason="WIN")).status == 200
        own = (await bench.ask("GET", "/users/ann/data", token=f"{WRITER} ann")).json
        [frozen] = own["scores"]
        [present] = (await bench.ask("GET", "/users/ann/data", token=READER)).json["scores"]
        assert (frozen["score"], present["score"]) == (10, 20)
