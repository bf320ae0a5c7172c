"""Who a request comes from: bearer tokens (RFC 6750) that are JWTs (RFC 7519), verified by the rules of RFC 8725.

    authenticator = Authenticator(config.auth, key_source(config)); await nursery.start(authenticator.run)
    caller = await authenticator.authenticate(request.headers.get("authorization"))      a `Response`: the refusal

What a token must be:
- `Authorization: Bearer TOKEN`, where TOKEN is three base64url parts with at most TOKEN_CHARACTERS_MAX together.
- Signed with a configured algorithm, by a key of the configured source. Its header can only choose between those keys.
  Headers that bring or point to another key (`jku`, `x5u` …) are ignored. Headers that change how a token is read are
  refused (`crit`, `b64`, `zip`, `cty`, `enc`), and so is a `typ` other than JWT and at+jwt.
- It has `exp`, `sub` and `aud` (ours among them), and `iss` if one is configured. `nbf` and `iat` are optional. All
  times have a leeway of TOKEN_LEEWAY_SECONDS, because clocks differ.
- `sub` and the user claim are good ids, because they go into the log. A malformed user claim refuses the token: without
  the claim it would be good for every user.
- `scope` is a string with spaces between the scopes, or a list of strings. Unknown scopes mean nothing.

Rules:
- Nothing that a token or a header contained is repeated in an answer, a log or an exception.
- Verifying is slow, so verified tokens are remembered by their SHA-256 digest, at most VERIFIED_TOKENS_MAX. The least
  recently used goes first. None is remembered beyond `exp`: within the leeway each use is verified. A withdrawn key
  (`KeySource.generation`) makes all forgotten.
- Refusals are not remembered: they would push out verified tokens.

PyJWT checks form, signature, audience and issuer. Times are checked here, against the clock that was passed in.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import sha256
from math import inf, isfinite
from typing import Any, Literal, Protocol

import jwt
import msgspec
import trio
from jwt.exceptions import InvalidSubjectError

from engine.commands import id_fault
from server import bounds
from server.access.jwks import JwksKeys
from server.access.keys import SCOPES, KeySource, KeysUnavailable, fixed_key
from server.http.messages import RETRY_SOON, Response, error
from server.settings.config import AuthConfig, Config

REALM = "scoreboard"

_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_HEADERS_REFUSED = ("crit", "b64", "zip", "cty", "enc")
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})

_DECODER = jwt.PyJWT(
    options={
        "require": ["exp", "aud", "sub"],
        "verify_exp": False,
        "verify_nbf": False,
        "verify_iat": False,
        "enforce_minimum_key_length": True,
    }
)


class Principal(msgspec.Struct, frozen=True):
    """The caller that a verified token names. `user` is the only user that it may act for; None: any."""

    sub: str
    scopes: frozenset[str]
    user: str | None
    expires_s: float

    def may(self, scopes: Iterable[str]) -> bool:
        """Whether the token carries any of these scopes."""
        return "admin" in self.scopes or not self.scopes.isdisjoint(scopes)

    def may_act_for(self, user_id: str) -> bool:
        return self.user is None or self.user == user_id


ANYBODY = Principal(sub="", scopes=frozenset(), user=None, expires_s=inf)
"""The caller of a request that needs no token."""


class AuthFault(msgspec.Struct, frozen=True):
    """Why a caller is refused. `description` is ASCII without quotes, and has nothing of the token in it."""

    kind: Literal["missing", "invalid", "scope", "unavailable"]
    description: str
    scopes: tuple[str, ...] = ()

    @property
    def challenge(self) -> str:
        """The value of WWW-Authenticate (RFC 6750, section 3). Without a token there is no error code."""
        value = f'Bearer realm="{REALM}"'
        if self.kind == "invalid":
            value += f', error="invalid_token", error_description="{self.description}"'
        elif self.kind == "scope":
            value += f', error="insufficient_scope", error_description="{self.description}"'
            value += f', scope="{" ".join(self.scopes)}"'
        return value

    def response(self) -> Response:
        """The answer: 401, 403 for a scope, 503 while there are no keys to verify with."""
        sentence = f"{self.description[:1].upper()}{self.description[1:]}."
        if self.kind == "unavailable":
            return error(503, "OVERLOADED", sentence, headers=RETRY_SOON)
        challenge = (("www-authenticate", self.challenge),)
        if self.kind == "scope":
            return error(403, "UNAUTHORIZED", sentence, {"anyOf": list(self.scopes)}, headers=challenge)
        return error(401, "UNAUTHENTICATED", sentence, headers=challenge)


MISSING = AuthFault("missing", "a bearer token is required")
UNAVAILABLE = AuthFault("unavailable", "tokens cannot be verified yet, because the keys of their issuer are not here")


def _invalid(description: str) -> AuthFault:
    return AuthFault("invalid", description)


_MALFORMED = _invalid("the token is malformed")
_UNSIGNED = _invalid("the signature of the token does not verify")
_EXPIRED = _invalid("the token has expired")
_NOT_YET = _invalid("the token is not valid yet")

_FAULTS: tuple[tuple[type[jwt.PyJWTError], AuthFault], ...] = (
    (jwt.InvalidSignatureError, _UNSIGNED),
    (jwt.InvalidAlgorithmError, _invalid("the token is signed with an algorithm that is not accepted")),
    (jwt.InvalidAudienceError, _invalid("the token is for another audience")),
    (jwt.InvalidIssuerError, _invalid("the token is from another issuer")),
    (InvalidSubjectError, _invalid("the claim sub must be a string")),
    (jwt.MissingRequiredClaimError, _invalid("the token lacks one of the claims exp, aud, sub and iss")),
    (jwt.PyJWTError, _MALFORMED),
)
"""PyJWT's errors, the most specific first. Its texts are not used, because some quote the token."""


