"""The epoch notifier: a node hears of a newer epoch as soon as it can be reached, also through relays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from engine.record import Tail
from server.replication.epoch_notifier import EpochNotifier
from server.replication.link import parse_leader
from server.replication.messages import Hello, hello_of
from server.replication.sharding import Shard
from snapshots.promotion import Successor
from tests.cluster.wires import Wire
from tests.server.replication.network import QUICK, TOKEN, Leader, Served, at_once, open_replica, patience, start

NEW = "http://192.0.2.7:8080"


def notifier_to(url: str) -> EpochNotifier:
    """Make a notifier that does not wait between attempts."""
    return EpochNotifier(parse_leader(url), token=lambda: TOKEN, timing=QUICK, uniform=at_once)


def word(leader: Leader, epoch: int, address: str | None = NEW) -> Hello:
    """Give the hello of the leader of this epoch."""
    return hello_of(msgspec.structs.replace(leader.writer.log.tail, epoch=epoch), None, address)


@asynccontextmanager
async def out_of_reach(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[tuple[Leader, Wire]]:
    """A leader behind a wire that refuses."""
    leader = Leader(tmp_path / "leader")
    leader.play(2)
    async with leader.open():
        wire = Wire("leader", leader.port)
        await nursery.start(wire.run)
        wire.refusing = True
        yield leader, wire


async def heard(leader: Leader, count: int) -> None:
    """Wait until the leader was told this often."""
    while len(leader.deposed) < count:
        await trio.lowlevel.checkpoint()


async def test_a_node_that_is_out_of_reach_is_told_when_it_is_not(tmp_path: Path) -> None:
    """It is told again and again until it has heard, and not once more."""
    async with patience() as nursery, out_of_reach(tmp_path, nursery) as (leader, wire):
        notifier = notifier_to(wire.url)
        notifier.tell(word(leader, 2), nursery)
        while wire.connections < 3:
            await trio.lowlevel.checkpoint()
        assert leader.deposed == []
        wire.refusing = False
        await heard(leader, 1)
        notifier.tell(word(leader, 2), nursery)
        notifier.tell(word(leader, 3), nursery)
        await heard(leader, 2)
        assert leader.deposed == [Successor(2, NEW), Successor(3, NEW)]


async def test_of_what_could_not_be_told_yet_the_highest_epoch_is(tmp_path: Path) -> None:
    """There is one task for all hellos. One of an older epoch comes too late."""
    async with patience() as nursery, out_of_reach(tmp_path, nursery) as (leader, wire):
        notifier = notifier_to(wire.url)
        tasks = len(nursery.child_tasks)
        for epoch in (2, 5, 3):
            notifier.tell(word(leader, epoch), nursery)
        assert len(nursery.child_tasks) == tasks + 1
        wire.refusing = False
        await heard(leader, 1)
        assert leader.deposed == [Successor(5, NEW)]


async def test_a_relay_passes_the_word_on(tmp_path: Path) -> None:
    """The promoted replica followed the relay and does not know the leader. The relay has no leader afterwards."""
    leader = Leader(tmp_path / "leader")
    leader.play(5)
    async with patience() as nursery, leader.open():
        relay = await open_replica(tmp_path / "relay", leader.url)
        running = await start(nursery, relay.follower)
        await running.reaches(leader.seq)
        notifier = notifier_to(leader.url)
        served = Served(
            relay.directory,
            relay.opened.scoreboard,
            relay.log,
            relay.feed,
            relays=True,
            on_newer=lambda hello: notifier.tell(hello, nursery),
        )
        async with served.open():
            notifier_to(served.url).tell(word(leader, 2), nursery)
            await heard(leader, 1)
            await running.is_in("refused_older_leader")
        assert leader.deposed == [Successor(2, NEW)]
        assert NEW in relay.follower.status().reason
        assert served.deposed == []


async def test_an_address_that_is_of_no_use_there_is_left_out() -> None:
    """That is the loopback of another machine. The shard is left out too, because the sender does not follow."""
    async with trio.open_nursery() as nursery:
        for host, leader in (("192.0.2.9", None), ("127.0.0.1", "http://127.0.0.1:8080")):
            notifier = notifier_to(f"http://{host}:9")
            tail = Tail(bytes(16), 2, 5, 0)
            notifier.tell(hello_of(tail, Shard(1, 2), "http://127.0.0.1:8080"), nursery)
            assert notifier._word is not None
            assert notifier._word.hello == hello_of(tail, None, leader)
        nursery.cancel_scope.cancel()
