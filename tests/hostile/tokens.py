"""Bad tokens, and floods of tokens. Each bad one is refused with 401, and no key is fetched for it.

They are made by hand, because no library signs such tokens.
"""

from __future__ import annotations

import base64
import hmac
import http.client
import json
import time
from collections.abc import Callable
from typing import Any

from server.bounds import TOKEN_CHARACTERS_MAX, VERIFIED_TOKENS_MAX
from tests.e2e.leader import ALARM_SECONDS, SECRET
from tests.hostile.attack import Attack, each_refused, post
from tests.hostile.issuer import Issuer
from tests.hostile.target import ATTACKER, LONG, Target

BODY = b'{"userId":"mallory","actionId":"m-1"}'
FLOOD = 3_000 if LONG else 1_000
MORE_THAN_REMEMBERED = VERIFIED_TOKENS_MAX + 500
DAY = 86_400

Changes = dict[str, Any]


def part(value: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def claims(changes: Changes | None = None) -> bytes:
    """The claims of a good token with these changed; None takes one away."""
    now = int(time.time())
    good = {"sub": "mallory", "aud": "scoreboard", "iat": now, "exp": now + 600, "scope": "admin"}
    return json.dumps({name: value for name, value in (good | (changes or {})).items() if value is not None}).encode()


def signed(header: Changes, payload: bytes, key: bytes = SECRET.encode(), digest: str = "sha256") -> str:
    """A token with this header and payload, whatever they are, and an HMAC."""
    both = f"{part(json.dumps(header).encode())}.{part(payload)}"
    return f"{both}.{part(hmac.new(key, both.encode(), digest).digest())}"


def forged_tokens(target: Target) -> None:
    """No algorithm, a wrong algorithm, key, audience or time, a header with demands."""
    now = time.time()
    hs256 = {"alg": "HS256", "typ": "JWT"}
    good = signed(hs256, claims())
    wrong_claims: dict[str, Changes] = {
        "another audience": {"aud": "shop"},
        "a list of other audiences": {"aud": ["shop", "scoreboard2"]},
        "no audience": {"aud": None},
        "expired": {"exp": now - DAY},
        "expired in 1970": {"exp": 1},
        "no exp": {"exp": None},
        "exp as text": {"exp": str(int(now) + DAY)},
        "exp infinite": {"exp": float("inf")},
        "exp not a number": {"exp": float("nan")},
        "exp of 400 digits": {"exp": 10**400},
        "exp true": {"exp": True},
        "from the future": {"nbf": now + DAY},
        "issued in the future": {"iat": now + DAY},
        "no subject": {"sub": None},
        "a subject with a line break": {"sub": "a\nb"},
        "a subject of 129 characters": {"sub": "a" * 129},
        "a subject that is a number": {"sub": 7},
        "a user that is a list": {"uid": ["alice"]},
        "a scope that is a number": {"scope": 7},
    }
    wrong_headers: dict[str, Changes] = {
        "an unknown crit": {"crit": ["x"], "x": 1},
        "an empty crit": {"crit": []},
        "unencoded": {"b64": False, "crit": ["b64"]},
        "compressed": {"zip": "DEF"},
        "nested": {"cty": "JWT"},
        "of another type": {"typ": "secevent+jwt"},
    }
    tokens = {name: signed(hs256, claims(changes)) for name, changes in wrong_claims.items()}
    tokens |= {name: signed(hs256 | changes, claims()) for name, changes in wrong_headers.items()}
    for algorithm in ("none", "None", "NONE", "nOnE", "", "HS1", "RS256", None, ["HS256"]):
        both = f"{part(json.dumps({'alg': algorithm}).encode())}.{part(claims())}"
        tokens[f"alg {algorithm!r}, unsigned"] = f"{both}."
        tokens[f"alg {algorithm!r}, signed"] = signed({"alg": algorithm}, claims())
    tokens |= {
        "another key": signed(hs256, claims(), b"another-secret-of-more-than-32-bytes"),
        "no key": signed(hs256, claims(), b""),
        "HS512 with our key": signed({"alg": "HS512"}, claims(), digest="sha512"),
        "a signature that is cut": good[:-2],
        "no signature": good.rpartition(".")[0] + ".",
        "another's signature": good.rpartition(".")[0] + "." + signed(hs256, claims({"sub": "x"})).rpartition(".")[2],
        "changed after signing": ".".join([part(b'{"alg":"HS256"}'), *good.split(".")[1:]]),
        "a key of its own": signed(hs256 | {"jwk": {"kty": "oct", "k": part(b"k" * 32)}}, claims(), b"k" * 32),
        "a key file of its own": signed(hs256 | {"kid": "../../../dev/null"}, claims(), b""),
        "huge": signed(hs256, claims({"x": "y" * TOKEN_CHARACTERS_MAX})),
        "huge header": signed(hs256 | {"x": "y" * TOKEN_CHARACTERS_MAX}, claims()),
        "header nested deeply": f"{part(b'[' * 5000)}.e30.x",
        "claims nested deeply": signed(hs256, b"[" * 5000),
        "claims that are a list": signed(hs256, b"[]"),
        "claims twice": signed(hs256, b"{}" + claims()),
        "five parts": "a.b.c.d.e",
        "dots": "." * 2000,
    }
    each_refused(target, {name: (post("/scores/increment", BODY, bearer), 401) for name, bearer in tokens.items()})


def flood_of_bad_tokens(target: Target) -> None:
    """Well-formed tokens with different claims and a bad signature, over one connection: none is remembered."""
    flood(target, (signed({"alg": "HS256"}, claims({"sub": f"mallory-{n}"}), b"x" * 32) for n in range(FLOOD)))


def flood_of_good_tokens(target: Target) -> None:
    """More good tokens than the server remembers: it forgets the oldest, and accepts each."""
    tokens = (signed({"alg": "HS256"}, claims({"sub": f"caller-{n}"})) for n in range(MORE_THAN_REMEMBERED))
    flood(target, tokens, expected=(200,))


def key_confusion(target: Target) -> None:
    """The server has RSA keys: tokens with the public key as a shared secret, in every form of it, are refused."""
    issuer = target.issuer
    assert issuer is not None
    secrets = {"PEM": issuer.public_pem, "PEM, stripped": issuer.public_pem.strip(), "DER": issuer.public_der,
               "JWK": issuer.document(), "modulus": issuer.modulus, "nothing": b""}  # fmt: skip
    tokens = {}
    for name, key in secrets.items():
        for algorithm in ("HS256", "RS256"):
            tokens[f"{name} as {algorithm}"] = signed({"alg": algorithm, "kid": issuer.KEY_ID}, claims(), key)
        tokens[f"{name}, no key id"] = signed({"alg": "HS256"}, claims(), key)
    tokens["unsigned"] = f"{part(json.dumps({'alg': 'none', 'kid': issuer.KEY_ID}).encode())}.{part(claims())}."
    stranger = Issuer.make_key()
    own = issuer.jwk_of(stranger, issuer.KEY_ID)
    headers: dict[str, Changes] = {
        "another key": {},
        "a key that is brought": {"jwk": own},
        "a key that is pointed to": {"jku": issuer.url + "/evil", "x5u": issuer.url + "/evil"},
    }
    for name, header in headers.items():
        tokens[name] = issuer.sign(claims(), header | {"kid": issuer.KEY_ID}, stranger)
    each_refused(target, {name: (post("/scores/increment", BODY, bearer), 401) for name, bearer in tokens.items()})
    assert not [path for path in issuer.paths if "evil" in path], "it went where a token pointed to"


def flood_of_unknown_keys(target: Target) -> None:
    """Tokens with unknown key ids, each a new one: the server asks the issuer at most once in 30 seconds.

    The tokens in between are answered 503: a key could have come since then.
    """
    issuer = target.issuer
    assert issuer is not None
    before, began = len(issuer.paths), time.monotonic()
    stranger = Issuer.make_key()
    signature = issuer.sign(claims(), {"kid": "x"}, stranger).rpartition(".")[2]
    headers = (part(json.dumps({"alg": "RS256", "kid": f"kid-{n}"}).encode()) for n in range(FLOOD))
    flood(target, (f"{header}.{part(claims())}.{signature}" for header in headers), (401, 503))
    fetches, windows = len(issuer.paths) - before, 1 + (time.monotonic() - began) // 30
    assert fetches <= windows, f"{fetches} fetches for {FLOOD} unknown key ids"


def flood(target: Target, tokens: Any, expected: tuple[int, ...] = (401,)) -> None:
    """Ask for the same action with each of these tokens in turn, over one connection."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", target.port, timeout=ALARM_SECONDS, source_address=(ATTACKER, 0)
    )
    for number, bearer in enumerate(tokens):
        connection.request("POST", "/scores/increment", BODY, {"Authorization": f"Bearer {bearer}"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status in expected, (number, answer.status)
    connection.close()


_RUNS: list[tuple[str, Callable[[Target], None], Any]] = [
    ("forged tokens", forged_tokens, "secret"),
    ("a flood of bad tokens", flood_of_bad_tokens, "secret"),
    ("a flood of good tokens", flood_of_good_tokens, "secret"),
    ("key confusion", key_confusion, "issuer"),
    ("a flood of unknown keys", flood_of_unknown_keys, "issuer"),
]

TOKENS = tuple(Attack(name, run.__doc__ or "", run, server) for name, run, server in _RUNS)
