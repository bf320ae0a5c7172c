"""The event feed of a contest: what comes, where a client may go on, what a freeze hides, and how a feed ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from engine.board_rules import BoardRules
from engine.commands import EraseUser, FreezeBoard, UnfreezeBoard
from engine.schedule import Season
from engine.scoreboard import Scoreboard
from engine.traces import Traces
from server import bounds
from server.access.lease import Lease
from server.http.messages import Refused, Response
from server.live import events
from server.live.board_view import BoardView
from server.live.clics import Version
from server.live.editions import NO_EDITION
from server.live.event_feed import is_feed
from server.live.feed_editions import FeedChannel
from server.live.names import NameForm
from server.settings.config import LiveConfig
from tests.engine.model import increment, perform, put
from tests.server.access.leases import Landlord, lease_of
from tests.server.live import contest_rules
from tests.server.live.stage import INTERVAL_S, PLAIN, Stage
from tests.server.live.test_event_stream import Reader
from tests.server.live.watching import NOW_MS, RULES, Site, open_site

FEED = "/feeds/clics/contests/main/event-feed"
SILENCE_SECONDS_MAX = 120.0
"""The specification wants a line within this time."""


class FeedReader(Reader):
    """A client that reads lines."""

    async def line(self) -> bytes:
        return await self._until(b"\n")

    async def event(self) -> tuple[str, Any]:
        """Read the next event, over empty lines: its type, and the data. `token` is its token."""
        while not (line := await self.line()):
            pass
        event = msgspec.json.decode(line)
        contest_rules.check_event(event)
        self.token: str = event["token"]
        return event["type"], event["data"]

    async def all(self) -> dict[str, Any]:
        """Read a whole contest."""
        found = dict([await self.event() for _ in range(3)])
        assert list(found) == ["contest", "teams", "state"]
        return found


@asynccontextmanager
async def reading(site: Site, *headers: str, target: str = FEED) -> AsyncIterator[FeedReader]:
    """Open a feed that is accepted."""
    reader = await FeedReader.open(site, *headers, target=target)
    assert reader.status == 200
    yield reader


async def test_a_feed_begins_with_all_that_there_is() -> None:
    """Contest, teams and state, in the form that the published schema wants."""
    async with open_site() as site:
        site.score("ann", "ben")
        site.name("ann", "Ann")
        async with reading(site) as reader:
            assert reader.headers["content-type"] == "application/x-ndjson"
            assert (reader.headers["cache-control"], reader.headers["connection"]) == ("no-store", "close")
            found = await reader.all()
            assert found["contest"]["id"] == "main"
            assert [team["name"] for team in found["teams"]] == ["Ann", "ben"]
            assert site.told.messages == {"snapshot": 1}


async def test_each_change_of_a_contest_is_told(mock_clock: MockClock) -> None:
    """A user who comes or is renamed, anywhere on the board. Of scores, the state is the sign."""
    async with open_site() as site:
        site.score(*(f"u{number:02}" for number in range(20)))
        async with reading(site) as reader:
            state = (await reader.all())["state"]
            tokens = [reader.token]
            for command in (increment("new", "a1"), put("u15", "Fifteen")):
                site.change([command])
                mock_clock.jump(INTERVAL_S)
                kind, teams = await reader.event()
                assert kind == "teams"
                assert reader.token == tokens[-1], "whoever stops here has not got everything"
                assert await reader.event() == ("state", state)
                tokens.append(reader.token)
            assert {"u15": "Fifteen", "new": "new"}.items() <= {team["id"]: team["name"] for team in teams}.items()
            site.score("u19")
            mock_clock.jump(INTERVAL_S)
            assert await reader.event() == ("state", state)
            tokens.append(reader.token)
            assert len(set(tokens)) == 4


async def test_a_client_goes_on_behind_its_token() -> None:
    """It gets nothing that it has, and everything if anything changed. Any other token is refused with its name."""
    async with open_site() as site:
        site.score("ann")
        async with reading(site) as reader:
            await reader.event()
            early = reader.token
            await reader.event()
            await reader.event()
            newest = reader.token
        async with reading(site, target=f"{FEED}?since_token={newest}") as again:
            await site.told.wait(lambda told: told.count == 2)
            assert site.told.messages == {"snapshot": 1}
            site.score("ann")
            assert (await again.event())[0] == "state"
            later = again.token
        for token in (early, newest):
            async with reading(site, target=f"{FEED}?since_token={token}") as behind:
                assert len(await behind.all()) == 3
        epoch, seq, history, source, started = later.split("-")
        wrong = [
            "", "x", "1", later[1:], f"{later}0", f"2-{seq}-{history}-{source}-{started}",
            f"{epoch}-{int(seq) + 1}-{history}-{source}-{started}", f"{epoch}-{seq}-{'0' * 16}-{source}-{started}",
            f"{epoch}-{seq}-{history}-{'0' * 8}-{started}", f"{epoch}-0{seq}-{history}-{source}-{started}",
        ]  # fmt: skip
        for token in wrong:
            refused = await Reader.open(site, target=f"{FEED}?since_token={token}")
            assert refused.status == 400, token
            assert msgspec.json.decode(await refused.rest())["error"]["details"] == {"field": "since_token"}
        other = await Reader.open(site, target=f"/feeds/clics/contests/weekly/event-feed?since_token={later}")
        assert other.status == 400, "a token of another board"
        await site.told.wait(lambda told: told.count == 4)


async def test_a_silent_feed_gets_empty_lines(mock_clock: MockClock) -> None:
    """Within 120 s, as the specification has it; and nobody is dropped for listening."""
    async with open_site() as site, reading(site) as reader:
        await reader.all()
        assert events.PING_SECONDS + bounds.SWEEP_SECONDS < SILENCE_SECONDS_MAX
        for _ in range(10):
            mock_clock.jump(events.PING_SECONDS + bounds.SWEEP_SECONDS)
            assert await reader.line() == b""
        site.score("ann")
        assert (await reader.event())[0] == "teams"
        assert not site.told.dropped


async def test_a_feed_ends_with_the_server() -> None:
    """After whole lines. New readers are refused meanwhile."""
    async with open_site() as site, reading(site) as reader:
        await reader.all()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site.live.close_all, 30.0)
            assert await reader.rest() == b"\n"
            await reader.stream.aclose()
        late = await Reader.open(site, target=FEED)
        assert (late.status, "retry-after" in late.headers) == (503, True)


async def test_a_feed_ends_with_its_token(mock_clock: MockClock) -> None:
    """A private board shows nothing to a token that is no longer good, and its position to nobody."""
    landlord = Landlord()

    async def authorize(authorization: str | None) -> Response | Lease:
        if authorization != "Bearer good":
            return Refused(401, "UNAUTHORIZED", "A token is needed.").response()
        return lease_of(landlord)

    async with open_site(authorize=authorize) as site:
        for target in (FEED, f"{FEED}?since_token=x"):
            assert (await Reader.open(site, target=target)).status == 401
        async with reading(site, "Authorization: Bearer good") as reader:
            await reader.all()
            landlord.ended = True
            mock_clock.jump(bounds.SWEEP_SECONDS)
            assert await reader.rest() == b"\n"
            assert site.told.dropped == {"expired": 1}


@pytest.mark.parametrize(
    ("target", "headers", "status", "field"),
    [
        ("/feeds/clics/contests/nowhere/event-feed", (), 404, "boardId"),
        ("/feeds/clics/contests/%ff/event-feed", (), 400, "boardId"),
        (f"{FEED}?boardId=main", (), 400, "boardId"),
        (f"{FEED}?since_id=1", (), 400, "since_id"),
        (f"{FEED}?view=x", (), 400, "view"),
        (f"{FEED}?view=live", (), 403, None),
        (FEED, ("Content-Length: 5",), 400, "Content-Length"),
        (FEED, ("Origin: https://evil.example",), 403, "origin"),
    ],
)
async def test_a_wrong_request_is_refused(
    target: str, headers: tuple[str, ...], status: int, field: str | None
) -> None:
    """With an ordinary answer that names the field."""
    async with open_site(LiveConfig(allowed_origins=("https://game.example",))) as site:
        reader = await Reader.open(site, *headers, target=target)
        assert reader.status == status
        details = msgspec.json.decode(await reader.rest())["error"]["details"]
        assert field in {details.get("field"), *details, None}
        assert site.told.count == 0


async def test_readers_share_the_places_of_viewers() -> None:
    """The bound is one for all forms of the live channel."""
    async with open_site(LiveConfig(max_viewers=1)) as site, reading(site):
        assert (await Reader.open(site, target=FEED)).status == 503
        assert (await Reader.open(site)).status == 503


async def test_a_contest_has_its_mapped_id(mock_clock: MockClock) -> None:
    """And is found by it, as by the board's own."""
    stage = Stage({"a/b": PLAIN})
    async with open_site(scoreboard=stage.scoreboard) as site:
        stage.live = site.live
        found = []
        for name in ("a%2Fb", "id_c14cddc033f64b9dea80ea675cf280a0"):
            async with reading(site, target=f"/feeds/clics/contests/{name}/event-feed") as reader:
                found.append(await reader.all())
        assert found[0] == found[1]
        assert found[0]["contest"]["id"] == "id_c14cddc033f64b9dea80ea675cf280a0"


