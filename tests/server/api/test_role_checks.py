"""What the role of a node does to requests: directly, through Quart, and in steps."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing

from engine.errors import LeaderDeposed
from server.api.role_checks import wanted_position
from server.http.messages import Refused, Request
from server.replication.freshness import LagFigures
from server.replication.sharding import Shard, shard_of
from server.role import Role, State
from snapshots.promotion import Successor
from tests.server.api.support import WRITER, Bench, Reply, open_bench

FRESH = LagFigures(3, 40, 100, connected=True)
LEADER = "http://leader:1"
BODY = {"userId": "ann", "actionId": "a2"}


def become_replica(
    bench: Bench,
    figures: LagFigures,
    state: State = State.FOLLOWING,
    *,
    public_url: str | None = None,
    reason: str = "",
    shard: Shard | None = None,
) -> None:
    """Let the node be a replica that knows this of its leader."""
    bench.role._set(Role(state, leader=LEADER, public_url=public_url, reason=reason))
    bench.freshness.figures = figures
    bench.checks._shard = shard


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
        become_replica(bench, FRESH, public_url="https://public/")
        moved = await bench.ask("POST", "/scores/increment?_=1", BODY, token=WRITER)
        assert (moved.status, moved.headers["location"]) == (307, "https://public/scores/increment?_=1")
        assert len(bench.logged()) == 1


@pytest.mark.parametrize("through_quart", [False, True], ids=["direct", "quart"])
async def test_stale_answers_say_so_and_have_an_etag_of_their_own(through_quart: bool) -> None:
    """The body has `stale` and `ageMs`; the ETag of a fresh answer does not match, its own does."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        become_replica(bench, FRESH)
        fresh = await bench.ask("GET", "/scoreboard/top")
        become_replica(bench, msgspec.structs.replace(FRESH, age_ms=7_000), State.STALE)
        stale = await bench.ask("GET", "/scoreboard/top", headers={"if-none-match": fresh.headers["etag"]})
        assert (stale.status, stale.json["stale"], stale.json["ageMs"]) == (200, True, 7_000)
        again = await bench.ask("GET", "/scoreboard/top", headers={"if-none-match": stale.headers["etag"]})
        assert (again.status, again.headers["x-scoreboard-lag-ms"]) == (304, "40")


UNHEARD = LagFigures(None, 90_000, 500, connected=False)
"""A replica that serves what is on its disk, and has not heard its leader since it was started."""


def lag_of(reply: Reply) -> tuple[str | None, str | None]:
    """The two headers."""
    return reply.headers.get("x-scoreboard-lag-records"), reply.headers.get("x-scoreboard-lag-ms")


@pytest.mark.parametrize("through_quart", [False, True], ids=["direct", "quart"])
async def test_before_the_leader_was_heard_no_number_is_made_up(through_quart: bool) -> None:
    """The records are unknown, the ms are the state's age, as is `ageMs`; without an event that is unknown too."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        become_replica(bench, UNHEARD, State.STALE)
        for target in ("/scoreboard/top", "/scores/ann", "/scores/ann/around", "/actions/a1"):
            reply = await bench.ask("GET", target, token=WRITER)
            assert (reply.status, *lag_of(reply)) == (200, "unknown", "90000")
            assert (reply.json["stale"], reply.json["ageMs"]) == (True, 90_000)
        metrics = (await bench.ask("GET", "/metrics")).body.decode()
        assert "\nscoreboard_replica_lag_records NaN\n" in metrics
        assert "\nscoreboard_replica_lag_seconds 90.0\n" in metrics
        nothing = LagFigures(None, None, 500, connected=False)
        become_replica(bench, nothing, State.NOT_CAUGHT_UP, reason="not caught up yet")
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
        bench.positions._wait_seconds = 0.0
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
        become_replica(bench, FRESH, State.FAILED, reason="the histories differ")
        reply = await bench.ask("GET", "/scoreboard/top")
        assert (reply.status, reply.json["error"]["code"]) == (503, "REPLICA_BEHIND")
        assert reply.json["error"]["message"] == "The histories differ."
        assert (await bench.ask("GET", "/healthz")).status == 200


async def test_a_board_of_another_shard_is_named() -> None:
    """421 with the shard that has it; receipts are the leader's."""
    number = shard_of("main", 2)
    async with open_bench() as bench:
        become_replica(bench, FRESH, shard=Shard(3 - number, 2))
        reply = await bench.ask("GET", "/scoreboard/top")
        assert (reply.status, reply.json["error"]["details"]["shard"]) == (421, f"{number}/2")
        action = await bench.ask("GET", "/actions/a1", token=WRITER)
        assert (action.status, action.json["error"]["code"]) == (421, "NOT_LEADER")


