"""Increments of many threads, sent together.

    with board.batcher(size=500, linger_s=0.005) as batcher:
        receipt = batcher.increment("bob", action_id="order-4711")       from any thread

Rules:
- Each caller waits for its own receipt, which is on disk then, or gets its own error. Nothing is counted "later".
- The book is changed only under the lock `_changed`, also by the senders: their logic runs under it, and what they send
  does not.
- Closing waits for all who still wait. Each of them has a deadline.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any

import httpx

from scoreboard_client import calls
from scoreboard_client.answers import Receipt
from scoreboard_client.batch_book import BatchBook, serve
from scoreboard_client.calls import Caller
from scoreboard_client.effects import Done, Effect, Idle, Reaction, Steps, Wait, resume
from scoreboard_client.errors import BatcherClosed
from scoreboard_client.requests import Action
from scoreboard_client.sync_shell import Line, Token

SENDERS = 2
"""While one batch is on its way the next gathers, and another may be under way. More would make batches smaller."""

SIZE = 500
LINGER_S = 0.005
"""A batch of 500 costs the server some ms, so does waiting for more."""


class Batcher:
    """Made by `Board.batcher`; used in a `with` block."""

    def __init__(
        self, caller: Caller, http: httpx.Client, token: Token, board_id: str, size: int, linger_s: float
    ) -> None:
        self._caller = caller
        self._board_id = board_id
        self._book = BatchBook(size, linger_s)
        self._changed = threading.Condition()
        self._senders = [
            threading.Thread(target=self._send, args=(http, token), name="scoreboard-batcher", daemon=True)
            for _ in range(SENDERS)
        ]
        self._running = False

    def __enter__(self) -> Batcher:
        self._running = True
        for sender in self._senders:
            sender.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._running = False
            self._book.close()
            self._changed.notify_all()
        for sender in self._senders:
            sender.join()

    def increment(
        self,
        user_id: str,
        *,
        action_id: str,
        reason: str | None = None,
        value: int | None = None,
        deadline_s: float | None = None,
    ) -> Receipt:
        """Count an action, as `Board.increment` does. Raises `BatcherClosed` outside of the `with` block."""
        action = Action(user_id, action_id, self._board_id, reason, value)
        left_s = self._caller.deadline_s if deadline_s is None else calls.seconds("deadline_s", deadline_s)
        came = threading.Event()
        with self._changed:
            if not self._running:
                raise BatcherClosed("the batcher is not running: use it in its `with` block")
            before = self._book.version
            waiting = self._book.add(action, came.set, time.monotonic())
            if self._book.version != before:
                self._changed.notify_all()
        try:
            came.wait(left_s)
        finally:
            with self._changed:
                self._book.withdraw(waiting)
                if self._book.closing:
                    self._changed.notify_all()
        return waiting.receipt()

    def _send(self, http: httpx.Client, token: Token) -> None:
        try:
            _BookLine(http, token, self._book, self._changed).run(serve(self._caller, self._book))
        except BaseException as error:
            with self._changed:
                self._running = False
                self._book.abandon(BatcherClosed(f"the batcher ended: {error!r}"))
            raise


class _BookLine(Line):
    """A line whose call works on a book that others work on too."""

    def __init__(self, http: httpx.Client, token: Token, book: BatchBook, changed: threading.Condition) -> None:
        super().__init__(http, token)
        self._book = book
        self._changed = changed

    def resume(self, steps: Steps[Any], came: Reaction | Exception) -> Effect | Done:
        """See `Line`."""
        with self._changed:
            return resume(steps, came)

    def perform(self, effect: Effect) -> Any:
        """See `Line`. A wait ends when there is nobody left to wait for."""
        if isinstance(effect, Idle):
            seen = effect.seen
            with self._changed:
                self._changed.wait_for(lambda: self._book.version != seen, effect.seconds)
            return None
        if isinstance(effect, Wait):
            with self._changed:
                self._changed.wait_for(lambda: self._book.closing and self._book.is_empty, effect.seconds)
            return None
        return super().perform(effect)
