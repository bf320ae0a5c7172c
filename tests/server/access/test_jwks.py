"""Keys from an issuer: fetched, kept fresh through rotations, and never by a flood of fetches.

The issuer is a real HTTP server on 127.0.0.1; time is the test's own (no test waits for a refresh to come due).
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import jwt
import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from server import bounds
from server.access.auth import Authenticator, AuthFault, Principal
from server.access.jwks import FetchFailed, JwksKeys, read_keys
from server.access.keys import KeysUnavailable
from server.settings.config import AuthConfig

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

RSA_KEYS = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
NOW_S = 1_000_000.0


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that the machine is configured with must not stand between us and 127.0.0.1."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Issuer:
    """A JWKS endpoint that answers what the test says, and counts."""

    def __init__(self) -> None:
        self.fetches = 0
        self.keys: list[dict[str, Any]] = []
        self.answer: Callable[[], bytes] = self.key_set
        self.may_answer = trio.Event()
        self.may_answer.set()
        self.url = ""
        self.heads: list[str] = []

    def key_set(self) -> bytes:
        return http(json.dumps({"keys": self.keys}).encode())

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                part = await stream.receive_some(4096)
                if not part:
                    return
                head += part
            self.heads.append(head.decode())
            self.fetches += 1
            await self.may_answer.wait()
            try:
                await stream.send_all(self.answer())
            except trio.BrokenResourceError:
                return  # the client has heard enough


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def jwk(key: PrivateKey, key_id: str | None, **more: Any) -> dict[str, Any]:
    """The public JWK of a key."""
    algorithm = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256"}
    name = next((name for kind, name in algorithm.items() if isinstance(key, kind)), "EdDSA")
    public = jwt.get_algorithm_by_name(name).to_jwk(key.public_key(), as_dict=True)
    return {**public, **({} if key_id is None else {"kid": key_id}), **more}


def token(key: PrivateKey, key_id: str | None, algorithm: str = "RS256") -> str:
    """A good token that this key has signed."""
    claims = {"sub": "game", "aud": "scoreboard", "exp": int(NOW_S) + 600}
    return jwt.encode(claims, key, algorithm, headers={} if key_id is None else {"kid": key_id})


@asynccontextmanager
async def running(issuer: Issuer, clock: Clock) -> AsyncIterator[tuple[JwksKeys, Authenticator]]:
    """An issuer that serves, and keys and an authenticator that use it."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, issuer.serve, 0, host="127.0.0.1"))
        issuer.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/keys"
        keys = JwksKeys(issuer.url, ("RS256",), clock_s=clock)
        await nursery.start(keys.run)
        auth = AuthConfig(jwks_url=issuer.url, algorithms=("RS256",))
        yield keys, Authenticator(auth, keys, clock_s=lambda: NOW_S)
        nursery.cancel_scope.cancel()


async def test_keys_are_there_once_it_has_started() -> None:
    """The first token finds them; nothing is fetched for it, and the answer was asked for uncompressed."""
    issuer, clock = Issuer(), Clock()
    issuer.keys = [jwk(RSA_KEYS[0], "a")]
    async with running(issuer, clock) as (_, authenticator):
        assert isinstance(await authenticator.verify(token(RSA_KEYS[0], "a")), Principal)
        assert isinstance(await authenticator.verify(token(RSA_KEYS[1], "a")), AuthFault), "signed by another key"
    assert issuer.fetches == 1
    assert "accept-encoding: identity" in issuer.heads[0].lower()


async def test_a_rotation_is_followed_when_the_first_new_token_comes() -> None:
    """An unknown key id fetches the keys; a key that is gone verifies no more, not even tokens that were remembered."""
    issuer, clock = Issuer(), Clock()
    issuer.keys = [jwk(RSA_KEYS[0], "a")]
    async with running(issuer, clock) as (keys, authenticator):
        old, new = token(RSA_KEYS[0], "a"), token(RSA_KEYS[1], "b")
        assert isinstance(await authenticator.verify(old), Principal)
        issuer.keys.append(jwk(RSA_KEYS[1], "b"))
        clock.now_s += bounds.JWKS_REFRESH_SECONDS_MIN
        assert isinstance(await authenticator.verify(new), Principal)
        assert keys.generation == 0, "a key that came makes nothing invalid"
        assert isinstance(await authenticator.verify(old), Principal)
        del issuer.keys[0]
        clock.now_s += bounds.JWKS_REFRESH_SECONDS_MIN
        assert isinstance(await authenticator.verify(token(RSA_KEYS[0], "c")), AuthFault)
        assert issuer.fetches == 3
        assert keys.generation == 1
        found = await authenticator.verify(old)
        assert isinstance(found, AuthFault)
        assert "key that is not known" in found.description
        assert isinstance(await authenticator.verify(new), Principal)


