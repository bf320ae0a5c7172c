"""The configuration: every key with its type, its default and its allowed values; and `load`, which reads it.

    config = load(Path("scoreboard.toml"), os.environ, {"data_dir": "/var/lib/scoreboard"})
    config.limits.user_per_minute

Rules:
- Flags go before environment, environment before file, file before default, key by key. A board's `points` are one key.
- An unknown key, a wrong type or a value that is not allowed raises ConfigError: with the full key, the source of the
  value and what is allowed. The value is shown unless it is secret. Nothing is guessed, rounded or ignored.
- The default board `main` exists only while no board is named: a board that the operator did not list would surprise.
- A board is written in the form that the API takes too: `server.settings.board_form` decodes both.
- `[auth]`, `[quorum]` and `[[webhooks]]` have more rules: see `auth`, `quorum` and `webhooks` in this folder.
- `load` checks the structs below as a whole, and they are frozen. Properties parse at each use, so keep what you need
  often.
- Relative paths are relative to the working directory, in the file too.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from engine.board_rules import BoardRules, Rules, Worth, rules_of_points
from server.settings import board_form, values
from server.settings.auth import AuthConfig, build_auth
from server.settings.board_form import FormFault
from server.settings.environment import Key, dotted, from_text, nearest, secrets_from_text, settings
from server.settings.given import Filled, Given, Secrets, Source, Switch, Text, Texts, allowed, converted, refusal
from server.settings.http import HttpConfig
from server.settings.origins import ANY_ORIGIN, OriginList, frame_ancestors, parse_origins
from server.settings.quorum import QuorumConfig, check_replicas, check_stream, check_whole, parse_servers
from server.settings.values import Address, ConfigError, Network
from server.settings.webhooks import Webhooks, build_webhooks
from snapshots.sealing import IndexRules

__all__ = ["Address", "AuthConfig", "Config", "ConfigError", "load"]

DEFAULT_POINTS = {"main": {"ACTION_COMPLETED": 10}}
PerMinute = Annotated[int, Meta(ge=1, le=10**9, description="an integer from 1 to 1000000000")]
Viewers = Annotated[int, Meta(ge=0, le=10**6, description="an integer from 0 to 1000000; 0 turns the live channel off")]
Milliseconds = Annotated[int, Meta(ge=10, le=60_000, description="an integer from 10 to 60000")]
Events = Annotated[int, Meta(ge=1, le=10**12, description="an integer from 1 to 1000000000000")]
IndexPlace = Annotated[Literal["auto", "memory", "disk"], Meta(description="auto, memory or disk")]
IndexBytes = Annotated[int, Meta(ge=2**20, le=2**50, description="bytes, an integer from 1048576 to 2**50")]
Snapshots = Annotated[int, Meta(ge=2, le=1_000, description="an integer from 2 to 1000")]
HeartbeatSeconds = Annotated[int, Meta(ge=1, le=60, description="an integer from 1 to 60")]
AgeSeconds = Annotated[int, Meta(ge=1, le=86_400, description="an integer from 1 to 86400")]
EraseHours = Annotated[int, Meta(ge=0, le=720, description="an integer from 0 to 720; 0: at once")]
WaitSeconds = Annotated[int, Meta(ge=0, le=60, description="an integer from 0 to 60")]
Binds = Annotated[str | tuple[str, ...], Meta(description="a string HOST:PORT or a list of them")]
Points = Annotated[
    dict[str, Worth],
    Meta(description="a table of reasons and what they are worth, as { WON = 10, LAP = { min = 1, max = 90 } }"),
]
Format = Annotated[Literal["auto", "json", "console"], Meta(description="auto, json or console")]
Names = Annotated[Literal["shown", "initials", "hidden"], Meta(description="shown, initials or hidden")]
ClicsVersion = Annotated[Literal["2023-06", "2026-01"], Meta(description="2023-06 or 2026-01")]
Level = Annotated[Literal["debug", "info", "warning", "error"], Meta(description="debug, info, warning or error")]


class LimitsConfig(msgspec.Struct, frozen=True):
    """Increments per minute: of one caller (token subject), and for one user."""

    caller_per_minute: PerMinute = 60_000
    user_per_minute: PerMinute = 600


class LiveConfig(msgspec.Struct, frozen=True):
    interval_ms: Milliseconds = 250
    allowed_origins: Texts = (ANY_ORIGIN,)
    max_viewers: Viewers = 19_000
    max_viewers_per_address: Viewers = 500

    @property
    def origins(self) -> OriginList | None:
        """The allowed `Origin` headers; None: all."""
        return parse_origins(self.allowed_origins)

    @property
    def frame_ancestors(self) -> str:
        """Who may frame /embed, as a policy says it."""
        return frame_ancestors(self.allowed_origins)


class SnapshotsConfig(msgspec.Struct, frozen=True):
    """When a snapshot is taken, and how many are kept."""

    every_events: Events = 1_000_000
    keep: Snapshots = 2


class LogConfig(msgspec.Struct, frozen=True):
    """How long segments are kept that two snapshots cover."""

    keep: Text = values.FOREVER

    @property
    def keep_seconds(self) -> int | None:
        """The age in seconds; None: for ever."""
        return values.parse_keep(self.keep)


class ActionsConfig(msgspec.Struct, frozen=True):
    """Where the index of applied actions lies, and what it may take of memory (`snapshots.sealing`)."""

    index: IndexPlace = "auto"
    memory_bytes: IndexBytes = 2**30

    @property
    def rules(self) -> IndexRules:
        """What the sealer needs."""
        return IndexRules(self.index, self.memory_bytes)


class UsersConfig(msgspec.Struct, frozen=True):
    """Whether a user must be registered before an action counts."""

    require_registered: Switch = False


class PrivacyConfig(msgspec.Struct, frozen=True):
    """Which display names the public sees (`server.live.names`), and how soon the files forget an erased user."""

    names: Names = "shown"
    erase_within_hours: EraseHours = 24


class ConsoleConfig(msgspec.Struct, frozen=True):
    """Whether this node serves the page for operators."""

    enabled: Switch = True


class FeedsConfig(msgspec.Struct, frozen=True):
    """Which version of the CLICS Contest API is served."""

    clics_version: ClicsVersion = "2023-06"


class ReplicationConfig(msgspec.Struct, frozen=True):
    """Following a leader, and being followed. Replicas redirect clients to the leader's `public_url`."""

    leader: Text = ""
    token_file: Text = ""
    public_url: Text = ""
    node_name: Text = ""
    heartbeat_seconds: HeartbeatSeconds = 1
    ready_age_seconds: AgeSeconds = 30
    behind_wait_seconds: WaitSeconds = 5


