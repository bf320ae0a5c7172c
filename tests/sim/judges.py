"""A judge of flagged users in a simulated run: reads the queue of reviews, and decides some of them, some twice.

That the queue is right is no matter of the judge: `tests.sim.plain` compares all reviews of every node with a plain
model. An answer must tell what is in the log.
"""

from __future__ import annotations

import json

import trio

from engine.events import ReviewDecided
from tests.sim.books import Broken
from tests.sim.clients import Client

JUDGE = "judge"
"""The name of its generators, so the dice of all others fall as without it."""

EXPECTED = {200, 404, 409, 503}


class Judge(Client):
    """See above."""

    async def work(self, until_s: float) -> None:
        """Decide reviews until a time."""
        while trio.current_time() < until_s:
            await trio.sleep(self._dice.expovariate(1.5))
            state = self._dice.choice(["open", "open", "all"])
            answer = await self._once("GET", f"/reviews?state={state}")
            if answer is None or answer.status != 200:
                continue
            reviews = [review["reviewId"] for review in json.loads(answer.body)["reviews"]]
            self._books.counts["reviews read"] += len(reviews)
            if reviews:
                await self._decide(self._dice.choice(reviews))

    async def _decide(self, review_id: str) -> None:
        answer = await self._once("POST", f"/reviews/{review_id}", {"decision": "accept"})
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
