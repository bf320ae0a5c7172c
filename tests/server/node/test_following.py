"""What a follower says becomes the role of its node: caught up, silent, failed; and the marker of its directory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from structlog.typing import EventDict

from engine.scoreboard import Scoreboard
from server import bounds
from server.node.following import Following, first_role
from server.node.surroundings import Surroundings
from server.replication.follower import Follower
from server.replication.progress import Progress
from server.role import CurrentRole, State
from snapshots.promotion import Marker, read_marker, write_marker
from tests.server.node.worlds import FullDisk, QuietLive, RoomlessDisk, open_world
from tests.snapshots.directories import RULES, InlineDisk

LEADER = "http://leader:1"
SILENCE_S = bounds.STALE_HEARTBEATS * 1.0

pytestmark = pytest.mark.usefixtures("logged")


class Bench:
    """A `Following`, and what it works on. `say` does what the follower does."""

    def __init__(self, world: Surroundings, *, vouched: bool, durable: bool) -> None:
        self.world = world
        self.live = QuietLive()
        self.progress = Progress(Scoreboard(RULES), world.clock_ms)
        self.role = CurrentRole(first_role(LEADER, vouched=vouched), trio.current_time)
        self.following = Following(world, self.role, self.progress, self.live, lambda: ["main"], durable=durable)

    def say(self, state: Any, reason: str = "") -> None:
        """Let the follower come into a state."""
        self.progress.become(state, reason)
        self.following.told(state, reason)

    def hear(self) -> None:
        """Let the leader be heard."""
        self.progress.heard(1, 0)
        self.following.heard()

    def catch_up(self) -> None:
        """Let the follower connect, and catch up."""
        self.say("connecting")
        self.hear()
        self.say("catching_up")
        self.progress.caught_up_once = True
        self.say("following")

    def marker(self) -> Marker | None:
        """The marker of the directory."""
        return read_marker(InlineDisk(), self.world.config.data_dir)


@asynccontextmanager
async def open_bench(
    directory: Path, *, vouched: bool = False, durable: bool = True, disk: InlineDisk | None = None
) -> AsyncIterator[Bench]:
    """A replica's directory, whose marker says nothing yet, and a `Following` for it."""
    async with open_world(directory, disk) as world:
        write_marker(InlineDisk(), str(directory), Marker(LEADER))
        yield Bench(world, vouched=vouched, durable=durable)


async def test_nothing_is_vouched_for_before_the_replica_has_caught_up(tmp_path: Path) -> None:
    """The reason says how far it is; hearing the leader is not enough."""
    async with open_bench(tmp_path) as bench:
        reasons = [bench.role.now.reason]
        for state, reason in (("connecting", ""), ("disconnected", "can't connect"), ("bootstrapping", "")):
            bench.say(state, reason)
            reasons.append(bench.role.now.reason)
        bench.hear()
        assert bench.role.now.state is State.NOT_CAUGHT_UP
        assert reasons == [
            "this replica has not caught up yet (connecting)",
            "this replica has not caught up yet (connecting)",
            "this replica has not caught up yet (disconnected: can't connect)",
            "this replica has not caught up yet (bootstrapping)",
        ]


async def test_a_replica_that_has_caught_up_follows_and_says_so_on_disk(tmp_path: Path) -> None:
    """The marker is what the next start goes by."""
    async with open_bench(tmp_path) as bench:
        bench.catch_up()
        assert (bench.role.now.state, bench.role.now.leader) == (State.FOLLOWING, LEADER)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.marker() == Marker(LEADER, caught_up=True)


async def test_a_directory_that_is_not_kept_is_not_marked(tmp_path: Path) -> None:
    """It is gone at the end."""
    async with open_bench(tmp_path, durable=False) as bench:
        bench.catch_up()
        await trio.testing.wait_all_tasks_blocked()
        assert bench.marker() == Marker(LEADER)


async def test_a_directory_that_is_vouched_for_is_served_from_the_start_on(tmp_path: Path) -> None:
    """It is stale until the leader is heard, and needs no other word in its marker."""
    async with open_bench(tmp_path, vouched=True) as bench:
        states = [bench.role.now.state]
        bench.say("disconnected", "can't connect")
        states.append(bench.role.now.state)
        bench.hear()
        assert [*states, bench.role.now.state] == [State.STALE, State.STALE, State.FOLLOWING]
        bench.say("following")
        await trio.testing.wait_all_tasks_blocked()
        assert bench.marker() == Marker(LEADER), "not written again"


async def test_a_silent_leader_is_noticed_though_nobody_asks(
    tmp_path: Path, logged: list[EventDict], autojump_clock: trio.testing.MockClock
) -> None:
    """Within a quarter of a heartbeat; each word of the leader counts from when it was heard."""
    async with open_bench(tmp_path) as bench:
        await bench.world.tasks.start(bench.following.watch)
        bench.catch_up()
        changes: list[tuple[State, float]] = []
        bench.role.on_change(lambda _, now: changes.append((now.state, trio.current_time())))
        began_s = trio.current_time()
        for _ in range(5):
            await trio.sleep(1.0)
            bench.hear()
        await trio.sleep(SILENCE_S + 0.3)  # never at the instant of a look, whose order with this task is random
        bench.hear()
        await trio.sleep(0.3)
        (stale, stale_at_s), (fresh, _) = changes
        assert (stale, fresh) == (State.STALE, State.FOLLOWING)
        assert 5.0 + SILENCE_S <= stale_at_s - began_s <= 5.0 + SILENCE_S + 0.25
    told = [(line["event"], line["leader"]) for line in logged if line["event"] in ("stale", "fresh")]
    assert told == [("stale", LEADER), ("fresh", LEADER)]


