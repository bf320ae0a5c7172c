"""Past periods over HTTP: their list, and each read of one, whole, ranked and unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.board_rules import Rules
from engine.errors import Overloaded
from tests.server.api.support import KEEPER, READER, REGISTRAR, WRITER, Bench, Reply, both_ways, open_bench

DAY_S = 86_400
WEEKLY = {"points": {"WIN": 10, "LAP": {"min": 1, "max": 90}}, "period": {"every": "week", "zone": "Europe/Berlin"}}
"""2025-12-15 is a Monday."""
JUDGE = "Bearer judge scores:write,scores:value"
NO_FILE = Rules({})
FIRST = [("ann", 50, 1), ("ben", 40, 2), ("cid", 40, 3), ("dan", 5, 4)]
"""The rows of the first week."""


async def lap(bench: Bench, user_id: str, value: int, board_id: str = "cup") -> Reply:
    body = {"userId": user_id, "actionId": f"{user_id} {bench.now_s}", "boardId": board_id, "reason": "LAP"}
    return await bench.ask("POST", "/scores/increment", {**body, "value": value}, token=JUDGE)


async def play(bench: Bench, **rules: object) -> None:
    """Play a week of four users and a week of one; a third one has begun."""
    assert (await bench.ask("PUT", "/boards/cup", {**WEEKLY, **rules}, token=KEEPER)).status == 201
    for user_id, score, _ in FIRST:
        assert (await lap(bench, user_id, score)).status == 200
    bench.now_s += 7 * DAY_S
    assert (await lap(bench, "eve", 7)).status == 200
    bench.now_s += 7 * DAY_S
    assert (await lap(bench, "ann", 1)).status == 200


def rows(reply: Reply) -> list[tuple[str, int, int]]:
    assert reply.status == 200, reply
    return [(entry["userId"], entry["score"], entry["rank"]) for entry in reply.json["entries"]]


async def top(bench: Bench, period: str, more: str = "", token: str | None = None) -> Reply:
    return await bench.ask("GET", f"/scoreboard/top?boardId=cup&period={period}{more}", token=token)


async def score(bench: Bench, user_id: str, period: str, token: str | None = None) -> Reply:
    return await bench.ask("GET", f"/scores/{user_id}?boardId=cup&period={period}", token=token)


# What is there


@both_ways
async def test_periods_are_listed_the_last_one_first(through_quart: bool, tmp_path: Path) -> None:
    """With beginning, end, users and the seq of the change; the running one is not among them."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart, periods=tmp_path) as bench:
        await play(bench)
        reply = await bench.ask("GET", "/boards/cup/periods")
        assert reply.json == {
            "boardId": "cup",
            "periods": [
                {"period": "2025-W52", "startsAt": "2025-12-21T23:00:00.000Z", "endsAt": "2025-12-28T23:00:00.000Z",
                 "count": 1, "seq": 10},
                {"period": "2025-W51", "startsAt": "2025-12-14T23:00:00.000Z", "endsAt": "2025-12-21T23:00:00.000Z",
                 "count": 4, "seq": 7},
            ],
            "epoch": 1,
            "seq": 11,
        }  # fmt: skip
        assert (await bench.ask("GET", "/boards/periods?boardId=cup")).json == reply.json
        assert (await bench.ask("GET", "/boards/cup")).json["period"] == "2026-W01"


async def test_a_board_without_periods_has_none() -> None:
    """The list is empty, and `previous` names nothing."""
    async with open_bench() as bench:
        assert (await bench.ask("GET", "/boards/main/periods")).json["periods"] == []
        reply = await bench.ask("GET", "/scoreboard/top?period=previous")
        assert (reply.status, reply.code) == (404, "NOT_FOUND")
        assert reply.details == {"field": "period", "boardId": "main", "period": "previous"}


