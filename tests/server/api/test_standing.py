"""What a replica's standing does to requests: directly, through Quart, and in the hot path."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing

from engine.commands import Increment
from engine.errors import LeaderDeposed
from server.api.hot import Hot
from server.api.standing import Followed, Gate, Standing, wanted_position
from server.http.messages import Refused, Request
from server.replication.sharding import Shard, shard_of
from snapshots.promotion import Successor
from tests.server.api.support import WRITER, Bench, Reply, open_bench

FRESH = Followed("http://leader:1", None, None, 3, 40, 100, stale=False, connected=True)
BODY = {"userId": "ann", "actionId": "a2"}


def become_replica(bench: Bench, followed: Followed, shard: Shard | None = None) -> None:
    """Let the node be a replica that knows this of its leader."""
    bench.parts.standing.view = lambda: followed
    bench.parts.standing.shard = shard


@pytest.mark.parametrize("through_quart", [False, True], ids=["direct", "quart"])
async def test_every_read_tells_its_lag_and_writes_go_to_the_leader(through_quart: bool) -> None:
    """Reads have both headers; a write is redirected where the leader's address is public, else refused."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        become_replica(bench, FRESH)
        for target in ("/scoreboard/top", "/scores/ann", "/scores/ann/around", "/actions/a1"):
            reply = await bench.ask("GET", target, token=WRITER)
            assert reply.status == 200
            assert reply.headers["x-scoreboard-lag-records"] == "3"
            assert reply.headers["x-scoreboard-lag-ms"] == "40"
            assert b"stale" not in reply.body
        refused = await bench.ask("POST", "/scores/increment", BODY, token=WRITER)
        assert refused.status == 421
        assert refused.json["error"]["details"] == {"leader": "http://leader:1"}
        become_replica(bench, msgspec.structs.replace(FRESH, public_url="https://public/"))
        moved = await bench.ask("POST", "/scores/increment?x=1", BODY, token=WRITER)
        assert (moved.status, moved.headers["location"]) == (307, "https://public/scores/increment?x=1")
        assert len(bench.logged()) == 1


@pytest.mark.parametrize("through_quart", [False, True], ids=["direct", "quart"])
async def test_stale_answers_say_so_and_have_an_etag_of_their_own(through_quart: bool) -> None:
    """The body has `stale` and `ageMs`; the ETag of a fresh answer does not match, its own does."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        become_replica(bench, FRESH)
        fresh = await bench.ask("GET", "/scoreboard/top")
        become_replica(bench, msgspec.structs.replace(FRESH, stale=True, age_ms=7_000))
        stale = await bench.ask("GET", "/scoreboard/top", headers={"if-none-match": fresh.headers["etag"]})
        assert (stale.status, stale.json["stale"], stale.json["ageMs"]) == (200, True, 7_000)
        again = await bench.ask("GET", "/scoreboard/top", headers={"if-none-match": stale.headers["etag"]})
        assert (again.status, again.headers["x-scoreboard-lag-ms"]) == (304, "40")


UNHEARD = msgspec.structs.replace(FRESH, lag_records=None, lag_ms=90_000, age_ms=500, stale=True, connected=False)
"""A replica that serves what is on its disk, and has not heard its leader since it was started."""


def lag_of(reply: Reply) -> tuple[str | None, str | None]:
    """The two headers."""
    return reply.headers.get("x-scoreboard-lag-records"), reply.headers.get("x-scoreboard-lag-ms")


@pytest.mark.parametrize("through_quart", [False, True], ids=["direct", "quart"])
async def test_before_the_leader_was_heard_no_number_is_made_up(through_quart: bool) -> None:
    """The records are unknown, the ms are the state's age, as is `ageMs`; without an event that is unknown too."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        become_replica(bench, UNHEARD)
        for target in ("/scoreboard/top", "/scores/ann", "/scores/ann/around", "/actions/a1"):
            reply = await bench.ask("GET", target, token=WRITER)
            assert (reply.status, *lag_of(reply)) == (200, "unknown", "90000")
            assert (reply.json["stale"], reply.json["ageMs"]) == (True, 90_000)
        metrics = (await bench.ask("GET", "/metrics")).body.decode()
        assert "\nscoreboard_replica_lag_records NaN\n" in metrics
        assert "\nscoreboard_replica_lag_seconds 90.0\n" in metrics
        become_replica(bench, msgspec.structs.replace(UNHEARD, lag_ms=None, fault="not caught up yet"))
        empty = await bench.ask("GET", "/scoreboard/top")
        assert (empty.status, *lag_of(empty)) == (503, "unknown", "unknown")
        assert empty.details == {"lagRecords": None, "lagMs": None, "ageMs": 500}
        assert "\nscoreboard_replica_lag_seconds NaN\n" in (await bench.ask("GET", "/metrics")).body.decode()


