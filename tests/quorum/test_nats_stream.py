"""The log on three real servers of NATS: places, reads, purges, beats; servers that die, and answers that get lost."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
import trio

from engine.record import Tail, chain_start
from server.quorum import nats_api as api
from server.quorum import nats_limits as limits
from server.quorum.nats_client import NatsClient, Question, opened
from server.quorum.nats_connection import NatsOptions
from server.quorum.nats_setup import create, seal
from server.quorum.nats_stream import NatsStream
from server.quorum.stream import Origin, PlacePurged, StreamRefused, Unanswered
from tests.cluster.wires import Wire
from tests.quorum.patience import beat, got, put, until_placed
from tests.quorum.servers import ALARM_SECONDS, Cluster

LOG_ID = bytes(range(16))
ORIGIN = Origin(Tail(LOG_ID, 3, 1_000, chain_start(LOG_ID)))
_numbers = count(1)


async def made(cluster: Cluster, **more: Any) -> NatsOptions:
    """Make the streams of a log of their own; give the options that name them."""
    options = NatsOptions(servers=cluster.urls, stream=f"log-{next(_numbers)}", **more)
    async with opened(options, name="init", uniform=random.uniform) as client:
        await create(client, options, ORIGIN)
    return options


@asynccontextmanager
async def open_stream(cluster: Cluster, **more: Any) -> AsyncIterator[NatsStream]:
    async with NatsStream.open(await made(cluster, **more), name="node") as stream:
        yield stream


async def test_frames_get_places_in_turn_and_are_read_as_they_were(cluster: Cluster) -> None:
    """A place that is taken is refused, whoever has it, and so is one that is not the next."""
    frames = [b"\x00\r\n" * 3, b"", b"b" * 1_000_000, *(b"%d" % n for n in range(100))]
    async with open_stream(cluster) as stream:
        assert stream.origin == ORIGIN
        bounds = await stream.bounds()
        assert (bounds.first, bounds.last) == (1, 0)
        assert len(bounds.servers) == 2
        assert await got(stream, 1, 10) == []
        await put(stream, 0, frames[0])
        for after, frame in enumerate(frames[1:], 1):
            assert await stream.place(after, frame)
        assert not await stream.place(102, b"again")
        assert not await stream.place(0, frames[0])
        with pytest.raises(Unanswered, match="up to 103 refused place 111"):
            await stream.place(110, b"ahead")
        assert await got(stream, 1, 1_000) == frames
        assert await got(stream, 2, 3) == frames[1:4]
        assert await got(stream, 104, 5) == []
        ends = await stream.bounds()
        assert (ends.first, ends.last) == (1, 103)
        assert ends.bytes > 1_000_000


async def test_a_read_stops_at_its_bound(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer frames than asked for do not mean that the stream ends."""
    monkeypatch.setattr(limits, "READ_BYTES_MAX", 250)
    async with open_stream(cluster) as stream:
        for after in range(10):
            await put(stream, after, b"x" * 100)
        assert len(await stream.read(1, 10)) == 3
        assert len(await stream.read(9, 10)) == 2


async def test_purged_frames_are_gone_and_say_so(cluster: Cluster) -> None:
    """Places go on as before, also if nothing is left."""
    async with open_stream(cluster) as stream:
        for after in range(5):
            await put(stream, after, b"%d" % after)
        await stream.purge(4)
        with pytest.raises(PlacePurged) as purged:
            await stream.read(2, 10)
        assert (purged.value.place, purged.value.first) == (2, 4)
        assert await got(stream, 4, 10) == [b"3", b"4"]
        assert not await stream.place(0, b"taken, and purged")
        await stream.purge(6)
        ends = await stream.bounds()
        assert (ends.first, ends.last) == (6, 5)
        assert await got(stream, 6, 10) == []
        await put(stream, 5, b"next")
        assert await got(stream, 6, 10) == [b"next"]


async def heard(stream: NatsStream, wanted: set[bytes]) -> None:
    """Wait until a node has heard all of these."""
    with trio.fail_after(ALARM_SECONDS):
        while wanted:
            wanted = wanted - {await stream.hear()}


async def test_all_nodes_hear_beats_and_words(cluster: Cluster) -> None:
    """Our own too. The servers tell each other who listens, so the first ones may get lost: nodes say them again."""
    options = await made(cluster)
    async with (
        NatsStream.open(options, name="a") as one,
        NatsStream.open(options, name="b") as two,
        trio.open_nursery() as nursery,
    ):

        async def talk() -> None:
            while True:
                await beat(one, b"beat")
                two.say(b"word")
                await trio.sleep(0.05)

        nursery.start_soon(talk)
        await heard(one, {b"beat", b"word"})
        await heard(two, {b"beat", b"word"})
        nursery.cancel_scope.cancel()


