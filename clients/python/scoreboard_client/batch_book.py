"""The actions of many callers that wait to be sent together, and what became of each. Pure.

    waiting = book.add(action, wake, now_s)     `wake()` is called when `waiting.outcome` is there
    batch = book.take(now_s)                    those that are due, in the order in which they came; may be empty
    yield from serve(caller, book)              a sender: any number of them may share a book

    ┌─ add ─► ready ── take ─► a sender ──► settled: a receipt, or a final error
    │           ▲                  │
    │           └── put back ◄─────┤ the whole batch failed: first in the row again, the sender waits
    │           └── later ◄────────┘ the server wants this one action later (429): it waits alone

Rules:
- A batch goes out when `size` actions wait, or the first of them has waited for `linger_s`.
- Each caller has a deadline of its own, and keeps it itself: it takes its action out of the book (`withdraw`). One that
  is under way is not sent again, but may have been counted.
- The book is not bounded. Each action in it has a caller who waits, so their number is the bound.
- A batch that is refused as a whole, for its form or its size, is cut in two: one bad action does not spoil others.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence

from scoreboard_client import requests
from scoreboard_client.answers import Receipt, receipt_of
from scoreboard_client.calls import Again, Caller, asked_s, attempt, jitter_s
from scoreboard_client.effects import Answer, Idle, Steps, Wait, look
from scoreboard_client.errors import (
    ApiError,
    DeadlineExceeded,
    NotAnswered,
    RateLimited,
    ScoreboardError,
    Unavailable,
    UnexpectedAnswer,
    api_error,
)
from scoreboard_client.requests import BATCH_ITEMS_MAX, Action

SPOILED = (400, 413)
"""A whole batch may get these for one of its actions."""


class Waiting:
    """One action and its caller. `trouble` is the last that stood in its way; `counted`: it may be on the board."""

    __slots__ = ("action", "attempts", "counted", "due_s", "gone", "outcome", "trouble", "wake")

    def __init__(self, action: Action, wake: Callable[[], None], now_s: float) -> None:
        self.action = action
        self.wake = wake
        self.due_s = now_s
        self.attempts = 0
        self.counted = False
        self.gone = False
        self.trouble: ScoreboardError | None = None
        self.outcome: Receipt | Exception | None = None

    def settle(self, outcome: Receipt | Exception) -> None:
        """Note what became of it."""
        if self.outcome is None:
            self.outcome = outcome
            self.wake()

    def failed(self, again: Again) -> None:
        """Note an attempt that is worth another."""
        self.attempts += 1
        self.trouble = again.trouble
        self.counted = self.counted or again.counted

    def receipt(self) -> Receipt:
        """Give the receipt, or raise what came of it; `DeadlineExceeded` if nothing came."""
        if isinstance(self.outcome, Receipt):
            return self.outcome
        if self.outcome is not None:
            raise self.outcome
        last = self.trouble or NotAnswered("no batch with this action was answered in time")
        raise DeadlineExceeded(last, self.attempts, may_have_counted=self.counted) from self.trouble


_Batch = list[Waiting]


class BatchBook:
    """See above. `version` grows with each change that a sender must know of."""

    def __init__(self, size: int, linger_s: float) -> None:
        if not (isinstance(size, int) and 1 <= size <= BATCH_ITEMS_MAX):
            raise ValueError(f"size must be a whole number from 1 to {BATCH_ITEMS_MAX}, not {size!r}")
        if not (isinstance(linger_s, (int, float)) and 0 <= linger_s <= 60):
            raise ValueError(f"linger_s must be from 0 to 60, not {linger_s!r}")
        self.version = 0
        self.closing = False
        self._size = size
        self._linger_s = linger_s
        self._ready: deque[Waiting] = deque()
        self._later: list[tuple[float, int, Waiting]] = []
        self._in_book: dict[int, Waiting] = {}
        self._lots = 0

    def add(self, action: Action, wake: Callable[[], None], now_s: float) -> Waiting:
        """Let an action wait to be sent."""
        waiting = Waiting(action, wake, now_s)
        self._in_book[id(waiting)] = waiting
        self._ready.append(waiting)
        # A sender that waits for more needs to know of the first, and of the one that makes a batch whole.
        if len(self._ready) == 1 or len(self._ready) >= self._size:
            self.version += 1
        return waiting

    def withdraw(self, waiting: Waiting) -> None:
        """Send this one no more: its caller is gone, or it is settled."""
        waiting.gone = True
        if self._in_book.pop(id(waiting), None) is not None and self.closing:
            self.version += 1

    def take(self, now_s: float) -> list[Waiting]:
        """Take the batch that is due."""
        while self._later and self._later[0][0] <= now_s:
            waiting = heapq.heappop(self._later)[2]
            waiting.due_s = now_s
            self._ready.append(waiting)
        while self._ready and self._ready[0].gone:
            self._ready.popleft()
        if not self._ready or not (self.closing or self.wait_s(now_s) == 0.0):
            return []
        batch: list[Waiting] = []
        while self._ready and len(batch) < self._size:
            waiting = self._ready.popleft()
            if not waiting.gone:
                batch.append(waiting)
        return batch

    def put_back(self, batch: Sequence[Waiting]) -> None:
        """Let what is left of a batch be the first again, in its order."""
        self._ready.extendleft(waiting for waiting in reversed(batch) if waiting.outcome is None)

    def put_later(self, waiting: Waiting, due_s: float) -> None:
        """Let one action wait until a time."""
        self._lots += 1
        heapq.heappush(self._later, (due_s, self._lots, waiting))

    def wait_s(self, now_s: float) -> float | None:
        """Give the time until a batch is due; None if nothing waits."""
        if len(self._ready) >= self._size:
            return 0.0
        times = [self._ready[0].due_s + self._linger_s] if self._ready else []
        times += [self._later[0][0]] if self._later else []
        return max(0.0, min(times) - now_s) if times else None

    @property
    def is_empty(self) -> bool:
        """Whether no caller waits."""
        return not self._in_book

    def close(self) -> None:
        """Take nothing new; let what waits go out at once."""
        self.closing = True
        self.version += 1

    def abandon(self, error: Exception) -> None:
        """Let every caller that still waits have this error."""
        for waiting in list(self._in_book.values()):
            waiting.settle(error)
        self._in_book.clear()


def serve(caller: Caller, book: BatchBook) -> Steps[None]:
    """Send what waits, until the book is closed and empty."""
    nodes = caller.nodes
    failures, start = 0, nodes.writer
    strangers: set[int] = set()
    while True:
        now = yield from look()
        batch = book.take(now.now_s)
        if not batch:
            if book.closing and book.is_empty:
                return
            yield Idle(book.version, book.wait_s(now.now_s))
            continue
        again, left = yield from _send(caller, book, batch, start)
        if again is None:
            failures, start = 0, nodes.writer
            strangers.clear()
            continue
        if again.stranger:
            strangers.add(start)
        if len(strangers) == len(nodes):
            _fail(left, again.trouble)
        book.put_back(left)
        failures += 1
        start = (start + again.rotate) % len(nodes)
        now = yield from look()
        yield Wait(again.wait_s + jitter_s(failures, now.lot))


def _send(
    caller: Caller, book: BatchBook, batch: list[Waiting], start: int
) -> Steps[tuple[Again | None, list[Waiting]]]:
    """Send a batch once. Give the trouble if it must be sent again, and what is left of it."""
    now = yield from look()
    request = requests.increment_batch([waiting.action for waiting in batch])
    try:
        outcome = yield from attempt(caller, request, start, now.now_s + caller.attempt_s, writes=True)
        if isinstance(outcome, Answer):
            now = yield from look()
            _settle(book, batch, outcome, now.now_s)
            return None, []
    except Exception as error:
        if isinstance(error, ApiError) and error.status in SPOILED and len(batch) > 1:
            middle = len(batch) // 2
            again, left = yield from _send(caller, book, batch[:middle], start)
            if again is not None:
                return again, left + batch[middle:]
            return (yield from _send(caller, book, batch[middle:], start))
        _fail(batch, error)
        return None, []
    for waiting in batch:
        waiting.failed(outcome)
    return outcome, batch


def _fail(batch: Sequence[Waiting], error: Exception) -> None:
    for waiting in batch:
        waiting.settle(error)


def _settle(book: BatchBook, batch: Sequence[Waiting], answer: Answer, now_s: float) -> None:
    """Give each caller its own receipt or error. What the server wants later goes back into the book."""
    for waiting, outcome in zip(batch, outcomes_of(answer, [waiting.action for waiting in batch]), strict=True):
        if isinstance(outcome, Again):
            waiting.failed(outcome)
            book.put_later(waiting, now_s + outcome.wait_s + jitter_s(waiting.attempts, 1.0))
        else:
            waiting.settle(outcome)


def outcomes_of(answer: Answer, actions: Sequence[Action]) -> list[Receipt | Again | ApiError]:
    """Read the answer to a batch: a receipt, a trouble that may pass, or a final error for each. Raises
    `UnexpectedAnswer`.
    """
    items = answer.json()
    if not isinstance(items, list) or len(items) != len(actions):
        raise UnexpectedAnswer(f"the answer to a batch of {len(actions)} is no list of so many answers")
    outcomes: list[Receipt | Again | ApiError] = []
    for item, action in zip(items, actions, strict=True):
        status = item.get("status") if isinstance(item, dict) else None
        if status == 200:
            outcomes.append(receipt_of(item, action.action_id))
        elif isinstance(status, int) and status >= 400:
            error = api_error(status, item)
            passes = isinstance(error, (RateLimited, Unavailable)) or status == 503
            outcomes.append(Again(error, asked_s(error, answer), counted=status == 503) if passes else error)
        else:
            raise UnexpectedAnswer(f"an item of a batch has the status {status!r:.40}")
    return outcomes
