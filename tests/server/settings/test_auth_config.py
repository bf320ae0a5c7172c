"""The configuration of `[auth]`: issuers, secrets from files, and what must fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.settings.auth import secret_notes
from server.settings.config import Config, load
from tests.server.settings.test_config import SECRET, read, refusal

OTHER = "another-secret-that-is-long-enough-too"
KEYS = "jwks_url = 'https://a.example/'\nalgorithms = ['RS256']"


ANOTHER = f"[[auth.issuers]]\nissuer = 'a'\n{KEYS}"


def issuer(text: str) -> str:
    """A configuration with one issuer."""
    return f"[[auth.issuers]]\n{text}"


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (issuer(f"{KEYS}"), "auth.issuers[0].issuer", "must be the claim iss"),
        (issuer("issuer = 'a'"), "auth.issuers[0]", "has no keys"),
        (issuer(f"issuer = 'a'\n{KEYS}\npublic_reads = true"), "auth.issuers[0].public_reads", "no such key"),
        (issuer(f"issuer = 'a'\n{KEYS}\naudience = 5"), "auth.issuers[0].audience", "must be a string"),
        (issuer(f"issuer = 'a'\n{KEYS}\naudience = ''"), "auth.issuers[0].audience", "only with client_ids"),
        (issuer(f"issuer = 'a'\n{KEYS}\njwt_secret = '{SECRET}'"), "auth.issuers[0].jwks_url", "only one source"),
        (issuer("issuer = 'a'\njwks_url = 'http://a.example/'"), "auth.issuers[0].jwks_url", "https://"),
        (issuer("issuer = 'a'\njwks_url = 'https://a.example/'"), "auth.issuers[0].algorithms", "fit auth.issuers[0]"),
        (issuer("issuer = 'a'\njwt_secret = 'short'"), "auth.issuers[0].jwt_secret", "at least 32 bytes"),
        (issuer(f"issuer = 'a'\n{KEYS}\n{ANOTHER}"),
         "auth.issuers[1].issuer", "another issuer of the name 'a'"),
        (f"[auth]\nissuer = 'a'\njwt_secret = '{SECRET}'\n{ANOTHER}",
         "auth.issuers[0].issuer", "another issuer"),
        (f"[auth]\nissuer = 'b'\n{ANOTHER}", "auth.issuer", "without keys"),
        ("[auth]\nissuers = 5", "auth.issuers", "a list of tables"),
        ("[auth]\nissuers = ['a']", "auth.issuers", "a list of tables"),
        ("[auth]\nscope_claims = []", "auth.scope_claims", "one or more claims"),
        ("[auth]\nscope_map = { writer = 'scores:writ' }", "auth.scope_map", "means no scores:writ"),
        ("[auth]\nuser_claim = 'roles'\nscope_claims = ['roles']", "auth.user_claim", "a meaning of its own"),
        ("[auth]\naudience = ''", "auth.audience", "only with client_ids"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused_by_its_name(tmp_path: Path, text: str, key: str, words: str) -> None:
    """An issuer is named by its place in the list."""
    error = refusal(tmp_path, text)
    assert error.key == key
    assert words in error.message
    assert SECRET not in str(error)


def test_an_issuer_has_what_it_leaves_out_from_auth(tmp_path: Path) -> None:
    """But for its name and its keys."""
    text = f"""[auth]
    audience = "game"
    client_ids = ["app"]
    scope_claims = ["roles"]
    algorithms = ["RS256"]
    {issuer("issuer = 'a'")}
    jwks_url = "https://a.example/"
    {issuer("issuer = 'b'")}
    jwt_secret = "{SECRET}"
    algorithms = ["HS256"]
    audience = ""
    """
    first, second = read(tmp_path, text).auth.issuers
    assert (first.audience, first.client_ids, first.scope_claims, first.algorithms) == (
        "game", ("app",), ("roles",), ("RS256",)
    )  # fmt: skip
    assert (second.audience, second.algorithms, second.jwt_secret) == ("", ("HS256",), (SECRET,))
    assert SECRET not in repr(second)


def test_public_keys_may_have_algorithms_of_several_families(tmp_path: Path) -> None:
    """The keys say which one they are for."""
    names = ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"]
    config = read(tmp_path, f"[auth]\njwks_url = 'https://a.example/'\nalgorithms = {names}")
    assert config.auth.algorithms == tuple(names)


def test_secrets_may_stand_in_a_file(tmp_path: Path) -> None:
    """A line each, by the key or by the variable that ends in _FILE; the line's end is no part of a secret."""
    path = tmp_path / "secret"
    path.write_bytes(f"{SECRET}\r\n{OTHER}\n\n".encode())
    for config in (
        read(tmp_path, f"[auth]\njwt_secret_file = '{path}'"),
        load(None, {"SCOREBOARD_AUTH_JWT_SECRET_FILE": str(path)}, {}),
        load(None, {"SCOREBOARD_AUTH_JWT_SECRET_FILE": str(path), "SCOREBOARD_AUTH_JWT_SECRET": ""}, {}),
    ):
        assert config.auth.jwt_secret == (SECRET, OTHER)
        assert not list(secret_notes(config.auth))
    [one] = read(tmp_path, issuer(f"issuer = 'a'\njwt_secret_file = '{path}'")).auth.issuers
    assert one.jwt_secret == (SECRET, OTHER)