async def test_old_words_are_dropped_if_nobody_listens(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WORDS_MAX", 3)
    async with open_stream(cluster) as stream:
        await beat(stream, b"first")
        for number in range(6):
            await stream.beat(b"%d" % number)
        assert [await stream.hear() for _ in range(3)] == [b"3", b"4", b"5"]


async def test_after_a_lost_answer_the_same_bytes_tell_who_has_the_place(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frame was placed; sent again it is refused, and read back it is ours."""
    async with open_stream(cluster, publish_timeout_s=0.3) as stream:
        await put(stream, 0, b"first")
        end = Question.end
        monkeypatch.setattr(Question, "end", lambda question, _outcome: question)
        with pytest.raises(Unanswered):
            await stream.place(1, b"ours")
        monkeypatch.setattr(Question, "end", end)
        assert not await until_placed(stream, 1, b"ours")
        assert await got(stream, 2, 1) == [b"ours"]
        await put(stream, 2, b"third")


async def test_without_a_quorum_nothing_is_known_until_there_is_one(cluster: Cluster) -> None:
    """The first server refuses the second attempt, because of the first one. That is no "no": nothing is there yet."""
    async with open_stream(cluster, publish_timeout_s=0.3) as stream:
        await put(stream, 0, b"first")
        leader = await cluster.stream_leader(stream._name)
        followers = [server for server in cluster.servers.values() if server is not leader]
        options = NatsOptions(servers=[leader.url], stream=stream._name, publish_timeout_s=0.3)
        async with NatsStream.open(options, name="at the leader") as minority:
            for follower in followers:
                follower.pause()
            for _ in range(3):
                with pytest.raises(Unanswered):
                    await minority.place(1, b"ours")
            with pytest.raises(Unanswered):
                await minority.beat(b"I lead")
            for follower in followers:
                follower.resume()
            taken = await until_placed(minority, 1, b"ours")
        await cluster.wait_ready()
        assert await got(stream, 2, 5) == [b"ours"]
        assert not taken, "the first attempt was applied later, so a later one found its place taken"
        assert await until_placed(stream, 2, b"third")


@pytest.mark.parametrize("which", ["a follower", "the stream's leader"])
async def test_a_server_is_killed_and_each_frame_stands_once(cluster: Cluster, which: str) -> None:
    """Frames that were acknowledged are there; one that was not is settled by sending it again."""
    async with open_stream(cluster, publish_timeout_s=0.5) as stream:
        for after in range(5):
            await put(stream, after, b"%d" % after)
        leader = await cluster.stream_leader(stream._name)
        others = [server for server in cluster.servers.values() if server is not leader]
        victim = leader if which == "the stream's leader" else others[0]
        victim.kill()
        for after in range(5, 10):
            await put(stream, after, b"%d" % after)
        assert await got(stream, 1, 20) == [b"%d" % number for number in range(10)]


async def test_all_servers_are_killed_and_the_log_is_there(cluster: Cluster) -> None:
    """Their disks have it. Beats, which are in memory alone, begin anew."""
    async with open_stream(cluster) as stream:
        for after in range(5):
            await put(stream, after, b"%d" % after)
        await beat(stream, b"beat")
        cluster.end()
        with pytest.raises(Unanswered):
            await stream.place(5, b"5")
        cluster.start()
        await put(stream, 5, b"5")
        assert await got(stream, 1, 20) == [b"%d" % number for number in range(6)]
        await beat(stream, b"beat")


async def test_queued_frames_of_a_stopped_writer_are_accepted_after_anothers(cluster: Cluster) -> None:
    """Why one frame is in flight: the place is checked, not the writer.

    A leader sends three frames and is stopped before they leave. Another one takes the first place, for its epoch. Then
    the first frame is refused, and the two behind it are accepted, though their writer is deposed.
    """
    options = await made(cluster)
    async with NatsStream.open(options, name="new leader") as stream, trio.open_nursery() as nursery:
        wire = Wire("old leader", cluster["n1"].port)
        await nursery.start(wire.run)
        through = NatsOptions(servers=[wire.url.replace("http", "nats")], stream=options.stream)
        async with opened(through, name="old leader", uniform=random.uniform) as old:
            wire.stall()
            queued = [await publish(old, options.stream, after) for after in range(3)]
            await put(stream, 0, b"epoch 2")
            wire.mend()
            answers = [(await question.wait(trio.current_time() + ALARM_SECONDS)).payload for question in queued]
        assert [b"wrong last sequence" in answer for answer in answers] == [True, False, False]
        assert await got(stream, 1, 9) == [b"epoch 2", b"stale 1", b"stale 2"]
        nursery.cancel_scope.cancel()


async def test_one_frame_in_flight_of_a_stopped_writer_is_refused(cluster: Cluster) -> None:
    """The same with `place`: what was in flight finds its place taken, and nothing is behind it."""
    options = await made(cluster)
    async with NatsStream.open(options, name="new leader") as stream, trio.open_nursery() as nursery:
        wire = Wire("old leader", cluster["n1"].port)
        await nursery.start(wire.run)
        through = NatsOptions(servers=[wire.url.replace("http", "nats")], stream=options.stream, publish_timeout_s=30)
        async with NatsStream.open(through, name="old leader") as old:
            wire.stall()
            async with trio.open_nursery() as placing:

                async def place() -> None:
                    assert not await old.place(0, b"stale")

                placing.start_soon(place)
                await trio.testing.wait_all_tasks_blocked()
                await put(stream, 0, b"epoch 2")
                wire.mend()
        assert await got(stream, 1, 9) == [b"epoch 2"]
        nursery.cancel_scope.cancel()


async def publish(client: NatsClient, stream: str, after: int) -> Question:
    """Send a frame without waiting for the one before it."""
    headers = ((api.EXPECTED_LAST, str(after)),)
    deadline = trio.current_time() + ALARM_SECONDS
    return await client.ask(api.log_subject(stream), b"stale %d" % after, headers=headers, deadline=deadline)


async def test_a_stream_that_was_made_again_is_not_ours(cluster: Cluster) -> None:
    """Its places begin anew; a node that knew the old one stops."""
    options = await made(cluster)
    async with NatsStream.open(options, name="node") as stream:
        await put(stream, 0, b"first")
        async with opened(options, name="operator", uniform=random.uniform) as client:
            await client.request(f"$JS.API.STREAM.DELETE.{options.stream}")
            await create(client, options, ORIGIN)
        with pytest.raises(StreamRefused, match="was made anew"):
            await until_placed(stream, 1, b"second")
        with pytest.raises(StreamRefused, match="was made anew"):
            await stream.bounds()


async def test_a_stream_that_was_removed_is_noticed(cluster: Cluster) -> None:
    """Nobody answers for it, which could be an election; so it is looked for now and then."""
    options = await made(cluster)
    async with NatsStream.open(options, name="node") as stream:
        async with opened(options, name="operator", uniform=random.uniform) as client:
            await client.request(f"$JS.API.STREAM.DELETE.{options.stream}")
        with pytest.raises(StreamRefused, match="scoreboard quorum init") as refused:
            await until_placed(stream, 0, b"first")
        assert refused.value.key == "quorum.stream"


async def test_a_sealed_stream_is_read_and_takes_nothing(cluster: Cluster) -> None:
    """As an export leaves it. It stays sealed."""
    options = await made(cluster)
    async with NatsStream.open(options, name="node") as stream:
        await put(stream, 0, b"first")
        async with opened(options, name="export", uniform=random.uniform) as client:
            for _ in range(2):
                assert (await seal(client, options.stream)).state.last_seq == 1
        assert await got(stream, 1, 5) == [b"first"]
        with pytest.raises(StreamRefused, match="sealed") as refused:
            await until_placed(stream, 1, b"second")
        assert refused.value.key == "sealed"
        with pytest.raises(StreamRefused):
            await stream.purge(2)
    with pytest.raises(StreamRefused, match="sealed"):
        async with NatsStream.open(options, name="node"):
            pytest.fail("it opened")


async def test_nobody_can_make_a_hole(cluster: Cluster) -> None:
    """Not even an operator, who may do everything else."""
    options = await made(cluster)
    async with NatsStream.open(options, name="node") as stream:
        for after in range(3):
            await put(stream, after, b"%d" % after)
        async with opened(options, name="operator", uniform=random.uniform) as client:
            answer = await client.request(f"$JS.API.STREAM.MSG.DELETE.{options.stream}", b'{"seq":2}')
        assert b"message delete not permitted" in answer.payload
        assert len(await stream.read(1, 5)) == 3