async def test_a_read_waits_for_its_position(autojump_clock: trio.testing.MockClock) -> None:
    """It is answered as soon as the event is applied, and refused when the time is over."""
    async with open_bench() as bench:
        positions = bench.positions
        with pytest.raises(Refused, match="not come as far"):
            await positions.wait("minSeq=1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(positions.wait, "minSeq=1&minEpoch=1")
            await trio.testing.wait_all_tasks_blocked()
            await bench.increment("ann", "a1")
            positions.advanced()
        await positions.wait("minSeq=1")


@pytest.mark.parametrize(
    "query", ["minSeq=x", "minSeq=-1", "minSeq=1&minSeq=2", "minEpoch=x", "minSeq=99999999999999999"]
)
def test_positions_that_are_none(query: str) -> None:
    """400, with the field."""
    with pytest.raises(Refused) as refused:
        wanted_position(query)
    assert refused.value.status == 400


async def test_a_remembered_head_is_void_once_the_role_has_changed() -> None:
    """Whatever the change, and whatever the head; what is read anew tells the lag, or is refused."""
    async with open_bench() as bench:
        await bench.increment("ann", "a1")
        pipeline = bench.pipeline
        headers = {"authorization": WRITER, "content-type": "application/json"}
        post, top = Request("POST", "/scores/increment", headers=headers), Request("GET", "/scoreboard/top")
        written, read = pipeline.recognise(post), pipeline.recognise(top)
        assert written is not None
        assert read is not None
        assert pipeline.holds(written)
        assert pipeline.holds(read)
        assert b"x-scoreboard-lag-records:" not in pipeline.wire(read, pipeline.top(read), b"\r\n")
        assert pipeline.recognise(Request("GET", "/scoreboard/top", "minSeq=1")) is None
        become_replica(bench, FRESH)
        assert not pipeline.holds(written)
        assert not pipeline.holds(read)
        assert pipeline.recognise(post) is None
        read = pipeline.recognise(top)
        assert read is not None
        assert b"x-scoreboard-lag-records: 3\r\n" in pipeline.wire(read, pipeline.top(read), b"\r\n")
        become_replica(bench, msgspec.structs.replace(FRESH, age_ms=100), State.STALE)
        assert not pipeline.holds(read)
        read = pipeline.recognise(top)
        assert read is not None
        assert pipeline.top(read).body.endswith(b'"stale":true,"ageMs":100}')
        become_replica(bench, FRESH, State.FAILED, reason="the histories differ")
        assert not pipeline.holds(read)
        assert pipeline.recognise(top) is None


@pytest.mark.parametrize("through_quart", [False, True], ids=["direct", "quart"])
async def test_writes_that_wait_when_the_leader_is_deposed_are_refused(through_quart: bool) -> None:
    """421 to each of them, in steps too, and nothing is written; reads go on."""
    bench = Bench(through_quart=through_quart)
    replies: list[Reply] = []
    headers = {"authorization": WRITER, "content-type": "application/json"}
    head = bench.pipeline.recognise(Request("POST", "/scores/increment", headers=headers))
    assert head is not None

    async def write(number: int) -> None:
        replies.append(await bench.increment("ann", f"a{number}"))

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(write, number)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.actor.statistics().waiting == 3
        bench.role.become(State.DEPOSED, successor=Successor(2, "http://new:1"))
        bench.actor.depose()
    assert [(reply.status, reply.code) for reply in replies] == [(421, "NOT_LEADER")] * 3
    assert replies[0].details == {"leader": "http://new:1", "epoch": 2}
    again = await bench.increment("ann", "a4")
    assert (again.status, again.details) == (421, replies[0].details)
    assert "location" not in again.headers, "whoever may read the log could send clients anywhere"
    assert bench.logged() == []
    assert not bench.pipeline.holds(head)
    assert bench.pipeline.failed(head, LeaderDeposed("deposed"), "192.0.2.7", b"\r\n").startswith(b"HTTP/1.1 421 ")
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
        bench.role.become(State.DEPOSED, successor=Successor(2))
        await trio.sleep(3.0)
        bench.role.become(State.DEPOSED, successor=Successor(2, "http://new:1"))
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
        stopping = await bench.ask("GET", "/readyz")
        assert (stopping.status, stopping.code, stopping.details["reason"]) == (
            503, "OVERLOADED", "the server is stopping"
        )  # fmt: skip
        bench.role.become(State.DEPOSED, successor=Successor(2, "http://new:1"))
        deposed = await bench.ask("GET", "/readyz")
        assert (deposed.status, deposed.code) == (503, "NOT_LEADER")
        assert deposed.details["reason"].startswith("epoch 2 began elsewhere")
        assert (deposed.details["leader"], deposed.details["epoch"]) == ("http://new:1", 2)
        assert int(deposed.headers["retry-after"]) >= 1
        bench.role.drain()
        assert (await bench.ask("GET", "/readyz")).code == "OVERLOADED"