def require(principal: Principal, any_of: tuple[str, ...]) -> AuthFault | None:
    """Give the fault of a caller that has none of these scopes, else None. `admin` has them all."""
    if principal.may(any_of):
        return None
    return AuthFault("scope", f"the token lacks the scope {' or '.join(any_of)}", any_of)


def key_source(config: Config) -> KeySource:
    """Give the configured source of keys. Its `run` must be running while it is used."""
    if config.auth.jwks_url:
        return JwksKeys(config.auth.jwks_url, config.auth.algorithms)
    return fixed_key(config)


class Authenticates(Protocol):
    """Verifies callers."""

    async def authenticate(self, authorization: str | None) -> Principal | Response:
        """Give the caller that an Authorization header names; a `Response` is the refusal."""


async def authorize(
    authenticator: Authenticates, scopes: tuple[str, ...], authorization: str | None
) -> Response | None:
    """Give the refusal of a caller that has none of these scopes, else None."""
    found = await authenticator.authenticate(authorization)
    if isinstance(found, Response):
        return found
    fault = require(found, scopes)
    return None if fault is None else fault.response()


class Authenticator:
    """Verifies tokens. `clock_s` is wall-clock time in seconds since 1970."""

    def __init__(self, auth: AuthConfig, keys: KeySource, *, clock_s: Callable[[], float] = time.time) -> None:
        self._auth = auth
        self._keys = keys
        self._clock_s = clock_s
        self._verified: OrderedDict[bytes, Principal] = OrderedDict()
        self._generation = keys.generation

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Refresh the keys."""
        await self._keys.run(task_status=task_status)

    async def authenticate(self, authorization: str | None) -> Principal | Response:
        """See `Authenticates`."""
        found = await self.examine(authorization)
        return found.response() if isinstance(found, AuthFault) else found

    async def examine(self, authorization: str | None) -> Principal | AuthFault:
        """Verify the value of an Authorization header."""
        if authorization is None:
            return MISSING
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return _invalid("the header Authorization must be Bearer and a token")
        return await self.verify(token.strip(" "))

    @property
    def generation(self) -> int:
        """Grows with each withdrawn key: earlier verifications are void."""
        return self._keys.generation

    def recall(self, authorization: str | None) -> Principal | None:
        """Give the remembered caller of an Authorization header, without waiting for keys."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip(" ")
        if scheme.lower() != "bearer" or not token.isascii() or len(token) > bounds.TOKEN_CHARACTERS_MAX:
            return None
        return self._recall(sha256(token.encode("ascii")).digest())

    def is_current(self, principal: Principal, generation: int) -> bool:
        """Whether a caller that was remembered in this generation is still verified."""
        return generation == self._keys.generation and self._clock_s() < principal.expires_s

    async def verify(self, token: str) -> Principal | AuthFault:
        if len(token) > bounds.TOKEN_CHARACTERS_MAX:
            return _invalid(f"the token is longer than {bounds.TOKEN_CHARACTERS_MAX} characters")
        if not _TOKEN.fullmatch(token):
            return _MALFORMED
        digest = sha256(token.encode("ascii")).digest()
        principal = self._recall(digest)
        if principal is not None:
            return principal
        try:
            found = await self._examine_token(token)
        except KeysUnavailable:
            return UNAVAILABLE
        if isinstance(found, Principal):
            self._remember(digest, found)
        return found

    def _recall(self, digest: bytes) -> Principal | None:
        if self._generation != self._keys.generation:
            self._generation = self._keys.generation
            self._verified.clear()
        principal = self._verified.get(digest)
        if principal is None:
            return None
        if self._clock_s() >= principal.expires_s:
            del self._verified[digest]
            return None
        self._verified.move_to_end(digest)
        return principal

    def _remember(self, digest: bytes, principal: Principal) -> None:
        # A key may have been withdrawn while this token waited for a fetch.
        if self._generation != self._keys.generation or self._clock_s() >= principal.expires_s:
            return
        self._verified[digest] = principal
        if len(self._verified) > bounds.VERIFIED_TOKENS_MAX:
            self._verified.popitem(last=False)

    async def _examine_token(self, token: str) -> Principal | AuthFault:
        try:
            # The header alone: PyJWT would also decode the other parts, and again below.
            header = jwt.get_unverified_header(token.partition(".")[0] + ".e30.e30")
            if fault := self._header_fault(header):
                return fault
            key = await self._keys.find(header.get("kid"), header["alg"])
            if key is None:
                return _invalid("the token is signed with a key that is not known")
            claims = _DECODER.decode(
                token,
                key,
                algorithms=[header["alg"]],  # a configured one: see _header_fault
                audience=self._auth.audience,
                issuer=self._auth.issuer or None,
            )
        except jwt.PyJWTError as raised:
            return next(fault for kind, fault in _FAULTS if isinstance(raised, kind))
        return self._principal_of(claims)

    def _header_fault(self, header: dict[str, Any]) -> AuthFault | None:
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._auth.algorithms:
            return _invalid("the token is signed with an algorithm that is not accepted")
        for name in _HEADERS_REFUSED:
            if name in header:
                return _invalid(f"the token has the header {name}, which is not accepted")
        kind = header.get("typ", "JWT")
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            return _invalid("the token is of another type (typ must be JWT or at+jwt)")
        return None

    def _principal_of(self, claims: dict[str, Any]) -> Principal | AuthFault:
        """Check what PyJWT does not: times, the ids that go into the log, scopes."""
        now_s = self._clock_s()
        expires_s = _time_of(claims["exp"])
        begins_s = _time_of(claims.get("nbf", 0))
        issued_s = _time_of(claims.get("iat", 0))
        if expires_s is None or begins_s is None or issued_s is None:
            return _invalid("the claims exp, nbf and iat must be numbers")
        if now_s >= expires_s + bounds.TOKEN_LEEWAY_SECONDS:
            return _EXPIRED
        if max(begins_s, issued_s) > now_s + bounds.TOKEN_LEEWAY_SECONDS:
            return _NOT_YET
        if fault := id_fault(claims["sub"]):
            return _invalid(f"the claim sub {fault}")
        user = claims.get(self._auth.user_claim)
        if self._auth.user_claim in claims:
            if not isinstance(user, str):
                return _invalid("the claim that names the user must be a string")
            if fault := id_fault(user):
                return _invalid(f"the claim that names the user {fault}")
        scopes = _scopes_of(claims.get("scope", ""))
        if scopes is None:
            return _invalid("the claim scope must be a string or a list of strings")
        return Principal(sub=claims["sub"], scopes=scopes, user=user, expires_s=expires_s)

    def _check(self) -> None:
        assert len(self._verified) <= bounds.VERIFIED_TOKENS_MAX
        assert all(len(digest) == sha256().digest_size for digest in self._verified)


def _time_of(value: object) -> float | None:
    """Read a NumericDate (RFC 7519, section 2): a finite number, neither text nor true."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if isfinite(seconds) else None


def _scopes_of(claim: object) -> frozenset[str] | None:
    if isinstance(claim, str):
        return SCOPES.intersection(claim.split(" "))
    if isinstance(claim, list) and all(isinstance(each, str) for each in claim):
        return SCOPES.intersection(claim)
    return None
