"""Whole boards page by page, and the ranks of chosen users."""

from __future__ import annotations

from typing import Any

import pytest

from server import bounds
from tests.server.api.support import READER, REGISTRAR, WRITER, Bench, Reply, both_ways, open_bench

WALK, QUERY = "/scoreboard", "/scores/query"


async def fill(bench: Bench, users: int) -> None:
    """Users of equal scores: `u0` was first."""
    items: list[object] = [{"userId": f"u{number}", "actionId": f"a{number}"} for number in range(users)]
    await bench.ask("POST", "/scores/increment/batch", items, token=WRITER)


async def page(bench: Bench, cursor: str | None = None, more: str = "") -> Reply:
    """A page of three rows."""
    return await bench.ask("GET", f"{WALK}?limit=3{f'&cursor={cursor}' if cursor else ''}{more}")


def ids(reply: Reply) -> list[tuple[str, int]]:
    assert reply.status == 200, reply
    return [(entry["userId"], entry["rank"]) for entry in reply.json["entries"]]


@both_ways
async def test_a_walk_lists_each_user_once_though_scores_move(through_quart: bool) -> None:
    """One climbs past the reader, one is taken off, one comes: the pages show the moment of the first."""
    async with open_bench(through_quart=through_quart) as bench:
        await fill(bench, 8)
        await bench.ask("PUT", "/users/u1", {"displayName": "Una"}, token=REGISTRAR)
        first = await page(bench)
        assert first.json["count"] == 8
        assert first.headers["cache-control"] == "no-store"
        await bench.increment("u6", "more")
        await bench.increment("new", "new")
        await bench.ask("PUT", "/users/u4", {"active": False}, token=REGISTRAR)
        second = await page(bench, first.json["nextCursor"])
        third = await page(bench, second.json["nextCursor"])
        assert ids(first) + ids(second) + ids(third) == [(f"u{number}", number + 1) for number in range(8)]
        assert {entry["score"] for entry in third.json["entries"]} == {10}
        assert third.json["nextCursor"] is None
        assert (third.json["seq"], third.json["count"]) == (first.json["seq"], 8)
        assert ids(await page(bench, first.json["nextCursor"])) == ids(second), "a cursor may be used again"
        bench.now_s += bounds.WALK_SHARED_SECONDS
        assert ids(await page(bench))[0] == ("u6", 1)


@both_ways
async def test_a_board_of_one_page_pins_nothing(through_quart: bool) -> None:
    """All rows, and no cursor; an empty board has none."""
    async with open_bench(through_quart=through_quart) as bench:
        empty = await bench.ask("GET", f"{WALK}?boardId=weekly")
        assert (empty.json["entries"], empty.json["nextCursor"], empty.json["count"]) == ([], None, 0)
        await fill(bench, 3)
        assert (await page(bench)).json["nextCursor"] is None
        assert bench.scoreboard.boards["main"]._pinned == []


@both_ways
@pytest.mark.parametrize("cursor", ["x", "x" * 500, "WyJtYWluIiwxLDEsMV0.AAAA", "%C3%A9"])
async def test_a_cursor_that_is_none_of_ours_is_expired(cursor: str, through_quart: bool) -> None:
    """It may be of another node, or of this one before a restart: begin again."""
    async with open_bench(through_quart=through_quart) as bench:
        reply = await page(bench, cursor)
        assert (reply.status, reply.code, reply.details) == (410, "CURSOR_EXPIRED", {"field": "cursor"})


@both_ways
async def test_a_walk_ends_when_it_is_idle(through_quart: bool) -> None:
    """After a minute without a page; each page counts."""
    async with open_bench(through_quart=through_quart) as bench:
        await fill(bench, 8)
        cursor = (await page(bench)).json["nextCursor"]
        for _ in range(3):
            bench.now_s += bounds.WALK_IDLE_SECONDS - 1
            assert (await page(bench, cursor)).status == 200
        bench.now_s += bounds.WALK_IDLE_SECONDS
        assert (await page(bench, cursor)).code == "CURSOR_EXPIRED"
        assert bench.scoreboard.boards["main"]._pinned == []