async def test_a_key_id_that_gets_another_key_verifies_by_the_new_one_alone() -> None:
    """Some issuers rotate without renaming."""
    issuer, clock = Issuer(), Clock()
    issuer.keys = [jwk(RSA_KEYS[0], "a")]
    async with running(issuer, clock) as (keys, authenticator):
        old = token(RSA_KEYS[0], "a")
        assert isinstance(await authenticator.verify(old), Principal)
        issuer.keys = [jwk(RSA_KEYS[1], "a")]
        clock.now_s += bounds.JWKS_REFRESH_SECONDS_MIN
        await keys.find("unknown", "RS256")
        assert isinstance(await authenticator.verify(old), AuthFault)
        assert isinstance(await authenticator.verify(token(RSA_KEYS[1], "a")), Principal)


async def test_made_up_key_ids_make_one_fetch_in_a_while() -> None:
    """A flood of them costs the issuer one request each 30 seconds."""
    issuer, clock = Issuer(), Clock()
    issuer.keys = [jwk(RSA_KEYS[0], "a")]
    async with running(issuer, clock) as (keys, _):
        for number in range(50):
            assert await keys.find(f"made-up-{number}", "RS256") is None
        assert issuer.fetches == 1, "so soon after the last fetch, none"
        clock.now_s += bounds.JWKS_REFRESH_SECONDS_MIN
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(keys.find, f"made-up-{number}", "RS256")
        assert issuer.fetches == 2
        clock.now_s += bounds.JWKS_REFRESH_SECONDS_MIN - 0.001
        assert await keys.find("made-up", "RS256") is None
        assert issuer.fetches == 2


async def test_everybody_waits_for_the_fetch_under_way() -> None:
    """Twenty requests with the new key, one fetch, twenty good answers; who leaves meanwhile takes nothing along."""
    issuer, clock = Issuer(), Clock()
    issuer.keys = [jwk(RSA_KEYS[0], "a")]
    async with running(issuer, clock) as (_, authenticator):
        clock.now_s += bounds.JWKS_REFRESH_SECONDS_MIN
        issuer.keys.append(jwk(RSA_KEYS[1], "b"))
        issuer.may_answer = trio.Event()
        found: list[Principal | AuthFault] = []

        async def come(scope: trio.CancelScope) -> None:
            with scope:
                found.append(await authenticator.verify(token(RSA_KEYS[1], "b")))

        async with trio.open_nursery() as nursery:
            scopes = [trio.CancelScope() for _ in range(20)]
            for scope in scopes:
                nursery.start_soon(come, scope)
            await trio.testing.wait_all_tasks_blocked()
            scopes[0].cancel()  # the one that asked for the fetch
            await trio.testing.wait_all_tasks_blocked()
            issuer.may_answer.set()
        assert len(found) == 19
        assert all(isinstance(each, Principal) for each in found)
        assert issuer.fetches == 2


FAILURES = {
    "an error": http(b"{}", "500 Internal Server Error"),
    "no JSON": http(b"<html>"),
    "no key set": http(b'{"keys": 5}'),
    "no keys": http(b'{"keys": []}'),
    "only symmetric keys": http(b'{"keys": [{"kty": "oct", "k": "eHh4", "kid": "a"}]}'),
    "a redirect": http(b"", "302 Found", "location: http://127.0.0.1:1/"),
    "compressed": http(b"\x1f\x8b", "200 OK", "content-encoding: gzip"),
    "too long": http(b" " * (bounds.JWKS_BYTES_MAX + 1)),
    "cut off": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
    "nothing": b"",
    "no HTTP": b"220 mail.example ESMTP\r\n",
    "nested deeply": http(b'{"keys": ' + b"[" * 12_000),
}


@pytest.mark.parametrize("answer", FAILURES.values(), ids=FAILURES)
async def test_a_fetch_that_fails_leaves_the_keys_as_they_are(answer: bytes) -> None:
    """Whatever is wrong with the answer, tokens that verified before still do."""
    issuer, clock = Issuer(), Clock()
    issuer.keys = [jwk(RSA_KEYS[0], "a")]
    async with running(issuer, clock) as (keys, authenticator):
        good = token(RSA_KEYS[0], "a")
        issuer.answer = lambda: answer
        clock.now_s += bounds.JWKS_REFRESH_SECONDS_MIN
        assert await keys.find("unknown", "RS256") is None
        assert issuer.fetches == 2
        assert keys.generation == 0
        assert isinstance(await authenticator.verify(good), Principal)


