"""Clients that read from replicas all the time, and compare each answer with the answers before it.

    CARRYING    sends the highest seq that it has seen as `minSeq`: no answer may be older, through restarts too
    PLAIN       sends nothing: no answer may be older than the answers before it from the same process

A refusal is no fault: a replica must refuse what it can't give, or can't give in time. Every answer must tell the lag,
and so must every refusal.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from tests.e2e.client import Answer, Client, ConnectionLost

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster

PAUSE_SECONDS = 0.01
"""Between two reads, so that readers leave the processors to the nodes."""

LAG_HEADERS = ("x-scoreboard-lag-records", "x-scoreboard-lag-ms")


@dataclass
class Seen:
    """What all readers together saw: how many answers, how many of them stale, which refusals."""

    answers: Counter[str] = field(default_factory=Counter)
    stale: int = 0
    refusals: Counter[str] = field(default_factory=Counter)


class Reader:
    """One client of one replica; the replica's process may change."""

    def __init__(self, cluster: Cluster, slot: str, board_id: str, seen: Seen, *, carrying: bool) -> None:
        self._cluster = cluster
        self._slot = slot
        self._board_id = board_id
        self._seen = seen
        self._carrying = carrying
        self._newest = 0

    async def read(self) -> None:
        """Read until cancelled."""
        while True:
            node = await self._cluster.up(self._slot)
            if not self._carrying:
                self._newest = 0
            async with Client(node.host, node.port) as client:
                while self._cluster.nodes.get(self._slot) is node:
                    target = f"/scoreboard/top?limit=3&boardId={self._board_id}"
                    if self._carrying:
                        target += f"&minSeq={self._newest}"
                    try:
                        answer = await client.get(target)
                        if self._cluster.nodes.get(self._slot) is node:  # or it was promoted meanwhile, and has no lag
                            self._take(answer)
                    except ConnectionLost:
                        await trio.sleep(PAUSE_SECONDS)  # it is being killed, or starts
                    await trio.sleep(PAUSE_SECONDS)

    def _take(self, answer: Answer) -> None:
        who = f"{'carrying' if self._carrying else 'plain'} reader of {self._slot}"
        lag = [answer.headers.get(name, "") for name in LAG_HEADERS]
        assert all(number.isdecimal() or number == "unknown" for number in lag), (who, answer.status, answer.headers)
        if answer.status == 503:
            self._seen.refusals[answer.json()["error"]["code"]] += 1
            return
        assert answer.status == 200, (who, answer.status, answer.body)
        body = answer.json()
        assert body["seq"] >= self._newest, f"{who}: went back from seq {self._newest} to {body['seq']}"
        self._newest = body["seq"]
        self._seen.answers[self._slot] += 1
        if body.get("stale"):
            assert body["ageMs"] >= 0
            self._seen.stale += 1
