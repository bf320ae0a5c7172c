"""The key of a data directory, `signing.key`: made at the first start, it signs and verifies this node's own tokens.

    make_signing_key(config.data_dir, config.auth.algorithms)      # does nothing where there is one
    key = read_signing_key(config.data_dir, config.auth.algorithms)
    jwt.encode(claims, key.signs, key.algorithms[0]);  key.verifies

File format, one of:
- an Ed25519 pair as PKCS #8 in PEM (`-----BEGIN PRIVATE KEY-----`): what is made now. Its public half goes to
  followers, so that tokens verify there too. Versions that know only secrets refuse this file by name.
- 64 hexadecimal digits, a shared secret for HS256: what was made before, and what is made where `auth.algorithms` asks
  for it.

Rules:
- The first process that needs the key makes it: a start, or `scoreboard token`. It appears whole or not at all: written
  aside, fsynced, then hard-linked into place. A link never replaces a file as a rename does. So of two processes at
  once both use the same key, and each token is valid.
- A key that others than its owner may read or write is refused, as in ssh: with it one can sign any token.

All of this blocks for as long as a small file takes, and runs before the server accepts connections.
"""

from __future__ import annotations

import errno
import hmac
import os
import secrets
import stat
from hashlib import sha256
from pathlib import Path

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from engine.disk import RealDisk
from engine.errors import DiskFault
from engine.regular_file import open_regular
from server import bounds
from server.settings.auth import FAMILIES
from server.settings.config import ConfigError

SIGNING_KEY_FILE = "signing.key"
SECRET_BYTES = 32

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""The errors of a file system that has no hard links. After any other, a rename could replace a key that is there."""

_ID_BYTES = 8
_ID_PURPOSE = b"scoreboard signing key id"
_REMEDY = (
    "this is no signing key; restore it from a backup, or remove it so that a new one is made "
    "(every token that was signed with the old one is then worth nothing)"
)


class SigningKey(msgspec.Struct, frozen=True):
    """The key of a data directory. It is used with `algorithms`, and signs with the first of them."""

    signs: bytes | Ed25519PrivateKey
    algorithms: tuple[str, ...]

    @property
    def verifies(self) -> bytes | Ed25519PublicKey:
        """What verifies: the secret itself, or the public half."""
        return self.signs if isinstance(self.signs, bytes) else self.signs.public_key()

    @property
    def public_pem(self) -> str:
        """The public half, empty for a secret."""
        return "" if isinstance(self.signs, bytes) else pem_of(self.signs.public_key())

    @property
    def key_id(self) -> str:
        """A name for the key that tells nothing of it."""
        return key_id_of(self.verifies)


def pem_of(key: Ed25519PublicKey) -> str:
    """Write a public key in PEM form."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def key_id_of(key: bytes | Ed25519PublicKey) -> str:
    """Give a key's name. It is a MAC by the key, which is random: nothing can be guessed from it."""
    data = key if isinstance(key, bytes) else key.public_bytes_raw()
    return hmac.digest(data, _ID_PURPOSE, sha256)[:_ID_BYTES].hex()


def make_signing_key(data_dir: str, algorithms: tuple[str, ...] = ()) -> bool:
    """Make the signing key and the directory, unless they exist. True: it was made now."""
    directory = Path(data_dir)
    path = directory / SIGNING_KEY_FILE
    if RealDisk().exists(str(path)):
        return False
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = f"{secrets.token_hex(SECRET_BYTES)}\n".encode()
    if not _wants_secret(algorithms):
        pair = Ed25519PrivateKey.generate()
        text = pair.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return write_whole(path, text)


def write_whole(path: Path, data: bytes, *, replace: bool = False) -> bool:
    """Write a small file of the owner's alone, whole or not at all. True: it was written now.

    Without `replace` a file that is there stays.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        _write_synced(aside, data)
        if replace:
            aside.replace(path)
        written = replace or _link(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    _sync_directory(path.parent)
    return written


def _wants_secret(algorithms: tuple[str, ...]) -> bool:
    return any(FAMILIES[algorithm] == "HS" for algorithm in algorithms)


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


def read_signing_key(data_dir: str, algorithms: tuple[str, ...] = ()) -> SigningKey:
    """Read the signing key. `algorithms` are the configured ones, empty for those of the key. Raises `ConfigError`."""
    path = Path(data_dir, SIGNING_KEY_FILE)
    text = _read_private(path)
    if text.startswith(b"-----BEGIN PRIVATE KEY-----"):
        key = SigningKey(_pair(path, text), algorithms or ("EdDSA",))
    else:
        key = SigningKey(_secret(path, text), algorithms or ("HS256",))
    if _wants_secret(key.algorithms) != isinstance(key.signs, bytes):
        kind = "a shared secret (HS256)" if isinstance(key.signs, bytes) else "an Ed25519 pair (EdDSA)"
        named = ", ".join(algorithms)
        raise ConfigError("auth.algorithms", f"{path} is {kind} and cannot be used with {named}; leave algorithms out")
    return key


def _read_private(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=open_regular) as file:
            # The mode of the file that is read: the path may name another file a moment later.
            status = os.fstat(file.fileno())
            text = file.read(bounds.KEY_FILE_BYTES_MAX)
    except OSError as error:
        raise ConfigError(str(path), f"the signing key cannot be read: {error.strerror}") from error
    except DiskFault as fault:
        raise ConfigError(str(path), fault.what) from fault
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError(
            str(path), f"others can read or write it (mode {stat.S_IMODE(status.st_mode):03o}); run: chmod 600 {path}"
        )
    return text


def _pair(path: Path, text: bytes) -> Ed25519PrivateKey:
    try:
        pair = load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(str(path), _REMEDY) from None
    if not isinstance(pair, Ed25519PrivateKey):
        raise ConfigError(str(path), f"it is no Ed25519 key; {_REMEDY}")
    return pair


def _secret(path: Path, text: bytes) -> bytes:
    key = text.removesuffix(b"\n")
    if len(key) != 2 * SECRET_BYTES or not all(byte in b"0123456789abcdef" for byte in key):
        raise ConfigError(str(path), _REMEDY)
    return key