@both_ways
async def test_the_top_of_a_past_period_is_its_last_one(through_quart: bool, tmp_path: Path) -> None:
    """By id or as `previous`; the answer has the period, its end, and the position of the change."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart, periods=tmp_path) as bench:
        await play(bench)
        first = await top(bench, "2025-W51")
        assert rows(first) == FIRST
        told = {name: first.json[name] for name in ("boardId", "period", "endsAt", "epoch", "seq")}
        assert told == {
            "boardId": "cup", "period": "2025-W51", "endsAt": "2025-12-21T23:00:00.000Z", "epoch": 1, "seq": 7,
        }  # fmt: skip
        assert "etag" not in first.headers, "names in it are of now"
        assert first.headers["cache-control"] == "no-cache"
        assert rows(await top(bench, "2025-W51", "&limit=2")) == FIRST[:2]
        assert rows(await top(bench, "previous")) == rows(await top(bench, "2025-W52")) == [("eve", 7, 1)]
        assert rows(await bench.ask("GET", "/scoreboard/top?boardId=cup")) == [("ann", 1, 1)]


@both_ways
async def test_a_user_has_a_score_and_neighbours_in_a_past_period(through_quart: bool, tmp_path: Path) -> None:
    """With count, percentile and gap of then, in the path and in the query."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart, periods=tmp_path) as bench:
        await play(bench)
        cid = await score(bench, "cid", "2025-W51")
        assert cid.json == {
            "userId": "cid", "boardId": "cup", "score": 40, "rank": 3, "count": 4, "percentile": 33.33, "gapToNext": 0,
            "updatedAt": "2025-12-15T12:34:56.000Z", "epoch": 1, "seq": 7, "period": "2025-W51",
            "endsAt": "2025-12-21T23:00:00.000Z",
        }  # fmt: skip
        assert (await bench.ask("GET", "/scores?userId=cid&boardId=cup&period=2025-W51")).json == cid.json
        gaps = [(await score(bench, user_id, "2025-W51")).json["gapToNext"] for user_id, *_ in FIRST]
        assert gaps == [None, 10, 0, 35]
        around = await bench.ask("GET", "/scores/cid/around?boardId=cup&period=2025-W51&limit=1")
        assert rows(around) == FIRST[1:]
        assert (around.json["period"], around.json["seq"]) == ("2025-W51", 7)
        by_query = await bench.ask("GET", "/scores/around?userId=dan&boardId=cup&period=2025-W51&limit=1")
        assert rows(by_query) == FIRST[1:], "at the edge the other side has more"


@both_ways
async def test_who_did_not_play_then_is_not_found(through_quart: bool, tmp_path: Path) -> None:
    """Though ranked now, in scores and around."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart, periods=tmp_path) as bench:
        await play(bench)
        for path in ("/scores/ann", "/scores/ann/around"):
            reply = await bench.ask("GET", f"{path}?boardId=cup&period=previous")
            assert (reply.status, reply.code) == (404, "NOT_FOUND")
            assert reply.details == {"userId": "ann", "boardId": "cup"}


@both_ways
async def test_a_period_that_nobody_played_is_empty(through_quart: bool, tmp_path: Path) -> None:
    """It has no file, and none is missed."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart, periods=tmp_path) as bench:
        await play(bench)
        bench.now_s += 14 * DAY_S
        await lap(bench, "ann", 1)
        assert [each["period"] for each in (await bench.ask("GET", "/boards/cup/periods")).json["periods"]] == [
            "2026-W02", "2026-W01", "2025-W52", "2025-W51",
        ]  # fmt: skip
        assert rows(await top(bench, "previous")) == []
        walk = await bench.ask("GET", "/scoreboard?boardId=cup&period=2026-W02")
        assert (walk.json["entries"], walk.json["count"], walk.json["nextCursor"]) == ([], 0, None)
        assert (await score(bench, "ann", "2026-W02")).status == 404
        assert len(list((tmp_path / "periods").iterdir())) == 3


