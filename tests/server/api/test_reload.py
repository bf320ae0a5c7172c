"""The pipeline takes other limits and origins: at once, also for heads that the express lane remembers."""

from __future__ import annotations

from server.http.messages import Request
from server.settings.config import Config, LimitsConfig, LiveConfig
from tests.server.api.support import WRITER, Bench, open_bench

HERE = "https://here.example"


def from_here() -> Request:
    return Request("GET", "/scoreboard/top", headers={"origin": HERE})


async def readable(bench: Bench, method: str = "GET") -> str | None:
    """Which origin may read the answer."""
    more = {"access-control-request-method": "GET"} if method == "OPTIONS" else {}
    reply = await bench.ask(method, "/scoreboard/top", headers={"origin": HERE, **more})
    return reply.headers.get("access-control-allow-origin")


async def test_origins_change() -> None:
    """Of answers and of preflights."""
    async with open_bench() as bench:
        assert await readable(bench) == "*"
        bench.pipeline.reload(Config(live=LiveConfig(allowed_origins=("https://there.example",))))
        assert (await readable(bench), await readable(bench, "OPTIONS")) == (None, None)
        bench.pipeline.reload(Config(live=LiveConfig(allowed_origins=(HERE,))))
        assert (await readable(bench), await readable(bench, "OPTIONS")) == (HERE, HERE)


async def test_a_remembered_head_is_void() -> None:
    """It has the origin of before in its lines."""
    async with open_bench() as bench:
        head = bench.pipeline.recognise(from_here())
        assert head is not None
        assert bench.pipeline.holds(head)
        bench.pipeline.reload(Config(live=LiveConfig(allowed_origins=(HERE,))))
        assert not bench.pipeline.holds(head)
        again = bench.pipeline.recognise(from_here())
        assert again is not None
        assert bench.pipeline.holds(again)
        assert HERE.encode() in again.lines
        assert HERE.encode() not in head.lines


async def test_limits_change() -> None:
    """A lower one refuses what goes beyond it from now on, and says its number; a higher one lets it pass."""
    async with open_bench() as bench:
        bench.pipeline.reload(Config(limits=LimitsConfig(caller_per_minute=1_000, user_per_minute=2)))
        for number in range(2):
            await bench.increment("ann", f"a{number}")
        body = {"userId": "ann", "actionId": "a2"}
        reply = await bench.ask("POST", "/scores/increment", body, token=WRITER)
        assert (reply.status, reply.json["error"]["details"]["limitPerMinute"]) == (429, 2)
        bench.pipeline.reload(Config(limits=LimitsConfig(caller_per_minute=3, user_per_minute=1_000)))
        bench.now_s += 60
        for number in range(2, 5):
            await bench.increment("ann", f"a{number}")
        reply = await bench.ask("POST", "/scores/increment", {**body, "actionId": "a5"}, token=WRITER)
        assert reply.json["error"]["details"]["limit"] == "caller"
