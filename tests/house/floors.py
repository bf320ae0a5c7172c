"""The floors of the house, lowest first: a file imports only from floors below its own. Each new file is given one.

The files of `PURE` floors touch no clock, disk, network, randomness or log: bytes and `now` go in, values come out.
"""

from __future__ import annotations

PURE = "pure"
SHELL = "shell"

FLOORS: list[tuple[str, str, str]] = [
    (PURE, "engine", "errors limits events image order table"),
    (PURE, "engine", "commands actions users record"),
    (PURE, "engine", "board"),
    (PURE, "engine", "scoreboard recovery part"),
    (PURE, "engine", "batch"),
    (SHELL, "engine", "disk"),
    (SHELL, "engine", "segment"),
    (SHELL, "engine", "walk"),
    (SHELL, "engine", "reading"),
    (SHELL, "engine", "replay"),
    (SHELL, "engine", "log"),
    (SHELL, "engine", "actor"),
    (PURE, "snapshots", "format retention"),
    (PURE, "snapshots", "digests"),
    (SHELL, "snapshots", "store"),
    (SHELL, "snapshots", "opening"),
    (SHELL, "snapshots", "state"),
    (SHELL, "snapshots", "checkpoint copying"),
    (SHELL, "snapshots", "restore"),
    (SHELL, "snapshots", "promotion"),
    (SHELL, "snapshots", "demotion"),
    (PURE, "server", "bounds faults"),
    (PURE, "server", "settings/values access/rates live/frames door/proxies live/encoding"),
    (PURE, "server", "protocol settings/environment"),
    (PURE, "server", "live/handshake live/editions door/inspector door/room"),
    (PURE, "server", "service/answers service/decoding service/routes"),
    (PURE, "server", "service/openapi"),
    (PURE, "server", "replication/sharding replication/lag replication/failure"),
    (PURE, "server", "replication/messages"),
    (SHELL, "server", "logs metrics"),
    (SHELL, "server", "settings/config"),
    (SHELL, "server", "access/keys"),
    (SHELL, "server", "access/jwks"),
    (SHELL, "server", "access/auth"),
    (SHELL, "server", "live/viewers door/streams door/lifespan service/pages service/audit service/standing"),
    (SHELL, "server", "live/broadcast door/exchange service/parts"),
    (SHELL, "server", "replication/feed replication/followers replication/link"),
    (SHELL, "server", "replication/shipper replication/replicas"),
    (SHELL, "server", "replication/sending replication/bootstrap replication/intake replication/herald"),
    (SHELL, "server", "replication/follower"),
    (SHELL, "server", "live/live door/hyper service/reads service/writes service/operations"),
    (SHELL, "server", "door/door service/service"),
    (SHELL, "server", "service/api service/hot"),
    (SHELL, "server", "door/reactor"),
    (SHELL, "server", "door/express"),
    (SHELL, "server", "node"),
    (SHELL, "server", "shipping"),
    (SHELL, "server", "leader"),
    (SHELL, "server", "replica"),
    (SHELL, "server", "app cli/support"),
    (SHELL, "server", "cli/serve cli/replica cli/promote cli/demote"),
    (SHELL, "server", "cli/token cli/log cli/snapshot cli/watch cli/config"),
    (SHELL, "server", "cli/restore"),
    (SHELL, "server", "cli/main"),
]
"""Kind, package, and the files of the floor by their path in the package."""

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
