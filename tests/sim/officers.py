"""An officer of privacy in a simulated run, who has users erased: nodes are stopped for it, and start again.

    somebody ──► wanted ──► the leader is stopped, erases, starts ──► each replica too, once it has begun anew

Who was erased goes on to play, in some cases, and may be erased again. At the end `rest_leader` and `rest_others` wait
until nothing is left to erase on any node.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import trio

from engine.events import ScoreImported
from tests.sim.books import Books, Broken
from tests.sim.cluster import Cluster
from tests.sim.erasures import Erasures
from tests.sim.node import Node
from tests.sim.trace import Trace

OFFICER = "officer"
"""The name of the generator."""

PATIENCE_S = 200.0
LOOK_S = 0.5


class Officer:
    """See above."""

    def __init__(self, cluster: Cluster, dice: random.Random, books: Books, trace: Trace) -> None:
        self.erasures = Erasures([node.name for node in cluster.nodes], books, trace)
        for node in cluster.nodes:
            node.erasures = self.erasures
        self._cluster = cluster
        self._dice = dice
        self._books = books

    async def work(self, until_s: float) -> None:
        """Have users erased until a time."""
        pause_s = self._dice.choice([1.0, 4.0, 8.0])
        while True:
            await trio.sleep(self._dice.expovariate(1 / pause_s))
            if trio.current_time() > until_s:
                return
            if users := played(self._books, self._dice):
                self.erasures.want(self._dice.choice(users))
            node = self._dice.choice([self._cluster.leader, *self._cluster.nodes])
            if self.erasures.has_work(node.name, leads=node is self._cluster.leader):
                _stop(node)

    async def rest_leader(self) -> None:
        """Wait until the leader has erased all."""
        await self._until(lambda: not self.erasures.wanted, lambda: [self._cluster.leader])

    async def rest_others(self) -> None:
        """Wait until all have. A replica must have begun anew by itself, from the leader's snapshot."""
        await self._until(
            lambda: not any(self.erasures.has_work(node.name, leads=False) for node in self._cluster.nodes),
            lambda: [node for node in self._cluster.nodes if self.erasures.has_work(node.name, leads=False)],
        )

    async def _until(self, holds: Callable[[], bool], nodes: Callable[[], list[Node]]) -> None:
        for _ in range(int(PATIENCE_S / LOOK_S)):
            if holds():
                return
            for node in nodes():
                _stop(node)
            await trio.sleep(self._dice.uniform(LOOK_S, 10 * LOOK_S))
        raise Broken(f"nothing was wrong any more, and yet there are users to erase: {self.erasures}")


def played(books: Books, dice: random.Random) -> list[str]:
    """List who did anything that counts. Now and then somebody is among them who is erased already."""
    plain = books.plain
    users = {event.user_id for event in plain.actions.values()} | set(plain.users)
    users.update(event.user_id for event in plain.events if isinstance(event, ScoreImported))
    if dice.random() < 0.9:
        users -= set(plain.erasures.users) - set(plain.erasures.back(plain.events))
    return sorted(users)


def _stop(node: Node) -> None:
    """Stop a node in good order. It starts again by itself."""
    if node.process is not None and not node.succeeds:
        node.process.ending.set()
