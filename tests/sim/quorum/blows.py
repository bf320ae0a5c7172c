"""What befalls the nodes and the servers of a simulated quorum: one blow after the other."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from tests.sim.quorum.cloud import Cloud
from tests.sim.quorum.judge import Judge
from tests.sim.quorum.member import MemberNode
from tests.sim.quorum.profile import BLOWS, QUIET_S, QuorumProfile, Weather
from tests.sim.quorum.servers import Server
from tests.sim.trace import Trace

PAUSE_S = 30.0
"""The longest time for which a process is stopped."""

LASTS_S = 3.0
"""How long a blow lasts, roughly."""

AT_LEADERS = 0.6
"""So often a blow is aimed at whoever leads."""


class Blows:
    """See above. `strike` runs until the chaos is over; then `heal` puts everything right."""

    def __init__(
        self, profile: QuorumProfile, nodes: Sequence[MemberNode], cloud: Cloud, weather: Weather, dice: random.Random,
        tasks: trio.Nursery, trace: Trace, judge: Judge,
    ) -> None:  # fmt: skip
        self._profile = profile
        self._nodes = nodes
        self._cloud = cloud
        self._servers = cloud.servers
        self._weather = weather
        self._dice = dice
        self._tasks = tasks
        self._trace = trace
        self._counts = judge.books.counts
        self._judge = judge
        self._may_empty = True
        self._verbs: dict[str, Callable[[], None]] = {
            "kill": lambda: self._node().end("kill"),
            "cut power": lambda: self._node().end("cut power"),
            "stop": lambda: self._node().end("stop"),
            "pause": lambda: self._pause(self._node()),
            "empty": self._empty,
            "isolate node": lambda: self._cut_ways(self._node(), self._servers.all),
            "cut some ways of a node": lambda: self._cut_ways(self._node(), dice.sample(self._servers.all, 2)),
            "kill server": lambda: self._kill([self._server()]),
            "kill all servers": lambda: self._kill(self._servers.all),
            "pause server": lambda: self._pause_server(self._server()),
            "isolate server": lambda: self._isolate(self._server()),
            "minority": self._minority,
            "move the leader": lambda: self._servers.elect(dice.choice(self._servers.all)),
            "stop beats": self._stop_beats,
            "lose answers": self._lose_answers,
            "hold requests": self._hold_requests,
            "isolate until deposed": lambda: self._until_deposed(self._isolated),
            "pause until deposed": lambda: self._until_deposed(self._paused),
            "pause leader and server": self._pause_both,
        }
        assert set(self._verbs) == set(BLOWS)

    async def strike(self) -> None:
        """Strike until the chaos is over, and heal."""
        await trio.sleep_until(QUIET_S)
        with trio.move_on_at(self._profile.chaos_s):
            while True:
                await trio.sleep(self._dice.expovariate(1 / self._profile.blow_every_s))
                kind = self._dice.choice(self._profile.blows)
                self._trace.note("blow", kind)
                self._counts[f"blow: {kind}"] += 1
                self._verbs[kind]()
        self._trace.note("calm")
        self._servers.heal()
        self._cloud.beats_stop_until_s = 0.0

    def _node(self) -> MemberNode:
        leaders = [node for node in self._nodes if node.leads]
        aimed = leaders and self._dice.random() < AT_LEADERS
        return self._dice.choice(leaders if aimed else list(self._nodes))

    def _server(self) -> Server:
        leaders = [server for server in self._servers.all if server.leads]
        aimed = leaders and self._dice.random() < AT_LEADERS
        return self._dice.choice(leaders if aimed else self._servers.all)

    def _for_a_while(self, seconds: float, end: Callable[[], None]) -> None:
        async def wait() -> None:
            await trio.sleep(max(0.0, seconds))
            end()

        self._tasks.start_soon(wait)

    def _lasts_s(self) -> float:
        left_s = self._profile.chaos_s - trio.current_time()
        return min(self._dice.expovariate(1 / LASTS_S), left_s)

    def _pause(self, node: MemberNode) -> None:
        left_s = self._profile.chaos_s - trio.current_time()
        seconds = min(self._dice.choice([0.5, 2.0, 5.0, PAUSE_S]) * self._dice.random(), left_s)
        self._trace.note("pause", node.life, f"{seconds:.2f}")
        self._tasks.start_soon(node.pause, partial(trio.sleep, seconds))

    def _empty(self) -> None:
        """Take the disk of a node away: once in a run, because two nodes are promised to have what is purged."""
        if self._may_empty:
            self._may_empty = False
            self._node().empty()

    def _cut_ways(self, node: MemberNode, servers: Sequence[Server]) -> None:
        for server in servers:
            self._cut(node.name, server.name)

    def _cut(self, one: str, other: str) -> None:
        self._servers.cut(one, other)
        self._for_a_while(self._lasts_s(), lambda: self._servers.mend(one, other))

    def _kill(self, servers: Sequence[Server]) -> None:
        for server in servers:
            self._servers.kill(server)

            def revive(server: Server = server) -> None:
                self._servers.revive(server)

            self._for_a_while(self._lasts_s(), revive)

    def _pause_server(self, server: Server) -> None:
        self._servers.stop(server)
        self._for_a_while(self._lasts_s(), lambda: self._servers.go_on(server))

    def _isolate(self, server: Server) -> None:
        for other in self._servers.all:
            if other is not server:
                self._cut(server.name, other.name)

    def _minority(self) -> None:
        """Leave a node with one server, and that server with nobody else."""
        node, server = self._node(), self._server()
        self._isolate(server)
        self._cut_ways(node, [other for other in self._servers.all if other is not server])

    def _stop_beats(self) -> None:
        self._cloud.beats_stop_until_s = trio.current_time() + self._lasts_s()

    def _lose_answers(self) -> None:
        self._weather.loses_until_s = trio.current_time() + min(self._lasts_s(), 1.0)

    def _hold_requests(self) -> None:
        self._weather.holds_until_s = trio.current_time() + min(self._lasts_s(), 1.0)

    def _until_deposed(self, do: Callable[[MemberNode, trio.Event], Awaitable[None]]) -> None:
        """Do something to a node until another one has the next epoch: what it has queued comes right behind."""
        self._tasks.start_soon(do, self._node(), self._judge.next_epoch)

    async def _isolated(self, node: MemberNode, deposed: trio.Event) -> None:
        for server in self._servers.all:
            self._servers.cut(node.name, server.name)
        await self._wait(deposed)
        for server in self._servers.all:
            self._servers.mend(node.name, server.name)

    async def _paused(self, node: MemberNode, deposed: trio.Event) -> None:
        await node.pause(partial(self._wait, deposed))

    async def _wait(self, deposed: trio.Event) -> None:
        with trio.move_on_at(min(trio.current_time() + PAUSE_S, self._profile.chaos_s)):
            await deposed.wait()

    def _pause_both(self) -> None:
        """Stop a node and a server: what is under way from one to the other comes late."""
        self._pause(self._node())
        self._pause_server(self._server())
