"""Bearer tokens: what is accepted, what is refused and how, and what is remembered."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from typing import Any

import jwt
import msgspec
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from server import bounds
from server.access.auth import Authenticator, AuthFault, Principal, key_source, require
from server.access.jwks import JwksKeys
from server.access.keys import FixedKey, KeysUnavailable, VerificationKey
from server.http.messages import Response
from server.settings.config import AuthConfig, load

SECRET = b"a-secret-that-is-long-enough-for-hs256"
NOW_S = 1_000_000.0


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


class CountingKey(FixedKey):
    """A key source that counts how often a token had to be verified, and whose keys can change."""

    def __init__(self, key: VerificationKey = SECRET) -> None:
        super().__init__(key)
        self.asked = 0

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        self.asked += 1
        return await super().find(key_id, algorithm)


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token, changed; `None` takes one away."""
    good = {"sub": "game", "aud": "scoreboard", "exp": int(NOW_S) + 600, "scope": "scores:write"}
    return {name: value for name, value in (good | changes).items() if value is not None}


def sign(payload: bytes, header: bytes = b'{"alg":"HS256"}', key: bytes = SECRET) -> str:
    """Sign anything at all, also what PyJWT would not."""
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload))
    signature = hmac.digest(key, signed, "sha256")
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def token_of(header: dict[str, Any] | None = None, key: bytes = SECRET, **changes: Any) -> str:
    """A token with these claims and headers changed."""
    head = {"alg": "HS256", "typ": "JWT"} | (header or {})
    return sign(json.dumps(claims(**changes)).encode(), json.dumps(head).encode(), key)


def authenticator(auth: AuthConfig | None = None, clock: Clock | None = None) -> Authenticator:
    """An authenticator of the default configuration with SECRET."""
    return Authenticator(auth or AuthConfig(), FixedKey(SECRET), clock_s=clock or Clock())


async def fault_of(token: str, auth: AuthConfig | None = None) -> AuthFault:
    """Verify what must be refused as invalid."""
    found = await authenticator(auth).verify(token)
    assert isinstance(found, AuthFault), found
    assert found.kind == "invalid"
    return found


async def principal_of(token: str, auth: AuthConfig | None = None) -> Principal:
    """Verify what must be accepted."""
    found = await authenticator(auth).verify(token)
    assert isinstance(found, Principal), found
    return found


async def test_a_good_token_says_who_and_what() -> None:
    """The caller's name, the scopes, the one user if there is one, and until when."""
    found = await authenticator().examine(f"Bearer {token_of(uid='ann', scope='scores:write admin')}")
    assert found == Principal("game", frozenset({"scores:write", "admin"}), "ann", NOW_S + 600)


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


MALFORMED = {
    "empty": "",
    "one part": "abc",
    "two parts": "abc.def",
    "four parts": token_of() + ".abc",
    "five parts, as encrypted tokens have": "a.b.c.d.e",
    "no signature": token_of().rsplit(".", 1)[0] + ".",
    "not base64url": token_of().replace(".", ".ä", 1),
    "padding": token_of() + "=",
    "a line break": token_of() + "\n",
    "a lone surrogate": "\ud800.a.b",
    "header not JSON": sign(b"{}", b"hello"),
    "header a list": sign(b"{}", b"[]"),
    "header nested deeply": sign(b"{}", b"[" * 3000),
    "claims not JSON": sign(b"hello"),
    "claims a list": sign(b"[]"),
    "claims nested deeply": sign(b"[" * 3000),
    "claims not UTF-8": sign(b'{"sub": "\xff"}'),
    "a key id that is no string": token_of({"kid": 7}),
}


@pytest.mark.parametrize("token", MALFORMED.values(), ids=MALFORMED)
async def test_what_is_no_token_is_refused(token: str) -> None:
    """Whatever the form of the mistake, it is one answer."""
    assert (await fault_of(token)).description == "the token is malformed"


async def test_a_token_that_is_too_long_is_refused_before_it_is_looked_at() -> None:
    """A correctly signed one of a MiB costs nothing but the comparison of its length."""
    keys = CountingKey()
    found = await Authenticator(AuthConfig(), keys, clock_s=Clock()).verify(token_of(filler="x" * 2**20))
    assert isinstance(found, AuthFault)
    assert "longer than 8192 characters" in found.description
    assert keys.asked == 0


async def test_another_signature_is_refused() -> None:
    """Another key; another payload under the same signature."""
    wrong = "the signature of the token does not verify"
    assert (await fault_of(token_of(key=b"x" * 32))).description == wrong
    head, _, signature = token_of().split(".")
    other = token_of(sub="root").split(".")[1]
    assert (await fault_of(f"{head}.{other}.{signature}")).description == wrong


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "HS384", "RS256", "ES256", None, 5, ["HS256"]])
async def test_the_token_does_not_choose_the_algorithm(algorithm: Any) -> None:
    """Only the configured ones count, `none` never; whatever the signature is."""
    assert "algorithm that is not accepted" in (await fault_of(token_of({"alg": algorithm}))).description
    unsigned = token_of({"alg": algorithm}).rsplit(".", 1)[0] + ".e30"
    assert "algorithm that is not accepted" in (await fault_of(unsigned)).description


