"""The issuer's public keys, fetched from its JWKS endpoint (RFC 7517) and refreshed as the issuer rotates them.

    keys = JwksKeys(url, algorithms); await nursery.start(keys.run)
    found, named = keys.candidates(key_id, algorithm)
    await keys.renew()                            when none of them verifies, and the token named none

Theory of operation: the task `run` does every fetch. So fetches never overlap, and no fetch ends with the request that
asked for it. It fetches at the start, every JWKS_REFRESH_SECONDS, and when a token was signed with an unknown key,
because the issuer has probably rotated then. `renew` waits for that fetch.

    token names          keys to try                                         none verifies
    -------------------  --------------------------------------------------  ------------------------------
    a key that is here   that key                                            401
    another key          the key that fits the algorithm, if there is one    a fetch, then the same once more
    no key               those that fit, at most JWKS_TRIES_MAX              a fetch, then the same once more

Rules:
- Unknown keys cause at most one fetch in JWKS_REFRESH_SECONDS_MIN: anybody can invent key ids. Scheduled fetches do not
  count. So the first token after a rotation is verified at once, unless an unknown key was asked for shortly before:
  then it may be answered 503 until the next fetch is allowed.
- An unknown key is refused (401) only after a good fetch that its token has waited for. Until that, it cannot be known
  whether the key is the issuer's: KeysUnavailable, which is answered 503 with the time until the next fetch.
- A fetch that fails, or brings no usable key, leaves the old keys in use. It is logged, and tried again after 1, 2, 4 …
  seconds, at most JWKS_REFRESH_SECONDS_MIN apart.
- There are no keys before the first good fetch. The server starts anyway: reads may be public, and the issuer may start
  later. `fault` says so until then, for the answer of `/readyz`.
- A key is used with the configured algorithms that fit its type, its curve and its `alg`. Symmetric keys (`oct`),
  private keys and keys for encryption are refused: a secret in a public document is none.
- The answer is bounded in time and size. It must not be compressed, because it could expand to any size. A redirect is
  followed only within the scheme, host and port of the address: the operator trusts that address alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import msgspec
import structlog
import trio
from cryptography.exceptions import UnsupportedAlgorithm

from server import bounds
from server.access.keys import Candidates, KeysUnavailable, VerificationKey, header_names, key_fault
from server.settings.auth import FAMILIES

_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "EdDSA": "OKP"}

_log = structlog.get_logger()


class FetchFailed(Exception):
    """The endpoint gave no keys; the reason is for the log."""


class KeySet(msgspec.Struct, frozen=True):
    """The keys of a JWKS by key id and name of an algorithm. `refused` is how many could not be used.

    `jwks` has each entry that is used, as text, with its keys: an entry that is unchanged keeps them.
    """

    keys: dict[tuple[str | None, str], list[VerificationKey]]
    jwks: dict[bytes, dict[str, VerificationKey]]
    refused: int

    def named(self, key_id: str, algorithm: str) -> tuple[VerificationKey, ...]:
        """Give the key of this id. Of several the first counts."""
        return tuple(self.keys.get((key_id, algorithm), ())[:1])

    def fitting(self, algorithm: str) -> list[VerificationKey]:
        """Give all keys of this algorithm."""
        return [key for (_, name), keys in self.keys.items() if name == algorithm for key in keys]


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
        self._names = header_names(algorithms)
        self._clock_s = clock_s
        self._open_client = open_client
        self._set = KeySet({}, {}, 0)
        self._wanted = trio.Event()
        self._fetched = trio.Event()
        self._fetching = False
        self._may_ask_at_s = float("-inf")
        self._failures = 0
        self.generation = 0

    @property
    def algorithms(self) -> Collection[str]:
        """See `KeySource`."""
        return self._names

    def candidates(self, key_id: str | None, algorithm: str) -> Candidates:
        """See the table above."""
        if key_id is not None and (named := self._set.named(key_id, algorithm)):
            return Candidates(named, named=True)
        fitting = self._set.fitting(algorithm)
        if key_id is not None and len(fitting) > 1:
            return Candidates((), named=False)
        return Candidates(tuple(fitting[: bounds.JWKS_TRIES_MAX]), named=False)

    def has(self, key: VerificationKey) -> bool:
        """See `KeySource`."""
        return any(key is each for keys in self._set.jwks.values() for each in keys.values())

    def fault(self) -> str | None:
        """Say that no token can be verified, None if there are keys. `jwks_failed` in the log has the reason."""
        if self._set.keys or not self._failures:
            return None
        # The host alone: a URL may have a secret in its query.
        return f"no keys could be fetched from {urlsplit(self._url).hostname} yet, at {self._failures} attempts"

    async def renew(self) -> None:
        """Return after a good fetch. Raises `KeysUnavailable`."""
        if not self._fetching and not self._wanted.is_set():
            wait_s = self._may_ask_at_s - self._clock_s()
            if wait_s > 0:
                if self._failures:
                    wait_s = min(wait_s, self._pause_s())
                raise KeysUnavailable("the issuer's keys were asked for just now", wait_s)
            self._may_ask_at_s = self._clock_s() + bounds.JWKS_REFRESH_SECONDS_MIN
            self._wanted.set()
        with trio.move_on_after(bounds.JWKS_SECONDS_MAX) as patience:
            await self._fetched.wait()
        if self._failures or patience.cancelled_caught:
            raise KeysUnavailable("the issuer's keys could not be fetched", self._pause_s() if self._failures else 1.0)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetch now, then whenever it is due. Started after the first attempt, even a failed one."""
        async with self._open_client() as client:
            await self._refresh(client)
            task_status.started()
            while True:
                with trio.move_on_after(self._pause_s()):
                    await self._wanted.wait()
                await self._refresh(client)

    def _pause_s(self) -> float:
        if not self._failures:
            return bounds.JWKS_REFRESH_SECONDS
        doublings = min(self._failures - 1, 16)
        return min(bounds.JWKS_FIRST_RETRY_SECONDS * 2.0**doublings, bounds.JWKS_REFRESH_SECONDS_MIN)

    async def _refresh(self, client: httpx.AsyncClient) -> None:
        self._fetching = True
        self._wanted = trio.Event()
        try:
            self._take(await fetch(client, self._url))
        except FetchFailed as error:
            self._failures += 1
            keys = len(self._set.keys)
            _log.warning("jwks_failed", url=self._url, reason=str(error), keys=keys, failures=self._failures)
        else:
            self._failures = 0
        finally:
            self._fetching = False
            self._fetched.set()
            self._fetched = trio.Event()

    def _take(self, document: bytes) -> None:
        before = self._set
        now = read_keys(document, self._algorithms, before)
        if not now.keys:
            raise FetchFailed(f"it holds no key for {', '.join(self._algorithms)} ({now.refused} others)")
        if before.jwks.keys() - now.jwks.keys():
            self.generation += 1
        if before.jwks.keys() != now.jwks.keys():
            keys = len(now.keys)
            _log.info("jwks_changed", url=self._url, keys=keys, refused=now.refused, generation=self.generation)
        self._set = now


