"""`scoreboard serve`: its ready line, and the command of `--welcome`, which fits the configuration."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from server.cli.main import main
from server.cli.serve import welcome_text
from server.node import start
from server.settings.config import Config, load
from server.settings.values import Address

SECRET = "only-for-tests-0123456789-abcdefghijklmnop"


def body_of(text: str) -> dict[str, Any]:
    """Give the body that a shell would pass to curl."""
    [line] = [line for line in text.splitlines() if line.startswith("curl ")]
    word = line.partition(" -d ")[2]
    printed = subprocess.run(["sh", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout
    body: dict[str, Any] = json.loads(printed)
    return body


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("", {"userId": "alice"}),
        ("[boards.main.points]\nWIN = 3\n", {"userId": "alice", "reason": "WIN"}),
        ("[boards.main.points]\nLATE = -5\nWIN = 3\n", {"userId": "alice", "reason": "WIN"}),
        ("[boards.main.points]\nACTION_COMPLETED = { min = 1, max = 2 }\nA = 3\n", {"userId": "alice", "reason": "A"}),
        ('[boards."it\'s $5".points]\nWIN = 3\n', {"userId": "alice", "boardId": "it's $5", "reason": "WIN"}),
    ],
)
def test_the_command_fits_the_boards(tmp_path: Path, toml: str, expected: dict[str, str]) -> None:
    """Board and reason are named if the defaults would be refused, whatever characters they have."""
    file = tmp_path / "scoreboard.toml"
    file.write_text(toml)
    config = load(file, {"SCOREBOARD_AUTH_JWT_SECRET": SECRET}, {})
    first = body_of(welcome_text(config, "http://127.0.0.1:8080"))
    second = body_of(welcome_text(config, "http://127.0.0.1:8080"))
    assert first.pop("actionId") != second.pop("actionId")
    assert first == second == expected


def test_a_board_that_needs_a_value_gets_no_command(tmp_path: Path) -> None:
    """The token of the welcome may choose no number."""
    file = tmp_path / "scoreboard.toml"
    file.write_text("[boards.laps.points]\nLAP = { min = 1, max = 90 }\n")
    text = welcome_text(load(file, {"SCOREBOARD_AUTH_JWT_SECRET": SECRET}, {}), "http://127.0.0.1:8080")
    assert "http://127.0.0.1:8080/docs" in text
    assert "curl" not in text


def test_where_we_cannot_mint_nothing_is_pretended() -> None:
    """With public keys the token comes from its issuer. The address of the page is told all the same."""
    keys = {"SCOREBOARD_AUTH_JWKS_URL": "https://id.example/keys", "SCOREBOARD_AUTH_ALGORITHMS": "RS256"}
    config = load(None, keys, {})
    text = welcome_text(config, "http://127.0.0.1:8080")
    assert "http://127.0.0.1:8080/" in text
    assert "curl" not in text
    assert "issuer" in text


@pytest.mark.parametrize("verb", [["serve"], ["replica", "--leader", "http://127.0.0.1:1"]])
def test_bind_may_come_several_times_and_the_ready_line_names_each(
    verb: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the flags, which go before the environment."""
    urls = ["http://127.0.0.1:8080", "http://[::1]:8081"]
    given: list[Config] = []

    async def run(config: Config, *arguments: Any) -> int:
        given.append(config)
        ready = next(each for each in arguments if callable(each))
        ready(*urls)
        return 0

    for name in ("serve", "follow"):
        monkeypatch.setattr(start, name, run)
    done = CliRunner(env={"SCOREBOARD_BIND": "127.0.0.9:1"}).invoke(
        main, [*verb, "--data-dir", str(tmp_path), "--bind", "127.0.0.1:8080", "--bind", "[::1]:8081"]
    )
    assert done.exit_code == 0, done.output
    assert done.stdout == f"scoreboard ready on {' '.join(urls)}\n"
    assert given[0].addresses == (Address("127.0.0.1", 8080), Address("::1", 8081))
