"""A freeze leaks nothing: all that the public is told stays the same to the byte, whatever moves meanwhile.

`tests.server.node.public_answers` has the questions, `tests.server.node.frozen_boards` the boards and what moves.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from engine.disk import RealDisk
from server.api.routes import ROUTES, find
from snapshots.period_store import PeriodStore
from snapshots.periods import expected_files
from tests.e2e import leader as outside
from tests.e2e.client import Client
from tests.server.cli.directories import run, save_snapshot
from tests.server.lanes.support import PATIENCE_SECONDS
from tests.server.node.frozen_boards import FROZEN, HIDDEN, HOUR_MS, Stage, open_stage, serving_leader
from tests.server.node.nodes import Served
from tests.server.node.public_answers import ASKED, CURSOR, EPOCH, HISTORY, Record, questions_of, record_of, without

WRITES = {route.handler for route in ROUTES if route.writes}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


async def get(served: Served, target: str, *scopes: str, sub: str = "other", status: int = 200) -> Any:
    """Ask a node with a token of these scopes, or without one; the answer, decoded."""
    async with Client("127.0.0.1", served.port, outside.token(*scopes, sub=sub) if scopes else None) as client:
        answer = await client.get(target)
    assert answer.status == status, answer.body
    return answer.json()


async def cursors_of(served: Served) -> dict[str, str]:
    """Begin a list of each frozen board; the cursors that lead on."""
    path = "/scoreboard?limit=4&boardId="
    return {board: (await get(served, path + board, "scores:read"))["nextCursor"] for board in FROZEN}


def differences(before: Record, after: Record) -> list[str]:
    """Name the questions whose answers differ."""
    assert set(before) == set(after)
    return [name for name in before if before[name] != after[name]]


async def rows_of(served: Served, board: str, *scopes: str) -> list[Any]:
    view = "&view=live" if scopes else ""
    rows: list[Any] = (await get(served, f"/scoreboard/top?boardId={board}&limit=50{view}", *scopes))["entries"]
    return rows


def test_every_route_is_in_a_class() -> None:
    """A new route fails here until somebody thinks of what it tells of a frozen board. Each target finds its route."""
    assert set(ASKED) == {route.handler for route in ROUTES}
    for handler, one in questions_of(dict.fromkeys(FROZEN, "c")):
        methods, _ = find(*one.target.partition("?")[::2])
        assert methods["GET" if one.method == "HEAD" else one.method].handler == handler, one.name


@pytest.mark.parametrize(
    ("public_reads", "callers"), [("true", ("nobody", "writer", "reader")), ("false", ("writer", "nobody"))]
)
async def test_the_public_is_told_the_same_whatever_moves(
    public_reads: str, callers: tuple[str, ...], tmp_path: Path
) -> None:
    """Every route, on a leader and a replica, for each kind of caller; also in a list that began during the freeze."""
    async with open_stage(tmp_path, SCOREBOARD_AUTH_PUBLIC_READS=public_reads) as stage:
        await stage.freeze()
        await stage.settle()
        cursors = {name: await cursors_of(node) for name, node in stage.nodes.items()}
        asked = {name: list(questions_of(cursors[name], callers=callers)) for name in stage.nodes}
        before = {name: await record_of(node, asked[name]) for name, node in stage.nodes.items()}
        await stage.move()
        await stage.settle()
        for name, node in stage.nodes.items():
            assert differences(before[name], await record_of(node, asked[name], before[name])) == [], name
        assert {answer[0] for name, answer in before["leader"].items() if "cursor" in name} == (
            {200} if public_reads == "true" else {200, 401}
        )


async def test_a_list_does_not_go_on_across_the_beginning_of_a_freeze(tmp_path: Path) -> None:
    """A cursor of before the freeze, or of the present, is of another board than the public's: 410."""
    async with open_stage(tmp_path) as stage:
        early = await cursors_of(stage.leader)
        await stage.freeze()
        await stage.move()
        for board in ("cup", "laps"):
            path = f"/scoreboard?boardId={board}&limit=4"
            present = (await get(stage.leader, f"{path}&view=live", "scores:read"))["nextCursor"]
            for cursor in (early[board], present):
                refusal = await get(stage.leader, f"{path}&cursor={cursor}", status=410)
                assert refusal["error"]["code"] == "CURSOR_EXPIRED"
            await get(stage.leader, f"{path}&view=live&cursor={present}", "scores:read")


async def test_the_same_moves_are_seen_on_an_open_board(tmp_path: Path) -> None:
    """The canary: each route that tells of scores tells of these moves where nothing is frozen."""
    async with open_stage(tmp_path) as stage:
        asked = list(questions_of({}, callers=("nobody",)))
        before = await record_of(stage.leader, asked)
        await stage.move()
        after = await record_of(stage.leader, asked)
        seen = {name for name in after if after[name] != before.get(name)}
        handlers = {handler for handler, one in asked if any(name.startswith(f"{one.name} (") for name in seen)}
        reads = {"top", "walk", "query", "score", "score_by_query", "around", "around_by_query"}
        exports = {"export", "export_by_query"}
        feeds = {"ctftime", "clics_contests", "clics_contest", "clics_teams", "clics_state", "clics_scoreboard"}
        assert sorted(handlers) == sorted(
            {*reads, "boards", "board", "periods", "periods_by_query", "metrics", *exports, *feeds}
        )


