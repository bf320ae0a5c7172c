"""The peer for writes and reads: FastAPI on uvicorn (uvloop, httptools), a board in Redis with `appendfsync always`.

It keeps the same promise: it checks the token, it decides the points, it counts an action once (one Lua script), and
Redis syncs its append-only file before it answers. It has no limits, no order among equal scores, no live viewers and
no audit trail. `bench.servers` starts it, with the Redis port and the secret in the environment.

With `PEER_WAIT` it also waits until so many replicas of Redis have the increment (`WAIT`): `bench.quorum` asks that.
Fewer within the time is 503: nobody knows then who has it.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

import redis.asyncio as redis
from fastapi import FastAPI, Header, HTTPException

from bench.peers.increments import Increment, answer_of, delta_of

REPLICAS = int(os.environ.get("PEER_WAIT", "0"))
WAIT_MS = 5_000

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


async def increment_in_redis(keys: list[str], args: list[Any]) -> Any:
    """Run the script, and wait for the replicas on the same connection: `WAIT` is about the writes of its own one."""
    if not REPLICAS:
        return await increment_once(keys=keys, args=args)
    async with store.pipeline(transaction=False) as pipe:
        await increment_once(keys=keys, args=args, client=pipe)
        pipe.execute_command("WAIT", REPLICAS, WAIT_MS)
        result, replicas = await pipe.execute()
    if replicas < REPLICAS:
        raise HTTPException(503)
    return result


@app.post("/scores/increment")
async def increment(body: Increment, authorization: str = Header()) -> dict[str, Any]:
    """Count one action."""
    delta = delta_of(body, authorization)
    applied, score, rank = await increment_in_redis(["board", f"action:{body.actionId}"], [body.userId, delta])
    return answer_of(body, bool(applied), int(float(score)), delta, rank + 1)


@app.get("/scoreboard/top")
async def top(limit: int = 10) -> dict[str, Any]:
    """Give the first rows."""
    rows: Any = await store.zrange("board", 0, limit - 1, desc=True, withscores=True)
    entries = [{"userId": user, "score": int(score), "rank": rank} for rank, (user, score) in enumerate(rows, 1)]
    return {"entries": entries, "generatedAt": datetime.now(UTC).isoformat()}
