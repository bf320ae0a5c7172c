"""Boards over HTTP: make, change, list, close and reset them; who may, and what each refusal says.

Freezes are in `test_freeze`, past periods in `test_past_periods`.
"""

from __future__ import annotations

from typing import Any

import pytest

from engine.board_rules import Rules
from engine.calendar import tz_version
from engine.events import BoardClosed, BoardPut, PeriodChanged
from server import bounds
from server.api.routes import ROUTES
from server.replication.freshness import LagFigures
from server.replication.sharding import Shard
from server.role import Role, State
from tests.server.api.support import ADMIN, KEEPER, READER, REGISTRAR, WRITER, Bench, Reply, both_ways, open_bench

WEEKLY = {"points": {"WIN": 10}, "period": {"every": "week", "zone": "Europe/Berlin"}}
"""2025-12-15 is a Monday."""
WEEK = {"period": "2025-W51", "startsAt": "2025-12-14T23:00:00.000Z", "endsAt": "2025-12-21T23:00:00.000Z"}
PUBLIC = {"boardId", "title", "score", "order", "ranks", "startsAt", "endsAt"}
PUBLIC |= {"over", "closed", "count", "epoch", "seq"}
NO_FILE = Rules({})
"""No boards of a file, which would have to be in the log before others."""
DAY_S = 86_400


async def put(bench: Bench, board_id: str, body: object, token: str | None = KEEPER) -> Reply:
    return await bench.ask("PUT", f"/boards/{board_id}", body, token=token)


async def win(bench: Bench, user_id: str, action_id: str, **more: object) -> Reply:
    return await bench.increment(user_id, action_id, reason="WIN", **more)


# Making and changing


@both_ways
async def test_a_board_is_made_changed_and_left_alone(through_quart: bool) -> None:
    """201, 200, and 200 with `applied: false`: the same request may be sent again."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:
        made = await put(bench, "cup", WEEKLY)
        assert made.status == 201
        rules = {"title": "", "score": "sum", "order": "descending", "ranks": "unique", "keep_periods": 52, "feeds": []}
        assert made.json == {
            "boardId": "cup", "title": "", "score": "sum", "order": "descending", "ranks": "unique", **WEEK,
            "over": False, "closed": False, "count": 0, "epoch": 1, "seq": 1,
            "rules": {**rules, "points": {"WIN": 10}, "period": WEEKLY["period"]},
            "tzdata": tz_version("Europe/Berlin"), "applied": True,
        }  # fmt: skip
        again = await put(bench, "cup", WEEKLY)
        assert (again.status, again.json) == (200, {**made.json, "applied": False})
        await win(bench, "ann", "a1", boardId="cup")
        changed = await put(bench, "cup", {**WEEKLY, "title": "Cup", "keep_periods": None})
        assert (changed.status, changed.json["title"], changed.json["count"]) == (200, "Cup", 1)
        assert (changed.json["applied"], changed.json["seq"]) == (True, 3)
        told = [(line["what"], line["board_id"], line["seq"], line["caller"]) for line in bench.told("board_changed")]
        assert told == [("made", "cup", 1, "keeper"), ("changed", "cup", 3, "keeper")]
        assert bench.metrics.value("scoreboard_updates_total", result="unchanged") == 1
    assert [event.caller for event in bench.log.events if isinstance(event, BoardPut)] == ["keeper"] * 2


async def test_what_is_told_as_rules_can_be_put() -> None:
    """It is the form of a PUT, with its defaults. It changes nothing."""
    season = {"starts": "2026-01-01T00:00:00+01:00", "ends": "2026-02-01T00:00:00.5Z"}
    for period in (None, season, {"every": "cron", "cron": "0 18 * * 5"}, {"every": "month", "at": "1 06:00"}):
        async with open_bench(rules=NO_FILE) as bench:
            made = await put(bench, "cup", {"points": {"LAP": {"min": 1, "max": 9}, "LATE": -5}, "period": period})
            again = await put(bench, "cup", made.json["rules"])
            assert (made.status, again.status, again.json["applied"]) == (201, 200, False)
            assert again.json["rules"] == made.json["rules"]


@both_ways
async def test_an_id_with_a_slash_has_two_ways(through_quart: bool) -> None:
    """Encoded in the path, or plain in the query."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:
        assert (await put(bench, "a%2Fb", WEEKLY)).status == 201
        for method, target, body in (
            ("PUT", "/boards?boardId=a/b", WEEKLY), ("GET", "/boards?boardId=a/b", None),
            ("POST", "/boards/freeze?boardId=a/b", None), ("POST", "/boards/reveal?boardId=a/b", None),
            ("POST", "/boards/unfreeze?boardId=a/b", None), ("POST", "/boards/reset?boardId=a/b", None),
            ("GET", "/boards/periods?boardId=a/b", None), ("DELETE", "/boards?boardId=a/b", None),
        ):  # fmt: skip
            reply = await bench.ask(method, target, body, token=KEEPER)
            assert (reply.status, reply.json["boardId"]) == (200, "a/b"), method
        for method, target in (
            ("PUT", "/boards"), ("DELETE", "/boards"), ("GET", "/boards?boardId="), ("POST", "/boards/reset"),
            ("POST", "/boards/freeze"), ("POST", "/boards/unfreeze"), ("POST", "/boards/reveal"),
            ("GET", "/boards/periods?boardId="),
        ):  # fmt: skip
            reply = await bench.ask(method, target, WEEKLY, token=KEEPER)
            assert (reply.status, reply.details["field"]) == (400, "boardId")
        for verb in ("reset", "freeze", "unfreeze", "reveal", "periods"):
            reply = await bench.ask("PUT", f"/boards/{verb}", WEEKLY, token=KEEPER)
            assert (reply.status, reply.json["boardId"]) == (201, verb), "a board may have that name"
            assert (await bench.ask("GET", f"/boards/{verb}")).json["boardId"] == verb


