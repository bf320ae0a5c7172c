"""`scoreboard config check`: every key with its value and its source, for people and for programs; no secret in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from server.cli.main import main
from server.settings.board_form import FIELDS
from server.settings.config import TYPES
from server.settings.environment import dotted
from tests.quorum.nkeys import KeyPair

SECRET = "only-for-tests-0123456789-abcdefghijklmnop"


def check(*arguments: str, env: dict[str, str] | None = None) -> Result:
    """Run the command without any key of the machine."""
    clean = {name: None for name in os.environ if name.startswith("SCOREBOARD_")}
    return CliRunner(env={**clean, **(env or {})}).invoke(main, ["config", "check", *arguments])


def checked(*arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Its result as JSON."""
    done = check("--json", *arguments, env=env)
    assert done.exit_code == 0, done.output
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_each_value_is_told_with_its_source(tmp_path: Path) -> None:
    """From a flag, a variable, the file, and by default; every key is there."""
    file = tmp_path / "scoreboard.toml"
    file.write_text(
        'bind = ["127.0.0.1:1", "127.0.0.1:2"]\n[log]\nkeep = "90d"\n'
        '[boards.weekly]\npoints = { WON = 3 }\nperiod = { every = "week" }\n'
    )
    env = {"SCOREBOARD_LOG_KEEP": "30d", "SCOREBOARD_HTTP_IDLE_SECONDS": "90", "SCOREBOARD_REPLICA_SERVICE_HOST": "x"}
    result = checked("--config", str(file), "--data-dir", str(tmp_path), env=env)
    settings = result["settings"]
    assert set(settings) == {dotted(key) for key in TYPES} | {f"boards.weekly.{field}" for field in FIELDS}
    period = {"every": "week", "zone": "UTC"}
    assert settings["boards.weekly.period"] == {"value": period, "source": "file", "origin": str(file)}
    assert settings["boards.weekly.score"] == {"value": "sum", "source": "default"}
    assert settings["bind"] == {"value": ["127.0.0.1:1", "127.0.0.1:2"], "source": "file", "origin": str(file)}
    assert settings["boards.weekly.points"] == {"value": {"WON": 3}, "source": "file", "origin": str(file)}
    assert settings["log.keep"] == {"value": "30d", "source": "environment", "origin": "SCOREBOARD_LOG_KEEP"}
    assert settings["http.idle_seconds"]["value"] == 90
    assert settings["data_dir"] == {"value": str(tmp_path), "source": "flag", "origin": "--data-dir"}
    assert settings["http.send_seconds"] == {"value": 20, "source": "default"}
    assert settings["auth.public_reads"] == {"value": True, "source": "default"}
    assert result["good"] is True
    assert result["passedOver"] == ["SCOREBOARD_REPLICA_SERVICE_HOST"]
    assert result["warnings"] == []


def test_for_people_it_is_a_table(tmp_path: Path) -> None:
    """With a line for each key, tab-separated in a pipe, and the verdict at the end."""
    lines = check("--data-dir", str(tmp_path), env={"SCOREBOARD_LIVE_MAX_VIEWERS": "5"}).stdout.splitlines()
    assert lines[0] == "key\tvalue\tsource"
    assert "live.max_viewers\t5\tenvironment SCOREBOARD_LIVE_MAX_VIEWERS" in lines
    assert f'data_dir\t"{tmp_path}"\tflag --data-dir' in lines
    assert 'boards.main.points\t{"ACTION_COMPLETED":10}\tdefault' in lines
    assert lines[-1] == "the configuration is good"


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_secret_is_never_printed(tmp_path: Path, arguments: list[str]) -> None:
    """Only that it is set, and where; one that is not set is empty."""
    file = tmp_path / "scoreboard.toml"
    file.write_text(f'[auth]\njwt_secret = "{SECRET}"\n')
    file.chmod(0o600)
    for env in ({}, {"SCOREBOARD_AUTH_JWT_SECRET": SECRET[::-1]}):
        done = check("--config", str(file), *arguments, env=env)
        assert done.exit_code == 0
        assert SECRET not in done.output
        assert SECRET[::-1] not in done.output
        assert "***" in done.stdout
    assert checked()["settings"]["auth.jwt_secret"]["value"] == ""