class _Document(msgspec.Struct):
    keys: list[dict[str, Any]]


def read_keys(document: bytes, algorithms: tuple[str, ...], before: KeySet | None = None) -> KeySet:
    """Read a JWKS. Keys of entries that are in `before` are taken from there. Raises `FetchFailed`."""
    try:
        entries = msgspec.json.decode(document, type=_Document).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise FetchFailed("the answer is not a JSON Web Key Set") from None
    keys: dict[tuple[str | None, str], list[VerificationKey]] = {}
    jwks: dict[bytes, dict[str, VerificationKey]] = {}
    refused = 0
    for entry in entries:
        key_id = entry.get("kid")
        text = msgspec.json.encode(entry, order="sorted")
        if not (key_id is None or isinstance(key_id, str)) or text in jwks:
            refused += 1
            continue
        made = before.jwks.get(text) if before is not None else None
        if made is None:
            made = _keys_of(entry, algorithms)
        if not made:
            refused += 1
            continue
        jwks[text] = made
        for name, key in made.items():
            keys.setdefault((key_id, name), []).append(key)
    return KeySet(keys, jwks, refused)


def _keys_of(entry: dict[str, Any], algorithms: tuple[str, ...]) -> dict[str, VerificationKey]:
    """Give the public key of a JWK for each name of an algorithm that it may be used with."""
    made: dict[str, VerificationKey] = {}
    for name, algorithm in header_names(algorithms).items():
        key = _key_of(entry, algorithm)
        if key is not None:
            made[name] = key
    return made


def _key_of(entry: dict[str, Any], algorithm: str) -> VerificationKey | None:
    """Give the public key of a JWK if it may be used with this algorithm."""
    if entry.get("kty") != _KEY_TYPES[FAMILIES[algorithm]] or "d" in entry or "k" in entry:
        return None
    operations = entry.get("key_ops", ["verify"])
    if (
        _one_name(entry.get("alg", algorithm)) != _one_name(algorithm)
        or entry.get("use", "sig") != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
    ):
        return None
    try:
        key = jwt.PyJWK(entry, algorithm=_one_name(algorithm)).key
    except (jwt.PyJWTError, UnsupportedAlgorithm, TypeError, ValueError, LookupError, ArithmeticError, AttributeError):
        return None  # whatever this is, it is not a key
    return key if key_fault(key, algorithm) is None else None


def _one_name(algorithm: Any) -> Any:
    return "EdDSA" if algorithm == "Ed25519" else algorithm


async def fetch(client: httpx.AsyncClient, url: str) -> bytes:
    """Fetch the document, bounded in time, size and redirects. Raises `FetchFailed`."""
    try:
        with trio.fail_after(bounds.JWKS_SECONDS_MAX):
            at = httpx.URL(url)
            for _ in range(bounds.JWKS_REDIRECTS_MAX + 1):
                found = await _fetch_one(client, at)
                if isinstance(found, bytes):
                    return found
                if (found.scheme, found.host, found.port) != (at.scheme, at.host, at.port):
                    raise FetchFailed(f"the answer is a redirect to another host: {found.scheme}://{found.host}")
                at = found
            raise FetchFailed(f"the answer is more than {bounds.JWKS_REDIRECTS_MAX} redirects")
    except trio.TooSlowError:
        raise FetchFailed(f"no answer within {bounds.JWKS_SECONDS_MAX:g} seconds") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise FetchFailed(f"{type(error).__name__}: {error}") from error


async def _fetch_one(client: httpx.AsyncClient, url: httpx.URL) -> bytes | httpx.URL:
    """Fetch the document, or the address that it is at instead."""
    headers = {"accept": "application/jwk-set+json, application/json", "accept-encoding": "identity"}
    async with client.stream("GET", url, headers=headers, follow_redirects=False) as response:
        if response.has_redirect_location:
            return url.join(response.headers["location"])
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
