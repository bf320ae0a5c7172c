"""The keys of a data directory that verify tokens: its own signing key, and the public half of its leader's.

    keys = DirectoryKeys(config)                   # a leader: makes `signing.key` where there is no key at all
    keys = DirectoryKeys(config, make=False)       # a replica: verifies with what there is, and with what it is told
    keys.adopt(pem)

Rules:
- `leader.key` is the public half of the leader's signing key, in PEM form, as the leader told it over the link. It
  stays through restarts and through a promotion, so tokens of the old leader are good on the new one. A node that leads
  with it mints no tokens, and makes no key of its own: followers know this one.
- Both keys count where both are there. Each is used with its own algorithms.
- Another key that the leader tells takes the place of the one before, which is withdrawn.
- Without any key it is not known whether a token is good: KeysUnavailable, until the leader has told its key.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import structlog
import trio
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from engine.disk import RealDisk
from engine.errors import DiskFault
from engine.regular_file import open_regular
from server import bounds
from server.access.keys import Candidates, KeysUnavailable, VerificationKey, by_header_name
from server.access.signing_key import (
    SIGNING_KEY_FILE,
    SigningKey,
    key_id_of,
    make_signing_key,
    pem_of,
    read_signing_key,
    write_whole,
)
from server.settings.config import Config, ConfigError

LEADER_KEY_FILE = "leader.key"

log = structlog.get_logger()


def has_keys(data_dir: str) -> bool:
    """Tell whether a directory has any key."""
    return any(_exists(Path(data_dir, name)) for name in (SIGNING_KEY_FILE, LEADER_KEY_FILE))


def _exists(path: Path) -> bool:
    """Tell whether a file is there. An error is no "not there": a new key would take the place of one that is."""
    return RealDisk().exists(str(path))


class DirectoryKeys:
    """See above. A `KeySource`."""

    def __init__(self, config: Config, *, make: bool = True) -> None:
        """Read the keys. Raises `ConfigError`."""
        self._path = Path(config.data_dir, LEADER_KEY_FILE)
        self._configured = config.auth.algorithms
        if make and not has_keys(config.data_dir):
            make_signing_key(config.data_dir, self._configured)
        self._signing: SigningKey | None = None
        if _exists(Path(config.data_dir, SIGNING_KEY_FILE)):
            self._signing = read_signing_key(config.data_dir, self._configured)
        self._leader = _read_public(self._path) if _exists(self._path) else None
        # Once, because a lease compares keys by identity.
        self._own_key = None if self._signing is None else self._signing.verifies
        self._by_name: Mapping[str, tuple[VerificationKey, ...]] = {}
        self.generation = 0
        self._index()

    @property
    def public_pem(self) -> str:
        """The public key that followers should verify with, "" if it is a secret, or there is none."""
        if self._leader is not None:
            return pem_of(self._leader)
        return "" if self._signing is None else self._signing.public_pem

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The names of the keys that are here, the one for followers first."""
        keys = [key for key in (self._leader, self._own_key) if isinstance(key, bytes | Ed25519PublicKey)]
        return tuple(key_id_of(key) for key in keys)

    @property
    def uses_leader_key(self) -> bool:
        """Whether tokens are verified with the leader's key: the configured algorithms must fit it."""
        return any(self._leader is key for keys in self._by_name.values() for key in keys)

    def adopt(self, pem: str) -> bool:
        """Verify with the leader's key from now on, and keep it. False: it is no such key, or it cannot be kept."""
        key = _public(pem.encode())
        if key is None:
            return False
        if self._leader is not None and pem_of(self._leader) == pem_of(key):
            return True
        replaced = self._leader is not None
        try:
            write_whole(self._path, pem_of(key).encode(), replace=True)
        except OSError as error:
            log.error("leader_key_not_kept", path=str(self._path), reason=error.strerror)
        else:
            log.info("leader_key_kept", path=str(self._path), key_id=key_id_of(key), replaced=replaced)
        self._leader = key
        if replaced:
            self.generation += 1
        self._index()
        return True

    def _index(self) -> None:
        names: dict[str, tuple[VerificationKey, ...]] = {}
        if self._signing is not None and self._own_key is not None:
            names |= by_header_name([self._own_key], self._signing.algorithms)
        if self._leader is not None:
            for name, keys in by_header_name([self._leader], self._configured or ("EdDSA",)).items():
                names[name] = names.get(name, ()) + keys
        self._by_name = names

    @property
    def algorithms(self) -> Collection[str]:
        """See `KeySource`. Without any key no name is known to be wrong."""
        return self._by_name or ("EdDSA", "Ed25519", "HS256")

    def candidates(self, key_id: str | None, algorithm: str) -> Candidates:  # noqa: ARG002  # tokens of ours name none
        """Give the keys that fit. Raises `KeysUnavailable`."""
        if not self._by_name:
            raise KeysUnavailable("the leader has not told its key yet")
        return Candidates(self._by_name.get(algorithm, ()), named=True)

    def has(self, key: VerificationKey) -> bool:
        """See `KeySource`."""
        return key is self._own_key or key is self._leader

    async def renew(self) -> None:
        """See `KeySource`; never needed."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()


def _public(text: bytes) -> Ed25519PublicKey | None:
    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, Ed25519PublicKey) else None


def _read_public(path: Path) -> Ed25519PublicKey:
    try:
        with open(path, "rb", opener=open_regular) as file:
            text = file.read(bounds.KEY_FILE_BYTES_MAX)
    except OSError as error:
        raise ConfigError(str(path), f"the leader's key cannot be read: {error.strerror}") from error
    except DiskFault as fault:
        raise ConfigError(str(path), fault.what) from fault
    key = _public(text)
    if key is None:
        raise ConfigError(str(path), "this is no Ed25519 public key; remove it, and the leader tells it again")
    return key
