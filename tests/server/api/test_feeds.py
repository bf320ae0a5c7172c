"""The feeds: what CTFtime and readers of the CLICS Contest API get, who sees what, and what a feed costs."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing

from engine.board_rules import Rules
from server.api import feeds
from server.live.clics import Version, contestants
from server.live.clics_ids import clics_id
from tests.server.api.support import ERASER, KEEPER, READER, REGISTRAR, START_MS, WRITER, Bench, Reply, open_bench
from tests.server.live import contest_rules

CTFTIME = "/feeds/ctftime.json"
CONTESTS = "/feeds/clics/contests"
CUP = {
    "title": "Cup",
    "points": {"WIN": 10},
    "period": {"starts": "2025-12-15T12:00:00Z", "ends": "2025-12-15T17:00:00Z"},
}
LARGE = ("/teams", "/scoreboard")
ALL = ("", "/access", "/teams", "/state", "/scoreboard")


async def win(bench: Bench, user: str, action: str, board: str = "cup") -> None:
    """Ten points."""
    body = {"userId": user, "actionId": action, "boardId": board, "reason": "WIN"}
    assert (await bench.ask("POST", "/scores/increment", body, token=WRITER)).status == 200


async def stage(bench: Bench) -> None:
    """A cup with a tie behind the first, names that are not ASCII, and an id that CLICS can't have."""
    bench.scoreboard.rules = Rules({})
    assert (await bench.ask("PUT", "/boards/cup", CUP, token=KEEPER)).status == 201
    for user, name in (("ann", "Ann"), ("zoë", "Zoë 😀"), ("ben", "Émile")):
        await bench.ask("PUT", f"/users/{user.replace('ë', '%C3%AB')}", {"displayName": name}, token=REGISTRAR)
    for number, user in enumerate(("ann", "zoë", "ben", "dan", "ann")):
        await win(bench, user, f"a{number}")


async def feed(bench: Bench, target: str, token: str | None = None) -> Any:
    """A good answer."""
    reply = await bench.ask("GET", target, token=token)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json"), reply
    return reply.json


# CTFtime


async def test_ctftime_gets_its_own_names_of_fields() -> None:
    """`team`, not `name`; and the ranks of the board, which are unique."""
    async with open_bench() as bench:
        await stage(bench)
        told = await feed(bench, f"{CTFTIME}?boardId=cup")
        second = START_MS // 1000
        assert told == {
            "standings": [
                {"pos": 1, "team": "Ann", "score": 20, "lastAccept": second},
                {"pos": 2, "team": "Zoë 😀", "score": 10, "lastAccept": second},
                {"pos": 3, "team": "Émile", "score": 10, "lastAccept": second},
                {"pos": 4, "team": "dan", "score": 10, "lastAccept": second},
            ]
        }


async def test_ctftime_gets_ascii() -> None:
    r"""Each letter beyond it is a `\u`, of which some need two. So every reader finds the same names."""
    async with open_bench() as bench:
        await stage(bench)
        body = (await bench.ask("GET", f"{CTFTIME}?boardId=cup")).body
        assert body.isascii()
        assert b'"team":"Zo\\u00eb \\ud83d\\ude00"' in body
        assert json.loads(body)["standings"][1]["team"] == "Zoë 😀"


async def test_ctftime_gets_no_tasks_without_their_figures() -> None:
    """`tasks` may stand only if every row has `taskStats`. Nobody here knows of either."""
    async with open_bench() as bench:
        await stage(bench)
        told = await feed(bench, f"{CTFTIME}?boardId=cup")
        assert "tasks" not in told
        assert not any("taskStats" in row for row in told["standings"])
        assert await feed(bench, f"{CTFTIME}?boardId=cup&view=public") == told


async def test_an_empty_board_has_empty_feeds() -> None:
    """Not null, and not an error. The default board is `main`."""
    async with open_bench() as bench:
        assert await feed(bench, CTFTIME) == {"standings": []}
        assert await feed(bench, f"{CONTESTS}/main/teams") == []
        scoreboard = await feed(bench, f"{CONTESTS}/main/scoreboard")
        contest_rules.check_scoreboard(scoreboard, "2023-06")
        assert scoreboard["rows"] == []


