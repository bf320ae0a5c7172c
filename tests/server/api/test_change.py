"""How far users moved, as rows say it: in tops, walks, neighbours and lists of friends."""

from __future__ import annotations

from typing import Any

from engine.board_rules import Rules
from tests.server.api.support import KEEPER, READER, REGISTRAR, WRITER, Bench, both_ways, open_bench

HOUR_S = 3_600
BOARD = {"points": {"WIN": 10}}


async def win(bench: Bench, *users: str) -> None:
    """Give each of these points."""
    for number, user in enumerate(users):
        body = {"userId": user, "actionId": f"{number} {bench.now_s}", "boardId": "cup", "reason": "WIN"}
        assert (await bench.ask("POST", "/scores/increment", body, token=WRITER)).status == 200


async def moves(bench: Bench, path: str, body: Any = None) -> dict[str, Any]:
    """Give what each row of an answer says; "" for nothing."""
    reply = await bench.ask("GET" if body is None else "POST", path, body, token=READER)
    assert reply.status == 200, reply
    return {row["userId"]: row.get("change", "") for row in reply.json["entries"]}


@both_ways
async def test_every_list_of_rows_says_how_far_they_moved(through_quart: bool) -> None:
    """Once the board is a day old. A user who was not there has null; `period` is left out in the first period."""
    async with open_bench(rules=Rules({}), through_quart=through_quart) as bench:
        assert (await bench.ask("PUT", "/boards/cup", BOARD, token=KEEPER)).status == 201
        await win(bench, "ann", "ann", "ann", "ben", "ben", "cid")
        assert set((await moves(bench, "/scoreboard/top?boardId=cup")).values()) == {""}
        bench.now_s += 25 * HOUR_S
        await win(bench, "cid", "cid", "cid", "dan")
        expected = {"cid": {"day": 2}, "ann": {"day": -1}, "ben": {"day": -1}, "dan": {"day": None}}
        assert await moves(bench, "/scoreboard/top?boardId=cup") == expected
        assert await moves(bench, "/scoreboard?boardId=cup") == expected
        assert await moves(bench, "/scores/ben/around?boardId=cup&limit=9") == expected
        friends = {"userIds": ["dan", "cid"], "boardId": "cup"}
        assert await moves(bench, "/scores/query", friends) == {"cid": {"day": 2}, "dan": {"day": None}}


async def test_after_a_reset_rows_are_compared_with_the_period_before() -> None:
    """The rows of that period itself say nothing."""
    async with open_bench(rules=Rules({})) as bench:
        assert (await bench.ask("PUT", "/boards/cup", BOARD, token=KEEPER)).status == 201
        await win(bench, "ann", "ann", "ben")
        assert (await bench.ask("POST", "/boards/cup/reset", token=KEEPER)).status == 200
        bench.now_s += 1
        await win(bench, "ben", "cid")
        expected = {"ben": {"period": 1}, "cid": {"period": None}}
        assert await moves(bench, "/scoreboard/top?boardId=cup") == expected


async def test_a_tag_ends_when_what_is_compared_with_moves_on() -> None:
    """The rows of one position are always the same. Without a move for a day, all are told that nobody moved."""
    async with open_bench(rules=Rules({})) as bench:
        assert (await bench.ask("PUT", "/boards/cup", BOARD, token=KEEPER)).status == 201
        await win(bench, "ann", "ben")
        bench.now_s += 25 * HOUR_S
        await win(bench, "ben")
        top = await bench.ask("GET", "/scoreboard/top?boardId=cup")
        assert [row["change"] for row in top.json["entries"]] == [{"day": 1}, {"day": -1}]
        bench.now_s += 26 * HOUR_S
        await bench.ask("PUT", "/boards/other", BOARD, token=KEEPER)
        again = await bench.ask("GET", "/scoreboard/top?boardId=cup", headers={"If-None-Match": top.headers["etag"]})
        assert again.status == 200
        assert again.json["seq"] > top.json["seq"]
        assert [row["change"] for row in again.json["entries"]] == [{"day": 0}, {"day": 0}]


async def test_a_cursor_gives_the_same_rows_after_a_note() -> None:
    """What a walk compares with is that of its first page."""
    async with open_bench(rules=Rules({})) as bench:
        assert (await bench.ask("PUT", "/boards/cup", BOARD, token=KEEPER)).status == 201
        await win(bench, "ann", "ben")
        bench.now_s += 24 * HOUR_S - 20
        first = await bench.ask("GET", "/scoreboard?boardId=cup&limit=1")
        path = f"/scoreboard?boardId=cup&cursor={first.json['nextCursor']}"
        before = await bench.ask("GET", path)
        bench.now_s += 40
        await bench.ask("PUT", "/users/cid", {"displayName": "Cid"}, token=REGISTRAR)
        assert "change" in (await bench.ask("GET", "/scoreboard/top?boardId=cup")).json["entries"][0]
        again = await bench.ask("GET", path)
        assert again.json["entries"] == before.json["entries"]
        assert "change" not in again.json["entries"][0]
