"""One call: attempts at the nodes until there is a final answer, or the deadline. Pure.

    receipt = yield from increment(caller, Action("bob", "order-4711"))

    answer                                       what it means
    2xx, 304                                     final
    307, 308, 421 that names a configured node   go there at once, at most HOPS_MAX times in an attempt
    – that names any other address               ask the other nodes; if all say so: `NotLeader`
    421 that names nobody                        a promotion is under way: ask again
    429, 503 (OUTCOME_UNKNOWN too), 408, 502, 504, no answer      ask again
    401 with a token of a callable               ask the callable again, once
    anything else                                final, an `ApiError`

Rules:
- Each attempt of an increment carries the same actionId, so that it counts once however often it is sent.
- The wait between two attempts is random, from 0 to a bound that doubles ("full jitter"). It is added to `Retry-After`,
  because all who were refused at one moment have the same.
- A wait that would pass the deadline is not begun: the call ends at once with the trouble that it had.
- After an attempt that failed the next one begins at the next node. The exceptions are a limit and a busy leader:
  another node would only lead back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

from scoreboard_client import requests
from scoreboard_client.answers import Receipt, receipt_of
from scoreboard_client.effects import Answer, Fault, Send, Steps, Wait, look
from scoreboard_client.errors import (
    ApiError,
    DeadlineExceeded,
    NotAnswered,
    ScoreboardError,
    UnexpectedAnswer,
    api_error,
)
from scoreboard_client.nodes import Nodes
from scoreboard_client.requests import Action, Request

T = TypeVar("T")

WAIT_FIRST_S = 0.1
WAIT_MAX_S = 5.0
"""The bound of the first wait, and of all. A leader that is killed and started again is away for some seconds."""

HOPS_MAX = 3
"""From a replica to its leader: one, and a promotion or two meanwhile."""

_BY_PROXIES = (408, 502, 504)
_BUSY = ("RATE_LIMITED", "OVERLOADED", "DISK_FULL")
_NOT_COUNTED = (
    "OVERLOADED", "DISK_FULL", "NO_QUORUM", "KEYS_UNAVAILABLE", "REPLICA_BEHIND", "PERIOD_UNAVAILABLE", "NOT_LEADER",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Caller:
    """What all calls of a client share. Seconds: of one attempt, and of a whole call unless it says otherwise."""

    nodes: Nodes
    attempt_s: float
    deadline_s: float
    renews_token: bool


@dataclass(frozen=True, slots=True)
class Again:
    """An attempt that is worth another. `wait_s` is what the server asked for.

    `counted`: it may have had an effect. `rotate`: begin at the next node. `stranger`: this node leads to an address
    that is not configured, or lacks the board.
    """

    trouble: ScoreboardError
    wait_s: float
    counted: bool = False
    rotate: bool = True
    stranger: bool = False


def seconds(name: str, value: float) -> float:
    """Give a time that is more than 0 and has an end. Raises ValueError."""
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a number of seconds above 0, not {value!r}")
    return float(value)


def jitter_s(failures: int, lot: float) -> float:
    """Give a random wait after this many failures in a row. `lot` is from 0 to 1."""
    return lot * min(WAIT_MAX_S, WAIT_FIRST_S * 2.0 ** min(failures - 1, 20))


def retry_after_s(answer: Answer) -> float:
    """Read `Retry-After`, seconds or a date; 0 without it. A date is compared with the answer's own `Date`."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - parsedate_to_datetime(answer.headers["date"])).total_seconds())
    except (ValueError, TypeError, KeyError):
        return 0.0


def call(
    caller: Caller, request: Request, read: Callable[[object], T], *, writes: bool, deadline_s: float | None = None
) -> Steps[T]:
    """Send a request until it is answered. Raises `ApiError`, `DeadlineExceeded` or `UnexpectedAnswer`."""
    nodes = caller.nodes
    begun = yield from look()
    end_s = begun.now_s + (caller.deadline_s if deadline_s is None else seconds("deadline_s", deadline_s))
    start, attempts, counted = nodes.writer if writes else nodes.reader, 0, False
    strangers: set[int] = set()
    while True:
        attempts += 1
        outcome = yield from attempt(caller, request, start, end_s, writes=writes)
        if isinstance(outcome, Answer):
            return read(outcome.json())
        counted = counted or (writes and outcome.counted)
        if outcome.stranger:
            strangers.add(start)
            if len(strangers) == len(nodes):
                raise outcome.trouble
        if outcome.rotate:
            start = (start + 1) % len(nodes)
        now = yield from look()
        wait_s = outcome.wait_s + jitter_s(attempts, now.lot)
        if now.now_s + wait_s >= end_s:
            raise DeadlineExceeded(outcome.trouble, attempts, may_have_counted=counted) from outcome.trouble
        yield Wait(wait_s)


