"""The model of the replicated stream does what real servers were seen to do, and a paused process does nothing."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
import trio

from engine.record import Tail
from server.quorum.stream import Origin, PlacePurged, Unanswered
from tests.sim.quorum import cloud as cloud_model
from tests.sim.quorum.cloud import Cloud, CloudStream
from tests.sim.quorum.pauses import Pauses
from tests.sim.quorum.profile import Weather
from tests.sim.quorum.servers import Server, Servers
from tests.sim.runs import run_seeded
from tests.sim.trace import Trace


class Fair(Weather):
    """Nothing is late or lost by chance."""

    def __init__(self) -> None:
        """Take no profile."""

    @property
    def calm(self) -> bool:
        return True

    def delay_s(self) -> float:
        return 0.001

    def sync_s(self) -> float:
        return 0.0


def model(test: Callable[[Cloud], Awaitable[None]]) -> None:
    """Run a test on three servers that have a leader."""

    async def main() -> None:
        weather, counts, trace = Fair(), Counter[str](), Trace()
        async with trio.open_nursery() as world:
            servers = Servers(
                random.Random(1), world, trace, counts, delay_s=weather.delay_s, sync_s=weather.sync_s,
                calm=lambda: True, on_frame=lambda _place, _frame: None,
            )  # fmt: skip
            world.start_soon(servers.run)
            origin = Origin(Tail(bytes(16), 1, 0, 0))
            cloud = Cloud(servers, origin, weather, random.Random(2), world, trace, counts)
            await trio.sleep(2.0)
            await test(cloud)
            world.cancel_scope.cancel()

    run_seeded(1, main)


def leader_of(cloud: Cloud) -> Server:
    return next(server for server in cloud.servers.all if server.leads)


def at_leader(cloud: Cloud, name: str) -> CloudStream:
    """Give a stream that is connected to the leader."""
    stream = cloud.stream(name, f"{name} 1")
    stream.server = leader_of(cloud)
    return stream


async def unanswered(stream: CloudStream, after: int, frame: bytes) -> None:
    with pytest.raises(Unanswered):
        await stream.place(after, frame)


def test_frames_that_were_queued_behind_a_pause_follow_the_frame_of_another_writer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The servers check the place and not the writer: so one frame is in flight, never two."""
    monkeypatch.setattr(cloud_model, "HELD", 1.0)

    async def test(cloud: Cloud) -> None:
        old, new = at_leader(cloud, "old"), at_leader(cloud, "new")
        assert await old.place(0, b"one")
        cloud.servers.cut("old", old.server.name)
        held = old.server
        async with trio.open_nursery() as queue:
            for after, frame in ((1, b"two"), (2, b"three"), (3, b"four")):
                queue.start_soon(unanswered, old, after, frame)
                await trio.sleep(0.01)
                old.server = held
        assert await new.place(1, b"epoch")
        cloud.servers.mend("old", held.name)
        await trio.sleep(3.0)
        frames = [frame for place in (1, 2, 3) for frame in await new.read(place, 1)]
        assert frames == [b"one", b"epoch", b"three"]

    model(test)


def test_a_frame_without_an_answer_is_placed_when_a_majority_is_back() -> None:
    """Nobody sends it again, and what was read in between did not show it."""

    async def test(cloud: Cloud) -> None:
        writer = at_leader(cloud, "writer")
        leader = leader_of(cloud)
        others = [server for server in cloud.servers.all if server is not leader]
        for server in others:
            cloud.servers.stop(server)
        await unanswered(writer, 0, b"late")
        writer.server = leader
        assert await writer.read(1, 1) == ()
        for server in others:
            cloud.servers.go_on(server)
        await trio.sleep(8.0)
        writer.server = leader_of(cloud)
        assert await writer.read(1, 1) == (b"late",)
        assert not await writer.place(0, b"late")

    model(test)


def test_a_leader_that_was_cut_off_answers_with_what_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """It invents nothing, and a place that it refuses counts only if a frame is there."""
    monkeypatch.setattr("tests.sim.quorum.servers.STALE_S", (50.0, 50.0))

    async def test(cloud: Cloud) -> None:
        behind, ahead = at_leader(cloud, "behind"), at_leader(cloud, "ahead")
        assert await ahead.place(0, b"one")
        await trio.sleep(0.5)
        old = leader_of(cloud)
        for server in cloud.servers.all:
            if server is not old:
                cloud.servers.cut(old.name, server.name)
        await trio.sleep(4.0)
        ahead.server = next(server for server in cloud.servers.all if server.leads and server is not old)
        assert await ahead.place(1, b"two")
        behind.server = old
        assert await behind.read(1, 10) == (b"one",)
        assert (await behind.bounds()).last == 1
        await unanswered(behind, 2, b"three")
        behind.server = old
        await unanswered(behind, 1, b"another two")
        cloud.servers.heal()
        await trio.sleep(8.0)
        behind.server = leader_of(cloud)
        assert not await behind.place(1, b"another two")
        assert [frame for place in (1, 2) for frame in await behind.read(place, 1)] == [b"one", b"two"]

    model(test)


def test_a_purge_leaves_the_newest_places() -> None:
    """Who asks for an older one is told where the stream begins."""

    async def test(cloud: Cloud) -> None:
        stream = at_leader(cloud, "node")
        for after in range(3):
            assert await stream.place(after, b"frame %d" % after)
        await stream.purge(3)
        bounds = await stream.bounds()
        assert (bounds.first, bounds.last) == (3, 3)
        with pytest.raises(PlacePurged):
            await stream.read(2, 1)
        assert await stream.place(3, b"next")

    model(test)


def test_a_paused_process_takes_no_step_and_time_goes_on() -> None:
    """When it goes on, its timeouts are over."""

    async def main() -> None:
        pauses, steps = Pauses(), list[float]()
        with pauses.patched():
            async with trio.open_nursery() as process:

                async def work() -> None:
                    for _ in range(4):
                        await trio.sleep(1.0)
                        steps.append(trio.current_time())

                process.start_soon(work)
                await trio.sleep_until(1.5)
                pauses.stop(process)
                assert pauses.is_stopped(process)
                await trio.sleep_until(20.0)
                assert steps == [1.0]
                pauses.go_on(process)
        assert steps == [1.0, 20.0, 21.0, 22.0]

    run_seeded(1, main)