async def test_a_freeze_hides_what_happens(mock_clock: MockClock) -> None:
    """The public is told of the freeze, then of nothing until it ends. Who may look is told all the time."""

    async def anybody(_authorization: str | None) -> Response | Lease:
        return lease_of(Landlord())

    stage = Stage({"main": PLAIN})
    stage.score("ann")
    async with open_site(scoreboard=stage.scoreboard, authorize_live=anybody) as site:
        stage.live = site.live
        async with reading(site) as public, reading(site, target=f"{FEED}?view=live") as live:
            await public.all()
            await live.all()
            stage.do(FreezeBoard("main", "ops"))
            mock_clock.jump(INTERVAL_S)
            for reader in (public, live):
                kind, state = await reader.event()
                assert (kind, state["frozen"] is None) == ("state", False)
            frozen = public.token
            stage.score("new")
            mock_clock.jump(INTERVAL_S)
            assert [team["id"] for team in (await live.event())[1]] == ["ann", "new"]
            await live.event()
            async with reading(site, target=f"{FEED}?since_token={frozen}") as late:
                refused = await Reader.open(site, target=f"{FEED}?since_token={live.token}")
                assert refused.status == 400, "a token of the present is not the public's"
                async with reading(site) as new:
                    assert [team["id"] for team in (await new.all())["teams"]] == ["ann"]
                mock_clock.jump(events.PING_SECONDS + bounds.SWEEP_SECONDS)
                for reader in (public, late):
                    assert await reader.line() == b"", "an empty line, and nothing before it"
                stage.do(UnfreezeBoard("main", "ops"))
                mock_clock.jump(INTERVAL_S)
                for reader in (public, late):
                    assert (await reader.event())[0] == "teams"
                    assert (await reader.event())[1]["frozen"] is None