def test_the_secrets_of_issuers_and_of_files_are_never_printed(tmp_path: Path) -> None:
    """The list of issuers may hold some, so it is only said that there are any. White space around a secret is told."""
    secret = tmp_path / "secret"
    secret.write_text(f" {SECRET}\n")
    secret.chmod(0o644)
    issuers = f'[{{ "issuer": "a", "jwt_secret": "{SECRET[::-1]}" }}]'
    env = {"SCOREBOARD_AUTH_ISSUERS": issuers, "SCOREBOARD_AUTH_JWT_SECRET_FILE": str(secret)}
    done = check("--json", env=env)
    assert done.exit_code == 0
    assert SECRET not in done.output
    assert SECRET[::-1] not in done.output
    assert "auth.jwt_secret_file: white space around a secret" in done.stderr
    assert f"auth.jwt_secret_file: {secret}: others can read" in done.stderr


def test_a_configuration_that_is_refused_prints_no_table(tmp_path: Path) -> None:
    """Exit code 2, the reason on standard error."""
    for arguments in ([], ["--json"]):
        done = check(*arguments, env={"SCOREBOARD_HTTP_IDLE_SECONDS": "0"})
        assert (done.exit_code, done.stdout) == (2, "")
        assert "http.idle_seconds" in done.stderr


@pytest.mark.parametrize(("mode", "told"), [(0o600, False), (0o400, False), (0o644, True), (0o640, True)])
def test_files_with_secrets_that_others_can_read_are_told(tmp_path: Path, mode: int, told: bool) -> None:
    """A token file, and a configuration that has a secret in it; it is a warning, not a refusal."""
    token, file = tmp_path / "token", tmp_path / "scoreboard.toml"
    token.write_text("a.b.c\n")
    file.write_text(f'[auth]\njwt_secret = "{SECRET}"\n[replication]\ntoken_file = "{token}"\n')
    token.chmod(mode)
    file.chmod(mode)
    warnings = checked("--config", str(file))["warnings"]
    assert len(warnings) == 2 * told
    assert all("chmod 600" in warning and f"mode {mode:03o}" in warning for warning in warnings)
    said = check("--config", str(file)).stderr
    assert (f"Warning: replication.token_file: {token}: others can read" in said) is told
    assert (f"Warning: auth.jwt_secret: {file}: others can read" in said) is told


def test_a_user_in_a_url_of_a_quorum_is_never_printed(tmp_path: Path) -> None:
    """Where the servers are is; a file with such a URL, credentials and a key are for their owner alone."""
    file, credentials, key = tmp_path / "scoreboard.toml", tmp_path / "node.creds", tmp_path / "node.key"
    tls = f'certificate_file = "node.pem"\nkey_file = "{key}"\n'
    for path in (credentials, key):
        path.write_text(KeyPair("user", bytes(32)).seed)
        path.chmod(0o644)
    file.write_text(f'[quorum]\nservers = ["nats://node:{SECRET}@n1.example"]\n{tls}')
    file.chmod(0o644)
    done = check("--config", str(file))
    assert 'quorum.servers\t["nats://***@n1.example"]\tfile' in done.stdout
    assert SECRET not in done.output
    assert f"Warning: quorum.servers: {file}: others can read" in done.stderr
    assert f"Warning: quorum.key_file: {key}: others can read" in done.stderr
    file.write_text(f'[quorum]\nservers = ["nats://n1.example"]\ncredentials_file = "{credentials}"\n')
    told = check("--config", str(file)).stderr
    assert f"Warning: quorum.credentials_file: {credentials}: others can read" in told
    assert "quorum.servers" not in told, "no secret is in the file"


@pytest.mark.parametrize(("text", "why"), [(None, "No such file"), ("junk", "neither a seed nor a .creds file")])
def test_credentials_that_a_start_would_refuse_are_found(tmp_path: Path, text: str | None, why: str) -> None:
    """The setting is named once."""
    file, credentials = tmp_path / "scoreboard.toml", tmp_path / "node.creds"
    if text is not None:
        credentials.write_text(text)
    file.write_text(f'[quorum]\nservers = ["nats://n1.example"]\ncredentials_file = "{credentials}"\n')
    done = check("--config", str(file))
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"quorum.credentials_file: the credentials file {credentials}" in done.stderr
    assert why in done.stderr
