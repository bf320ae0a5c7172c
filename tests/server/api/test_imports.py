"""Imports over HTTP: pieces that become a board, how far one is, what is refused, and who did it."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import pytest
import trio

from engine.board_rules import Rules
from server import bounds
from tests.server.api.support import ADMIN, KEEPER, WRITER, Bench, Reply, both_ways, open_bench

PATH = "/boards/cup/imports"
PACKED = {"content-type": "application/msgpack"}


def piece(first: int, count: int, total: int = 5, **more: Any) -> dict[str, Any]:
    """Some rows of an import of users who all have the same score."""
    rows = [{"userId": f"user-{number}", "score": 7} for number in range(first, first + count)]
    return {"importId": "old", "digest": "d", "total": total, "firstRow": first, "rows": rows, **more}


async def put(bench: Bench, **rules: Any) -> None:
    """Make the board."""
    assert (await bench.ask("PUT", "/boards/cup", {"points": {"WIN": 10}, **rules}, token=KEEPER)).status == 201


async def send(bench: Bench, body: dict[str, Any]) -> Reply:
    """Send a piece."""
    return await bench.ask("POST", PATH, body, token=ADMIN)


def users(bench: Bench) -> list[tuple[str, int]]:
    """The board, the best first."""
    board = bench.scoreboard.boards["cup"]
    return [(row.user_id, row.score) for row in board.top(len(board))]


@both_ways
async def test_pieces_become_a_board(through_quart: bool) -> None:
    """In the order of the rows; an answer says how far the import is, and so do the list and the progress."""
    async with open_bench(rules=Rules({}), through_quart=through_quart) as bench:
        await put(bench)
        first = (await send(bench, piece(0, 3))).json
        assert first == {
            "importId": "old", "boardId": "cup", "rows": 5, "rowsDone": 3, "applied": 3, "finished": False,
            "epoch": 1, "seq": 5,
        }  # fmt: skip
        progress = (await bench.ask("GET", f"{PATH}/old", token=ADMIN)).json
        assert (progress["rowsDone"], progress["finished"], progress["begunSeq"]) == (3, False, 2)
        packed = msgspec.msgpack.encode(piece(3, 2))
        last = await bench.ask("POST", "/boards/imports?boardId=cup", raw=packed, token=ADMIN, headers=PACKED)
        assert last.headers["content-type"] == "application/msgpack"
        assert msgspec.msgpack.decode(last.body)["finished"] is True
        assert users(bench) == [(f"user-{number}", 7) for number in range(5)]
        [listed] = (await bench.ask("GET", PATH, token=ADMIN)).json["imports"]
        assert (listed["rows"], listed["rowsDone"], listed["digest"], listed["merge"]) == (5, 5, "d", False)
        one = (await bench.ask("GET", "/boards/imports?boardId=cup&importId=old", token=ADMIN)).json
        assert {**one, "epoch": 0, "seq": 0} == {**listed, "epoch": 0, "seq": 0}
        assert bench.metrics.value("scoreboard_imported_rows_total") == 5


async def test_a_piece_may_be_sent_again_and_overlap() -> None:
    """Rows that are done are passed over. A gap is refused, with the row that comes next."""
    async with open_bench(rules=Rules({})) as bench:
        await put(bench)
        await send(bench, piece(0, 2))
        again = (await send(bench, piece(0, 2))).json
        assert (again["applied"], again["rowsDone"]) == (0, 2)
        overlapping = (await send(bench, piece(1, 2))).json
        assert (overlapping["applied"], overlapping["rowsDone"]) == (1, 3)
        gap = await send(bench, piece(4, 1))
        assert (gap.status, gap.code, gap.details) == (409, "CONFLICT", {"field": "firstRow", "rowsDone": 3})
        assert len(users(bench)) == 3


async def test_names_and_times_come_along() -> None:
    """A name registers its user. A time is ISO 8601 or ms, and is shown as the time of the score. null says nothing."""
    async with open_bench(rules=Rules({})) as bench:
        await put(bench)
        rows: list[dict[str, Any]] = [
            {"userId": "a/b", "score": 2**53 - 1, "reachedAt": "2025-11-30T18:00:00+01:00", "displayName": "Änn 🎯"},
            {"userId": "ben", "score": 0, "reachedAt": 1_764_522_000_000, "displayName": None},
            {"userId": "cid", "score": 5, "reachedAt": None},
        ]
        assert (await send(bench, piece(0, 0, 3, rows=rows, firstRow=None, merge=None))).status == 200
        ann = (await bench.ask("GET", "/scores?userId=a/b&boardId=cup")).json
        assert (ann["displayName"], ann["score"]) == ("Änn 🎯", 2**53 - 1)
        assert ann["updatedAt"] == "2025-11-30T17:00:00.000Z"
        assert (await bench.ask("GET", "/scores/ben?boardId=cup")).json["updatedAt"] == "2025-11-30T17:00:00.000Z"


async def test_a_board_with_scores_needs_a_merge() -> None:
    """Then a row counts by the mode of the board, on top of what is there."""
    async with open_bench(rules=Rules({})) as bench:
        await put(bench)
        won = {"userId": "user-1", "actionId": "w", "boardId": "cup", "reason": "WIN"}
        await bench.ask("POST", "/scores/increment", won, token=WRITER)
        refused = await send(bench, piece(0, 2))
        assert (refused.status, refused.details["field"], refused.details["users"]) == (409, "merge", 1)
        assert (await send(bench, piece(0, 2, 2, merge=True))).json["finished"] is True
        assert users(bench) == [("user-1", 17), ("user-0", 7)]


ROW = {"userId": "a", "score": 1}
BAD: dict[str, tuple[Any, str, str]] = {
    "no id": ({"importId": None}, "importId", "must be a string"),
    "an empty id": ({"importId": ""}, "importId", "must not be empty"),
    "a digest with a control": ({"digest": "a\nb"}, "digest", "control characters"),
    "no total": ({"total": 0}, "total", "counts the rows"),
    "a first row after the last": ({"firstRow": 5}, "firstRow", "from 0 to 4"),
    "a first row below 0": ({"firstRow": -1}, "firstRow", "from 0 to 4"),
    "too many rows for the import": ({"total": 1, "rows": [ROW, {**ROW, "userId": "b"}]}, "rows", "not within the 1"),
    "no rows": ({"rows": []}, "rows", "1 to"),
    "too many rows": ({"rows": [ROW] * (bounds.IMPORT_PIECE_ROWS_MAX + 1)}, "rows", "1 to"),
    "rows that are none": ({"rows": "a"}, "rows", "must be an array"),
    "an unknown field": ({"mode": "sum"}, "mode", "Unknown field mode"),
    "a row that is none": ({"rows": [ROW, 5]}, "rows[1]", "must be an object"),
    "an unknown field of a row": ({"rows": [{**ROW, "points": 1}]}, "rows[0].points", "Unknown field points"),
    "a row without a score": ({"rows": [ROW, {"userId": "b"}]}, "rows[1].score", "score is missing"),
    "a score in quotes": ({"rows": [{**ROW, "score": "1"}]}, "rows[0].score", "must be a whole number"),
    "a score with a fraction": ({"rows": [{**ROW, "score": 1.5}]}, "rows[0].score", "must be a whole number"),
    "a score below 0": ({"rows": [{**ROW, "score": -1}]}, "rows[0].score", "not from 0 to"),
    "a score too high": ({"rows": [{**ROW, "score": 2**53}]}, "rows[0].score", "not from 0 to"),
    "a user twice": ({"rows": [ROW, ROW]}, "rows[1].userId", "as row 0 does"),
    "an empty user": ({"rows": [{**ROW, "userId": ""}]}, "rows[0].userId", "must not be empty"),
    "a name that shows nothing": ({"rows": [{**ROW, "displayName": " "}]}, "rows[0].displayName", "shows nothing"),
    "a time without a zone": ({"rows": [{**ROW, "reachedAt": "2025-01-01T00:00:00"}]}, "rows[0].reachedAt", "offset"),
    "a time to come": ({"rows": [{**ROW, "reachedAt": 2**43}]}, "rows[0].reachedAt", "between 1970 and now"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["json", "msgpack"])
@pytest.mark.parametrize("name", BAD)
async def test_a_fault_names_its_field_and_its_row(name: str, packed: bool) -> None:
    """And nothing of the piece is done."""
    change, field, says = BAD[name]
    async with open_bench(rules=Rules({})) as bench:
        await put(bench)
        body = {**piece(0, 1), **change}
        raw, headers = (msgspec.msgpack.encode(body), PACKED) if packed else (msgspec.json.encode(body), {})
        reply = await bench.ask("POST", PATH, raw=raw, token=ADMIN, headers=headers)
        assert (reply.status, reply.code) == (400, "INVALID_REQUEST"), reply
        assert reply.details["field"] == field
        assert says in reply.json["error"]["message"]
        assert bench.scoreboard.seq == 1


async def test_an_import_goes_on_only_as_it_began() -> None:
    """Another content, board or number of rows is another import, and needs another id."""
    async with open_bench(rules=Rules({})) as bench:
        await put(bench)
        assert (await bench.ask("PUT", "/boards/fair", {"points": {"WIN": 1}}, token=KEEPER)).status == 201
        await send(bench, piece(0, 2))
        for change in ({"digest": "e"}, {"total": 6}, {"merge": True}):
            refused = await send(bench, piece(2, 2) | change)
            assert (refused.status, refused.details) == (409, {"field": next(iter(change)), "rowsDone": 2})
        elsewhere = await bench.ask("POST", "/boards/fair/imports", piece(2, 2), token=ADMIN)
        assert (elsewhere.status, elsewhere.details["field"]) == (409, "boardId")
        assert (await bench.ask("GET", "/boards/fair/imports/old", token=ADMIN)).status == 404
        assert (await bench.ask("GET", "/boards/fair/imports", token=ADMIN)).json["imports"] == []


async def test_only_an_administrator_imports() -> None:
    """No other scope is enough, not even to look, and a token that names a user is not either."""
    async with open_bench(rules=Rules({})) as bench:
        await put(bench)
        for token, status in ((None, 401), (WRITER, 403), (KEEPER, 403)):
            assert (await bench.ask("POST", PATH, piece(0, 1), token=token)).status == status
            assert (await bench.ask("GET", PATH, token=token)).status == status
        named = await bench.ask("POST", PATH, piece(0, 1), token="Bearer root admin ann")
        assert (named.status, named.code) == (403, "UNAUTHORIZED")
        assert bench.scoreboard.seq == 1


async def test_the_rates_of_increments_do_not_apply() -> None:
    """Neither is an import refused by them, nor does it use them up for who imports."""
    async with open_bench(rules=Rules({}), per_minute=(3, 3)) as bench:
        await put(bench)
        for first in range(20):
            assert (await send(bench, piece(first, 1, 20))).status == 200
        won = {"userId": "user-1", "actionId": "w", "boardId": "cup", "reason": "WIN"}
        assert (await bench.ask("POST", "/scores/increment", won, token=ADMIN)).status == 200


async def test_the_log_of_the_process_says_who_imported_what() -> None:
    """The beginning and the end, not each piece."""
    async with open_bench(rules=Rules({})) as bench:
        await put(bench)
        for first in range(5):
            await send(bench, piece(first, 1))
        await send(bench, piece(0, 1, 1, importId="more", merge=True))
        told = [line for line in bench.lines if str(line["event"]).startswith("import_")]
        assert [(line["event"], line["import_id"], line["rows_done"], line["caller"]) for line in told] == [
            ("import_began", "old", 1, "root"), ("import_finished", "old", 5, "root"),
            ("import_finished", "more", 1, "root"),
        ]  # fmt: skip


async def test_one_piece_is_worked_on_at_a_time() -> None:
    """Others wait for their turn, and too many are told to come again; then nothing was done."""
    async with open_bench(rules=Rules({})) as bench:
        await put(bench)
        replies: list[Reply] = []

        async def ask(number: int) -> None:
            body = piece(0, 1, 1, importId=f"import {number}", merge=True)
            replies.append(await send(bench, body))

        count = bounds.IMPORT_PIECES_WAITING_MAX + 3
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(partial(ask, number))
        busy = [reply for reply in replies if reply.status != 200]
        assert len(busy) == 2
        assert all((reply.status, reply.code) == (503, "OVERLOADED") for reply in busy)
        assert all(reply.headers["retry-after"] == "1" for reply in busy)
        assert users(bench) == [("user-0", 7 * (count - 2))]
