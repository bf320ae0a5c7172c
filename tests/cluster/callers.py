"""Callers of a quorum, who write to whichever node leads, and readers of each node.

A caller follows 307 and `details.leader`. It gives a node CALL_SECONDS for an answer, then asks the next node, with the
same actionId, until the action is answered. So of each action it knows the end.

`Acknowledged` holds what all callers were told: the books, the gaps, and which process answered for which epoch.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from tests.cluster.quorum_cluster import NODES, QuorumCluster, QuorumNode
from tests.e2e import leader
from tests.e2e.backends import BOARDS, USERS, Books, Row
from tests.e2e.client import Answer, Client, ConnectionLost

CALL_SECONDS = 2.0
PAUSE_SECONDS_MAX = 0.06
"""Between two actions of one caller: the nodes are to be hit, not to be full."""

AGAIN_SECONDS = 0.05
BATCHES = 0.2
BATCH_ITEMS_MAX = 20

_PORT = re.compile(r"^http://127\.0\.0\.1:(\d+)")


@dataclass
class Acknowledged:
    """What all callers were told. `longest_s` is the longest time without an acknowledgement since `begin`."""

    books: Books = field(default_factory=Books)
    leaders: dict[int, tuple[str, int]] = field(default_factory=dict)
    leader: str = NODES[0]
    longest_s: float = 0.0
    last_s: float = 0.0

    def begin(self) -> None:
        """Measure the longest gap from now on."""
        self.last_s, self.longest_s = trio.current_time(), 0.0

    def note(self, node: str, pid: int, row: Row, receipt: Row) -> None:
        """Note a 200 of this process of a node."""
        now_s = trio.current_time()
        self.longest_s, self.last_s = max(self.longest_s, now_s - self.last_s), now_s
        self.books.acknowledge(row, receipt)
        if receipt["applied"]:
            known = self.leaders.setdefault(receipt["epoch"], (node, pid))
            assert known == (node, pid), f"{known} and {(node, pid)} both decided in epoch {receipt['epoch']}"
            self.leader = node


class Gate:
    """Lets actions begin while it is open. `close` returns when none is under way."""

    def __init__(self) -> None:
        self._way = trio.Event()
        self._idle = trio.Event()
        self._under_way = 0

    @asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        """Wait until the gate is open; the action is the body."""
        while not self._way.is_set():
            await self._way.wait()
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._idle.set()

    def open(self) -> None:
        """Let actions begin."""
        self._way.set()

    async def close(self) -> None:
        """Let no more begin, and wait until those that began have ended."""
        self._way = trio.Event()
        while self._under_way:
            self._idle = trio.Event()
            await self._idle.wait()


class Caller:
    """One caller with one action, or one batch of them, at a time."""

    def __init__(self, name: str, seed: int, cluster: QuorumCluster, told: Acknowledged) -> None:
        self._name = name
        self._dice = random.Random(f"{seed} {name}")
        self._cluster = cluster
        self._told = told
        self._made = 0
        self._at = self._dice.choice(NODES)
        self._silent = ""
        bearer = leader.token("scores:write", seconds=24 * 3600)
        self._clients = {node.name: Client("127.0.0.1", node.port, bearer) for node in cluster.nodes.values()}

    async def call(self, gate: Gate) -> None:
        """Act again and again until cancelled."""
        while True:
            async with gate.passed():
                count = self._dice.randint(2, BATCH_ITEMS_MAX) if self._dice.random() < BATCHES else 1
                await self.act([self._new_row() for _ in range(count)])
            await trio.sleep(self._dice.uniform(0.0, PAUSE_SECONDS_MAX))

    async def act(self, rows: list[Row]) -> None:
        """Send these actions until all of them are answered."""
        books = self._told.books
        books.submitted |= {row["actionId"]: row for row in rows}
        while rows:
            node = self._cluster.nodes[self._at]
            pid = node.pid
            answer = await self._ask(node, rows)
            if answer is None or answer.status in (307, 421):
                await self._go_on(answer)
            else:
                rows = self._take(node, pid, rows, answer)
                if rows:
                    self._at = self._next()
            if rows:
                books.retried += len(rows)
                await trio.sleep(AGAIN_SECONDS)

    async def _ask(self, node: QuorumNode, rows: list[Row]) -> Answer | None:
        with trio.move_on_after(CALL_SECONDS):
            try:
                client = self._clients[node.name]
                if len(rows) == 1:
                    return await client.post("/scores/increment", rows[0])
                return await client.post("/scores/increment/batch", rows)
            except ConnectionLost:
                return None
        return None

    def _take(self, node: QuorumNode, pid: int, rows: list[Row], answer: Answer) -> list[Row]:
        """Note what is acknowledged; give the rows that are not."""
        self._silent = ""
        assert answer.status in (200, 503), (node.name, answer.status, answer.body)
        if answer.status == 503:
            return rows
        receipts = answer.json() if len(rows) > 1 else [{"status": 200, **answer.json()}]
        assert len(receipts) == len(rows)
        for row, receipt in zip(rows, receipts, strict=True):
            if receipt["status"] == 200:
                self._told.note(node.name, pid, row, receipt)
            else:
                assert receipt["status"] in (503, 421), receipt
        return [row for row, one in zip(rows, receipts, strict=True) if one["status"] != 200]

    async def _go_on(self, answer: Answer | None) -> None:
        """Go to the leader that was named, unless it is the one that has just not answered; else to the next node."""
        if answer is None:
            self._silent, self._at = self._at, self._next()
            return
        said = answer.headers.get("location") or answer.json()["error"]["details"].get("leader") or ""
        port = _PORT.match(said)
        assert port or not said, f"a node names its leader as {said!r}"
        named = next((one.name for one in self._cluster.nodes.values() if port and one.port == int(port[1])), "")
        self._at = named if named and named != self._silent else self._next()

    def _next(self) -> str:
        return NODES[(NODES.index(self._at) + 1) % len(NODES)]

    def _new_row(self) -> Row:
        self._made += 1
        board_id = self._dice.choice(list(BOARDS))
        return {
            "userId": self._dice.choice(USERS),
            "actionId": f"{self._name}-{self._made}",
            "boardId": board_id,
            "reason": self._dice.choice(list(BOARDS[board_id])),
        }


@dataclass
class Shown:
    """What all readers saw: how many answers of each node, how many of them stale, which refusals."""

    answers: Counter[str] = field(default_factory=Counter)
    stale: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)


async def read(cluster: QuorumCluster, name: str, shown: Shown) -> None:
    """Read one node until cancelled. What it shows never goes back, whatever becomes of its processes."""
    newest = (0, 0)
    async with Client("127.0.0.1", cluster.nodes[name].port) as client:
        while True:
            with trio.move_on_after(CALL_SECONDS):
                try:
                    answer = await client.get("/scoreboard/top?limit=3&boardId=main")
                except ConnectionLost:
                    pass  # it is being killed, or starts
                else:
                    newest = _look(name, answer, newest, shown)
            await trio.sleep(AGAIN_SECONDS)


def _look(name: str, answer: Answer, newest: tuple[int, int], shown: Shown) -> tuple[int, int]:
    if answer.status == 503:
        shown.refusals[answer.json()["error"]["code"]] += 1
        return newest
    assert answer.status == 200, (name, answer.status, answer.body)
    body = answer.json()
    position = (body["epoch"], body["seq"])
    went_back = position[0] < newest[0] or position[1] < newest[1]
    assert not went_back, f"node {name} went back from {newest} to {position}"
    shown.answers[name] += 1
    shown.stale[name] += bool(body.get("stale"))
    return position
