"""The effective configuration: each key with its value and where that came from. Pure.

    for setting in effective(config, given):
        print(setting.key, setting.value, setting.source, setting.origin)

Rules:
- Every key is there, with the value that a start would use: a default is a value too.
- A secret is never shown, only whether it is set. Of a URL only its user, password or token is hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from server.settings import board_form, values
from server.settings.config import TYPES, Config
from server.settings.environment import Key, dotted
from server.settings.given import SECRET_KEYS, URL_KEYS, Given, Source

MASK = "***"


class Setting(msgspec.Struct, frozen=True, omit_defaults=True):
    """One key. `source` is default, file, environment or flag; `origin` the file's path, the variable, or the flag."""

    key: str
    value: Any
    source: Source
    origin: str = ""


def effective(config: Config, given: Mapping[Key, Given]) -> Iterator[Setting]:
    """Give every key, in the order of the configuration; those of boards come last."""
    found: dict[Key, Any] = {key: _value_of(config, key) for key in TYPES}
    for name, rules in config.boards.items():
        form = board_form.form_of(rules)
        found |= {("boards", name, field): getattr(form, field) for field in board_form.FIELDS}
    for key, value in found.items():
        shown = _shown(key, value)
        each = given.get(key)
        if each is None:
            yield Setting(dotted(key), shown, "default")
        else:
            yield Setting(dotted(key), shown, each.source, each.origin)


def _shown(key: Key, value: Any) -> Any:
    if key in SECRET_KEYS:
        return MASK if value else ""
    return tuple(map(values.masked_url, value)) if key in URL_KEYS else value


def _value_of(config: Config, key: Key) -> Any:
    value: Any = config
    for part in key:
        value = getattr(value, part)
    return value
