"""Backends and readers of a simulated quorum. A backend asks the node that it takes for the leader, until it knows.

A backend that was told by each answer that nothing was done may withdraw an action: that must be the truth for ever.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping

import trio

from server.http.messages import Response
from tests.sim.boards import RULES
from tests.sim.books import Books, Broken, Content
from tests.sim.clients import Backend, Client, body_of
from tests.sim.network import Network
from tests.sim.process import Process
from tests.sim.quorum.judge import Judge
from tests.sim.quorum.profile import NODES, QuorumProfile
from tests.sim.trace import Trace

SURELY_NOT = frozenset({"NOT_LEADER", "NO_QUORUM", "OVERLOADED", "LEADER_DEPOSED"})
"""The codes of answers that say that nothing was done."""


class Aim:
    """The node that a client asks now."""

    def __init__(self, processes: Mapping[str, Callable[[], Process | None]], dice: random.Random) -> None:
        self.node = dice.choice(NODES)
        self._processes = processes
        self._dice = dice

    def process(self) -> Process | None:
        return self._processes[self.node]()

    def turn(self, answer: Response | None) -> None:
        """Aim at the node that an answer names, or at any."""
        self.node = self._dice.choice(NODES)
        if answer is not None and answer.code == "NOT_LEADER":
            leader = json.loads(answer.body)["error"]["details"].get("leader") or ""
            named = leader.removeprefix("http://")
            if named in NODES:
                self.node = named


class QuorumBackend(Backend):
    """Does a number of works, one after the other, at whichever node leads."""

    timeout_s = 3.0  # an outcome that is not known is told after a second
    rest_s = 0.3
    kinds = (8, 2, 1, 7, 2)

    def __init__(
        self, name: str, network: Network, aim: Aim, profile: QuorumProfile, dice: random.Random, judge: Judge,
        trace: Trace,
    ) -> None:  # fmt: skip
        super().__init__(name, network, dice, judge.books, trace)
        self._aim = aim
        self._judge = judge
        self._withdraws = profile.withdraws

    async def _until_known(self, method: str, path: str, body: object = None) -> Response:
        while True:
            answer = await self._once(method, path, body)
            if answer is not None and answer.status not in {307, 421, 503}:
                return answer
            self._aim.turn(answer)
            await trio.sleep(self._dice.uniform(0.0, 0.5))

    async def _increment(self, action_id: str, content: Content) -> None:
        if not await self._withdrawn("/scores/increment", [(action_id, content)], body_of(action_id, content)):
            await super()._increment(action_id, content)

    async def _batch(self, actions: list[tuple[str, Content]]) -> None:
        body = [body_of(action_id, content) for action_id, content in actions]
        if not await self._withdrawn("/scores/increment/batch", actions, body):
            await super()._batch(actions)

    async def _withdrawn(self, path: str, actions: list[tuple[str, Content]], body: object) -> bool:
        """Send actions once, and withdraw those that were never sent before if nothing was done."""
        books = self._books
        new = list(dict.fromkeys(action_id for action_id, _ in actions if action_id not in books.submitted))
        if not new or self._dice.random() >= self._withdraws:
            return False
        for action_id, content in actions:
            books.submit(action_id, content)
        answer = await self._once("POST", path, body)
        if answer is None or answer.code not in SURELY_NOT:
            return False
        for action_id in new:
            self._judge.withdraw(action_id)
        self._aim.turn(answer)
        return True


class NodeReader(Client):
    """Reads tops at one node, over all its lives, and checks that none goes back, and each is one that there was."""

    def __init__(
        self, node: str, network: Network, dice: random.Random, books: Books, trace: Trace,
        was_emptied: Callable[[], int],
    ) -> None:  # fmt: skip
        super().__init__(f"reader of {node}", network, dice, books, trace)
        self._was_emptied = was_emptied

    async def read(self) -> None:
        """Read until cancelled."""
        positions = dict.fromkeys(RULES.boards, (0, 0))
        emptied = 0
        while True:
            await trio.sleep(self._dice.expovariate(1.0))
            board_id = self._dice.choice(list(positions))
            before = self._was_emptied()
            answer = await self._once("GET", f"/scoreboard/top?limit=10&boardId={board_id}")
            if answer is None or self._was_emptied() != before:
                continue
            if before != emptied:  # its disk was lost
                emptied, positions = before, dict.fromkeys(RULES.boards, (0, 0))
            if answer.code in {"REPLICA_BEHIND", "INVALID_REQUEST"}:  # it has nothing, or not this board
                self._books.counts[f"reads that came too early: {answer.code}"] += 1
                if positions[board_id][1] > 0:
                    raise Broken(f"{self.name} was shown {board_id}, and then: {answer.body!r}")
            elif answer.status != 200:
                raise Broken(f"{self.name} was answered with {answer.status}: {answer.body!r}")
            else:
                top = json.loads(answer.body)
                position = (top["epoch"], top["seq"])
                positions[board_id] = self._books.forward(self.name, positions[board_id], position)
                self._books.shown(board_id, top)
                self._books.counts["reads"] += 1
                self._books.counts["stale reads"] += bool(top.get("stale"))
