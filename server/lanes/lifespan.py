"""Starts an ASGI application once, before the first request, and stops it after the last (ASGI lifespan protocol).

Hypercorn's own is not used: it serves an application that said that it can't start, because it takes the end of the
application's task for the end of its start.

Rules:
- The application is called once, in a task that lives as long as the server. So what it starts in its nursery goes on.
- `startup.failed`, or no answer in time, keeps the server from starting.
- An application that fails when called with a lifespan has none. ASGI wants it to be served all the same.
"""

from __future__ import annotations

from typing import Any, cast

import structlog
import trio
from hypercorn.typing import ASGIFramework

from server.faults import describe

log = structlog.get_logger()


class NotStarted(Exception):
    """The application did not start, for this reason."""


class Lifespan:
    """The life of one application. `run` it once."""

    def __init__(self, application: ASGIFramework, seconds_max: float) -> None:
        self._application: Any = application
        self._seconds_max = seconds_max
        self._asked_to_start = False
        self._started = trio.Event()
        self._failure: str | None = None
        self._stop = trio.Event()
        self._stopped = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the application, and stop it after `stop`. Raises NotStarted."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._live)
            with trio.move_on_after(self._seconds_max) as deadline:
                await self._started.wait()
            if deadline.cancelled_caught:
                self._failure = f"it is not ready after {self._seconds_max:g} seconds"
            if self._failure is None:
                task_status.started()
                await self._stop.wait()
                with trio.move_on_after(self._seconds_max):
                    await self._stopped.wait()
            nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise NotStarted(self._failure)

    def stop(self) -> None:
        self._stop.set()

    async def _live(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        try:
            await self._application(scope, self._receive, self._send)
        except* Exception as errors:
            if not self._stop.is_set():
                fault = describe(errors)
                log.warning("application_has_no_lifespan", kinds=fault.kinds, where=fault.where)
        finally:
            self._started.set()
            self._stopped.set()

    async def _receive(self) -> Any:
        if not self._asked_to_start:
            self._asked_to_start = True
            return {"type": "lifespan.startup"}
        await self._stop.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Any) -> None:
        kind = cast(str, message["type"])
        if kind == "lifespan.startup.failed":
            self._failure = message.get("message", "") or "it does not say why"
        if kind.startswith("lifespan.startup"):
            self._started.set()
        else:
            self._stopped.set()