REFUSED: list[tuple[object, str]] = [
    ({}, "points"),
    ([], "body"),
    ({**WEEKLY, "keepPeriods": 3}, "keepPeriods"),
    ({"points": {"LAP": 0}}, "points.LAP"),
    ({"points": {"LAP": {"min": 9, "max": 1}}}, "points.LAP"),
    ({"points": {"LAP": 1.5}}, "points.LAP"),
    ({**WEEKLY, "period": {"every": "week", "zone": "Mars/Base"}}, "period.zone"),
    ({**WEEKLY, "period": {"every": "week", "starts": "2026-01-01T00:00:00Z"}}, "period.starts"),
    ({**WEEKLY, "period": {"starts": "2026-01-01T00:00:00"}}, "period.starts"),
    ({**WEEKLY, "period": {"ends": "2025-01-01T00:00:00Z"}}, "period.ends"),
    ({**WEEKLY, "feeds": ["nowhere"]}, "feeds"),
    ({**WEEKLY, "feeds": ["cup"]}, "feeds"),
    ({**WEEKLY, "title": "\u3164"}, "title"),
]


@both_ways
async def test_a_form_that_is_not_allowed_names_its_field(through_quart: bool) -> None:
    """It is charged to nobody, and logged nowhere."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart, per_minute=(len(REFUSED), 600)) as bench:
        for body, field in REFUSED:
            reply = await put(bench, "cup", body)
            assert (reply.status, reply.code, reply.details["field"]) == (400, "INVALID_REQUEST", field)
        for raw in (b"", b"{", b"\xff", b"[" * 5_000):
            assert (await bench.ask("PUT", "/boards/cup", raw=raw, token=KEEPER)).details["field"] == "body"
        csv = await bench.ask("PUT", "/boards/cup", WEEKLY, token=KEEPER, headers={"content-type": "text/csv"})
        assert csv.details["field"] == "Content-Type"
        assert bench.log.events == []


async def test_long_names_are_cut_in_a_refusal() -> None:
    """A megabyte of a reason does not come back as the field."""
    async with open_bench(rules=NO_FILE) as bench:
        reply = await put(bench, "cup", {"points": {"x" * 10**6: 1}})
        assert len(reply.details["field"]) == bounds.QUOTED_CHARACTERS_MAX + 1


async def test_how_scores_grow_stays_while_there_are_scores() -> None:
    """409 names the field; points may change."""
    async with open_bench(rules=NO_FILE) as bench:
        await put(bench, "cup", WEEKLY)
        await win(bench, "ann", "a1", boardId="cup")
        for change in ({"score": "best"}, {"order": "ascending"}):
            reply = await put(bench, "cup", {**WEEKLY, **change})
            assert (reply.status, reply.code, reply.details["field"]) == (409, "CONFLICT", next(iter(change)))
        assert (await put(bench, "cup", {**WEEKLY, "points": {"WIN": 20}})).status == 200
        assert (await win(bench, "ann", "a2", boardId="cup")).json["newScore"] == 30


async def test_there_is_a_largest_number_of_boards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known ones can still be changed."""
    monkeypatch.setattr(bounds, "BOARDS_MAX", 2)
    async with open_bench() as bench:
        await bench.log_boards()
        reply = await put(bench, "cup", WEEKLY)
        assert (reply.status, reply.code, reply.details) == (409, "CONFLICT", {"field": "boardId", "maximum": 2})
        assert (await put(bench, "weekly", WEEKLY)).status == 200