async def test_a_receipt_of_a_hidden_action_is_only_for_its_poster_and_those_who_may_see_the_present(
    tmp_path: Path,
) -> None:
    """Of an action on a frozen board, or on an open one that feeds it, until the freeze ends."""
    async with open_stage(tmp_path) as stage:
        await stage.freeze()
        for board in ("cup", "heat"):
            receipt = await stage.score(board, "u09", "LAP", 3_000)
            await stage.settle()
            for node in stage.nodes.values():
                target = f"/actions/{stage.last_action}"
                hidden = await get(node, target, "scores:write")
                assert (hidden["receiptStatus"], hidden["receipt"]) == ("FROZEN", None)
                for whole in (
                    await get(node, target, "scores:write", sub="backend"),
                    await get(node, target, "scores:read"),
                ):
                    assert whole["receipt"]["newScore"] == receipt["newScore"]
        await stage.ask("POST", "/boards/cup/unfreeze")
        await stage.settle()
        for node in stage.nodes.values():
            assert (await get(node, target, "scores:write"))["receiptStatus"] == "KEPT"


async def test_those_who_may_read_see_the_present_if_they_ask_for_it(tmp_path: Path) -> None:
    """The present is what the public sees after the freeze. A token that may not read is refused, and so is none."""
    async with open_stage(tmp_path) as stage:
        await stage.freeze()
        await stage.move()
        await stage.settle()
        reads = {"top", "walk", "score", "around", "score_by_query", "around_by_query", "board", "boards", "periods"}
        targets = {
            one.target
            for handler, one in questions_of({}, callers=("nobody",))
            if handler in reads
            and "view" not in one.target
            and "cursor" not in one.target
            and HIDDEN not in one.target
            and one.method == "GET"
        }
        live = {target: f"{target}{'&' if '?' in target else '?'}view=live" for target in targets}
        for node in stage.nodes.values():
            for target in live.values():
                await get(node, target, status=401)
                await get(node, target, "scores:write", "boards:write", status=403)
        present = {name: await bodies_of(node, live, "scores:read") for name, node in stage.nodes.items()}
        for board in FROZEN:
            await stage.ask("POST", f"/boards/{board}/unfreeze")
        await stage.settle()
        for name, node in stage.nodes.items():
            public = await bodies_of(node, dict(zip(live, live, strict=True)), "scores:read")
            assert present[name] == public
            assert public["/scores/new?boardId=cup"]["score"] == 700


async def bodies_of(served: Served, targets: dict[str, str], scope: str) -> dict[str, Any]:
    """Ask for targets by name; the answers, without positions and what says that a board is frozen."""
    async with Client("127.0.0.1", served.port, outside.token(scope)) as client:
        return {name: shown((await client.get(target)).json()) for name, target in targets.items()}


def shown(answer: Any) -> Any:
    """Leave out what differs between a present that is hidden, and the same present in public."""
    if isinstance(answer, list):
        return [shown(each) for each in answer]
    if not isinstance(answer, dict):
        return answer
    return {
        name: shown(each) for name, each in answer.items() if name not in ("seq", "frozenAt", "revealed", "nextCursor")
    }


async def test_a_reveal_brings_the_public_to_the_present_user_by_user(tmp_path: Path) -> None:
    """Each step shows one user as of now, on each node. With the last one the board is not frozen any more."""
    async with open_stage(tmp_path) as stage:
        await stage.freeze()
        await stage.move()
        await stage.settle()
        present = await rows_of(stage.leader, "cup", "scores:read")
        frozen = await rows_of(stage.leader, "cup")
        shown = {row["userId"]: row["score"] for row in frozen}
        now = {row["userId"]: row["score"] for row in present}
        steps = 0
        while (await stage.ask("POST", "/boards/cup/reveal")).get("frozenAt") is not None:
            steps += 1
            await stage.settle()
            before, shown = shown, {row["userId"]: row["score"] for row in await rows_of(stage.leader, "cup")}
            changed = [user for user in shown if shown[user] != before.get(user)]
            assert all(shown[user] == now[user] for user in changed)
            assert len(changed) <= 1
            assert (await get(stage.leader, "/boards/cup"))["revealed"] == steps
            assert await rows_of(stage.replica, "cup") == await rows_of(stage.leader, "cup")
        await stage.settle()
        assert steps == len(present) - 1
        for node in stage.nodes.values():
            assert await rows_of(node, "cup") == present
            assert "frozenAt" not in await get(node, "/scoreboard/top?boardId=cup")