async def test_following_that_failed_is_the_end_of_vouching(tmp_path: Path, logged: list[EventDict]) -> None:
    """For good: whatever is told later changes nothing."""
    async with open_bench(tmp_path) as bench:
        bench.catch_up()
        bench.say("failed", "the histories differ")
        assert (bench.role.now.state, bench.role.now.reason) == (State.FAILED, "the histories differ")
        generation = bench.role.now.generation
        bench.hear()
        bench.say("following")
        assert bench.role.now.generation == generation
    [line] = [line for line in logged if line["event"] == "following" and line["state"] == "failed"]
    assert (line["log_level"], line["reason"]) == ("error", "the histories differ")


@pytest.mark.parametrize("state", [State.PROMOTING, State.LEADING])
async def test_once_a_promotion_has_begun_the_follower_has_no_say(tmp_path: Path, state: State) -> None:
    """Neither its failure nor its leader's word makes the node a replica again."""
    async with open_bench(tmp_path, vouched=True) as bench:
        bench.hear()
        bench.role.become(State.PROMOTING)
        if state is State.LEADING:
            bench.role.become(State.LEADING)
        generation = bench.role.now.generation
        bench.say("failed", "the histories differ")
        bench.say("following")
        bench.hear()
        assert (bench.role.now.state, bench.role.now.generation) == (state, generation)


async def test_viewers_are_shown_the_board_anew_when_a_link_begins(tmp_path: Path) -> None:
    """A fetched snapshot tells of no frames."""
    async with open_bench(tmp_path, vouched=True) as bench:
        for state in ("bootstrapping", "connecting", "catching_up", "following", "disconnected"):
            bench.say(state)
        assert bench.live.changed == [["main"]] * 3


class PlayedFollower:
    """A follower whose run ends when a test lets it."""

    def __init__(self) -> None:
        self.fails = trio.Event()
        self.cancelled = False

    async def run(self) -> None:
        """Wait for the failure."""
        try:
            await self.fails.wait()
        except trio.Cancelled:
            self.cancelled = True
            raise


async def test_viewers_are_sent_away_when_following_fails(tmp_path: Path, logged: list[EventDict]) -> None:
    """What they watch is nobody's history any more."""
    async with open_bench(tmp_path) as bench:
        follower = PlayedFollower()
        await bench.world.tasks.start(partial(bench.following.run, cast(Follower, follower)))
        follower.fails.set()
        await trio.testing.wait_all_tasks_blocked()
        assert bench.live.closed_in_s == [bounds.DRAIN_SECONDS_MAX]
        await bench.following.stop()
    assert "following_failed" in [line["event"] for line in logged]


async def test_stopping_returns_when_nothing_is_applied_any_more(tmp_path: Path) -> None:
    """The follower is cancelled, the viewers stay."""
    async with open_bench(tmp_path) as bench:
        follower = PlayedFollower()
        await bench.world.tasks.start(partial(bench.following.run, cast(Follower, follower)))
        await bench.following.stop()
        assert follower.cancelled
        assert bench.live.closed_in_s == []


async def test_the_marker_waits_for_a_promotion_that_removes_it(tmp_path: Path) -> None:
    """Or it would be written again in a leader's directory."""
    async with open_bench(tmp_path) as bench:
        async with bench.following.marking:
            bench.catch_up()
            await trio.testing.wait_all_tasks_blocked()
            assert bench.marker() == Marker(LEADER)
            (tmp_path / "replica").unlink()
        await trio.testing.wait_all_tasks_blocked()
        assert bench.marker() is None


async def test_a_disk_that_does_not_take_the_marker_ends_the_process(tmp_path: Path) -> None:
    """The role is what it was: the state itself is good."""
    async with open_bench(tmp_path, disk=FullDisk()) as bench:
        bench.catch_up()
        await trio.testing.wait_all_tasks_blocked()
        assert bench.world.shutdown.wanted.is_set()
        assert "No space left" in str(bench.world.shutdown.fault)
        assert bench.role.now.state is State.FOLLOWING


async def test_a_full_disk_gets_the_marker_as_soon_as_there_is_room(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A full disk ends the service: the replica serves meanwhile."""
    disk = RoomlessDisk()
    async with open_bench(tmp_path, disk=disk) as bench:
        bench.catch_up()
        await trio.sleep(10 * bounds.DISK_FULL_RETRY_SECONDS)
        assert not bench.world.shutdown.wanted.is_set()
        disk.full = False
        await trio.sleep(2 * bounds.DISK_FULL_RETRY_SECONDS)
        marker = bench.marker()
        assert marker is not None
        assert marker.caught_up