# Reading


@both_ways
async def test_who_may_sees_the_rules_and_others_what_is_public(through_quart: bool) -> None:
    """Without a token, with one of no use here, and with one that does not verify."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.log_boards()
        await put(bench, "cup", WEEKLY)
        for token in (None, WRITER, REGISTRAR):
            one, all_ = [await bench.ask("GET", path, token=token) for path in ("/boards/cup", "/boards")]
            assert set(one.json) == PUBLIC | {"period"}
            assert [set(each) for each in all_.json["boards"]] == [PUBLIC | {"period"}, PUBLIC, PUBLIC]
            assert one.headers["cache-control"] == "no-cache"
        for token in (READER, KEEPER, ADMIN):
            one, all_ = [await bench.ask("GET", path, token=token) for path in ("/boards/cup", "/boards")]
            assert set(one.json) == PUBLIC | {"period", "rules", "tzdata"}
            assert all_.json["boards"][0] == one.json
            assert set(all_.json["boards"][1]) == PUBLIC | {"rules"}
            assert one.headers["cache-control"] == all_.headers["cache-control"] == "no-store"
        assert [board["boardId"] for board in all_.json["boards"]] == ["cup", "main", "weekly"]
        assert (all_.json["epoch"], all_.json["seq"]) == (1, 3)


@both_ways
async def test_where_reads_are_not_public_a_token_is_needed(through_quart: bool) -> None:
    """Any that may read, or that may write boards."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart, public_reads=False) as bench:
        await put(bench, "cup", WEEKLY)
        for path in ("/boards", "/boards/cup"):
            for token, status in ((None, 401), (REGISTRAR, 403), (WRITER, 200), (READER, 200), (KEEPER, 200)):
                assert (await bench.ask("GET", path, token=token)).status == status
        assert set((await bench.ask("GET", "/boards/cup", token=WRITER)).json) == PUBLIC | {"period"}


async def test_pages_of_other_sites_may_read_but_not_write() -> None:
    """As with the other public reads."""
    async with open_bench(rules=NO_FILE, origins={"https://a.example"}) as bench:
        await put(bench, "cup", WEEKLY)
        headers = {"origin": "https://a.example"}
        for path in ("/boards", "/boards/cup"):
            reply = await bench.ask("GET", path, headers=headers)
            assert reply.headers["access-control-allow-origin"] == "https://a.example"
            for method, allowed in (("GET", "GET, HEAD"), ("PUT", None), ("DELETE", None)):
                wanted = {**headers, "access-control-request-method": method}
                preflight = await bench.ask("OPTIONS", path, headers=wanted)
                assert preflight.headers.get("access-control-allow-methods") == allowed
            assert preflight.headers["allow"] == "GET, PUT, DELETE, HEAD, OPTIONS"
        assert "access-control-allow-origin" not in (await put(bench, "cup", WEEKLY)).headers
        assert (await bench.ask("HEAD", "/boards/cup")).body == b""
        assert (await bench.ask("POST", "/boards/cup")).headers["allow"] == "GET, PUT, DELETE, HEAD, OPTIONS"


async def test_what_is_not_there_is_not_found() -> None:
    """On the routes of boards. An increment names its unknown board as before: 400."""
    async with open_bench() as bench:
        await bench.log_boards()
        verbs = [("POST", f"/{verb}") for verb in ("reset", "freeze", "unfreeze", "reveal")]
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/periods"), *verbs):
            reply = await bench.ask(method, f"/boards/nowhere{path}", token=KEEPER)
            assert (reply.status, reply.code, reply.details["boardId"]) == (404, "NOT_FOUND", "nowhere")
        reply = await bench.increment("ann", "a1", boardId="nowhere")
        assert (reply.status, reply.details["field"]) == (400, "boardId")
        assert (await bench.ask("GET", "/boards?x=1")).details["field"] == "x"
        assert (await bench.ask("GET", "/boards/cup?boardId=main")).details["field"] == "boardId"


