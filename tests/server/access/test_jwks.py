"""Keys from an issuer: fetched, kept fresh through rotations, and never by a flood of fetches.

The issuer is a real HTTP server on 127.0.0.1; time is the test's own (no test waits for a refresh to come due).
"""

from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric import rsa

from server import bounds
from server.access.auth import AuthFault, Principal
from server.access.jwks import JwksKeys
from server.access.keys import KeysUnavailable
from server.http.messages import Response
from tests.server.access.issuer import (
    ELLIPTIC,
    RSA_KEYS,
    Clock,
    Issuer,
    find,
    http,
    jwk,
    reachable,
    running,
    scripted,
    token,
    unreachable,
)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that the machine is configured with must not stand between us and 127.0.0.1."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


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
        assert isinstance(await authenticator.verify(new), Principal), "right after the fetch of the start"
        assert keys.generation == 0, "a key that came makes nothing invalid"
        assert isinstance(await authenticator.verify(old), Principal)
        del issuer.keys[0]
        clock.now_s += bounds.JWKS_REFRESH_SECONDS_MIN
        assert isinstance(await authenticator.verify(token(RSA_KEYS[0], "c")), AuthFault)
        assert issuer.fetches == 3
        assert keys.generation == 1
        clock.now_s += bounds.JWKS_REFRESH_SECONDS_MIN
        found = await authenticator.verify(old)
        assert isinstance(found, AuthFault)
        assert found.kind == "invalid"
        assert isinstance(await authenticator.verify(new), Principal)


async def test_a_key_id_that_gets_another_key_verifies_by_the_new_one_alone() -> None:
    """Some issuers rotate without renaming."""
    issuer, clock = Issuer(), Clock()
    issuer.keys = [jwk(RSA_KEYS[0], "a")]
    async with running(issuer, clock) as (keys, authenticator):
        old = token(RSA_KEYS[0], "a")
        assert isinstance(await authenticator.verify(old), Principal)
        issuer.keys = [jwk(RSA_KEYS[1], "a")]
        await find(keys, "unknown")
        assert isinstance(await authenticator.verify(old), AuthFault)
        assert isinstance(await authenticator.verify(token(RSA_KEYS[1], "a")), Principal)


async def test_made_up_key_ids_make_one_fetch_in_a_while() -> None:
    """A flood of them costs the issuer one request each 30 seconds, and those between are told to come again."""
    issuer, clock = Issuer(), Clock()
    issuer.keys = [jwk(RSA_KEYS[0], "a")]
    async with running(issuer, clock) as (keys, _):
        assert await find(keys, "made-up") is None
        assert issuer.fetches == 2, "the fetch of the start has not used up the one for an unknown key"
        clock.now_s += 10
        for number in range(50):
            with pytest.raises(KeysUnavailable) as caught:
                await find(keys, f"made-up-{number}")
            assert caught.value.retry_after_s == bounds.JWKS_REFRESH_SECONDS_MIN - 10
        assert issuer.fetches == 2
        clock.now_s += bounds.JWKS_REFRESH_SECONDS_MIN - 10
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(find, keys, f"made-up-{number}")
        assert issuer.fetches == 3


async def test_a_token_whose_key_cannot_be_known_yet_is_answered_503() -> None:
    """A rotation in the seconds after an invented key id was asked for: 503 with the time to wait, never 401."""
    issuer, clock = Issuer(), Clock()
    issuer.keys = [jwk(RSA_KEYS[0], "a"), jwk(RSA_KEYS[0], "a2")]
    async with running(issuer, clock) as (_, authenticator):
        invented = await authenticator.authenticate(f"Bearer {token(RSA_KEYS[1], 'invented')}")
        assert isinstance(invented, Response)
        assert invented.status == 401, "a good fetch does not have it"
        issuer.keys.append(jwk(RSA_KEYS[1], "b"))
        new = f"Bearer {token(RSA_KEYS[1], 'b')}"
        clock.now_s += 1.5
        answer = await authenticator.authenticate(new)
        assert isinstance(answer, Response)
        assert (answer.status, answer.code) == (503, "KEYS_UNAVAILABLE")
        assert dict(answer.headers)["retry-after"] == "29"
        assert "www-authenticate" not in dict(answer.headers)
        clock.now_s += 29
        assert isinstance(await authenticator.authenticate(new), Principal)


async def test_a_fetch_that_fails_refuses_no_token() -> None:
    """While the issuer is away nobody knows whether it has this key: 503, after the failed fetch too."""
    issuer, clock = Issuer(), Clock()
    issuer.keys = [jwk(RSA_KEYS[0], "a"), jwk(RSA_KEYS[0], "a2")]
    async with running(issuer, clock) as (_, authenticator):
        issuer.answer = lambda: http(b"", "503 Service Unavailable")
        for _ in range(3):
            found = await authenticator.verify(token(RSA_KEYS[1], "b"))
            assert isinstance(found, AuthFault)
            assert found.kind == "unavailable"
            assert 0 < found.retry_after_s <= bounds.JWKS_FIRST_RETRY_SECONDS
        assert issuer.fetches == 2


async def test_everybody_waits_for_the_fetch_under_way() -> None:
    """Twenty requests with the new key, one fetch, twenty good answers; who leaves meanwhile takes nothing along."""
    issuer, clock = Issuer(), Clock()
    issuer.keys = [jwk(RSA_KEYS[0], "a")]
    async with running(issuer, clock) as (_, authenticator):
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
    "a redirect to another port": http(b"", "302 Found", "location: http://127.0.0.1:1/"),
    "a redirect to another host": http(b"", "308 Permanent Redirect", "location: //keys.example/keys"),
    "a redirect to itself": http(b"", "301 Moved Permanently", "location: /keys"),
    "a redirect to nowhere": http(b"", "302 Found"),
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
        with pytest.raises(KeysUnavailable):
            await find(keys, "unknown")
        assert issuer.fetches >= 2
        assert keys.generation == 0
        assert isinstance(await authenticator.verify(good), Principal)


