"""Whatever the route: being let in, being refused, methods, headers, other sites' pages, and faults of our own."""

from __future__ import annotations

from typing import Any

import pytest

from server.api.dependencies import StorageState
from server.api.routes import find
from server.http.messages import Request, Response
from tests.server.api.support import (
    ADMIN,
    CONSOLE,
    DOCS,
    ELEMENT,
    INDEX,
    READER,
    REGISTRAR,
    WRITER,
    MemoryLog,
    Tokens,
    both_ways,
    open_bench,
)

INCREMENT = {"userId": "ann", "actionId": "a1"}
EVERYTHING: list[tuple[str, str, object]] = [
    ("POST", "/scores/increment", INCREMENT),
    ("POST", "/scores/increment/batch", [INCREMENT]),
    ("GET", "/scoreboard/top", None),
    ("GET", "/scores/ann", None),
    ("GET", "/scores/ann/around", None),
    ("PUT", "/users/ann", {"active": True}),
    ("GET", "/actions/a1", None),
]
OPEN = ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/console", "/", "/scoreboard.js"]


# Being let in


@both_ways
@pytest.mark.parametrize(("method", "path", "body"), EVERYTHING)
async def test_without_a_token_nothing_happens_where_one_is_needed(
    method: str, path: str, body: object, through_quart: bool
) -> None:
    """Where reads are not public, every route about scores wants a token, and says how (RFC 6750)."""
    async with open_bench(through_quart=through_quart, public_reads=False) as bench:
        reply = await bench.ask(method, path, body)
        assert (reply.status, reply.code) == (401, "UNAUTHENTICATED")
        assert reply.headers["www-authenticate"].startswith("Bearer")
        assert bench.log.events == []


@both_ways
@pytest.mark.parametrize(
    ("method", "path", "body", "token"),
    [
        ("POST", "/scores/increment", INCREMENT, READER),
        ("POST", "/scores/increment", INCREMENT, REGISTRAR),
        ("POST", "/scores/increment/batch", [INCREMENT], READER),
        ("PUT", "/users/ann", {"active": True}, WRITER),
        ("GET", "/actions/a1", None, REGISTRAR),
        ("GET", "/scoreboard/top", None, REGISTRAR),
    ],
)
async def test_a_scope_that_is_missing_is_named(
    method: str, path: str, body: object, token: str, through_quart: bool
) -> None:
    """A token without the route's scope is refused, and told which scope it would take."""
    async with open_bench(through_quart=through_quart, public_reads=False) as bench:
        reply = await bench.ask(method, path, body, token=token)
        assert (reply.status, reply.code) == (403, "UNAUTHORIZED")
        methods, _ = find(path)
        assert reply.details == {"anyOf": list(methods[method].scopes)}
        assert 'error="insufficient_scope"' in reply.headers["www-authenticate"]
        assert bench.log.events == []


@both_ways
@pytest.mark.parametrize(("method", "path", "body"), EVERYTHING)
async def test_admin_may_do_everything(method: str, path: str, body: object, through_quart: bool) -> None:
    """The scope `admin` contains every other."""
    async with open_bench(through_quart=through_quart, public_reads=False) as bench:
        await bench.increment("ann", "a1")
        assert (await bench.ask(method, path, body, token=ADMIN)).status == 200


