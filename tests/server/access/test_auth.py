"""Authenticating a request: the answers to a good, bad or missing token, what is remembered, and any bytes at all."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import jwt
import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from server import bounds
from server.access.auth import AuthFault, Principal, require
from server.access.issuers import trusted_issuers
from server.access.jwks import JwksKeys
from server.access.keys import Candidates, FixedKeys, KeysUnavailable
from server.http.messages import Response
from server.settings.config import load
from tests.server.access.tokens import (
    NOW_S,
    SECRET,
    Clock,
    CountingKey,
    authenticator,
    claims,
    principal_of,
    sign,
    token_of,
)


async def test_a_good_token_says_who_and_what() -> None:
    """The caller's name, the scopes, the one user if there is one, and until when."""
    found = await authenticator().examine(f"Bearer {token_of(uid='ann', scope='scores:write admin')}")
    assert found == Principal("game", frozenset({"scores:write", "admin"}), "ann", NOW_S + 600, SECRET)
    assert SECRET.decode() not in repr(found)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_may_be_written_in_any_case(scheme: str) -> None:
    """RFC 9110, section 11.1; and more than one space is forgiven."""
    assert isinstance(await authenticator().examine(f"{scheme}  {token_of()} "), Principal)


async def test_without_a_header_a_token_is_asked_for() -> None:
    """401 with a plain challenge: nobody did anything wrong yet, so there is no error in it."""
    answer = await authenticator().authenticate(None)
    assert isinstance(answer, Response)
    assert answer.status == 401
    assert ("www-authenticate", 'Bearer realm="scoreboard"') in answer.headers
    body = msgspec.json.decode(answer.body)
    assert body["error"]["code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize("header", ["", "Bearer", "Basic Z2FtZTpwYXNz", "Bearer Bearer x", "Token abc", "Bearer a b"])
async def test_what_is_no_bearer_token_is_refused(header: str) -> None:
    """401, with a challenge that says invalid_token."""
    answer = await authenticator().authenticate(header)
    assert isinstance(answer, Response)
    assert answer.status == 401
    challenge = dict(answer.headers)["www-authenticate"]
    assert challenge.startswith('Bearer realm="scoreboard", error="invalid_token", error_description="')


async def test_a_token_that_is_too_long_is_refused_before_it_is_looked_at() -> None:
    """A correctly signed one of a MiB costs nothing but the comparison of its length."""
    keys = CountingKey()
    found = await authenticator(keys=keys).verify(token_of(filler="x" * 2**20))
    assert isinstance(found, AuthFault)
    assert "longer than 8192 characters" in found.description
    assert keys.asked == 0


async def test_a_missing_scope_is_403_and_says_which() -> None:
    """insufficient_scope, as RFC 6750 section 3.1 has it; `admin` contains every scope."""
    writer, admin = await principal_of(token_of()), await principal_of(token_of(scope="admin"))
    assert require(writer, ("scores:write",)) is None
    assert require(writer, ("scores:read", "scores:write")) is None
    assert require(admin, ("users:write",)) is None
    fault = require(writer, ("users:write", "scores:read"))
    assert fault is not None
    answer = fault.response()
    assert answer.status == 403
    challenge = dict(answer.headers)["www-authenticate"]
    assert 'error="insufficient_scope"' in challenge
    assert 'scope="users:write scores:read"' in challenge
    error = msgspec.json.decode(answer.body)["error"]
    assert error["code"] == "UNAUTHORIZED"
    assert error["details"] == {"anyOf": ["users:write", "scores:read"]}


async def test_a_verified_token_is_verified_once() -> None:
    """Asking again costs a look into a table."""
    keys = CountingKey()
    checker = authenticator(keys=keys)
    token = token_of()
    first = await checker.verify(token)
    assert [await checker.verify(token) for _ in range(5)] == [first] * 5
    assert keys.asked == 1


async def test_a_remembered_token_ends_when_it_expires() -> None:
    """Remembering lengthens nothing: from `exp` on it is verified anew, and after the leeway it is refused."""
    keys, clock = CountingKey(), Clock()
    checker = authenticator(clock=clock, keys=keys)
    token = token_of(exp=int(NOW_S) + 10)
    await checker.verify(token)
    clock.now_s += 9.999
    await checker.verify(token)
    assert keys.asked == 1
    clock.now_s = NOW_S + 10
    assert isinstance(await checker.verify(token), Principal)
    assert isinstance(await checker.verify(token), Principal)
    assert keys.asked == 3, "within the leeway it is verified each time"
    clock.now_s = NOW_S + 10 + bounds.TOKEN_LEEWAY_SECONDS
    assert isinstance(await checker.verify(token), AuthFault)
    checker._check()


async def test_refusals_are_not_remembered_and_push_nobody_out() -> None:
    """A token that was too early is good later, and a flood of bad ones leaves the good ones remembered."""
    keys, clock = CountingKey(), Clock()
    checker = authenticator(clock=clock, keys=keys)
    good, early = token_of(), token_of(nbf=int(NOW_S) + 60)
    await checker.verify(good)
    assert isinstance(await checker.verify(early), AuthFault)
    for number in range(20):
        await checker.verify(token_of(key=b"x" * 32, jti=str(number)))
    asked = keys.asked
    await checker.verify(good)
    assert keys.asked == asked
    clock.now_s += 60
    assert isinstance(await checker.verify(early), Principal)


async def test_only_so_many_are_remembered_and_the_least_used_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table has a bound."""
    monkeypatch.setattr(bounds, "VERIFIED_TOKENS_MAX", 3)
    keys = CountingKey()
    checker = authenticator(keys=keys)
    tokens = [token_of(jti=str(number)) for number in range(4)]
    for token in tokens[:3]:
        await checker.verify(token)
    await checker.verify(tokens[0])
    await checker.verify(tokens[3])
    checker._check()
    assert keys.asked == 4
    await checker.verify(tokens[0])
    assert keys.asked == 4, "used lately: kept"
    await checker.verify(tokens[1])
    assert keys.asked == 5, "the least used was forgotten"


async def test_when_a_key_is_withdrawn_everything_is_verified_anew() -> None:
    """A token of a withdrawn key is not good until it expires, only because somebody used it before."""
    keys = CountingKey()
    checker = authenticator(keys=keys)
    token = token_of()
    assert isinstance(await checker.verify(token), Principal)
    keys.keys, keys.generation = (b"y" * 32,), 1
    assert isinstance(await checker.verify(token), AuthFault)
    assert isinstance(await checker.verify(token_of(key=b"y" * 32)), Principal)


async def test_tokens_themselves_are_not_kept() -> None:
    """Only digests: a dump of the memory's table gives nobody a token."""
    checker = authenticator()
    token = token_of()
    await checker.verify(token)
    assert list(checker._verified) == [hashlib.sha256(token.encode()).digest()]


async def test_without_keys_the_answer_is_503_and_not_401() -> None:
    """Nothing is wrong with the caller's token as far as we know."""

    class NoKeys(FixedKeys):
        def candidates(self, key_id: str | None, algorithm: str) -> Candidates:
            raise KeysUnavailable("not yet", 6.2)

    answer = await authenticator(keys=NoKeys([SECRET])).authenticate(f"Bearer {token_of()}")
    assert isinstance(answer, Response)
    assert answer.status == 503
    assert dict(answer.headers)["retry-after"] == "7"
    assert msgspec.json.decode(answer.body)["error"]["code"] == "KEYS_UNAVAILABLE"


async def test_an_unknown_key_is_told_as_such() -> None:
    """401: the token may be from another issuer, or from before a rotation."""

    class Unknown(FixedKeys):
        def candidates(self, key_id: str | None, algorithm: str) -> Candidates:
            return Candidates((), named=False)

    found = await authenticator(keys=Unknown([SECRET])).verify(token_of())
    assert isinstance(found, AuthFault)
    assert found.description == "the token is signed with a key that is not known"


def test_the_source_of_keys_is_the_configured_one(tmp_path: Any) -> None:
    """A JWKS endpoint, or a fixed key."""
    file = tmp_path / "scoreboard.toml"
    file.write_text("[auth]\njwks_url = 'https://issuer.example/'\nalgorithms = ['RS256']")
    [issuer] = trusted_issuers(load(file, {}, {}))
    assert isinstance(issuer.keys, JwksKeys)
    [issuer] = trusted_issuers(load(None, {"SCOREBOARD_AUTH_JWT_SECRET": SECRET.decode()}, {}))
    assert isinstance(issuer.keys, FixedKeys)


async def test_running_with_a_fixed_key_ends_at_once() -> None:
    """There is nothing to keep fresh, and whoever starts it is not kept waiting."""
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(authenticator().run)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=200),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


