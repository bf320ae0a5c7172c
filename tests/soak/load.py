"""The load: backends, batches, readers and viewers, each at a steady pace, through any number of leaders.

The books stay small in a long run: a backend numbers its actions, has one request at a time, and repeats it with
the same actionIds until it is acknowledged. So the acknowledged actions are the numbers from 1 to `acknowledged`, and a
number tells its user. If a busy machine can't keep the pace, the backend does not catch up.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import trio
from trio_websocket import ConnectionClosed, HandshakeError, open_websocket_url

from tests.e2e.client import Client, ConnectionLost

USERS = 500
POINTS = 10
BATCH_ITEMS = 100
CHECKED_ITEMS = 1_000
STRIDE = 7_919
"""A prime, so consecutive actions of a backend are of users far apart."""


@dataclass
class Measures:
    """Latencies since the last `take`, in milliseconds, by kind; and all faults of the run."""

    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    _spans_ms: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def note(self, kind: str, began: float) -> None:
        """Note that a request that began then was answered now."""
        self._spans_ms[kind].append((trio.current_time() - began) * 1000)
        self.counts[kind] += 1

    def take(self) -> dict[str, list[float]]:
        """Give the latencies since the last call."""
        taken, self._spans_ms = dict(self._spans_ms), defaultdict(list)
        return taken


class Backend:
    """Increments at a pace: `items` in each request, and a number of requests a second."""

    def __init__(self, name: str, number: int, items: int, per_second: float) -> None:
        self.name = name
        self.acknowledged = 0
        self._number = number
        self._items = items
        self._pause = 1 / per_second

    def rows(self, first: int, count: int) -> list[dict[str, str]]:
        """The actions from this number on."""
        return [{"userId": self.user_of(n), "actionId": f"{self.name}-{n}"} for n in range(first, first + count)]

    def user_of(self, action: int) -> str:
        """The user of this action."""
        return f"user-{(action * STRIDE + self._number) % USERS}"

    async def work(self, host: str, port: int, bearer: str, measures: Measures) -> None:
        """Increment until the leader is gone."""
        async with Client(host, port, bearer) as client:
            try:
                while True:
                    await self.one_request(client, measures)
                    await trio.sleep(self._pause)
            except ConnectionLost:
                return

    async def one_request(self, client: Client, measures: Measures) -> None:
        """Send the next request, for the first time or again."""
        began = trio.current_time()
        rows = self.rows(self.acknowledged + 1, self._items)
        if self._items == 1:
            answer = await client.post("/scores/increment", rows[0])
            receipts = [{"status": answer.status, **answer.json()}]
        else:
            answer = await client.post("/scores/increment/batch", rows)
            receipts = answer.json() if answer.status == 200 else [{"status": answer.status}] * len(rows)
        measures.note("post" if self._items == 1 else "batch", began)
        told = [(receipt["status"], receipt.get("actionId")) for receipt in receipts]
        if told == [(200, row["actionId"]) for row in rows]:
            self.acknowledged += self._items
        elif not all(status in (200, 503) for status, _ in told):  # 503: it may count or not, so it is sent again
            measures.faults.append(f"{self.name}: {receipts}")


async def read(host: str, port: int, bearer: str, backend: Backend, measures: Measures) -> None:
    """Poll the top, a user's score and a receipt in turn, until the leader is gone."""
    async with Client(host, port, bearer) as client:
        try:
            for number in range(10**12):
                paths = ("/scoreboard/top", f"/scores/{backend.user_of(1)}", f"/actions/{backend.name}-1")
                kind = number % len(paths)
                began = trio.current_time()
                answer = await client.get(paths[kind])
                measures.note("top" if kind == 0 else "read", began)
                if answer.status not in (200, 503) and backend.acknowledged:
                    measures.faults.append(f"GET {paths[kind]}: {answer.status} {answer.body[:200]!r}")
                await trio.sleep(0.05)
        except ConnectionLost:
            return


async def watch(host: str, port: int, measures: Measures) -> None:
    """Follow the live board until the leader is gone; the board must never go back."""
    seen = (0, 0)
    try:
        async with open_websocket_url(f"ws://{host}:{port}/ws/scoreboard", subprotocols=["scoreboard.v1"]) as viewer:
            while True:
                message = json.loads(await viewer.get_message())
                position = message["epoch"], message["seq"]
                if position < seen:
                    measures.faults.append(f"a viewer saw {position} after {seen}")
                seen = position
                measures.counts["message"] += 1
    except (ConnectionClosed, HandshakeError, OSError):
        return


async def check_books(host: str, port: int, bearer: str, backends: list[Backend], measures: Measures) -> int:
    """Compare the leader with the books: acknowledged actions count once, scores are the sums. Give how many."""
    scores: Counter[str] = Counter()
    async with Client(host, port, bearer) as client:
        for backend in backends:
            await backend.one_request(client, measures)  # the requests that the last leader left unanswered
            for first in range(1, backend.acknowledged + 1, CHECKED_ITEMS):
                rows = backend.rows(first, min(CHECKED_ITEMS, backend.acknowledged + 1 - first))
                receipts = (await client.post("/scores/increment/batch", rows)).json()
                wrong = [receipt for receipt in receipts if (receipt["status"], receipt.get("applied")) != (200, False)]
                assert not wrong, f"{backend.name}: acknowledged and not counted: {wrong[0]}"
                scores.update(row["userId"] for row in rows)
        await _check_scores(client, {user_id: count * POINTS for user_id, count in scores.items()})
    return scores.total()


async def _check_scores(client: Client, scores: dict[str, int]) -> None:
    for user_id, score in scores.items():
        told = (await client.get(f"/scores/{user_id}")).json()
        assert told["score"] == score, (user_id, told, score)
    entries: list[dict[str, Any]] = (await client.get("/scoreboard/top?limit=50")).json()["entries"]
    assert [entry["score"] for entry in entries] == sorted(scores.values(), reverse=True)[:50]
    assert all(scores[entry["userId"]] == entry["score"] for entry in entries)