@both_ways
async def test_public_reads_need_no_token_and_ignore_a_bad_one(through_quart: bool) -> None:
    """A page that still sends an old token is served all the same."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        for path in ("/scoreboard/top", "/scores/ann", "/scores/ann/around"):
            assert (await bench.ask("GET", path)).status == 200
            assert (await bench.ask("GET", path, token=REGISTRAR)).status == 200


@both_ways
async def test_reads_that_are_not_public_take_either_scope(through_quart: bool) -> None:
    """Who may write may read."""
    async with open_bench(through_quart=through_quart, public_reads=False) as bench:
        assert (await bench.ask("GET", "/scoreboard/top", token=READER)).status == 200
        assert (await bench.ask("GET", "/scoreboard/top", token=WRITER)).status == 200


@both_ways
@pytest.mark.parametrize("path", OPEN)
async def test_health_metrics_and_pages_are_open(path: str, through_quart: bool) -> None:
    """A probe, a scrape and a browser need no token, whatever the configuration says of reads."""
    async with open_bench(through_quart=through_quart, public_reads=False) as bench:
        assert (await bench.ask("GET", path)).status == 200


# Methods and addresses


@both_ways
@pytest.mark.parametrize(
    "path", ["/nothing", "/scores/ann/around/x", "/users/ann//", "//", "/scoreboard//top", "/scoreboard/top//"]
)
async def test_an_unknown_address_is_not_found(path: str, through_quart: bool) -> None:
    """404 in the one shape; nothing is redirected or guessed."""
    async with open_bench(through_quart=through_quart) as bench:
        reply = await bench.ask("GET", path)
        assert (reply.status, reply.code) == (404, "NOT_FOUND")


@both_ways
@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/scores/increment", "POST, OPTIONS"),
        ("HEAD", "/scores/increment", "POST, OPTIONS"),
        ("DELETE", "/scores/ann", "GET, HEAD, OPTIONS"),
        ("POST", "/scoreboard/top", "GET, HEAD, OPTIONS"),
        ("PATCH", "/users/ann", "PUT, DELETE, OPTIONS"),
        ("BREW", "/", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(method: str, path: str, allow: str, through_quart: bool) -> None:
    """405 with Allow; a method that nobody ever heard of is no different."""
    async with open_bench(through_quart=through_quart) as bench:
        reply = await bench.ask(method, path)
        assert (reply.status, reply.headers["allow"]) == (405, allow)
        assert method == "HEAD" or reply.code == "METHOD_NOT_ALLOWED"


@both_ways
async def test_head_is_get_without_the_body(through_quart: bool) -> None:
    """The same status and headers, its length among them, for answers and for errors."""
    async with open_bench(through_quart=through_quart) as bench:
        for path in ("/scoreboard/top", "/", "/openapi.json", "/scores/nobody"):
            got = await bench.ask("GET", path, headers={"x-request-id": "same"})
            head = await bench.ask("HEAD", path, headers={"x-request-id": "same"})
            assert (head.status, head.headers, head.body) == (got.status, got.headers, b"")
            assert int(head.headers["content-length"]) == len(got.body) > 0


@both_ways
async def test_options_tells_what_is_allowed(through_quart: bool) -> None:
    """204 with Allow, without a token."""
    async with open_bench(through_quart=through_quart, public_reads=False) as bench:
        reply = await bench.ask("OPTIONS", "/scores/increment")
        assert (reply.status, reply.body, reply.headers["allow"]) == (204, b"", "POST, OPTIONS")
        assert "content-length" not in reply.headers


@both_ways
async def test_the_live_channel_is_no_ordinary_resource(through_quart: bool) -> None:
    """Asked for without an upgrade it says what it is."""
    async with open_bench(through_quart=through_quart) as bench:
        reply = await bench.ask("GET", "/ws/scoreboard")
        assert (reply.status, reply.code, reply.headers["upgrade"]) == (426, "INVALID_REQUEST", "websocket")


# Headers


@both_ways
async def test_a_request_id_is_taken_over_if_it_is_harmless(through_quart: bool) -> None:
    """A caller's own id comes back; one that could do harm in a log is replaced; without one there is a new one."""
    async with open_bench(through_quart=through_quart) as bench:
        for brought, expected in (("abc-1.2_3:4/5", "abc-1.2_3:4/5"), ('x"y', "request-1"), ("x" * 65, "request-2")):
            reply = await bench.ask("GET", "/healthz", headers={"x-request-id": brought})
            assert reply.headers["x-request-id"] == expected
        assert (await bench.ask("GET", "/nothing")).headers["x-request-id"] == "request-3"


@both_ways
async def test_no_answer_may_be_sniffed_and_none_of_a_write_kept(through_quart: bool) -> None:
    """Security headers of data: type as declared, nothing private in a cache, nothing stale from one."""
    async with open_bench(through_quart=through_quart) as bench:
        written = await bench.increment("ann", "a1")
        receipt = await bench.ask("GET", "/actions/a1", token=READER)
        refused = await bench.ask("GET", "/scores/nobody")
        for reply in (written, receipt, refused):
            assert reply.headers["cache-control"] == "no-store"
            assert reply.headers["x-content-type-options"] == "nosniff"
        read = await bench.ask("GET", "/scores/ann")
        assert (read.headers["cache-control"], read.headers["x-content-type-options"]) == ("no-cache", "nosniff")


# Pages, health, metrics