names = st.sampled_from(
    ["alg", "typ", "kid", "crit", "b64", "exp", "nbf", "iat", "aud", "sub", "iss", "scope", "uid", "jti"]
)


@settings(deadline=None)
@given(header=st.dictionaries(names, json_values, max_size=3), payload=st.dictionaries(names, json_values, max_size=4))
def test_whatever_is_signed_the_answer_is_a_principal_or_a_fault(
    header: dict[str, Any], payload: dict[str, Any]
) -> None:
    """Correctly signed nonsense raises nothing; a principal only ever has ids that the log can keep."""
    head = json.dumps({"alg": "HS256"} | header).encode()
    body = json.dumps(claims() | payload).encode()

    async def verify() -> Principal | AuthFault:
        return await authenticator().verify(sign(body, head))

    found = trio.run(verify)
    if isinstance(found, Principal):
        assert found.sub.isprintable() or not found.sub.isascii()
        assert found.expires_s > NOW_S - bounds.TOKEN_LEEWAY_SECONDS
    else:
        assert re.fullmatch(r"[ -!#-\[\]-~]+", found.challenge.split("error_description=")[1].strip('"'))


@settings(deadline=None)
@given(st.text(max_size=100) | st.from_regex(r"[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}"))
def test_whatever_is_sent_the_answer_is_a_fault_that_does_not_repeat_it(text: str) -> None:
    """No text raises, and no answer echoes what was sent."""

    async def authenticate() -> Principal | Response:
        return await authenticator().authenticate(f"Bearer {text}")

    answer = trio.run(authenticate)
    assert isinstance(answer, Response)
    assert answer.status == 401
    if len(text) > 12:
        assert text not in answer.body.decode()
        assert all(text not in value for _, value in answer.headers)
    assert all(value.isascii() and value.isprintable() for _, value in answer.headers)


async def test_what_pyjwt_mints_is_accepted() -> None:
    """The tokens of this file are built by hand; one that is not must agree with them."""
    await principal_of(jwt.encode(claims(), SECRET, "HS256"))
