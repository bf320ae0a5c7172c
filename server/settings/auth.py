"""The configuration of `[auth]`: whose tokens are taken, with which keys, and what a token must say.

    [auth]  one issuer, without keys the owner of the data directory's own key     each  ─►  IssuerConfig
    [[auth.issuers]]  further issuers, each with its name (`iss`) and its keys

Rules:
- Each issuer has one source of keys, and algorithms that fit it: `HS…` for shared secrets, the others for public keys,
  never both (RFC 8725, sections 3.1 and 3.2). So no token can make a public key count as a shared secret. The
  algorithms of public keys may be of several families: the key's type, curve and `alg` say which fits.
- `[auth]` without keys means the data directory's own key, unless there are `[[auth.issuers]]`. Then `[auth]` gives
  only what the issuers leave out: algorithms, audience, client ids, claims and scopes.
- Two issuers never have the same name. The name of a token chooses the keys, so no issuer can speak for another.
- A setting that holds a secret has a twin with `_file` at its end, which names a file with a secret on each line. Both
  given is an error. The line end is no part of a secret. All other white space is, and `secret_notes` tells it.
- An empty audience is allowed only together with client ids: a token for any application must not be good here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from server import bounds
from server.settings import values
from server.settings.environment import Key, dotted, nearest
from server.settings.given import (
    DEFAULT,
    Filled,
    Given,
    Names,
    Secrets,
    Switch,
    Tables,
    Text,
    Texts,
    allowed,
    converted,
    refusal,
)
from server.settings.values import ConfigError

SECRET_BYTES_MIN = {"HS256": 32, "HS384": 48, "HS512": 64}
"""A shared secret is at least as long as its hash (RFC 7518, section 3.2)."""

FAMILIES = {
    **dict.fromkeys(SECRET_BYTES_MIN, "HS"),
    **dict.fromkeys(("RS256", "RS384", "RS512"), "RS"),
    **dict.fromkeys(("PS256", "PS384", "PS512"), "PS"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "ES"),
    **dict.fromkeys(("EdDSA", "Ed25519"), "EdDSA"),
}
"""Every algorithm that may be configured, with its family. Never `none`. `Ed25519` is `EdDSA` with that curve alone
(RFC 9864)."""

SCOPES = frozenset({
    "scores:write", "scores:value", "scores:read", "scores:correct", "scores:review", "users:write", "users:erase",
    "boards:write", "log:read", "admin",
})  # fmt: skip
"""Everything that a token can allow. `scores:value` lets an increment choose a number where its reason has a range.
`scores:correct` takes actions back, `scores:review` decides about flagged users, `users:erase` erases
users. `log:read` is for replicas, which get all data of all users. `admin` contains the others."""

CLAIMS_WITH_A_MEANING = frozenset({"aud", "exp", "iat", "iss", "jti", "nbf", "scope", "scp"})

INHERITED = frozenset({"algorithms", "audience", "client_ids", "scope_claims", "scope_map", "user_claim"})
"""What an issuer that leaves it out has from `[auth]`."""

KEY_SOURCES = ("jwt_secret", "jwt_public_key_file", "jwks_url")


class IssuerConfig(msgspec.Struct, frozen=True):
    """One issuer: where its keys are, and what its tokens must say. Empty `algorithms`: those of the keys."""

    issuer: Text = ""
    jwt_secret: Secrets = ()
    jwt_secret_file: Text = ""
    jwt_public_key_file: Text = ""
    jwks_url: Text = ""
    algorithms: Texts = ()
    audience: Text = "scoreboard"
    client_ids: Texts = ()
    scope_claims: Texts = ("scope", "scp")
    scope_map: Names = {}
    user_claim: Filled = "uid"

    @property
    def key_sources(self) -> tuple[str, ...]:
        """The settings that name keys."""
        return tuple(name for name in KEY_SOURCES if getattr(self, name))

    def __repr__(self) -> str:
        """Show all but the secrets, because a configuration gets into logs and error reports."""
        fields = (
            f"{name}={'***' if name == 'jwt_secret' and self.jwt_secret else repr(getattr(self, name))}"
            for name in self.__struct_fields__
        )
        return f"{type(self).__name__}({', '.join(fields)})"


Issuers = Annotated[tuple[IssuerConfig, ...], msgspec.Meta(description=allowed(Tables))]


class AuthConfig(IssuerConfig, frozen=True):
    """Who may do what. The fields of `IssuerConfig` are of the issuer that `[auth]` itself is."""

    issuers: Issuers = ()
    public_reads: Switch = True

    @property
    def is_issuer(self) -> bool:
        """Whether `[auth]` itself has keys: its own, or those of the data directory."""
        return bool(self.key_sources) or not self.issuers

    @property
    def uses_signing_key(self) -> bool:
        """Whether the key is the one in the data directory."""
        return not self.key_sources and not self.issuers

    @property
    def can_mint(self) -> bool:
        """Whether the configuration leads to a key that signs. Public keys only verify."""
        return bool(self.jwt_secret) or self.uses_signing_key


TYPES: dict[str, Any] = {field.name: field.type for field in msgspec.structs.fields(IssuerConfig)}

Settings = Mapping[str, Given]
"""The settings of one issuer that were given, by name."""


def build_auth(given: Settings) -> AuthConfig:
    """Read and check all of `[auth]`. Reads the files of secrets. Raises `ConfigError`."""
    own = {name: each for name, each in given.items() if name in TYPES}
    fields = _fields(("auth",), own)
    if "public_reads" in given:
        fields["public_reads"] = converted(("auth", "public_reads"), given["public_reads"], Switch)
    if "issuers" in given:
        inherited = {name: value for name, value in fields.items() if name in INHERITED}
        fields["issuers"] = tuple(_issuers(given["issuers"], inherited))
    auth = AuthConfig(**fields)
    if auth.is_issuer:
        _check(("auth",), auth, own)
    elif auth.issuer:
        raise refusal(("auth", "issuer"), own["issuer"], "names nobody without keys; each of auth.issuers has its own")
    _check_names(auth)
    return auth


def secret_notes(auth: AuthConfig) -> Iterator[tuple[str, str]]:
    """Give what an operator should know of the secrets: a setting and a sentence each. Never a secret."""
    for name, issuer in (("auth", auth), *((f"auth.issuers[{n}]", one) for n, one in enumerate(auth.issuers))):
        if any(secret != secret.strip() for secret in issuer.jwt_secret):
            key = f"{name}.jwt_secret_file" if issuer.jwt_secret_file else f"{name}.jwt_secret"
            yield (
                key,
                "white space around a secret is a part of it: whoever signs must have the same, or remove it here",
            )


def _issuers(given: Given, inherited: Mapping[str, Any]) -> Iterator[IssuerConfig]:
    for number, table in enumerate(converted(("auth", "issuers"), given, Tables)):
        above = ("auth", "issuers", f"[{number}]")
        own = {name: Given(value, given.origin) for name, value in table.items()}
        for name in own:
            if name not in TYPES:
                raise ConfigError(dotted((*above, name)), f"no such key (in {given.origin}); {nearest(name, TYPES)}")
        issuer = IssuerConfig(**{**inherited, **_fields(above, own)})
        if not issuer.issuer:
            raise refusal((*above, "issuer"), Given("", given.origin), "must be the claim iss of its tokens")
        if not issuer.key_sources:
            wanted = ", ".join(KEY_SOURCES)
            raise ConfigError(dotted(above), f"has no keys: set one of {wanted} (in {given.origin})")
        _check(above, issuer, own)
        yield issuer


def _fields(above: Key, given: Settings) -> dict[str, Any]:
    """Check each setting by itself, and read the secrets that a file holds."""
    fields = {name: converted((*above, name), each, TYPES[name]) for name, each in given.items()}
    try:
        values.check_jwks_url(fields.get("jwks_url", ""))
    except ValueError as error:
        raise refusal((*above, "jwks_url"), given["jwks_url"], str(error)) from None
    if fields.get("jwt_secret_file"):
        if fields.get("jwt_secret"):
            both = [f"{dotted((*above, name))} ({given[name].origin})" for name in ("jwt_secret", "jwt_secret_file")]
            raise ConfigError(dotted((*above, "jwt_secret")), f"only one may be set of {' and '.join(both)}")
        key = dotted((*above, "jwt_secret_file"))
        fields["jwt_secret"] = read_secrets(key, fields["jwt_secret_file"])
    return fields


def read_secrets(key: str, path: str) -> tuple[str, ...]:
    """Read the secrets of a file, one on each line. `key` names the setting. Raises `ConfigError`."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(bounds.KEY_FILE_BYTES_MAX).decode()
    except OSError as error:
        raise ConfigError(key, f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(key, f"{path} is not UTF-8") from None
    secrets = tuple(line.removesuffix("\r") for line in text.split("\n") if line.strip())
    if not secrets:
        raise ConfigError(key, f"{path} is empty")
    if secrets[0].startswith("-----BEGIN"):
        raise ConfigError(key, f"{path} holds a key in PEM form, not a secret")
    return secrets


def _check(above: Key, issuer: IssuerConfig, given: Settings) -> None:
    """Check that keys, algorithms and claims of one issuer fit together."""

    def refused(name: str, sentence: str) -> ConfigError:
        return refusal((*above, name), given.get(name, Given(getattr(issuer, name), DEFAULT)), sentence)

    def origin(name: str) -> str:
        return (given.get(name) or given[f"{name}_file"]).origin

    sources = issuer.key_sources
    if len(sources) > 1:
        both = ", ".join(f"{dotted((*above, name))} ({origin(name)})" for name in sources)
        raise ConfigError(dotted((*above, sources[1])), f"only one source of keys may be set, not {both}")
    source = sources[0] if sources else None
    needed = source not in (None, "jwt_secret") or "algorithms" in given
    if (needed or issuer.algorithms) and (fault := _algorithms_fault(above, issuer.algorithms, source)):
        raise refused("algorithms", fault)
    bytes_min = max(SECRET_BYTES_MIN.get(algorithm, 0) for algorithm in issuer.algorithms or ("HS256",))
    if any(len(secret.encode("utf-8", "surrogatepass")) < bytes_min for secret in issuer.jwt_secret):
        name = "jwt_secret_file" if issuer.jwt_secret_file else "jwt_secret"
        sentence = f"each secret must have at least {bytes_min} bytes for its algorithms"
        raise refusal((*above, name), given[name], sentence)
    if not issuer.audience and not issuer.client_ids:
        wanted = "a string that is not empty; empty is allowed only with client_ids, the applications that may ask"
        raise refused("audience", f"must be {wanted}")
    if issuer.user_claim in CLAIMS_WITH_A_MEANING or issuer.user_claim in issuer.scope_claims:
        raise refused("user_claim", "must not be a claim that has a meaning of its own")
    if not issuer.scope_claims or not all(issuer.scope_claims):
        raise refused("scope_claims", "must name one or more claims")
    for theirs, ours in issuer.scope_map.items():
        if unknown := sorted(set(ours.split()) - SCOPES):
            known = ", ".join(sorted(SCOPES))
            raise refused("scope_map", f'{theirs!r} means no {", ".join(unknown)}: there are {known}, and "" for none')


def _algorithms_fault(above: Key, algorithms: tuple[str, ...], source: str | None) -> str | None:
    public = list(FAMILIES)[len(SECRET_BYTES_MIN) :]
    fitting = list(SECRET_BYTES_MIN) if source == "jwt_secret" else public
    if source is None:
        fitting = [name for name in FAMILIES if FAMILIES[name] in ("HS", "EdDSA")]
    keys = dotted((*above, source)) if source else "the signing key in the data directory"
    if not algorithms or len(set(algorithms)) < len(algorithms) or not set(algorithms) <= set(fitting):
        return f"must be one or more of {', '.join(fitting)}, each once: these fit {keys}"
    if source is None and len({FAMILIES[algorithm] for algorithm in algorithms}) > 1:
        return f"must be HS… or EdDSA, not both: {keys} is of one kind"
    return None


def _check_names(auth: AuthConfig) -> None:
    seen = {auth.issuer} if auth.is_issuer and auth.issuer else set()
    for number, issuer in enumerate(auth.issuers):
        if issuer.issuer in seen:
            key = dotted(("auth", "issuers", f"[{number}]", "issuer"))
            raise ConfigError(key, f"there is another issuer of the name {issuer.issuer!r}")
        seen.add(issuer.issuer)