REFUSED_READS = [
    ("/scoreboard/top?minSeq=99", 503),
    ("/scoreboard/top?limit=0", 400),
    ("/scores/nobody", 404),
    ("/scores/nobody/around", 404),
    ("/scores/%zz", 400),
    ("/actions/none", 404),
]


@pytest.mark.parametrize("through_quart", [False, True], ids=["direct", "quart"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_read_that_is_refused_tells_the_lag_too(through_quart: bool, method: str) -> None:
    """Whatever refuses it; what is no read tells nothing, and a leader has no lag."""
    async with open_bench(through_quart=through_quart) as bench:
        bench.parts.standing._wait_seconds = 0.0
        for target, status in REFUSED_READS:
            reply = await bench.ask(method, target, token=WRITER)
            assert (reply.status, *lag_of(reply)) == (status, None, None)
        become_replica(bench, FRESH)
        for target, status in REFUSED_READS:
            reply = await bench.ask(method, target, token=WRITER)
            assert (reply.status, *lag_of(reply)) == (status, "3", "40"), target
        unauthenticated = await bench.ask(method, "/actions/a1")
        assert (unauthenticated.status, *lag_of(unauthenticated)) == (401, "3", "40")
        for no_read in (await bench.ask(method, "/healthz"), await bench.ask("OPTIONS", "/scoreboard/top")):
            assert lag_of(no_read) == (None, None)
        assert lag_of(await bench.ask("POST", "/scores/increment", BODY, token=WRITER)) == (None, None)


async def test_what_nobody_vouches_for_is_not_served() -> None:
    """The reason is in the answer; health is no read."""
    async with open_bench() as bench:
        become_replica(bench, msgspec.structs.replace(FRESH, fault="the histories differ"))
        reply = await bench.ask("GET", "/scoreboard/top")
        assert (reply.status, reply.json["error"]["code"]) == (503, "REPLICA_BEHIND")
        assert reply.json["error"]["message"] == "The histories differ."
        assert (await bench.ask("GET", "/healthz")).status == 200


async def test_a_board_of_another_shard_is_named() -> None:
    """421 with the shard that has it; receipts are the leader's."""
    number = shard_of("main", 2)
    async with open_bench() as bench:
        become_replica(bench, FRESH, Shard(3 - number, 2))
        reply = await bench.ask("GET", "/scoreboard/top")
        assert (reply.status, reply.json["error"]["details"]["shard"]) == (421, f"{number}/2")
        action = await bench.ask("GET", "/actions/a1", token=WRITER)
        assert (action.status, action.json["error"]["code"]) == (421, "NOT_LEADER")


async def test_a_read_waits_for_its_position(autojump_clock: trio.testing.MockClock) -> None:
    """It is answered as soon as the event is applied, and refused when the time is over."""
    async with open_bench() as bench:
        standing = bench.parts.standing
        with pytest.raises(Refused, match="not come as far"):
            await standing.wait_position(Request("GET", "/", "minSeq=1"), bench.scoreboard)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(standing.wait_position, Request("GET", "/", "minSeq=1&minEpoch=1"), bench.scoreboard)
            await trio.testing.wait_all_tasks_blocked()
            await bench.increment("ann", "a1")
            standing.advanced()
        await standing.wait_position(Request("GET", "/", "minSeq=1"), bench.scoreboard)


@pytest.mark.parametrize(
    "query", ["minSeq=x", "minSeq=-1", "minSeq=1&minSeq=2", "minEpoch=x", "minSeq=99999999999999999"]
)
def test_positions_that_are_none(query: str) -> None:
    """400, with the field."""
    with pytest.raises(Refused) as refused:
        wanted_position(query)
    assert refused.value.status == 400


async def test_the_hot_path_keeps_to_the_role() -> None:
    """No hot write on a replica, no hot read with a position; hot tops tell the lag; the gate stops who was deposed."""
    async with open_bench() as bench:
        await bench.increment("ann", "a1")
        headers = {"authorization": WRITER, "content-type": "application/json"}
        hot = Hot(bench.service, bench.parts)
        top = Request("GET", "/scoreboard/top")
        prepared = hot.prepare(top)
        assert prepared is not None
        assert b"x-scoreboard-lag-records:" not in hot.top(prepared)[0]
        assert hot.prepare(Request("GET", "/scoreboard/top", "minSeq=1")) is None
        become_replica(bench, FRESH)
        assert hot.prepare(Request("POST", "/scores/increment", headers=headers)) is None
        assert b"x-scoreboard-lag-records: 3\r\n" in hot.top(prepared)[0]
        become_replica(bench, UNHEARD)
        assert b"x-scoreboard-lag-records: unknown\r\nx-scoreboard-lag-ms: 90000\r\n" in hot.top(prepared)[0]
        become_replica(bench, msgspec.structs.replace(FRESH, fault="the histories differ"))
        with pytest.raises(Refused, match="histories differ") as behind:
            hot.top(prepared)
        assert b"x-scoreboard-lag-records: 3\r\n" in hot.failed(prepared, behind.value, "192.0.2.7")[0]
        become_replica(bench, msgspec.structs.replace(FRESH, stale=True))
        assert hot.top(prepared)[1].endswith(b'"stale":true,"ageMs":100}')
        standing = Standing()
        gate = Gate(bench.scoreboard, standing)
        gate.actor = bench.actor
        standing.depose(Successor(2))
        with pytest.raises(Refused, match="was the leader until epoch 2"):
            gate.submit_nowait([Increment("ann", "a2", "ACTION_COMPLETED", "main", "me")], lambda _: None)


@pytest.mark.parametrize("through_quart", [False, True], ids=["direct", "quart"])
async def test_writes_that_wait_when_the_leader_is_deposed_are_refused(through_quart: bool) -> None:
    """421 to each of them, in the hot path too, and nothing is written; reads go on."""
    bench = Bench(through_quart=through_quart)
    gate = Gate(bench.scoreboard, bench.parts.standing)
    gate.actor = bench.actor
    replies: list[Reply] = []

    async def write(number: int) -> None:
        replies.append(await bench.increment("ann", f"a{number}"))

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(write, number)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.actor.statistics().waiting == 3
        bench.parts.standing.depose(Successor(2, "http://new:1"))
        gate.depose()
    assert [(reply.status, reply.code) for reply in replies] == [(421, "NOT_LEADER")] * 3
    assert replies[0].details == {"leader": "http://new:1", "epoch": 2}
    again = await bench.increment("ann", "a4")
    assert (again.status, again.details) == (421, replies[0].details)
    assert "location" not in again.headers, "whoever may read the log could send clients anywhere"
    assert bench.logged() == []
    hot = Hot(bench.service, bench.parts)
    headers = {"authorization": WRITER, "content-type": "application/json"}
    prepared = hot.prepare(Request("GET", "/scoreboard/top", headers=headers))
    assert prepared is not None
    assert hot.failed(prepared, LeaderDeposed("deposed"), "192.0.2.7")[0].startswith(b"HTTP/1.1 421 ")
    assert (await bench.ask("GET", "/scoreboard/top")).status == 200


@pytest.mark.parametrize("through_quart", [False, True], ids=["direct", "quart"])
async def test_reads_of_a_deposed_leader_are_stale_since_then(
    through_quart: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """Since it was first heard of; they have no lag, for there is nobody it follows."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        fresh = await bench.ask("GET", "/scoreboard/top")
        assert "stale" not in fresh.json
        standing = bench.parts.standing
        standing.depose(Successor(2))
        await trio.sleep(3.0)
        standing.depose(Successor(2, "http://new:1"))
        await trio.sleep(4.0)
        for target in ("/scoreboard/top", "/scores/ann", "/scores/ann/around", "/actions/a1"):
            reply = await bench.ask("GET", target, headers={"if-none-match": fresh.headers["etag"]}, token=WRITER)
            assert (reply.status, reply.json["stale"]) == (200, True)
            assert 7_000 <= reply.json["ageMs"] < 8_000
            assert "x-scoreboard-lag-ms" not in reply.headers


async def test_readiness_says_that_a_leader_was_deposed() -> None:
    """Not that it stops, though its actor takes nothing either way."""
    async with open_bench() as bench:
        bench.actor.depose()
        assert (await bench.ask("GET", "/readyz")).details["reason"] == "the server is stopping"
        bench.not_ready = "epoch 2 began elsewhere"
        assert (await bench.ask("GET", "/readyz")).details["reason"] == "epoch 2 began elsewhere"