async def test_a_public_key_does_not_verify_what_was_signed_with_it_as_a_secret() -> None:
    """The classic confusion: HS256 with the issuer's public key as the secret."""
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    auth = AuthConfig(jwt_public_key_file="issuer.pem", algorithms=("ES256",))
    forged = token_of(key=pem)
    for header in ("HS256", "ES256"):
        token = forged if header == "HS256" else token_of({"alg": "ES256"}, key=pem)
        found = await Authenticator(auth, FixedKey(public), clock_s=Clock()).verify(token)
        assert isinstance(found, AuthFault)


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]}, {"crit": []}, {"b64": False, "crit": ["b64"]}, {"b64": True}, {"zip": "DEF"}, {"cty": "JWT"},
        {"enc": "A128GCM"}, {"typ": "secevent+jwt"}, {"typ": "dpop+jwt"}, {"typ": 7}, {"typ": ""},
    ],
)  # fmt: skip
async def test_headers_that_want_more_of_the_reader_are_refused(header: dict[str, Any]) -> None:
    """Extensions, unencoded, compressed, nested and encrypted tokens, and tokens made for another use."""
    await fault_of(token_of(header))


async def test_keys_that_a_token_brings_along_are_not_looked_at() -> None:
    """`jwk`, `jku` and `x5c` neither help nor hurt: the configured key decides."""
    jwk = {"kty": "oct", "k": base64.urlsafe_b64encode(b"x" * 32).decode()}
    header = {"jwk": jwk, "jku": "https://evil.example/", "x5c": ["MII"], "kid": "any"}
    assert (await fault_of(token_of(header, key=b"x" * 32))).description.startswith("the signature")
    await principal_of(token_of(header))


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt"])
async def test_tokens_and_access_tokens_are_ours(kind: str) -> None:
    """RFC 9068 names access tokens at+jwt."""
    await principal_of(token_of({"typ": kind}))


@pytest.mark.parametrize("name", ["exp", "aud", "sub"])
async def test_a_claim_that_every_token_must_have(name: str) -> None:
    """Without `exp` a token is good for ever, without `aud` for everybody."""
    assert "lacks one of the claims" in (await fault_of(token_of(None, SECRET, **{name: None}))).description


@pytest.mark.parametrize(
    "audience", ["other", "", ["other"], [], "scoreboard ", ["scoreboard", 5], {"scoreboard": 1}, 5]
)
async def test_another_audience_is_refused(audience: Any) -> None:
    """A token for another service of the same issuer is not for us."""
    await fault_of(token_of(aud=audience))


async def test_one_audience_of_several_will_do() -> None:
    """RFC 7519, section 4.1.3."""
    await principal_of(token_of(aud=["other", "scoreboard"]))


async def test_the_issuer_is_checked_when_it_is_configured() -> None:
    """Missing, other, no string: refused; without configuration it says nothing to us."""
    auth = AuthConfig(issuer="https://issuer.example/")
    await principal_of(token_of(iss="https://issuer.example/"), auth)
    await principal_of(token_of(iss="whoever"))
    assert "another issuer" in (await fault_of(token_of(iss="https://issuer.example"), auth)).description
    assert "another issuer" in (await fault_of(token_of(iss=["https://issuer.example/"]), auth)).description
    assert "iss" in (await fault_of(token_of(), auth)).description


async def test_times_have_some_leeway_and_no_more() -> None:
    """Clocks differ by seconds."""
    now, edge = int(NOW_S), bounds.TOKEN_LEEWAY_SECONDS
    await principal_of(token_of(exp=now - edge + 1))
    assert (await fault_of(token_of(exp=now - edge))).description == "the token has expired"
    await principal_of(token_of(nbf=now + edge))
    assert (await fault_of(token_of(nbf=now + edge + 1))).description == "the token is not valid yet"
    await principal_of(token_of(iat=now + edge))
    assert (await fault_of(token_of(iat=now + edge + 1))).description == "the token is not valid yet"
    assert edge <= 60


@pytest.mark.parametrize("value", ["1000600", True, [], {}, "NaN"])
@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
async def test_times_are_numbers(name: str, value: Any) -> None:
    """Text that looks like a number is none."""
    assert "must be numbers" in (await fault_of(token_of(None, SECRET, **{name: value}))).description


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400])
async def test_times_are_finite(number: str) -> None:
    """Python's JSON knows more numbers than JSON does; a token that never ends is not one of ours."""
    text = json.dumps(claims()).replace(str(int(NOW_S) + 600), number)
    assert "must be numbers" in (await fault_of(sign(text.encode()))).description


