"""Who a request comes from: bearer tokens (RFC 6750) that are JWTs (RFC 7519), verified by the rules of RFC 8725.

    authenticator = Authenticator(trusted_issuers(config)); await nursery.start(authenticator.run)
    caller = await authenticator.authenticate(request.headers.get("authorization"))      a `Response`: the refusal

What a token must be:
- `Authorization: Bearer TOKEN`, where TOKEN is three base64url parts with at most TOKEN_CHARACTERS_MAX together.
- From a configured issuer. Its `iss` chooses the issuer, and so the keys and the rules. A token of no name that is
  configured is for the issuer that `[auth]` itself is.
- Signed with an algorithm of that issuer, by one of its keys. Its header can only choose between those keys. Headers
  that bring or point to another key (`jku`, `x5u` …) are ignored. Headers that change how a token is read are refused
  (`crit`, `b64`, `zip`, `cty`, `enc`), and so is a `typ` other than JWT and at+jwt.
- It has `exp`, `sub` and `aud` (ours among them), and `iss` if one is configured. `nbf` and `iat` are optional. All
  times have a leeway of TOKEN_LEEWAY_SECONDS, because clocks differ. A time that is more than TOKEN_TTL_SECONDS_MAX
  ahead is refused: it is in milliseconds.
- Where client ids are configured it names one: in `client_id` (RFC 9068), `azp` (OpenID Connect) or `cid` (Okta). Each
  of these that it has must be one of ours. An empty audience of the configuration is possible only then: `aud` is not
  looked at.
- `sub` and the user claim are good ids, because they go into the log. A malformed user claim refuses the token: without
  the claim it would be good for every user.
- Each of the scope claims is a string with spaces between the scopes, or a list of strings. All of them count together.
  `server.access.scopes` reads them. Unknown scopes mean nothing.

Rules:
- Nothing that a token or a header contained is repeated in an answer, a log or an exception.
- Verifying is slow, so verified tokens are remembered by their SHA-256 digest, at most VERIFIED_TOKENS_MAX. The least
  recently used goes first. None is remembered beyond `exp`: within the leeway each use is verified. A withdrawn key
  (`KeySource.generation`) makes all forgotten.
- Refusals are not remembered: they would push out verified tokens.
- A key that cannot be known yet is answered 503 `KEYS_UNAVAILABLE` with Retry-After, never 401.

PyJWT checks form, signature, audience and issuer. Times are checked here, against the clock that was passed in.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from math import ceil, inf, isfinite
from typing import Any, Literal

import jwt
import msgspec
import trio
from jwt.algorithms import OKPAlgorithm
from jwt.exceptions import InvalidSubjectError

from engine.texts import id_fault
from server import bounds
from server.access.issuers import AllKeys, TrustedIssuer, issuer_of
from server.access.keys import KeyChanges, KeysUnavailable, VerificationKey
from server.access.scopes import client_fault, scopes_of
from server.http.messages import Response, error

REALM = "scoreboard"

_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_HEADERS_REFUSED = ("crit", "b64", "zip", "cty", "enc")
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})


class _Decoder(jwt.PyJWT):
    """PyJWT with the name `Ed25519` (RFC 9864), which it does not know yet."""

    def __init__(self, *, audience: bool) -> None:
        super().__init__(
            options={
                "require": ["exp", "aud", "sub"] if audience else ["exp", "sub"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": audience,
                "enforce_minimum_key_length": True,
            }
        )
        if "Ed25519" not in self._jws.get_algorithms():
            self._jws.register_algorithm("Ed25519", OKPAlgorithm())


_DECODER = _Decoder(audience=True)
_ANY_AUDIENCE = _Decoder(audience=False)


class Principal(msgspec.Struct, frozen=True):
    """The caller that a verified token names. `user` is the only user that it may act for; None: any.

    `key` is the one that verified the token; None without a token.
    """

    sub: str
    scopes: frozenset[str]
    user: str | None
    expires_s: float
    key: VerificationKey | None = None

    def __repr__(self) -> str:
        """Show all but the key, which may be a secret."""
        return f"Principal({self.sub!r}, {sorted(self.scopes)}, user={self.user!r}, expires_s={self.expires_s})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show the same in a stack."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name != "key"]

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
    retry_after_s: float = 0.0

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

    @property
    def sentence(self) -> str:
        return f"{self.description[:1].upper()}{self.description[1:]}."

    def response(self) -> Response:
        """The answer: 401, 403 for a scope, 503 while the key of the token cannot be known."""
        sentence = self.sentence
        if self.kind == "unavailable":
            retry = (("retry-after", str(max(1, ceil(self.retry_after_s)))),)
            return error(503, "KEYS_UNAVAILABLE", sentence, headers=retry)
        challenge = (("www-authenticate", self.challenge),)
        if self.kind == "scope":
            return error(403, "UNAUTHORIZED", sentence, {"anyOf": list(self.scopes)}, headers=challenge)
        return error(401, "UNAUTHENTICATED", sentence, headers=challenge)


MISSING = AuthFault("missing", "a bearer token is required")


def _unavailable(retry_after_s: float) -> AuthFault:
    description = "the token cannot be verified yet, because it is not known whether its key is one of the issuer"
    return AuthFault("unavailable", description, retry_after_s=retry_after_s)


def _invalid(description: str) -> AuthFault:
    return AuthFault("invalid", description)


_MALFORMED = _invalid("the token is malformed")
_UNSIGNED = _invalid("the signature of the token does not verify")
EXPIRED = _invalid("the token has expired")
_NOT_YET = _invalid("the token is not valid yet")
_MILLISECONDS = _invalid("exp, nbf and iat must be in seconds, and one is more than ten years ahead")
_UNKNOWN_KEY = _invalid("the token is signed with a key that is not known")
_UNKNOWN_ISSUER = _invalid("the token is from another issuer")

_FAULTS: tuple[tuple[type[jwt.PyJWTError], AuthFault], ...] = (
    (jwt.InvalidSignatureError, _UNSIGNED),
    (jwt.InvalidAlgorithmError, _invalid("the token is signed with an algorithm that is not accepted")),
    (jwt.InvalidAudienceError, _invalid("the token is for another audience")),
    (jwt.InvalidIssuerError, _UNKNOWN_ISSUER),
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


class Authenticator:
    """Verifies tokens. `clock_s` is wall-clock time in seconds since 1970."""

    def __init__(self, issuers: Sequence[TrustedIssuer], *, clock_s: Callable[[], float] = time.time) -> None:
        self._issuers = {each.rules.issuer: each for each in issuers}
        # The hot path reads one number of this, so the one source that there mostly is has nothing in front of it.
        sources = [each.keys for each in issuers]
        self._keys: KeyChanges = sources[0] if len(sources) == 1 else AllKeys(sources)
        self._clock_s = clock_s
        self._verified: OrderedDict[bytes, Principal] = OrderedDict()
        self._generation = self._keys.generation

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Refresh the keys."""
        await self._keys.run(task_status=task_status)

    def lets_stay(self, principal: Principal, *, looked: bool) -> bool:
        """See `Authenticates`."""
        if self._clock_s() >= principal.expires_s + bounds.LEASE_GRACE_SECONDS:
            return False
        return looked or principal.key is None or self._keys.has(principal.key)

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
        except KeysUnavailable as unavailable:
            return _unavailable(unavailable.retry_after_s)
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
        """Verify a token that is not remembered. Raises `KeysUnavailable`."""
        issuer = issuer_of(token, self._issuers)
        if issuer is None:
            return _UNKNOWN_ISSUER
        try:
            # The header alone: PyJWT would also decode the other parts, and again below.
            header = jwt.get_unverified_header(token.partition(".")[0] + ".e30.e30")
        except jwt.PyJWTError as raised:
            return _fault_of(raised)
        if fault := _header_fault(header, issuer):
            return fault
        key_id, algorithm = header.get("kid"), header["alg"]
        candidates = issuer.keys.candidates(key_id, algorithm)
        found = self._try(token, issuer, candidates.keys, algorithm)
        if not candidates.named and (found is _UNSIGNED or found is _UNKNOWN_KEY):
            await issuer.keys.renew()
            found = self._try(token, issuer, issuer.keys.candidates(key_id, algorithm).keys, algorithm)
        return found

    def _try(
        self, token: str, issuer: TrustedIssuer, keys: Iterable[VerificationKey], algorithm: str
    ) -> Principal | AuthFault:
        """Verify with one key after the other. Only a wrong signature makes the next one worth a try."""
        found: Principal | AuthFault = _UNKNOWN_KEY
        for key in keys:
            found = self._verify_with(token, issuer, key, algorithm)
            if found is not _UNSIGNED:
                return found
        return found

    def _verify_with(
        self, token: str, issuer: TrustedIssuer, key: VerificationKey, algorithm: str
    ) -> Principal | AuthFault:
        rules = issuer.rules
        decoder = _DECODER if rules.audience else _ANY_AUDIENCE
        try:
            claims = decoder.decode(
                token,
                key,
                algorithms=[algorithm],  # one of the issuer's: see _header_fault
                audience=rules.audience or None,
                issuer=rules.issuer or None,
            )
        except jwt.PyJWTError as raised:
            return _fault_of(raised)
        return self._principal_of(claims, issuer, key)

    def _principal_of(
        self, claims: dict[str, Any], issuer: TrustedIssuer, key: VerificationKey
    ) -> Principal | AuthFault:
        """Check what PyJWT does not: times, the application, the ids that go into the log, scopes."""
        rules = issuer.rules
        expires_s = _time_of(claims["exp"])
        if fault := self._time_fault(expires_s, _time_of(claims.get("nbf", 0)), _time_of(claims.get("iat", 0))):
            return fault
        assert expires_s is not None
        if said := client_fault(claims, rules.client_ids):
            return _invalid(said)
        if wrong := id_fault(claims["sub"]):
            return _invalid(f"the claim sub {wrong}")
        user = claims.get(rules.user_claim)
        if rules.user_claim in claims:
            if not isinstance(user, str):
                return _invalid("the claim that names the user must be a string")
            if wrong := id_fault(user):
                return _invalid(f"the claim that names the user {wrong}")
        scopes = scopes_of(claims, rules)
        if scopes is None:
            return _invalid("a claim that names scopes must be a string or a list of strings")
        return Principal(sub=claims["sub"], scopes=scopes, user=user, expires_s=expires_s, key=key)

    def _time_fault(self, expires_s: float | None, begins_s: float | None, issued_s: float | None) -> AuthFault | None:
        now_s = self._clock_s()
        if expires_s is None or begins_s is None or issued_s is None:
            return _invalid("the claims exp, nbf and iat must be numbers")
        if now_s >= expires_s + bounds.TOKEN_LEEWAY_SECONDS:
            return EXPIRED
        ahead_s = max(expires_s, begins_s, issued_s) - now_s
        if ahead_s > bounds.TOKEN_TTL_SECONDS_MAX + bounds.TOKEN_LEEWAY_SECONDS:
            return _MILLISECONDS
        if max(begins_s, issued_s) > now_s + bounds.TOKEN_LEEWAY_SECONDS:
            return _NOT_YET
        return None

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


def _fault_of(raised: jwt.PyJWTError) -> AuthFault:
    return next(fault for kind, fault in _FAULTS if isinstance(raised, kind))


def _header_fault(header: dict[str, Any], issuer: TrustedIssuer) -> AuthFault | None:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in issuer.keys.algorithms:
        return _invalid("the token is signed with an algorithm that is not accepted")
    for name in _HEADERS_REFUSED:
        if name in header:
            return _invalid(f"the token has the header {name}, which is not accepted")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        return _invalid("the token is of another type (typ must be JWT or at+jwt)")
    return None
