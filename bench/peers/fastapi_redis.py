"""The peer for writes and reads: FastAPI on uvicorn (uvloop, httptools), a board in Redis with `appendfsync always`.

It keeps the same promise: it checks the token, it decides the points, it counts an action once (one Lua script), and
Redis syncs its append-only file before it answers. It has no limits, no order among equal scores, no live viewers and
no audit trail. `bench.servers` starts it, with the Redis port and the secret in the environment.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

import jwt
import redis.asyncio as redis
from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel, ConfigDict, Field

SECRET = os.environ["PEER_SECRET"]
POINTS = {"ACTION_COMPLETED": 10}

INCREMENT = """
if redis.call('SET', KEYS[2], ARGV[1], 'NX') then
  local score = redis.call('ZINCRBY', KEYS[1], ARGV[2], ARGV[1])
  return {1, score, redis.call('ZREVRANK', KEYS[1], ARGV[1])}
end
return {0, redis.call('ZSCORE', KEYS[1], ARGV[1]), redis.call('ZREVRANK', KEYS[1], ARGV[1])}
"""

app = FastAPI()
store = redis.Redis(port=int(os.environ["PEER_REDIS_PORT"]), decode_responses=True, max_connections=512)
increment_once = store.register_script(INCREMENT)


class Increment(BaseModel):
    """The body of an increment."""

    model_config = ConfigDict(extra="forbid")
    userId: str = Field(min_length=1, max_length=128)  # noqa: N815  # the wire's name
    actionId: str = Field(min_length=1, max_length=128)  # noqa: N815  # the wire's name
    reason: str = "ACTION_COMPLETED"


def caller_of(authorization: str) -> str:
    """Check the token."""
    try:
        claims = jwt.decode(authorization.removeprefix("Bearer "), SECRET, algorithms=["HS256"], audience="scoreboard")
    except jwt.InvalidTokenError:
        raise HTTPException(401) from None
    if "scores:write" not in claims.get("scope", "").split():
        raise HTTPException(403)
    return str(claims["sub"])


@app.post("/scores/increment")
async def increment(body: Increment, authorization: str = Header()) -> dict[str, Any]:
    """Count one action."""
    caller_of(authorization)
    delta = POINTS.get(body.reason)
    if delta is None:
        raise HTTPException(400)
    applied, score, rank = await increment_once(keys=["board", f"action:{body.actionId}"], args=[body.userId, delta])
    return {
        "userId": body.userId, "newScore": int(float(score)), "delta": delta if applied else 0,
        "applied": bool(applied), "actionId": body.actionId, "rank": rank + 1,
    }  # fmt: skip


@app.get("/scoreboard/top")
async def top(limit: int = 10) -> dict[str, Any]:
    """Give the first rows."""
    rows: Any = await store.zrange("board", 0, limit - 1, desc=True, withscores=True)
    entries = [{"userId": user, "score": int(score), "rank": rank} for rank, (user, score) in enumerate(rows, 1)]
    return {"entries": entries, "generatedAt": datetime.now(UTC).isoformat()}