@pytest.mark.parametrize("sub", ["", "a\nb", "x" * 129, "\u2028", "\ud800", 7, ["game"], {"a": 1}])
async def test_a_subject_that_the_log_could_not_keep_is_refused(sub: Any) -> None:
    """It becomes the caller in every event."""
    assert "sub" in (await fault_of(token_of(sub=sub))).description


@pytest.mark.parametrize("user", ["", "a\tb", "x" * 129, 7, ["ann"], {"a": 1}, False])
async def test_a_malformed_user_claim_refuses_the_token(user: Any) -> None:
    """Passing over it would let a token for one user act for all."""
    assert "names the user" in (await fault_of(token_of(uid=user))).description


async def test_a_user_claim_that_is_null_refuses_the_token() -> None:
    """It is there, and it names nobody."""
    payload = json.dumps(claims() | {"uid": None}).encode()
    assert "names the user" in (await fault_of(sign(payload))).description


async def test_the_user_claim_has_the_configured_name() -> None:
    """Only that one counts."""
    auth = AuthConfig(user_claim="https://game.example/uid")
    assert (
        await principal_of(token_of(None, SECRET, **{"https://game.example/uid": "ann", "uid": "bob"}), auth)
    ).user == "ann"
    assert (await principal_of(token_of(uid="bob"), auth)).user is None
    by_subject = await principal_of(token_of(), AuthConfig(user_claim="sub"))
    assert by_subject.user == "game"


async def test_a_restricted_caller_acts_for_its_user_alone() -> None:
    """Without the claim a caller acts for anybody."""
    restricted, free = await principal_of(token_of(uid="ann")), await principal_of(token_of())
    assert restricted.may_act_for("ann")
    assert not restricted.may_act_for("bob")
    assert free.may_act_for("bob")


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("scores:write scores:read", {"scores:write", "scores:read"}),
        (["scores:write", "users:write"], {"scores:write", "users:write"}),
        ("", set()),
        (None, set()),
        ("scores:writes SCORES:WRITE root", set()),
        (["scores:write scores:read"], set()),
    ],
)
async def test_scopes_are_a_string_or_a_list(scope: Any, scopes: set[str]) -> None:
    """What is unknown means nothing; near misses are misses."""
    assert (await principal_of(token_of(scope=scope))).scopes == scopes


@pytest.mark.parametrize("scope", [5, {"scores:write": 1}, ["scores:write", 5], True])
async def test_scopes_of_another_form_refuse_the_token(scope: Any) -> None:
    """Rather no token than one that means something else than its issuer thought."""
    assert "scope must be" in (await fault_of(token_of(scope=scope))).description


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
    checker = Authenticator(AuthConfig(), keys, clock_s=Clock())
    token = token_of()
    first = await checker.verify(token)
    assert [await checker.verify(token) for _ in range(5)] == [first] * 5
    assert keys.asked == 1


async def test_a_remembered_token_ends_when_it_expires() -> None:
    """Remembering lengthens nothing: from `exp` on it is verified anew, and after the leeway it is refused."""
    keys, clock = CountingKey(), Clock()
    checker = Authenticator(AuthConfig(), keys, clock_s=clock)
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
    checker = Authenticator(AuthConfig(), keys, clock_s=clock)
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
    checker = Authenticator(AuthConfig(), keys, clock_s=Clock())
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
    checker = Authenticator(AuthConfig(), keys, clock_s=Clock())
    token = token_of()
    assert isinstance(await checker.verify(token), Principal)
    keys._key, keys.generation = b"y" * 32, 1
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

    class NoKeys(FixedKey):
        async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
            raise KeysUnavailable("not yet")

    answer = await Authenticator(AuthConfig(), NoKeys(SECRET), clock_s=Clock()).authenticate(f"Bearer {token_of()}")
    assert isinstance(answer, Response)
    assert answer.status == 503
    assert dict(answer.headers)["retry-after"] == "1"
    assert msgspec.json.decode(answer.body)["error"]["code"] == "OVERLOADED"


async def test_an_unknown_key_is_told_as_such() -> None:
    """401: the token may be from another issuer, or from before a rotation."""

    class Unknown(FixedKey):
        async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
            return None

    found = await Authenticator(AuthConfig(), Unknown(SECRET), clock_s=Clock()).verify(token_of())
    assert isinstance(found, AuthFault)
    assert found.description == "the token is signed with a key that is not known"


def test_the_source_of_keys_is_the_configured_one(tmp_path: Any) -> None:
    """A JWKS endpoint, or a fixed key."""
    file = tmp_path / "scoreboard.toml"
    file.write_text("[auth]\njwks_url = 'https://issuer.example/'\nalgorithms = ['RS256']")
    assert isinstance(key_source(load(file, {}, {})), JwksKeys)
    assert isinstance(key_source(load(None, {"SCOREBOARD_AUTH_JWT_SECRET": SECRET.decode()}, {})), FixedKey)


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
