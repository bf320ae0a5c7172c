"""Who a node is to the servers of NATS: a `.creds` file, a file with a seed, or what stands in a server's URL.

    credentials = read_credentials(path)
    options |= credentials.answer(info.nonce)       # the fields of CONNECT that prove it

    seed     base32 without padding of  prefix (2 bytes)  seed (32 bytes)  CRC-16 of both (2 bytes, little endian)
    prefix   5 bits "this is a seed" (18, the letter S), 8 bits of whose key it is (160 for a user's, letter U), zeros
    .creds   -----BEGIN NATS USER JWT-----     the JWT, one line
             -----BEGIN USER NKEY SEED-----    the seed, one line

Rules:
- The seed never leaves this file: the server sends a nonce, and gets its signature (Ed25519).
- No `repr` and no error holds a secret.
- A file is read anew for each connection, so that a new one counts without a restart.

Source: https://github.com/nats-io/nkeys, https://docs.nats.io/using-nats/developer/connecting/creds
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from server import bounds
from server.quorum.stream import StreamRefused

KEY = "quorum.credentials_file"

_SEED_PREFIX = 18 << 3
_USER_PREFIX = 20 << 3
_SEED_BYTES = 2 + 32 + 2
_SECTION = re.compile(r"-{3,}BEGIN ([A-Z ]+)-{3,}\s+(\S+)\s+-{3,}END [A-Z ]+-{3,}")


class Credentials:
    """The key of a user, and the JWT that names the account, or None for a key that the server knows."""

    def __init__(self, seed: str, jwt: str | None = None) -> None:
        self._key = _private_key(seed)
        self._jwt = jwt

    def __repr__(self) -> str:
        return f"Credentials(public_key={self.public_key!r})"

    @property
    def public_key(self) -> str:
        """The name of the user's key, as nats-server.conf has it: `U…`."""
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return _encode(bytes((_USER_PREFIX,)) + raw)

    def answer(self, nonce: str) -> dict[str, str]:
        """Give the fields of CONNECT that prove to the server who this is."""
        signature = base64.urlsafe_b64encode(self._key.sign(nonce.encode())).rstrip(b"=").decode()
        return {"jwt": self._jwt, "sig": signature} if self._jwt else {"nkey": self.public_key, "sig": signature}


def read_credentials(path: str) -> Credentials:
    """Read a `.creds` file, or a file with nothing but a seed. Raises `StreamRefused`."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(bounds.KEY_FILE_BYTES_MAX + 1)
    except OSError as error:
        _refuse(f"{path} cannot be read: {error.strerror}.")
    if len(data) > bounds.KEY_FILE_BYTES_MAX:
        _refuse(f"{path} has more than {bounds.KEY_FILE_BYTES_MAX} bytes, which no file with credentials has.")
    text = data.decode("ascii", "replace")
    sections = dict(_SECTION.findall(text))
    try:
        if not sections:
            return Credentials(text.strip())
        jwt, seed = sections.get("NATS USER JWT"), sections.get("USER NKEY SEED")
        if jwt is None or seed is None:
            _refuse(f"{path} lacks the JWT or the seed of a user.", "Make it anew: nsc generate creds.")
        return Credentials(seed, jwt)
    except ValueError as error:
        _refuse(f"{path} holds no credentials of NATS: {error}.", "Name a .creds file, or a file with a seed (SU…).")


def _refuse(what: str, remedy: str = "") -> NoReturn:
    raise StreamRefused(f"the credentials file {what}", key=KEY, remedy=remedy) from None


def _private_key(seed: str) -> Ed25519PrivateKey:
    """Read a seed. Raises ValueError with a text that holds nothing of it."""
    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except ValueError:
        raise ValueError("it is neither a seed nor a .creds file") from None
    if len(raw) != _SEED_BYTES or raw[0] & 0xF8 != _SEED_PREFIX:
        raise ValueError("it is neither a seed nor a .creds file")
    if binascii.crc_hqx(raw[:-2], 0) != int.from_bytes(raw[-2:], "little"):
        raise ValueError("the seed has a typing mistake: its checksum is wrong")
    if (raw[0] & 0x07) << 5 | raw[1] >> 3 != _USER_PREFIX:
        raise ValueError("the seed is not that of a user (SU…)")
    return Ed25519PrivateKey.from_private_bytes(raw[2:-2])


def _encode(data: bytes) -> str:
    """Give bytes and their checksum in base32."""
    return base64.b32encode(data + binascii.crc_hqx(data, 0).to_bytes(2, "little")).rstrip(b"=").decode()