async def test_a_feed_of_more_than_one_part_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row once, whatever is between the parts."""
    monkeypatch.setattr(feeds, "PART_ROWS", 2)
    async with open_bench() as bench:
        await stage(bench)
        assert [row["pos"] for row in (await feed(bench, f"{CTFTIME}?boardId=cup"))["standings"]] == [1, 2, 3, 4]
        assert len((await feed(bench, f"{CONTESTS}/cup/scoreboard"))["rows"]) == 4
        await win(bench, "eve", "a9")
        assert len(await feed(bench, f"{CONTESTS}/cup/teams")) == 5


# CLICS


@pytest.mark.parametrize("version", ["2023-06", "2026-01"])
async def test_a_contest_holds_to_the_schemas(version: Version) -> None:
    """All of it, in both versions."""
    async with open_bench(clics_version=version) as bench:
        await stage(bench)
        bench.now_s += 125
        await win(bench, "ann", "late")
        assert await feed(bench, "/feeds/clics") == {
            "version": version, "version_url": f"https://ccs-specs.icpc.io/{version}/contest_api",
            "provider": {"name": "Live scoreboard"},
        }  # fmt: skip
        contests = await feed(bench, CONTESTS)
        for contest in contests:
            contest_rules.check_contest(contest)
        assert await feed(bench, f"{CONTESTS}/cup") == contests[0]
        state = await feed(bench, f"{CONTESTS}/cup/state")
        contest_rules.check_state(state)
        assert state["started"] == contests[0]["start_time"] == "2025-12-15T12:00:00.000Z"
        teams = await feed(bench, f"{CONTESTS}/cup/teams")
        contest_rules.check_teams(teams)
        scoreboard = await feed(bench, f"{CONTESTS}/cup/scoreboard")
        contest_rules.check_scoreboard(scoreboard, version)
        assert scoreboard["state"] == state
        assert {row["team_id"] for row in scoreboard["rows"]} == {team["id"] for team in teams}
        first = scoreboard["rows"][0]["score"]
        assert first == {"score": 30, "time": 37 if version == "2023-06" else "0:37:01"}


async def test_ties_share_a_rank_and_stand_by_name() -> None:
    """dan, Émile, Zoë: whoever was first, and whatever the board's ranks are."""
    async with open_bench() as bench:
        await stage(bench)
        rows = (await feed(bench, f"{CONTESTS}/cup/scoreboard"))["rows"]
        assert [(row["rank"], row["team_id"]) for row in rows] == [
            (1, "ann"), (2, "dan"), (2, "ben"), (2, clics_id("zoë")),
        ]  # fmt: skip


async def test_what_is_accessible_is_what_there_is() -> None:
    """Each type is found, with exactly these properties."""
    async with open_bench() as bench:
        await stage(bench)
        found = await feed(bench, f"{CONTESTS}/cup/access")
        assert found["capabilities"] == []
        for endpoint in found["endpoints"]:
            name = "" if endpoint["type"] == "contest" else f"/{endpoint['type']}"
            told = await feed(bench, f"{CONTESTS}/cup{name}")
            has = set(told[0] if isinstance(told, list) else told)
            assert has <= set(endpoint["properties"]), endpoint
        assert [endpoint["type"] for endpoint in found["endpoints"]] == ["contest", "teams", "state", "scoreboard"]


async def test_a_board_with_a_slash_is_a_contest_too() -> None:
    """By the id that the list of contests gives, and by its own."""
    async with open_bench() as bench:
        bench.scoreboard.rules = Rules({})
        await bench.ask("PUT", "/boards?boardId=a/b", {"points": {"WIN": 1}}, token=KEEPER)
        await win(bench, "ann", "a1", "a/b")
        [contest] = await feed(bench, CONTESTS)
        assert (contest["id"], contest["name"]) == (clics_id("a/b"), "a/b")
        for path in ALL:
            assert await feed(bench, f"{CONTESTS}/{contest['id']}{path}") == await feed(
                bench, f"{CONTESTS}/a%2Fb{path}"
            )


async def test_an_erased_user_is_in_no_feed() -> None:
    """Neither by id nor by its digest, nor in a feed that was kept."""
    async with open_bench() as bench:
        await stage(bench)
        targets = (f"{CTFTIME}?boardId=cup", *(f"{CONTESTS}/cup{path}" for path in LARGE))
        assert all([clics_id("zoë").encode() in (await bench.ask("GET", target)).body for target in targets[1:]])
        assert (await bench.ask("DELETE", "/users/zo%C3%AB", token=ERASER)).status == 200
        for target in targets:
            body = (await bench.ask("GET", target)).body
            assert not any(trace in body for trace in (clics_id("zoë").encode(), "zoë".encode(), b"Zo\\u00eb"))
            assert b"ann" in body.lower()


