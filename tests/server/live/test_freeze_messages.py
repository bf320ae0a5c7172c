"""What viewers are told of a freeze: the public nothing of later moves, the live view all, and who may have that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio_websocket
from trio.testing import MockClock

from engine.commands import FreezeBoard, RevealRows, UnfreezeBoard
from server.http.messages import Response
from server.live import encoding
from server.live.editions import NO_EDITION
from server.live.live import Authorize
from tests.e2e import leader as outside
from tests.server.access.leases import lease_of
from tests.server.live.stage import (
    INTERVAL_S,
    NEXT_MONDAY_MS,
    NOW_MS,
    PLAIN,
    WEEKLY,
    Stage,
    enter,
    rows_of,
    told,
    types_of,
)
from tests.server.live.test_subscriptions import ask
from tests.server.live.watching import BareViewer, Site, open_site
from tests.server.node.test_start import config_of, serve_and_use, stop

# At the channels


def test_a_frozen_board_shows_the_public_nothing_of_later_moves() -> None:
    """The live view goes on. The end of the freeze brings the public to the same rows, as a delta too."""
    stage = Stage({"main": PLAIN})
    public, live = stage.channel(), stage.channel(live=True)
    stage.score("ann")
    stage.do(FreezeBoard("main", "ops"))
    for channel in (public, live):
        assert rows_of(told(channel, NO_EDITION)[0]) == [("ann", 10)]
    frozen = public.published
    stage.score("ben", "ben")
    assert (public.is_behind, live.is_behind) == (False, True)
    assert public.newest() is frozen
    assert rows_of(told(live, NO_EDITION)[0]) == [("ben", 20), ("ann", 10)]
    stage.do(UnfreezeBoard("main", "ops"))
    assert public.is_behind
    [delta] = told(public, frozen.number, deltas=True)
    assert (delta["baseSeq"], delta["left"]) == (frozen.seq, [])
    assert [(row["userId"], row["rank"]) for row in delta["changed"]] == [("ben", 1), ("ann", 2)]


def test_reveals_bring_the_public_on_from_the_last_place_up() -> None:
    """Row by row; with the last one the board is no longer frozen."""
    stage = Stage({"main": PLAIN})
    public = stage.channel()
    stage.score("ann", "ann", "ben")
    stage.do(FreezeBoard("main", "ops"))
    stage.score("ben", "ben", "cyd")
    shown = []
    for _ in range(3):
        has = public.publish().number
        stage.do(RevealRows("main", 1, "ops"))
        [update] = told(public, has)
        shown.append((rows_of(update), update.get("revealed"), "frozenAt" in update))
    assert shown == [
        ([("ann", 20), ("ben", 10), ("cyd", 10)], 1, True),
        ([("ben", 30), ("ann", 20), ("cyd", 10)], 2, True),
        ([("ben", 30), ("ann", 20), ("cyd", 10)], None, False),
    ]


def test_the_end_of_a_period_during_a_freeze_is_told_to_the_public_when_it_ends() -> None:
    """Its last rows are those that the freeze hid. The live view hears of it at once."""
    stage = Stage({"main": WEEKLY})
    public, live = stage.channel(), stage.channel(live=True)
    stage.score("ann")
    stage.do(FreezeBoard("main", "ops"))
    has, live_has = public.publish().number, live.publish().number
    stage.score("ben", "ben")
    stage.pass_to(NEXT_MONDAY_MS)
    assert not public.is_behind
    assert types_of(told(live, live_has)) == ["period", "snapshot"]
    stage.do(UnfreezeBoard("main", "ops"))
    period, snapshot = told(public, has)
    assert (period["period"], rows_of(period)) == ("2025-W51", [("ben", 20), ("ann", 10)])
    assert (snapshot["period"], snapshot["entries"]) == ("2025-W52", [])


def test_a_period_that_ended_before_the_first_viewer_came_is_not_told_after_a_freeze() -> None:
    """The viewer came to a frozen board of the next period; that the freeze ends is no end of a period."""
    stage = Stage({"main": WEEKLY})
    stage.score("ann")
    stage.pass_to(NEXT_MONDAY_MS)
    stage.do(FreezeBoard("main", "ops"))
    public = stage.channel()
    has = public.published.number
    stage.do(UnfreezeBoard("main", "ops"))
    assert types_of(told(public, has)) == ["update"]


def test_an_end_and_a_freeze_between_two_ticks_are_both_told() -> None:
    """The period ended in public, so the freeze after it hides nothing of that."""
    stage = Stage({"main": WEEKLY})
    public = stage.channel()
    stage.score("ann")
    has = public.publish().number
    stage.pass_to(NEXT_MONDAY_MS)
    stage.do(FreezeBoard("main", "ops"))
    period, snapshot = told(public, has)
    assert (period["period"], rows_of(period)) == ("2025-W51", [("ann", 10)])
    assert "frozenAt" in snapshot


# Real viewers


def knowing(token: str) -> Authorize:
    """Let in who has this token."""

    async def authorize(authorization: str | None) -> Any:
        return lease_of() if authorization == f"Bearer {token}" else Response(403, b"{}", code="UNAUTHORIZED")

    return authorize


async def test_a_freeze_hides_moves_from_the_public_and_not_from_the_live_view(mock_clock: MockClock) -> None:
    """Until rows are revealed, or the freeze ends: then both are told the same rows."""
    stage = Stage({"main": PLAIN})
    stage.score("ann")
    async with open_site(scoreboard=stage.scoreboard, authorize_live=knowing("ops")) as site:
        stage.live = site.live
        public = await enter(site)
        live = await enter(site, "/ws/scoreboard?view=live", ("Authorization", "Bearer ops"))
        stage.do(FreezeBoard("main", "ops"))
        for viewer in (public, live):
            assert (await viewer.message())["frozenAt"] == encoding.iso_ms(NOW_MS)
        mock_clock.jump(INTERVAL_S)
        stage.score("ben", "ben", "cyd")
        assert rows_of(await live.message()) == [("ben", 20), ("ann", 10), ("cyd", 10)]
        await public.heard()  # and nothing came before the pong
        assert rows_of_snapshot(await snapshot_of(site)) == [("ann", 10)]
        mock_clock.jump(INTERVAL_S)
        stage.do(RevealRows("main", 1, "ops"))
        revealed = await public.message()
        assert (rows_of(revealed), revealed["revealed"]) == ([("ann", 10), ("cyd", 10)], 1)
        assert (await live.message())["revealed"] == 1
        mock_clock.jump(INTERVAL_S)
        stage.do(UnfreezeBoard("main", "ops"))
        for viewer in (public, live):
            thawed = await viewer.message()
            assert rows_of(thawed) == [("ben", 20), ("ann", 10), ("cyd", 10)]
            assert not {"frozenAt", "revealed"} & set(thawed)


async def snapshot_of(site: Site) -> dict[str, Any]:
    """The first message to a viewer of the public that comes now."""
    viewer = await BareViewer.open(site)
    return await viewer.message()


def rows_of_snapshot(message: dict[str, Any]) -> list[tuple[str, int]]:
    """The rows of a first message."""
    assert types_of([message]) == ["snapshot"]
    return rows_of(message)


async def test_lines_follow_the_view_of_their_connection(mock_clock: MockClock) -> None:
    """A subscriber of the public is told the place that the public sees; one of the live view is told who passed."""
    stage = Stage({"main": PLAIN})
    stage.score("ann", "ann", "ben")
    async with open_site(scoreboard=stage.scoreboard, authorize_live=knowing("ops")) as site:
        stage.live = site.live
        public = await enter(site)
        live = await enter(site, "/ws/scoreboard?view=live", ("Authorization", "Bearer ops"))
        stage.do(FreezeBoard("main", "ops"))
        for viewer in (public, live):
            await viewer.message()
            assert (await ask(viewer, userId="ann"))["rank"] == 1
        mock_clock.jump(INTERVAL_S)
        stage.score("ben", "ben")
        assert rows_of(await live.message())[0] == ("ben", 30)
        line = await live.message()
        assert (line["type"], line["rank"], [row["userId"] for row in line["overtaken"]]) == (
            "scoreboard_user", 2, ["ben"],
        )  # fmt: skip
        await public.heard()  # and nothing came before the pong
        again = await ask(public, userId="ann")
        assert (again["rank"], again["gapToNext"], again["overtaken"]) == (1, None, [])
        mock_clock.jump(INTERVAL_S)
        stage.do(UnfreezeBoard("main", "ops"))
        assert types_of([await public.message()]) == ["update"]
        line = await public.message()
        assert (line["type"], line["rank"], line["gapToNext"]) == ("scoreboard_user", 2, 10)


# Whole nodes


async def status_of(url: str, target: str, *scopes: str) -> int:
    """The status with which a viewer is answered; the token has these scopes, if there are any."""
    host, port = url.removeprefix("http://").split(":")
    headers = [(b"authorization", f"Bearer {outside.token(*scopes)}".encode())] if scopes else []
    try:
        async with trio_websocket.open_websocket(host, int(port), target, use_ssl=False, extra_headers=headers):
            return 101
    except trio_websocket.ConnectionRejected as rejected:
        return int(rejected.status_code)


async def test_the_live_view_needs_a_token_that_may_read_scores(tmp_path: Path) -> None:
    """Also where the boards are public: 401 without a token, 403 with one that only writes."""
    found: list[int] = []

    async def use(url: str) -> None:
        found.append(await status_of(url, "/ws/scoreboard"))
        found.extend([await status_of(url, "/ws/scoreboard?view=live", *scopes) for scopes in SCOPES])
        await stop(url)

    assert await serve_and_use(config_of(tmp_path / "data", SCOREBOARD_AUTH_PUBLIC_READS="true"), use) == 0
    assert found == [101, 401, 403, 101]


SCOPES: list[tuple[str, ...]] = [(), ("scores:write",), ("scores:read",)]