@both_ways
@pytest.mark.parametrize("period", ["2025-W50", "2026-W01", "", "Previous", "2025-w51"])
async def test_an_unknown_period_names_the_field(period: str, through_quart: bool, tmp_path: Path) -> None:
    """One before the board, the running one, none at all, and names in another case."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart, periods=tmp_path) as bench:
        await play(bench)
        for path in ("/scoreboard/top", "/scoreboard", "/scores/ann", "/scores/ann/around"):
            reply = await bench.ask("GET", f"{path}?boardId=cup&period={period}")
            assert (reply.status, reply.code) == (404, "NOT_FOUND"), path
            assert reply.details == {"field": "period", "boardId": "cup", "period": period}


# Walks


@both_ways
async def test_a_past_period_is_walked_page_by_page(through_quart: bool, tmp_path: Path) -> None:
    """Its cursors pin nothing, so they never expire while the process runs."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart, periods=tmp_path) as bench:
        await play(bench)
        path, found, cursor = "/scoreboard?boardId=cup&period=2025-W51&limit=3", [], ""
        first = await bench.ask("GET", path)
        assert (first.json["count"], first.json["period"], first.json["seq"]) == (4, "2025-W51", 7)
        assert first.headers["cache-control"] == "no-store"
        for _ in range(2):
            page = await bench.ask("GET", path + cursor)
            found += rows(page)
            cursor = f"&cursor={page.json['nextCursor']}"
            bench.now_s += 3_600
        assert found == FIRST
        assert page.json["nextCursor"] is None
        again = await bench.ask("GET", f"{path}&cursor={first.json['nextCursor']}")
        assert rows(again) == FIRST[3:]
        assert bench.scoreboard.boards["cup"]._pinned == []
        whole = await bench.ask("GET", "/scoreboard?boardId=cup&period=2025-W51&limit=4")
        assert (rows(whole), whole.json["nextCursor"]) == (FIRST, None)


@both_ways
async def test_a_cursor_is_good_for_its_board_and_period_only(through_quart: bool, tmp_path: Path) -> None:
    """Of another board or period it is 400, of a walk of the present or invented 410, empty 400."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart, periods=tmp_path) as bench:
        await play(bench)
        await bench.ask("PUT", "/boards/other", WEEKLY, token=KEEPER)
        await lap(bench, "ann", 3, "other")
        bench.now_s += 7 * DAY_S
        for user_id in ("ann", "ben"):
            await lap(bench, user_id, 3)
        past = (await bench.ask("GET", "/scoreboard?boardId=cup&period=2025-W51&limit=1")).json["nextCursor"]
        present = (await bench.ask("GET", "/scoreboard?boardId=cup&limit=1")).json["nextCursor"]
        for query, status, code in (
            (f"boardId=cup&period=2025-W52&cursor={past}", 400, "INVALID_REQUEST"),
            (f"boardId=other&period=previous&cursor={past}", 400, "INVALID_REQUEST"),
            (f"boardId=cup&cursor={past}", 410, "CURSOR_EXPIRED"),
            (f"boardId=cup&period=2025-W51&cursor={present}", 410, "CURSOR_EXPIRED"),
            ("boardId=cup&period=2025-W51&cursor=x", 410, "CURSOR_EXPIRED"),
            ("boardId=cup&period=2025-W51&cursor=", 400, "INVALID_REQUEST"),
        ):
            reply = await bench.ask("GET", f"/scoreboard?limit=1&{query}")
            assert (reply.status, reply.code, reply.details["field"]) == (status, code, "cursor"), query


# Users of now


@both_ways
async def test_names_are_those_of_now(through_quart: bool, tmp_path: Path) -> None:
    """A name that was given after the end is shown, everywhere."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart, periods=tmp_path) as bench:
        await play(bench)
        await bench.ask("PUT", "/users/ben", {"displayName": "Ben"}, token=REGISTRAR)
        for path in ("/scoreboard/top", "/scoreboard", "/scores/ben/around"):
            entries = (await bench.ask("GET", f"{path}?boardId=cup&period=2025-W51")).json["entries"]
            assert [entry.get("displayName") for entry in entries] == [None, "Ben", None, None], path
        assert (await score(bench, "ben", "2025-W51")).json["displayName"] == "Ben"


