"""The replicas of a simulated run, and the roads between all nodes. A run without replicas has an empty one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from engine.disk import Disk
from tests.sim.aftermath import Aftermath
from tests.sim.books import Books
from tests.sim.clocks import WallClock
from tests.sim.disk import SimulatedDisk
from tests.sim.erasures import Auditor
from tests.sim.hardware import Hardware
from tests.sim.mishaps import lose
from tests.sim.node import Node
from tests.sim.process import DATA
from tests.sim.profile import Following
from tests.sim.replica import Replica, caught_up, look_at_the_disk
from tests.sim.roads import Roads
from tests.sim.screens import Viewer
from tests.sim.succession import Succession
from tests.sim.trace import Trace


class Cluster:
    """See above. `dice` makes a generator for each purpose, `wrap` is of the variant."""

    def __init__(
        self,
        leader: Node,
        hardware: Hardware,
        following: Following,
        dice: Callable[[str], random.Random],
        wrap: Callable[[SimulatedDisk], Disk],
        books: Books,
        trace: Trace,
        clock: Callable[[str], WallClock],
    ) -> None:
        """`leader` and its `hardware` are those that the run begins with; `leader` is then whoever leads.

        `clock` makes the wall clock of a node.
        """
        self.leader = leader
        self.machines = {leader.name: hardware}
        self.replicas: list[Replica] = []
        self._first = leader
        self._following = following
        self._dice = dice
        self._books = books
        self._trace = trace
        self._roads = Roads(following, dice("roads"), books, trace)
        self._settled = trio.Event()
        if following.machines:
            trace.note("following", following)
        for number, machine in enumerate(following.machines, 1):
            follows = self.replicas[-1].node.name if self.replicas and following.chained else leader.name
            name = f"replica-{number}"
            replica = Replica(name, follows, machine, dice, wrap, books, trace, clock(name))
            self.replicas.append(replica)
            self.machines[replica.node.name] = replica.hardware

    @property
    def viewers(self) -> list[Viewer]:
        """Those who watch the replicas."""
        return [replica.viewer for replica in self.replicas]

    @property
    def nodes(self) -> list[Node]:
        """All of them, the one that led first at the end."""
        return [*[replica.node for replica in self.replicas], self._first]

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Have nodes reach each other."""
        self._roads.nodes |= {node.name: node for node in self.nodes}
        with self._roads.patched():
            yield

    def begin(self, world: trio.Nursery) -> None:
        """Let all replicas live."""
        for replica in self.replicas:
            replica.begin(world)
        if self._following.changes_leaders_s is None:  # an operator who changes leaders holds nodes down as well
            for node in self.nodes:
                hardware = self.machines[node.name]
                if hardware.mishaps.lost_s is not None:
                    world.start_soon(lose, node, hardware, self._books, DATA)
        if self._following.changes_leaders_s is not None:
            world.start_soon(self._change_leaders, self._following.changes_leaders_s)
        else:
            self._settled.set()

    async def _change_leaders(self, at_s: float) -> None:
        new = self.replicas[0].node
        others = [node for node in self.nodes if node.follows == self._first.name and node is not new]
        change = Succession(
            self._first, self.machines[self._first.name], new, others, self._dice("succession"), self._books,
            self._trace, self._lead,
        )  # fmt: skip
        await change.change(at_s)
        self._settled.set()

    def _lead(self, node: Node) -> None:
        self.leader = node

    async def caught_up(self) -> None:
        """Wait until all are as the leader is. What rotted is put back from a backup: nobody could follow past it."""
        if not self.replicas:
            return
        await self._settled.wait()
        for hardware in self.machines.values():
            hardware.mend()
        for node in self.nodes:
            if node is not self.leader:
                await caught_up(node, self.leader, self._books)

    async def aftermath(self) -> None:
        """Let operators do something wrong, and all nodes be equal again."""
        following = [node for node in self.nodes if node is not self.leader]
        dice = self._dice("aftermath")
        after = Aftermath(self.leader, following, dice, self._books, self._trace, self._lead, self.caught_up)
        await after.happen()
        await self.caught_up()

    async def close(self) -> None:
        """Stop all nodes in good order."""
        for node in self.nodes:
            await node.close()

    def look_at_the_disks(self, erasures: Auditor | None) -> None:
        """Open what those left who do not lead."""
        for node in self.nodes:
            if node is not self.leader:
                machine = look_at_the_disk(node, self.machines[node.name], self._books)
                if erasures is not None:
                    erasures.audit(node.name, machine)
