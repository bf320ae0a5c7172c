"""What hits a quorum: each kind of blow does its harm, and waits. `QuorumCluster.heal` mends what it broke.

    blow = KINDS["kill leader node"]
    whom = await blow(Scene(cluster, told, dice, seconds=6.0))

Rules:
- A blow returns when its time is over; things may be broken still.
- What a cut does is drawn: the wires carry nothing (packets are lost, and come late), or they close and refuse.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import trio

from server.quorum.nats_api import log_subject
from tests.cluster.callers import Acknowledged
from tests.cluster.quorum_cluster import FAKETIME, NODES, SERVERS, STRACE, STREAM, QuorumCluster
from tests.cluster.wires import Wire

HOUR_SECONDS = 3_600
DELAY_SECONDS = (0.02, 0.15)
"""For each piece, one after the other: such a wire is slow and narrow."""

_PUBLISH = f"HPUB {log_subject(STREAM)} ".encode()


@dataclass(frozen=True)
class Scene:
    """Where a blow falls, and for how long."""

    cluster: QuorumCluster
    told: Acknowledged
    dice: random.Random
    seconds: float

    @property
    def leader(self) -> str:
        """The node that acknowledged last."""
        return self.told.leader

    @property
    def standbys(self) -> list[str]:
        """The other nodes."""
        return [name for name in NODES if name != self.leader]

    async def followers(self) -> list[str]:
        """The servers that do not lead the stream."""
        first = (await self.cluster.stream_leader()).name
        return [name for name in SERVERS if name != first]

    async def hold(self) -> None:
        """Let time pass."""
        await trio.sleep(self.seconds)

    def cut(self, wires: Iterable[Wire]) -> str:
        """Cut wires in one of two ways; say which."""
        stalls = self.dice.random() < 0.5
        for wire in wires:
            if stalls:
                wire.stall()
            else:
                wire.refuse()
        return "silent" if stalls else "closed"


Blow = Callable[[Scene], Awaitable[str]]


async def _kill_leader(scene: Scene) -> str:
    whom = scene.leader
    await scene.cluster.nodes[whom].kill()
    await trio.sleep(scene.dice.uniform(0.2, scene.seconds))
    await scene.cluster.start_nodes(whom)
    return whom


async def _pause_leader(scene: Scene) -> str:
    whom = scene.leader
    scene.cluster.nodes[whom].pause()
    await scene.hold()
    return whom


async def _kill_server_leader(scene: Scene) -> str:
    server = await scene.cluster.stream_leader()
    server.kill()
    await scene.hold()
    return server.name


async def _pause_server_leader(scene: Scene) -> str:
    server = await scene.cluster.stream_leader()
    server.pause()
    await scene.hold()
    return server.name


async def _kill_both(scene: Scene) -> str:
    server, whom = await scene.cluster.stream_leader(), scene.leader
    server.kill()
    await scene.cluster.nodes[whom].kill()
    await scene.hold()
    return f"{whom} and {server.name}"


async def _pause_both(scene: Scene) -> str:
    server, whom = await scene.cluster.stream_leader(), scene.leader
    server.pause()
    scene.cluster.nodes[whom].pause()
    await scene.hold()
    return f"{whom} and {server.name}"


async def _kill_follower(scene: Scene) -> str:
    name = scene.dice.choice(await scene.followers())
    scene.cluster.servers[name].kill()
    await scene.hold()
    return name


async def _pause_follower(scene: Scene) -> str:
    name = scene.dice.choice(await scene.followers())
    scene.cluster.servers[name].pause()
    await scene.hold()
    return name


async def _kill_standby(scene: Scene) -> str:
    name = scene.dice.choice(scene.standbys)
    await scene.cluster.nodes[name].kill()
    await scene.hold()
    return name


async def _pause_standby(scene: Scene) -> str:
    name = scene.dice.choice(scene.standbys)
    scene.cluster.nodes[name].pause()
    await scene.hold()
    return name


async def _lose_directory(scene: Scene) -> str:
    """Kill the leader or a standby, and take its directory away: it begins anew from another node's snapshot."""
    node = scene.cluster.nodes[scene.dice.choice(NODES)]
    await node.kill()
    shutil.rmtree(node.directory)
    await trio.sleep(scene.dice.uniform(0.0, scene.seconds))
    return node.name


async def _cut_leader(scene: Scene) -> str:
    """Cut the leader off from all servers."""
    whom = scene.leader
    how = scene.cut(scene.cluster.between({whom}, set(SERVERS)))
    await scene.hold()
    return f"{whom}, {how}"


async def _cut_minority(scene: Scene) -> str:
    """Leave the leader alone with one server, perhaps the one that leads the stream."""
    whom, server = scene.leader, scene.dice.choice(SERVERS)
    ours = {whom, server}
    how = scene.cut(scene.cluster.between(ours, {*NODES, *SERVERS} - ours))
    await scene.hold()
    return f"{whom} with {server}, {how}"


async def _cut_server_leader(scene: Scene) -> str:
    """Cut the stream's leader off from the other servers; all nodes still reach it."""
    server = (await scene.cluster.stream_leader()).name
    how = scene.cut(scene.cluster.between({server}, set(SERVERS) - {server}))
    await scene.hold()
    return f"{server}, {how}"


async def _cut_two(scene: Scene) -> str:
    """Cut between any two that have a wire."""
    one, other = scene.dice.choice(sorted(scene.cluster.wires))
    how = scene.cut(scene.cluster.between({one}, {other}))
    await scene.hold()
    return f"{one} and {other}, {how}"