def test_a_secret_and_its_file_together_are_refused(tmp_path: Path) -> None:
    """The error names both, with where each was set."""
    path = tmp_path / "secret"
    path.write_text(SECRET)
    environ = {"SCOREBOARD_AUTH_JWT_SECRET_FILE": str(path)}
    error = refusal(tmp_path, f"[auth]\njwt_secret = '{SECRET}'", environ)
    assert "auth.jwt_secret (" in error.message
    assert "auth.jwt_secret_file (SCOREBOARD_AUTH_JWT_SECRET_FILE)" in error.message
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"short\n", "at least 32 bytes"),
        (b"\xff" * 40, "not UTF-8"),
        (b"-----BEGIN PUBLIC KEY-----\n", "a key in PEM form"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_holds_no_secret_is_refused(tmp_path: Path, content: bytes | None, words: str) -> None:
    """By the key that names it."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    error = refusal(tmp_path, f"[auth]\njwt_secret_file = '{path}'")
    assert error.key == "auth.jwt_secret_file"
    assert words in error.message


def notes_of(config: Config) -> list[str]:
    """The keys of which something is to be told."""
    return [key for key, _ in secret_notes(config.auth)]


def test_white_space_around_a_secret_is_told(tmp_path: Path) -> None:
    """It counts, as it always has, but whoever signs has most likely cut it off."""
    path = tmp_path / "secret"
    path.write_text(f" {SECRET}\n")
    assert notes_of(read(tmp_path, f"[auth]\njwt_secret_file = '{path}'")) == ["auth.jwt_secret_file"]
    config = load(None, {"SCOREBOARD_AUTH_JWT_SECRET": f"{SECRET}\n"}, {})
    assert config.auth.jwt_secret == (f"{SECRET}\n",)
    assert notes_of(config) == ["auth.jwt_secret"]
    assert notes_of(load(None, {"SCOREBOARD_AUTH_JWT_SECRET": SECRET}, {})) == []
    assert all(SECRET not in note for _, note in secret_notes(config.auth))


def test_secrets_in_the_environment_have_commas_between_them() -> None:
    """Or are an array, where a secret itself has a comma."""
    for text, secrets in [
        (f"{SECRET},{OTHER}", (SECRET, OTHER)),
        (f"{SECRET} , {OTHER}", (SECRET, OTHER)),
        (f'["{SECRET},", "{OTHER}"]', (f"{SECRET},", OTHER)),
    ]:
        assert load(None, {"SCOREBOARD_AUTH_JWT_SECRET": text}, {}).auth.jwt_secret == secrets


@pytest.mark.parametrize("text", ["[]", "[ ]", ","])
def test_an_empty_list_of_secrets_is_refused(tmp_path: Path, text: str) -> None:
    """It made the directory's own key count, silently. An empty string says that there is none."""
    if text != ",":
        assert refusal(tmp_path, f"[auth]\njwt_secret = {text}").key == "auth.jwt_secret"
        one = issuer(f"issuer = 'a'\njwt_secret = {text}\n{KEYS}")
        assert refusal(tmp_path, one).key == "auth.issuers[0].jwt_secret"
    refused = refusal(tmp_path, "", {"SCOREBOARD_AUTH_JWT_SECRET": text})
    assert refused.key == "auth.jwt_secret"
    assert "must name one or more secrets" in refused.message
    assert "SCOREBOARD_AUTH_JWT_SECRET" in refused.message
    assert load(None, {"SCOREBOARD_AUTH_JWT_SECRET": ""}, {}).auth.jwt_secret == ()