# Who sees what


@pytest.mark.parametrize("target", [f"{CTFTIME}?boardId=cup", *(f"{CONTESTS}/cup{path}" for path in ALL), CONTESTS])
async def test_private_boards_need_a_token(target: str) -> None:
    """As for every other read."""
    async with open_bench(public_reads=False) as bench:
        await stage(bench)
        asked = [await bench.ask("GET", target, token=token) for token in (None, REGISTRAR, READER)]
        assert [reply.status for reply in asked] == [401, 403, 200]


@pytest.mark.parametrize(("form", "team"), [("initials", "A."), ("hidden", "ann")])
@pytest.mark.parametrize("public_reads", [True, False])
async def test_names_are_those_that_the_caller_may_see(form: Any, team: str, public_reads: bool) -> None:
    """A token that may read sees all of them, and neither gets what was kept for the other."""
    async with open_bench(names=form, public_reads=public_reads) as bench:
        await stage(bench)
        for _ in range(2):
            for token, name in ((None if public_reads else WRITER, team), (READER, "Ann")):
                standings = (await feed(bench, f"{CTFTIME}?boardId=cup", token))["standings"]
                assert standings[0]["team"] == name
                teams = await feed(bench, f"{CONTESTS}/cup/teams", token)
                assert teams[0] == {"id": "ann", "name": name, "label": "ann"}


async def test_the_order_in_a_tie_tells_no_hidden_name() -> None:
    """It is that of the names that are shown."""
    async with open_bench(names="hidden") as bench:
        await stage(bench)
        rows = (await feed(bench, f"{CONTESTS}/cup/scoreboard"))["rows"]
        assert [row["team_id"] for row in rows] == ["ann", "ben", "dan", clics_id("zoë")]


async def test_a_freeze_holds_in_every_feed() -> None:
    """The public sees no change, and that it is frozen; who may look sees the present."""
    async with open_bench() as bench:
        await stage(bench)
        assert (await bench.ask("POST", "/boards/cup/freeze", token=KEEPER)).status == 200
        targets = [f"{CTFTIME}?boardId=cup", *(f"{CONTESTS}/cup{path}?" for path in ALL), f"{CONTESTS}?"]
        before = [await bench.ask("GET", target) for target in targets]
        bench.now_s += 60
        await win(bench, "new", "b1")
        await win(bench, "ben", "b2")
        after = [await bench.ask("GET", target) for target in targets]
        assert [bodies(reply) for reply in before] == [bodies(reply) for reply in after]
        state = await feed(bench, f"{CONTESTS}/cup/state")
        assert (state["frozen"], state["thawed"]) == ("2025-12-15T12:34:56.000Z", None)
        live = await feed(bench, f"{CTFTIME}?boardId=cup&view=live", READER)
        assert [row["score"] for row in live["standings"]] == [20, 20, 10, 10, 10]
        assert len(await feed(bench, f"{CONTESTS}/cup/teams?view=live", READER)) == 5
        for target in (f"{CTFTIME}?boardId=cup&view=live", *(f"{CONTESTS}/cup{path}?view=live" for path in LARGE)):
            asked = [await bench.ask("GET", target, token=token) for token in (None, WRITER)]
            assert [reply.status for reply in asked] == [401, 403]
        assert [bodies(await bench.ask("GET", target)) for target in targets] == [bodies(reply) for reply in before]


def bodies(reply: Reply) -> tuple[bytes, str]:
    """What may not change."""
    return reply.body, reply.headers["etag"]


async def test_a_freeze_that_comes_while_a_feed_waits_holds_for_it() -> None:
    """The feed is made of the board that is public when its turn comes, not when it was asked for."""
    async with open_bench() as bench:
        await stage(bench)
        holder = bench.pipeline._handlers["ctftime"].__self__  # type: ignore[attr-defined]
        replies: list[Reply] = []

        async def ask() -> None:
            replies.append(await bench.ask("GET", f"{CTFTIME}?boardId=cup"))

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery, holder._making:
                nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
                await bench.ask("POST", "/boards/cup/freeze", token=KEEPER)
                await win(bench, "new", "b1")
        assert len(replies[0].json["standings"]) == 4


