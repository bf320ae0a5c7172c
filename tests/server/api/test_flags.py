"""PUT and GET /flags/live: what is answered, logged and told, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from engine.events import FlagPut
from server.role import Role, State
from tests.server.api.support import ADMIN, WRITER, both_ways, open_bench

PATH = "/flags/live"


@both_ways
async def test_a_flag_is_put_and_read(through_quart: bool) -> None:
    """On by default. A change says since when, and is told with its caller; what is so already changes nothing."""
    async with open_bench(through_quart=through_quart) as bench:
        first = await bench.ask("GET", PATH, token=ADMIN)
        assert first.json == {"flag": "live", "enabled": True, "since": None, "epoch": 1, "seq": 0}
        assert first.headers["cache-control"] == "no-store"
        off = (await bench.ask("PUT", PATH, {"enabled": False}, token=ADMIN)).json
        since = off["since"]
        assert off == {"flag": "live", "enabled": False, "since": since, "epoch": 1, "seq": 1, "applied": True}
        assert b"scoreboard_live_enabled 0.0" in (await bench.ask("GET", "/metrics")).body
        await bench.increment("ann", "a1")
        again = (await bench.ask("PUT", PATH, {"enabled": False}, token=ADMIN)).json
        assert again == {**off, "applied": False, "seq": 2}
        read = (await bench.ask("GET", PATH, token=ADMIN)).json
        assert read == {"flag": "live", "enabled": False, "since": since, "epoch": 1, "seq": 2}
        on = (await bench.ask("PUT", PATH, {"enabled": True}, token=ADMIN)).json
        assert on == {"flag": "live", "enabled": True, "since": None, "epoch": 1, "seq": 3, "applied": True}
        assert b"scoreboard_live_enabled 1.0" in (await bench.ask("GET", "/metrics")).body
        logged = [event for event in bench.log.events if isinstance(event, FlagPut)]
        assert [(event.seq, event.flag, event.enabled) for event in logged] == [(1, "live", False), (3, "live", True)]
        told = [line for line in bench.lines if line["event"] == "flag_changed"]
        assert [(line["flag"], line["enabled"], line["seq"]) for line in told] == [
            ("live", False, 1),
            ("live", True, 3),
        ]
        assert {line["caller"] for line in told} == {event.caller for event in logged}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "enabled"),
        ({"enabled": None}, "enabled"),
        ({"enabled": 0}, "enabled"),
        ({"enabled": "false"}, "enabled"),
        ({"enabled": False, "for": "1h"}, "for"),
        ({"Enabled": False}, "Enabled"),
        ([False], "body"),
        (False, "body"),
    ],
)
async def test_a_body_with_a_fault_is_refused_by_its_field(body: Any, field: str) -> None:
    """And nothing is logged."""
    async with open_bench() as bench:
        reply = await bench.ask("PUT", PATH, body, token=ADMIN)
        assert (reply.status, reply.code) == (400, "INVALID_REQUEST")
        assert reply.json["error"]["details"]["field"] == field
        assert bench.log.events == []


async def test_a_body_that_is_no_json_is_refused() -> None:
    """An empty one too: to switch by accident must not be possible."""
    async with open_bench() as bench:
        for raw in (b"", b"{", b"enabled=false"):
            reply = await bench.ask("PUT", PATH, raw=raw, token=ADMIN)
            assert (reply.status, reply.json["error"]["details"]["field"]) == (400, "body")
        assert (await bench.ask("PUT", PATH, raw=b'\xef\xbb\xbf{"enabled": false}', token=ADMIN)).status == 200


async def test_who_may_not() -> None:
    """It needs `admin`, and a token that names a user is for this user only. Another flag is nowhere."""
    async with open_bench() as bench:
        body = {"enabled": False}
        assert (await bench.ask("PUT", PATH, body)).status == 401
        assert (await bench.ask("PUT", PATH, body, token=WRITER)).status == 403
        assert (await bench.ask("PUT", PATH, body, token="Bearer ann admin ann")).status == 403
        assert (await bench.ask("GET", PATH, token=WRITER)).status == 403
        assert (await bench.ask("PUT", "/flags/page", body, token=ADMIN)).status == 404
        assert (await bench.ask("DELETE", PATH, token=ADMIN)).headers["allow"] == "GET, PUT, HEAD, OPTIONS"
        assert bench.log.events == []


async def test_a_replica_sends_who_asks_to_its_leader() -> None:
    """It reads the flag itself."""
    async with open_bench() as bench:
        bench.role._set(Role(State.FOLLOWING, leader="https://leader", public_url="https://leader.example"))
        reply = await bench.ask("PUT", PATH, {"enabled": False}, token=ADMIN)
        assert (reply.status, reply.headers["location"]) == (307, "https://leader.example/flags/live")
        assert (await bench.ask("GET", PATH, token=ADMIN)).json["enabled"] is True
