"""Leases that end when a test says so."""

from __future__ import annotations

from server.access.auth import ANYBODY, Principal
from server.access.lease import Lease
from server.http.messages import Response


class Landlord:
    """Lets everybody in, and stay until `ended`."""

    generation = 0
    ended = False

    async def authenticate(self, authorization: str | None) -> Principal | Response:  # see the class
        return ANYBODY

    def lets_stay(self, principal: Principal, *, looked: bool) -> bool:  # see the class
        return not self.ended


def lease_of(landlord: Landlord | None = None) -> Lease:
    """A lease for as long as the landlord says; without one for ever."""
    return Lease(landlord or Landlord(), ANYBODY)