@both_ways
async def test_an_inactive_user_is_left_out_with_a_gap_in_the_ranks(through_quart: bool, tmp_path: Path) -> None:
    """The others keep their ranks. One's own row is for tokens that may read, and for no cache."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart, periods=tmp_path) as bench:
        await play(bench)
        await bench.ask("PUT", "/users/ben", {"active": False}, token=REGISTRAR)
        shown = [row for row in FIRST if row[0] != "ben"]
        for path in ("/scoreboard/top", "/scoreboard", "/scores/cid/around"):
            assert rows(await bench.ask("GET", f"{path}?boardId=cup&period=2025-W51")) == shown, path
        for path in ("/scores/ben", "/scores/ben/around"):
            for token in (None, REGISTRAR):
                reply = await bench.ask("GET", f"{path}?boardId=cup&period=2025-W51", token=token)
                assert (reply.status, reply.code) == (404, "NOT_FOUND"), path
        for token in (READER, WRITER):
            reply = await score(bench, "ben", "2025-W51", token)
            assert (reply.status, reply.json["score"], reply.json["rank"]) == (200, 40, 2)
            assert reply.headers["cache-control"] == "no-store"
        await bench.ask("PUT", "/users/ben", {"active": True}, token=REGISTRAR)
        assert rows(await top(bench, "2025-W51")) == FIRST


# Ranks


@pytest.mark.parametrize(("ranks", "expected"), [("shared", [1, 2, 2, 4]), ("dense", [1, 2, 2, 3])])
async def test_ranks_are_those_of_the_board(ranks: str, expected: list[int], tmp_path: Path) -> None:
    """Shared ones have a gap to the next better rank, not to an equal one."""
    async with open_bench(rules=NO_FILE, periods=tmp_path) as bench:
        await play(bench, ranks=ranks)
        assert [rank for *_, rank in rows(await top(bench, "2025-W51"))] == expected
        found = [(await score(bench, user_id, "2025-W51")).json for user_id, *_ in FIRST]
        assert [each["rank"] for each in found] == expected
        assert [each["gapToNext"] for each in found] == [None, 10, 10, 35]


async def test_a_gap_is_found_beyond_many_equals(tmp_path: Path) -> None:
    """300 users share the second rank; the last of them looks past all others."""
    async with open_bench(rules=NO_FILE, periods=tmp_path) as bench:
        await bench.ask("PUT", "/boards/cup", {**WEEKLY, "ranks": "shared"}, token=KEEPER)
        await lap(bench, "ann", 50)
        items: list[Any] = [
            {"userId": f"u{n}", "actionId": f"a{n}", "boardId": "cup", "reason": "WIN"} for n in range(300)
        ]
        assert (await bench.ask("POST", "/scores/increment/batch", items, token=WRITER)).status == 200
        bench.now_s += 7 * DAY_S
        await lap(bench, "ann", 1)
        last = (await score(bench, "u299", "previous")).json
        assert (last["rank"], last["gapToNext"], last["count"], last["percentile"]) == (2, 40, 301, 99.67)


async def test_an_ascending_board_has_its_gaps_too(tmp_path: Path) -> None:
    """The least is first, and the gap to it is a positive number."""
    async with open_bench(rules=NO_FILE, periods=tmp_path) as bench:
        await play(bench, score="best", order="ascending")
        assert rows(await top(bench, "2025-W51")) == [("dan", 5, 1), ("ben", 40, 2), ("cid", 40, 3), ("ann", 50, 4)]
        assert (await score(bench, "ann", "2025-W51")).json["gapToNext"] == 10


# What is kept, and what is not


@both_ways
async def test_as_many_periods_are_kept_as_the_rules_say(through_quart: bool, tmp_path: Path) -> None:
    """The oldest is forgotten at the change that makes one too many. A PUT forgets none before the next change."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart, periods=tmp_path) as bench:
        await play(bench, keep_periods=2)

        async def kept() -> list[str]:
            return [each["period"] for each in (await bench.ask("GET", "/boards/cup/periods")).json["periods"]]

        assert await kept() == ["2025-W52", "2025-W51"]
        bench.now_s += 7 * DAY_S
        await lap(bench, "ann", 1)
        assert await kept() == ["2026-W01", "2025-W52"]
        assert (await top(bench, "2025-W51")).status == 404
        await bench.ask("PUT", "/boards/cup", {**WEEKLY, "keep_periods": 1}, token=KEEPER)
        assert await kept() == ["2026-W01", "2025-W52"]
        bench.now_s += 7 * DAY_S
        await lap(bench, "ann", 1)
        assert await kept() == ["2026-W02"]


