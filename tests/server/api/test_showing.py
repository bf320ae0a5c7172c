"""The pages for other places: who may frame them, the code, and how many watch."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from server.settings.config import Config, LiveConfig
from tests.server.api.support import READER, WRITER, Bench, both_ways, open_bench


def ancestors(headers: Any) -> str:
    """Who may frame a page, as its policy says."""
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    found: str = policy["frame-ancestors"]
    return found


@both_ways
async def test_only_the_page_for_frames_may_be_framed(through_quart: bool) -> None:
    """By the allowed sites, also when these change; every other page by nobody."""
    async with open_bench(through_quart=through_quart) as bench:
        for sites, policy in (
            ((), "'none'"),
            (("*",), "*"),
            (("https://game.example", "null"), "https://game.example"),
        ):
            bench.pipeline.reload(Config(live=LiveConfig(allowed_origins=sites)))
            reply = await bench.ask("GET", "/embed?boardId=main")
            assert (reply.status, ancestors(reply.headers)) == (200, policy)
            for path in ("/wall", "/", "/docs", "/console"):
                assert ancestors((await bench.ask("GET", path)).headers) == "'none'"


async def test_another_policy_is_another_document() -> None:
    """A cache that asks again gets the policy of now, and 304 only for what it has."""
    async with open_bench() as bench:
        first = await bench.ask("GET", "/embed")
        assert ancestors(first.headers) == "'none'", "nobody, unless the configuration says who"
        known = {"if-none-match": first.headers["etag"]}
        assert (await bench.ask("GET", "/embed", headers=known)).status == 304
        bench.pipeline.reload(Config(live=LiveConfig(allowed_origins=("https://game.example",))))
        again = await bench.ask("GET", "/embed", headers=known)
        assert (again.status, ancestors(again.headers)) == (200, "https://game.example")
        assert again.body == first.body


@both_ways
async def test_the_code_is_a_picture_for_the_host_of_the_request(through_quart: bool) -> None:
    """It runs nothing and may be framed nowhere; a cache may keep it."""
    async with open_bench(through_quart=through_quart) as bench:
        one, other = [await bench.ask("GET", "/qr.svg", headers={"host": host}) for host in ("a.example", "b.example")]
        assert (one.status, one.headers["content-type"]) == (200, "image/svg+xml")
        assert one.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'; sandbox"
        assert one.body.startswith(b"<svg ")
        assert one.body != other.body
        known = {"host": "a.example", "if-none-match": one.headers["etag"]}
        assert (await bench.ask("GET", "/qr.svg?boardId=main", headers=known)).status == 304
        base = {"host": "a.example"}
        assert (await bench.ask("GET", "/qr.svg?base=https://a.example/x/", headers=base)).status == 200
        for query, field in (("base=https://b.example/", "base"), ("boardId=", "boardId"), ("size=9", "size")):
            reply = await bench.ask("GET", f"/qr.svg?{query}", headers=base)
            assert (reply.status, reply.json["error"]["details"]["field"]) == (400, field)


def with_viewers(bench: Bench, counts: dict[str, int]) -> None:
    """Let the live channel have viewers."""
    bench.pipeline._showing._viewers = lambda board_id: counts.get(board_id, 0)


@both_ways
async def test_how_many_watch(through_quart: bool) -> None:
    """Of one board; one that is not there is refused as it is for the top. Caches ask again each time."""
    async with open_bench(through_quart=through_quart) as bench:
        with_viewers(bench, {"main": 12_345})
        reply = await bench.ask("GET", "/viewers")
        assert (reply.status, reply.json) == (200, {"boardId": "main", "viewers": 12_345})
        assert reply.headers["cache-control"] == "no-cache"
        assert (await bench.ask("GET", "/viewers?boardId=weekly")).json == {"boardId": "weekly", "viewers": 0}
        top = (await bench.ask("GET", "/scoreboard/top?boardId=nowhere")).json["error"]
        assert (top["code"], top["details"]["field"]) == ("INVALID_REQUEST", "boardId")
        for path in ("/viewers", "/qr.svg"):
            reply = await bench.ask("GET", f"{path}?boardId=nowhere", headers={"host": "a.example"})
            assert (reply.status, reply.json["error"]) == (400, top)


@pytest.mark.parametrize(
    ("token", "status"), [(None, 401), (READER, 200), (WRITER, 200), ("Bearer x users:write", 403)]
)
async def test_a_private_board_tells_nobody(token: str | None, status: int) -> None:
    """Who may not read it need not know that others do. The pages themselves say nothing."""
    async with open_bench(public_reads=False) as bench:
        assert (await bench.ask("GET", "/viewers", token=token)).status == status
        for path in ("/embed", "/wall"):
            assert (await bench.ask("GET", path)).status == 200
        for board_id in ("main", "nowhere"):
            reply = await bench.ask("GET", f"/qr.svg?boardId={board_id}", headers={"host": "a.example"})
            assert reply.status == 200, "a code tells nobody which boards there are"
        assert msgspec.json.decode((await bench.ask("GET", "/viewers")).body)["error"]["code"] == "UNAUTHENTICATED"
