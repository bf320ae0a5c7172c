"""The signing key's file, the loading of keys, and minting."""

from __future__ import annotations

import os
from pathlib import Path

import jwt
import msgspec
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from server.access.auth import Authenticator, Principal
from server.access.issuers import trusted_issuers
from server.access.keys import key_fault
from server.access.minting import mint
from server.access.signing_key import make_signing_key, read_signing_key
from server.settings.config import Config, ConfigError, load
from tests.deadlines import deadline

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey

SECRET = "a-secret-that-is-long-enough-for-hs256"


def config_of(text: str, tmp_path: Path) -> Config:
    """Load a configuration with this [auth] table and its data below tmp_path."""
    file = tmp_path / "scoreboard.toml"
    file.write_text(f"data_dir = '{tmp_path / 'data'}'\n[auth]\n{text}\n")
    return load(file, {}, {})


def public_pem(key: PrivateKey) -> bytes:
    """The public part, as openssl writes it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def with_key_file(data: bytes, algorithm: str, tmp_path: Path) -> Config:
    """A configuration whose public key file has this content."""
    path = tmp_path / "issuer.pem"
    path.write_bytes(data)
    return config_of(f"jwt_public_key_file = '{path}'\nalgorithms = ['{algorithm}']", tmp_path)


def test_the_signing_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    """The first to need it makes it, with the directory: an Ed25519 pair that nobody else can read."""
    data_dir = str(tmp_path / "deep" / "data")
    assert make_signing_key(data_dir)
    path = Path(data_dir, "signing.key")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    key = read_signing_key(data_dir)
    assert path.read_text().startswith("-----BEGIN PRIVATE KEY-----\n")
    assert key.public_pem.startswith("-----BEGIN PUBLIC KEY-----\n")
    assert key.algorithms == ("EdDSA",)
    assert not make_signing_key(data_dir)
    assert read_signing_key(data_dir).public_pem == key.public_pem
    assert os.listdir(data_dir) == ["signing.key"], "nothing is left lying about"


def test_two_keys_are_never_the_same(tmp_path: Path) -> None:
    """Another directory, another key."""
    for name in ("a", "b"):
        make_signing_key(str(tmp_path / name))
    assert read_signing_key(str(tmp_path / "a")).key_id != read_signing_key(str(tmp_path / "b")).key_id


async def test_of_many_that_come_at_once_all_go_on_with_one_key(tmp_path: Path) -> None:
    """A start and `scoreboard token` at the same moment: one makes the key, both use it."""
    data_dir = str(tmp_path / "data")
    made: list[bool] = []
    keys: set[str] = set()

    async def come() -> None:
        made.append(await trio.to_thread.run_sync(make_signing_key, data_dir))
        keys.add(read_signing_key(data_dir).public_pem)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(come)
    assert made.count(True) == 1
    assert len(keys) == 1
    assert os.listdir(data_dir) == ["signing.key"]


def test_who_comes_second_while_the_key_is_written_does_not_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if both saw that there was none: a hard link does not overwrite."""
    data_dir = str(tmp_path / "data")
    link = os.link

    def link_after_another(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        assert make_signing_key(data_dir)
        link(source, target)

    monkeypatch.setattr(os, "link", link_after_another)
    assert not make_signing_key(data_dir)
    assert os.listdir(data_dir) == ["signing.key"]
    assert read_signing_key(data_dir).public_pem


def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the key is renamed into place, whole all the same."""

    def no_links(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert make_signing_key(str(tmp_path))
    assert read_signing_key(str(tmp_path)).public_pem
    assert os.listdir(tmp_path) == ["signing.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o610])
def test_a_signing_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    """The remedy is named. A key that was readable may have been read, so this is no mere warning."""
    make_signing_key(str(tmp_path))
    path = tmp_path / "signing.key"
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:o}.*chmod 600 {path}"):
        read_signing_key(str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"ab" * 31 + b"\n",
        b"zz" * 32 + b"\n",
        b"ab" * 33,
        b"ab" * 32 + b"\n\n",
        b"-----BEGIN PRIVATE KEY-----\nx",
    ],
)
def test_a_damaged_signing_key_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    """An empty key would verify what anybody signs; what the file holds is in no message."""
    path = tmp_path / "signing.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="restore it from a backup, or remove it") as caught:
        read_signing_key(str(tmp_path))
    assert not content.strip() or content.decode().strip() not in str(caught.value)


@pytest.mark.parametrize("name", ["signing.key", "leader.key"])
def test_a_pipe_in_the_place_of_a_key_is_refused_at_once(tmp_path: Path, name: str) -> None:
    """Its open waited for a writer, and the start hung."""
    os.mkfifo(tmp_path / name, 0o600)
    with deadline(5), pytest.raises(ConfigError, match="not a regular file") as refused:
        trusted_issuers(Config(data_dir=str(tmp_path)))
    assert refused.value.key == str(tmp_path / name)


def test_a_signing_key_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Reading never makes one."""
    with pytest.raises(ConfigError, match=r"signing\.key: the signing key cannot be read: No such file"):
        read_signing_key(str(tmp_path))


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (rsa.generate_private_key(65537, 2048), "RS256"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ec.generate_private_key(ec.SECP521R1()), "ES512"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    ],
    ids=["RS256", "ES256", "ES512", "EdDSA"],
)
async def test_public_keys_are_loaded_from_pem(
    tmp_path: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, algorithm: str
) -> None:
    """A token of the issuer verifies, whatever key id it names."""
    config = with_key_file(public_pem(key), algorithm, tmp_path)
    claims = {"sub": "game", "aud": "scoreboard", "exp": 2_000, "scope": "scores:write"}
    token = jwt.encode(claims, key, algorithm, headers={"kid": "any"})
    found = await Authenticator(trusted_issuers(config), clock_s=lambda: 1_000.0).verify(token)
    assert isinstance(found, Principal)
    assert found.scopes == {"scores:write"}


