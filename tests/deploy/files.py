"""The files of `deploy/`, read as the programs read them that they are for."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

from server.settings.config import Config

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PORT = Config().addresses[0].port
"""Where a node listens if nothing else is said."""
DATA_DIR = "/var/lib/scoreboard/data"
"""Of every way of deployment. Its parent is the volume, because a demotion and a restore rename the directory."""


def read_yaml(path: str) -> Any:
    """Read a document of `deploy/`."""
    return yaml.safe_load((DEPLOY / path).read_text())


def dockerfile() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile: (name, the rest as one line)."""
    text = (DEPLOY / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in whole.splitlines()]


def last_stage() -> list[tuple[str, str]]:
    """The instructions that make the image, without those that build what is copied into it."""
    instructions = dockerfile()
    begin = max(number for number, (name, _) in enumerate(instructions) if name == "FROM")
    return instructions[begin:]


def only(name: str, instructions: list[tuple[str, str]]) -> str:
    """The one instruction of this name."""
    (rest,) = [rest for each, rest in instructions if each == name]
    return rest


def image_environment() -> dict[str, str]:
    """What ENV of the last stage sets."""
    return dict(pair.split("=", 1) for pair in only("ENV", last_stage()).split())


def exec_form(text: str) -> list[str]:
    """An instruction in the exec form, as a list. Raises ValueError for the shell form, in which no signal arrives."""
    command = json.loads(text)
    assert isinstance(command, list)
    return [str(each) for each in command]


def compose() -> dict[str, Any]:
    """The compose file, with every `${NAME:-default}` as its default."""
    text = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", (DEPLOY / "compose.yaml").read_text())
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def seconds(text: str) -> float:
    """A duration as compose and Prometheus write it."""
    number, unit = re.fullmatch(r"(\d+)([smh])", text).groups()  # type: ignore[union-attr]  # another form is a failure
    return float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
