"""Sends what is in an outbox: in a thread of its own, or in yours.

    with scoreboard.sender(outbox):             a thread sends, until the block ends
        outbox.put("bob", action_id="order-4711")

    scoreboard.sender(outbox).drain()           sends all, and returns: for a job or a last act
    scoreboard.sender(outbox).run()             sends for ever, until another thread calls `stop`

Rules:
- Of all senders of an outbox, in all processes, one sends. The others wait for its end, and then one of them goes on.
- What happens is told: `told` is called with `SetAside` for an action that was refused for good, and with `Held` while
  nothing can be sent. Without `told` both are logged as warnings of the logger `scoreboard_client`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import httpx

from scoreboard_client.calls import Caller
from scoreboard_client.delivery import Told, deliver
from scoreboard_client.effects import Effect, Wait
from scoreboard_client.outbox import Outbox, SetAside
from scoreboard_client.sync_shell import Line, Token

logger = logging.getLogger("scoreboard_client")


def log_told(told: Told) -> None:
    """Log what a sender has to tell. Ids of users are not logged. Of a long outage attempt 1, 2, 4, 8 … is logged."""
    if isinstance(told, SetAside):
        text = "action %r of the outbox was refused for good and set aside as number %d: %d %s %s"
        logger.warning(text, told.action.action_id, told.number, told.status, told.code, told.message)
    elif told.attempts & (told.attempts - 1) == 0:
        text = "the outbox can't be sent now, after %d attempts; %d or more actions wait: %s"
        logger.warning(text, told.attempts, told.count, told.trouble)


class Sender:
    """Made by `Scoreboard.sender`."""

    def __init__(
        self, caller: Caller, http: httpx.Client, token: Token, outbox: Outbox, told: Callable[[Told], None] | None
    ) -> None:
        self._caller = caller
        self._http = http
        self._token = token
        self._outbox = outbox
        self._told = told or log_told
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Send until `stop` is called."""
        self._run(until_empty=False)

    def drain(self, *, deadline_s: float | None = None) -> int:
        """Send until nothing is left, or `stop` is called. Give how many actions got a receipt here.

        While another sender of the outbox is at work, or this one's own thread, wait until nothing is left. Raises
        `DeadlineExceeded` after `deadline_s` seconds; without these it waits for as long as it takes.
        """
        return self._run(until_empty=True, deadline_s=deadline_s)

    def stop(self) -> None:
        """End `run` or `drain` after the request that is under way. What was not sent stays in the outbox."""
        self._over.set()

    def __enter__(self) -> Sender:
        self._over.clear()
        self._thread = threading.Thread(target=self._run_in_thread, name="scoreboard-sender", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def _run(self, *, until_empty: bool, deadline_s: float | None = None) -> int:
        line = _SenderLine(self._http, self._token, self._over)
        steps = deliver(
            self._caller, self._outbox, self._told, self._over.is_set, until_empty=until_empty, deadline_s=deadline_s
        )
        return line.run(steps)

    def _run_in_thread(self) -> None:
        try:
            self.run()
        except Exception:
            logger.exception("the sender of %s ended; what waits stays in the outbox", self._outbox.path)


class _SenderLine(Line):
    """A line whose waits can be ended."""

    def __init__(self, http: httpx.Client, token: Token, over: threading.Event) -> None:
        super().__init__(http, token)
        self._over = over

    def perform(self, effect: Effect) -> Any:
        """See `Line`."""
        if isinstance(effect, Wait):
            self._over.wait(effect.seconds)
            return None
        return super().perform(effect)