@asynccontextmanager
async def scripted(answer: Callable[[float], httpx.Response]) -> AsyncIterator[tuple[JwksKeys, list[float]]]:
    """Keys whose issuer is a function of the time; and when it was asked. Time is trio's own, and jumps."""
    asked_s: list[float] = []
    began_s = trio.current_time()

    async def handle(request: httpx.Request) -> httpx.Response:
        asked_s.append(trio.current_time() - began_s)
        return answer(asked_s[-1])

    def open_client() -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(handle))

    keys = JwksKeys("https://issuer.example/", ("RS256",), clock_s=trio.current_time, open_client=open_client)
    async with trio.open_nursery() as nursery:
        await nursery.start(keys.run)
        yield keys, asked_s
        nursery.cancel_scope.cancel()


def unreachable(_: float) -> httpx.Response:
    """Nobody is there."""
    raise httpx.ConnectError("refused")


def reachable(*entries: dict[str, Any]) -> httpx.Response:
    """A good answer."""
    return httpx.Response(200, stream=httpx.ByteStream(json.dumps({"keys": entries}).encode()))


async def test_an_issuer_that_does_not_answer_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """One fetch takes at most JWKS_SECONDS_MAX; then the start goes on without keys, and says so to whoever asks."""

    async def handle(request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    keys = JwksKeys(
        "https://issuer.example/",
        ("RS256",),
        open_client=lambda: httpx.AsyncClient(transport=httpx.MockTransport(handle)),
    )
    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(keys.run)
        assert trio.current_time() - began_s == pytest.approx(bounds.JWKS_SECONDS_MAX)
        with pytest.raises(KeysUnavailable):
            await keys.find("a", "RS256")
        nursery.cancel_scope.cancel()


async def test_keys_that_were_not_there_at_the_start_come_by_themselves(autojump_clock: trio.testing.MockClock) -> None:
    """The issuer may start after us: it is tried after 1, 2, 4 … seconds, and then every 30, until it answers."""
    up_s = 100.0
    async with scripted(lambda now_s: reachable(jwk(RSA_KEYS[0], "a")) if now_s >= up_s else unreachable(now_s)) as (
        keys,
        asked_s,
    ):
        with pytest.raises(KeysUnavailable):
            await keys.find("a", "RS256")
        await trio.sleep(up_s + bounds.JWKS_REFRESH_SECONDS_MIN)
        assert asked_s == pytest.approx([0, 1, 3, 7, 15, 31, 61, 91, 121])
        assert await keys.find("a", "RS256") is not None


async def test_keys_are_fetched_again_every_hour(autojump_clock: trio.testing.MockClock) -> None:
    """Without any token asking: so a withdrawn key is found out."""

    def answer(now_s: float) -> httpx.Response:
        return reachable(jwk(RSA_KEYS[0], "a")) if now_s == 0 else reachable(jwk(RSA_KEYS[1], "b"))

    async with scripted(answer) as (keys, asked_s):
        assert await keys.find("a", "RS256") is not None
        await trio.sleep(bounds.JWKS_REFRESH_SECONDS + 1)
        assert asked_s == pytest.approx([0, bounds.JWKS_REFRESH_SECONDS])
        assert keys.generation == 1
        assert await keys.find("a", "RS256") is None
        assert await keys.find("b", "RS256") is not None


async def test_after_a_failed_refresh_it_is_tried_again_soon(autojump_clock: trio.testing.MockClock) -> None:
    """Not only an hour later; the keys stay meanwhile."""

    def answer(now_s: float) -> httpx.Response:
        return reachable(jwk(RSA_KEYS[0], "a")) if now_s in (0, bounds.JWKS_REFRESH_SECONDS + 3) else unreachable(now_s)

    async with scripted(answer) as (keys, asked_s):
        await trio.sleep(bounds.JWKS_REFRESH_SECONDS + 60)
        due_s = bounds.JWKS_REFRESH_SECONDS
        assert asked_s == pytest.approx([0, due_s, due_s + 1, due_s + 3])
        assert await keys.find("a", "RS256") is not None


async def test_a_token_that_names_no_key_needs_a_set_of_one(autojump_clock: trio.testing.MockClock) -> None:
    """Trying one key after the other would let the token choose; and no fetch makes it name one."""
    sets = [[jwk(RSA_KEYS[0], "a")], [jwk(RSA_KEYS[0], "a"), jwk(RSA_KEYS[1], "b")]]
    for entries in sets:
        answer = partial(lambda entries, _: reachable(*entries), entries)
        async with scripted(answer) as (keys, asked_s):
            await trio.sleep(bounds.JWKS_REFRESH_SECONDS_MIN)
            found = await keys.find(None, "RS256")
            assert (found is not None) == (len(entries) == 1)
            assert len(asked_s) == 1


ELLIPTIC = ec.generate_private_key(ec.SECP256R1())
ELLIPTIC_384 = ec.generate_private_key(ec.SECP384R1())
EDWARDS = ed25519.Ed25519PrivateKey.generate()
OCT = {"kty": "oct", "kid": "a", "k": base64.urlsafe_b64encode(b"x" * 32).decode()}
RSA_PRIVATE = {**jwt.get_algorithm_by_name("RS256").to_jwk(RSA_KEYS[0], as_dict=True), "kid": "a"}


@pytest.mark.parametrize(
    ("entry", "algorithms", "fits"),
    [
        (jwk(RSA_KEYS[0], "a"), ("RS256", "RS512"), ["RS256", "RS512"]),
        (jwk(RSA_KEYS[0], "a", alg="RS512"), ("RS256", "RS512"), ["RS512"]),
        (jwk(RSA_KEYS[0], "a", alg="RS256"), ("PS256",), []),
        (jwk(RSA_KEYS[0], "a"), ("PS256",), ["PS256"]),
        (jwk(RSA_KEYS[0], "a"), ("ES256",), []),
        (jwk(RSA_KEYS[0], "a"), ("EdDSA",), []),
        (jwk(ELLIPTIC, "a"), ("ES256", "ES384"), ["ES256"]),
        (jwk(ELLIPTIC_384, "a"), ("ES256", "ES384"), ["ES384"]),
        (jwk(EDWARDS, "a"), ("EdDSA",), ["EdDSA"]),
        (jwk(EDWARDS, "a"), ("RS256",), []),
        (jwk(RSA_KEYS[0], "a", use="sig", key_ops=["verify"]), ("RS256",), ["RS256"]),
        (jwk(RSA_KEYS[0], "a", use="enc"), ("RS256",), []),
        (jwk(RSA_KEYS[0], "a", key_ops=["encrypt"]), ("RS256",), []),
        (jwk(RSA_KEYS[0], "a", key_ops=5), ("RS256",), []),
        (jwk(RSA_KEYS[0], None, kid=5), ("RS256",), []),
        (jwk(rsa.generate_private_key(65537, 1024), "a"), ("RS256",), []),
        (OCT, ("RS256",), []),
        (OCT | {"kty": "RSA"}, ("RS256",), []),
        (RSA_PRIVATE, ("RS256",), []),
        (jwk(RSA_KEYS[0], "a", n="AQAB!"), ("RS256",), []),
        (jwk(RSA_KEYS[0], "a", n=5), ("RS256",), []),
        (jwk(RSA_KEYS[0], "a", e=None), ("RS256",), []),
        (jwk(ELLIPTIC, "a", x=jwk(ELLIPTIC_384, "a")["x"]), ("ES256",), []),
        (jwk(ELLIPTIC, "a", y=jwk(ELLIPTIC, "a")["x"]), ("ES256",), []),
        ({}, ("RS256",), []),
    ],
)
def test_a_key_is_taken_for_exactly_what_it_fits(
    entry: dict[str, Any], algorithms: tuple[str, ...], fits: list[str]
) -> None:
    """Its type, its curve, its own `alg` and use, and its length decide; symmetric and private keys are never taken."""
    document = json.dumps({"keys": [entry]}).encode()
    keys, material, refused = read_keys(document, algorithms)
    assert sorted(algorithm for _, algorithm in keys) == fits
    assert keys.keys() == material.keys()
    assert refused == (0 if fits else 1)


def test_of_two_keys_with_one_name_the_first_counts() -> None:
    """A set that contradicts itself is read the same way each time."""
    entries = [jwk(RSA_KEYS[0], "a"), jwk(RSA_KEYS[1], "a")]
    keys, material, refused = read_keys(json.dumps({"keys": entries}).encode(), ("RS256",))
    assert len(keys) == 1
    assert material["a", "RS256"] == entries[0]
    assert refused == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
members = st.sampled_from(["kty", "kid", "alg", "use", "key_ops", "crv", "n", "e", "x", "y", "d"])


@settings(deadline=None)
@given(
    entry=st.sampled_from([jwk(RSA_KEYS[0], "a"), jwk(ELLIPTIC, "a"), jwk(EDWARDS, "a")]),
    changes=st.dictionaries(members, json_values, max_size=3),
)
def test_whatever_stands_in_a_key_it_is_taken_or_passed_over(entry: dict[str, Any], changes: dict[str, Any]) -> None:
    """Nothing in a document that anybody could serve raises anything else than FetchFailed."""
    document = json.dumps({"keys": [entry | changes]}).encode()
    for algorithms in (("RS256", "RS384"), ("ES256", "ES512"), ("EdDSA",)):
        keys, _, refused = read_keys(document, algorithms)
        assert bool(keys) != bool(refused)


@settings(deadline=None)
@given(st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_served_is_a_key_set_or_a_failure(document: bytes) -> None:
    """Also where it is no JSON at all."""
    try:
        keys, _, _ = read_keys(document, ("RS256",))
    except FetchFailed:
        return
    assert keys == {}
