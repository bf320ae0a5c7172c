"""Credentials of NATS: read from files as its tools write them, refused with a sentence, and never shown."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from server import bounds
from server.quorum.nats_credentials import Credentials, read_credentials
from server.quorum.stream import StreamRefused
from tests.quorum.nkeys import KeyPair, creds_file

SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
"""The pair that the documentation of NATS shows."""

USER = KeyPair("user", bytes(range(32)))


def verify(public: str, signature: str, nonce: str) -> None:
    raw = base64.b32decode(public)[1:33]
    signed = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    Ed25519PublicKey.from_public_bytes(raw).verify(signed, nonce.encode())


def test_the_pair_of_the_documentation(tmp_path: Path) -> None:
    """A file with nothing but a seed."""
    (tmp_path / "seed").write_text(f"{SEED}\n")
    answer = read_credentials(str(tmp_path / "seed")).answer("nonce")
    assert answer["nkey"] == PUBLIC
    verify(PUBLIC, answer["sig"], "nonce")
    assert set(answer) == {"nkey", "sig"}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_creds_file_has_the_token_and_the_key(tmp_path: Path, end: str) -> None:
    """The token goes along; the signature is the user's."""
    (tmp_path / "my.creds").write_bytes(creds_file("aaa.bbb.ccc", USER.seed).replace("\n", end).encode())
    answer = read_credentials(str(tmp_path / "my.creds")).answer("once")
    assert answer["jwt"] == "aaa.bbb.ccc"
    verify(USER.public, answer["sig"], "once")
    assert set(answer) == {"jwt", "sig"}


def changed(seed: str) -> str:
    return seed[:20] + ("A" if seed[20] != "A" else "B") + seed[21:]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "neither a seed"),
        ("hello", "neither a seed"),
        ("ü" * 58, "neither a seed"),
        (USER.public, "neither a seed"),
        (USER.seed[:-2], "neither a seed"),
        (USER.seed.lower(), "neither a seed"),
        (changed(USER.seed), "typing mistake"),
        (KeyPair("account", bytes(32)).seed, "not that of a user"),
        (creds_file("a.b.c", USER.seed).partition("*****")[0], "lacks"),
        (creds_file("a.b.c", changed(USER.seed)), "typing mistake"),
        ("x" * (bounds.KEY_FILE_BYTES_MAX + 1), "more than"),
    ],
)
def test_a_file_that_holds_none_is_refused_without_showing_it(tmp_path: Path, text: str, wanted: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(StreamRefused, match=wanted) as refused:
        read_credentials(str(tmp_path / "file"))
    assert refused.value.key == "quorum.credentials_file"
    assert refused.value.what.startswith(f"the credentials file {tmp_path}")  # the key is shown before it, once
    assert USER.seed[4:20] not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StreamRefused, match=r"^the credentials file .*/none cannot be read: No such") as refused:
        read_credentials(str(tmp_path / "none"))
    assert refused.value.key == "quorum.credentials_file"


def test_what_is_shown_of_credentials_is_their_public_key() -> None:
    shown = repr(Credentials(USER.seed, "aaa.bbb.ccc"))
    assert shown == f"Credentials(public_key='{USER.public}')"
