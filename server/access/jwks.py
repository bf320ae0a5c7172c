"""The issuer's public keys, fetched from its JWKS endpoint (RFC 7517) and refreshed as the issuer rotates them.

    keys = JwksKeys(url, algorithms); await nursery.start(keys.run)
    key = await keys.find(key_id, algorithm)      None: no such key

Theory of operation: the task `run` does every fetch. So fetches never overlap, and no fetch ends with the request that
asked for it. It fetches at the start, every JWKS_REFRESH_SECONDS, and when a token names an unknown key, because the
issuer has probably rotated then. `find` waits for that fetch and looks again.

Rules:
- Unknown key ids cause at most one fetch in JWKS_REFRESH_SECONDS_MIN: anybody can invent key ids.
- A fetch that fails, or brings no usable key, leaves the old keys in use. It is logged, and tried again after 1, 2, 4 …
  seconds, at most JWKS_REFRESH_SECONDS_MIN apart.
- There are no keys before the first good fetch. The server starts anyway: reads may be public, and the issuer may start
  later. `find` then raises KeysUnavailable, which is answered 503, not 401: the caller's token may be good.
- A key is used with the configured algorithms that fit its type, its curve and its `alg`. Symmetric keys (`oct`),
  private keys and keys for encryption are refused: a secret in a public document is none.
- The answer is bounded in time and size. It must not be compressed, because it could expand to any size. Redirects are
  not followed: the operator trusts the configured address alone.
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
        self._material: Material = {}
        self._wanted = trio.Event()
        self._fetched = trio.Event()
        self._fetching = False
        self._may_ask_at_s = float("-inf")
        self._failures = 0
        self.generation = 0

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        """Give the key of this id for this algorithm, after a fetch if it is unknown. Raises `KeysUnavailable`.

        A token without a key id means the only key that fits; where several fit, none.
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
        """Fetch now, then whenever it is due. Started after the first attempt, even a failed one."""
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
        """Ask for a fetch if one is due. True: there is one to wait for."""
        if self._fetching:
            return True
        if key_id is None and self._keys:
            return False  # a fetch can't tell which key a token means
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
Material = dict[tuple[str | None, str], Mapping[str, Any]]


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


def read_keys(document: bytes, algorithms: tuple[str, ...]) -> tuple[KeyTable, Material, int]:
    """Give the keys of a JWKS by (key id, algorithm), the JWK of each, and how many were refused. Raises `FetchFailed`.

    Of several keys with the same id (or none) and algorithm the first counts.
    """
    try:
        entries = msgspec.json.decode(document, type=_KeySet).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise FetchFailed("the answer is not a JSON Web Key Set") from None
    keys: KeyTable = {}
    material: Material = {}
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
        return None  # whatever this is, it is not a key
    return key if key_fault(key, algorithm) is None else None


async def fetch(client: httpx.AsyncClient, url: str) -> bytes:
    """Fetch the document, bounded in time and size. Raises `FetchFailed`."""
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