@both_ways
async def test_what_a_page_may_ask_for(through_quart: bool) -> None:
    """A limit up to 1,000, a board that exists, the cursor's own board, and a cursor once."""
    async with open_bench(through_quart=through_quart) as bench:
        await fill(bench, 8)
        cursor = (await page(bench)).json["nextCursor"]
        for query, field in (
            ("limit=0", "limit"), ("limit=1001", "limit"), ("boardId=none", "boardId"), ("cursor=", "cursor"),
            (f"cursor={cursor}&boardId=weekly", "cursor"), (f"cursor={cursor}&cursor={cursor}", "cursor"),
            ("offset=3", "offset"), ("minSeq=x", "minSeq"),
        ):  # fmt: skip
            reply = await bench.ask("GET", f"{WALK}?{query}")
            assert (reply.status, reply.details["field"]) == (400, field), query
        assert len(ids(await bench.ask("GET", f"{WALK}?limit=1000"))) == 8
        assert len(ids(await bench.ask("GET", f"{WALK}?cursor={cursor}"))) == 5, "a limit may change"


@both_ways
async def test_walks_that_begin_together_share_a_moment_unless_they_name_one(through_quart: bool) -> None:
    """Else each caller would cost memory; but who has just written, and says so, sees it."""
    async with open_bench(through_quart=through_quart) as bench:
        await fill(bench, 8)
        first = await page(bench)
        receipt = await bench.increment("u7", "more")
        assert (await page(bench)).json["seq"] == first.json["seq"]
        newest = await page(bench, more=f"&minSeq={receipt.json['seq']}")
        assert ids(newest)[0] == ("u7", 1)
        board = bench.scoreboard.boards["main"]
        assert len(board._pinned) == 2
        bench.now_s += bounds.WALK_SHARED_SECONDS
        assert (await page(bench)).json["seq"] == board.seq, "one of this very seq is shared for as long as it lives"
        assert len(board._pinned) == 2


@both_ways
async def test_walks_are_bounded(through_quart: bool) -> None:
    """The longest unused makes room; but young ones are not ended by newer ones."""
    async with open_bench(through_quart=through_quart) as bench:
        await fill(bench, 8)

        async def begin(number: int) -> Reply:
            receipt = await bench.increment("u7", f"more-{number}")
            return await page(bench, more=f"&minSeq={receipt.json['seq']}")

        cursors = [(await begin(number)).json["nextCursor"] for number in range(bounds.WALKS_MAX)]
        refused = await begin(100)
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "OVERLOADED", "1")
        bench.now_s += bounds.WALK_SHARED_SECONDS
        assert (await page(bench, cursors[0])).status == 200
        assert (await begin(101)).status == 200
        assert (await page(bench, cursors[0])).status == 200, "it was used"
        assert (await page(bench, cursors[1])).code == "CURSOR_EXPIRED"
        assert len(bench.scoreboard.boards["main"]._pinned) == bounds.WALKS_MAX


async def test_a_board_that_was_replaced_ends_its_walks() -> None:
    """As when a replica fetched a snapshot."""
    async with open_bench() as bench:
        await fill(bench, 8)
        cursor = (await page(bench)).json["nextCursor"]
        old = bench.scoreboard.boards["main"]
        bench.scoreboard.boards["main"] = type(old)("main", old.definition)
        assert (await page(bench, cursor)).code == "CURSOR_EXPIRED"


async def ask(bench: Bench, body: object, query: str = "", **more: Any) -> Reply:
    return await bench.ask("POST", QUERY + query, body, **more)