async def test_a_contest_begins_without_an_event(mock_clock: MockClock) -> None:
    """The clock alone changes its state, and readers are told by the sweep."""
    stage = Stage({"main": BoardRules({"ACTION_COMPLETED": 10}, season=Season(NOW_MS + 60_000, None))})
    async with open_site(scoreboard=stage.scoreboard) as site:
        now = [NOW_MS]
        site.live._broadcast._now_ms = lambda: now[0]
        async with reading(site) as reader:
            assert (await reader.all())["state"]["started"] is None
            early = reader.token
            now[0] += 60_000
            mock_clock.jump(bounds.SWEEP_SECONDS)
            kind, state = await reader.event()
            assert (kind, state["started"]) == ("state", "2025-12-15T12:35:56.000Z")
        async with reading(site, target=f"{FEED}?since_token={early}") as again:
            assert (await again.all())["state"] == state


async def test_nothing_is_made_for_nobody(mock_clock: MockClock) -> None:
    """A contest that somebody read once costs a busy board nothing when the reader has gone."""
    async with open_site() as site:
        site.score("ann")
        async with reading(site) as reader:
            await reader.all()
            await reader.stream.aclose()
        await site.told.wait(lambda told: told.count == 0)
        channel = site.live._broadcast._channels[BoardView("main", as_contest=True)]
        made = channel.published.number
        site.score("ben")
        mock_clock.jump(INTERVAL_S + bounds.SWEEP_SECONDS)
        await trio.testing.wait_all_tasks_blocked()
        assert (channel.published.number, channel.is_behind) == (made, True)
        async with reading(site) as late:
            assert [team["id"] for team in (await late.all())["teams"]] == ["ann", "ben"]


