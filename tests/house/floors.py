"""The floors of the house, lowest first: a file imports only from floors below its own. Each new file is given one.

`FOLDERS` says the same of whole folders, lowest first: a folder imports only from folders below it. A file that lies
in a package itself, such as `server/bounds`, counts as a folder of its own. Within a folder the files' floors decide.
The files of `PURE` floors touch no clock, disk, network, randomness or log: bytes and `now` go in, values come out.
"""

from __future__ import annotations

PURE = "pure"
SHELL = "shell"

FOLDERS = (
    "engine",
    "snapshots",
    "server/bounds",
    "server/faults",
    "server/logs",
    "server/settings",
    "server/role",
    "server/http",
    "server/access",
    "server/live",
    "server/replication",
    "server/metrics",
    "server/api",
    "server/lanes",
    "server/node",
    "server/cli",
)

FLOORS: list[tuple[str, str, str]] = [
    (PURE, "engine", "errors limits history order table log_facts"),
    (PURE, "engine", "texts tiers schedule"),
    (SHELL, "engine", "calendar"),
    (PURE, "engine", "board_rules"),
    (PURE, "engine", "events image commands"),
    (PURE, "engine", "event_records board_faults"),
    (PURE, "engine", "pinned actions users record clock"),
    (PURE, "engine", "ranking"),
    (PURE, "engine", "board"),
    (PURE, "engine", "scoreboard recovery filtered_frame corrections counting"),
    (PURE, "engine", "periods"),
    (PURE, "engine", "board_decisions"),
    (PURE, "engine", "batch"),
    (PURE, "engine", "disk_faults"),
    (SHELL, "engine", "regular_file"),
    (SHELL, "engine", "disk"),
    (SHELL, "engine", "held_disk"),
    (SHELL, "engine", "segment"),
    (SHELL, "engine", "room"),
    (SHELL, "engine", "segment_cursor"),
    (SHELL, "engine", "log_reader"),
    (SHELL, "engine", "replay"),
    (SHELL, "engine", "log"),
    (SHELL, "engine", "threads"),
    (PURE, "engine", "machine"),
    (SHELL, "engine", "actor"),
    (PURE, "snapshots", "chunks retention"),
    (PURE, "snapshots", "format period_file"),
    (PURE, "snapshots", "digests"),
    (SHELL, "snapshots", "store period_store"),
    (SHELL, "snapshots", "opening"),
    (SHELL, "snapshots", "state"),
    (SHELL, "snapshots", "checkpoint copying"),
    (SHELL, "snapshots", "restore"),
    (SHELL, "snapshots", "promotion"),
    (SHELL, "snapshots", "demotion"),
    (PURE, "server", "bounds faults"),
    (SHELL, "server", "logs"),
    (PURE, "server", "settings/values settings/http"),
    (PURE, "server", "settings/environment settings/origins"),
    (PURE, "server", "settings/given"),
    (SHELL, "server", "settings/secrecy settings/auth settings/board_form"),
    (SHELL, "server", "settings/config"),
    (PURE, "server", "settings/effective"),
    (PURE, "server", "role"),
    (PURE, "server", "http/forwarded"),
    (PURE, "server", "http/messages http/websocket http/client_address"),
    (SHELL, "server", "http/response_head"),
    (PURE, "server", "http/target http/handshake http/request_parser http/admission"),
    (SHELL, "server", "http/connection"),
    (PURE, "server", "access/rates"),
    (PURE, "server", "access/scopes"),
    (SHELL, "server", "access/signing_key"),
    (SHELL, "server", "access/keys"),
    (SHELL, "server", "access/jwks access/directory_keys"),
    (SHELL, "server", "access/issuers access/minting"),
    (SHELL, "server", "access/auth access/key_exchange"),
    (SHELL, "server", "access/lease"),
    (PURE, "server", "live/encoding"),
    (PURE, "server", "live/handshake live/editions"),
    (SHELL, "server", "live/viewers"),
    (SHELL, "server", "live/broadcast"),
    (SHELL, "server", "live/live"),
    (PURE, "server", "replication/sharding replication/lag replication/failure"),
    (PURE, "server", "replication/messages"),
    (PURE, "server", "replication/paths"),
    (SHELL, "server", "replication/retry replication/feed replication/followers replication/link"),
    (SHELL, "server", "replication/progress"),
    (SHELL, "server", "replication/freshness replication/shipment replication/replicas"),
    (SHELL, "server", "replication/shipper"),
    (SHELL, "server", "replication/snapshot_server replication/bootstrap replication/frame_queue"),
    (SHELL, "server", "replication/epoch_notifier"),
    (SHELL, "server", "replication/follower"),
    (SHELL, "server", "metrics"),
    (PURE, "server", "api/answers api/decoding api/routes api/examples api/about"),
    (PURE, "server", "api/descriptions api/cross_origin api/refusals"),
    (PURE, "server", "api/openapi"),
    (SHELL, "server", "api/pages api/audit api/role_checks"),
    (SHELL, "server", "api/positions"),
    (SHELL, "server", "api/dependencies"),
    (SHELL, "server", "api/cursors"),
    (SHELL, "server", "api/increments api/reads api/operations"),
    (SHELL, "server", "api/lists"),
    (SHELL, "server", "api/users api/boards"),
    (SHELL, "server", "api/pipeline"),
    (SHELL, "server", "lanes/lifespan lanes/hypercorn_pipe"),
    (SHELL, "server", "lanes/hypercorn_lane lanes/express_loop lanes/quart_app"),
    (SHELL, "server", "lanes/express lanes/listener"),
    (SHELL, "server", "node/shutdown node/shard node/service_manager node/listening node/clock"),
    (SHELL, "server", "node/surroundings"),
    (SHELL, "server", "node/storage_watch"),
    (SHELL, "server", "node/leader node/file_boards node/following node/log_service node/directories"),
    (SHELL, "server", "node/promotion node/waiting"),
    (SHELL, "server", "node/node"),
    (SHELL, "server", "node/assembly node/serving"),
    (SHELL, "server", "node/start"),
    (SHELL, "server", "cli/support"),
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
TEST_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
TOP_LEVEL = {
    "pyproject.toml", "engine", "server", "snapshots", "tests", "bench", "README.md",
    "Makefile", "LICENSE", "CHANGELOG.md", "findings",
}  # fmt: skip
