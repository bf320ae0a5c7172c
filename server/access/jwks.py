"""The issuer's public keys, fetched from its JWKS endpoint (RFC 7517) and kept fresh while it rotates them.

Theory of operation: one task, `run`, does every fetch, so there is never more than one at a time and no fetch dies with
the request that asked for it. It fetches at the start, every JWKS_REFRESH_SECONDS, and when a token names a key that is
not known, for then the issuer has probably rotated. Whoever waits for a key waits for the fetch under way, and looks
again.

Rules:
- Unknown key ids make at most one fetch in JWKS_REFRESH_SECONDS_MIN, however many arrive: anybody can make them up.
- A fetch that fails, or brings no key that can be used, changes nothing: the keys we have stay good. It is told in the
  log and tried again after 1, 2, 4 … seconds, at most JWKS_REFRESH_SECONDS_MIN apart.
- Until the first fetch succeeds there are no keys. The server starts all the same, because reads may be public and the
  issuer may come up after us. `find` raises KeysUnavailable, which is answered 503, not 401: nothing is wrong with the
  caller's token that we know of.
- A key is taken for exactly the configured algorithms that its type, its curve and its own `alg` fit. Symmetric keys
  (`oct`), private keys and keys for encryption are refused: in a public document, a shared secret is none.
- The answer is bounded in time and size, must not be compressed (it could unfold to anything), and redirects are not
  followed: the operator named the place that is trusted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import jwt
import msgspec
import structlog
import trio
from cryptography.exceptions import UnsupportedAlgorithm

from server import bounds
from server.access.keys import KeysUnavailable, VerificationKey, key_fault
from server.settings.config import FAMILIES

_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "EdDSA": "OKP"}

_log = structlog.get_logger()


class FetchFailed(Exception):
    """The endpoint gave no keys; the reason is for the log."""


class JwksKeys:
    """The keys of one JWKS endpoint, for `algorithms`. `clock_s` never goes back."""

    def __init__(
        self,
        url: str,
        algorithms: tuple[str, ...],
        *,
        clock_s: Callable[[], float] = time.monotonic,
        open_client: Callable[[], httpx.AsyncClient] = httpx.AsyncClient,
    ) -> None:
        self._url = url
        self._algorithms = algorithms
        self._clock_s = clock_s
        self._open_client = open_client
        self._keys: KeyTable = {}
        self._material: dict[tuple[str | None, str], Mapping[str, Any]] = {}
        self._wanted = trio.Event()
        self._fetched = trio.Event()
        self._fetching = False
        self._may_ask_at_s = float("-inf")
        self._failures = 0
        self.generation = 0

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        """Give the key of this id for this algorithm; fetch the keys again if it is not known and that is due.

        A token that names no key is taken for the only key that fits, where there is only one.

        Raises:
            KeysUnavailable: no keys were ever fetched.
        """
        key = self._look_up(key_id, algorithm)
        if key is None and self._ask_for_fetch(key_id):
            with trio.move_on_after(bounds.JWKS_SECONDS_MAX):
                await self._fetched.wait()
            key = self._look_up(key_id, algorithm)
        if not self._keys:
            raise KeysUnavailable("the issuer's keys could not be fetched yet")
        return key

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetch now, then whenever it is due. Reports started after the first attempt, whether or not it succeeded."""
        async with self._open_client() as client:
            await self._refresh(client)
            task_status.started()
            while True:
                with trio.move_on_after(self._pause_s()):
                    await self._wanted.wait()
                await self._refresh(client)

    def _look_up(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        if key_id is not None:
            return self._keys.get((key_id, algorithm))
        fitting = [key for (_, fits), key in self._keys.items() if fits == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    def _ask_for_fetch(self, key_id: str | None) -> bool:
        """Ask for a fetch if one is due. True if there is one to wait for."""
        if self._fetching:
            return True
        if key_id is None and self._keys:
            return False  # a fetch does not make a token name its key
        if self._clock_s() < self._may_ask_at_s:
            return False
        self._wanted.set()
        return True

    def _pause_s(self) -> float:
        if not self._failures:
            return bounds.JWKS_REFRESH_SECONDS
        doublings = min(self._failures - 1, 16)
        return min(bounds.JWKS_FIRST_RETRY_SECONDS * 2.0**doublings, bounds.JWKS_REFRESH_SECONDS_MIN)

    async def _refresh(self, client: httpx.AsyncClient) -> None:
        self._fetching = True
        self._may_ask_at_s = self._clock_s() + bounds.JWKS_REFRESH_SECONDS_MIN
        try:
            self._take(await fetch(client, self._url))
        except FetchFailed as error:
            self._failures += 1
            _log.warning("jwks_failed", url=self._url, reason=str(error), keys=len(self._keys), failures=self._failures)
        else:
            self._failures = 0
        finally:
            self._fetching = False
            self._wanted = trio.Event()
            self._fetched.set()
            self._fetched = trio.Event()

    def _take(self, document: bytes) -> None:
        keys, material, refused = read_keys(document, self._algorithms)
        if not keys:
            raise FetchFailed(f"it holds no key for {', '.join(self._algorithms)} ({refused} others)")
        if any(material.get(name) != before for name, before in self._material.items()):
            self.generation += 1
        if material != self._material:
            _log.info("jwks_changed", url=self._url, keys=len(keys), refused=refused, generation=self.generation)
        self._keys, self._material = keys, material


KeyTable = dict[tuple[str | None, str], VerificationKey]


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


def read_keys(
    document: bytes, algorithms: tuple[str, ...]
) -> tuple[KeyTable, dict[tuple[str | None, str], Mapping[str, Any]], int]:
    """Give the keys of a JWKS by (key id, algorithm), the JWK behind each of them, and how many were passed over.

    Of two keys with the same id and algorithm the first counts; of keys without an id, too.

    Raises:
        FetchFailed: this is no JWKS.
    """
    try:
        entries = msgspec.json.decode(document, type=_KeySet).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise FetchFailed("the answer is not a JSON Web Key Set") from None
    keys: KeyTable = {}
    material: dict[tuple[str | None, str], Mapping[str, Any]] = {}
    refused = 0
    for entry in entries:
        key_id = entry.get("kid")
        taken = False
        for algorithm in algorithms if key_id is None or isinstance(key_id, str) else ():
            key = _key_of(entry, algorithm)
            if key is not None and (key_id, algorithm) not in keys:
                keys[key_id, algorithm] = key
                material[key_id, algorithm] = entry
                taken = True
        refused += not taken
    return keys, material, refused


def _key_of(entry: dict[str, Any], algorithm: str) -> VerificationKey | None:
    """Give the public key of a JWK if it may be used with this algorithm."""
    if entry.get("kty") != _KEY_TYPES[FAMILIES[algorithm]] or "d" in entry or "k" in entry:
        return None
    operations = entry.get("key_ops", ["verify"])
    if (
        entry.get("alg", algorithm) != algorithm
        or entry.get("use", "sig") != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
    ):
        return None
    try:
        key = jwt.PyJWK(entry, algorithm=algorithm).key
    except (jwt.PyJWTError, UnsupportedAlgorithm, TypeError, ValueError, LookupError, ArithmeticError, AttributeError):
        return None  # whatever an issuer may write there, it is not a key
    return key if key_fault(key, algorithm) is None else None


async def fetch(client: httpx.AsyncClient, url: str) -> bytes:
    """Fetch the document, bounded in time and size.

    Raises:
        FetchFailed: with the reason.
    """
    headers = {"accept": "application/jwk-set+json, application/json", "accept-encoding": "identity"}
    try:
        with trio.fail_after(bounds.JWKS_SECONDS_MAX):
            async with client.stream("GET", url, headers=headers, follow_redirects=False) as response:
                if response.status_code != httpx.codes.OK:
                    raise FetchFailed(f"the answer has status {response.status_code}")
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise FetchFailed("the answer is compressed")
                document = bytearray()
                async for part in response.aiter_raw():
                    document += part
                    if len(document) > bounds.JWKS_BYTES_MAX:
                        raise FetchFailed(f"the answer is longer than {bounds.JWKS_BYTES_MAX} bytes")
                return bytes(document)
    except trio.TooSlowError:
        raise FetchFailed(f"no answer within {bounds.JWKS_SECONDS_MAX:g} seconds") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise FetchFailed(f"{type(error).__name__}: {error}") from error