# Editions, without sockets


def channel_of(scoreboard: Scoreboard, form: NameForm = "shown", version: Version = "2023-06") -> FeedChannel:
    return FeedChannel(BoardView("main", as_contest=True), scoreboard, lambda: NOW_MS, version, form)


def kinds(channel: FeedChannel, has: int) -> list[str]:
    """The types of the events to a viewer that has an edition."""
    lines = channel.published.for_viewer(has, deltas=False, as_event=True).frame.splitlines()
    return [msgspec.json.decode(line)["type"] for line in lines]


def test_who_missed_an_edition_gets_everything() -> None:
    """A slow reader is brought to the newest state, and nothing in between is kept for it."""
    scoreboard = Scoreboard(RULES)
    channel = channel_of(scoreboard)
    numbers = [channel.publish().number]
    for user in ("ann", "ben", "ann"):
        perform(scoreboard, [increment(user, f"{user}-{len(numbers)}")])
        assert channel.is_behind
        numbers.append(channel.publish().number)
        assert not channel.is_behind
    assert kinds(channel, numbers[-2]) == ["state"]
    assert kinds(channel, numbers[-3]) == kinds(channel, NO_EDITION) == ["contest", "teams", "state"]


@pytest.mark.parametrize(("form", "name"), [("shown", "Ann Lee"), ("initials", "A. L."), ("hidden", "ann")])
def test_names_are_those_of_the_public(form: NameForm, name: str) -> None:
    """And a token of one form means nothing to another."""
    scoreboard = Scoreboard(RULES)
    perform(scoreboard, [increment("ann", "a1"), put("ann", "Ann Lee")])
    channel = channel_of(scoreboard, form)
    frame = channel.newest().for_viewer(NO_EDITION, deltas=False, as_event=True).frame
    [team] = msgspec.json.decode(frame.splitlines()[1])["data"]
    assert team["name"] == name
    assert (b"Lee" in frame) == (form == "shown")
    others = {channel_of(scoreboard, each, version).newest().source
              for each in ("shown", "initials", "hidden") for version in ("2023-06", "2026-01")}  # fmt: skip
    assert len(others) == 6


def test_no_line_names_who_was_erased() -> None:
    """The teams come again without the user: nothing says which one is gone."""
    stage = Stage({"main": PLAIN})
    stage.score("ann", "gone")
    channel = channel_of(stage.scoreboard)
    has = channel.publish().number
    seq = stage.scoreboard.seq
    traces = Traces("gone", seq)
    traces.actions, traces.is_present = [seq], True
    stage.do(EraseUser("gone", "dpo", traces))
    channel.publish()
    assert kinds(channel, has) == ["teams", "state"]
    for before in (has, NO_EDITION):
        assert b"gone" not in channel.published.for_viewer(before, deltas=False, as_event=True).frame


@pytest.mark.parametrize(
    ("path", "is_one"),
    [(FEED, True), ("/feeds/clics/contests/a%2Fb/event-feed", True), ("/feeds/clics/contests/a/b/event-feed", False),
     (f"{FEED}/", False), ("/feeds/clics/contests//event-feed", False), (f"/x{FEED}", False)],
)  # fmt: skip
def test_the_path_has_one_contest(path: str, is_one: bool) -> None:
    """Paths come without a slash at the end."""
    assert is_feed(path) is is_one
