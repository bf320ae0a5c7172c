"""What viewers are told of frozen boards: by the live channel, in lines of their own, and in a terminal.

A viewer of the public must read nothing between the freeze and the next thing that the public may see. The moves have
been shown by then: a viewer of the present reads of the last one first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from trio_websocket import ConnectionRejected

from server.cli import watch
from tests.e2e import leader as outside
from tests.server.node.frozen_boards import Stage, Watcher, open_stage, watching


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


def without_time(message: dict[str, Any]) -> dict[str, Any]:
    """Leave out the instant of a message."""
    return {name: value for name, value in message.items() if name != "generatedAt"}


async def move_until_seen(stage: Stage, board: str, watchers: list[Watcher]) -> None:
    """Let all move, then give a user points by which viewers of the present know that all was shown."""
    await stage.move()
    await stage.score(board, "last", "LAP", 50_000)
    for present in watchers:
        while all(row["userId"] != "last" for row in (await present.next("update", "snapshot"))["entries"]):
            pass


@pytest.mark.parametrize("board", ["cup", "daily"])
async def test_viewers_read_nothing_of_what_moves(board: str, tmp_path: Path) -> None:
    """Those from before the freeze, and those who come during it; of whole messages, and of deltas."""
    async with open_stage(tmp_path) as stage, AsyncExitStack() as viewers:
        ways = [(node, deltas) for node in stage.nodes.values() for deltas in (False, True)]
        opened = [await viewers.enter_async_context(watching(node, board, deltas=deltas)) for node, deltas in ways]
        watchers = [
            (await viewers.enter_async_context(watching(node, board, "scores:read", live=True)))[0]
            for node in stage.nodes.values()
        ]
        await stage.freeze()
        frozen = [await viewer.next() for viewer, _ in opened]
        assert all("frozenAt" in message for message in frozen)
        await move_until_seen(stage, board, watchers)
        first: dict[str, Any] = {"userId": "u00", "score": 2_000 if board == "cup" else 1_000, "rank": 1}
        if board == "daily":
            first["change"] = {"period": 0}
        for (node, deltas), message in zip(ways, frozen, strict=True):
            opened.append(await viewers.enter_async_context(watching(node, board, "scores:read", deltas=deltas)))
            assert opened[-1][1]["seq"] == message["seq"]
            assert opened[-1][1]["entries"][0] == first
        await stage.ask("PUT", "/users/u00", {"displayName": "Ann"})
        for (_, deltas), (viewer, snapshot) in zip([*ways, *ways], opened, strict=True):
            renamed = await viewer.next()
            assert renamed["changed" if deltas else "entries"][0] == {**first, "displayName": "Ann"}
            if deltas:
                assert len(renamed["changed"]) == 1
            else:
                assert renamed["entries"][1:] == snapshot["entries"][1:]


@pytest.mark.parametrize("board", ["cup", "daily"])
async def test_lines_tell_nothing_of_what_moves(board: str, tmp_path: Path) -> None:
    """Neither those from before the freeze, nor those that begin in it: of one who was there, and of one who comes."""
    async with open_stage(tmp_path) as stage, AsyncExitStack() as viewers:
        opened = []
        for node in stage.nodes.values():
            viewer, _ = await viewers.enter_async_context(watching(node, "main"))
            opened.append((node, viewer, {user: await viewer.subscribe(user, board) for user in ("u00", "new")}))
        watchers = [
            (await viewers.enter_async_context(watching(node, board, "scores:read", live=True)))[0]
            for node in stage.nodes.values()
        ]
        await stage.freeze()
        await move_until_seen(stage, board, watchers)
        for node, _, lines in opened:
            late, _ = await viewers.enter_async_context(watching(node, "main"))
            for user, line in lines.items():
                again = await late.subscribe(user, board)
                assert without_time(again) | {"seq": 0} == without_time(line) | {"seq": 0}
        await stage.ask("PUT", "/users/u00", {"displayName": "Ann"})
        for _, viewer, lines in opened:
            line = await viewer.next("user")
            assert (line["displayName"], line["score"], line["overtaken"]) == ("Ann", lines["u00"]["score"], [])


async def test_a_reveal_and_the_end_of_a_freeze_are_shown_to_viewers(tmp_path: Path) -> None:
    """Each step is a message, also below the first ten rows. The last one has no `frozenAt`."""
    async with open_stage(tmp_path) as stage, watching(stage.replica, "cup") as (viewer, _):
        await stage.freeze()
        assert "frozenAt" in await viewer.next()
        await stage.move()
        revealed = []
        while True:
            await stage.ask("POST", "/boards/cup/reveal")
            message = await viewer.next("update")
            if "frozenAt" not in message:
                break
            revealed.append(message["revealed"])
        assert revealed == list(range(1, 15))
        assert [row["userId"] for row in message["entries"][:2]] == ["u06", "u05"]


async def test_viewers_hear_of_a_period_that_ended_during_a_freeze_at_its_end(tmp_path: Path) -> None:
    """And not again of one that had ended before."""
    async with open_stage(tmp_path) as stage:
        await stage.freeze()
        async with watching(stage.leader, "daily") as (viewer, snapshot):
            assert snapshot["period"] == "2025-12-15T13"
            await stage.ask("POST", "/boards/daily/unfreeze")
            assert (await viewer.next())["type"] == "scoreboard_update"
            await stage.ask("POST", "/boards/daily/freeze")
            assert "frozenAt" in await viewer.next()
            await stage.ask("POST", "/boards/daily/reset")
            await stage.ask("PUT", "/users/u00", {"displayName": "Ann"})
            assert (await viewer.next())["entries"][0]["displayName"] == "Ann"
            await stage.ask("POST", "/boards/daily/unfreeze")
            ended = await viewer.next()
            assert (ended["type"], ended["period"]) == ("scoreboard_period", "2025-12-15T13")
            assert (await viewer.next())["entries"] == []


async def test_a_period_that_ends_right_before_a_freeze_is_told(tmp_path: Path) -> None:
    """Though both are shown at once."""
    async with open_stage(tmp_path) as stage, watching(stage.leader, "daily") as (viewer, _):
        live = stage.leader.node.live
        told, live.board_changed = live.board_changed, lambda _: None  # type: ignore[method-assign,assignment]
        await stage.ask("POST", "/boards/daily/reset")
        live.board_changed = told  # type: ignore[method-assign]
        await stage.ask("POST", "/boards/daily/freeze")
        assert (await viewer.next())["type"] == "scoreboard_period"
        assert "frozenAt" in await viewer.next()


async def test_the_live_view_of_the_channel_needs_a_token_that_may_read(tmp_path: Path) -> None:
    """Without one, and with one that may only write, the handshake is refused."""
    async with open_stage(tmp_path) as stage:
        await stage.freeze()
        await stage.move()
        for scopes, status in (((), 401), (("scores:write", "boards:write"), 403)):
            with pytest.raises(ConnectionRejected) as refused:
                async with watching(stage.leader, "cup", *scopes, live=True):
                    pass
            assert refused.value.status_code == status
        async with watching(stage.leader, "cup", "scores:read", live=True) as (viewer, snapshot):
            assert snapshot["entries"][0]["userId"] == "u06"
            assert (await viewer.subscribe("new"))["score"] == 700


async def test_scoreboard_watch_shows_what_the_public_sees(tmp_path: Path) -> None:
    """Also with a token that may see the present: what is on a screen in a hall is public."""
    async with open_stage(tmp_path) as stage:
        await stage.freeze()
        await stage.move()
        for token in ("", outside.token("scores:read")):
            message = await once(stage, token)
            assert "1. u00 2000  2. u01 1900" in watch.lines_of(message)


async def once(stage: Stage, token: str) -> watch.Message:
    """Give the message that `scoreboard watch --once` shows."""
    shown: list[watch.Message] = []

    def show(message: watch.Message | None, _state: str) -> None:
        assert message is not None
        shown.append(message)

    await watch.follow(watch.websocket_url(stage.leader.url, "cup"), watch.Headers(token, None), True, show)
    [message] = shown
    return message
