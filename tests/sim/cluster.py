"""The replicas of a simulated run, and the roads between all nodes. A run without replicas has an empty one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from engine.disk import Disk
from tests.sim.books import Books
from tests.sim.disk import SimulatedDisk
from tests.sim.hardware import Hardware
from tests.sim.node import Node
from tests.sim.profile import Following
from tests.sim.replica import Replica
from tests.sim.roads import Roads
from tests.sim.screens import Viewer
from tests.sim.trace import Trace


class Cluster:
    """See above. `dice` makes a generator for each purpose, `wrap` is of the variant."""

    def __init__(
        self,
        following: Following,
        dice: Callable[[str], random.Random],
        wrap: Callable[[SimulatedDisk], Disk],
        books: Books,
        trace: Trace,
    ) -> None:
        self.replicas: list[Replica] = []
        self._roads = Roads(following, dice("roads"), books, trace)
        if following.machines:
            trace.note("following", following)
        for number, machine in enumerate(following.machines, 1):
            follows = self.replicas[-1].node.name if self.replicas and following.chained else "leader"
            self.replicas.append(Replica(f"replica-{number}", follows, machine, dice, wrap, books, trace))

    @property
    def viewers(self) -> list[Viewer]:
        """Those who watch the replicas."""
        return [replica.viewer for replica in self.replicas]

    @contextmanager
    def reaching(self, leader: Node) -> Iterator[None]:
        """Have nodes reach each other."""
        self._roads.nodes |= {node.name: node for node in [leader, *[replica.node for replica in self.replicas]]}
        with self._roads.patched():
            yield

    def begin(self, world: trio.Nursery) -> None:
        """Let all replicas live."""
        for replica in self.replicas:
            replica.begin(world)

    async def caught_up(self, leader: Node, hardware: Hardware) -> None:
        """Wait until all of them are as the leader is. `hardware` is the leader's."""
        if self.replicas:
            hardware.mend()
        for replica in self.replicas:
            await replica.caught_up(leader)

    async def close(self) -> None:
        """Stop all replicas in good order."""
        for replica in self.replicas:
            await replica.node.close()

    def look_at_the_disks(self) -> None:
        """Open what they left."""
        for replica in self.replicas:
            replica.look_at_the_disk()
