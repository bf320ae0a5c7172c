"""How long a connection may stay that a token has opened."""

from __future__ import annotations

import pytest

from server import bounds
from server.access.auth import Authenticator
from server.access.issuers import TrustedIssuer
from server.access.keys import FixedKeys, VerificationKey
from server.access.lease import Lease, authorize
from server.http.messages import Response
from server.settings.config import AuthConfig
from tests.server.access.tokens import NOW_S, SECRET, Clock, token_of

OTHER = b"another-secret-that-is-long-enough-too"
READ = ("scores:read",)


class Withdrawable(FixedKeys):
    """Keys of which one can be withdrawn."""

    def withdraw(self, key: VerificationKey) -> None:
        self.keys = tuple(each for each in self.keys if each is not key)
        self.generation += 1


async def lease_for(checker: Authenticator, token: str) -> Lease:
    """Open a connection with a token."""
    lease = await authorize(checker, READ, f"Bearer {token}")
    assert isinstance(lease, Lease)
    return lease


async def test_a_lease_ends_within_the_leeway_after_exp() -> None:
    """And a token that is as old as that opens nothing any more: a client with it would come and go for ever."""
    clock = Clock()
    checker = Authenticator([TrustedIssuer(AuthConfig(), FixedKeys([SECRET]))], clock_s=clock)
    token = token_of(exp=int(NOW_S) + 10, scope="scores:read")
    lease = await lease_for(checker, token)
    clock.now_s += 10 + bounds.LEASE_GRACE_SECONDS - 0.01
    assert not lease.ended()
    clock.now_s += 0.01
    assert clock.now_s < NOW_S + 10 + bounds.TOKEN_LEEWAY_SECONDS
    assert lease.ended()
    refusal = await authorize(checker, READ, f"Bearer {token}")
    assert isinstance(refusal, Response)
    assert refusal.status == 401


@pytest.mark.parametrize("others", [0, 1])
async def test_a_lease_ends_when_its_own_key_is_withdrawn(others: int) -> None:
    """Connections of other keys stay: a rotation sends nobody away who has a good token. Also with several issuers."""
    keys = Withdrawable([SECRET, OTHER])
    issuers = [TrustedIssuer(AuthConfig(), keys)]
    issuers += [TrustedIssuer(AuthConfig(issuer="other"), FixedKeys([SECRET])) for _ in range(others)]
    checker = Authenticator(issuers, clock_s=Clock())
    old = await lease_for(checker, token_of(scope="scores:read"))
    new = await lease_for(checker, token_of(scope="scores:read", key=OTHER))
    keys.withdraw(SECRET)
    assert old.ended() == (others == 0 or not checker._keys.has(SECRET))
    assert not new.ended()
    keys.withdraw(OTHER)
    assert new.ended()


async def test_a_caller_without_the_scope_gets_no_lease() -> None:
    """403, as everywhere."""
    checker = Authenticator([TrustedIssuer(AuthConfig(), FixedKeys([SECRET]))], clock_s=Clock())
    refusal = await authorize(checker, READ, f"Bearer {token_of(scope='users:write')}")
    assert isinstance(refusal, Response)
    assert refusal.status == 403
