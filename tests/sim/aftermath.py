"""What operators do wrong with replicas, at the end of a run: two promotions at once, and replicas in a loop.

Everything is calm by then, all nodes are equal, and clients are judged no more. So a node may be wrong on purpose.

    loop       the leader's replicas are restarted to follow each other ─► none is fresh, and the loop is named
    rivals     two replicas are promoted at once ─► both write ─► they learn of each other ─► one leader remains
               the other one is demoted ─► all that it alone acknowledged is listed

A generator of its own decides. So runs without it are what they always were.
"""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from engine.errors import DiskFault
from server.http.messages import Refused, Request, Response
from server.role import State
from tests.sim.books import Books, Broken
from tests.sim.node import Node
from tests.sim.process import Process
from tests.sim.trace import Trace

LOOK_S = 0.1
PATIENCE_S = 120.0
"""For what must come about when nothing is wrong: two waits of ten seconds may follow each other."""

STALE_S = 10.0
"""After that a loop has no fresh node any more: three heartbeats, and some of the chain's links."""

LOOKED_AT_S = 15.0
CONTENT = USER, BOARD, REASON, _ = "rival", "main", "BONUS", None


class Aftermath:
    """See above. `leader` leads, `replicas` follow it, one perhaps through another.

    `leads` is told of a new leader, `caught_up` waits until all nodes are equal.
    """

    def __init__(
        self,
        leader: Node,
        replicas: Sequence[Node],
        dice: random.Random,
        books: Books,
        trace: Trace,
        leads: Callable[[Node], None],
        caught_up: Callable[[], Awaitable[None]],
    ) -> None:
        self._leader = leader
        self._replicas = replicas
        self._dice = dice
        self._books = books
        self._trace = trace
        self._leads = leads
        self._caught_up = caught_up
        self._acknowledged: dict[str, list[str]] = {}

    async def happen(self) -> None:
        """Let both happen, where there are enough nodes."""
        if len(self._replicas) < 2:
            return
        self._books.audience_gone = True
        await self._loop(list(self._replicas[:2]))
        await self._caught_up()
        await self._rivals(*self._replicas[:2])

    # A loop

    async def _loop(self, nodes: list[Node]) -> None:
        self._trace.note("a loop", *[node.name for node in nodes])
        for node, followed in zip(nodes, nodes[1:] + nodes[:1], strict=True):
            await self._restart(node, followed)
        for number in range(5):
            await self._increment(self._leader, f"beside the loop {number}")
        await trio.sleep(STALE_S)
        named: set[str] = set()
        for _ in range(int(LOOKED_AT_S / LOOK_S)):
            for node in nodes:
                process = _process_of(node)
                role = process.node.role.now
                if role.vouches and not role.is_aged:
                    raise Broken(f"{node.name} follows itself through others, and is fresh")
                ready = await process.answer(Request("GET", "/readyz"))
                if "loop" in ready.body.decode():
                    named.add(node.name)
            await trio.sleep(LOOK_S)
        if len(named) < len(nodes):
            raise Broken(f"only {named} say that they follow each other in a loop")
        self._books.counts["loops named"] += 1
        for node in nodes:
            await self._restart(node, self._leader)

    async def _restart(self, node: Node, followed: Node) -> None:
        """Have a node follow another one, from its next start on."""
        starts, process = node.starts, _process_of(node)
        node.follow(followed.name)
        process.ending.set()
        await self._until(lambda: node.starts > starts and node.process is not None, f"{node.name} starts again")

    # Two promotions

    async def _rivals(self, one: Node, other: Node) -> None:
        self._trace.note("rivals", one.name, other.name)
        away = self._dice.random() < 0.5
        if away:
            await self._stop(self._leader)
        for node in (one, other):
            node.apart = []
        async with trio.open_nursery() as nursery:
            for node in (one, other):
                nursery.start_soon(self._promote, node, self._dice.choice([0.0, 0.0, 0.3, 3.0]))
        for number in range(self._dice.randint(1, 4)):
            for node in (one, other):
                await self._increment(node, f"{number} at {node.name}")
        if away:
            self._leader.release()
        winner, loser = await self._one_remains(one, other)
        events = winner.apart or []
        for event in events:
            self._books.settle(event, CONTENT)
        winner.apart = None
        winner.lead()
        self._leads(winner)
        await self._demote(loser, winner)
        await self._stop(self._leader)
        self._leader.follow(winner.name)
        self._leader.release()
        self._books.counts["rivals settled"] += 1

    async def _promote(self, node: Node, after_s: float) -> None:
        await trio.sleep(after_s)
        for _ in range(int(PATIENCE_S / LOOK_S)):
            try:
                await _process_of(node).node.promote()
            except Refused as refusal:
                self._trace.note(node.name, "not promoted", refusal.message)
                await trio.sleep(LOOK_S)
            except DiskFault as fault:
                raise Broken(f"{node.name} was not promoted, and nothing was wrong: {fault}") from fault
            else:
                return
        raise Broken(f"{node.name} was not promoted, and nothing was wrong")

    async def _one_remains(self, one: Node, other: Node) -> tuple[Node, Node]:
        """Wait until one of the two is deposed, and the old leader; give winner and loser. One must go on."""
        nodes = (one, other)
        await self._until(lambda: State.DEPOSED in {_state_of(node) for node in nodes}, "one of two leaders is deposed")
        await self._until(lambda: _state_of(self._leader) is State.DEPOSED, "the old leader is deposed")
        await trio.sleep(LOOKED_AT_S)
        states = {node: _state_of(node) for node in nodes}
        if sorted(state.label for state in states.values() if state is not None) != ["deposed", "leading"]:
            raise Broken(f"of two leaders one must remain: {states}")
        winner, loser = (one, other) if states[one] is State.LEADING else (other, one)
        marks = [_process_of(node).scoreboard.mark for node in (winner, loser)]
        if marks[0] < marks[1]:
            raise Broken(f"{marks[1]} outranks {marks[0]}, and was deposed by it")
        successor = _process_of(loser).node.role.now.successor
        if successor is None or successor.mark != marks[0]:
            raise Broken(f"{loser.name} was deposed by {successor}, and the leader is of {marks[0]}")
        return winner, loser

    async def _demote(self, loser: Node, winner: Node) -> None:
        """Make the loser a replica of the winner. All that it alone acknowledged must be listed."""
        await self._stop(loser)
        loser.apart = None
        self._books.emptied(loser.name)
        self._books.demoted.pop(loser.name, None)
        loser.follow(winner.name)
        loser.release()
        refused = self._books.counts["demotions refused"]
        await self._until(
            lambda: loser.name in self._books.demoted or self._books.counts["demotions refused"] > refused,
            f"{loser.name} is demoted",
        )
        if loser.name not in self._books.demoted:
            return  # the winner's log no longer goes back to the fork; the operator was told, and began with nothing
        listed = {action.action_id for action in self._books.demoted[loser.name]}
        missing = set(self._acknowledged[loser.name]) - listed
        if missing:
            raise Broken(f"{loser.name} alone acknowledged {missing}, and its demotion listed {listed}")

    async def _stop(self, node: Node) -> None:
        """Stop a node, and hold it down."""
        node.hold()
        process = node.process
        if process is not None:
            process.ending.set()
        await self._until(lambda: node.process is None and not node.is_alive(), f"{node.name} ends")

    async def _increment(self, node: Node, action_id: str) -> None:
        """Write at a node; it may refuse if it was deposed meanwhile."""
        self._books.submit(action_id, CONTENT)
        body: dict[str, Any] = {"actionId": action_id, "userId": USER, "boardId": BOARD, "reason": REASON}
        answer: Response = await _process_of(node).answer(
            Request("POST", "/scores/increment", headers={}, body=json.dumps(body).encode())
        )
        self._trace.note(node.name, action_id, answer.status)
        if answer.status == 200:
            self._acknowledged.setdefault(node.name, []).append(action_id)

    async def _until(self, holds: Callable[[], bool], what: str) -> None:
        for _ in range(int(PATIENCE_S / LOOK_S)):
            if holds():
                return
            await trio.sleep(LOOK_S)
        raise Broken(f"nothing was wrong any more, and yet it did not come about that {what}")


def _process_of(node: Node) -> Process:
    if node.process is None:
        raise Broken(f"{node.name} does not run, and nothing was wrong")
    return node.process


def _state_of(node: Node) -> State | None:
    return None if node.process is None else node.process.node.role.now.state
