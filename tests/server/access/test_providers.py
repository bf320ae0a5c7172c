"""Tokens as identity providers make them: scopes, audiences, applications, algorithms; several issuers at once."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from server import bounds
from server.access.auth import Authenticator, AuthFault, Principal
from server.access.issuers import trusted_issuers
from server.access.keys import FixedKeys
from server.access.minting import mint
from server.settings.config import AuthConfig, Config, load
from tests.server.access.tokens import NOW_S, SECRET, Clock, authenticator, fault_of, principal_of, token_of

OLD, NEW = "an-old-secret-of-more-than-32-bytes-", "a-new-secret-of-more-than-32-bytes--"
RSA = rsa.generate_private_key(65537, 2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
EDWARDS = ed25519.Ed25519PrivateKey.generate()


def config_of(text: str, tmp_path: Path) -> Config:
    """Load this configuration, with its data below tmp_path."""
    file = tmp_path / "scoreboard.toml"
    file.write_text(f"data_dir = '{tmp_path / 'data'}'\n{text}\n")
    return load(file, {}, {})


def only(claim: str, value: Any) -> dict[str, Any]:
    """Name one claim."""
    return {claim: value}


def pem_file(tmp_path: Path, name: str, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> Path:
    """The public half of a key in a file."""
    path = tmp_path / name
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


@pytest.mark.parametrize(
    ("claims", "auth", "scopes"),
    [
        ({"scope": "scores:write openid"}, {}, {"scores:write"}),
        ({"scp": "scores:read", "scope": None}, {}, {"scores:read"}),
        ({"scp": ["scores:read"], "scope": "scores:write"}, {}, {"scores:read", "scores:write"}),
        ({"roles": ["admin"]}, {}, {"scores:write"}),
        ({"realm_access": {"roles": ["admin"]}}, {"scope_claims": ("realm_access.roles",)}, {"admin"}),
        ({"a": {"my.app": {"roles": "admin"}}}, {"scope_claims": ("a.my.app.roles",)}, {"admin"}),
        ({"https://g.example/r": ["admin"]}, {"scope_claims": ("https://g.example/r",)}, {"admin"}),
        ({"realm_access": ["admin"]}, {"scope_claims": ("realm_access.roles",)}, set()),
        ({"scope": "https://api.example/scores:write"}, {}, set()),
        (
            {"scope": "https://api.example/scores:write players admin"},
            {"scope_map": {"https://api.example/scores:write": "scores:write", "players": "scores:read", "admin": ""}},
            {"scores:write", "scores:read"},
        ),
        ({"scope": "game"}, {"scope_map": {"game": "scores:write users:write"}}, {"scores:write", "users:write"}),
    ],
)
async def test_scopes_are_read_where_a_provider_writes_them(
    claims: dict[str, Any], auth: dict[str, Any], scopes: set[str]
) -> None:
    """In one claim or several, as text or as a list, at the end of a path, and under other names."""
    found = await principal_of(token_of(**claims), AuthConfig(**auth))
    assert found.scopes == scopes


async def test_a_claim_with_scopes_of_another_form_refuses_the_token() -> None:
    """Wherever it stands: to pass over it would hide that something is wrong."""
    auth = AuthConfig(scope_claims=("scope", "realm_access.roles"))
    for roles in (5, [5], {"admin": True}):
        fault = await fault_of(token_of(realm_access={"roles": roles}), auth)
        assert "scopes must be a string or a list" in fault.description


@pytest.mark.parametrize("claim", ["azp", "client_id", "cid"])
async def test_tokens_without_an_audience_are_taken_from_known_applications(claim: str) -> None:
    """Cognito's access tokens have no `aud`: the application stands for it."""
    auth = AuthConfig(audience="", client_ids=("app-1", "app-2"))
    assert isinstance(await principal_of(token_of(aud=None, **only(claim, "app-2")), auth), Principal)
    assert isinstance(await principal_of(token_of(aud="other", **only(claim, "app-1")), auth), Principal)
    assert "another application" in (await fault_of(token_of(aud=None, **only(claim, "app-3")), auth)).description
    assert "another application" in (await fault_of(token_of(aud=None, **only(claim, ["app-1"])), auth)).description
    assert "names no application" in (await fault_of(token_of(aud=None), auth)).description
    both = token_of(aud=None, **{**dict.fromkeys(("azp", "client_id", "cid"), "app-1"), **only(claim, "app-3")})
    assert "another application" in (await fault_of(both, auth)).description
    assert "audience" in (await fault_of(token_of(aud="x", azp="app-1"), AuthConfig(client_ids=("app-1",)))).description


async def test_a_secret_is_rotated_with_an_overlap(tmp_path: Path) -> None:
    """Both secrets verify; the first one signs."""
    config = config_of(f"[auth]\njwt_secret = ['{NEW}', '{OLD}']", tmp_path)
    checker = Authenticator(trusted_issuers(config), clock_s=lambda: NOW_S)
    minted = mint(config, sub="a", scopes=[], user=None, ttl_s=60, now_s=NOW_S)
    assert jwt.decode(minted, NEW, ["HS256"], audience="scoreboard", options={"verify_exp": False, "verify_iat": False})
    for token in (minted, token_of(key=OLD.encode()), token_of(key=NEW.encode())):
        assert isinstance(await checker.verify(token), Principal)
    assert isinstance(await checker.verify(token_of(key=SECRET)), AuthFault)


