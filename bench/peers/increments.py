"""What the HTTP peers share: whose token may increment, the body of an increment, its points, and the answer.

    delta = delta_of(body, authorization)
    return answer_of(body, applied, score, delta, rank)

It checks as much as this project does before it decides: the token's signature, audience and scope, and each field.
"""

from __future__ import annotations

import os
from typing import Any

import jwt
from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Field

SECRET = os.environ["PEER_SECRET"]
POINTS = {"ACTION_COMPLETED": 10}


class Increment(BaseModel):
    """The body of an increment."""

    model_config = ConfigDict(extra="forbid")
    userId: str = Field(min_length=1, max_length=128)  # noqa: N815  # the wire's name
    actionId: str = Field(min_length=1, max_length=128)  # noqa: N815  # the wire's name
    reason: str = "ACTION_COMPLETED"


def delta_of(body: Increment, authorization: str) -> int:
    """Check the token, and give what the action is worth. Raises the answer 401, 403 or 400."""
    try:
        claims = jwt.decode(authorization.removeprefix("Bearer "), SECRET, algorithms=["HS256"], audience="scoreboard")
    except jwt.InvalidTokenError:
        raise HTTPException(401) from None
    if "scores:write" not in claims.get("scope", "").split():
        raise HTTPException(403)
    if body.reason not in POINTS:
        raise HTTPException(400)
    return POINTS[body.reason]


def answer_of(body: Increment, applied: bool, score: int, delta: int, rank: int | None) -> dict[str, Any]:
    """The receipt. `rank` None: the store has no order."""
    return {
        "userId": body.userId, "newScore": score, "delta": delta if applied else 0,
        "applied": applied, "actionId": body.actionId, "rank": rank,
    }  # fmt: skip