async def test_a_read_can_wait_for_a_position() -> None:
    """With the position of the answer to PUT, on any node."""
    async with open_bench(rules=NO_FILE) as bench:
        seq = (await put(bench, "cup", WEEKLY)).json["seq"]
        assert (await bench.ask("GET", f"/boards/cup?minSeq={seq}&minEpoch=1")).status == 200
        assert (await bench.ask("GET", "/boards?minSeq=x")).details["field"] == "minSeq"


# Closing and resetting


@both_ways
async def test_a_closed_board_can_only_be_read(through_quart: bool) -> None:
    """410 for each write, for ever; closing it again changes nothing."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:
        await put(bench, "cup", WEEKLY)
        await win(bench, "ann", "a1", boardId="cup")
        closed = await bench.ask("DELETE", "/boards/cup", token=KEEPER)
        assert closed.status == 200
        assert (closed.json["closed"], closed.json["applied"], closed.json["seq"]) == (True, True, 3)
        again = await bench.ask("DELETE", "/boards/cup", token=KEEPER)
        assert (again.status, again.json) == (200, {**closed.json, "applied": False})
        for reply in (
            await put(bench, "cup", WEEKLY),
            await bench.ask("POST", "/boards/cup/reset", token=KEEPER),
            await win(bench, "ann", "a2", boardId="cup"),
        ):
            assert (reply.status, reply.code, reply.details["boardId"]) == (410, "BOARD_CLOSED", "cup")
        assert (await win(bench, "ann", "a1", boardId="cup")).json["applied"] is False
        assert (await bench.ask("GET", "/scores/ann?boardId=cup")).json["score"] == 10
        assert (await bench.ask("GET", "/boards/cup")).json["closed"] is True
        assert len([event for event in bench.log.events if isinstance(event, BoardClosed)]) == 1


@both_ways
async def test_a_reset_ends_the_running_period_once(through_quart: bool) -> None:
    """Named, a second one does no harm. Without a name it ends whatever runs."""
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:
        await put(bench, "cup", WEEKLY)
        await win(bench, "ann", "a1", boardId="cup")
        bench.now_s += 60
        reset = await bench.ask("POST", "/boards/cup/reset", {"period": "2025-W51"}, token=KEEPER)
        assert reset.status == 200
        assert (reset.json["period"], reset.json["count"], reset.json["applied"]) == ("2025-W51.2", 0, True)
        assert (reset.json["startsAt"], reset.json["endsAt"]) == ("2025-12-15T12:35:56.000Z", WEEK["endsAt"])
        again = await bench.ask("POST", "/boards/cup/reset", {"period": "2025-W51"}, token=KEEPER)
        assert (again.status, again.code, again.details) == (409, "CONFLICT", {"field": "period", "boardId": "cup"})
        for body in (None, {}, {"period": None}):
            assert (await bench.ask("POST", "/boards/cup/reset", body, token=KEEPER)).status == 200
        for bad, field in (({"periods": "x"}, "periods"), ({"period": 5}, "period"), ([], "body")):
            reply = await bench.ask("POST", "/boards/cup/reset", bad, token=KEEPER)
            assert (reply.status, reply.details["field"]) == (400, field)
        assert len([event for event in bench.log.events if isinstance(event, PeriodChanged)]) == 4


async def test_an_action_of_an_earlier_period_can_be_sent_again() -> None:
    """It counted, and counts no more. The score and the rank are those of now: none yet."""
    async with open_bench(rules=NO_FILE) as bench:
        await put(bench, "cup", WEEKLY)
        first = await win(bench, "ann", "a1", boardId="cup")
        bench.now_s += 7 * DAY_S
        again = await win(bench, "ann", "a1", boardId="cup")
        told = {"applied": False, "delta": 0, "newScore": 0, "rank": None, "previousRank": None}
        assert (again.status, again.json) == (200, {**first.json, **told})
        assert (await win(bench, "ann", "a2", boardId="cup")).json["newScore"] == 10


async def test_a_period_that_lost_its_rules_can_be_reset() -> None:
    """Without rules it goes on for ever. A reset ends it, and the board goes on without periods."""
    async with open_bench(rules=NO_FILE) as bench:
        await put(bench, "cup", WEEKLY)
        endless = await put(bench, "cup", {"points": {"WIN": 10}})
        assert (endless.json["period"], endless.json["endsAt"]) == ("2025-W51", None)
        await win(bench, "ann", "a1", boardId="cup")
        for _ in range(2):
            reset = await bench.ask("POST", "/boards/cup/reset", token=KEEPER)
            assert (reset.status, reset.json["count"]) == (200, 0)
            assert "period" not in reset.json
        assert (await win(bench, "ann", "a2", boardId="cup")).json["newScore"] == 10


async def test_a_season_opens_and_is_over() -> None:
    """Before it 409 with the time; after it 410; both at the beginning and the end as they were put."""
    season = {"starts": "2025-12-16T00:00:00Z", "ends": "2025-12-17T00:00:00Z"}
    async with open_bench(rules=NO_FILE) as bench:
        made = await put(bench, "cup", {"points": {"WIN": 10}, "period": season})
        assert made.json["period"] == "2025-12-16"
        assert "tzdata" not in made.json
        for reply in (
            await win(bench, "ann", "a1", boardId="cup"),
            await bench.ask("POST", "/boards/cup/reset", token=KEEPER),
        ):
            assert (reply.status, reply.code) == (409, "BOARD_NOT_OPEN")
            assert reply.details == {"field": "boardId", "boardId": "cup", "startsAt": "2025-12-16T00:00:00.000Z"}
        bench.now_s += DAY_S
        assert (await win(bench, "ann", "a1", boardId="cup")).status == 200
        bench.now_s += DAY_S
        reply = await win(bench, "ann", "a2", boardId="cup")
        assert (reply.status, reply.code) == (410, "BOARD_CLOSED")
        told = (await bench.ask("GET", "/boards/cup")).json
        assert (told["over"], told["closed"], told["count"]) == (True, False, 1)
        assert (told["startsAt"], told["endsAt"]) == ("2025-12-16T00:00:00.000Z", "2025-12-17T00:00:00.000Z")


# Who may, and where


async def test_writes_need_their_scope_and_are_charged_to_the_caller() -> None:
    """A token without it is told which; the limit is that of the caller's other writes."""
    writes: list[tuple[str, str, Any]] = [
        ("PUT", "/boards/cup", WEEKLY), ("DELETE", "/boards/cup", None), ("POST", "/boards/cup/reset", None),
        ("PUT", "/boards?boardId=cup", WEEKLY), ("DELETE", "/boards?boardId=cup", None),
        *[("POST", f"/boards/cup/{verb}", None) for verb in ("freeze", "unfreeze", "reveal")],
        *[("POST", f"/boards/{verb}?boardId=cup", None) for verb in ("reset", "freeze", "unfreeze", "reveal")],
    ]  # fmt: skip
    async with open_bench(rules=NO_FILE, per_minute=(1, 600)) as bench:
        assert {(method, target.partition("?")[0].replace("cup", "{boardId}")) for method, target, _ in writes} == {
            (route.method, route.path) for route in ROUTES if route.scopes == ("boards:write",)
        }
        await put(bench, "cup", WEEKLY)
        for method, target, body in writes:
            assert (await bench.ask(method, target, body)).status == 401
            reply = await bench.ask(method, target, body, token="Bearer x scores:write,scores:read,users:write")
            assert (reply.status, reply.details) == (403, {"anyOf": ["boards:write"]})
            limited = await bench.ask(method, target, body, token=KEEPER)
            assert (limited.status, limited.details["limit"]) == (429, "caller")
        assert len(bench.log.events) == 1