@both_ways
async def test_pages_have_an_etag_and_run_only_their_own_scripts(through_quart: bool) -> None:
    """The policy names the digests of what is in the page; 304 for whoever has it."""
    async with open_bench(through_quart=through_quart) as bench:
        for path, page in (("/", INDEX), ("/docs", DOCS), ("/console", CONSOLE)):
            reply = await bench.ask("GET", path)
            assert (reply.status, reply.body) == (200, page.body)
            assert reply.headers["content-type"] == "text/html; charset=utf-8"
            assert "default-src 'none'" in reply.headers["content-security-policy"]
            again = await bench.ask("GET", path, headers={"if-none-match": reply.headers["etag"]})
            assert (again.status, again.body, again.headers["etag"]) == (304, b"", reply.headers["etag"])


@both_ways
async def test_a_console_that_is_turned_off_is_not_there(through_quart: bool) -> None:
    """404, with a sentence that names the key."""
    async with open_bench(through_quart=through_quart) as bench:
        del bench.dependencies.pages["console"]
        reply = await bench.ask("GET", "/console")
        assert (reply.status, reply.code) == (404, "NOT_FOUND")
        assert "[console] enabled" in reply.json["error"]["message"]


@both_ways
async def test_the_element_is_for_pages_of_allowed_origins(through_quart: bool) -> None:
    """A page of such a site may load it as a module, which is a request with an origin. Caches keep it for minutes."""
    async with open_bench(through_quart=through_quart, origins=frozenset({"https://site.example"})) as bench:
        for origin, allowed in (("https://site.example", "https://site.example"), ("https://evil.example", None)):
            reply = await bench.ask("GET", "/scoreboard.js", headers={"origin": origin})
            assert (reply.status, reply.body) == (200, ELEMENT.body)
            assert reply.headers["content-type"] == "text/javascript; charset=utf-8"
            assert reply.headers["cache-control"] == "public, max-age=300"
            assert reply.headers["cross-origin-resource-policy"] == "cross-origin"
            assert reply.headers["vary"] == "Accept-Encoding, Origin"
            assert reply.headers.get("access-control-allow-origin") == allowed
        again = await bench.ask("GET", "/scoreboard.js", headers={"if-none-match": reply.headers["etag"]})
        assert (again.status, again.body) == (304, b"")


@both_ways
async def test_ready_until_there_is_a_reason_not_to_be(through_quart: bool) -> None:
    """503 says why: what the process found, or that the actor takes nothing more; alive it is all the while."""
    async with open_bench(through_quart=through_quart) as bench:
        ready = await bench.ask("GET", "/readyz")
        assert (ready.status, ready.json) == (200, {"status": "ready", "epoch": 1, "seq": 0})
        bench.freshness.reason = "the log cannot be written"
        reply = await bench.ask("GET", "/readyz")
        assert (reply.status, reply.code, reply.details) == (503, "OVERLOADED", {"reason": "the log cannot be written"})
        assert int(reply.headers["retry-after"]) >= 1
        bench.freshness.reason = None
        await bench.actor.drain()
        assert (await bench.ask("GET", "/readyz")).details == {"reason": "the server is stopping"}
        assert (await bench.ask("GET", "/healthz")).json == {"status": "ok"}


@both_ways
async def test_metrics_tell_the_state_of_this_moment(through_quart: bool) -> None:
    """What is read at a scrape: position, users, actions, snapshot, and how the requests went."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")
        await bench.increment("ann", "a1")
        await bench.increment("ann", "a2", reason="nonsense")
        bench.storage = StorageState(log_bytes=8192, log_segments=2, snapshot_seq=1, snapshot_ms=bench.clock_ms())
        bench.now_s += 30
        reply = await bench.ask("GET", "/metrics")
        assert reply.headers["content-type"].startswith("text/plain; version=")
        lines = reply.body.decode().splitlines()
        for expected in (
            "scoreboard_seq 1.0",
            "scoreboard_epoch 1.0",
            'scoreboard_users{board="main"} 1.0',
            "scoreboard_actions 1.0",
            "scoreboard_log_bytes 8192.0",
            "scoreboard_snapshot_seq 1.0",
            "scoreboard_snapshot_age_seconds 30.0",
            'scoreboard_updates_total{result="applied"} 1.0',
            'scoreboard_updates_total{result="duplicate"} 1.0',
            'scoreboard_updates_total{result="refused"} 1.0',
            'scoreboard_failures_total{code="INVALID_REQUEST"} 1.0',
        ):
            assert expected in lines


# When things go wrong


@both_ways
async def test_a_bug_costs_one_answer_and_tells_nothing(through_quart: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody expected is a 500 without a word of it; the log has its place under the request id."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.increment("ann", "a1")

        def explode(*_: object) -> None:
            raise ZeroDivisionError("secret detail")

        monkeypatch.setattr(MemoryLog, "event_at", explode)
        reply = await bench.ask("GET", "/actions/a1", token=READER, headers={"x-request-id": "find-me"})
        assert (reply.status, reply.code, reply.details) == (500, "INTERNAL_ERROR", {"requestId": "find-me"})
        assert b"secret" not in reply.body
        assert b"Traceback" not in reply.body
        [line] = bench.told("internal_error")
        assert (line["request_id"], line["kind"]) == ("find-me", "ZeroDivisionError")
        assert any("explode" in place for place in line["where"])
        assert (await bench.ask("GET", "/healthz")).status == 200


@both_ways
async def test_a_full_or_stopping_server_says_when_to_come_back(through_quart: bool) -> None:
    """503 OVERLOADED with Retry-After, for one and for a batch; nothing was written."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.actor.drain()
        for path, body in (("/scores/increment", INCREMENT), ("/scores/increment/batch", [INCREMENT])):
            reply = await bench.ask("POST", path, body, token=WRITER)
            assert (reply.status, reply.code) == (503, "OVERLOADED")
            assert int(reply.headers["retry-after"]) >= 1
        assert bench.log.events == []


