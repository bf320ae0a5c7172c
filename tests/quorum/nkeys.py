"""Keys and tokens of NATS as its own tools make them: seeds, and JWTs of an operator, an account and a user."""

from __future__ import annotations

import base64
import binascii
import json
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PREFIXES = {"operator": 14 << 3, "account": 0, "user": 20 << 3}


class KeyPair:
    """A key of an operator, an account or a user, from 32 bytes."""

    def __init__(self, kind: str, raw: bytes) -> None:
        self._prefix = PREFIXES[kind]
        self._raw = raw
        self._key = Ed25519PrivateKey.from_private_bytes(raw)

    @property
    def public(self) -> str:
        """Its name: O…, A… or U…."""
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return _text(bytes((self._prefix,)) + raw)

    @property
    def seed(self) -> str:
        """The secret: SO…, SA… or SU…."""
        return _text(bytes((18 << 3 | self._prefix >> 5, (self._prefix & 31) << 3)) + self._raw)

    def jwt(self, subject: KeyPair, name: str, claims: dict[str, Any]) -> str:
        """Sign what is said of another key."""
        head = _part({"typ": "JWT", "alg": "ed25519-nkey"})
        said = {"jti": name, "iat": int(time.time()), "iss": self.public, "name": name, "sub": subject.public}
        signed = f"{head}.{_part(said | {'nats': claims | {'version': 2}})}"
        return f"{signed}.{_unpadded(self._key.sign(signed.encode()))}"


def creds_file(jwt: str, seed: str) -> str:
    """What `nsc generate creds` writes."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n"
        "NKEY Seed printed below can be used to sign and prove identity.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


def _text(data: bytes) -> str:
    return base64.b32encode(data + binascii.crc_hqx(data, 0).to_bytes(2, "little")).rstrip(b"=").decode()


def _part(value: object) -> str:
    return _unpadded(json.dumps(value).encode())


def _unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
