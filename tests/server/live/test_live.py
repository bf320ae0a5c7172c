"""What viewers of the live channel are shown, over real sockets: snapshots, updates, deltas, and when."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from trio.testing import MockClock

from engine.commands import Command
from server import bounds
from server.settings.config import LiveConfig
from tests.engine.model import increment, put
from tests.server.live.watching import BareViewer, open_site, watch

# What viewers are shown


async def test_a_viewer_begins_with_a_snapshot() -> None:
    """The first message is the current top, in the specification's shape."""
    async with open_site() as site:
        site.score("ann", "bob", "ann")
        site.name("bob", "Bob")
        async with watch(site) as watcher:
            assert await watcher.next() == {
                "type": "scoreboard_snapshot",
                "entries": [
                    {"userId": "ann", "score": 20, "rank": 1},
                    {"userId": "bob", "displayName": "Bob", "score": 10, "rank": 2},
                ],
                "generatedAt": "2025-12-15T12:34:56.000Z",
                "boardId": "main",
                "epoch": 1,
                "seq": 4,
            }


async def test_an_empty_board_can_be_watched() -> None:
    """No entries at seq 0, until somebody scores."""
    async with open_site() as site, watch(site) as watcher:
        snapshot = await watcher.next()
        assert (snapshot["entries"], snapshot["seq"]) == ([], 0)
        site.score("ann")
        update = await watcher.next()
        assert (update["type"], update["entries"]) == ("scoreboard_update", [{"userId": "ann", "score": 10, "rank": 1}])


async def test_a_change_is_shown_to_everybody_at_once() -> None:
    """One increment, one update for each viewer, none of them having asked."""
    async with open_site() as site, watch(site) as one, watch(site, offers=["scoreboard.v1"]) as other:
        await one.next()
        await other.next()
        site.score("ann")
        first, second = await one.next(), await other.next()
        assert first == second
        assert (first["type"], first["seq"], first["entries"]) == ("scoreboard_update", 1, site.shown())


async def test_a_change_below_the_first_ten_is_not_told(mock_clock: MockClock) -> None:
    """Eleventh place is of no interest to viewers, nor does it keep the next change that is from going out at once."""
    async with open_site() as site:
        for number in range(10):
            site.score(f"top-{number}", reason="BIG")
        viewer = await BareViewer.open(site)
        await viewer.message()
        site.score("low")
        site.score("low")
        await trio.testing.wait_all_tasks_blocked()
        assert site.told.ticks == []
        site.score("top-9")
        assert (await viewer.message())["seq"] == 13
        assert site.told.messages == {"snapshot": 1, "update": 1}


async def test_names_and_leaving_are_changes_too() -> None:
    """A new display name is shown; an inactive user disappears, and comes back with the score."""
    async with open_site(LiveConfig(interval_ms=10)) as site, watch(site) as watcher:
        site.score("ann")
        await watcher.catch_up(site.board)
        site.name("ann", "Ann")
        await watcher.catch_up(site.board)
        assert watcher.rows == [{"userId": "ann", "displayName": "Ann", "score": 10, "rank": 1}]
        site.change([put("ann", active=False)])
        await watcher.catch_up(site.board)
        assert watcher.rows == []
        site.change([put("ann", active=True)])
        await watcher.catch_up(site.board)
        assert watcher.rows == site.shown() != []


async def test_each_board_has_its_own_viewers() -> None:
    """What happens on one board is not told on another."""
    async with open_site() as site, watch(site) as main, watch(site, board="weekly") as weekly:
        assert (await main.next())["boardId"] == "main"
        assert (await weekly.next())["boardId"] == "weekly"
        site.score("ann", board="weekly")
        site.score("bob")
        assert [row["userId"] for row in (await main.next())["entries"]] == ["bob"]
        assert [row["userId"] for row in (await weekly.next())["entries"]] == ["ann"]


async def test_changes_within_an_interval_are_told_as_one(mock_clock: MockClock) -> None:
    """After a quiet time the first change goes out at once; those of the next 250 ms wait and are one update."""
    async with open_site() as site:
        viewer = await BareViewer.open(site)
        await viewer.message()
        site.score("ann")
        assert (await viewer.message())["seq"] == 1
        for _ in range(5):
            site.score("ann")
        mock_clock.jump(0.249)
        await trio.testing.wait_all_tasks_blocked()
        assert len(site.told.ticks) == 1
        mock_clock.jump(0.001)
        assert (await viewer.message())["seq"] == 6
        mock_clock.jump(10)
        site.score("ann")
        assert (await viewer.message())["seq"] == 7
        assert site.told.messages == {"snapshot": 1, "update": 3}


async def test_who_comes_between_two_ticks_sees_the_newest_and_no_message_twice(mock_clock: MockClock) -> None:
    """A newcomer gets what the board shows now, and the tick that brings it to the others skips the newcomer."""
    async with open_site() as site:
        early = await BareViewer.open(site)
        await early.message()
        site.score("ann")
        await early.message()
        site.score("ann")
        late = await BareViewer.open(site)
        assert (await late.message())["seq"] == 2
        mock_clock.jump(0.25)
        assert (await early.message())["seq"] == 2
        site.score("ann")
        mock_clock.jump(0.25)
        assert (await early.message())["seq"] == (await late.message())["seq"] == 3


