"""A shop on FastAPI: each paid order counts once, many requests share a batch, and the answer has the new rank.

    SCOREBOARD_URL=http://127.0.0.1:8080 SCOREBOARD_TOKEN=… uvicorn fastapi_shop:app
    curl -X POST 'http://127.0.0.1:8000/orders/4711/paid?user_id=bob'

`SCOREBOARD_URL` may name several nodes, with commas between them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request

from scoreboard_client import ApiError, AsyncScoreboard, DeadlineExceeded


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Share one client, and one batcher, among all requests."""
    urls = os.environ["SCOREBOARD_URL"].split(",")
    async with AsyncScoreboard(urls, token=os.environ["SCOREBOARD_TOKEN"], deadline_s=10.0) as scoreboard:
        app.state.board = scoreboard.board("main")
        async with app.state.board.batcher() as app.state.batcher:
            yield


app = FastAPI(lifespan=lifespan)


@app.post("/orders/{order_id}/paid")
async def order_paid(order_id: str, user_id: str, request: Request) -> dict[str, Any]:
    """Count a paid order. The order's own number is the action, so a request that comes twice counts once."""
    try:
        receipt = await request.app.state.batcher.increment(user_id, action_id=f"order-{order_id}")
    except DeadlineExceeded as error:
        raise HTTPException(503, "The board is away. Please send it again.") from error
    except ApiError as error:
        raise HTTPException(error.status, error.message) from error
    return {"score": receipt.new_score, "rank": receipt.rank, "isNew": receipt.applied}


@app.get("/ranking")
async def ranking(request: Request) -> list[dict[str, Any]]:
    """Show the first ten."""
    top = await request.app.state.board.top()
    return [{"rank": row.rank, "name": row.name, "score": row.score} for row in top.entries]