async def test_names_and_who_is_shown_are_of_now_also_on_a_frozen_board(tmp_path: Path) -> None:
    """A rename, a user who goes, and one who comes back with the score of then."""
    async with open_stage(tmp_path) as stage:
        await stage.freeze()
        await stage.move()
        for user, change in (("u01", {"displayName": "Ann"}), ("u02", {"active": False}), (HIDDEN, {"active": True})):
            await stage.ask("PUT", f"/users/{user}", change)
        await stage.settle()
        for node in stage.nodes.values():
            rows = {row["userId"]: row for row in await rows_of(node, "cup")}
            assert rows["u01"] == {"userId": "u01", "displayName": "Ann", "score": 1_900, "rank": 2}
            assert "u02" not in rows
            assert rows[HIDDEN]["score"] == 800
            await get(node, "/scores/u02?boardId=cup", status=404)


@pytest.mark.parametrize("way", ["log", "snapshot"])
async def test_a_restart_changes_nothing_of_what_the_public_sees(way: str, tmp_path: Path) -> None:
    """Whether the state comes from the log or from a snapshot. Also after rows were revealed."""
    stage = Stage(tmp_path, {})
    with trio.fail_after(PATIENCE_SECONDS):
        async with serving_leader(stage) as first:
            await stage.fill()
            await stage.freeze()
            await stage.ask("POST", "/boards/laps/reveal", {"step": 4})
            await stage.move()
            asked = list(questions_of({}, callers=("nobody",)))
            before = await record_of(first, asked)
        if way == "log":
            shutil.rmtree(tmp_path / "leader" / "snapshots")
        else:
            save_snapshot(tmp_path / "leader")
        async with serving_leader(stage) as second:
            after = await record_of(second, asked, before)
            assert differences(without(before, CURSOR), without(after, CURSOR)) == []
            await stage.ask("POST", "/boards/laps/reveal")
            await stage.ask("POST", "/boards/cup/reveal", {"step": 1_000})
            assert await rows_of(second, "cup") == await rows_of(second, "cup", "scores:read")


async def test_a_promotion_changes_only_the_epoch_for_the_public(tmp_path: Path) -> None:
    """The new leader goes on with the freeze, and reveals."""
    async with open_stage(tmp_path) as stage:
        await stage.freeze()
        await stage.ask("POST", "/boards/laps/reveal", {"step": 4})
        await stage.move()
        await stage.settle()
        asked = [(handler, one) for handler, one in questions_of({}, callers=("nobody",)) if handler not in WRITES]
        before = await record_of(stage.leader, asked)
        assert (await stage.replica.node.promote())[0] == 2
        stage.leader, old = stage.replica, stage.leader
        await stage.score("cup", "u13", "LAP", 20_000)
        after = await record_of(stage.leader, asked)
        assert differences(*(without(record, CURSOR, EPOCH, HISTORY) for record in (before, after))) == []
        await stage.ask("POST", "/boards/cup/reveal", {"step": 1_000})
        assert (await rows_of(stage.leader, "cup"))[0] == {"userId": "u13", "score": 20_710, "rank": 1}
        stage.leader = old


async def test_a_planned_freeze_hides_all_from_its_instant_on(tmp_path: Path) -> None:
    """Nobody scored or asked between the instant and the first action after it, which nobody sees."""
    async with open_stage(tmp_path) as stage:
        told = await stage.ask("POST", "/boards/cup/freeze", {"at": "2025-12-15T14:00:00Z"})
        assert told["freezesAt"] == "2025-12-15T14:00:00.000Z"
        await stage.score("cup", "u13", "LAP", 100)
        shown = await rows_of(stage.leader, "cup")
        stage.now.ms += HOUR_MS
        await stage.score("cup", "u13", "LAP", 9_000)
        await stage.settle()
        for node in stage.nodes.values():
            assert await rows_of(node, "cup") == shown
            assert (await rows_of(node, "cup", "scores:read"))[0]["userId"] == "u13"


async def test_a_snapshot_beside_a_running_leader_asks_for_no_period_that_was_dropped(tmp_path: Path) -> None:
    """Only for those that the state calls for: here one that only the public of a frozen board sees, and the last."""
    stage = Stage(tmp_path, {})
    with trio.fail_after(PATIENCE_SECONDS):
        async with serving_leader(stage) as leader:
            await stage.fill()
            await stage.freeze()
            await stage.move()
            store = PeriodStore(RealDisk(), str(tmp_path / "leader"))
            while len(store.list()) != 2:  # the dropped ones have files for a moment  # noqa: ASYNC110
                await trio.sleep(0.005)
            taken = await trio.to_thread.run_sync(run, "snapshot", "take", "--data-dir", tmp_path / "leader")
            assert taken.exit_code == 0, taken.output
            assert set(store.list()) == expected_files(leader.node.scoreboard)
