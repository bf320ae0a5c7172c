"""How long a connection that a token has opened may stay: a viewer of a private board, a link of a follower.

    lease = await authorize(authenticator, scopes, authorization)       a `Response`: the refusal
    if lease.ended(): close with 1008 and TOKEN_EXPIRED
    user_id = await user_of(authenticator, authorization)               # where no token is needed

Rules:
- A lease ends LEASE_GRACE_SECONDS after `exp`, or when the very key that verified the token is withdrawn. Tokens of
  other keys are not touched, so the rotation of a key does not send everybody away at once.
- A token whose lease would have ended opens no connection. So a client with an old token does not come back in vain.
- There is no timer: whoever holds a lease has a sweep or a heartbeat already, and asks then. That costs two comparisons
  as long as no key was withdrawn.
"""

from __future__ import annotations

from typing import Protocol

from server.access.auth import EXPIRED, Principal, require
from server.http.messages import Response

TOKEN_EXPIRED = "token expired"  # noqa: S105  # a reason, not a token
"""The reason of the close frame (1008) that ends such a connection."""


class Authenticates(Protocol):
    """Verifies callers."""

    async def authenticate(self, authorization: str | None) -> Principal | Response:
        """Give the caller that an Authorization header names; a `Response` is the refusal."""

    @property
    def generation(self) -> int:
        """Grows with each withdrawn key."""

    def lets_stay(self, principal: Principal, *, looked: bool) -> bool:
        """Whether a connection of this caller may stay. `looked`: its key was there in this generation."""


class Lease:
    """The right of one connection to stay open. One for a caller's connection; `ended` may be asked by anybody."""

    __slots__ = ("_authenticator", "_generation", "_principal")

    def __init__(self, authenticator: Authenticates, principal: Principal) -> None:
        self._authenticator = authenticator
        self._principal = principal
        self._generation = authenticator.generation

    @property
    def user_id(self) -> str | None:
        """The only user that the caller may act for; None: any."""
        return self._principal.user

    def ended(self) -> bool:
        """Whether the token has expired, or its key was withdrawn."""
        generation = self._authenticator.generation
        looked = generation == self._generation
        if not self._authenticator.lets_stay(self._principal, looked=looked):
            return True
        self._generation = generation
        return False


async def authorize(
    authenticator: Authenticates, scopes: tuple[str, ...], authorization: str | None
) -> Response | Lease:
    """Give the lease of a caller that has one of these scopes, else the refusal."""
    found = await authenticator.authenticate(authorization)
    if isinstance(found, Response):
        return found
    fault = require(found, scopes)
    if fault is not None:
        return fault.response()
    lease = Lease(authenticator, found)
    return EXPIRED.response() if lease.ended() else lease


async def user_of(authenticator: Authenticates, authorization: str) -> str | None:
    """Give the only user that a caller may act for, where no token is needed. None: any, or the token is not good."""
    found = await authenticator.authenticate(authorization)
    return None if isinstance(found, Response) else found.user