def increment(caller: Caller, action: Action, deadline_s: float | None = None) -> Steps[Receipt]:
    """Count an action, and give its receipt."""

    def read(body: object) -> Receipt:
        return receipt_of(body, action.action_id)

    return (yield from call(caller, requests.increment(action), read, writes=True, deadline_s=deadline_s))


def attempt(caller: Caller, request: Request, start: int, end_s: float, *, writes: bool) -> Steps[Answer | Again]:
    """Send a request to one node, and on to the leader that it names. Raises `ApiError` for a final refusal."""
    nodes, node, renewed, counted = caller.nodes, start, False, False
    hops = 0
    now = yield from look()
    while True:
        left_s = end_s - now.now_s
        if left_s <= 0:
            return Again(NotAnswered(f"{nodes.urls[node]}: the time is over"), 0.0, counted)
        now = yield Send(nodes.urls[node], request, min(left_s, caller.attempt_s))
        if isinstance(now.result, Fault):
            trouble = NotAnswered(f"{nodes.urls[node]}: {now.result.text}")
            return Again(trouble, 0.0, counted or now.result.sent)
        answer = now.result
        assert isinstance(answer, Answer)
        if 200 <= answer.status < 300 or answer.status == 304:
            if writes:
                nodes.writer = node
            else:
                nodes.reader = node
            return answer
        if answer.status == 401 and caller.renews_token and not renewed:
            renewed = True
            continue
        if answer.status in (307, 308, 421):
            other = leader_named(nodes, answer, request.target)
            if isinstance(other, Again):
                return other
            hops += 1
            if hops > HOPS_MAX or other == node:
                return Again(api_error(answer.status, answer.json()), retry_after_s(answer))
            node = other
            continue
        return refusal(nodes.urls[node], answer, writes=writes)


def leader_named(nodes: Nodes, answer: Answer, target: str) -> int | Again:
    """Give the configured node that an answer leads to."""
    error = api_error(answer.status, answer.json())
    leader = error.details.get("leader")
    location = answer.headers.get("location")
    if error.code == "WRONG_SHARD":
        return Again(error, 0.0, stranger=True)
    named = nodes.named(location, target)
    if named is None:
        named = nodes.named(leader)
    if named is not None:
        return named
    if location is None and leader is None:
        return Again(error, retry_after_s(answer))  # nobody knows a leader yet
    where = leader if location is None else location
    message = f"{error.message} It leads to {where}, which is none of the configured nodes ({', '.join(nodes.urls)})."
    return Again(type(error)(answer.status, error.code, message.strip(), {"leader": where}), 0.0, stranger=True)


def refusal(node: str, answer: Answer, *, writes: bool) -> Again:
    """Sort an answer that is no success. Raises what is final."""
    if 300 <= answer.status < 400:
        location = answer.headers.get("location")
        raise UnexpectedAnswer(f"{node} answered {answer.status} and leads to {location}: configure the right address")
    error = api_error(answer.status, answer.json())
    if answer.status not in (429, 503, *_BY_PROXIES):
        raise error
    counted = answer.status != 429 and error.code not in _NOT_COUNTED
    return Again(error, asked_s(error, answer), counted, rotate=not (writes and error.code in _BUSY))


def asked_s(error: ApiError, answer: Answer) -> float:
    """Give the wait that a refusal asks for: that of its details is exact, the header's is rounded."""
    after = error.details.get("retryAfterSeconds")
    if isinstance(after, (int, float)) and not isinstance(after, bool) and after >= 0:
        return float(after)
    return retry_after_s(answer)
