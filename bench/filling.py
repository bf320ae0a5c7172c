"""Boards of many users for the benches, before anything is measured.

fill_ours(server, 100_000)          each user has one action; those who have it keep what they have
fill_peer(server, 100_000)          each user has the same score
"""

from __future__ import annotations

import urllib.request

import msgspec

from bench.load import item_of
from bench.servers import Server

BATCH, POINTS = 1_000, 10


def fill_ours(server: Server, users: int) -> None:
    """Give each user one increment, through the batch route."""
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    for start in range(0, users, BATCH):
        items = [item_of("fill", number) for number in range(start, min(start + BATCH, users))]
        url = f"http://127.0.0.1:{server.port}/scores/increment/batch"
        request = urllib.request.Request(url, msgspec.json.encode(items), headers)
        with urllib.request.urlopen(request) as answer:
            assert all(item["status"] == 200 for item in msgspec.json.decode(answer.read()))


def fill_peer(server: Server, users: int) -> None:
    """Give each user the same score in the peer's Redis."""
    import redis  # noqa: PLC0415  # the package is there only if the peer is installed

    store = redis.Redis(port=server.redis_port)
    for start in range(0, users, BATCH):
        numbers = range(start, min(start + BATCH, users))
        store.zadd("board", {item_of("fill", number)["userId"]: POINTS for number in numbers})
    store.close()
