"""The floors of the house, lowest first: a file imports only from floors below its own. Each new file is given one.

The files of `PURE` floors touch no clock, disk, network, randomness or log: bytes and `now` go in, values come out.
"""

from __future__ import annotations

PURE = "pure"
SHELL = "shell"

FLOORS: list[tuple[str, list[str]]] = [
    (PURE, ["engine/errors.py", "engine/limits.py", "engine/image.py", "engine/events.py"]),
    (PURE, ["engine/commands.py", "engine/actions.py", "engine/board.py", "engine/users.py"]),
    (PURE, ["engine/scoreboard.py"]),
    (SHELL, ["engine/actor.py"]),
]

IMPURE_MODULES = {
    "asyncio", "datetime", "httpx", "logging", "os", "pathlib", "random", "secrets", "shutil", "socket", "subprocess",
    "structlog", "tempfile", "threading", "time", "trio", "uuid",
}  # fmt: skip
"""Modules that a pure file may not import. `datetime` is among them for its clock; pure code formats times itself."""

IMPURE_CALLS = {"open", "print", "input"}

LINES_MAX = 400
FUNCTION_LINES_MAX = 70
TOP_LEVEL = {
    "pyproject.toml", "engine", "server", "snapshots", "tests", "bench", "README.md",
    "Makefile", "LICENSE", "CHANGELOG.md",
}  # fmt: skip
