"""The board's top, one user's score, the neighbours, receipts: what they say, what they cost, what they refuse."""

from __future__ import annotations

import threading
from pathlib import Path
from urllib.parse import quote

import pytest
import trio
import trio.testing

from engine.board import Board
from engine.disk import RealDisk
from engine.events import EpochBegun, Event
from engine.log import Log
from engine.ranking import Row
from engine.record import Frame
from server import bounds
from server.bounds import AROUND_LIMIT_MAX, TOP_LIMIT_MAX
from tests.server.api.support import READER, REGISTRAR, WRITER, Bench, both_ways, open_bench


async def fill(bench: Bench, users: int) -> None:
    """User `u0` has the most points."""
    for number in range(users):
        items: list[object] = [
            {"userId": f"u{number}", "actionId": f"{number}-{times}"} for times in range(users - number)
        ]
        await bench.ask("POST", "/scores/increment/batch", items, token=WRITER)


# The top


@both_ways
async def test_the_top_has_the_shape_of_the_specification(through_quart: bool) -> None:
    """Entries with rank and, where known, a display name; board, position and time beside them."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.ask("PUT", "/users/ann", {"displayName": "Ann"}, token=REGISTRAR)
        await bench.increment("bob", "b1")
        await bench.increment("ann", "a1")
        await bench.increment("ann", "a2")
        reply = await bench.ask("GET", "/scoreboard/top")
        assert reply.json == {
            "entries": [
                {"userId": "ann", "displayName": "Ann", "score": 20, "rank": 1},
                {"userId": "bob", "score": 10, "rank": 2},
            ],
            "generatedAt": "2025-12-15T12:34:56.000Z",
            "boardId": "main",
            "epoch": 1,
            "seq": 4,
            "history": 32 * "0",
        }


@both_ways
async def test_of_equal_scores_the_first_to_get_there_ranks_first(through_quart: bool) -> None:
    """Ties are settled by who reached the score first, and stay so."""
    async with open_bench(through_quart=through_quart) as bench:
        for user, action in (("cid", "1"), ("ann", "2"), ("bob", "3"), ("cid", "1")):
            await bench.increment(user, action)
        entries = (await bench.ask("GET", "/scoreboard/top")).json["entries"]
        assert [(entry["userId"], entry["rank"]) for entry in entries] == [("cid", 1), ("ann", 2), ("bob", 3)]


@both_ways
async def test_the_limit_chooses_how_many_rows(through_quart: bool) -> None:
    """Ten if nothing is said, up to fifty, as many as there are."""
    async with open_bench(through_quart=through_quart) as bench:
        await fill(bench, 12)
        for query, rows in (("", 10), ("?limit=1", 1), ("?limit=12", 12), (f"?limit={TOP_LIMIT_MAX}", 12)):
            entries = (await bench.ask("GET", f"/scoreboard/top{query}")).json["entries"]
            assert [entry["userId"] for entry in entries] == [f"u{number}" for number in range(rows)]


@both_ways
@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=51", "limit=-1", "limit=abc", "limit=", "limit=1.5", "limit=+5", "limit=%205", "limit=٣",
     "limit=5&limit=5", "limit=9999999999999999999999", "limit=010", "limit=1e1"],
)  # fmt: skip
async def test_a_limit_that_is_none_is_refused(query: str, through_quart: bool) -> None:
    """A whole number from 1 to 50, once; anything else is 400 naming `limit`."""
    async with open_bench(through_quart=through_quart) as bench:
        reply = await bench.ask("GET", "/scoreboard/top?" + quote(query, safe="=&%+.-"))
        assert (reply.status, reply.code, reply.details["field"]) == (400, "INVALID_REQUEST", "limit")


@both_ways
@pytest.mark.parametrize("query", ["boardId=none", "boardId=", "boardId=main&boardId=main", "boardId=%00"])
async def test_a_board_that_is_none_is_refused(query: str, through_quart: bool) -> None:
    """Wherever a board can be named, one that the configuration does not name is 400 naming `boardId`."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        for path in ("/scoreboard/top", "/scores/ann", "/scores/ann/around"):
            reply = await bench.ask("GET", f"{path}?{query}")
            assert (reply.status, reply.code, reply.details["field"]) == (400, "INVALID_REQUEST", "boardId")


