"""GET /replication/followers: the replicas with a link to this node, and how far behind they are."""

from __future__ import annotations

from server.replication.followers import FollowerInfo
from tests.server.api.support import both_ways, open_bench

REPLICA = "Bearer replica log:read"


@both_ways
async def test_followers_and_their_lag(through_quart: bool) -> None:
    """Each with its address and what it reported last. In another epoch nobody knows how far behind it is."""
    async with open_bench(through_quart=through_quart) as bench:
        empty = await bench.ask("GET", "/replication/followers", token=REPLICA)
        assert empty.json == {"followers": [], "epoch": bench.scoreboard.epoch, "seq": bench.scoreboard.seq}
        await bench.increment("ann", "a1")
        epoch, seq = bench.scoreboard.epoch, bench.scoreboard.seq
        bench.followers += [
            FollowerInfo("10.0.0.8", "2/4", epoch, seq - 1, False, 2_000),
            FollowerInfo("10.0.0.7", None, epoch + 1, seq + 5, True, 1_000),
            FollowerInfo("10.0.0.9", None, epoch, seq + 1, True, 3_000),
        ]
        reply = await bench.ask("GET", "/replication/followers", token=REPLICA)
        assert reply.json["followers"] == [
            {
                "address": "10.0.0.7", "epoch": epoch + 1, "seq": seq + 5, "lagRecords": None, "durable": True,
                "connectedAt": "1970-01-01T00:00:01.000Z",
            },
            {
                "address": "10.0.0.8", "epoch": epoch, "seq": seq - 1, "lagRecords": 1, "durable": False,
                "connectedAt": "1970-01-01T00:00:02.000Z", "shard": "2/4",
            },
            {
                "address": "10.0.0.9", "epoch": epoch, "seq": seq + 1, "lagRecords": 0, "durable": True,
                "connectedAt": "1970-01-01T00:00:03.000Z",
            },
        ]  # fmt: skip
        assert reply.headers["cache-control"] == "no-store"
        metrics = await bench.ask("GET", "/metrics")
        assert b"scoreboard_followers 3.0" in metrics.body


@both_ways
async def test_addresses_are_for_who_may_know_them(through_quart: bool) -> None:
    """A token with log:read or admin; no other."""
    async with open_bench(through_quart=through_quart) as bench:
        for token, status in ((None, 401), ("Bearer ann scores:read", 403), ("Bearer root admin", 200)):
            assert (await bench.ask("GET", "/replication/followers", token=token)).status == status