@both_ways
async def test_friends_are_ranked_among_all_and_among_each_other(through_quart: bool) -> None:
    """In the order of the board; who is named twice counts once; who is not ranked is told apart."""
    async with open_bench(through_quart=through_quart) as bench:
        await fill(bench, 8)
        await bench.increment("off", "off")
        await bench.ask("PUT", "/users/off", {"active": False}, token=REGISTRAR)
        await bench.ask("PUT", "/users/u5", {"displayName": "Ulla"}, token=REGISTRAR)
        reply = await ask(bench, {"userIds": ["u5", "nobody", "u2", "u5", "off"]})
        assert reply.json == {
            "entries": [
                {"userId": "u2", "score": 10, "rank": 3, "rankAmong": 1},
                {"userId": "u5", "displayName": "Ulla", "score": 10, "rank": 6, "rankAmong": 2},
            ],
            "unranked": ["nobody", "off"],
            "count": 8,
            "generatedAt": "2025-12-15T12:34:56.000Z",
            "boardId": "main",
            "epoch": 1,
            "seq": 11,
        }
        assert (await ask(bench, {"userIds": ["u5"], "boardId": "weekly"})).json["unranked"] == ["u5"]
        assert (await ask(bench, {"userIds": ["u5"], "boardId": None})).json["boardId"] == "main"
        assert len((await ask(bench, {"userIds": [f"u{n}" for n in range(1000)]})).json["entries"]) == 8


@both_ways
@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, "userIds", "userIds is missing."),
        ({"userIds": []}, "userIds", "userIds has 1 to 1000 ids, not 0."),
        ({"userIds": ["u"] * 1001}, "userIds", "userIds has 1 to 1000 ids, not 1001."),
        ({"userIds": "ann"}, "userIds", "userIds must be an array, not a string."),
        ({"userIds": ["ann", 5]}, "userIds", "userIds[1] must be a string, not a number."),
        ({"userIds": ["ann", ""]}, "userIds", "userIds[1] must not be empty."),
        ({"userIds": ["ann"], "boardId": ""}, "boardId", "boardId must not be empty."),
        ({"userIds": ["ann"], "boardId": "none"}, "boardId", "There is no such board."),
        ({"userIds": ["ann"], "limit": 3}, "limit", "Unknown field limit."),
        ([], "body", "body must be an object, not an array."),
    ],
)
async def test_a_query_that_is_wrong_names_the_field(
    body: object, field: str, message: str, through_quart: bool
) -> None:
    """And what is wrong with it."""
    async with open_bench(through_quart=through_quart) as bench:
        reply = await ask(bench, body)
        assert (reply.status, reply.details["field"], reply.json["error"]["message"]) == (400, field, message)


@both_ways
async def test_without_public_reads_both_need_a_token(through_quart: bool) -> None:
    """With the scope of reads."""
    async with open_bench(through_quart=through_quart, public_reads=False) as bench:
        await fill(bench, 1)
        for token, status in ((None, 401), (REGISTRAR, 403), (READER, 200)):
            assert (await ask(bench, {"userIds": ["u0"]}, token=token)).status == status
            assert (await bench.ask("GET", WALK, token=token)).status == status


@both_ways
async def test_a_page_of_another_site_may_ask_for_ranks(through_quart: bool) -> None:
    """A POST that only reads passes the preflight; one that writes does not."""
    asks = {"origin": "https://a.example", "access-control-request-method": "POST"}
    async with open_bench(through_quart=through_quart) as bench:
        reply = await bench.ask("OPTIONS", QUERY, headers=asks)
        assert reply.headers["access-control-allow-methods"] == "POST"
        assert (await ask(bench, {"userIds": ["u"]})).headers["access-control-allow-origin"] == "*"
        for path in ("/scores/increment", "/scores/increment/batch"):
            assert "access-control-allow-methods" not in (await bench.ask("OPTIONS", path, headers=asks)).headers


@both_ways
async def test_percentile_and_gap(through_quart: bool) -> None:
    """Of the other ranked users, the percentage behind; the lead of the next better one, also after a tie."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "won", reason="WON")

        async def told(user: str, token: str | None = None) -> tuple[Any, ...]:
            found = (await bench.ask("GET", f"/scores/{user}", token=token)).json
            return found["rank"], found["count"], found["percentile"], found["gapToNext"]

        assert await told("ann") == (1, 1, 100.0, None)
        await fill(bench, 3)
        assert [await told(user) for user in ("ann", "u0", "u1", "u2")] == [
            (1, 4, 100.0, None), (2, 4, 66.67, 90), (3, 4, 33.33, 0), (4, 4, 0.0, 0),
        ]  # fmt: skip
        await bench.ask("PUT", "/users/u0", {"active": False}, token=REGISTRAR)
        assert await told("u1") == (2, 3, 50.0, 90)
        assert await told("u0", READER) == (None, 3, None, None)
