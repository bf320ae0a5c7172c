"""The peer that promises most: FastAPI on uvicorn, and a table of scores and actions in etcd, a replicated log itself.

One transaction counts an action: if the action is new and the user's score is what we think it is, both are written.
etcd answers when a majority of its members has the transaction on disk. This process remembers the scores that it
wrote, so that an increment takes one transaction and not two. Where it was wrong, etcd says what there is, and it tries
again.

etcd has no order of values: the answer has no rank, and nobody could ask for the top. `bench.quorum_servers` starts it.
"""

from __future__ import annotations

import os
from typing import Any

import aetcd
from fastapi import FastAPI, Header, HTTPException

from bench.peers.increments import Increment, answer_of, delta_of

app = FastAPI()
store = aetcd.Client(host="127.0.0.1", port=int(os.environ["PEER_ETCD_PORT"]), timeout=5)
scores: dict[str, int] = {}


@app.post("/scores/increment")
async def increment(body: Increment, authorization: str = Header()) -> dict[str, Any]:
    """Count one action."""
    delta = delta_of(body, authorization)
    action, user = f"action/{body.actionId}".encode(), f"score/{body.userId}".encode()
    make = store.transactions
    while True:
        known = scores.get(body.userId)
        as_known = make.version(user) == 0 if known is None else make.value(user) == str(known).encode()
        score = (known or 0) + delta
        try:
            done, found = await store.transaction(
                compare=[make.create(action) == 0, as_known],
                success=[make.put(action, body.userId.encode()), make.put(user, str(score).encode())],
                failure=[make.get(action), make.get(user)],
            )
        except aetcd.ClientError:
            raise HTTPException(503) from None
        if done:
            scores[body.userId] = max(score, scores.get(body.userId, 0))
            return answer_of(body, True, score, delta, None)
        seen, stands = found
        if stands:
            scores[body.userId] = int(stands[0][0])
        else:
            scores.pop(body.userId, None)
        if seen:
            return answer_of(body, False, scores[body.userId], delta, None)