async def test_several_issuers_each_have_their_keys_and_rules(tmp_path: Path) -> None:
    """The name in the token chooses; no issuer can speak for another, and an unknown one for nobody."""
    pem, curve = pem_file(tmp_path, "rsa.pem", RSA), pem_file(tmp_path, "ec.pem", CURVE)
    config = config_of(
        f"""[auth]
        jwt_secret = '{OLD}'
        scope_map = {{ writer = "scores:write" }}
        [[auth.issuers]]
        issuer = "https://one.example/"
        jwt_public_key_file = "{pem}"
        algorithms = ["RS256", "PS256"]
        audience = "one"
        [[auth.issuers]]
        issuer = "https://two.example/"
        jwt_public_key_file = "{curve}"
        algorithms = ["ES256"]
        scope_map = {{}}
        """,
        tmp_path,
    )
    checker = Authenticator(trusted_issuers(config), clock_s=lambda: NOW_S)

    def signed(key: Any, algorithm: str, iss: str | None, aud: str) -> str:
        claims = {"sub": "a", "exp": int(NOW_S) + 60, "aud": aud, "scope": "writer"} | ({"iss": iss} if iss else {})
        return jwt.encode(claims, key, algorithm)

    one, two = "https://one.example/", "https://two.example/"
    for token, scopes in [
        (signed(OLD, "HS256", None, "scoreboard"), {"scores:write"}),
        (signed(OLD, "HS256", "anybody", "scoreboard"), {"scores:write"}),
        (signed(RSA, "RS256", one, "one"), {"scores:write"}),
        (signed(RSA, "PS256", one, "one"), {"scores:write"}),
        (signed(CURVE, "ES256", two, "scoreboard"), set()),
    ]:
        found = await checker.verify(token)
        assert isinstance(found, Principal), found
        assert found.scopes == scopes
    for token in [
        signed(OLD, "HS256", one, "one"),
        signed(RSA, "RS256", two, "scoreboard"),
        signed(RSA, "RS256", one, "scoreboard"),
        signed(RSA, "RS256", None, "scoreboard"),
        signed(CURVE, "ES256", one, "one"),
    ]:
        assert isinstance(await checker.verify(token), AuthFault)


async def test_without_keys_of_its_own_only_the_issuers_count(tmp_path: Path) -> None:
    """Then there is no signing key either: nobody should sign with a key that was not meant."""
    pem = pem_file(tmp_path, "ec.pem", CURVE)
    table = f"[[auth.issuers]]\nissuer = 'one'\njwt_public_key_file = '{pem}'\nalgorithms = ['ES256']"
    more = f"[[auth.issuers]]\nissuer = 'two'\njwt_secret = '{OLD}'"
    config = config_of(f"{table}\n{more}", tmp_path)
    assert not config.auth.can_mint
    checker = Authenticator(trusted_issuers(config), clock_s=lambda: NOW_S)
    assert not (tmp_path / "data").exists()
    fault = await checker.verify(token_of(key=OLD.encode(), iss="three"))
    assert isinstance(fault, AuthFault)
    assert "another issuer" in fault.description
    assert isinstance(await checker.verify(token_of(key=OLD.encode(), iss="two")), Principal)


def signed_as(name: str, key: ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) -> str:
    """A token whose header calls the algorithm so."""
    parts = [
        json.dumps(each).encode() for each in ({"alg": name}, {"sub": "a", "aud": "scoreboard", "exp": NOW_S + 60})
    ]
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    return (text + b"." + base64.urlsafe_b64encode(key.sign(text)).rstrip(b"=")).decode()


@pytest.mark.parametrize("configured", ["EdDSA", "Ed25519"])
async def test_ed25519_may_be_called_by_either_name(configured: str) -> None:
    """RFC 9864 gives the algorithm a name of its own; the old one goes on working."""
    keys = FixedKeys([EDWARDS.public_key()], (configured,))
    for name in ("EdDSA", "Ed25519"):
        found = await authenticator(keys=keys).verify(signed_as(name, EDWARDS))
        assert isinstance(found, Principal), found
    other = ed448.Ed448PrivateKey.generate()
    keys = FixedKeys([other.public_key()], (configured,))
    assert isinstance(await authenticator(keys=keys).verify(signed_as("Ed25519", other)), AuthFault)
    found = await authenticator(keys=keys).verify(signed_as("EdDSA", other))
    assert isinstance(found, Principal) == (configured == "EdDSA")


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
async def test_a_time_in_milliseconds_is_told_as_such(claim: str) -> None:
    """`Date.now()` instead of seconds: such a token would be good for 50,000 years."""
    fault = await fault_of(token_of(**only(claim, int(NOW_S + 60) * 1000)))
    assert "must be in seconds" in fault.description
    clock = Clock()
    exactly = token_of(exp=int(NOW_S) + bounds.TOKEN_TTL_SECONDS_MAX)
    assert isinstance(await authenticator(clock=clock).verify(exactly), Principal), (
        "ten years are what we mint ourselves"
    )
