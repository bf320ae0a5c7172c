"""The keys on this machine that tokens are signed and verified with, and the minting of tokens.

    keys = fixed_key(config)
    token = mint(config, sub="backend", scopes=["scores:write"], user=None, ttl_s=3_600)

Rules:
- The first process that needs it makes the signing key of a data directory: a start, or `scoreboard token`. It appears
  whole or not at all: written aside, fsynced, then hard-linked into place. A link never replaces a file as a rename
  does. So of two processes at once both use the same key, and each token is valid.
- A signing key that others than its owner may read or write is refused, as in ssh: with it one can sign any token.
- A key is used only with algorithms of its kind and length. That is checked when the key is loaded.

All of this blocks for as long as a small file takes, and runs before the server accepts connections.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

import jwt
import trio
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from engine.commands import id_fault
from engine.disk import RealDisk
from engine.errors import ScoreboardError
from server import bounds
from server.settings.config import Config, ConfigError

VerificationKey = bytes | RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey

SCOPES = frozenset({"scores:write", "scores:read", "users:write", "log:read", "admin"})
"""Everything that a token can allow. `log:read` is for replicas, which get all data of all users. `admin` contains the
others."""

SIGNING_KEY_FILE = "signing.key"
SIGNING_KEY_BYTES = 32


_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""The errors of a file system that has no hard links. After any other, a rename could replace a key that is there."""


class KeysUnavailable(ScoreboardError):
    """No key was fetched yet, so no token can be verified."""


class KeySource(Protocol):
    """Where the keys come from that verify tokens."""

    @property
    def generation(self) -> int:
        """Grows with each withdrawn key: earlier verifications are void."""

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        """Give the key that a token names, if it is for this algorithm. Raises `KeysUnavailable`."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Refresh the keys until cancelled; return at once where they never change."""


class FixedKey:
    """The one key of this configuration. It never changes, and a token's `kid` does not matter."""

    generation = 0

    def __init__(self, key: VerificationKey) -> None:
        self._key = key

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:  # noqa: ARG002  # see the class
        """Give the key. It fits every configured algorithm: `fixed_key` has checked that."""
        return self._key

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()


def fixed_key(config: Config) -> FixedKey:
    """Load the key that the configuration names, or the data directory's own. Raises `ConfigError`."""
    if config.auth.jwt_public_key_file:
        return FixedKey(_public_key(Path(config.auth.jwt_public_key_file), config.auth.algorithms))
    return FixedKey(_shared_secret(config))


def key_fault(key: VerificationKey, algorithm: str) -> str | None:
    """Say why a key must not be used with an algorithm (its kind, its curve, its length); None: it may be."""
    implementation = jwt.get_algorithm_by_name(algorithm)
    try:
        prepared = implementation.prepare_key(key)
    except (jwt.InvalidKeyError, TypeError, ValueError):
        kind = "a shared secret" if isinstance(key, bytes) else "this kind of key"
        return f"{kind} cannot be used with {algorithm}"
    if implementation.check_key_length(prepared):
        return f"too short for {algorithm}"
    return None


def _shared_secret(config: Config) -> bytes:
    if not config.auth.jwt_secret:
        make_signing_key(config.data_dir)
        return read_signing_key(config.data_dir)
    secret = config.auth.jwt_secret.encode("utf-8", "surrogatepass")
    for algorithm in config.auth.algorithms:
        if key_fault(secret, algorithm):
            raise ConfigError(
                "auth.jwt_secret", "looks like a public key, not like a secret; use auth.jwt_public_key_file for one"
            )
    return secret


def _public_key(path: Path, algorithms: Collection[str]) -> VerificationKey:
    name = "auth.jwt_public_key_file"
    try:
        with path.open("rb") as file:
            text = file.read(bounds.KEY_FILE_BYTES_MAX)
    except OSError as error:
        raise ConfigError(name, f"{path} cannot be read: {error.strerror}") from error
    if b"PRIVATE KEY" in text:
        raise ConfigError(name, f"{path} holds a private key; only its public part belongs here")
    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(name, f"{path} holds no public key in PEM form (-----BEGIN PUBLIC KEY-----)") from None
    if not isinstance(key, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey):
        raise ConfigError(name, f"{path} holds a kind of key that signs no tokens")
    for algorithm in algorithms:
        if fault := key_fault(key, algorithm):
            raise ConfigError(name, f"{path}: {fault}; auth.algorithms must name what the issuer signs with")
    return key


