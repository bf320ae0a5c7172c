"""A value of the configuration with its source, the types that values have, and the refusal of a value. Pure.

    raise refusal(("bind",), Given("8080", "SCOREBOARD_BIND"), "must be HOST:PORT")

Rules:
- Each type has a `description`: what is allowed, in the words of an error.
- A refusal shows the value, unless it is a secret, or a table or a URL that may hold one.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from server.settings.environment import Key, dotted
from server.settings.values import ConfigError

DEFAULT = "by default"

Text = Annotated[str, Meta(description="a string")]
Filled = Annotated[str, Meta(min_length=1, description="a string that is not empty")]
Texts = Annotated[tuple[str, ...], Meta(description="a list of strings")]
Secrets = Annotated[tuple[str, ...], Meta(description="a string, or a list of strings")]
Names = Annotated[dict[str, str], Meta(description='a table of strings, as { "their:name" = "scores:write" }')]
Tables = Annotated[tuple[dict[str, Any], ...], Meta(description="a list of tables")]
Switch = Annotated[bool, Meta(description="true or false")]

SECRET_KEYS = {("auth", "jwt_secret"), ("auth", "issuers"), ("webhooks",)}
"""The keys whose values are never shown. Each of the issuers, and of the webhooks, may hold a secret."""

URL_KEYS = {("quorum", "servers")}
"""The keys of URLs that may hold a user and a password. A refusal shows none: what is no URL can't be masked."""

Source = Literal["default", "file", "environment", "flag"]


class Given(msgspec.Struct, frozen=True):
    """A value, and where it was set: the path of the file, the variable or the flag."""

    value: object
    origin: str
    source: Source = "default"


def refusal(key: Key, given: Given, sentence: str) -> ConfigError:
    """Make the error for a value that is not allowed."""
    shown = "(the value is not shown)"
    if key not in SECRET_KEYS | URL_KEYS and key[-1] not in ("jwt_secret", "secret"):
        shown = json.dumps(given.value, default=str, ensure_ascii=True)
        shown = f"{shown if len(shown) <= 80 else shown[:77] + '...'} is not allowed"
    source = given.origin if given.origin == DEFAULT else f"from {given.origin}"
    return ConfigError(dotted(key), f"{sentence}; {shown} ({source})")


def converted(key: Key, given: Given, annotation: Any) -> Any:
    """Give a value as its type. One secret may be written without a list. Raises `ConfigError`.

    An empty string is no secret. An empty list is refused: whoever writes a list means that there are secrets, and
    without any another key would count.
    """
    value = given.value
    if annotation is Secrets and value == []:
        raise refusal(key, given, 'must name one or more secrets; "" means that there is none')
    if annotation is Secrets and isinstance(value, str):
        value = [value] if value else []
    try:
        return msgspec.convert(value, annotation)
    except msgspec.ValidationError:
        raise refusal(key, given, f"must be {allowed(annotation)}") from None


def allowed(annotation: Any) -> str:
    """Say what a type allows."""
    meta: Meta = annotation.__metadata__[0]
    assert meta.description is not None
    return meta.description