async def test_a_replica_sends_writes_on_and_tells_its_lag() -> None:
    """As with all other writes and reads."""
    async with open_bench(rules=NO_FILE) as bench:
        await put(bench, "cup", WEEKLY)
        bench.role._set(Role(State.FOLLOWING, leader="https://leader", public_url="https://leader.example"))
        bench.freshness.figures = LagFigures(3, 7, 9, connected=True)
        verbs = [("POST", f"/boards/cup/{verb}") for verb in ("reset", "freeze", "unfreeze", "reveal")]
        for method, path in (("PUT", "/boards/cup"), ("DELETE", "/boards/cup"), *verbs):
            reply = await bench.ask(method, path, WEEKLY, token=KEEPER)
            assert (reply.status, reply.headers["location"]) == (307, f"https://leader.example{path}")
        for path in ("/boards", "/boards/cup", "/boards/nowhere", "/boards/cup/periods"):
            assert (await bench.ask("GET", path)).headers["x-scoreboard-lag-records"] == "3"


async def test_a_shard_lists_the_boards_that_it_holds() -> None:
    """And says of another which shard has it, whether or not there is one of that name."""
    async with open_bench(rules=NO_FILE) as bench:
        for n in range(8):
            await put(bench, f"cup-{n}", WEEKLY)
        shard = bench.checks._shard = Shard(1, 2)
        held = [f"cup-{n}" for n in range(8) if shard.holds(f"cup-{n}")]
        other = next(f"cup-{n}" for n in range(8) if not shard.holds(f"cup-{n}"))
        assert [each["boardId"] for each in (await bench.ask("GET", "/boards")).json["boards"]] == held
        assert 0 < len(held) < 8
        for path in (f"/boards/{other}", f"/boards/{other}/periods", f"/scoreboard/top?boardId={other}"):
            for there in (True, False):
                if not there:
                    bench.scoreboard.boards.pop(other, None)
                reply = await bench.ask("GET", path)
                assert (reply.status, reply.code, reply.details["shard"]) == (421, "WRONG_SHARD", "2/2")


