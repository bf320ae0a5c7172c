"""A judge of flagged users, in some of the simulated runs: lets boards be watched, reads the queue of reviews, and
decides some of them, some twice.

That the queue is right is no matter of the judge: `tests.sim.plain` compares all reviews of every node with a plain
model. An answer must tell what is in the log.
"""

from __future__ import annotations

import json
import random

import msgspec
import trio
from msgspec.structs import replace

from engine.board_rules import WatchRules
from engine.events import ReviewDecided
from server.settings.board_form import form_of
from tests.sim.books import Books, Broken
from tests.sim.clients import Client
from tests.sim.network import Network
from tests.sim.trace import Trace

JUDGE = "judge"
"""The name of its generators, so the dice of all others fall as without it."""

WORKS = 0.3
"""So often a run has one. Other runs fall as before there were reviews, and so do the seeds that are kept."""

WATCHES = {
    "main": WatchRules(growth_per_minute=19),
    "weekly": WatchRules(1, 3, 1, 2.0),
    "cup": WatchRules(growth_per_minute=9, growth_per_hour=40),
}
"""Limits that a few actions pass."""

EXPECTED = {200, 404, 409, 503}


class Judge(Client):
    """See above."""

    def __init__(
        self, name: str, network: Network, dice: random.Random, books: Books, trace: Trace, *, holds: bool
    ) -> None:
        """`holds`: most of the boards hold what a flagged user does, and some reviews take actions back."""
        super().__init__(name, network, dice, books, trace)
        self._holds = holds

    async def work(self, until_s: float) -> None:
        """Let boards be watched, and decide reviews until a time."""
        for board_id, watch in WATCHES.items():
            holds = self._holds and self._dice.random() < 0.7
            await self._watch(board_id, replace(watch, action="hold") if holds else watch, until_s)
        while trio.current_time() < until_s:
            await trio.sleep(self._dice.expovariate(0.5 if self._holds else 1.5))  # so that something is held by then
            state = self._dice.choice(["open", "open", "all"])
            answer = await self._once("GET", f"/reviews?state={state}")
            if answer is None or answer.status != 200:
                continue
            reviews = [review["reviewId"] for review in json.loads(answer.body)["reviews"]]
            self._books.counts["reviews read"] += len(reviews)
            if reviews:
                await self._decide(self._dice.choice(reviews))

    async def _watch(self, board_id: str, watch: WatchRules, until_s: float) -> None:
        answer = None
        while (answer is None or answer.status == 503) and trio.current_time() < until_s:
            await trio.sleep(self._dice.expovariate(3.0))
            board = self._books.plain.boards[board_id]
            if board.definition is not None:
                rules = replace(board.definition.rules, watch=watch)
                self._books.order("put", board_id, rules)
                answer = await self._once("PUT", f"/boards/{board_id}", msgspec.to_builtins(form_of(rules)))

    async def _decide(self, review_id: str) -> None:
        body = {"decision": "accept"}
        if self._holds and self._dice.random() < 0.4:
            body = {"decision": "reverse", "note": "a bot"}
            self._books.order("reverse", f"review-{review_id}", None)
        answer = await self._once("POST", f"/reviews/{review_id}", body)
        if answer is None:
            return
        if answer.status not in EXPECTED:
            raise Broken(f"the decision of {review_id} was answered with {answer.status}: {answer.body!r}")
        if answer.status != 200:
            return
        told = json.loads(answer.body)
        self._see(told)
        self._books.counts["reviews decided" if told["applied"] else "reviews decided before"] += 1
        event = self._books.plain.events[told["seq"] - 1]
        if not isinstance(event, ReviewDecided) or event.review_id != review_id:
            raise Broken(f"the decision of {review_id} was acknowledged as seq {told['seq']}: {event}")
