"""Keys of a configuration that is read anew: which tokens are good then, and whose leases end."""

from __future__ import annotations

from pathlib import Path

import jwt
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from server.access.auth import Authenticator, AuthFault, Principal
from server.access.issuers import renewed_keys, trusted_issuers
from server.access.keys import FixedKeys
from server.settings.config import Config, ConfigError, load

OLD, NEW = "o" * 40, "n" * 40


def config_of(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "scoreboard.toml"
    path.write_text(f'data_dir = "{tmp_path / "data"}"\n{text}', encoding="utf-8")
    return load(path, {}, {})


def token(secret: str) -> str:
    return jwt.encode({"sub": "s", "aud": "scoreboard", "exp": 4_000_000_000 - 2**31}, secret, algorithm="HS256")


def renew(authenticator: Authenticator, config: Config) -> list[bool]:
    """Take the keys of a configuration; whether those of each issuer changed."""
    return [known.replace(new) for _, known, new in renewed_keys(list(authenticator._issuers.values()), config.auth)]


async def test_secrets_rotate(tmp_path: Path) -> None:
    """The new one counts at once. The old one counts as long as it is there; then its tokens and leases end."""
    clock_s = 1_800_000_000.0
    config = config_of(tmp_path, f'[auth]\njwt_secret = "{OLD}"\n')
    authenticator = Authenticator(trusted_issuers(config), clock_s=lambda: clock_s)
    old, new = token(OLD), token(NEW)
    first = await authenticator.verify(old)
    assert isinstance(first, Principal)
    assert isinstance(await authenticator.verify(new), AuthFault)
    assert renew(authenticator, config_of(tmp_path, f'[auth]\njwt_secret = ["{NEW}", "{OLD}"]\n')) == [True]
    assert authenticator.generation == 0
    assert authenticator.lets_stay(first, looked=False)
    assert isinstance(await authenticator.verify(new), Principal)
    assert renew(authenticator, config_of(tmp_path, f'[auth]\njwt_secret = ["{NEW}", "{OLD}"]\n')) == [False]
    assert renew(authenticator, config_of(tmp_path, f'[auth]\njwt_secret = "{NEW}"\n')) == [True]
    assert authenticator.generation == 1
    assert not authenticator.lets_stay(first, looked=False)
    assert isinstance(await authenticator.verify(old), AuthFault)
    assert isinstance(await authenticator.verify(new), Principal)


def test_a_public_key_of_the_same_name_is_read_anew(tmp_path: Path) -> None:
    """A key that is there before and after stays the same object; a file that is no key changes nothing."""
    pems = [
        generate_private_key(SECP256R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for _ in range(2)
    ]
    path = tmp_path / "key.pem"
    path.write_bytes(pems[0])
    config = config_of(tmp_path, f'[auth]\njwt_public_key_file = "{path}"\nalgorithms = ["ES256"]\n')
    issuers = trusted_issuers(config)
    [(above, known, same)] = renewed_keys(issuers, config.auth)
    before = known.keys[0]
    assert (above, known.replace(same), known.keys[0] is before) == ("auth", False, True)
    path.write_bytes(pems[1])
    [(_, known, other)] = renewed_keys(issuers, config.auth)
    assert (known.replace(other), known.generation, known.has(before)) == (True, 1, False)
    path.write_bytes(b"no key")
    with pytest.raises(ConfigError, match=r"auth\.jwt_public_key_file"):
        renewed_keys(issuers, config.auth)


def test_keys_that_renew_themselves_are_left_alone(tmp_path: Path) -> None:
    """Those of an address, and those of the data directory."""
    config = config_of(tmp_path, "")
    (tmp_path / "data").mkdir()
    assert renewed_keys(trusted_issuers(config), config.auth) == []
    text = f"""
        [[auth.issuers]]
        issuer = "https://a.example/"
        jwks_url = "https://a.example/keys"
        algorithms = ["RS256"]
        [[auth.issuers]]
        issuer = "https://b.example/"
        jwt_secret = "{OLD}"
    """
    config = config_of(tmp_path, text)
    [(above, known, _)] = renewed_keys(trusted_issuers(config), config.auth)
    assert (above, known.keys) == ("auth.issuers[1]", (OLD.encode(),))


async def test_fixed_keys_start_at_once() -> None:
    """They fetch nothing."""
    async with trio.open_nursery() as nursery:
        await nursery.start(FixedKeys([OLD.encode()]).run)
