"""One attempt to deliver: signed as Standard Webhooks say, bounded in time and size.

    sender = Sender(hook, resolve=Resolver(), clock_ms=clock.now_ms)
    attempt = await sender.send("1-42-period_ended", b'{"type": …}')
    await sender.close()

    webhook-id            the delivery; a repeat has the same
    webhook-timestamp     the time of the attempt, in seconds
    webhook-signature     `v1,…` for each secret, with spaces between them

Rules:
- Never raises but for cancellation: whatever a receiver does is an attempt that failed.
- One connection for each hook, kept for the next delivery. What is written on it is never compressed or chunked.
- No proxy of the environment is used: it would connect where our look at the address does not reach.
- The bytes that are signed are the bytes that are sent.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from importlib import metadata

import httpcore
import httpx
import structlog
import trio
from standardwebhooks import Webhook

from server.settings.webhooks import WebhookConfig
from server.webhooks.connecting import AddressRefused, GuardedBackend, Resolve
from server.webhooks.limits import (
    ANSWER_BYTES_MAX,
    ATTEMPT_SECONDS,
    CONNECT_SECONDS,
    ERROR_CHARACTERS_MAX,
    IDLE_SECONDS,
)
from server.webhooks.retries import Attempt

log = structlog.get_logger()


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=True)


@cache
def _agent() -> str:
    return f"scoreboard/{metadata.version('scoreboard')}"


class Sender:
    """Delivers to one receiver. `clock_ms` gives the time in ms since 1970."""

    def __init__(self, hook: WebhookConfig, *, resolve: Resolve, clock_ms: Callable[[], int]) -> None:
        self._url = hook.url
        self._signers = [Webhook(secret) for secret in hook.secret]
        self._clock_ms = clock_ms
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_tls() if hook.url.lower().startswith("https:") else None,
            max_connections=1,
            keepalive_expiry=IDLE_SECONDS,
            network_backend=GuardedBackend(allow_private=hook.allow_private, resolve=resolve),
        )

    async def send(self, webhook_id: str, body: bytes) -> Attempt:
        """Make one attempt."""
        try:
            with trio.fail_after(ATTEMPT_SECONDS):
                return await self._send(webhook_id, body)
        except trio.TooSlowError:
            return Attempt(None, f"no answer within {ATTEMPT_SECONDS:.0f} seconds")
        except AddressRefused as refused:
            return Attempt(None, str(refused))
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            return Attempt(None, _reason(error))
        except Exception as error:
            log.exception("webhook_fault")
            return Attempt(None, f"a fault on our side: {type(error).__name__}")

    async def _send(self, webhook_id: str, body: bytes) -> Attempt:
        stream = self._pool.stream(
            "POST", self._url, headers=self._headers(webhook_id, body), content=body,
            extensions={"timeout": {"connect": CONNECT_SECONDS, "pool": ATTEMPT_SECONDS}},
        )  # fmt: skip
        async with stream as response:
            await _drain(response)
            if 200 <= response.status < 300:
                return Attempt(response.status)
            note = " (redirects are not followed)" if 300 <= response.status < 400 else ""
            return Attempt(response.status, f"the receiver answered {response.status}{note}", _retry_after(response))

    def _headers(self, webhook_id: str, body: bytes) -> list[tuple[str, str]]:
        seconds = self._clock_ms() // 1000
        moment, text = datetime.fromtimestamp(seconds, UTC), body.decode()
        signatures = " ".join(signer.sign(webhook_id, moment, text) for signer in self._signers)
        return [
            ("host", str(httpx.URL(self._url).netloc.decode("ascii"))),
            ("user-agent", _agent()),
            ("accept", "*/*"),
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("webhook-id", webhook_id),
            ("webhook-timestamp", str(seconds)),
            ("webhook-signature", signatures),
        ]

    async def close(self) -> None:
        """Close the connection."""
        await self._pool.aclose()


def _reason(error: BaseException) -> str:
    """Say what went wrong. The text may be that of an inner error, such as a certificate's."""
    inner: BaseException | None = error
    while inner is not None and not str(inner):
        inner = inner.__cause__ or inner.__context__
    text = "" if inner is None else f": {inner}"
    return f"{type(error).__name__}{text}"[:ERROR_CHARACTERS_MAX]


async def _drain(response: httpcore.Response) -> None:
    """Read a short answer to its end; leave a long one, which ends the connection."""
    size = 0
    async for piece in response.aiter_stream():
        size += len(piece)
        if size > ANSWER_BYTES_MAX:
            return


def _retry_after(response: httpcore.Response) -> float:
    """Read `Retry-After` in seconds; a date counts as none, as nearly no receiver sends one."""
    for name, value in response.headers:
        if name.lower() == b"retry-after" and value.strip().isdigit() and len(value) < 10:
            return float(value)
    return 0.0
