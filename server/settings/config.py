"""The configuration: every key with its type, its default and its allowed values; and `load`, which reads it.

    config = load(Path("scoreboard.toml"), os.environ, {"data_dir": "/var/lib/scoreboard"})
    config.limits.user_per_minute

Rules:
- Flags go before environment, environment before file, file before default, key by key. A board's `points` are one key.
- An unknown key, a wrong type or a value that is not allowed raises ConfigError: with the full key, the source of the
  value and what is allowed. The value is shown unless it is secret. Nothing is guessed, rounded or ignored.
- The default board `main` exists only while no board is named: a board that the operator did not list would surprise.
- Tokens are verified by one source of keys, with algorithms of one family that fits it (RFC 8725, sections 3.1 and
  3.2). So no token can make a public key count as a shared secret. The default source is the data directory's own key.
- `load` checks the structs below as a whole, and they are frozen. Properties parse at each use, so keep what you need
  often.
- Relative paths are relative to the working directory, in the file too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import msgspec
from msgspec import Meta

from engine.commands import id_fault
from engine.scoreboard import Rules
from server.settings import values
from server.settings.environment import Key, dotted, from_text, nearest, settings
from server.settings.http import HttpConfig
from server.settings.origins import ANY_ORIGIN, OriginList, parse_origins
from server.settings.values import Address, ConfigError, Network

__all__ = ["Address", "Config", "ConfigError", "load"]

DEFAULT_POINTS = {"main": {"ACTION_COMPLETED": 10}}
DEFAULT = "by default"

SECRET_BYTES_MIN = {"HS256": 32, "HS384": 48, "HS512": 64}
"""A shared secret is at least as long as its hash (RFC 7518, section 3.2)."""

FAMILIES = {
    **dict.fromkeys(SECRET_BYTES_MIN, "HS"),
    **dict.fromkeys(("RS256", "RS384", "RS512"), "RS"),
    **dict.fromkeys(("PS256", "PS384", "PS512"), "PS"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "ES"),
    "EdDSA": "EdDSA",
}
"""Every algorithm that may be configured, with its family. Never `none`."""

CLAIMS_WITH_A_MEANING = frozenset({"aud", "exp", "iat", "iss", "jti", "nbf", "scope"})

PerMinute = Annotated[int, Meta(ge=1, le=10**9, description="an integer from 1 to 1000000000")]
Viewers = Annotated[int, Meta(ge=0, le=10**6, description="an integer from 0 to 1000000; 0 turns the live channel off")]
Milliseconds = Annotated[int, Meta(ge=10, le=60_000, description="an integer from 10 to 60000")]
Events = Annotated[int, Meta(ge=1, le=10**12, description="an integer from 1 to 1000000000000")]
Snapshots = Annotated[int, Meta(ge=2, le=1_000, description="an integer from 2 to 1000")]
HeartbeatSeconds = Annotated[int, Meta(ge=1, le=60, description="an integer from 1 to 60")]
AgeSeconds = Annotated[int, Meta(ge=1, le=86_400, description="an integer from 1 to 86400")]
WaitSeconds = Annotated[int, Meta(ge=0, le=60, description="an integer from 0 to 60")]
Text = Annotated[str, Meta(description="a string")]
Filled = Annotated[str, Meta(min_length=1, description="a string that is not empty")]
Texts = Annotated[tuple[str, ...], Meta(description="a list of strings")]
Binds = Annotated[str | tuple[str, ...], Meta(description="a string HOST:PORT or a list of them")]
Switch = Annotated[bool, Meta(description="true or false")]
Points = Annotated[dict[str, int], Meta(description="a table of reasons and integers, as { ACTION_COMPLETED = 10 }")]
Format = Annotated[Literal["auto", "json", "console"], Meta(description="auto, json or console")]
Level = Annotated[Literal["debug", "info", "warning", "error"], Meta(description="debug, info, warning or error")]


class AuthConfig(msgspec.Struct, frozen=True):
    """Who may do what: where the keys are, and what a token must say."""

    jwt_secret: Text = ""
    jwt_public_key_file: Text = ""
    jwks_url: Text = ""
    algorithms: Texts = ("HS256",)
    audience: Filled = "scoreboard"
    issuer: Text = ""
    user_claim: Filled = "uid"
    public_reads: Switch = True

    @property
    def can_mint(self) -> bool:
        """Whether this node has a key that signs. Public keys only verify."""
        return not (self.jwt_public_key_file or self.jwks_url)

    def __repr__(self) -> str:
        """Show all but the secret, because a configuration gets into logs and error reports."""
        fields = (
            f"{name}={'***' if name == 'jwt_secret' and self.jwt_secret else repr(getattr(self, name))}"
            for name in self.__struct_fields__
        )
        return f"AuthConfig({', '.join(fields)})"


class BoardConfig(msgspec.Struct, frozen=True):
    """One board's catalogue: the points of each reason."""

    points: Points


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