async def test_a_redirect_within_the_host_is_followed() -> None:
    """An issuer has moved its keys to another path."""
    issuer, clock = Issuer(), Clock()
    issuer.keys = [jwk(RSA_KEYS[0], "a")]

    def answer() -> bytes:
        moved = issuer.heads[-1].startswith("GET /keys ")
        return http(b"", "302 Found", "location: /new/keys?version=2") if moved else issuer.key_set()

    issuer.answer = answer
    async with running(issuer, clock) as (_, authenticator):
        assert isinstance(await authenticator.verify(token(RSA_KEYS[0], "a")), Principal)
    assert [head.split(" ")[1] for head in issuer.heads] == ["/keys", "/new/keys?version=2"]


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
            await find(keys, "a")
        nursery.cancel_scope.cancel()


async def test_keys_that_were_not_there_at_the_start_come_by_themselves(autojump_clock: trio.testing.MockClock) -> None:
    """The issuer may start after us: it is tried after 1, 2, 4 … seconds, and then every 30, until it answers."""
    up_s = 100.0
    async with scripted(lambda now_s: reachable(jwk(RSA_KEYS[0], "a")) if now_s >= up_s else unreachable(now_s)) as (
        keys,
        asked_s,
    ):
        with pytest.raises(KeysUnavailable):
            await find(keys, "a")
        assert keys.fault() == "no keys could be fetched from issuer.example yet, at 2 attempts"
        await trio.sleep(up_s + bounds.JWKS_REFRESH_SECONDS_MIN)
        assert keys.fault() is None
        assert asked_s == pytest.approx([0, 0, 2, 6, 14, 30, 60, 90, 120])
        assert await find(keys, "a") is not None


async def test_keys_are_fetched_again_every_hour(autojump_clock: trio.testing.MockClock) -> None:
    """Without any token asking: so a withdrawn key is found out."""

    def answer(now_s: float) -> httpx.Response:
        return reachable(jwk(RSA_KEYS[0], "a")) if now_s == 0 else reachable(jwk(RSA_KEYS[1], "b"))

    async with scripted(answer) as (keys, asked_s):
        assert await find(keys, "a") is not None
        await trio.sleep(bounds.JWKS_REFRESH_SECONDS + 1)
        assert asked_s == pytest.approx([0, bounds.JWKS_REFRESH_SECONDS])
        assert keys.generation == 1
        assert await find(keys, "a") is None
        assert await find(keys, "b") is not None


async def test_after_a_failed_refresh_it_is_tried_again_soon(autojump_clock: trio.testing.MockClock) -> None:
    """Not only an hour later; the keys stay meanwhile."""

    def answer(now_s: float) -> httpx.Response:
        return reachable(jwk(RSA_KEYS[0], "a")) if now_s in (0, bounds.JWKS_REFRESH_SECONDS + 3) else unreachable(now_s)

    async with scripted(answer) as (keys, asked_s):
        await trio.sleep(bounds.JWKS_REFRESH_SECONDS + 60)
        due_s = bounds.JWKS_REFRESH_SECONDS
        assert asked_s == pytest.approx([0, due_s, due_s + 1, due_s + 3])
        assert keys.fault() is None
        assert await find(keys, "a") is not None


@pytest.mark.parametrize("named", [None, "another"])
async def test_the_only_key_that_fits_is_tried_for_every_key_id(named: str | None) -> None:
    """Issuers with one key often name none, or name it otherwise in the set: what it verifies is good."""
    issuer, clock = Issuer(), Clock()
    issuer.keys = [jwk(RSA_KEYS[0], "a")]
    async with running(issuer, clock) as (_, authenticator):
        assert isinstance(await authenticator.verify(token(RSA_KEYS[0], named)), Principal)
        assert issuer.fetches == 1
        found = await authenticator.verify(token(RSA_KEYS[1], named))
        assert isinstance(found, AuthFault)
        assert (found.kind, issuer.fetches) == ("invalid", 2), "a newer key was looked for, and is not there"


async def test_a_token_that_names_no_key_is_tried_with_those_of_its_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of several, up to a bound; and a rotation among keys without names is found out."""
    monkeypatch.setattr(bounds, "JWKS_TRIES_MAX", 2)
    issuer, clock = Issuer(), Clock()
    issuer.keys = [jwk(ELLIPTIC, "e"), jwk(RSA_KEYS[0], "a"), jwk(RSA_KEYS[1], None)]
    last = rsa.generate_private_key(65537, 2048)
    async with running(issuer, clock) as (_, authenticator):
        assert isinstance(await authenticator.verify(token(RSA_KEYS[0], None)), Principal)
        assert isinstance(await authenticator.verify(token(RSA_KEYS[1], None)), Principal)
        assert issuer.fetches == 1
        issuer.keys[2] = jwk(last, None)
        assert isinstance(await authenticator.verify(token(last, None)), Principal)
        assert isinstance(await authenticator.verify(token(RSA_KEYS[1], None)), AuthFault)
        clock.now_s += bounds.JWKS_REFRESH_SECONDS_MIN
        issuer.keys.insert(0, jwk(RSA_KEYS[1], "c"))
        assert isinstance(await authenticator.verify(token(RSA_KEYS[1], None)), Principal)
        found = await authenticator.verify(token(last, None, lifetime_s=700))
        assert isinstance(found, AuthFault), "the third key is beyond the bound"
