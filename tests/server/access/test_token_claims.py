"""Bearer tokens: the form, headers and claims that a token must have, and what its claims allow."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from server import bounds
from server.access.auth import AuthFault
from server.access.keys import FixedKeys
from server.settings.config import AuthConfig
from tests.server.access.tokens import NOW_S, SECRET, authenticator, claims, fault_of, principal_of, sign, token_of

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
        found = await authenticator(auth, keys=FixedKeys([public], auth.algorithms)).verify(token)
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
    assert "scopes must be a string" in (await fault_of(token_of(scope=scope))).description
