"""Drives the logic of a call through a course of events: no network, no clock, no time.

    course = Course(answered(503, "OVERLOADED"), receipt("bob"))
    assert course.run(call(…)).applied
    assert course.waits == [0.05]

Rules:
- Each `Send`, `Open` and `Read` takes the next event. A course that is too short or too long is a failure of the test;
  `watch` goes on for ever, so there the course ends when it has no event left.
- An event that is an exception is one of the caller's code, such as the callable that gives the token.
- The lot is always LOT, and only a `Wait` lets time pass, unless an event takes some (`slow`).
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any, TypeVar

from scoreboard_client.calls import Caller
from scoreboard_client.effects import (
    Answer,
    Close,
    Done,
    Effect,
    Emit,
    Fault,
    Idle,
    Look,
    Open,
    Reaction,
    Read,
    Send,
    Steps,
    Wait,
    Work,
    resume,
)  # fmt: skip
from scoreboard_client.nodes import Nodes

T = TypeVar("T")

LOT = 0.5
A, B, C = "http://a.example", "http://b.example:8080", "https://c.example/board"


def caller(*urls: str, renews_token: bool = False) -> Caller:
    """Make what calls share: an attempt takes 10 s at most, a call 30 s."""
    return Caller(Nodes(urls or [A]), 10.0, 30.0, renews_token)


def answered(status: int, code: str = "", headers: dict[str, str] | None = None, **details: Any) -> Answer:
    """Make an error answer, or with 200 one whose body is `details`."""
    body: dict[str, Any] = details
    if code:
        body = {"error": {"code": code, "message": f"It is {code}.", "details": details}}
    return Answer(status, headers or {}, json.dumps(body).encode())


def receipt(user_id: str = "bob", action_id: str = "a1", seq: int = 7, **other: Any) -> Answer:
    """Make a receipt."""
    body: dict[str, Any] = {"userId": user_id, "newScore": 10, "delta": 10, "applied": True, "actionId": action_id}
    body |= {"boardId": "main", "epoch": 1, "seq": seq, "rank": 1, "previousRank": None, **other}
    return Answer(200, {}, json.dumps(body).encode())


def slow(seconds: float) -> tuple[float, Fault]:
    """Make an attempt that takes so long and brings no answer."""
    return seconds, Fault("no whole answer in time", sent=True)


class Course:
    """See above. `sent` are the addresses and requests, `waits` the waits, `emitted` what was given to who iterates."""

    def __init__(self, *events: Answer | Fault | bytes | tuple[float, Fault] | Exception) -> None:
        self.now_s = 1_000.0
        self.sent: list[Send | Open] = []
        self.waits: list[float] = []
        self.emitted: list[Any] = []
        self._events = deque(events)

    @property
    def nodes(self) -> list[str]:
        return [send.node for send in self.sent]

    @property
    def targets(self) -> list[str]:
        return [send.request.target.partition("?")[0] for send in self.sent]

    def run(self, steps: Steps[T]) -> T:
        """Perform a call to its end."""
        step = resume(steps)
        while not isinstance(step, Done):
            step = resume(steps, self._came(step))
        assert not self._events, "these were never sent for"
        value: T = step.value
        return value

    def run_for_ever(self, steps: Steps[None]) -> None:
        """Perform a call that has no end, until there are no more events."""
        step = resume(steps)
        while not isinstance(step, Done):
            if isinstance(step, (Send, Open, Read)) and not self._events:
                steps.close()
                return
            step = resume(steps, self._came(step))
        raise AssertionError("it ended")

    def _came(self, step: Effect) -> Reaction | Exception:
        result = self._perform(step)
        return result if isinstance(result, Exception) else Reaction(self.now_s, LOT, result)

    def _perform(self, step: Effect) -> Any:
        if isinstance(step, (Send, Open, Read)):
            if not isinstance(step, Read):
                self.sent.append(step)
            event = self._events.popleft()
            if isinstance(event, tuple):
                self.now_s += event[0]
                return event[1]
            return event
        if isinstance(step, Wait):
            self.waits.append(step.seconds)
            self.now_s += step.seconds
        elif isinstance(step, Idle):
            assert step.seconds is not None, "nothing is left that could end this wait"
            self.now_s += step.seconds
        elif isinstance(step, Work):
            try:
                return step.function()
            except Exception as error:
                return error
        elif isinstance(step, Emit):
            self.emitted.append(step.value)
        else:
            assert isinstance(step, (Look, Close)), step
        return None
