"""What a running process takes over of a configuration that it reads anew (SIGHUP). Pure.

    changes = compare(running, read)
    changes.changed              ["limits.user_per_minute"]: it counts from now on
    changes.needs_restart        ["bind"]: it differs, and does not count before a restart
    changes.config               what counts now: the running configuration with `changed`

Rules:
- A key is taken over only if it is in RELOADED. All others are built into what runs; so they are named and left alone.
- Keys of an issuer change without a restart while everything else about issuers stays: a rotation is what cannot wait.
  The file that such a setting names is read anew each time, so its content may change under the same name.
- Names alone are told, never values: some are secrets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec.structs import replace

from server.settings.auth import AuthConfig, IssuerConfig
from server.settings.config import Config
from server.settings.environment import Key, dotted

RELOADED: frozenset[Key] = frozenset(
    {
        ("auth", "jwt_public_key_file"),
        ("auth", "jwt_secret"),
        ("auth", "jwt_secret_file"),
        ("limits", "caller_per_minute"),
        ("limits", "user_per_minute"),
        ("live", "allowed_origins"),
        ("live", "interval_ms"),
        ("live", "max_viewers"),
        ("live", "max_viewers_per_address"),
        ("logging", "format"),
        ("logging", "level"),
    }
)
"""The keys that take effect without a restart."""

ROTATED = ("jwt_public_key_file", "jwt_secret", "jwt_secret_file")
"""The settings of an issuer that name its keys, but for `jwks_url`, whose keys rotate by themselves."""


class Changes(msgspec.Struct, frozen=True):
    """See above. The names are full, and in the order of the configuration."""

    changed: list[str]
    needs_restart: list[str]
    config: Config


def compare(running: Config, read: Config) -> Changes:
    """Say what a new configuration changes of the one that counts now."""
    may_rotate = _without_keys(running.auth) == _without_keys(read.auth)
    changed: list[str] = []
    needs_restart: list[str] = []
    sections: dict[str, dict[str, Any]] = {}
    for key, before, after in _leaves(running, read):
        if before == after:
            continue
        if key == ("auth", "issuers") and may_rotate:
            changed += _rotated(running.auth, read.auth)
        elif key in RELOADED and (key[0] != "auth" or may_rotate):
            changed.append(dotted(key))
        else:
            needs_restart.append(dotted(key))
            continue
        sections.setdefault(key[0], {})[key[1]] = after
    parts = {name: replace(getattr(running, name), **fields) for name, fields in sections.items()}
    return Changes(changed, needs_restart, replace(running, **parts))


def _leaves(running: Config, read: Config) -> Iterator[tuple[Key, Any, Any]]:
    """Give each key with both values; a board is one key."""
    for field in running.__struct_fields__:
        before, after = getattr(running, field), getattr(read, field)
        if isinstance(before, msgspec.Struct):
            for name in before.__struct_fields__:
                yield (field, name), getattr(before, name), getattr(after, name)
        elif isinstance(before, dict):
            for name in dict.fromkeys([*before, *after]):
                yield (field, name), before.get(name), after.get(name)
        else:
            yield (field,), before, after


def _without_keys(auth: AuthConfig) -> AuthConfig:
    """Give what must stay for keys to change: all rules of issuers, and the kind of each one's keys."""

    def without(issuer: IssuerConfig) -> IssuerConfig:
        return replace(issuer, jwt_secret=issuer.key_sources, jwt_secret_file="", jwt_public_key_file="")

    own = without(auth)
    assert isinstance(own, AuthConfig)
    return replace(own, public_reads=True, issuers=tuple(without(each) for each in auth.issuers))


def _rotated(running: AuthConfig, read: AuthConfig) -> list[str]:
    """Name the keys of issuers that differ. There are as many issuers in both, in one order."""
    return [
        dotted(("auth", "issuers", f"[{number}]", name))
        for number, (before, after) in enumerate(zip(running.issuers, read.issuers, strict=True))
        for name in ROTATED
        if getattr(before, name) != getattr(after, name)
    ]