async def _delay_all(scene: Scene) -> str:
    """Make all wires of the leader, and those between servers, slow."""
    whom, delay_s = scene.leader, scene.dice.uniform(*DELAY_SECONDS)
    for wire in [*scene.cluster.between({whom}, set(SERVERS)), *scene.cluster.between(set(SERVERS), set(SERVERS))]:
        wire.delay_seconds = delay_s
    await scene.hold()
    return f"{whom} and the servers, by {delay_s:.2f} s"


async def _slow_disk(scene: Scene) -> str:
    """Slow the syncs of the stream's leader, of another server, or of the node that leads."""
    server = await scene.cluster.stream_leader()
    other = scene.dice.choice(await scene.followers())
    whom = scene.dice.choice((server.name, other, scene.leader))
    if whom in NODES:
        scene.cluster.slow(scene.cluster.nodes[whom].pid)
    else:
        process = scene.cluster.servers[whom].process
        assert process is not None
        scene.cluster.slow(process.pid)
    await scene.hold()
    return whom


async def _step_clocks(scene: Scene) -> str:
    """Step the leader's clock by an hour, and a standby's the other way; then kill the leader."""
    hours = scene.dice.choice((1, -1))
    whom, other = scene.leader, scene.dice.choice(scene.standbys)
    scene.cluster.nodes[whom].set_clock(hours * HOUR_SECONDS)
    scene.cluster.nodes[other].set_clock(-hours * HOUR_SECONDS)
    await trio.sleep(scene.seconds / 2)
    await scene.cluster.nodes[whom].kill()
    await scene.hold()
    return f"{whom} by {hours:+d} h, {other} by {-hours:+d} h"


async def _kill_all_servers(scene: Scene) -> str:
    scene.cluster.servers.end()
    await trio.sleep(scene.dice.uniform(0.0, scene.seconds / 2))
    scene.cluster.servers.start()
    await trio.sleep(0.1)
    return "all"


async def _lose_answer(scene: Scene) -> str:
    """Lose the answer to the leader's next frame. Then the connection ends, or the leader dies."""
    whom, dies = scene.leader, scene.dice.random() < 0.5
    lost = lose_next_answer(scene.cluster.between({whom}, set(SERVERS)))
    with trio.fail_after(scene.seconds + 60.0):
        wire = await lost
    await trio.sleep(scene.dice.uniform(0.0, 1.5))
    if dies:
        await scene.cluster.nodes[whom].kill()
    else:
        wire.change = None
        wire.cut()
    await scene.hold()
    return f"{whom}, which {'died' if dies else 'was cut off'}"


async def _lose_epoch(scene: Scene) -> str:
    """Kill the leader, and lose the answer to the next epoch's record. Then the node that bid is cut off, or dies."""
    dies = scene.dice.random() < 0.5
    lost = lose_next_answer(scene.cluster.between(set(scene.standbys), set(SERVERS)))
    whom = scene.leader
    await scene.cluster.nodes[whom].kill()
    with trio.fail_after(scene.seconds + 60.0):
        wire = await lost
    bidder = wire.name.partition(" ")[0]
    await trio.sleep(scene.dice.uniform(0.0, 1.5))
    if dies:
        await scene.cluster.nodes[bidder].kill()
    else:
        wire.change = None
        wire.cut()
    await scene.hold()
    return f"{whom} died; {bidder} bid and {'died' if dies else 'was cut off'}"


def lose_next_answer(wires: Iterable[Wire]) -> Awaitable[Wire]:
    """From the next frame on that one of these wires carries, lose all that comes back on it; give that wire."""
    found: list[Wire] = []
    came = trio.Event()
    all_wires = list(wires)

    def watch(wire: Wire) -> Callable[[bytes], None]:
        kept = bytearray()

        def look(data: bytes) -> None:
            kept.extend(data)
            if _PUBLISH in kept and not found:
                found.append(wire)
                wire.change = lambda _data: b""
                for one in all_wires:
                    one.on_forth = None
                came.set()
            del kept[: -len(_PUBLISH)]

        return look

    for wire in all_wires:
        wire.on_forth = watch(wire)

    async def wait() -> Wire:
        await came.wait()
        return found[0]

    return wait()


KINDS: dict[str, Blow] = {
    "kill leader node": _kill_leader,
    "pause leader node": _pause_leader,
    "kill stream leader": _kill_server_leader,
    "pause stream leader": _pause_server_leader,
    "kill both leaders": _kill_both,
    "pause both leaders": _pause_both,
    "kill follower server": _kill_follower,
    "pause follower server": _pause_follower,
    "kill standby": _kill_standby,
    "pause standby": _pause_standby,
    "lose a directory": _lose_directory,
    "cut leader off": _cut_leader,
    "cut leader with a minority": _cut_minority,
    "cut stream leader off": _cut_server_leader,
    "cut any two": _cut_two,
    "slow wires": _delay_all,
    "slow disk": _slow_disk,
    "clocks": _step_clocks,
    "kill all servers": _kill_all_servers,
    "lose a frame's answer": _lose_answer,
    "lose an epoch's answer": _lose_epoch,
}

PAUSES = tuple(kind for kind in KINDS if kind.startswith("pause"))


def missing() -> dict[str, str]:
    """The kinds that this machine can't have, and why."""
    without = {"slow disk": STRACE is None and "no strace", "clocks": FAKETIME is None and "no libfaketime"}
    return {kind: reason for kind, reason in without.items() if reason}
