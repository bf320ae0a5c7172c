"""One simulated run of a quorum: three servers, three nodes, backends and readers in virtual time, from one seed.

    seed ──► profile ──► blows for some seconds ──► calm: all clients finish ──► all nodes are equal ──► a last look

As in `tests.sim.world`, a seed gives the same run each time.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from unittest import mock

import trio

from engine.errors import LogDamaged
from engine.record import Tail, chain_start
from engine.scoreboard import Scoreboard
from server.node import file_boards, parts
from server.quorum.stream import Origin
from snapshots.digests import state_digest
from snapshots.opening import open_directory
from tests.sim.boards import RULES, period_at
from tests.sim.books import Books, Broken
from tests.sim.clocks import CLOCKS, STEADY, WallClock, draw_clocks
from tests.sim.hardware import Hardware
from tests.sim.indexes import INDEX, Indexing, draw_indexing
from tests.sim.network import Network
from tests.sim.process import DATA
from tests.sim.profile import MOSTLY_IN_MEMORY, Following
from tests.sim.quorum.blows import Blows
from tests.sim.quorum.clients import Aim, NodeReader, QuorumBackend
from tests.sim.quorum.cloud import Cloud
from tests.sim.quorum.judge import Judge
from tests.sim.quorum.member import MemberNode
from tests.sim.quorum.pauses import Pauses
from tests.sim.quorum.profile import NODES, DiceFor, QuorumProfile, Weather, draw_quorum
from tests.sim.quorum.servers import Servers
from tests.sim.roads import Roads
from tests.sim.runs import run_seeded
from tests.sim.storage import Nothing
from tests.sim.trace import Trace
from tests.sim.variant import SOUND, Variant
from tests.sim.world import ALL_DONE_S, Report, dice_for, fault_of

LOG_ID = b"simulated quorum"
EQUAL_S = 60.0
"""Of virtual time, when nothing is wrong any more, until all nodes have the same."""

LOOK_S = 0.1


def simulate_quorum(seed: int, *, variant: Variant = SOUND, keep_all: bool = False) -> Report:
    """Do one run."""
    report = Report(seed)
    indexing = draw_indexing(dice_for(seed, INDEX))

    async def main() -> None:
        trace = Trace(keep_all=keep_all)
        run = QuorumRun(seed, indexing, trace)
        try:
            await run.run()
        except* Exception as group:
            report.fault = fault_of(group)
            trace.note("broken", report.fault)
        finally:
            report.starts = sum(node.starts for node in run.nodes)
            report.digest, report.counts, report.lines = trace.digest, run.books.counts, list(trace.lines)

    calendars = mock.patch.object(parts, "period_at", period_at), mock.patch.object(file_boards, "period_at", period_at)
    blocks = nullcontext() if indexing is None else indexing.patched()
    with blocks, variant.patched(), calendars[0], calendars[1]:
        run_seeded(seed, main)
    return report


def simulate_quorums(seeds: Iterable[int]) -> list[Report]:
    """Do some runs, in a process of their own."""
    return [simulate_quorum(seed) for seed in seeds]


class QuorumRun:
    """See above."""

    def __init__(self, seed: int, indexing: Indexing | None, trace: Trace) -> None:
        dice = partial(dice_for, seed)
        self.profile: QuorumProfile = draw_quorum(dice("quorum"))
        self.books = Books(trace)
        self.nodes: list[MemberNode] = []
        self._indexing = indexing
        self._dice: DiceFor = dice
        self._trace = trace
        self._pauses = Pauses()
        origin = Tail(LOG_ID, 1, 0, chain_start(LOG_ID))
        self.judge = Judge(self.books, trace, origin, lambda frame: self.cloud.senders[frame])
        self.weather = Weather(self.profile, dice("weather"))
        trace.note("profile", self.profile)

    async def run(self) -> None:
        """Do the run. Raises `Broken`."""
        following = Following(self.profile.machine)
        roads = Roads(following, self._dice("roads"), self.books, self._trace)
        with self._pauses.patched(), roads.patched():
            async with trio.open_nursery() as world:
                self._build(world)
                roads.nodes |= {node.name: node for node in self.nodes} | {"": Outside()}
                for node in self.nodes:
                    world.start_soon(node.live)
                    self._read(world, node)
                blows = Blows(
                    self.profile, self.nodes, self.cloud, self.weather, self._dice("blows"), world, self._trace,
                    self.judge,
                )  # fmt: skip
                world.start_soon(blows.strike)
                await self._let_work(world)
                await self._equal()
                for node in self.nodes:
                    await node.close()
                world.cancel_scope.cancel()
        for node in self.nodes:
            self._look_at_the_disk(node)

    def _build(self, world: trio.Nursery) -> None:
        dice, counts, weather = self._dice, self.books.counts, self.weather
        self.servers = Servers(
            dice("servers"), world, self._trace, counts, delay_s=weather.delay_s, sync_s=weather.sync_s,
            calm=lambda: weather.calm, on_frame=self.judge.settled,
        )  # fmt: skip
        world.start_soon(self.servers.run)
        origin = Origin(self.judge.tail)
        self.cloud = Cloud(self.servers, origin, weather, dice("cloud"), world, self._trace, counts)
        modes = [MOSTLY_IN_MEMORY] * len(NODES) if self._indexing is None else self._indexing.modes
        for name, mode in zip(NODES, modes, strict=True):
            clock = WallClock()
            if self.profile.clocks_step:
                clock = WallClock(draw_clocks(dice(f"{CLOCKS} {name}"), self.profile.chaos_s), STEADY)
            machine = replace(self.profile.machine, actions=mode)
            hardware = Hardware(machine, dice(f"{name} hardware"), self.books, self._trace)
            self.nodes.append(
                MemberNode(name, hardware, self.cloud, self.judge, self._trace, dice(name), clock, self._pauses)
            )  # fmt: skip

    def _read(self, world: trio.Nursery, node: MemberNode) -> None:
        name = f"{node.name} reader"
        network = Network(
            self.profile.machine, self._dice(f"{name} network"), world, lambda: node.process, self.books, self._trace
        )  # fmt: skip
        reader = NodeReader(
            node.name, network, self._dice(name), self.books, self._trace, lambda: node.hardware.disks_lost
        )  # fmt: skip
        world.start_soon(reader.read)

    async def _let_work(self, world: trio.Nursery) -> None:
        processes = {node.name: partial(getattr, node, "process") for node in self.nodes}
        with trio.move_on_after(self.profile.chaos_s + ALL_DONE_S) as patience:
            async with trio.open_nursery() as working:
                for number in range(self.profile.machine.backends):
                    name = f"backend-{number}"
                    aim = Aim(processes, self._dice(f"{name} aim"))
                    network = Network(
                        self.profile.machine, self._dice(f"{name} network"), world, aim.process, self.books, self._trace
                    )  # fmt: skip
                    backend = QuorumBackend(
                        name, network, aim, self.profile, self._dice(name), self.judge, self._trace
                    )  # fmt: skip
                    working.start_soon(backend.work, self.profile.machine)
            await trio.sleep_until(self.profile.chaos_s)
        if patience.cancelled_caught:
            raise Broken("nothing was wrong any more, and yet a backend got no answer")

    async def _equal(self) -> None:
        """Wait until one node leads and all have the whole stream; all must then be the same to the last bit."""
        for _ in range(int(EQUAL_S / LOOK_S)):
            await trio.sleep(LOOK_S)
            processes = [node.process for node in self.nodes if node.process is not None]
            scoreboards = [process.scoreboard for process in processes]
            if len(scoreboards) < len(NODES) or any(each.seq != self.judge.tail.seq for each in scoreboards):
                continue
            if sum(node.leads for node in self.nodes) != 1:
                continue
            digests = {state_digest(each.capture()) for each in scoreboards}
            if len(digests) != 1:
                raise Broken("the nodes have come to different states")
            for node, process in zip(self.nodes, processes, strict=True):
                if process.log.tail != self.judge.tail:
                    raise Broken(f"the log of {node.name} ends at {process.log.tail}, the stream at {self.judge.tail}")
                self.judge.check_log(node.name, process.log)
            self._check(scoreboards[0])
            return
        seqs = [node.process and node.process.scoreboard.seq for node in self.nodes]
        leaders = [node.name for node in self.nodes if node.leads]
        raise Broken(
            f"nothing was wrong any more, and yet the nodes have seqs {seqs} of {self.judge.tail.seq}; {leaders} lead"
        )

    def _check(self, scoreboard: Scoreboard) -> None:
        try:
            self.books.plain.check_scoreboard(scoreboard)
        except AssertionError as error:
            raise Broken(str(error)) from error

    def _look_at_the_disk(self, node: MemberNode) -> None:
        """Open what a node left, after the power was cut."""
        machine = node.hardware.machine.fork(Nothing())
        machine.cut_power()
        try:
            opened = open_directory(
                machine.boot(), DATA, RULES, tell=lambda what: None, segment_bytes=self.profile.machine.segment_bytes
            )  # fmt: skip
        except LogDamaged as damage:
            raise Broken(f"nothing was wrong any more, and yet: {damage}") from damage
        self.judge.recovered(node.name, opened)


class Outside:
    """Who calls a node without a name."""

    def is_alive(self) -> bool:
        """See `Called`."""
        return True

    def take_call(self, *_: object) -> bool:
        """See `Called`."""
        return False

    def remember(self, *_: object) -> None:
        """See `Called`."""
