"""The keys that verify tokens: where they come from, and which of them a token may mean.

    keys = named_keys("auth", config.auth)
    found, named = keys.candidates(key_id, "ES256")      # to be tried one after the other

Theory of operation. A source gives the few keys that a token may have been signed with. `named`: the token means one of
these. Otherwise, when none verifies, the key may be one that is not here yet, and `renew` looks for newer ones.

Rules:
- A key is used only with algorithms of its kind and length. That is checked when the key is loaded.
- `EdDSA` and `Ed25519` are two names of one algorithm for keys of that curve (RFC 9864). Where one is configured, a
  token may name either. Where only `Ed25519` is configured, no other curve counts.
- A key that is withdrawn makes `generation` grow, and `has` says whether a key is still there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import jwt
import trio
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from engine.errors import ScoreboardError
from server import bounds
from server.settings.auth import FAMILIES, IssuerConfig
from server.settings.config import ConfigError

VerificationKey = bytes | RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey


class KeysUnavailable(ScoreboardError):
    """The key of a token cannot be known yet. It is worth asking again after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float = float(bounds.RETRY_AFTER_SECONDS)) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Candidates(NamedTuple):
    """The keys to try, in order. `named`: the token means one of these, and no other."""

    keys: tuple[VerificationKey, ...]
    named: bool


class KeyChanges(Protocol):
    """Keys that may be withdrawn."""

    @property
    def generation(self) -> int:
        """Grows with each withdrawn key: earlier verifications are void."""

    def has(self, key: VerificationKey) -> bool:
        """Whether a key that was given is still there."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Refresh the keys until cancelled; return at once where they never change."""


class KeySource(KeyChanges, Protocol):
    """Where the keys of one issuer come from."""

    @property
    def algorithms(self) -> Collection[str]:
        """The names that the header of a token may have as its `alg`."""

    def candidates(self, key_id: str | None, algorithm: str) -> Candidates:
        """Give the keys that a token of this header may be signed with. Raises `KeysUnavailable`."""

    async def renew(self) -> None:
        """Look for newer keys; return when they are here. Raises `KeysUnavailable`."""


class FixedKeys:
    """The keys of a configuration. They change only with it (`replace`), and a token's `kid` does not matter."""

    def __init__(self, keys: Iterable[VerificationKey], algorithms: tuple[str, ...] = ("HS256",)) -> None:
        self.generation = 0
        self.keys = tuple(keys)
        self._algorithms = algorithms
        self._by_name = by_header_name(self.keys, algorithms)

    @property
    def algorithms(self) -> Collection[str]:
        """See `KeySource`."""
        return self._by_name

    def candidates(self, key_id: str | None, algorithm: str) -> Candidates:  # noqa: ARG002  # see the class
        """Give all keys that fit."""
        return Candidates(self._by_name.get(algorithm, ()), named=True)

    def has(self, key: VerificationKey) -> bool:
        """See `KeySource`."""
        return any(key is each for each in self.keys)

    def replace(self, new: FixedKeys) -> bool:
        """Verify with the keys of another source from now on; False: they are the same.

        A key that stays is the same object afterwards, because leases compare keys by identity.
        """
        before = self.keys
        self.keys = tuple(next((key for key in before if key == each), each) for each in new.keys)
        self._by_name = by_header_name(self.keys, self._algorithms)
        if not all(self.has(key) for key in before):
            self.generation += 1
        return self.keys != before

    async def renew(self) -> None:
        """See `KeySource`; never needed."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()


def by_header_name(
    keys: Iterable[VerificationKey], algorithms: tuple[str, ...]
) -> Mapping[str, tuple[VerificationKey, ...]]:
    """Give the keys that fit each name that a header may have."""
    keys = tuple(keys)
    return {
        name: tuple(key for key in keys if key_fault(key, algorithm) is None)
        for name, algorithm in header_names(algorithms).items()
    }


def header_names(algorithms: Iterable[str]) -> dict[str, str]:
    """Give each name that a header may have, and the algorithm that its keys must fit."""
    names = {algorithm: algorithm for algorithm in algorithms}
    if "EdDSA" in names or "Ed25519" in names:
        names.setdefault("EdDSA", "Ed25519")
        names["Ed25519"] = "Ed25519"
    return names


def named_keys(above: str, issuer: IssuerConfig) -> FixedKeys:
    """Load the secrets, or the public key, that an issuer names. `above` is its table. Raises `ConfigError`."""
    if issuer.jwt_public_key_file:
        name = f"{above}.jwt_public_key_file"
        key = _public_key(name, above, Path(issuer.jwt_public_key_file), issuer.algorithms)
        return FixedKeys([key], issuer.algorithms)
    return FixedKeys(shared_secrets(above, issuer), issuer.algorithms or ("HS256",))


def key_fault(key: VerificationKey, algorithm: str) -> str | None:
    """Say why a key must not be used with an algorithm (its kind, its curve, its length); None: it may be."""
    implementation = jwt.get_algorithm_by_name("EdDSA" if FAMILIES[algorithm] == "EdDSA" else algorithm)
    kind = "a shared secret" if isinstance(key, bytes) else "this kind of key"
    try:
        prepared = implementation.prepare_key(key)
    except (jwt.InvalidKeyError, TypeError, ValueError):
        return f"{kind} cannot be used with {algorithm}"
    if algorithm == "Ed25519" and not isinstance(key, Ed25519PublicKey):
        return f"{kind} cannot be used with {algorithm}"
    if implementation.check_key_length(prepared):
        return f"too short for {algorithm}"
    return None


def shared_secrets(above: str, issuer: IssuerConfig) -> list[bytes]:
    """Give the secrets of an issuer. The first one signs. Raises `ConfigError`."""
    secrets = [secret.encode("utf-8", "surrogatepass") for secret in issuer.jwt_secret]
    name = f"{above}.jwt_secret_file" if issuer.jwt_secret_file else f"{above}.jwt_secret"
    for algorithm in issuer.algorithms or ("HS256",):
        if any(key_fault(secret, algorithm) for secret in secrets):
            sentence = f"looks like a public key, not like a secret; use {above}.jwt_public_key_file for one"
            raise ConfigError(name, sentence)
    return secrets


def _public_key(name: str, above: str, path: Path, algorithms: Collection[str]) -> VerificationKey:
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
            raise ConfigError(name, f"{path}: {fault}; {above}.algorithms must name what the issuer signs with")
    return key