async def test_a_failing_disk_is_an_unknown_outcome() -> None:
    """Whoever was being written is told to send it again with the same actionId, and the actor ends."""
    bench: Any = None
    with pytest.RaisesGroup(pytest.RaisesExc(Exception, match="the disk is broken")):
        async with open_bench() as bench:
            bench.log.broken = True
            reply = await bench.increment("ann", "a1")
            assert (reply.status, reply.code) == (503, "OUTCOME_UNKNOWN")
            assert "same actionId" in reply.json["error"]["message"]
            assert int(reply.headers["retry-after"]) >= 1
    assert len(bench.told("outcome_unknown")) == 1
    assert bench.metrics.value("scoreboard_updates_total", result="unknown") == 1


# What is told


@both_ways
async def test_refusals_are_told_without_tokens_or_queries(through_quart: bool) -> None:
    """A line says who, where and why; neither the token nor the query gets into it."""
    async with open_bench(through_quart=through_quart) as bench:
        await bench.ask("POST", "/scores/increment?token=secret", INCREMENT, token="Bearer viewer scores:read tok")
        [line] = bench.told("refused")
        assert (line["code"], line["caller"], line["address"]) == ("UNAUTHORIZED", "viewer", "192.0.2.7")
        assert (line["method"], line["path"], line["level"]) == ("POST", "/scores/increment", "warning")
        assert "secret" not in str(line)
        assert "tok" not in str(line).replace("token lacks", "")


async def test_a_flood_of_refusals_is_told_in_few_lines() -> None:
    """The number of lines a second is bounded; how many were left out is told later."""
    async with open_bench() as bench:
        for _ in range(1_000):
            await bench.ask("DELETE", "/scoreboard/top")
        assert len(bench.told("refused")) < 100
        bench.now_s += 2
        await bench.ask("DELETE", "/scoreboard/top")
        assert bench.told("refused")[-1]["left_out"] > 900


async def test_that_there_is_nothing_at_an_address_is_no_news() -> None:
    """Pages ask for users without a score all day: that is told only to those who debug."""
    async with open_bench() as bench:
        await bench.ask("GET", "/scores/nobody")
        [line] = bench.told("refused")
        assert (line["level"], line["code"]) == ("debug", "NOT_FOUND")


async def test_an_increment_is_told_only_to_those_who_debug() -> None:
    """The durable record is the log of events; a line for each increment is at the level `debug`."""
    async with open_bench() as bench:
        await bench.increment("ann", "a1")
        [line] = bench.told("increment")
        assert (line["level"], line["user_id"], line["delta"], line["caller"]) == ("debug", "ann", 10, "backend")


async def test_a_refusal_of_the_authenticator_is_passed_on() -> None:
    """Whatever it answers is the answer, and is counted by its code."""

    class Shut(Tokens):
        async def authenticate(self, authorization: str | None) -> Response:
            assert authorization == "Bearer x"
            return Response(503, b"{}", code="OVERLOADED", headers=(("retry-after", "1"),))

    async with open_bench() as bench:
        bench.pipeline._authenticator = Shut()
        request = Request("GET", "/actions/a1", headers={"authorization": "Bearer x"})
        assert (await bench.pipeline.answer(request, "direct")).status == 503
        assert bench.metrics.value("scoreboard_failures_total", code="OVERLOADED") == 1
