"""The minting of tokens, with the first secret of the configuration or with the key of the data directory.

    token = mint(config, sub="backend", scopes=["scores:write"], user=None, ttl_s=3_600)

Rules:
- A token that this configuration would refuse is not minted.
- A replica, and a node that has only the public half of its former leader's key (`leader.key`), mints nothing. A new
  pair would be one that no other node knows.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.texts import id_fault
from server import bounds
from server.access.directory_keys import LEADER_KEY_FILE
from server.access.keys import shared_secrets
from server.access.signing_key import SIGNING_KEY_FILE, make_signing_key, read_signing_key
from server.settings.auth import FAMILIES, SCOPES
from server.settings.config import Config, ConfigError
from snapshots.promotion import MARKER_FILE


def minting_fault(config: Config) -> ConfigError | None:
    """Say why no token can be signed here; None: one can."""
    auth = config.auth
    if not auth.can_mint:
        source = "issuers" if not auth.key_sources else auth.key_sources[0]
        return ConfigError(f"auth.{source}", "public keys verify but do not sign; tokens come from their issuer")
    directory = Path(config.data_dir)
    if not auth.uses_signing_key or (directory / SIGNING_KEY_FILE).exists():
        return None
    remedy = f"mint where the leader's key is, or copy its signing.key into {directory} and start this node again"
    if (directory / LEADER_KEY_FILE).exists():
        what = "has only the public half of its leader's key, which verifies but does not sign"
        return ConfigError(str(directory / LEADER_KEY_FILE), f"this node follows a leader, or did; it {what}; {remedy}")
    if (directory / MARKER_FILE).exists():
        return ConfigError("data_dir", f"{directory} is a replica's, and the key is its leader's; {remedy}")
    return None


def mint(
    config: Config, *, sub: str, scopes: Collection[str], user: str | None, ttl_s: int, now_s: float | None = None
) -> str:
    """Sign a token that this configuration accepts for `ttl_s` seconds from now.

    Raises:
        ConfigError: the configuration has no key that signs, or would refuse the token.
    """
    auth = config.auth
    if fault := minting_fault(config):
        raise fault
    _check_claims(sub, scopes, user, ttl_s)
    if user is not None and auth.user_claim == "sub" and user != sub:
        raise ConfigError("user", "must be the same as sub, because auth.user_claim is sub")
    now = int(time.time() if now_s is None else now_s)
    claims: dict[str, object] = {
        "sub": sub,
        "iat": now,
        "exp": now + ttl_s,
        "jti": secrets.token_hex(8),
        **_scope_claim(config, scopes),
    }
    if auth.audience:
        claims["aud"] = auth.audience
    if auth.client_ids:
        claims["client_id"] = auth.client_ids[0]
    if auth.issuer:
        claims["iss"] = auth.issuer
    if user is not None:
        claims[auth.user_claim] = user
    key, algorithm = _signing(config)
    return jwt.encode(claims, key, algorithm=algorithm)


def _signing(config: Config) -> tuple[bytes | Ed25519PrivateKey, str]:
    auth = config.auth
    if auth.jwt_secret:
        return shared_secrets("auth", auth)[0], (auth.algorithms or ("HS256",))[0]
    make_signing_key(config.data_dir, auth.algorithms)
    key = read_signing_key(config.data_dir, auth.algorithms)
    algorithm = key.algorithms[0]
    # The name Ed25519 means the same algorithm, and both names are accepted where one is configured.
    return key.signs, "EdDSA" if FAMILIES[algorithm] == "EdDSA" else algorithm


def _scope_claim(config: Config, scopes: Collection[str]) -> dict[str, object]:
    """Write the scopes where the configuration looks for them. Raises `ConfigError` where the map takes one away."""
    auth = config.auth
    if changed := sorted(scope for scope in set(scopes) if auth.scope_map.get(scope, scope) != scope):
        raise ConfigError("scope", f"auth.scope_map gives {', '.join(changed)} another meaning")
    claim: object = " ".join(sorted(set(scopes)))
    path = auth.scope_claims[0]
    return {path: claim}


def _check_claims(sub: str, scopes: Collection[str], user: str | None, ttl_s: int) -> None:
    for name, value in (("sub", sub), ("user", user)):
        if value is not None and (fault := id_fault(value)):
            raise ConfigError(name, fault)
    if unknown := sorted(set(scopes) - SCOPES):
        raise ConfigError("scope", f"there is no {', '.join(unknown)}; known are {', '.join(sorted(SCOPES))}")
    if not 1 <= ttl_s <= bounds.TOKEN_TTL_SECONDS_MAX:
        raise ConfigError("ttl", f"must be from 1 second to {bounds.TOKEN_TTL_SECONDS_MAX // 86_400} days")
