"""What an attack is, and a table of requests as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from tests.hostile.target import Target

Statuses = int | tuple[int, ...]


@dataclass(frozen=True)
class Attack:
    """`run` attacks, and asserts what is special to this attack; `harness` checks what must hold after every attack.

    `server` names the server: one with a shared secret, or one that takes the keys of an issuer.
    """

    name: str
    about: str
    run: Callable[[Target], None]
    server: Literal["secret", "issuer"] = "secret"


def each_refused(target: Target, requests: Mapping[str, tuple[bytes, Statuses]]) -> None:
    """Send each request on a connection of its own: it gets exactly one answer, with the expected status.

    One answer, because a second one would mean that a part of the request was taken for another request.
    """
    for name, (request, expected) in requests.items():
        replies = target.ask(request)
        statuses = expected if isinstance(expected, tuple) else (expected,)
        assert len(replies) == 1, f"{name}: {[reply.status for reply in replies]} instead of one answer"
        assert replies[0].status in statuses, f"{name}: {replies[0].status} {replies[0].body[:300]!r}"


def post(target_path: str, body: bytes, bearer: str, kind: str = "application/json", *more: str) -> bytes:
    """A whole POST with a token."""
    return request("POST", target_path, body, f"Authorization: Bearer {bearer}", f"Content-Type: {kind}", *more)


def put(target_path: str, body: bytes, bearer: str) -> bytes:
    """A whole PUT with a token."""
    return request("PUT", target_path, body, f"Authorization: Bearer {bearer}")


def request(method: str, target_path: str, body: bytes = b"", *lines: str) -> bytes:
    """A whole request."""
    return head(f"{method} {target_path} HTTP/1.1", *lines, f"Content-Length: {len(body)}") + body


def head(first: str, *lines: str) -> bytes:
    """A request line and headers, with a Host and the empty line at the end."""
    return "\r\n".join([first, "Host: x", *lines, "", ""]).encode("latin-1")
