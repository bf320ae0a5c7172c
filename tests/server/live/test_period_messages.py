"""What viewers are told of periods and seasons: which messages, in which order, and to whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio_websocket
from msgspec.structs import replace
from trio.testing import MockClock

from engine.board_rules import BoardRules
from engine.commands import FreezeBoard, PutBoard, ResetBoard, RevealRows, UnfreezeBoard
from server.http.websocket import TEXT
from server.live import encoding
from server.live.editions import NO_EDITION, Channel
from server.live.encoding import Moment
from tests.server.live.client_frames import take_server_frame
from tests.server.live.stage import (
    DAY_MS,
    INTERVAL_S,
    NEXT_MONDAY_MS,
    NOW_MS,
    PLAIN,
    SEASON,
    WEEKLY,
    Stage,
    enter,
    messages_of,
    rows_of,
    told,
    types_of,
)
from tests.server.live.watching import BareViewer, open_site, stall
from tests.server.node.test_start import client_of, config_of, serve_and_use, stop

WEEK_51 = {"period": "2025-W51", "startsAt": "2025-12-15T00:00:00.000Z", "endsAt": "2025-12-22T00:00:00.000Z"}
WEEK_52 = {"period": "2025-W52", "endsAt": "2025-12-29T00:00:00.000Z"}


# The end of a period


@pytest.mark.parametrize("deltas", [True, False])
def test_the_end_of_a_period_is_told_with_its_last_top_and_then_a_snapshot(deltas: bool) -> None:
    """The first ten of twelve, the number of all, and what comes next; the board is empty after that, in one write."""
    stage = Stage({"main": WEEKLY})
    channel = stage.channel()
    users = [f"user-{number:02}" for number in range(12)]
    stage.score(*users)
    has = channel.publish().number
    stage.pass_to(NEXT_MONDAY_MS + 5)
    assert channel.is_behind
    period, snapshot = told(channel, has, deltas=deltas)
    assert period == {
        "type": "scoreboard_period",
        **WEEK_51,
        "next": "2025-W52",
        "count": 12,
        "entries": [{"userId": user, "score": 10, "rank": rank} for rank, user in enumerate(users[:10], 1)],
        "boardId": "main",
        "epoch": 1,
        "seq": 15,
        "generatedAt": "2025-12-22T00:00:00.005Z",
    }
    assert types_of([snapshot]) == ["snapshot"]
    assert (snapshot["entries"], snapshot["seq"], snapshot["title"]) == ([], 15, "The cup")
    assert (snapshot["period"], snapshot["endsAt"]) == (WEEK_52["period"], WEEK_52["endsAt"])


@pytest.mark.parametrize("deltas", [True, False])
def test_who_missed_the_end_hears_of_it_later_and_who_came_afterwards_does_not(deltas: bool) -> None:
    """A slow viewer gets the same two messages some editions later. With the edition after the end all is as always."""
    stage = Stage({"main": WEEKLY})
    channel = stage.channel()
    stage.score("ann")
    missed = channel.publish().number
    stage.score("ben", "ann")
    stage.pass_to(NEXT_MONDAY_MS)
    after = channel.publish().number
    for user in ("cyd", "dan"):
        stage.score(user)
        has = channel.published.number
        shown = told(channel, has, deltas=deltas)
        assert types_of(shown) == ["delta" if deltas else "update"]
    period, snapshot = told(channel, missed, deltas=deltas)
    assert (period["period"], period["count"], rows_of(period)) == ("2025-W51", 2, [("ann", 20), ("ben", 10)])
    assert (snapshot["type"], rows_of(snapshot)) == ("scoreboard_snapshot", [("cyd", 10), ("dan", 10)])
    assert types_of(told(channel, NO_EDITION, deltas=deltas)) == ["snapshot"]
    assert types_of(told(channel, after, deltas=deltas)) == ["snapshot" if deltas else "update"]


def test_a_newcomer_between_the_end_and_the_tick_is_told_of_no_end() -> None:
    """Its snapshot is of the new period already; those who were there hear of the end in the same edition."""
    stage = Stage({"main": WEEKLY})
    channel = stage.channel()
    stage.score("ann")
    has = channel.publish().number
    stage.pass_to(NEXT_MONDAY_MS)
    newcomer = channel.newest()
    assert types_of(messages_of(newcomer.for_viewer(NO_EDITION, deltas=True))) == ["snapshot"]
    assert channel.publish() is newcomer
    assert types_of(messages_of(newcomer.for_viewer(has, deltas=True))) == ["period", "snapshot"]
    later = stage.channel()
    stage.score("ben")
    assert types_of(told(later, later.published.number, deltas=False)) == ["update"]


def test_of_several_ends_between_two_ticks_the_last_one_is_told() -> None:
    """One message, and its `next` is the period that runs."""
    stage = Stage({"main": WEEKLY})
    channel = stage.channel()
    stage.score("ann")
    has = channel.publish().number
    stage.pass_to(NEXT_MONDAY_MS)
    stage.score("ben")
    stage.pass_to(NEXT_MONDAY_MS + 7 * DAY_MS)
    period, snapshot = told(channel, has)
    assert (period["period"], period["next"], rows_of(period)) == ("2025-W52", "2026-W01", [("ben", 10)])
    assert (snapshot["period"], snapshot["entries"]) == ("2026-W01", [])


def test_a_period_in_which_nobody_played_ends_too() -> None:
    """With no rows and no count."""
    stage = Stage({"main": WEEKLY})
    channel = stage.channel()
    has = channel.published.number
    stage.pass_to(NEXT_MONDAY_MS)
    period, _ = told(channel, has)
    assert (period["period"], period["count"], period["entries"]) == ("2025-W51", 0, [])


def test_a_reset_ends_a_period_that_no_schedule_names() -> None:
    """It is named by its day; nothing comes next that has a name."""
    stage = Stage({"main": PLAIN})
    channel = stage.channel()
    stage.score("ann")
    has = channel.publish().number
    stage.now_ms += 1000
    stage.do(ResetBoard("main", "ops"))
    period, snapshot = told(channel, has)
    assert (period["period"], period["next"], rows_of(period)) == ("2025-12-16", None, [("ann", 10)])
    assert (period["startsAt"], period["endsAt"]) == (encoding.iso_ms(NOW_MS), encoding.iso_ms(NOW_MS + 1000))
    assert (snapshot["entries"], "period" in snapshot) == ([], False)


def test_a_season_that_is_over_keeps_its_last_ranking() -> None:
    """Nothing comes next, and the rows stay. New rules begin anew, which is no second end."""
    stage = Stage({"main": SEASON})
    channel = stage.channel()
    stage.score("ann")
    has = channel.publish().number
    stage.pass_to(NEXT_MONDAY_MS)
    period, snapshot = told(channel, has, deltas=True)
    assert (period["period"], period["next"], rows_of(period)) == ("2025-12-16", None, [("ann", 10)])
    assert (snapshot["over"], snapshot["period"], rows_of(snapshot)) == (True, "2025-12-16", [("ann", 10)])
    assert snapshot["endsAt"] == "2025-12-22T00:00:00.000Z"
    has = channel.published.number
    stage.do(PutBoard("main", WEEKLY, "ops"))
    [update] = told(channel, has)
    assert (update["type"], update["period"], update["entries"]) == ("scoreboard_update", "2025-W52", [])
    assert "over" not in update


# What all messages say of a board


ABOUT = {"title", "period", "endsAt", "over", "frozenAt", "revealed"}


def kinds_of_messages(channel: Channel, has: int, stage: Stage) -> dict[str, dict[str, Any]]:
    """The top, and each message about the newest state."""
    board = channel.view.ranking(stage.scoreboard)
    moment = Moment("main", 1, board.seq, stage.now_ms, encoding.about(board.definition))
    found = {"top": msgspec.json.decode(encoding.top_body((), moment))}
    for number, deltas, kind in ((NO_EDITION, False, "snapshot"), (has, False, "update"), (has, True, "delta")):
        [message] = told(channel, number, deltas=deltas)
        assert types_of([message]) == [kind]
        found[kind] = message
    return found


def test_what_is_not_the_default_is_in_every_message() -> None:
    """Title, period and its end; since when a board is frozen, and how many rows were shown since; a season over."""
    stage = Stage({"main": WEEKLY})
    channel = stage.channel()
    stage.score("ann", "ben")
    has = channel.publish().number
    stage.do(FreezeBoard("main", "ops"))
    running = {"title": "The cup", "period": "2025-W51", "endsAt": "2025-12-22T00:00:00.000Z"}
    frozen = {**running, "frozenAt": encoding.iso_ms(NOW_MS)}
    for message in kinds_of_messages(channel, has, stage).values():
        assert {name: message[name] for name in ABOUT & set(message)} == frozen
    has = channel.published.number
    stage.do(RevealRows("main", 1, "ops"))
    for message in kinds_of_messages(channel, has, stage).values():
        assert {name: message[name] for name in ABOUT & set(message)} == {**frozen, "revealed": 1}
    has = channel.published.number
    stage.do(UnfreezeBoard("main", "ops"))
    for message in kinds_of_messages(channel, has, stage).values():
        assert {name: message[name] for name in ABOUT & set(message)} == running


def test_a_board_that_is_over_says_so_in_every_later_message() -> None:
    """A new title moves its position, and the season stays over."""
    stage = Stage({"main": SEASON})
    channel = stage.channel()
    stage.score("ann")
    stage.pass_to(NEXT_MONDAY_MS)
    has = channel.publish().number
    stage.do(PutBoard("main", replace(SEASON, title="Past"), "ops"))
    for message in kinds_of_messages(channel, has, stage).values():
        assert {name: message[name] for name in ABOUT & set(message)} == {
            "title": "Past", "period": "2025-12-16", "endsAt": "2025-12-22T00:00:00.000Z", "over": True,
        }  # fmt: skip


def test_what_is_the_default_is_left_out() -> None:
    """A plain board says nothing of all this."""
    stage = Stage({"main": PLAIN})
    channel = stage.channel()
    stage.score("ann")
    has = channel.publish().number
    stage.score("ben")
    for message in kinds_of_messages(channel, has, stage).values():
        assert not ABOUT & set(message)


# Real viewers


async def two_in_one_write(viewer: BareViewer) -> list[dict[str, Any]]:
    """Read a message and the next one, which must have come with it."""
    first = await viewer.message()
    rest = take_server_frame(viewer.received)
    assert rest is not None, "the second message came by itself"
    assert rest[0] == TEXT
    assert not viewer.received
    return [first, msgspec.json.decode(rest[1])]


async def test_viewers_with_and_without_deltas_are_told_of_an_end(mock_clock: MockClock) -> None:
    """Two messages in one write. Who comes afterwards gets a snapshot only; then all go on as before."""
    stage = Stage({"main": WEEKLY})
    stage.score("ann")
    async with open_site(scoreboard=stage.scoreboard) as site:
        stage.live = site.live
        offer = ("Sec-WebSocket-Protocol", "scoreboard.delta.v1")
        viewers = {"update": await enter(site), "delta": await enter(site, "/ws/scoreboard", offer)}
        stage.score("ben", "ben")
        for kind, viewer in viewers.items():
            assert types_of([await viewer.message()]) == [kind]
        mock_clock.jump(INTERVAL_S)
        stage.pass_to(NEXT_MONDAY_MS)
        for viewer in viewers.values():
            period, snapshot = await two_in_one_write(viewer)
            assert (period["type"], rows_of(period)) == ("scoreboard_period", [("ben", 20), ("ann", 10)])
            assert (snapshot["type"], snapshot["entries"], snapshot["period"]) == (
                "scoreboard_snapshot",
                [],
                "2025-W52",
            )
        viewers["snapshot"] = late = await enter(site)
        mock_clock.jump(INTERVAL_S)
        stage.score("cyd")
        del viewers["snapshot"]
        assert types_of([await late.message()]) == ["update"]
        for kind, viewer in viewers.items():
            assert types_of([await viewer.message()]) == [kind]


@pytest.mark.parametrize("deltas", [True, False])
async def test_a_slow_viewer_is_told_of_the_end_that_it_missed(mock_clock: MockClock, deltas: bool) -> None:
    """Its socket was full; when it reads on, the two messages are the first that it gets after what was on its way."""
    stage = Stage({"main": WEEKLY})
    stage.score(*(f"user-{number}" for number in range(10)))
    async with open_site(scoreboard=stage.scoreboard) as site:
        stage.live = site.live
        offers = [("Sec-WebSocket-Protocol", "scoreboard.delta.v1")] * deltas
        slow = await BareViewer.open(site, *offers, receive_buffer=4096)
        witness = await enter(site)
        await stall(site, mock_clock, witness)
        stage.pass_to(NEXT_MONDAY_MS)
        mock_clock.jump(INTERVAL_S)
        assert types_of(await two_in_one_write(witness)) == ["period", "snapshot"]
        stage.score("zoe")
        mock_clock.jump(INTERVAL_S)
        assert types_of([await witness.message()]) == ["update"]
        while (period := await slow.message())["type"] != "scoreboard_period":
            assert period["period"] == "2025-W51"
        snapshot = await slow.message()
        assert (period["period"], period["count"], len(period["entries"])) == ("2025-W51", 10, 10)
        assert (snapshot["type"], snapshot["period"], rows_of(snapshot)) == (
            "scoreboard_snapshot", "2025-W52", [("zoe", 10)],
        )  # fmt: skip


async def test_a_season_that_is_over_is_told_to_viewers(mock_clock: MockClock) -> None:
    """With its last ranking, twice: as that of the period, and as that of the board, which stays."""
    stage = Stage({"main": SEASON})
    stage.score("ann")
    async with open_site(scoreboard=stage.scoreboard) as site:
        stage.live = site.live
        viewer = await enter(site)
        stage.pass_to(NEXT_MONDAY_MS)
        period, snapshot = await two_in_one_write(viewer)
        assert (period["type"], period["next"], rows_of(period)) == ("scoreboard_period", None, [("ann", 10)])
        assert (snapshot["over"], rows_of(snapshot)) == (True, [("ann", 10)])


# Whole nodes


async def test_viewers_of_a_fed_board_are_told_of_an_action_on_the_board_that_feeds_it(tmp_path: Path) -> None:
    """A whole leader: nobody wrote to the fed board itself."""
    boards = {"cup": BoardRules({"ACTION_COMPLETED": 1}, feeds=("main",)), "main": PLAIN}
    config = replace(config_of(tmp_path / "data", SCOREBOARD_AUTH_PUBLIC_READS="true"), boards=boards)
    shown: list[dict[str, Any]] = []

    async def use(url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        target = "/ws/scoreboard?boardId=main"
        async with (
            trio_websocket.open_websocket(host, int(port), target, use_ssl=False) as viewer,
            client_of(url) as client,
        ):
            shown.append(msgspec.json.decode(await viewer.get_message()))
            action = {"userId": "ann", "actionId": "1", "boardId": "cup"}
            assert (await client.post("/scores/increment", action)).status == 200
            shown.append(msgspec.json.decode(await viewer.get_message()))
        await trio.lowlevel.checkpoint()
        await stop(url)

    assert await serve_and_use(config, use) == 0
    assert [(message["boardId"], rows_of(message)) for message in shown] == [("main", []), ("main", [("ann", 10)])]