UNKNOWN_PARAMETERS = [
    ("GET", "/scoreboard/top?offset=5"),
    ("GET", "/scoreboard/top?limit=3&offset=5"),
    ("GET", "/scores/ann?offset=5"),
    ("GET", "/scores/ann/around?offset=5"),
    ("GET", "/scores?userId=ann&offset=5"),
    ("GET", "/actions/a1?offset"),
    ("GET", "/ws/scoreboard?offset=5"),
    ("POST", "/scores/increment?offset=5"),
    ("POST", "/scores/increment/batch?offset=5"),
    ("PUT", "/users/ann?offset=5"),
    ("POST", "/replication/promote?offset=5"),
    ("GET", "/readyz?offset=5"),
]


@both_ways
async def test_unknown_parameters_are_refused_by_name(through_quart: bool) -> None:
    """A client that sends `offset` would take page one for another. `_` is passed over; pages take any parameter."""
    async with open_bench(through_quart=through_quart) as bench:
        assert (await bench.ask("GET", "/scoreboard/top?_=123&limit=5&_=4")).status == 200
        for method, path in UNKNOWN_PARAMETERS:
            reply = await bench.ask(method, path, {}, token="Bearer root admin")
            assert (reply.status, reply.code, reply.details["field"]) == (400, "INVALID_REQUEST", "offset"), path
            assert "offset" in reply.json["error"]["message"]
        for path in ("/", "/docs", "/console", "/openapi.json", "/healthz", "/metrics"):
            assert (await bench.ask("GET", f"{path}?offset=5")).status == 200


@both_ways
async def test_broken_queries_are_refused(through_quart: bool) -> None:
    """Bytes that are no text, or no end of fields."""
    async with open_bench(through_quart=through_quart) as bench:
        for query in ("x=%ff", "&".join(["a=b"] * 101)):
            reply = await bench.ask("GET", f"/scoreboard/top?{query}")
            assert (reply.status, reply.details) == (400, {"field": "query"})


@both_ways
async def test_boards_are_apart(through_quart: bool) -> None:
    """Points on one board show on that board alone, and leave the other's answer as it was."""
    async with open_bench(through_quart=through_quart) as bench:
        before = await bench.ask("GET", "/scoreboard/top")
        await bench.increment("ann", "a1", boardId="weekly")
        weekly = (await bench.ask("GET", "/scoreboard/top?boardId=weekly")).json
        assert [entry["score"] for entry in weekly["entries"]] == [1]
        after = await bench.ask("GET", "/scoreboard/top", headers={"if-none-match": before.headers["etag"]})
        assert after.status == 304


