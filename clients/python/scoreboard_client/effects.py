"""What the logic of a call asks of the world, and what it gets back. Pure.

    def ask() -> Steps[int]:                        a generator: it yields effects, and is sent what came of them
        reaction = yield Send("https://board.example", request, 5.0)
        return reaction.result.status

    status = line.run(ask())                        `scoreboard_client.sync_shell` or `async_shell` performs them

The logic of the client is written once, as such generators. It touches no clock, network or disk, and does not know
whether it runs in a thread, on asyncio or on Trio. Each reaction brings the time and a lot from 0 to 1, so a test
drives a call through any course of events, in no time.

Rules:
- A `Fault` is what the world did. An exception is the caller's (a token callable that raises), and ends the call.
- `Fault.sent` is False only if it is certain that no byte of the request reached a server.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from scoreboard_client.requests import Request

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that came in whole. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Give the body; None if it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


@dataclass(frozen=True, slots=True)
class Fault:
    """No whole answer came."""

    text: str
    sent: bool


@dataclass(frozen=True, slots=True)
class Look:
    """Look at the clock."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request to a node and read the whole answer: `Answer | Fault`."""

    node: str
    request: Request
    seconds: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Idle:
    """Wait until the book has another version than `seen`, or the time is over (None: for ever)."""

    seen: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Open:
    """Begin to read a stream: `Answer | Fault`. A body is read only if the status is not 200.

    `silence_s` is how long the stream may bring nothing.
    """

    node: str
    request: Request
    seconds: float
    silence_s: float


@dataclass(frozen=True, slots=True)
class Read:
    """Read the next bytes of the stream: `bytes | Fault`, empty at its end."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the stream."""


@dataclass(frozen=True, slots=True)
class Emit:
    """Give a value to who iterates."""

    value: Any


@dataclass(frozen=True, slots=True)
class Work:
    """Run a function that may block, such as one of the outbox; its result comes back."""

    function: Callable[[], Any]


Effect = Look | Send | Wait | Idle | Open | Read | Close | Emit | Work


@dataclass(frozen=True, slots=True)
class Reaction:
    """What came of an effect. `now_s` is of a clock that never goes back; `lot` is random, from 0 to 1."""

    now_s: float
    lot: float
    result: Any = None


Steps = Generator[Effect, Reaction, T]


@dataclass(frozen=True, slots=True)
class Done:
    """A call ended with this value."""

    value: Any


def resume(steps: Steps[Any], came: Reaction | Exception | None = None) -> Effect | Done:
    """Go on with a call (None: begin it) until its next effect, or its end. What it raises is the caller's."""
    try:
        if came is None:
            return next(steps)
        return steps.throw(came) if isinstance(came, Exception) else steps.send(came)
    except StopIteration as end:
        return Done(end.value)


def look() -> Steps[Reaction]:
    """Give the time and a lot."""
    return (yield Look())


def work(function: Callable[[], T]) -> Steps[T]:
    """Run a function that may block."""
    result: T = (yield Work(function)).result
    return result