# A season in requests


@both_ways
async def test_a_weekly_board_that_feeds_all_time_is_run_over_http(through_quart: bool) -> None:
    """Made, played with points that a judge chose, changed by the clock, reset by hand, closed."""
    judge = "Bearer judge scores:write,scores:value"
    points = {"WIN": 10, "LATE": -5, "LAP": {"min": 1, "max": 100}}
    async with open_bench(rules=NO_FILE, through_quart=through_quart) as bench:

        async def play(user_id: str, action_id: str, reason: str, **more: object) -> Reply:
            body = {"userId": user_id, "actionId": action_id, "boardId": "week", "reason": reason, **more}
            return await bench.ask("POST", "/scores/increment", body, token=judge)

        async def top(board_id: str) -> list[tuple[str, int, int]]:
            entries = (await bench.ask("GET", f"/scoreboard/top?boardId={board_id}")).json["entries"]
            return [(each["userId"], each["score"], each["rank"]) for each in entries]

        assert (await put(bench, "all-time", {"points": {**points, "LATE": -1}})).status == 201
        week = {"points": points, "ranks": "shared", "period": WEEKLY["period"], "feeds": ["all-time"]}
        assert (await put(bench, "week", week)).status == 201
        assert (await play("ann", "a1", "LAP", value=40)).json["delta"] == 40
        assert (await play("bob", "b1", "LAP", value=40)).json["rank"] == 1
        late = await play("ann", "a2", "LATE")
        assert (late.json["delta"], late.json["newScore"], late.json["rank"]) == (-5, 35, 2)
        assert await top("week") == [("bob", 40, 1), ("ann", 35, 2)]
        assert await top("all-time") == [("bob", 40, 1), ("ann", 39, 2)]
        receipt = (await bench.ask("GET", "/actions/a2", token=READER)).json["receipt"]
        assert receipt["fed"] == [{"boardId": "all-time", "delta": -1, "newScore": 39}]
        assert "value" not in receipt
        assert (await bench.ask("GET", "/actions/a1", token=READER)).json["receipt"]["value"] == 40
        bench.now_s += 7 * DAY_S
        assert (await play("ann", "a3", "WIN")).json["newScore"] == 10
        assert (await bench.ask("GET", "/boards/week")).json["period"] == "2025-W52"
        assert (await bench.ask("POST", "/boards/week/reset", {"period": "2025-W52"}, token=KEEPER)).status == 200
        assert await top("week") == []
        assert await top("all-time") == [("ann", 49, 1), ("bob", 40, 2)]
        assert (await bench.ask("DELETE", "/boards/week", token=KEEPER)).json["closed"] is True
        assert (await play("ann", "a4", "WIN")).status == 410
        assert await top("all-time") == [("ann", 49, 1), ("bob", 40, 2)]