class UsersConfig(msgspec.Struct, frozen=True):
    """Whether a user must be registered before an action counts."""

    require_registered: Switch = False


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
    boards: dict[str, BoardConfig] = msgspec.field(
        default_factory=lambda: {name: BoardConfig(points=dict(points)) for name, points in DEFAULT_POINTS.items()}
    )
    http: HttpConfig = HttpConfig()
    limits: LimitsConfig = LimitsConfig()
    live: LiveConfig = LiveConfig()
    snapshots: SnapshotsConfig = SnapshotsConfig()
    log: LogConfig = LogConfig()
    users: UsersConfig = UsersConfig()
    replication: ReplicationConfig = ReplicationConfig()
    logging: LoggingConfig = LoggingConfig()

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
        points = {name: dict(board.points) for name, board in self.boards.items()}
        return Rules(points=points, require_registered=self.users.require_registered)


Source = Literal["default", "file", "environment", "flag"]


class Given(msgspec.Struct, frozen=True):
    """A value, and where it was set: the path of the file, the variable or the flag."""

    value: object
    origin: str
    source: Source = "default"


CHECKS: dict[Key, Callable[[Any], object]] = {
    ("bind",): values.parse_binds,
    ("trusted_proxies",): values.parse_networks,
    ("auth", "jwks_url"): values.check_jwks_url,
    ("live", "allowed_origins"): parse_origins,
    ("log", "keep"): values.parse_keep,
    ("replication", "leader"): values.check_node_url,
    ("replication", "public_url"): values.check_node_url,
}
"""What the type does not check. A check raises ValueError with what is allowed."""

SECRET_KEYS = {("auth", "jwt_secret")}


def _fields() -> Iterator[tuple[Key, Any]]:
    for field in msgspec.structs.fields(Config):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            for inner in msgspec.structs.fields(field.type):
                yield (field.name, inner.name), inner.type
        elif field.name != "boards":
            yield (field.name,), field.type


TYPES: dict[Key, Any] = dict(_fields())
"""Every key but `boards.NAME.points`, with its annotated type."""

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
            given[key] = Given(from_text(text, _type_of(key)), origin, source)
        except ValueError as error:
            _refuse(key, Given(text, origin), str(error))
    return given


def _flag_of(name: str) -> str:
    return f"--{name.rpartition('.')[2].replace('_', '-')}"


def _type_of(key: Key) -> Any:
    return Points if key[0] == "boards" else TYPES[key]


def _from_file(path: Path) -> Iterator[tuple[Key, Given]]:
    try:
        document = msgspec.toml.decode(path.read_bytes())
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
                raise ConfigError(dotted((*key, "points")), f"is missing (in {origin}); must be {_allowed(Points)}")
            yield from _leaves(value, key, origin)
        elif key in TYPES or (above[:1] == ("boards",) and name == "points"):
            yield key, value
        else:
            known = [each[-1] for each in TYPES if each[:-1] == above] or ["points"]
            known += SECTIONS if not above else []
            raise ConfigError(dotted(key), f"no such key (in {origin}); {nearest(name, known)}")


