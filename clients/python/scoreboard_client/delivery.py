"""What the sender of an outbox does. Pure; the outbox itself is reached through `Work`.

    count = yield from deliver(caller, outbox, tell, until_empty=True)

    answer                                      what becomes of the action
    a receipt                                   it is removed
    429, 503, no answer                         it stays the first; the sender waits
    any other refusal of this action            it is set aside, and told (`SetAside`)
    a refusal of the request (401, 403, 404 …)  everything stays; the sender waits, and tells (`Held`)

Rules:
- Actions go out in their order, in batches. None overtakes another of the same user: while the server holds one back,
  nothing later is sent, and within a batch a limit that holds one back holds the later ones of this user, too.
- Nothing is dropped. An action leaves the outbox with a receipt, or it is set aside.
- A batch that is refused as a whole for its form or size is cut in half, until the bad action is alone.
- The sender never gives up: it waits at most WAIT_MAX_S (or `Retry-After`) and tries again. A drain with a deadline
  raises when that is over; what was not sent stays.
- A drain that finds another sender at work ends when the outbox is empty, or takes that one's place when it ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from scoreboard_client import requests
from scoreboard_client.batch_book import SPOILED, outcomes_of
from scoreboard_client.calls import Again, Caller, attempt, jitter_s, seconds
from scoreboard_client.effects import Answer, Steps, Wait, look, work
from scoreboard_client.errors import ApiError, ClientClosed, DeadlineExceeded, ScoreboardError
from scoreboard_client.outbox import SetAside, Waiting
from scoreboard_client.requests import BATCH_ITEMS_MAX

POLL_S = 0.2
"""How soon a sender sees an action that another process put in."""

LOCK_S = 0.5
"""How soon a sender sees that another one ended, and a drain that this one has sent all."""


@dataclass(frozen=True, slots=True)
class Held:
    """Nothing can be sent now, after this many attempts in a row. `count` actions at least wait."""

    trouble: Exception
    count: int
    attempts: int


Told = Held | SetAside


class Box(Protocol):
    """The part of `Outbox` that is needed here."""

    def try_lock(self) -> bool: ...
    def unlock(self) -> None: ...
    def waiting(self, limit: int) -> list[Waiting]: ...
    def settle(self, done: list[int], refused: list[tuple[int, ApiError]]) -> list[SetAside]: ...


def deliver(
    caller: Caller,
    outbox: Box,
    tell: Callable[[Told], None],
    is_over: Callable[[], bool],
    *,
    until_empty: bool,
    deadline_s: float | None = None,
) -> Steps[int]:
    """Send what is in the outbox, until it is empty or `is_over`. Give how many actions have a receipt.

    Raises `DeadlineExceeded` if that takes longer than `deadline_s` seconds, and `ClientClosed`.
    """
    now = yield from look()
    end_s = math.inf if deadline_s is None else now.now_s + seconds("deadline_s", deadline_s)
    tries = 0
    while not (yield from work(outbox.try_lock)):
        tries += 1
        if is_over() or (until_empty and not (yield from work(lambda: outbox.waiting(1)))):
            return 0
        now = yield from look()
        if now.now_s + LOCK_S >= end_s:
            trouble = ScoreboardError("another sender has the outbox, and actions wait")
            raise DeadlineExceeded(trouble, tries, may_have_counted=False)
        yield Wait(LOCK_S)
    try:
        return (yield from _deliver(caller, outbox, tell, is_over, end_s, until_empty=until_empty))
    finally:
        outbox.unlock()  # not a `Work`: a generator that is closed can't ask for anything


def _deliver(
    caller: Caller,
    outbox: Box,
    tell: Callable[[Told], None],
    is_over: Callable[[], bool],
    end_s: float,
    *,
    until_empty: bool,
) -> Steps[int]:
    nodes = caller.nodes
    counted = failures = 0
    size, start = BATCH_ITEMS_MAX, nodes.writer
    while not is_over():
        try:
            turn = yield from _turn(caller, outbox, size, start, end_s)
        except ClientClosed:
            raise
        except Exception as error:  # the outbox's disk, or the caller's token
            turn = _Turn()
            turn.trouble = error
        for aside in turn.set_aside:
            tell(aside)
        counted += len(turn.done)
        if turn.spoiled:
            size = max(1, turn.count // 2)
            continue
        size = min(BATCH_ITEMS_MAX, size * 2)
        if turn.trouble is not None:
            failures += 1
            tell(Held(turn.trouble, turn.count - len(turn.done) - len(turn.refused), failures))
            start = (start + turn.rotate) % len(nodes)
            now = yield from look()
            wait_s = turn.wait_s + jitter_s(failures, now.lot)
            if now.now_s + wait_s >= end_s:
                trouble = turn.trouble
                last = trouble if isinstance(trouble, ScoreboardError) else ScoreboardError(repr(trouble))
                raise DeadlineExceeded(last, failures, may_have_counted=False) from trouble
            yield Wait(wait_s)
            continue
        failures, start = 0, nodes.writer
        if turn.count == 0:
            if until_empty:
                break
            yield Wait(POLL_S)
    return counted


class _Turn:
    """One batch, and what became of it: `done` and `refused` by number, and the trouble that holds the rest."""

    def __init__(self) -> None:
        self.count = 0
        self.done: list[int] = []
        self.refused: list[tuple[int, ApiError]] = []
        self.set_aside: list[SetAside] = []
        self.spoiled = False
        self.trouble: Exception | None = None
        self.wait_s = 0.0
        self.rotate = True

    def sort(self, batch: list[Waiting], outcome: Answer | Again) -> None:
        """Sort the answers. Raises `UnexpectedAnswer`."""
        if isinstance(outcome, Again):
            self.trouble, self.wait_s, self.rotate = outcome.trouble, outcome.wait_s, outcome.rotate
            return
        for one, each in zip(batch, outcomes_of(outcome, [one.action for one in batch]), strict=True):
            if isinstance(each, Again):
                self.trouble, self.wait_s, self.rotate = each.trouble, max(self.wait_s, each.wait_s), False
            elif not isinstance(each, ApiError):
                self.done.append(one.number)
            elif each.status < 500:
                self.refused.append((one.number, each))
            else:
                self.trouble = each  # the server's own fault is no verdict about the action


def _turn(caller: Caller, outbox: Box, size: int, start: int, end_s: float) -> Steps[_Turn]:
    """Send a batch once, and note in the outbox what became of it."""
    turn = _Turn()
    batch = yield from work(lambda: outbox.waiting(size))
    turn.count = len(batch)
    if not batch:
        return turn
    now = yield from look()
    request = requests.increment_batch([one.action for one in batch])
    try:
        attempt_end_s = min(end_s, now.now_s + caller.attempt_s)
        turn.sort(batch, (yield from attempt(caller, request, start, attempt_end_s, writes=True)))
    except ClientClosed:
        raise
    except ApiError as error:
        if error.status in SPOILED and len(batch) > 1:
            turn.spoiled = True
        elif error.status in (*SPOILED, 409, 410) and len(batch) == 1:
            turn.refused.append((batch[0].number, error))
        else:
            turn.trouble = error
    except Exception as error:  # the caller's token, or an answer that is no scoreboard's
        turn.trouble = error
    if turn.done or turn.refused:
        turn.set_aside = yield from work(lambda: outbox.settle(turn.done, turn.refused))
    return turn
