"""Backends that increment as real ones should, and their books: which actions were submitted, and which acknowledged.

A backend that gets no answer does not know whether its action counts. So it keeps the request and sends it again, with
the same actionId, to the next leader that answers. That is the one rule for callers.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import trio

from tests.e2e.client import Answer, Client, ConnectionLost

Row = dict[str, Any]

BOARDS = {"main": {"ACTION_COMPLETED": 10, "BONUS": 25}, "weekly": {"ACTION_COMPLETED": 1}}
CONFIG = """
[boards.main.points]
ACTION_COMPLETED = 10
BONUS = 25
[boards.weekly.points]
ACTION_COMPLETED = 1
[limits]
caller_per_minute = 10000000
user_per_minute = 10000000
[snapshots]
every_events = {every_events}
"""
"""The configuration of a leader with `BOARDS`, limits that no load reaches, and a snapshot after some events."""

USERS = [f"user-{number}" for number in range(12)]
BATCH_ITEMS_MAX = 40


@dataclass
class Books:
    """The books of all backends together. An action is in `submitted` before its first byte is sent."""

    submitted: dict[str, Row] = field(default_factory=dict)
    acknowledged: dict[str, Row] = field(default_factory=dict)
    names: list[Row] = field(default_factory=list)
    duplicates: int = 0
    conflicts: int = 0
    retried: int = 0
    _grown: trio.Event = field(default_factory=trio.Event)

    async def wait_acknowledged(self, count: int) -> None:
        """Wait until so many actions are acknowledged."""
        while len(self.acknowledged) < count:
            self._grown = trio.Event()
            await self._grown.wait()

    def acknowledge(self, row: Row, receipt: Row) -> None:
        """Note a 200; it must agree with earlier answers about this action."""
        action_id = row["actionId"]
        assert receipt["actionId"] == action_id
        assert (receipt["userId"], receipt["boardId"]) == (row["userId"], row["boardId"])
        known = self.acknowledged.get(action_id)
        if known is None:
            self.acknowledged[action_id] = receipt
            self._grown.set()
        else:
            assert receipt["applied"] is False, f"{action_id} was counted twice: {known} then {receipt}"
            assert (receipt["epoch"], receipt["seq"]) == (known["epoch"], known["seq"]), (known, receipt)


class Backend:
    """One caller with one connection and one request at a time; it outlives any number of leaders."""

    def __init__(self, name: str, seed: int, books: Books, bearer: str) -> None:
        self._name = name
        self._random = random.Random(f"{seed} {name}")  # reproducible, from the printed seed
        self._books = books
        self._bearer = bearer
        self._unanswered: list[Row] = []
        self._made = 0

    async def work(self, host: str, port: int) -> None:
        """Increment until the leader is gone."""
        async with Client(host, port, self._bearer) as client:
            try:
                while True:
                    await self._one_request(client)
            except ConnectionLost:
                return

    async def _one_request(self, client: Client) -> None:
        if self._unanswered:
            self._books.retried += len(self._unanswered)
            await self._increment(client, self._unanswered)
            return
        dice = self._random.random()
        if dice < 0.50 or not self._books.acknowledged:
            await self._increment(client, [self._new_row()])
        elif dice < 0.75:
            await self._increment(client, [self._new_row() for _ in range(self._random.randint(2, BATCH_ITEMS_MAX))])
        elif dice < 0.87:
            await self._repeat(client)
        elif dice < 0.97:
            await self._contradict(client)
        else:
            await self._put_name(client)

    def _new_row(self) -> Row:
        self._made += 1
        board_id = self._random.choice(list(BOARDS))
        return {
            "userId": self._random.choice(USERS),
            "actionId": f"{self._name}-{self._made}",
            "boardId": board_id,
            "reason": self._random.choice(list(BOARDS[board_id])),
        }

    async def _increment(self, client: Client, rows: list[Row]) -> None:
        self._unanswered = rows
        for row in rows:
            self._books.submitted[row["actionId"]] = row
        if len(rows) == 1:
            answer = await client.post("/scores/increment", rows[0])
            receipts = [{"status": answer.status, **answer.json()}]
        else:
            answer = await client.post("/scores/increment/batch", rows)
            assert answer.status in (200, 503), (answer.status, answer.body)
            receipts = answer.json() if answer.status == 200 else [{"status": 503}] * len(rows)
        assert len(receipts) == len(rows)
        for row, receipt in zip(rows, receipts, strict=True):
            if receipt["status"] == 200:
                self._books.acknowledge(row, receipt)
            else:
                assert receipt["status"] == 503, receipt
        self._unanswered = [row for row, one in zip(rows, receipts, strict=True) if one["status"] == 503]

    async def _repeat(self, client: Client) -> None:
        """Send an acknowledged action again: the answer must call it a duplicate, which `acknowledge` checks."""
        row = self._books.submitted[self._random.choice(list(self._books.acknowledged))]
        answer = await client.post("/scores/increment", row)
        if self._answered(answer, 200):
            self._books.acknowledge(row, answer.json())
            assert answer.json()["delta"] == 0
            self._books.duplicates += 1

    async def _contradict(self, client: Client) -> None:
        """Send an acknowledged action again with another user: the answer is a conflict, and nothing is applied."""
        row = self._books.submitted[self._random.choice(list(self._books.acknowledged))]
        other = self._random.choice([user for user in USERS if user != row["userId"]])
        answer = await client.post("/scores/increment", {**row, "userId": other})
        if self._answered(answer, 409):
            assert answer.json()["error"]["code"] == "CONFLICT"
            self._books.conflicts += 1

    async def _put_name(self, client: Client) -> None:
        user_id, name = self._random.choice(USERS), f"Name {self._random.randrange(10**6)}"
        answer = await client.put(f"/users/{user_id}", {"displayName": name})
        if self._answered(answer, 200) and answer.json()["applied"]:
            self._books.names.append({"userId": user_id, "displayName": name, "seq": answer.json()["seq"]})

    def _answered(self, answer: Answer, expected: int) -> bool:
        assert answer.status in (expected, 503), (answer.status, answer.body)
        return answer.status == expected


async def work_until_gone(backends: list[Backend], host: str, port: int) -> None:
    """Let all backends work at the same time until the leader is gone for each of them."""
    async with trio.open_nursery() as nursery:
        for backend in backends:
            nursery.start_soon(backend.work, host, port)


def check_log(rows: list[Row], books: Books) -> None:
    """Acknowledged ⊆ recovered ⊆ submitted, each once, with the seq and the score of the caller's receipt."""
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    recovered: dict[str, Row] = {}
    sums: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row["type"] != "incremented":
            continue
        assert row["actionId"] not in recovered, f"counted twice: {row}"
        recovered[row["actionId"]] = row
        sent = books.submitted.get(row["actionId"])
        assert sent is not None, f"never submitted: {row}"
        assert {key: row[key] for key in sent} == sent
        assert row["caller"] == "backend"
        assert row["delta"] == BOARDS[row["boardId"]][row["reason"]]
        sums[row["boardId"], row["userId"]] += row["delta"]
        assert row["newScore"] == sums[row["boardId"], row["userId"]]
    for action_id, receipt in books.acknowledged.items():
        assert action_id in recovered, f"acknowledged and lost: {receipt}"
        row = recovered[action_id]
        assert (receipt["epoch"], receipt["seq"]) == (row["epoch"], row["seq"])
        if receipt["applied"]:
            assert (receipt["newScore"], receipt["delta"]) == (row["newScore"], row["delta"])
    for name in books.names:
        row = rows[name["seq"] - 1]
        assert row["type"] == "user_put"
        assert (row["userId"], row["displayName"]) == (name["userId"], name["displayName"])
