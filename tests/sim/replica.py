"""A replica of a simulated run, with its machine, and with those who read and watch it."""

from __future__ import annotations

import random
from collections.abc import Callable

import trio

from engine.disk import Disk
from engine.errors import LogDamaged
from snapshots.digests import state_digest
from snapshots.opening import open_directory
from tests.sim.boards import RULES
from tests.sim.books import Books, Broken
from tests.sim.clients import ReplicaReader
from tests.sim.clocks import WallClock
from tests.sim.disk import Machine, SimulatedDisk
from tests.sim.hardware import Hardware
from tests.sim.indexes import lacks_runs
from tests.sim.mishaps import MISHAPS, draw_mishaps
from tests.sim.network import Network
from tests.sim.node import Node
from tests.sim.operators import BoardReader
from tests.sim.period_files import check_all_files, lacks_files
from tests.sim.process import DATA
from tests.sim.profile import Profile
from tests.sim.screens import Viewer
from tests.sim.storage import Nothing
from tests.sim.trace import Trace

CAUGHT_UP_S = 120.0
"""Of virtual time, when nothing is wrong any more: a link that dies of silence takes ten seconds, and so may the wait
before the next one."""

LOOK_S = 0.1


class Replica:
    """See above. `dice` makes a generator for each purpose, `wrap` is of the variant."""

    def __init__(
        self,
        name: str,
        follows: str,
        machine: Profile,
        dice: Callable[[str], random.Random],
        wrap: Callable[[SimulatedDisk], Disk],
        books: Books,
        trace: Trace,
        clock: WallClock,
    ) -> None:
        mishaps = draw_mishaps(dice(f"{MISHAPS} {name}"), machine.chaos_s)
        self.hardware = Hardware(machine, dice(f"{name} hardware"), books, trace, mishaps)
        self.node = Node(
            name, self.hardware, books, trace, dice(name), dice(f"{name} lots"),
            clock=clock, follows=follows, wrap=wrap,
        )  # fmt: skip
        self.viewer = Viewer(f"viewer of {name}", "main", deltas=True, books=books, trace=trace)
        self._machine = machine
        self._dice = dice
        self._books = books
        self._trace = trace

    def begin(self, world: trio.Nursery) -> None:
        """Let it live, and be read and watched."""
        name = self.node.name
        network = Network(
            self._machine, self._dice(f"{name} network"), world, lambda: self.node.process, self._books, self._trace
        )
        reader = ReplicaReader(
            f"reader of {name}",
            network,
            self._dice(f"{name} reader"),
            self._books,
            self._trace,
            follows=lambda: self.node.follows is not None,
        )
        world.start_soon(network.cut_now_and_then)
        world.start_soon(self.node.live)
        world.start_soon(self.viewer.watch, network, self._dice(f"{name} viewer"))
        world.start_soon(reader.read, lambda: self.hardware.spoils_receipts)
        dice = self._dice(f"{name} periods")
        network = Network(self._machine, dice, world, lambda: self.node.process, self._books, self._trace)
        periods = BoardReader(f"reader of periods of {name}", network, dice, self._books, self._trace)
        world.start_soon(periods.read)


async def caught_up(node: Node, leader: Node, books: Books) -> None:
    """Wait until a node has all that the leader has; both must then be the same to the last bit."""
    for _ in range(int(CAUGHT_UP_S / LOOK_S)):
        ours, theirs = node.process, leader.process
        lacking = [] if ours is None else lacks_files(ours.disk, DATA, ours.scoreboard)
        if ours is not None and theirs is not None and ours.scoreboard.seq == books.plain.seq and not lacking:
            if ours.log.tail != theirs.log.tail:
                raise Broken(f"the log of {node.name} ends at {ours.log.tail}, the leader's at {theirs.log.tail}")
            if state_digest(ours.scoreboard.capture()) != state_digest(theirs.scoreboard.capture()):
                raise Broken(f"{node.name} has come to another state than the leader")
            books.counts["replicas equal in the end"] += 1
            return
        await trio.sleep(LOOK_S)
    raise Broken(f"nothing was wrong any more, and yet {node.name} did not catch up; it lacks the periods {lacking}")


def look_at_the_disk(node: Node, hardware: Hardware, books: Books) -> Machine:
    """Open what a replica left, after the power was cut: all of it was followed durably. Give a copy of the machine."""
    if hardware.flipped:
        hardware.mend()
    machine = hardware.machine.fork(Nothing())
    machine.cut_power()
    disk = machine.boot()
    if lacking := lacks_runs(disk, DATA, hardware.profile.keep):
        raise Broken(f"the snapshots of {node.name} name files of actions that are missing: {lacking}")
    try:
        opened = open_directory(disk, DATA, RULES, tell=lambda what: None, segment_bytes=hardware.profile.segment_bytes)
    except LogDamaged as damage:
        raise Broken(f"nothing was wrong any more, and yet: {damage}") from damage
    books.recovered_replica(node.name, opened, may_be_damaged=False)
    if opened.scoreboard.seq != books.plain.seq:
        raise Broken(f"{node.name} kept {opened.scoreboard.seq} of {books.plain.seq} events")
    check_all_files(disk, DATA, opened.scoreboard, books.plain)
    return machine
