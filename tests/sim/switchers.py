"""An operator in a simulated run who switches the live channel off and on again, and may not wait for an answer.

At the end `rest` has it on, so that all viewers come back and are right. Who looks at the flag of a node sees that of
the leader, or of the moment up to which the node has followed: the judge of states compares it after every start.
"""

from __future__ import annotations

import json
import random

import trio

from engine.events import FlagPut
from tests.sim.books import Books, Broken
from tests.sim.clients import Client
from tests.sim.network import DELAY_S_MAX, Network
from tests.sim.trace import Trace

SWITCHER = "switcher"
"""The name of its generators, so the dice of all others fall as without it."""

FLAG_PATH = "/flags/live"


class Switcher(Client):
    """See above."""

    def __init__(self, name: str, network: Network, dice: random.Random, books: Books, trace: Trace) -> None:
        super().__init__(name, network, dice, books, trace)
        self._done = trio.Event()

    async def work(self, until_s: float) -> None:
        """Switch until a time."""
        while trio.current_time() < until_s:
            await trio.sleep(self._dice.expovariate(1.0))
            if self._dice.random() < 0.2:
                await self._look()
            else:
                await self._put(enabled=self._dice.random() < 0.5)
        self._done.set()

    async def rest(self) -> None:
        """Have the channel on, once no request is on its way any more."""
        await self._done.wait()
        await trio.sleep(DELAY_S_MAX)
        self._books.order("flag", "live", True)
        answer = await self._until_known("PUT", FLAG_PATH, {"enabled": True})
        if answer.status != 200:
            raise Broken(f"the live channel was not switched on: {answer.status} {answer.body!r}")

    async def _put(self, *, enabled: bool) -> None:
        self._books.order("flag", "live", enabled)
        answer = await self._once("PUT", FLAG_PATH, {"enabled": enabled})
        if answer is None or answer.status == 503:
            return
        if answer.status != 200:
            raise Broken(f"PUT {FLAG_PATH} was answered with {answer.status}: {answer.body!r}")
        told = json.loads(answer.body)
        self._see(told)
        if told["enabled"] is not enabled:
            raise Broken(f"the flag should be {enabled}, and the answer is {told}")
        self._books.counts["flags put" if told["applied"] else "flags that were so already"] += 1
        if told["applied"] and not isinstance(self._books.plain.events[told["seq"] - 1], FlagPut):
            raise Broken(f"a flag was acknowledged as seq {told['seq']}")

    async def _look(self) -> None:
        answer = await self._once("GET", FLAG_PATH)
        if answer is None or answer.status != 200:
            return
        told = json.loads(answer.body)
        self._see(told)
        puts = [event for event in self._books.plain.events[: told["seq"]] if isinstance(event, FlagPut)]
        if told["enabled"] is not (not puts or puts[-1].enabled):
            raise Broken(f"at seq {told['seq']} the flag is told to be {told}, after {puts[-1:]}")