def test_a_key_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    """Missing, private, no key, of another kind, of another curve, too short: each says so at the start."""
    curve = ec.generate_private_key(ec.SECP384R1())
    private = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    cases = [
        (b"hello", "RS256", "holds no public key in PEM form"),
        (private, "ES384", "holds a private key"),
        (public_pem(curve), "ES256", "cannot be used with ES256"),
        (public_pem(curve), "RS256", "cannot be used with RS256"),
        (public_pem(curve), "EdDSA", "cannot be used with EdDSA"),
        (public_pem(rsa.generate_private_key(65537, 1024)), "RS256", "too short for RS256"),
        (public_pem(dsa.generate_private_key(2048)), "RS256", "signs no tokens"),
    ]
    for data, algorithm, words in cases:
        with pytest.raises(ConfigError, match=words) as caught:
            trusted_issuers(with_key_file(data, algorithm, tmp_path))
        assert caught.value.key == "auth.jwt_public_key_file"
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        trusted_issuers(config_of("jwt_public_key_file = 'absent.pem'\nalgorithms = ['ES256']", tmp_path))


def test_a_public_key_is_never_taken_for_a_shared_secret(tmp_path: Path) -> None:
    """A PEM in `jwt_secret` would let whoever has the public key sign."""
    pem = public_pem(ec.generate_private_key(ec.SECP256R1())).decode()
    with pytest.raises(ConfigError, match="looks like a public key") as caught:
        trusted_issuers(config_of(f"jwt_secret = '''{pem}'''", tmp_path))
    assert caught.value.key == "auth.jwt_secret"
    assert pem not in str(caught.value)


def test_a_shared_secret_fits_no_public_key_algorithm() -> None:
    """And a public key no HS algorithm."""
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    assert key_fault(b"x" * 64, "RS256") == "a shared secret cannot be used with RS256"
    assert key_fault(b"x" * 64, "EdDSA") == "a shared secret cannot be used with EdDSA"
    assert key_fault(public, "HS256") == "this kind of key cannot be used with HS256"
    assert key_fault(public, "ES256") is None
    assert key_fault(b"x" * 31, "HS256") == "too short for HS256"


@pytest.mark.parametrize(
    "auth", ["", f"jwt_secret = '{SECRET}'", "algorithms = ['HS512']\nissuer = 'us'\naudience = 'a'"]
)
async def test_a_minted_token_is_accepted_until_it_expires(tmp_path: Path, auth: str) -> None:
    """With the data directory's own key, which is made if need be, or with a secret."""
    config = config_of(auth, tmp_path)
    now_s = 1_000_000.0
    scopes = ["scores:write", "users:write"]
    token = mint(config, sub="game", scopes=scopes, user="ann", ttl_s=60, now_s=now_s)
    later_s = [now_s]
    authenticator = Authenticator(trusted_issuers(config), clock_s=lambda: later_s[0])
    found = await authenticator.verify(token)
    assert isinstance(found, Principal)
    assert msgspec.structs.replace(found, key=None) == Principal("game", frozenset(scopes), "ann", now_s + 60)
    later_s[0] += 60 + 30
    assert not isinstance(await authenticator.verify(token), Principal)
    assert token != mint(config, sub="game", scopes=scopes, user="ann", ttl_s=60, now_s=now_s), "each has its own jti"


def test_a_token_that_would_be_refused_is_not_minted(tmp_path: Path) -> None:
    """Whoever mints is told at once, not by a 401 later."""
    config = config_of(f"jwt_secret = '{SECRET}'", tmp_path)
    for sub, user, scopes, ttl_s, key in [
        ("", None, [], 60, "sub"),
        ("a\n", None, [], 60, "sub"),
        ("a", "", [], 60, "user"),
        ("a", None, ["scores:writ"], 60, "scope"),
        ("a", None, [], 0, "ttl"),
        ("a", None, [], 10**9, "ttl"),
    ]:
        with pytest.raises(ConfigError) as caught:
            mint(config, sub=sub, scopes=scopes, user=user, ttl_s=ttl_s)
        assert caught.value.key == key
    restricted = config_of(f"jwt_secret = '{SECRET}'\nuser_claim = 'sub'", tmp_path)
    with pytest.raises(ConfigError, match="must be the same as sub"):
        mint(restricted, sub="a", scopes=[], user="b", ttl_s=60)


@pytest.mark.parametrize(
    ("auth", "key"),
    [
        ("jwks_url = 'https://issuer.example/'\nalgorithms = ['RS256']", "auth.jwks_url"),
        ("jwt_public_key_file = 'a.pem'\nalgorithms = ['RS256']", "auth.jwt_public_key_file"),
    ],
)
def test_with_public_keys_alone_nothing_is_minted(tmp_path: Path, auth: str, key: str) -> None:
    """Nor is a signing key made that nobody would accept."""
    with pytest.raises(ConfigError, match="tokens come from their issuer") as caught:
        mint(config_of(auth, tmp_path), sub="a", scopes=[], user=None, ttl_s=60)
    assert caught.value.key == key
    assert not (tmp_path / "data").exists()