async def test_many_viewers_are_shown_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """More viewers than fit in one slice of a tick all get the update, and only once."""
    monkeypatch.setattr(bounds, "SLICE_VIEWERS", 100)
    count = 2 * bounds.SLICE_VIEWERS + 44
    async with open_site() as site:
        viewers = [await BareViewer.open(site) for _ in range(count)]
        for viewer in viewers:
            await viewer.message()
        site.score("ann")
        frames = {await viewer.frame() for viewer in viewers}
        assert len(frames) == 1
        await site.told.wait(lambda told: told.messages["update"] == count)


# Deltas


async def test_a_delta_viewer_is_told_only_what_changed() -> None:
    """The subprotocol is agreed on; one row moves, and only that row is sent, with the seq that it applies to."""
    async with open_site() as site:
        site.score("ann", "ann", "ann", "bob")
        async with watch(site, offers=["scoreboard.delta.v1"]) as watcher:
            assert watcher.connection.subprotocol == "scoreboard.delta.v1"
            assert (await watcher.next())["type"] == "scoreboard_snapshot"
            site.score("bob")
            message = await watcher.next()
            assert message == {
                "type": "scoreboard_delta",
                "boardId": "main",
                "epoch": 1,
                "baseSeq": 4,
                "seq": 5,
                "changed": [{"userId": "bob", "score": 20, "rank": 2}],
                "left": [],
                "generatedAt": "2025-12-15T12:34:56.000Z",
            }
            assert watcher.rows == site.shown()


async def test_who_has_not_the_state_of_the_last_tick_gets_a_snapshot(mock_clock: MockClock) -> None:
    """A newcomer between two ticks has other rows than the delta applies to."""
    offer = ("Sec-WebSocket-Protocol", "scoreboard.delta.v1")
    async with open_site() as site:
        early = await BareViewer.open(site, offer)
        await early.message()
        site.score("ann")
        assert (await early.message())["type"] == "scoreboard_delta"
        site.score("ann")
        late = await BareViewer.open(site, offer)
        assert (await late.message())["seq"] == 2
        site.score("ann")
        mock_clock.jump(0.25)
        delta, snapshot = await early.message(), await late.message()
        assert (delta["type"], delta["baseSeq"], delta["seq"]) == ("scoreboard_delta", 1, 3)
        assert (snapshot["type"], snapshot["seq"]) == ("scoreboard_snapshot", 3)
        site.score("ann")
        mock_clock.jump(0.25)
        assert await early.frame() == await late.frame()


async def test_a_delta_does_not_cross_epochs() -> None:
    """After a new epoch begins the same seq may mean other rows, so all viewers get a snapshot."""
    async with open_site() as site, watch(site, offers=["scoreboard.delta.v1"]) as watcher:
        await watcher.next()
        site.scoreboard.epoch = 2
        site.score("ann")
        message = await watcher.next()
        assert (message["type"], message["epoch"], message["seq"]) == ("scoreboard_snapshot", 2, 1)


users = st.sampled_from([f"user-{number}" for number in range(14)])
steps = st.lists(
    st.lists(
        st.one_of(
            st.builds(lambda user: ("score", user), users),
            st.builds(lambda user: ("name", user), users),
            st.builds(lambda user: ("off", user), users),
            st.builds(lambda user: ("on", user), users),
        ),
        min_size=1,
        max_size=4,
    ),
    max_size=12,
)


def commands_of(step: list[tuple[str, str]], number: int) -> list[Command]:
    """Turn what hypothesis chose into commands; action ids and names are made unique by `number`."""
    commands: list[Command] = []
    for place, (what, user) in enumerate(step):
        if what == "score":
            commands.append(increment(user, f"{number}-{place}"))
        else:
            name = f"name {number}" if what == "name" else UNSET
            commands.append(put(user, name, UNSET if what == "name" else what == "on"))
    return commands


@settings(max_examples=40, deadline=None)
@given(steps)
async def test_whatever_happens_all_viewers_end_with_the_board(batches: list[list[tuple[str, str]]]) -> None:
    """Two viewers of each format, one of which comes late: whatever messages they get, they end equal to the board."""
    async with open_site(LiveConfig(interval_ms=10)) as site, AsyncExitStack() as stack:
        watchers = [
            await stack.enter_async_context(watch(site, offers=["scoreboard.delta.v1"])),
            await stack.enter_async_context(watch(site)),
        ]
        for number, batch in enumerate(batches):
            site.change(commands_of(batch, number))
            await watchers[0].catch_up(site.board)
            if number == len(batches) // 2:
                watchers.append(await stack.enter_async_context(watch(site, offers=["scoreboard.delta.v1"])))
        for watcher in watchers:
            await watcher.catch_up(site.board)
            if watcher.position != (0, 0):
                assert watcher.rows == site.shown()
