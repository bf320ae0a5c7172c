"""Bearer tokens made by hand, good and wrong, and the authenticator that judges them."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

from server.access.auth import Authenticator, AuthFault, Principal
from server.access.issuers import TrustedIssuer
from server.access.keys import Candidates, FixedKeys, KeySource, VerificationKey
from server.settings.config import AuthConfig

SECRET = b"a-secret-that-is-long-enough-for-hs256"
NOW_S = 1_000_000.0


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


class CountingKey(FixedKeys):
    """A key source that counts how often a token had to be verified, and whose key can change."""

    def __init__(self, key: VerificationKey = SECRET) -> None:
        super().__init__([key])
        self.asked = 0

    def candidates(self, key_id: str | None, algorithm: str) -> Candidates:
        self.asked += 1
        return Candidates(self.keys, named=True)


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token, changed; `None` takes one away."""
    good = {"sub": "game", "aud": "scoreboard", "exp": int(NOW_S) + 600, "scope": "scores:write"}
    return {name: value for name, value in (good | changes).items() if value is not None}


def sign(payload: bytes, header: bytes = b'{"alg":"HS256"}', key: bytes = SECRET) -> str:
    """Sign anything at all, also what PyJWT would not."""
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload))
    signature = hmac.digest(key, signed, "sha256")
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def token_of(header: dict[str, Any] | None = None, key: bytes = SECRET, **changes: Any) -> str:
    """A token with these claims and headers changed."""
    head = {"alg": "HS256", "typ": "JWT"} | (header or {})
    return sign(json.dumps(claims(**changes)).encode(), json.dumps(head).encode(), key)


def authenticator(
    auth: AuthConfig | None = None, clock: Clock | None = None, keys: KeySource | None = None
) -> Authenticator:
    """An authenticator of one issuer: by default that of the default configuration with SECRET."""
    trusted = TrustedIssuer(auth or AuthConfig(), keys or FixedKeys([SECRET]))
    return Authenticator([trusted], clock_s=clock or Clock())


async def fault_of(token: str, auth: AuthConfig | None = None) -> AuthFault:
    """Verify what must be refused as invalid."""
    found = await authenticator(auth).verify(token)
    assert isinstance(found, AuthFault), found
    assert found.kind == "invalid"
    return found


async def principal_of(token: str, auth: AuthConfig | None = None) -> Principal:
    """Verify what must be accepted."""
    found = await authenticator(auth).verify(token)
    assert isinstance(found, Principal), found
    return found
