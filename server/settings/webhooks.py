"""The configuration of `[[webhooks]]`: who is told of what, and with which secrets the deliveries are signed.

    hooks = build_webhooks(given)       all settings that were given, by key; raises `ConfigError`

Rules:
- A hook is known by its name: its cursor is kept under it. Without a name it has that of its host, and some digits of
  its URL. So to move a hook in the file changes nothing, and two hooks of one URL need names.
- A secret is `whsec_` and 24 to 64 bytes in base64, as Standard Webhooks says. Of several each signs, the first one
  first: a receiver takes any. So a secret is changed by adding the new one, then taking out the old one.
- Secrets stand in the table, in the file that `secret_file` names (a secret on each line), or in the environment:
  `SCOREBOARD_WEBHOOKS_NAME_SECRET`, where NAME is the hook's name in upper case with `_` for other characters. The
  environment goes before the file.
- A board of `boards` need not exist yet: it may come by the API.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from engine.texts import id_fault
from server.settings import values
from server.settings.auth import read_secrets
from server.settings.environment import Key, dotted, nearest, variable_of
from server.settings.given import Given, Secrets, Switch, Tables, Text, Texts, allowed, converted, refusal
from server.settings.values import ConfigError

TOP_CHANGED = "top.changed"
USER_OVERTAKEN = "user.overtaken"
PERIOD_ENDED = "period.ended"
REVIEW_FLAGGED = "review.flagged"
USER_ERASED = "user.erased"
EVENTS = (TOP_CHANGED, USER_OVERTAKEN, PERIOD_ENDED, REVIEW_FLAGGED, USER_ERASED)

WEBHOOKS_MAX = 16
"""Hooks of a node. Each has a task, a connection, and a look at its boards in each interval."""

URL_CHARACTERS_MAX = 2_000
"""Of a receiver's address. Servers take some 8,000; those of chat services are below 300."""

SECRET_PREFIX = "whsec_"  # noqa: S105  # how a secret begins, and none
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64

_INTERVAL_ALLOWED = "an integer from 10 to 3600000"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_SECRET_ALLOWED = f"{SECRET_PREFIX} and {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes in base64"

IntervalMs = Annotated[int, Meta(ge=10, le=3_600_000, description=_INTERVAL_ALLOWED)]


class WebhookConfig(msgspec.Struct, frozen=True):
    """One hook. No `boards`: all. `interval_ms` None: that of the live channel. `events` are some of EVENTS."""

    name: Text
    url: Text
    events: Texts
    secret: Secrets
    secret_file: Text = ""
    boards: Texts = ()
    allow_private: Switch = False
    interval_ms: IntervalMs | None = None
    disable_after: Text = "3d"

    @property
    def disable_after_s(self) -> int:
        """How long nothing but failures may come before the hook is disabled."""
        return values.parse_duration(self.disable_after)

    def concerns(self, board_id: str) -> bool:
        """Whether the hook is told of a board."""
        return not self.boards or board_id in self.boards

    def __repr__(self) -> str:
        """Show the name alone: a configuration gets into error reports, and a URL may hold a secret too."""
        return f"{type(self).__name__}(name={self.name!r})"


Webhooks = Annotated[tuple[WebhookConfig, ...], Meta(description=allowed(Tables))]

KEY: Key = ("webhooks",)

_TYPES: dict[str, Any] = {
    **{field.name: field.type for field in msgspec.structs.fields(WebhookConfig)}, "interval_ms": IntervalMs,
}  # fmt: skip


def build_webhooks(given: Mapping[Key, Given]) -> tuple[WebhookConfig, ...]:
    """Read and check all hooks. Reads the files of secrets. Raises `ConfigError`."""
    secrets = {key[1]: each for key, each in given.items() if key[0] == "webhooks" and len(key) == 3}
    tables = given.get(KEY, Given((), ""))
    hooks = list(_hooks(tables, secrets))
    if len(hooks) > WEBHOOKS_MAX:
        raise ConfigError(dotted(KEY), f"there may be at most {WEBHOOKS_MAX} (in {tables.origin})")
    for number, hook in enumerate(hooks):
        if any(hook.name == other.name for other in hooks[:number]):
            key = (*KEY, f"[{number}]", "name")
            raise refusal(key, Given(hook.name, tables.origin), "must differ from those of the other hooks")
    for spelt, each in secrets.items():
        if spelt not in {_spelt(hook.name) for hook in hooks}:
            meant = nearest(each.origin, [variable_of((*KEY, hook.name, "secret")) for hook in hooks])
            raise ConfigError(each.origin, f"no webhook has this name; {meant}")
    return tuple(hooks)