# Refusals, and what a feed costs


@pytest.mark.parametrize(
    ("target", "status", "field"),
    [
        (f"{CTFTIME}?boardId=nowhere", 400, "boardId"),
        (f"{CTFTIME}?board=main", 400, "board"),
        (f"{CTFTIME}?view=x", 400, "view"),
        (f"{CTFTIME}?boardId=", 400, "boardId"),
        (f"{CONTESTS}/nowhere", 404, None),
        (f"{CONTESTS}/nowhere/scoreboard", 404, None),
        (f"{CONTESTS}/id_00000000000000000000000000000000/teams", 404, None),
        (f"{CONTESTS}/main/state?boardId=main", 400, "boardId"),
        (f"{CONTESTS}/main/scoreboard?group_id=x", 400, "group_id"),
        (f"{CONTESTS}/main/problems", 404, None),
        (f"{CONTESTS}/%ff/state", 400, "boardId"),
        ("/feeds/clics?x=1", 400, "x"),
        ("/feeds", 404, None),
    ],
)
async def test_what_is_not_there_is_refused(target: str, status: int, field: str | None) -> None:
    """In the one shape of all errors, with the field."""
    async with open_bench() as bench:
        reply = await bench.ask("GET", target)
        assert (reply.status, reply.details.get("field")) == (status, field)
        assert reply.code in ("INVALID_REQUEST", "NOT_FOUND")


@pytest.mark.parametrize(
    "target", [f"{CTFTIME}?boardId=cup", *(f"{CONTESTS}/cup{path}" for path in ALL), "/feeds/clics"]
)
async def test_who_has_it_already_is_told_so(target: str) -> None:
    """304 by ETag, which two nodes of one state share; HEAD tells the length."""
    async with open_bench() as bench:
        await stage(bench)
        whole = await bench.ask("GET", target)
        head = await bench.ask("HEAD", target)
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(whole.body)))
        again = await bench.ask("GET", target, headers={"if-none-match": whole.headers["etag"]})
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", whole.headers["etag"])
        assert whole.headers["cache-control"] == "no-cache"
    async with open_bench() as other:
        await stage(other)
        assert (await other.ask("GET", target)).headers["etag"] == whole.headers["etag"]


async def test_a_feed_is_made_once_until_its_board_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many callers at once cost as much as one, and a change is seen at the next request."""
    made: list[str] = []

    def count(board: Any, names: Any) -> Any:
        made.append(board.board_id)
        return contestants(board, names)

    monkeypatch.setattr(feeds, "contestants", count)
    async with open_bench() as bench:
        await stage(bench)
        target = f"{CTFTIME}?boardId=cup"
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(bench.ask, "GET", target)
        await bench.ask("GET", target)
        assert made == ["cup"]
        await win(bench, "eve", "c1")
        assert len((await feed(bench, target))["standings"]) == 5
        await bench.ask("PUT", "/users/eve", {"displayName": "Eve"}, token=REGISTRAR)
        assert (await feed(bench, target))["standings"][-1]["team"] == "Eve"
        assert made == ["cup"] * 3


async def test_few_feeds_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be ten thousand boards."""
    monkeypatch.setattr(feeds, "FEEDS_KEPT_MAX", 2)
    async with open_bench() as bench:
        holder = bench.pipeline._handlers["ctftime"].__self__  # type: ignore[attr-defined]
        for board in ("main", "weekly", "main", "weekly"):
            for path in LARGE:
                await feed(bench, f"{CONTESTS}/{board}{path}")
                assert len(holder._kept) <= 2


async def test_a_contest_that_has_not_begun_counts_down() -> None:
    """Its scoreboard is not kept: it would tell the time of when it was made."""
    async with open_bench() as bench:
        bench.scoreboard.rules = Rules({})
        later = {"points": {"WIN": 1}, "period": {"starts": "2025-12-15T12:35:56Z"}}
        await bench.ask("PUT", "/boards/soon", later, token=KEEPER)
        told = [(await feed(bench, f"{CONTESTS}/soon/scoreboard"))]
        for seconds in (30, 40):
            bench.now_s += seconds
            told.append(await feed(bench, f"{CONTESTS}/soon/scoreboard"))
        assert [each["contest_time"] for each in told] == ["-0:01:00", "-0:00:30", "0:00:00"]
        assert [each["state"]["started"] for each in told] == [None, None, "2025-12-15T12:35:56.000Z"]
