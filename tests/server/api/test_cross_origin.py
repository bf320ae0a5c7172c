"""What pages of other sites may read, and which headers they may send."""

from __future__ import annotations

from server.settings.origins import parse_origins
from tests.server.api.support import both_ways, open_bench


@both_ways
async def test_pages_of_any_site_may_read_but_not_write(through_quart: bool) -> None:
    """With every origin allowed, public reads say so, errors among them; writes and receipts never do."""
    async with open_bench(through_quart=through_quart) as bench:
        origin = {"origin": "https://site.example"}
        for path in ("/scoreboard/top", "/scores/nobody", "/scoreboard/top?limit=0", "/openapi.json", "/scoreboard.js"):
            reply = await bench.ask("GET", path, headers=origin)
            assert reply.headers["access-control-allow-origin"] == "*"
            assert "etag" in reply.headers["access-control-expose-headers"]
        for method, path in (("POST", "/scores/increment"), ("GET", "/actions/a1"), ("GET", "/metrics")):
            assert "access-control-allow-origin" not in (await bench.ask(method, path, headers=origin)).headers


@both_ways
async def test_patterns_of_origins_let_their_pages_read(through_quart: bool) -> None:
    """A page below a domain, a page of any local port, a page without an origin: each is named as it came."""
    origins = parse_origins(("https://*.example.com", "http://localhost:*", "null"))
    async with open_bench(through_quart=through_quart, origins=origins) as bench:
        for origin, allowed in (
            ("https://eu.play.example.com", True),
            ("http://localhost:5173", True),
            ("null", True),
            ("https://example.com", False),
            ("https://localhost:5173", False),
        ):
            for asks in ({}, {"access-control-request-method": "GET"}):
                method = "OPTIONS" if asks else "GET"
                reply = await bench.ask(method, "/scoreboard/top", headers={"origin": origin, **asks})
                assert reply.headers.get("access-control-allow-origin") == (origin if allowed else None)
                assert "Origin" in reply.headers["vary"]


@both_ways
async def test_only_listed_origins_may_read(through_quart: bool) -> None:
    """With a list, its origins are named one by one, and caches are told that it depends on the origin."""
    async with open_bench(through_quart=through_quart, origins=frozenset({"https://site.example"})) as bench:
        for origin, allowed in (("https://site.example", True), ("https://evil.example", False), ("null", False)):
            reply = await bench.ask("GET", "/scoreboard/top", headers={"origin": origin})
            assert reply.headers.get("access-control-allow-origin") == (origin if allowed else None)
            assert reply.headers["vary"] == "Origin"


@both_ways
async def test_a_preflight_allows_reading_only(through_quart: bool) -> None:
    """A browser that asks first may GET with a token and an ETag; for POST it gets nothing that would let it go on."""
    async with open_bench(through_quart=through_quart) as bench:
        asks = {"origin": "https://site.example", "access-control-request-method": "GET"}
        reply = await bench.ask("OPTIONS", "/scoreboard/top", headers=asks)
        assert reply.headers["access-control-allow-origin"] == "*"
        assert "authorization" in reply.headers["access-control-allow-headers"]
        assert "access-control-allow-methods" in (await bench.ask("OPTIONS", "/sse/scoreboard", headers=asks)).headers
        for method, path in (("POST", "/scores/increment"), ("PUT", "/users/ann"), ("GET", "/actions/a1")):
            asks["access-control-request-method"] = method
            reply = await bench.ask("OPTIONS", path, headers=asks)
            assert not [name for name in reply.headers if name.startswith("access-control")]


@both_ways
async def test_a_page_may_send_any_header_with_a_read(through_quart: bool) -> None:
    """Tracing adds headers to each request of a page. The preflight of a public read allows those that it asks for."""
    asks = {"origin": "https://site.example", "access-control-request-method": "GET"}
    wanted = "authorization,baggage, sentry-trace,traceparent,x-b3-traceid"
    async with open_bench(through_quart=through_quart, origins=frozenset({"https://site.example"})) as bench:
        for path in ("/scoreboard/top", "/scores/ann", "/scores/ann/around", "/scores?userId=ann", "/openapi.json"):
            headers = {**asks, "access-control-request-headers": wanted}
            reply = await bench.ask("OPTIONS", path, headers=headers)
            assert reply.status == 204
            assert reply.headers["access-control-allow-headers"] == wanted
            assert reply.headers["access-control-allow-origin"] == "https://site.example"


@both_ways
async def test_a_list_of_headers_that_is_none_is_not_sent_back(through_quart: bool) -> None:
    """It gets the general answer; so does a list that is too long, and a preflight without one."""
    asks = {"origin": "https://site.example", "access-control-request-method": "HEAD"}
    async with open_bench(through_quart=through_quart) as bench:
        for wanted in ("", ",", "a b", "a;b", "x" * 1_025, "caf\xe9", "a,\x01"):
            headers = {**asks, "access-control-request-headers": wanted}
            reply = await bench.ask("OPTIONS", "/scoreboard/top", headers=headers)
            assert reply.headers["access-control-allow-headers"] == "*, authorization"
