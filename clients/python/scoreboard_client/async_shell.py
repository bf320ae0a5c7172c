"""Performs the effects of a call on asyncio or Trio: httpx, anyio. The other half of `scoreboard_client.sync_shell`.

    line = AsyncLine(http, token)
    receipt = await line.run(calls.call(…))

Rules:
- No cancel scope is open while a value is given to who iterates.
- What may block, such as the outbox's disk, runs in a thread and is waited for, also after a cancellation.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import httpx

from scoreboard_client.effects import (
    Answer,
    Close,
    Done,
    Effect,
    Fault,
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
from scoreboard_client.requests import Request, bearer
from scoreboard_client.sync_shell import (
    ANSWER_BYTES_MAX,
    TOO_LATE,
    TOO_LONG,
    check_open,
    fault_of,
    lower_headers,
    reaction,
)  # fmt: skip

T = TypeVar("T")

AsyncToken = str | Callable[[], str | Awaitable[str]] | None


class AsyncLine:
    """Runs calls, one at a time. A stream that is open belongs to it."""

    def __init__(self, http: httpx.AsyncClient, token: AsyncToken) -> None:
        self._http = http
        self._token = token
        self._response: httpx.Response | None = None
        self._pieces: AsyncIterator[bytes] | None = None

    async def run(self, steps: Steps[T]) -> T:
        """Perform a call to its end."""
        try:
            step = resume(steps)
            while not isinstance(step, Done):
                step = await self.advance(steps, step)
            result: T = step.value
            return result
        finally:
            steps.close()

    async def advance(self, steps: Steps[Any], effect: Effect) -> Effect | Done:
        """Perform one effect, and give the next. An exception of the caller's code is told to the call."""
        came: Reaction | Exception
        try:
            came = reaction(await self.perform(effect))
        except Exception as error:
            came = error
        return resume(steps, came)

    async def perform(self, effect: Effect) -> Any:
        """Do what an effect says."""
        if isinstance(effect, Send):
            return await self._send(effect)
        if isinstance(effect, Wait):
            await anyio.sleep(effect.seconds)
        elif isinstance(effect, Open):
            return await self._open(effect)
        elif isinstance(effect, Read):
            return await self._read()
        elif isinstance(effect, Close):
            await self.aclose()
        elif isinstance(effect, Work):
            return await anyio.to_thread.run_sync(effect.function)
        else:
            assert isinstance(effect, Look), effect
        return None

    async def _request(self, node: str, request: Request, seconds: float) -> httpx.Request:
        check_open(self._http)
        token = self._token() if callable(self._token) else self._token
        if inspect.isawaitable(token):
            token = await token
        headers = {**request.headers, **bearer(token)}
        return self._http.build_request(
            request.method, node + request.target, content=request.body or None, headers=headers, timeout=seconds
        )

    async def _send(self, effect: Send) -> Answer | Fault:
        request = await self._request(effect.node, effect.request, effect.seconds)
        outcome: Answer | Fault = TOO_LATE
        with anyio.move_on_after(effect.seconds):
            try:
                response = await self._http.send(request, stream=True, auth=None, follow_redirects=False)
                try:
                    outcome = await self._whole(response)
                finally:
                    await response.aclose()
            except httpx.RequestError as error:
                outcome = fault_of(error)
        return outcome

    async def _whole(self, response: httpx.Response) -> Answer | Fault:
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > ANSWER_BYTES_MAX:
                return TOO_LONG
        return Answer(response.status_code, lower_headers(response), bytes(body))

    async def _open(self, effect: Open) -> Answer | Fault:
        await self.aclose()
        request = await self._request(effect.node, effect.request, effect.seconds)
        request.extensions["timeout"] = {**request.extensions["timeout"], "read": effect.silence_s}
        try:
            response = await self._http.send(request, stream=True, auth=None, follow_redirects=False)
            if response.status_code != httpx.codes.OK:
                outcome: Answer | Fault = TOO_LATE
                try:
                    with anyio.move_on_after(effect.seconds):
                        outcome = await self._whole(response)
                finally:
                    await response.aclose()
                return outcome
        except httpx.RequestError as error:
            return fault_of(error)
        self._response, self._pieces = response, response.aiter_raw()
        return Answer(response.status_code, lower_headers(response), b"")

    async def _read(self) -> bytes | Fault:
        if self._pieces is None:
            return b""
        try:
            return await self._pieces.__anext__()
        except StopAsyncIteration:
            return b""
        except (httpx.RequestError, httpx.StreamError) as error:
            return fault_of(error)

    async def aclose(self) -> None:
        """Close the stream, if one is open."""
        response, self._response, self._pieces = self._response, None, None
        if response is not None:
            await response.aclose()