@both_ways
async def test_the_answer_is_kept_until_the_board_changes(through_quart: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked a hundred times, the board is looked at once; after a change, once more, whoever asks."""
    asked: list[int] = []
    top = Board.top

    def counted(board: Board, count: int) -> list[Row]:
        asked.append(count)
        return top(board, count)

    monkeypatch.setattr(Board, "top", counted)
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        first = [await bench.ask("GET", "/scoreboard/top") for _ in range(20)]
        assert asked == [10]
        assert len({reply.body for reply in first}) == 1
        await bench.increment("ann", "a1")
        await bench.ask("GET", "/scoreboard/top")
        assert asked == [10], "a duplicate changes nothing"
        await bench.increment("ann", "a2")
        bench.now_s += 1
        second = await bench.ask("GET", "/scoreboard/top")
        assert asked == [10, 10]
        assert (second.json["seq"], second.json["generatedAt"]) == (2, "2025-12-15T12:34:57.000Z")
        await bench.ask("PUT", "/users/ann", {"displayName": "Ann"}, token=REGISTRAR)
        assert (await bench.ask("GET", "/scoreboard/top")).json["entries"][0]["displayName"] == "Ann"


@both_ways
async def test_who_has_the_newest_rows_is_not_sent_them_again(through_quart: bool) -> None:
    """304 for the ETag of now, alone, weak or strong, in a list, or for `*`; 200 for any other, or once it changed."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        etag = (await bench.ask("GET", "/scoreboard/top")).headers["etag"]
        assert etag == 'W/"1-0000000000000000-1-10"'
        for matching in (etag, '"1-0000000000000000-1-10"', f'"x", {etag} ,"y"', "*", " * "):
            reply = await bench.ask("GET", "/scoreboard/top", headers={"if-none-match": matching})
            assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", etag)
            assert "content-length" not in reply.headers
        for other in (
            '"1-0000000000000000-1-5"',
            "1-0000000000000000-1-10",
            'W/"1-0000000000000000-0-10"',
            'W/"1-1-10"',
            "",
        ):
            assert (await bench.ask("GET", "/scoreboard/top", headers={"if-none-match": other})).status == 200
        assert (await bench.ask("GET", "/scoreboard/top?limit=5", headers={"if-none-match": etag})).status == 200
        await bench.increment("ann", "a2")
        assert (await bench.ask("GET", "/scoreboard/top", headers={"if-none-match": etag})).status == 200


async def test_a_new_epoch_makes_every_answer_new() -> None:
    """After a restore the same seq may have stood for other rows: nobody is told that what they have is still right."""
    async with open_bench() as bench:
        await bench.increment("ann", "a1")
        etag = (await bench.ask("GET", "/scoreboard/top")).headers["etag"]
        bench.scoreboard.apply(EpochBegun(seq=2, time_ms=bench.clock_ms(), epoch=2, note="restored"), 2)
        reply = await bench.ask("GET", "/scoreboard/top", headers={"if-none-match": etag})
        assert (reply.status, reply.json["epoch"]) == (200, 2)
        assert reply.headers["etag"] == f'W/"2-{bench.scoreboard.mark.history[:16]}-1-10"'
        assert (await bench.ask("GET", "/scores/ann")).json["epoch"] == 2
        bench.log.first_seq = 3
        assert (await bench.ask("GET", "/actions/a1", token=READER)).json["epoch"] == 1, "it was written in the first"


# One user


@both_ways
async def test_a_score_is_told_with_rank_and_time(through_quart: bool) -> None:
    """The time is that of the last points; the name is there once it is known."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("bob", "b1", reason="WON")
        bench.now_s += 1.5
        await bench.increment("ann", "a1")
        bench.now_s += 60
        expected = {
            "userId": "ann",
            "boardId": "main",
            "score": 10,
            "rank": 2,
            "count": 2,
            "percentile": 0.0,
            "gapToNext": 90,
            "updatedAt": "2025-12-15T12:34:57.500Z",
            "epoch": 1,
            "seq": 2,
        }
        assert (await bench.ask("GET", "/scores/ann")).json == expected
        await bench.ask("PUT", "/users/ann", {"displayName": "Ann"}, token=REGISTRAR)
        assert (await bench.ask("GET", "/scores/ann")).json == {**expected, "displayName": "Ann", "seq": 3}


@both_ways
async def test_a_user_without_a_score_is_not_found(through_quart: bool) -> None:
    """404, also for one who is registered, and on a board where others have points."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        await bench.ask("PUT", "/users/bob", {"active": True}, token=REGISTRAR)
        for path in ("/scores/bob", "/scores/bob/around", "/scores/ann?boardId=weekly"):
            reply = await bench.ask("GET", path)
            assert (reply.status, reply.code) == (404, "NOT_FOUND")


@both_ways
async def test_ids_with_slashes_are_found(through_quart: bool) -> None:
    """A slash in an id is sent as %2F, and is never taken for a part of the path; nor is a known word."""
    async with open_bench(through_quart=through_quart) as bench:
        for user in ("a/b", "a/around", "increment", "ü"):
            await bench.increment(user, f"of {user}")
        for path, user in (
            ("/scores/a%2Fb", "a/b"),
            ("/scores/a%2Faround", "a/around"),
            ("/scores/a%2Fb/around", "a/b"),
            ("/scores/%69ncrement", "increment"),
            ("/scores/%C3%BC", "ü"),
        ):
            reply = await bench.ask("GET", path)
            assert (reply.status, reply.json["userId"]) == (200, user)
        assert (await bench.ask("GET", "/actions/of%20a%2Fb", token=READER)).json["receipt"]["userId"] == "a/b"
        assert (await bench.ask("GET", "/scores/a/b")).status == 404


@both_ways
async def test_the_neighbours_are_those_above_and_below(through_quart: bool) -> None:
    """`limit` on each side, more on one side at the ends; the user in the middle."""
    async with open_bench(through_quart=through_quart) as bench:
        await fill(bench, 12)
        for path, first, last in (
            ("/scores/u6/around?limit=2", 4, 8),
            ("/scores/u6/around", 1, 11),
            ("/scores/u0/around?limit=1", 0, 2),
            ("/scores/u1/around?limit=2", 0, 4),
            ("/scores/u11/around?limit=3", 5, 11),
            (f"/scores/u6/around?limit={AROUND_LIMIT_MAX}", 0, 11),
        ):
            reply = await bench.ask("GET", path)
            rows = [(entry["userId"], entry["rank"]) for entry in reply.json["entries"]]
            assert rows == [(f"u{number}", number + 1) for number in range(first, last + 1)]
        assert set(reply.json) == {"boardId", "userId", "entries", "epoch", "seq", "generatedAt"}
        for query in ("limit=0", f"limit={AROUND_LIMIT_MAX + 1}", "limit=x"):
            assert (await bench.ask("GET", f"/scores/u6/around?{query}")).details["field"] == "limit"


@both_ways
async def test_an_inactive_user_has_a_score_but_no_neighbours(through_quart: bool) -> None:
    """Off the board, but not forgotten, for who may read."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        await bench.ask("PUT", "/users/ann", {"active": False}, token=REGISTRAR)
        reply = await bench.ask("GET", "/scores/ann", token=READER)
        assert (reply.json["score"], reply.headers["cache-control"]) == (10, "no-store")
        reply = await bench.ask("GET", "/scores/ann/around", token=READER)
        assert (reply.status, reply.json["entries"], reply.headers["cache-control"]) == (200, [], "no-store")


@both_ways
@pytest.mark.parametrize("target", ["/scores/{}", "/scores/{}/around", "/scores?userId={}", "/scores/around?userId={}"])
async def test_an_inactive_user_is_not_public(target: str, through_quart: bool) -> None:
    """Without a token that may read, the answer is that of a user who does not exist; active again, it is public."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        await bench.ask("PUT", "/users/ann", {"displayName": "Ann", "active": False}, token=REGISTRAR)
        for token in (None, REGISTRAR):
            hidden = await bench.ask("GET", target.format("ann"), token=token)
            unknown = await bench.ask("GET", target.format("abc"), token=token)
            assert hidden.status == unknown.status == 404
            assert hidden.body.replace(b"ann", b"abc") == unknown.body
            assert {**hidden.headers, "x-request-id": ""} == {**unknown.headers, "x-request-id": ""}
        for token in (READER, WRITER, "Bearer root admin"):
            assert (await bench.ask("GET", target.format("ann"), token=token)).status == 200
        await bench.ask("PUT", "/users/ann", {"active": True}, token=REGISTRAR)
        assert (await bench.ask("GET", target.format("ann"))).status == 200


@both_ways
async def test_an_id_may_stand_in_the_query(through_quart: bool) -> None:
    """Proxies decode %2F in a path. In a query a slash needs no encoding, and the answer is the same."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("a/b", "order/1")
        put = await bench.ask("PUT", "/users?userId=a/b", {"displayName": "Ab"}, token=REGISTRAR)
        assert (put.status, put.json["userId"], put.json["displayName"]) == (200, "a/b", "Ab")
        for path, query in (
            ("/scores/a%2Fb", "/scores?userId=a/b"),
            ("/scores/a%2Fb?boardId=main", "/scores?boardId=main&userId=a%2Fb"),
            ("/scores/a%2Fb/around?limit=2", "/scores/around?userId=a/b&limit=2"),
            ("/actions/order%2F1", "/actions?actionId=order/1"),
        ):
            one, other = [await bench.ask("GET", target, token=READER) for target in (path, query)]
            assert (one.status, one.body) == (200, other.body)
            assert (await bench.ask("HEAD", query, token=READER)).status == 200


@both_ways
async def test_an_id_in_the_query_is_checked(through_quart: bool) -> None:
    """It is needed, once, and an id. The user `around` stays where that user was."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("around", "a1")
        assert (await bench.ask("GET", "/scores/around")).json["userId"] == "around"
        for query in ("", "?boardId=main", "?userId=", "?userId=a&userId=b", "?userId=%00", "?userId=" + "x" * 129):
            for method, path in (("GET", "/scores"), ("PUT", "/users")):
                reply = await bench.ask(method, path + query.replace("boardId=main", "_=1"), {}, token=REGISTRAR)
                assert (reply.status, reply.details["field"]) == (400, "userId")


# Actions


@both_ways
async def test_an_action_that_was_applied_has_its_receipt(through_quart: bool) -> None:
    """As it was then, read back from the log, whatever has happened since."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1", reason="WON")
        bench.now_s += 5
        await bench.increment("ann", "a2")
        reply = await bench.ask("GET", "/actions/a1", token=WRITER)
        assert (reply.status, reply.json) == (
            200,
            {
                "actionId": "a1",
                "applied": True,
                "epoch": 1,
                "seq": 1,
                "receipt": {
                    "userId": "ann",
                    "boardId": "main",
                    "delta": 100,
                    "newScore": 100,
                    "reason": "WON",
                    "caller": "backend",
                    "epoch": 1,
                    "seq": 1,
                    "time": "2025-12-15T12:34:56.000Z",
                },
                "receiptStatus": "KEPT",
            },
        )


@both_ways
async def test_an_action_whose_receipt_is_gone_is_still_known(through_quart: bool) -> None:
    """Once the log no longer goes back so far, the position is all there is, and a word says why."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        await bench.increment("ann", "a2")
        bench.log.first_seq = 2
        reply = await bench.ask("GET", "/actions/a1", token=READER)
        expected = {"actionId": "a1", "applied": True, "epoch": 1, "seq": 1}
        assert reply.json == {**expected, "receipt": None, "receiptStatus": "NO_LONGER_KEPT"}
        assert (await bench.ask("GET", "/actions/a2", token=READER)).json["receiptStatus"] == "KEPT"


@both_ways
async def test_an_action_that_was_never_applied_is_not_found(through_quart: bool) -> None:
    """404 means: it is safe to say that it did not count; a refused one is no exception."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1", reason="NONSENSE")
        reply = await bench.ask("GET", "/actions/a1", token=READER)
        assert (reply.status, reply.code, reply.details) == (404, "NOT_FOUND", {"actionId": "a1"})
        reply = await bench.ask("GET", "/actions/%0A", token=READER)
        assert (reply.status, reply.details) == (400, {"field": "actionId"})


async def test_receipts_are_read_beside_the_event_loop_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """While slow reads go on, others are answered; too many at once are told to come back."""
    monkeypatch.setattr(bounds, "RECEIPT_WAITERS_MAX", 2)
    async with open_bench() as bench:
        await bench.increment("ann", "a1")
        bench.log.blocks = True
        gate = threading.Event()
        running: list[int] = []
        event_at = bench.log.event_at

        def slow(seq: int) -> tuple[Frame, Event]:
            running.append(seq)
            assert gate.wait(30)
            return event_at(seq)

        monkeypatch.setattr(bench.log, "event_at", slow)
        statuses: list[int] = []

        async def ask() -> None:
            statuses.append((await bench.ask("GET", "/actions/a1", token=READER)).status)

        async with trio.open_nursery() as nursery:
            for _ in range(bounds.RECEIPT_READERS_MAX + 2):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            assert (await bench.ask("GET", "/scores/ann")).status == 200
            refused = await bench.ask("GET", "/actions/a1", token=READER)
            assert (refused.status, refused.code) == (503, "OVERLOADED")
            assert len(running) <= bounds.RECEIPT_READERS_MAX
            gate.set()
        assert statuses == [200] * (bounds.RECEIPT_READERS_MAX + 2)


async def test_a_receipt_comes_from_the_log_on_disk(tmp_path: Path) -> None:
    """With a real log in a real directory: what was written is what is read back."""
    disk = RealDisk()
    disk.make_directory(str(tmp_path))
    log = Log.create(disk, str(tmp_path), log_id=bytes(16))
    try:
        async with open_bench(real_log=log) as bench:
            for number in range(3):
                await bench.increment("ann", f"a{number}")
            reply = await bench.ask("GET", "/actions/a1", token=READER)
            assert (reply.json["receiptStatus"], reply.json["receipt"]["newScore"]) == ("KEPT", 20)
    finally:
        log.close()