def make_signing_key(data_dir: str) -> bool:
    """Make the signing key and the directory, unless they exist. True: it was made now."""
    directory = Path(data_dir)
    path = directory / SIGNING_KEY_FILE
    if RealDisk().exists(str(path)):
        return False
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = directory / f".{SIGNING_KEY_FILE}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        _write_synced(aside, f"{secrets.token_hex(SIGNING_KEY_BYTES)}\n".encode())
        made = _link(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    _sync_directory(directory)
    return made


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _link(aside: Path, path: Path) -> bool:
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without hard links. A rename is whole too, but of two at once the last one wins.
        aside.rename(path)
    return True


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_signing_key(data_dir: str) -> bytes:
    """Read the signing key: the bytes of the text, without the newline. Raises `ConfigError`."""
    path = Path(data_dir, SIGNING_KEY_FILE)
    try:
        with path.open("rb") as file:
            # The mode of the file that is read: the path may name another file a moment later.
            status = os.fstat(file.fileno())
            text = file.read(bounds.KEY_FILE_BYTES_MAX)
    except OSError as error:
        raise ConfigError(str(path), f"the signing key cannot be read: {error.strerror}") from error
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError(
            str(path), f"others can read or write it (mode {stat.S_IMODE(status.st_mode):03o}); run: chmod 600 {path}"
        )
    key = text.removesuffix(b"\n")
    if len(key) != 2 * SIGNING_KEY_BYTES or not all(byte in b"0123456789abcdef" for byte in key):
        raise ConfigError(
            str(path),
            "this is no signing key; restore it from a backup, or remove it so that a new one is made "
            "(every token that was signed with the old one is then worth nothing)",
        )
    return key


def mint(
    config: Config, *, sub: str, scopes: Collection[str], user: str | None, ttl_s: int, now_s: float | None = None
) -> str:
    """Sign a token that this configuration accepts for `ttl_s` seconds from now.

    Raises:
        ConfigError: the configuration has no key that signs, or would refuse the token.
    """
    auth = config.auth
    if not auth.can_mint:
        source = "auth.jwks_url" if auth.jwks_url else "auth.jwt_public_key_file"
        raise ConfigError(source, "public keys verify but do not sign; tokens come from their issuer")
    _check_claims(sub, scopes, user, ttl_s)
    if user is not None and auth.user_claim == "sub" and user != sub:
        raise ConfigError("user", "must be the same as sub, because auth.user_claim is sub")
    now = int(time.time() if now_s is None else now_s)
    claims: dict[str, str | int] = {
        "sub": sub,
        "aud": auth.audience,
        "iat": now,
        "exp": now + ttl_s,
        "jti": secrets.token_hex(8),
        "scope": " ".join(sorted(set(scopes))),
    }
    if auth.issuer:
        claims["iss"] = auth.issuer
    if user is not None:
        claims[auth.user_claim] = user
    return jwt.encode(claims, _shared_secret(config), algorithm=auth.algorithms[0])


def _check_claims(sub: str, scopes: Collection[str], user: str | None, ttl_s: int) -> None:
    for name, value in (("sub", sub), ("user", user)):
        if value is not None and (fault := id_fault(value)):
            raise ConfigError(name, fault)
    if unknown := sorted(set(scopes) - SCOPES):
        raise ConfigError("scope", f"there is no {', '.join(unknown)}; known are {', '.join(sorted(SCOPES))}")
    if not 1 <= ttl_s <= bounds.TOKEN_TTL_SECONDS_MAX:
        raise ConfigError("ttl", f"must be from 1 second to {bounds.TOKEN_TTL_SECONDS_MAX // 86_400} days")
