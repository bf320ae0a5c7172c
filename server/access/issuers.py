"""The issuers whose tokens are taken: each with its rules and its keys, chosen by the name in a token.

    issuers = trusted_issuers(config)
    issuer = issuer_of(token, {each.rules.issuer: each for each in issuers})

Rules:
- The name is read before anything is verified. It chooses keys and rules, and those verify the whole token, the name
  included: a false name leads to keys that did not sign it.
- The issuer of no name, if there is one, takes every token that names none of the others.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import trio

from server.access.directory_keys import DirectoryKeys
from server.access.jwks import JwksKeys
from server.access.keys import FixedKeys, KeySource, VerificationKey, named_keys
from server.settings.auth import AuthConfig, IssuerConfig
from server.settings.config import Config


class TrustedIssuer(msgspec.Struct, frozen=True):
    """The rules for the tokens of one issuer, and the source of its keys."""

    rules: IssuerConfig
    keys: KeySource


def trusted_issuers(config: Config, *, leads: bool = True) -> list[TrustedIssuer]:
    """Give all configured issuers. Their keys' `run` must be running while they are used. Raises `ConfigError`.

    `leads`: a key is made where the data directory should have one and has none.
    """
    auth = config.auth
    issuers = []
    if auth.uses_signing_key:
        issuers.append(TrustedIssuer(auth, DirectoryKeys(config, make=leads)))
    elif auth.is_issuer:
        issuers.append(TrustedIssuer(auth, _keys_of("auth", auth)))
    for number, rules in enumerate(auth.issuers):
        issuers.append(TrustedIssuer(rules, _keys_of(f"auth.issuers[{number}]", rules)))
    return issuers


def renewed_keys(issuers: Sequence[TrustedIssuer], auth: AuthConfig) -> list[tuple[str, FixedKeys, FixedKeys]]:
    """Load the keys that a configuration names anew: the table of the issuer, its keys of now, and the new ones.

    The issuers are those of `auth`, in its order. Keys of other kinds renew themselves. Raises `ConfigError`.
    """
    tables: list[tuple[str, IssuerConfig]] = [("auth", auth)] if auth.is_issuer else []
    tables += [(f"auth.issuers[{number}]", rules) for number, rules in enumerate(auth.issuers)]
    return [
        (above, known.keys, named_keys(above, rules))
        for known, (above, rules) in zip(issuers, tables, strict=True)
        if isinstance(known.keys, FixedKeys)
    ]


def key_warnings(issuers: Sequence[TrustedIssuer]) -> list[str]:
    """Give what an operator should know of the issuers' keys: whose tokens are all refused for want of keys."""
    return [
        f"tokens of {each.rules.issuer or 'the issuer'} cannot be verified: {fault} (the log says why: jwks_failed)"
        for each in issuers
        if isinstance(each.keys, JwksKeys) and (fault := each.keys.fault()) is not None
    ]


def _keys_of(above: str, rules: IssuerConfig) -> KeySource:
    return JwksKeys(rules.jwks_url, rules.algorithms) if rules.jwks_url else named_keys(above, rules)


def issuer_of(token: str, issuers: Mapping[str, TrustedIssuer]) -> TrustedIssuer | None:
    """Give the issuer that a token is for. Nothing of the token is verified yet."""
    if len(issuers) == 1:
        return next(iter(issuers.values()))
    return issuers.get(_name_in(token)) or issuers.get("")


def _name_in(token: str) -> str:
    """Read the claim `iss`; empty where there is none, or the claims cannot be read."""
    text = token.split(".")[1]
    try:
        claims: Any = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, binascii.Error):
        return ""
    name = claims.get("iss") if isinstance(claims, dict) else None
    return name if isinstance(name, str) else ""


class AllKeys:
    """The keys of several issuers, as far as they change together."""

    def __init__(self, sources: Sequence[KeySource]) -> None:
        self._sources = tuple(sources)

    @property
    def generation(self) -> int:
        """See `KeyChanges`: each withdrawn key counts."""
        return sum(source.generation for source in self._sources)

    def has(self, key: VerificationKey) -> bool:
        """See `KeyChanges`."""
        return any(source.has(key) for source in self._sources)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Refresh the keys of all issuers. Started when each has tried once."""
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as starting:
                for source in self._sources:
                    starting.start_soon(nursery.start, source.run)
            task_status.started()