def _spelt(name: str) -> str:
    return variable_of((name,)).removeprefix("SCOREBOARD_")


def _hooks(given: Given, secrets: Mapping[str, Given]) -> Iterator[WebhookConfig]:
    for number, table in enumerate(converted(KEY, given, Tables)):
        above = (*KEY, f"[{number}]")
        own = {name: Given(value, given.origin, given.source) for name, value in table.items()}
        for name in own:
            if name not in _TYPES:
                raise ConfigError(dotted((*above, name)), f"no such key (in {given.origin}); {nearest(name, _TYPES)}")
        for name in ("url", "events"):
            if name not in own:
                raise ConfigError(dotted((*above, name)), f"is missing (in {given.origin})")
        _check_url(above, own["url"])
        if "name" not in own:
            own["name"] = Given(_name_of(str(own["url"].value)), given.origin)
        spelt = _spelt(str(own["name"].value))
        if spelt in secrets:
            own["secret"] = secrets[spelt]
            own.pop("secret_file", None)
        yield _hook(above, own, given.origin)


def _hook(above: Key, own: Mapping[str, Given], origin: str) -> WebhookConfig:
    fields = {name: converted((*above, name), each, _TYPES[name]) for name, each in own.items()}

    def refused(name: str, sentence: str) -> ConfigError:
        return refusal((*above, name), own[name], sentence)

    if not _NAME.fullmatch(fields["name"]):
        raise refused("name", "must be at most 64 of A-Z, a-z, 0-9, _, . and -, and begin with a letter or a digit")
    events = fields["events"]
    if not events or len(set(events)) < len(events) or not set(events) <= set(EVENTS):
        raise refused("events", f"must be one or more of {', '.join(EVENTS)}, each once")
    for board_id in fields.get("boards", ()):
        if fault := id_fault(board_id):
            raise refused("boards", f"each board's name {fault}")
    try:
        values.parse_duration(fields.get("disable_after", "3d"))
    except ValueError as error:
        raise refused("disable_after", str(error)) from None
    if fields.get("secret_file"):
        if fields.get("secret"):
            raise ConfigError(
                dotted((*above, "secret")), f"only one may be set of secret and secret_file (in {origin})"
            )
        fields["secret"] = read_secrets(dotted((*above, "secret_file")), fields["secret_file"])
    where = "secret_file" if fields.get("secret_file") else "secret"
    if not fields.get("secret"):
        wanted = f"set it to {_SECRET_ALLOWED}, or set secret_file"
        raise ConfigError(dotted((*above, "secret")), f"is missing (in {origin}): {wanted}")
    if not all(map(_is_secret, fields["secret"])):
        key = dotted((*above, where))
        raise ConfigError(
            key, f"each secret must be {_SECRET_ALLOWED}; the value is not shown (from {own[where].origin})"
        )
    return WebhookConfig(**fields)


def _check_url(above: Key, given: Given) -> None:
    key, url = (*above, "url"), converted((*above, "url"), given, Text)
    masked = msgspec.structs.replace(given, value=values.masked_url(url))
    parts = values.split_url(url)
    if parts is None or not parts.hostname or parts.scheme not in ("http", "https") or len(url) > URL_CHARACTERS_MAX:
        raise refusal(key, masked, "must be an https:// or http:// URL")
    if "@" in parts.netloc or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise refusal(key, masked, "must be a URL of ASCII without a user, a password or a fragment")


def _name_of(url: str) -> str:
    host = re.sub("[^A-Za-z0-9_.-]", "-", urlsplit(url).hostname or "").lstrip("_.-") or "hook"
    return f"{host[:50]}-{hashlib.sha256(url.encode()).hexdigest()[:6]}"


def _is_secret(secret: str) -> bool:
    if not secret.startswith(SECRET_PREFIX):
        return False
    text = secret.removeprefix(SECRET_PREFIX).rstrip("=")
    try:
        data = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (NotBase64, ValueError):
        return False
    return SECRET_BYTES_MIN <= len(data) <= SECRET_BYTES_MAX
