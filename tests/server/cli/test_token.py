"""Tokens from the command line: verified here with PyJWT and the key, as the leader would."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from server.cli.main import main

SECRET = "only-for-tests-0123456789-abcdefghijklmnop"


def mint(*arguments: str, env: dict[str, str] | None = None) -> Result:
    """Run `scoreboard token`."""
    return CliRunner(env=env).invoke(main, ["token", *arguments])


def claims_of(token: str, key: str | Ed25519PublicKey) -> dict[str, Any]:
    """Verify a token and give its claims."""
    algorithm = "HS256" if isinstance(key, str) else "EdDSA"
    claims: dict[str, Any] = jwt.decode(token, key, algorithms=[algorithm], audience="scoreboard")
    return claims


def public_half(path: Path) -> Ed25519PublicKey:
    """What a signing key verifies with."""
    key = load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    return key.public_key()


def test_a_token_of_a_data_directory_is_signed_with_its_key(tmp_path: Path) -> None:
    """Only the token is printed. It says who, what and until when; only the owner can read the key."""
    done = mint("--sub", "shop", "--user", "alice", "--ttl", "15m", "--data-dir", str(tmp_path))
    assert done.exit_code == 0
    assert done.stdout.count("\n") == 1
    assert "new one was made" in done.stderr
    assert mint("--sub", "shop", "--data-dir", str(tmp_path)).stderr == "", "the second time there is one"
    claims = claims_of(done.stdout.strip(), public_half(tmp_path / "signing.key"))
    assert (claims["sub"], claims["scope"], claims["uid"]) == ("shop", "scores:write", "alice")
    assert claims["exp"] - claims["iat"] == 15 * 60
    assert abs(claims["iat"] - time.time()) < 60


def test_a_signing_key_from_before_goes_on_signing(tmp_path: Path) -> None:
    """64 hexadecimal digits, a secret for HS256: what earlier versions made. And what the configuration asks for."""
    path = tmp_path / "signing.key"
    path.write_text("0123456789abcdef" * 4 + "\n")
    path.chmod(0o600)
    done = mint("--sub", "shop", "--data-dir", str(tmp_path))
    assert claims_of(done.stdout.strip(), "0123456789abcdef" * 4)["sub"] == "shop"
    env = {"SCOREBOARD_AUTH_ALGORITHMS": "HS256"}
    done = mint("--sub", "shop", "--data-dir", str(tmp_path / "new"), env=env)
    assert claims_of(done.stdout.strip(), (tmp_path / "new" / "signing.key").read_text().strip())["sub"] == "shop"
    done = mint("--sub", "shop", "--data-dir", str(tmp_path), env={"SCOREBOARD_AUTH_ALGORITHMS": "EdDSA"})
    assert done.exit_code == 2
    assert "a shared secret (HS256) and cannot be used with EdDSA" in done.stderr


def test_a_configured_secret_goes_before_the_data_directory(tmp_path: Path) -> None:
    """With a secret in the environment no key is made. The scopes are the requested ones."""
    env = {"SCOREBOARD_AUTH_JWT_SECRET": SECRET, "SCOREBOARD_AUTH_AUDIENCE": "scoreboard"}
    done = mint("--sub", "ops", "--scope", "users:write scores:read", "--data-dir", str(tmp_path), env=env)
    assert done.exit_code == 0
    assert claims_of(done.output.strip(), SECRET)["scope"].split() == ["scores:read", "users:write"]
    assert not (tmp_path / "signing.key").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--sub", ""], "sub"),
        (["--sub", "x", "--scope", "scores:steal"], "scores:steal"),
        (["--sub", "x", "--ttl", "forever"], "forever"),
        ([], "--sub"),
    ],
)
def test_a_token_that_would_be_refused_is_not_minted(tmp_path: Path, arguments: list[str], named: str) -> None:
    """A usage error that names what is wrong, and nothing on standard output."""
    done = mint(*arguments, "--data-dir", str(tmp_path))
    assert done.exit_code == 2
    assert named in done.stderr
    assert done.stdout == ""


def test_with_public_keys_alone_nothing_can_be_minted(tmp_path: Path) -> None:
    """Then tokens come from the issuer, as the configuration says."""
    env = {"SCOREBOARD_AUTH_JWKS_URL": "https://issuer.example/keys", "SCOREBOARD_AUTH_ALGORITHMS": "RS256"}
    done = mint("--sub", "x", "--data-dir", str(tmp_path), env=env)
    assert done.exit_code == 2
    assert "auth.jwks_url" in done.stderr


@pytest.mark.parametrize("scope", ["", "  "])
def test_a_token_that_allows_nothing_is_not_minted(tmp_path: Path, scope: str) -> None:
    """Most likely a variable in a script is not set."""
    done = mint("--sub", "shop", "--scope", scope, "--data-dir", str(tmp_path / "data"))
    assert done.exit_code == 2
    assert "--scope" in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_token_as_json_comes_with_its_claims(tmp_path: Path) -> None:
    """The token is the same kind; its claims and its end are there for a script."""
    done = mint("--sub", "shop", "--user", "alice", "--ttl", "15m", "--data-dir", str(tmp_path), "--json")
    assert done.exit_code == 0
    assert done.stdout.count("\n") == 1
    result = json.loads(done.stdout)
    assert set(result) == {"token", "expiresAt", "claims"}
    claims = claims_of(result["token"], public_half(tmp_path / "signing.key"))
    assert result["claims"] == claims
    assert datetime.fromisoformat(result["expiresAt"]).timestamp() == claims["exp"]