@both_ways
@pytest.mark.parametrize("damage", ["missing", "damaged", "short", "not given"])
async def test_a_file_that_cannot_be_read_is_not_available(damage: str, through_quart: bool, tmp_path: Path) -> None:
    """Each read says so with 503, other periods are served, and the list still names it."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart, periods=tmp_path) as bench:
        await play(bench)
        assert bench.kept is not None
        file = bench.kept.file(7)
        data = file.read_bytes()
        if damage == "missing":
            file.unlink()
        elif damage == "not given":  # EISDIR stands for EIO
            file.unlink()
            file.mkdir()
        else:
            file.write_bytes(data[:-1] if damage == "short" else data[:60] + bytes(len(data) - 60))
        for path in ("/scoreboard/top", "/scoreboard", "/scores/ann", "/scores/ann/around"):
            reply = await bench.ask("GET", f"{path}?boardId=cup&period=2025-W51")
            assert (reply.status, reply.code) == (503, "PERIOD_UNAVAILABLE"), path
            assert reply.details == {"boardId": "cup", "period": "2025-W51"}
            assert int(reply.headers["retry-after"]) >= 1
        assert rows(await top(bench, "2025-W52")) == [("eve", 7, 1)]
        assert len((await bench.ask("GET", "/boards/cup/periods")).json["periods"]) == 2


async def test_a_node_without_files_says_so() -> None:
    """As a replica of one shard."""
    async with open_bench(rules=NO_FILE) as bench:
        await play(bench)
        assert (await top(bench, "previous")).code == "PERIOD_UNAVAILABLE"


async def test_too_many_readers_are_told_to_wait(tmp_path: Path) -> None:
    """503 OVERLOADED: nothing is wrong with the file."""
    async with open_bench(rules=NO_FILE, periods=tmp_path) as bench:
        await play(bench)
        assert bench.kept is not None
        bench.kept.busy = Overloaded("too many past periods are being read")
        reply = await top(bench, "previous")
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "OVERLOADED", "1")


# Who may, and where


@both_ways
async def test_where_reads_are_not_public_past_periods_need_a_token(through_quart: bool, tmp_path: Path) -> None:
    """With the scope of reads; the list takes that of boards too."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart, periods=tmp_path, public_reads=False) as bench:
        await play(bench)
        for token, status in ((None, 401), (REGISTRAR, 403), (KEEPER, 403), (READER, 200), (WRITER, 200)):
            assert (await top(bench, "previous", token=token)).status == status
        for token, status in ((None, 401), (REGISTRAR, 403), (KEEPER, 200), (READER, 200)):
            assert (await bench.ask("GET", "/boards/cup/periods", token=token)).status == status


@both_ways
async def test_a_closed_board_keeps_its_past(through_quart: bool, tmp_path: Path) -> None:
    """And so does one that was frozen after the periods had ended."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart, periods=tmp_path) as bench:
        await play(bench)
        for method, path in (("POST", "/boards/cup/freeze"), ("DELETE", "/boards/cup")):
            assert (await bench.ask(method, path, token=KEEPER)).status == 200
            assert rows(await top(bench, "2025-W51")) == FIRST
