"""The configuration as text: environment variables and flags, which have no types. Pure.

    for key, variable in settings(os.environ, types, boards):
        value = from_text(os.environ[variable], types[key])

Rules:
- A key's variable is `SCOREBOARD_` and its path in upper case, joined by `_`: `auth.jwt_secret` is
  `SCOREBOARD_AUTH_JWT_SECRET`. An empty variable sets the key to "".
- A list is a TOML or JSON array, or values with commas between them. A table is a TOML inline table, a JSON object, or
  `REASON=10,OTHER=5`.
- A text without a comma is one secret as it stands: white space around it is not removed.
- A board's variable is `SCOREBOARD_BOARDS_NAME_POINTS`. NAME means the board in the file (or `main`) whose name is NAME
  in upper case with `_` for every other character. Where there is none, it means a new board: NAME in lower case.
- A webhook's variable is `SCOREBOARD_WEBHOOKS_NAME_SECRET`: `server.settings.webhooks` finds the hook of this name.
- A variable that begins with `SCOREBOARD_` and is no key is an error: a misspelt limit must not silently be no limit.
- Service links are passed over. Kubernetes sets them in each pod beside a service whose name begins with "scoreboard",
  such as `scoreboard-replica`. A key goes before a link, so a link can never hide a key.
- `…_PORT` is a link only with a URL as its value, which orchestrators always write. `SCOREBOARD_PORT=8080` was written
  by a person who wants another port, and must not be without effect.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from types import GenericAlias
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from server import bounds
from server.settings.values import ConfigError

Key = tuple[str, ...]

PREFIX = "SCOREBOARD_"

_BOARD_VARIABLE = re.compile(PREFIX + "BOARDS_([A-Z0-9_]+)_POINTS", re.ASCII)
_HOOK_VARIABLE = re.compile(PREFIX + "WEBHOOKS_([A-Z0-9_]+)_SECRET", re.ASCII)
_SERVICE_LINK = re.compile(
    PREFIX + r"([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)",
    re.ASCII,
)
_PLACE = re.compile(r"\[[0-9]+\]", re.ASCII)
_PORT_LINK = re.compile(PREFIX + r"([A-Z0-9_]+_)?PORT", re.ASCII)
_PORT_URL = re.compile(r"(tcp|udp|sctp)://", re.ASCII | re.IGNORECASE)
_INTEGER = re.compile(r"-?[0-9]+(_[0-9]+)*", re.ASCII)


def dotted(key: Key) -> str:
    """Give the key's full name as the file has it: quoted and escaped where TOML wants that.

    The place in a list is a part such as `[0]`.
    """
    return "".join(part if _PLACE.fullmatch(part) else f".{_quoted(part)}" for part in key).removeprefix(".")


def _quoted(part: str) -> str:
    return part if re.fullmatch("[A-Za-z0-9_-]+", part, re.ASCII) else json.dumps(part)


def variable_of(key: Key) -> str:
    return PREFIX + "_".join(map(_upper, key))


def _upper(part: str) -> str:
    return re.sub("[^A-Z0-9]", "_", part.upper())


def settings(environ: Mapping[str, str], types: Mapping[Key, Any], boards: Iterable[str]) -> Iterator[tuple[Key, str]]:
    """Give (key, variable) for every variable that sets a key. `boards` are the known names. Raises `ConfigError`."""
    known = {variable_of(key): key for key in types}
    boards = list(boards)
    for variable in sorted(environ):
        if not variable.startswith(PREFIX):
            continue
        if variable in known:
            yield known[variable], variable
        elif is_service_link(variable, environ[variable]):
            continue
        elif board := _BOARD_VARIABLE.fullmatch(variable):
            yield ("boards", _board_name(variable, board[1], boards), "points"), variable
        elif hook := _HOOK_VARIABLE.fullmatch(variable):
            yield ("webhooks", hook[1], "secret"), variable
        else:
            meant = nearest(variable, [*known, f"{PREFIX}BOARDS_MAIN_POINTS"])
            raise ConfigError(variable, f"no such setting; {meant}")


def is_service_link(variable: str, value: str) -> bool:
    """Whether an orchestrator set this variable to tell of a service whose name begins with "scoreboard"."""
    if _SERVICE_LINK.fullmatch(variable):
        return True
    return _PORT_LINK.fullmatch(variable) is not None and _PORT_URL.match(value) is not None


def service_links(environ: Mapping[str, str]) -> list[str]:
    """Give the names of the variables that are passed over, for the log."""
    return sorted(variable for variable, value in environ.items() if is_service_link(variable, value))


def _board_name(variable: str, written: str, boards: list[str]) -> str:
    same = sorted({name for name in boards if _upper(name) == written})
    if len(same) > 1:
        raise ConfigError(variable, f"could mean any of the boards {', '.join(same)}; set their points in the file")
    return same[0] if same else written.lower()


def nearest(name: str, known: Iterable[str]) -> str:
    """Give a hint: the known name that is close, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def plain_type(annotation: Any) -> Any:
    """Give the type without its `Annotated` constraints."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def from_text(text: str, annotation: Any) -> object:
    """Turn text into the annotated type; the caller checks the value. Raises ValueError with the allowed form."""
    kind = plain_type(annotation)
    if kind is str or get_origin(kind) is Literal:
        return text
    if kind == str | tuple[str, ...]:
        return _one_or_more(text.strip())
    if kind is int:
        return _integer(text.strip())
    if kind is bool:
        return _truth(text.strip().lower())
    assert isinstance(kind, GenericAlias)
    if kind.__origin__ is dict:
        return _table(text.strip(), kind.__args__[1])
    return _items(text.strip())


def secrets_from_text(text: str) -> object:
    """Turn text into secrets. Raises ValueError with the allowed form."""
    is_array = text.startswith("[") and text.rstrip().endswith("]")
    return _items(text.strip()) if "," in text or is_array else text


def _integer(text: str) -> int:
    if len(text) > bounds.INTEGER_CHARACTERS_MAX or not _INTEGER.fullmatch(text):
        raise ValueError("must be an integer")
    return int(text)


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def _items(text: str) -> object:
    if text.startswith("["):
        return _json_or_toml(text, 'must be values with commas between them, or an array such as ["a", "b"]')
    return _split(text)


def _split(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _one_or_more(text: str) -> object:
    """Read one value, or a list. An address such as `[::1]:80` begins as an array does, but not with a quote."""
    if re.match(r"""\[\s*["']""", text) is None and "," not in text:
        return text
    return _items(text) if re.match(r"""\[\s*["']""", text) else _split(text)


def _table(text: str, kind: type) -> object:
    example = "REASON=10,OTHER=5 or a table such as { REASON = 10, OTHER = 5 }"
    if kind is str:
        example = 'THEIRS=ours,OTHER=ours or a table such as { "THEIRS" = "ours" }'
    if text.startswith("{"):
        return _json_or_toml(text, f"must be {example}")
    table: dict[str, object] = {}
    for item in filter(None, (item.strip() for item in text.split(","))):
        # From the right for texts: a name may be a URL with an equals sign in it, a value never has one.
        split = item.rpartition if kind is str else item.partition
        name, equals, value = (part.strip() for part in split("="))
        if not equals or name in table or (kind is not str and not _INTEGER.fullmatch(value)):
            raise ValueError(f"must be {example}")
        table[name] = value if kind is str else _integer(value)
    return table


def _json_or_toml(text: str, allowed: str) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return _toml(text, allowed)


def _toml(text: str, allowed: str) -> object:
    """Read one TOML value. Text that ends the value and adds another key is refused."""
    try:
        document = msgspec.toml.decode(f"value = {text}")
    except (msgspec.DecodeError, RecursionError):
        raise ValueError(allowed) from None
    if list(document) != ["value"]:
        raise ValueError(allowed)
    return document["value"]