class LoggingConfig(msgspec.Struct, frozen=True):
    """What goes to standard error. "auto" is console on a terminal and JSON elsewhere."""

    format: Format = "auto"
    level: Level = "info"


class Config(msgspec.Struct, frozen=True):
    bind: Binds = "127.0.0.1:8080"
    data_dir: Filled = "data"
    trusted_proxies: Texts = ()
    auth: AuthConfig = AuthConfig()
    boards: dict[str, BoardRules] = msgspec.field(default_factory=lambda: dict(rules_of_points(DEFAULT_POINTS).boards))
    http: HttpConfig = HttpConfig()
    limits: LimitsConfig = LimitsConfig()
    live: LiveConfig = LiveConfig()
    snapshots: SnapshotsConfig = SnapshotsConfig()
    log: LogConfig = LogConfig()
    actions: ActionsConfig = ActionsConfig()
    users: UsersConfig = UsersConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    console: ConsoleConfig = ConsoleConfig()
    feeds: FeedsConfig = FeedsConfig()
    replication: ReplicationConfig = ReplicationConfig()
    quorum: QuorumConfig = QuorumConfig()
    logging: LoggingConfig = LoggingConfig()
    webhooks: Webhooks = ()

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where to listen."""
        return values.parse_binds(self.bind)

    @property
    def proxy_networks(self) -> tuple[Network, ...]:
        """The peers whose X-Forwarded-For and Forwarded are believed."""
        return values.parse_networks(self.trusted_proxies)

    @property
    def rules(self) -> Rules:
        """What the engine needs."""
        return Rules(self.boards, self.users.require_registered)


CHECKS: dict[Key, Callable[[Any], object]] = {
    ("bind",): values.parse_binds,
    ("trusted_proxies",): values.parse_networks,
    ("live", "allowed_origins"): parse_origins,
    ("log", "keep"): values.parse_keep,
    ("replication", "leader"): values.check_node_url,
    ("replication", "public_url"): values.check_node_url,
    ("quorum", "servers"): parse_servers,
    ("quorum", "stream"): check_stream,
    ("quorum", "replicas"): check_replicas,
}
"""What the type does not check. A check raises ValueError with what is allowed."""


def _fields() -> Iterator[tuple[Key, Any]]:
    for field in msgspec.structs.fields(Config):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            for inner in msgspec.structs.fields(field.type):
                yield (field.name, inner.name), inner.type
        elif field.name != "boards":
            yield (field.name,), field.type


TYPES: dict[Key, Any] = dict(_fields())
"""Every key but those of boards (`board_form.FIELDS`), with its annotated type."""

SECTIONS = {key[0] for key in TYPES if len(key) > 1} | {"boards"}


def load(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, str]) -> Config:
    """Read the configuration. `flags` are texts by full key (`data_dir`). Raises `ConfigError`."""
    return build(gather(file, environ, flags))


def gather(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, str]) -> dict[Key, Given]:
    """Collect what is set, for `build` and `server.settings.effective`. Raises `ConfigError`."""
    given: dict[Key, Given] = {}
    if file is not None:
        given.update(_from_file(file))
    boards = {key[1] for key in given if key[0] == "boards"} or set(DEFAULT_POINTS)
    # Later ones win: file, environment, flags.
    texts: list[tuple[Key, str, str, Source]] = [
        (key, environ[variable], variable, "environment") for key, variable in settings(environ, TYPES, boards)
    ]
    texts += [(tuple(name.split(".")), text, _flag_of(name), "flag") for name, text in flags.items()]
    for key, text, origin, source in texts:
        try:
            given[key] = Given(_from_text(text, _type_of(key)), origin, source)
        except ValueError as error:
            raise refusal(key, Given(text, origin), str(error)) from None
    return given


def _from_text(text: str, annotation: Any) -> object:
    return secrets_from_text(text) if annotation is Secrets else from_text(text, annotation)


def _flag_of(name: str) -> str:
    return f"--{name.rpartition('.')[2].replace('_', '-')}"


def _type_of(key: Key) -> Any:
    if key[0] == "webhooks" and len(key) > 1:
        return Secrets  # of a webhook, only the secret has a variable
    return Points if key[0] == "boards" else TYPES[key]  # of a board, only the points have one


def _from_file(path: Path) -> Iterator[tuple[Key, Given]]:
    try:
        document = msgspec.toml.decode(path.read_bytes().removeprefix(BOM_UTF8))  # some editors write the mark
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        # The parser tells line and column, and not the text, which may hold a secret.
        raise ConfigError(str(path), f"is not TOML: {error}") from error
    for key, value in _leaves(document, (), str(path)):
        yield key, Given(value, str(path), "file")


def _leaves(table: dict[str, Any], above: Key, origin: str) -> Iterator[tuple[Key, object]]:
    """Walk down to the keys. Anything that is neither a key nor a table above one is unknown."""
    for name, value in table.items():
        key = (*above, name)
        is_board = len(key) == 2 and key[0] == "boards"
        if is_board or (len(key) == 1 and name in SECTIONS):
            if not isinstance(value, dict):
                raise ConfigError(dotted(key), f"must be a table (in {origin})")
            if is_board and "points" not in value:
                raise ConfigError(dotted((*key, "points")), f"is missing (in {origin}); must be {allowed(Points)}")
            yield from _leaves(value, key, origin)
        elif key in TYPES or (above[:1] == ("boards",) and name in board_form.FIELDS):
            yield key, value
        else:
            known = [each[-1] for each in TYPES if each[:-1] == above] or list(board_form.FIELDS)
            known += SECTIONS if not above else []
            raise ConfigError(dotted(key), f"no such key (in {origin}); {nearest(name, known)}")


def build(given: Mapping[Key, Given]) -> Config:
    """Check what was collected, each value and as a whole. Raises `ConfigError`."""
    values: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {}
    boards: dict[str, dict[str, Any]] = {}
    for key, each in given.items():
        if key[0] in ("auth", "webhooks"):
            continue
        if key[0] == "boards":
            boards.setdefault(key[1], {})[key[2]] = each.value
            continue
        value = _checked(key, each)
        if len(key) == 2:
            sections.setdefault(key[0], {})[key[1]] = value
        else:
            values[key[0]] = value
    for name, fields in sections.items():
        values[name] = type(getattr(Config(), name))(**fields)
    check_whole(values.get("quorum", QuorumConfig()), given)
    if boards:
        values["boards"] = {name: _board(name, fields, given) for name, fields in boards.items()}
    auth = build_auth({key[1]: each for key, each in given.items() if key[0] == "auth"})
    return Config(**values, auth=auth, webhooks=build_webhooks(given))


def _checked(key: Key, given: Given) -> Any:
    """Check one value: type, range, form."""
    value = converted(key, given, _type_of(key))
    try:
        CHECKS.get(key, str)(value)
    except ValueError as error:
        raise refusal(key, given, str(error)) from None
    return value


def _board(name: str, form: dict[str, Any], given: Mapping[Key, Given]) -> BoardRules:
    """Make the rules of a board. `points` is there: the default board has it, and a table in a file must."""
    try:
        return board_form.rules_of(name, form)
    except FormFault as fault:
        if fault.path == ("boardId",):
            origin = given["boards", name, "points"].origin
            raise ConfigError(
                dotted(("boards", name, "points")), f"the board's name {fault.sentence} ({origin})"
            ) from None
        value: Any = form
        for part in fault.path:
            if not isinstance(value, dict) or part not in value:
                break
            value = value[part]
        origin = given["boards", name, fault.path[0]].origin
        raise refusal(("boards", name, *fault.path), Given(value, origin), fault.sentence) from None
