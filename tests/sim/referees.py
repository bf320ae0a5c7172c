"""A referee in a simulated run, who takes actions back, and takes that back again.

It sends previews too, and the same reversal a second time. Not every answer is waited for: who does not know whether a
reversal was made sends it again, or leaves it.
"""

from __future__ import annotations

import json
import random
from typing import Any

import trio

from engine.events import Reversed
from tests.sim.boards import SPARE
from tests.sim.books import Books, Broken
from tests.sim.clients import Client
from tests.sim.network import Network
from tests.sim.trace import Trace


class Referee(Client):
    """See above."""

    def __init__(self, name: str, network: Network, dice: random.Random, books: Books, trace: Trace) -> None:
        super().__init__(name, network, dice, books, trace)
        self._sent: list[dict[str, Any]] = []

    async def work(self, until_s: float) -> None:
        """Reverse actions until a time."""
        pause_s = self._dice.choice([0.5, 2.0])
        while trio.current_time() < until_s:
            await trio.sleep(self._dice.expovariate(1 / pause_s))
            if (body := self._draw()) is not None:
                await self._send(body)

    def _draw(self) -> dict[str, Any] | None:
        known, made = sorted(self._books.acknowledged), sorted(self._books.plain.reversals)
        kind = self._dice.choices(["some", "ended", "spare", "user", "again", "same"], [6, 4, 2, 2, 3, 1])[0]
        if kind == "ended":
            known = self._of_past_periods(known)
        elif kind == "spare":
            known = [one for one in known if self._books.plain.actions[one].board_id in SPARE]
        if kind == "same":
            return self._dice.choice(self._sent) if self._sent else None
        body: dict[str, Any] = {"reversalId": f"{self.name}-{len(self._sent)}", "reason": "looked wrong"}
        if kind == "again":
            if not made:
                return None
            body["actionIds"] = [self._dice.choice(made)]
        elif kind == "user":
            body["userId"] = f"user-{self._dice.randrange(3)}"
            if self._dice.random() < 0.5:
                body["from"] = self._dice.randint(1, 40)
        elif known:
            body["actionIds"] = self._dice.sample(known, min(len(known), self._dice.randint(1, 3)))
        else:
            return None
        if self._dice.random() < 0.2:
            return {**body, "preview": True}
        self._sent.append(body)
        return body

    def _of_past_periods(self, known: list[str]) -> list[str]:
        """Choose actions that counted in a past period of a board that is kept."""
        plain = self._books.plain
        kept: dict[str, list[int]] = {}
        for board_id, board in plain.boards.items():
            past = [] if board.definition is None else [past.seq for past in board.definition.past if past.count]
            if past:
                before = [seq for seq in board.finals if seq < past[0]]
                kept[board_id] = [max(before, default=0), past[-1]]
        actions = [(action_id, plain.actions[action_id]) for action_id in known]
        return [one for one, event in actions if event.board_id in kept and _within(event.seq, kept[event.board_id])]

    async def _send(self, body: dict[str, Any]) -> None:
        self._books.order("reverse", body["reversalId"], None)
        answer = await self._once("POST", "/reversals", body)
        if answer is None or answer.status == 503:
            return
        if answer.status not in {200, 400, 409}:
            raise Broken(f"the reversal {body} was answered with {answer.status}: {answer.body!r}")
        if answer.status > 200:
            self._judge(body, json.loads(answer.body)["error"])
            return
        told = json.loads(answer.body)
        self._see(told)
        if told["preview"]:
            if told["applied"]:
                raise Broken(f"a preview was applied: {told}")
            return
        event = self._books.plain.events[told["seq"] - 1]
        if not isinstance(event, Reversed) or event.reversal_id != body["reversalId"]:
            raise Broken(f"the reversal {body} was acknowledged as seq {told['seq']}: {event}")

    def _judge(self, body: dict[str, Any], error: dict[str, Any]) -> None:
        """Judge a refusal. While the log has everything, it explains each score of the running period.

        How a period was counted that has ended is guessed from its actions, which may fit several ways.
        """
        details = error["details"]
        if "userId" not in details:
            self._books.counts[f"reversal: {error['code']}"] += 1
            return
        self._books.counts["reversals that the log does not explain"] += 1
        process = self._network.process()
        is_past = "period" in details or "its rules have changed since" in error["message"]
        is_whole = process is not None and process.log.segments()[0].first_seq == 1
        if is_whole and not is_past and not self._books.counts["promotions"]:
            raise Broken(f"the log has everything, and yet the reversal {body} was refused: {error}")


def _within(seq: int, span: list[int]) -> bool:
    return span[0] < seq <= span[1]
