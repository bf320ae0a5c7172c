"""What the claims of a verified token allow: its scopes, and the application that it was made for. Pure.

    scopes = scopes_of(claims, rules)                   None: a claim is malformed
    fault = client_fault(claims, rules.client_ids)

Rules:
- A name in `scope_map` means what stands there, and nothing else. Any other name means itself if it is one of ours.
  So a provider's role `admin` counts as ours, unless the map has it.
- A claim is found by its whole name first (names may be URLs), then by its parts between the dots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.settings.auth import SCOPES, IssuerConfig

CLIENT_CLAIMS = ("client_id", "azp", "cid")
"""RFC 9068, OpenID Connect, and Okta's own."""


def scopes_of(claims: Mapping[str, Any], rules: IssuerConfig) -> frozenset[str] | None:
    """Give the scopes of all scope claims together; None if one of them is malformed."""
    names: list[str] = []
    for path in rules.scope_claims:
        claim = find_claim(claims, path)
        if isinstance(claim, str):
            names += claim.split(" ")
        elif isinstance(claim, list) and all(isinstance(each, str) for each in claim):
            names += claim
        elif claim is not None or path in claims:
            return None
    if not rules.scope_map:
        return SCOPES.intersection(names)
    return SCOPES.intersection([ours for name in names for ours in rules.scope_map.get(name, name).split()])


def find_claim(claims: Mapping[str, Any], path: str) -> Any:
    """Give the claim of this name or path; None without one."""
    if path in claims:
        return claims[path]
    for place, letter in enumerate(path):
        inner = claims.get(path[:place]) if letter == "." else None
        if isinstance(inner, dict):
            found = find_claim(inner, path[place + 1 :])
            if found is not None:
                return found
    return None


def client_fault(claims: Mapping[str, Any], allowed: Sequence[str]) -> str | None:
    """Say why a token is not from one of these applications; None: it is, or any may be."""
    if not allowed:
        return None
    named = [claims[name] for name in CLIENT_CLAIMS if name in claims]
    if not named:
        return f"the token names no application (claims {', '.join(CLIENT_CLAIMS)})"
    return None if all(name in allowed for name in named) else "the token is for another application"
