"""Key sets: which keys of a document are used, and with which algorithms."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from server.access.jwks import FetchFailed, read_keys
from tests.server.access.issuer import ELLIPTIC, RSA_KEYS, jwk

ELLIPTIC_384 = ec.generate_private_key(ec.SECP384R1())
EDWARDS = ed25519.Ed25519PrivateKey.generate()
EDWARDS_448 = ed448.Ed448PrivateKey.generate()
OCT = {"kty": "oct", "kid": "a", "k": base64.urlsafe_b64encode(b"x" * 32).decode()}
RSA_PRIVATE = {**jwt.get_algorithm_by_name("RS256").to_jwk(RSA_KEYS[0], as_dict=True), "kid": "a"}


@pytest.mark.parametrize(
    ("entry", "algorithms", "fits"),
    [
        (jwk(RSA_KEYS[0], "a"), ("RS256", "RS512"), ["RS256", "RS512"]),
        (jwk(RSA_KEYS[0], "a", alg="RS512"), ("RS256", "RS512"), ["RS512"]),
        (jwk(RSA_KEYS[0], "a", alg="RS256"), ("PS256",), []),
        (jwk(RSA_KEYS[0], "a"), ("PS256",), ["PS256"]),
        (jwk(RSA_KEYS[0], "a"), ("ES256",), []),
        (jwk(RSA_KEYS[0], "a"), ("EdDSA",), []),
        (jwk(RSA_KEYS[0], "a"), ("RS256", "PS256", "ES256"), ["PS256", "RS256"]),
        (jwk(RSA_KEYS[0], "a", alg="PS256"), ("RS256", "PS256", "ES256"), ["PS256"]),
        (jwk(ELLIPTIC, "a"), ("RS256", "PS256", "ES256"), ["ES256"]),
        (jwk(ELLIPTIC, "a"), ("ES256", "ES384"), ["ES256"]),
        (jwk(ELLIPTIC_384, "a"), ("ES256", "ES384"), ["ES384"]),
        (jwk(EDWARDS, "a"), ("EdDSA",), ["Ed25519", "EdDSA"]),
        (jwk(EDWARDS, "a"), ("Ed25519",), ["Ed25519", "EdDSA"]),
        (jwk(EDWARDS, "a", alg="Ed25519"), ("EdDSA",), ["Ed25519", "EdDSA"]),
        (jwk(EDWARDS_448, "a"), ("EdDSA",), ["EdDSA"]),
        (jwk(EDWARDS_448, "a"), ("Ed25519",), []),
        (jwk(EDWARDS, "a"), ("RS256",), []),
        (jwk(RSA_KEYS[0], "a", use="sig", key_ops=["verify"]), ("RS256",), ["RS256"]),
        (jwk(RSA_KEYS[0], "a", use="enc"), ("RS256",), []),
        (jwk(RSA_KEYS[0], "a", key_ops=["encrypt"]), ("RS256",), []),
        (jwk(RSA_KEYS[0], "a", key_ops=5), ("RS256",), []),
        (jwk(RSA_KEYS[0], None, kid=5), ("RS256",), []),
        (jwk(rsa.generate_private_key(65537, 1024), "a"), ("RS256",), []),
        (OCT, ("RS256",), []),
        (OCT | {"kty": "RSA"}, ("RS256",), []),
        (RSA_PRIVATE, ("RS256",), []),
        (jwk(RSA_KEYS[0], "a", n="AQAB!"), ("RS256",), []),
        (jwk(RSA_KEYS[0], "a", n=5), ("RS256",), []),
        (jwk(RSA_KEYS[0], "a", e=None), ("RS256",), []),
        (jwk(ELLIPTIC, "a", x=jwk(ELLIPTIC_384, "a")["x"]), ("ES256",), []),
        (jwk(ELLIPTIC, "a", y=jwk(ELLIPTIC, "a")["x"]), ("ES256",), []),
        ({}, ("RS256",), []),
    ],
)
def test_a_key_is_taken_for_exactly_what_it_fits(
    entry: dict[str, Any], algorithms: tuple[str, ...], fits: list[str]
) -> None:
    """Its type, its curve, its own `alg` and use, and its length decide; symmetric and private keys are never taken."""
    document = json.dumps({"keys": [entry]}).encode()
    found = read_keys(document, algorithms)
    assert sorted(algorithm for _, algorithm in found.keys) == fits
    assert len(found.jwks) == bool(fits)
    assert found.refused == (0 if fits else 1)


def test_of_two_keys_with_one_name_the_first_counts() -> None:
    """A set that contradicts itself is read the same way each time."""
    entries = [jwk(RSA_KEYS[0], "a"), jwk(RSA_KEYS[1], "a")]
    found = read_keys(json.dumps({"keys": entries}).encode(), ("RS256",))
    [key] = found.named("a", "RS256")
    assert key == RSA_KEYS[0].public_key()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
members = st.sampled_from(["kty", "kid", "alg", "use", "key_ops", "crv", "n", "e", "x", "y", "d"])


@settings(deadline=None)
@given(
    entry=st.sampled_from([jwk(RSA_KEYS[0], "a"), jwk(ELLIPTIC, "a"), jwk(EDWARDS, "a")]),
    changes=st.dictionaries(members, json_values, max_size=3),
)
def test_whatever_stands_in_a_key_it_is_taken_or_passed_over(entry: dict[str, Any], changes: dict[str, Any]) -> None:
    """Nothing in a document that anybody could serve raises anything else than FetchFailed."""
    document = json.dumps({"keys": [entry | changes]}).encode()
    for algorithms in (("RS256", "RS384"), ("ES256", "ES512"), ("EdDSA",)):
        found = read_keys(document, algorithms)
        assert bool(found.keys) != bool(found.refused)


@settings(deadline=None)
@given(st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_served_is_a_key_set_or_a_failure(document: bytes) -> None:
    """Also where it is no JSON at all."""
    try:
        found = read_keys(document, ("RS256",))
    except FetchFailed:
        return
    assert found.keys == {}
