"""Performs the effects of a call in the thread that calls: httpx, `time`, `random`.

    line = Line(http, token)
    receipt = line.run(calls.call(…))

Rules:
- An answer has a whole time and a greatest size. httpx bounds only the pause between two pieces of it.
- No redirect is followed here, and no cookie or other credential is added: `scoreboard_client.calls` decides where a
  request, and its token, goes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

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
from scoreboard_client.errors import ClientClosed
from scoreboard_client.requests import Request, bearer

T = TypeVar("T")

Token = str | Callable[[], str] | None

ANSWER_BYTES_MAX = 16 * 2**20
"""The answer to a batch of 1,000 has less than 1 MiB."""

NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""What happens before the first byte of a request."""


def fault_of(error: Exception) -> Fault:
    """Say what an exception of httpx means."""
    return Fault(str(error) or type(error).__name__, sent=not isinstance(error, NEVER_SENT))


def lower_headers(response: httpx.Response) -> dict[str, str]:
    """Give the headers of an answer."""
    return {name.lower(): value for name, value in response.headers.items()}


def check_open(http: httpx.Client | httpx.AsyncClient) -> None:
    """Raise `ClientClosed` if it is."""
    if http.is_closed:
        raise ClientClosed("this client is closed: make a new one")


TOO_LATE = Fault("no whole answer in time", sent=True)
TOO_LONG = Fault(f"the answer has more than {ANSWER_BYTES_MAX} bytes", sent=True)


class Line:
    """Runs calls, one at a time. A stream that is open belongs to it."""

    def __init__(self, http: httpx.Client, token: Token) -> None:
        self._http = http
        self._token = token
        self._response: httpx.Response | None = None
        self._pieces: Iterator[bytes] = iter(())

    def run(self, steps: Steps[T]) -> T:
        """Perform a call to its end."""
        try:
            step = resume(steps)
            while not isinstance(step, Done):
                step = self.advance(steps, step)
            result: T = step.value
            return result
        finally:
            steps.close()

    def advance(self, steps: Steps[Any], effect: Effect) -> Effect | Done:
        """Perform one effect, and give the next. An exception of the caller's code is told to the call."""
        came: Reaction | Exception
        try:
            came = reaction(self.perform(effect))
        except Exception as error:
            came = error
        return self.resume(steps, came)

    def resume(self, steps: Steps[Any], came: Reaction | Exception) -> Effect | Done:
        """Go on with a call. A line that shares what the call works on takes its lock here."""
        return resume(steps, came)

    def perform(self, effect: Effect) -> Any:
        """Do what an effect says."""
        if isinstance(effect, Send):
            return self._send(effect)
        if isinstance(effect, Wait):
            time.sleep(effect.seconds)
        elif isinstance(effect, Open):
            return self._open(effect)
        elif isinstance(effect, Read):
            return self._read()
        elif isinstance(effect, Close):
            self.close()
        elif isinstance(effect, Work):
            return effect.function()
        else:
            assert isinstance(effect, Look), effect
        return None

    def _request(self, node: str, request: Request, seconds: float) -> httpx.Request:
        check_open(self._http)
        token = self._token() if callable(self._token) else self._token
        headers = {**request.headers, **bearer(token)}
        return self._http.build_request(
            request.method, node + request.target, content=request.body or None, headers=headers, timeout=seconds
        )

    def _send(self, effect: Send) -> Answer | Fault:
        request = self._request(effect.node, effect.request, effect.seconds)
        end_s = time.monotonic() + effect.seconds
        try:
            response = self._http.send(request, stream=True, auth=None, follow_redirects=False)
            try:
                return self._whole(response, end_s)
            finally:
                response.close()
        except httpx.RequestError as error:
            return fault_of(error)

    def _whole(self, response: httpx.Response, end_s: float) -> Answer | Fault:
        body = bytearray()
        for piece in response.iter_bytes():
            body += piece
            if time.monotonic() > end_s:
                return TOO_LATE
            if len(body) > ANSWER_BYTES_MAX:
                return TOO_LONG
        return Answer(response.status_code, lower_headers(response), bytes(body))

    def _open(self, effect: Open) -> Answer | Fault:
        self.close()
        request = self._request(effect.node, effect.request, effect.seconds)
        request.extensions["timeout"] = {**request.extensions["timeout"], "read": effect.silence_s}
        try:
            response = self._http.send(request, stream=True, auth=None, follow_redirects=False)
            if response.status_code != httpx.codes.OK:
                try:
                    return self._whole(response, time.monotonic() + effect.seconds)
                finally:
                    response.close()
        except httpx.RequestError as error:
            return fault_of(error)
        self._response, self._pieces = response, response.iter_raw()
        return Answer(response.status_code, lower_headers(response), b"")

    def _read(self) -> bytes | Fault:
        try:
            return next(self._pieces, b"")
        except (httpx.RequestError, httpx.StreamError) as error:
            return fault_of(error)

    def close(self) -> None:
        """Close the stream, if one is open."""
        response, self._response, self._pieces = self._response, None, iter(())
        if response is not None:
            response.close()


def reaction(result: Any) -> Reaction:
    """Give a result with the time and a lot."""
    return Reaction(time.monotonic(), random.random(), result)  # noqa: S311  # spreads load, guards nothing
