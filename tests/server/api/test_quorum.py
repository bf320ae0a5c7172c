"""The routes of a quorum, the code NO_QUORUM, and readiness that asks for the leader."""

from __future__ import annotations

import pytest
import trio.testing

from server.api import examples
from server.role import State
from snapshots.promotion import Successor
from tests.server.api.quorum_asked import ADMIN, QUORUM
from tests.server.api.support import REGISTRAR, WRITER, both_ways, open_bench

WHY = "no majority of the log's servers answers"


@both_ways
async def test_who_may_ask_what(through_quart: bool) -> None:
    """Scopes, parameters, and a leader that steps down once."""
    async with open_bench(through_quart=through_quart) as bench:
        for method, target, body, token, status in QUORUM:
            reply = await bench.ask(method, target, body, token=token)
            assert reply.status == status, (method, target, token)
            if status == 200:
                assert reply.headers["cache-control"] == "no-store"
        assert reply.details["field"] == "rol"


async def test_the_answers_are_those_of_the_member() -> None:
    """The whole view, and the epoch that ended."""
    async with open_bench() as bench:
        assert (await bench.ask("GET", "/quorum", token=ADMIN)).json == examples.ANSWERS["quorum"]
        ended = await bench.ask("POST", "/quorum/step-down", token=ADMIN)
        assert ended.json == examples.ANSWERS["step_down"]
        again = await bench.ask("POST", "/quorum/step-down", token=ADMIN)
        assert (again.code, again.json["error"]["message"]) == ("CONFLICT", "This node does not lead: it is following.")


@pytest.mark.parametrize(("method", "path"), [("GET", "/quorum"), ("POST", "/quorum/step-down")])
async def test_a_node_of_no_quorum_says_so(method: str, path: str) -> None:
    """A leader alone, or a replica."""
    async with open_bench(of_quorum=False) as bench:
        reply = await bench.ask(method, path, token=ADMIN)
        assert (reply.status, reply.code) == (409, "CONFLICT")
        assert reply.json["error"]["message"] == "This node is of no quorum."


@both_ways
async def test_without_a_quorum_nothing_is_done_and_the_caller_is_told(through_quart: bool) -> None:
    """Single, in a batch, and of a user: 503 with a time to wait. Reads go on. With the quorum, writes do too."""
    increment = {"userId": "ann", "actionId": "a1"}
    asked = [
        ("POST", "/scores/increment", increment, WRITER),
        ("POST", "/scores/increment/batch", [increment, {**increment, "actionId": "a2"}], WRITER),
        ("PUT", "/users/ann", {"displayName": "Ann"}, REGISTRAR),
    ]
    async with open_bench(through_quart=through_quart) as bench:
        seq = bench.scoreboard.seq
        bench.actor.doubt("nats://10.0.0.9:4222 did not answer")
        for method, path, body, token in asked:
            reply = await bench.ask(method, path, body, token=token)
            assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "NO_QUORUM", "1"), path
            message = "Nothing was done, because no majority of the log's servers takes it now. Try again later."
            assert reply.json["error"]["message"] == message, "a server's address is not for callers"
        assert (bench.scoreboard.seq, (await bench.ask("GET", "/scoreboard/top")).status) == (seq, 200)
        assert bench.metrics.value("scoreboard_failures_total", code="NO_QUORUM") == len(asked)
        bench.actor.doubt(None)
        for method, path, body, token in asked:
            assert (await bench.ask(method, path, body, token=token)).status == 200, path


@both_ways
async def test_only_the_leader_is_ready_as_one(through_quart: bool, autojump_clock: trio.testing.MockClock) -> None:
    """A leader whose majority is silent is ready for reads, and is none to write to."""
    async with open_bench(through_quart=through_quart) as bench:
        assert (await bench.ask("GET", "/readyz?role=leader")).json == (await bench.ask("GET", "/readyz")).json
        bench.freshness.ready_age_s = 30.0
        bench.role.confirmed(trio.current_time(), 3.0)
        await trio.sleep(3.5)
        silent = await bench.ask("GET", "/readyz?role=leader")
        assert (silent.status, silent.code, silent.details["reason"]) == (503, "NO_QUORUM", WHY)
        assert (await bench.ask("GET", "/readyz")).status == 200
        bench.role.confirmed(trio.current_time(), 3.0)
        assert (await bench.ask("GET", "/readyz?role=leader")).status == 200
        bench.role.become(State.STALE)
        bench.role.follow("http://west:8080")
        standby = await bench.ask("GET", "/readyz?role=leader")
        assert (standby.status, standby.code) == (503, "NOT_LEADER")
        assert standby.details == {"reason": "This node does not lead: it is stale", "leader": "http://west:8080"}


async def test_a_deposed_leader_is_ready_for_nothing() -> None:
    """The reason is the same whether a leader was asked for."""
    async with open_bench() as bench:
        bench.role.become(State.DEPOSED, successor=Successor(2, "http://new:1"))
        replies = [await bench.ask("GET", path) for path in ("/readyz", "/readyz?role=leader")]
        assert replies[0].json == replies[1].json
        assert replies[0].code == "NOT_LEADER"


async def test_a_role_is_asked_for_by_its_name_once() -> None:
    """Any other value is refused by its field."""
    async with open_bench() as bench:
        for query in ("role=", "role=Leader", "role=standby", "role=leader&role=leader"):
            reply = await bench.ask("GET", f"/readyz?{query}")
            assert (reply.status, reply.code, reply.details["field"]) == (400, "INVALID_REQUEST", "role"), query