def build(given: Mapping[Key, Given]) -> Config:
    """Check what was collected, each value and as a whole. Raises `ConfigError`."""
    values: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {}
    boards: dict[str, BoardConfig] = {}
    for key, each in given.items():
        value = _checked(key, each)
        if key[0] == "boards":
            boards[key[1]] = BoardConfig(points=value)
        elif len(key) == 2:
            sections.setdefault(key[0], {})[key[1]] = value
        else:
            values[key[0]] = value
    for name, fields in sections.items():
        values[name] = type(getattr(Config(), name))(**fields)
    if boards:
        values["boards"] = boards
    config = Config(**values)
    _check_auth(config.auth, given)
    return config


def _checked(key: Key, given: Given) -> Any:
    """Check one value: type, range, form."""
    annotation = _type_of(key)
    try:
        value = msgspec.convert(given.value, annotation)
    except msgspec.ValidationError:
        _refuse(key, given, f"must be {_allowed(annotation)}")
    if key[0] == "boards":
        _check_board(key, given, value)
    try:
        CHECKS.get(key, str)(value)
    except ValueError as error:
        _refuse(key, given, str(error))
    return value


def _check_board(key: Key, given: Given, points: dict[str, int]) -> None:
    if fault := id_fault(key[1]):
        raise ConfigError(dotted(key), f"the board's name {fault} ({given.origin})")
    if found := values.points_fault(points):
        reason, fault = found
        if reason is None:
            _refuse(key, given, fault)
        _refuse((*key, reason), Given(points[reason], given.origin), fault)


def _check_auth(auth: AuthConfig, given: Mapping[Key, Given]) -> None:
    """Check that keys, algorithms and claims fit together."""

    def of(name: str) -> Given:
        return given.get(("auth", name), Given(getattr(auth, name), DEFAULT))

    sources = [name for name in ("jwt_secret", "jwt_public_key_file", "jwks_url") if getattr(auth, name)]
    if len(sources) > 1:
        both = ", ".join(f"auth.{name} ({of(name).origin})" for name in sources)
        raise ConfigError(f"auth.{sources[1]}", f"only one source of keys may be set, not {both}")
    fault = _algorithms_fault(auth.algorithms, sources[0] if sources else None)
    if fault:
        _refuse(("auth", "algorithms"), of("algorithms"), fault)
    bytes_min = max(SECRET_BYTES_MIN.get(algorithm, 0) for algorithm in auth.algorithms)
    if auth.jwt_secret and len(auth.jwt_secret.encode("utf-8", "surrogatepass")) < bytes_min:
        _refuse(("auth", "jwt_secret"), of("jwt_secret"), f"must have at least {bytes_min} bytes for its algorithms")
    if auth.user_claim in CLAIMS_WITH_A_MEANING:
        _refuse(("auth", "user_claim"), of("user_claim"), "must not be a claim that has a meaning of its own")


def _algorithms_fault(algorithms: tuple[str, ...], source: str | None) -> str | None:
    allowed = list(SECRET_BYTES_MIN) if source in (None, "jwt_secret") else list(FAMILIES)[len(SECRET_BYTES_MIN) :]
    keys = f"auth.{source}" if source else "the signing key in the data directory"
    if not algorithms or len(set(algorithms)) < len(algorithms) or not set(algorithms) <= set(allowed):
        return f"must be one or more of {', '.join(allowed)}, each once: these fit {keys}"
    if len({FAMILIES[algorithm] for algorithm in algorithms}) > 1:
        return "must all be of one family (HS, RS, PS, ES or EdDSA)"
    return None


def _allowed(annotation: Any) -> str:
    meta: Meta = annotation.__metadata__[0]
    assert meta.description is not None
    return meta.description


def _refuse(key: Key, given: Given, sentence: str) -> NoReturn:
    shown = "(the value is not shown)"
    if key not in SECRET_KEYS:
        shown = json.dumps(given.value, default=str, ensure_ascii=True)
        shown = f"{shown if len(shown) <= 80 else shown[:77] + '...'} is not allowed"
    source = given.origin if given.origin == DEFAULT else f"from {given.origin}"
    raise ConfigError(dotted(key), f"{sentence}; {shown} ({source})")
