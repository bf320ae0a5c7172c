"""A full disk, as callers see it: 503 DISK_FULL for what needs the disk, answers to everything else, and warnings."""

from __future__ import annotations

import msgspec
import pytest

from engine.errors import DiskFull
from engine.log import Synced
from server import bounds
from tests.server.api.support import ADMIN, MemoryLog, both_ways, open_bench


@both_ways
async def test_writes_are_refused_and_nothing_is_counted(through_quart: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk ends the service: single, batch and user; a repeated action is answered, and so is every read."""
    append, full = MemoryLog.append_frame, True

    def append_or_not(self: MemoryLog, expected_seq: int, data: bytes) -> Synced:
        if full and self.events:
            raise DiskFull("the next segment does not fit", path="log/2.log", seq=expected_seq + 1)
        return append(self, expected_seq, data)

    monkeypatch.setattr(MemoryLog, "append_frame", append_or_not)
    async with open_bench(through_quart=through_quart) as bench:
        assert (await bench.increment("ann", "a1")).status == 200
        increment = {"userId": "ann", "actionId": "a2", "reason": "ACTION_COMPLETED"}
        repeat = {**increment, "actionId": "a1"}
        for method, path, body in (
            ("POST", "/scores/increment", increment),
            ("POST", "/scores/increment/batch", [increment]),
            ("POST", "/scores/increment/batch", [repeat, increment]),
            ("PUT", "/users/ann", {"displayName": "Ann"}),
        ):
            reply = await bench.ask(method, path, body, token=ADMIN)
            assert (reply.status, reply.code) == (503, "DISK_FULL")
            assert reply.headers["retry-after"] == str(bounds.DISK_FULL_RETRY_SECONDS)
            assert reply.headers["cache-control"] == "no-store"
            assert "Nothing was done" in reply.json["error"]["message"]
        again = await bench.increment("ann", "a1")
        assert (again.status, again.json["applied"]) == (200, False)
        batch = await bench.ask("POST", "/scores/increment/batch", [repeat, repeat], token=ADMIN)
        assert (batch.status, [row["applied"] for row in batch.json]) == (200, [False, False])
        assert (await bench.ask("GET", "/scoreboard/top")).status == 200
        assert (await bench.ask("GET", "/readyz")).status == 200
        assert bench.scoreboard.seq == 1
        assert bench.metrics.value("scoreboard_failures_total", code="DISK_FULL") == 4
        assert bench.metrics.value("scoreboard_updates_total", result="applied") == 1
        assert bench.metrics.value("scoreboard_updates_total", result="unknown") == 0
        assert {line["code"] for line in bench.told("refused")} == {"DISK_FULL"}


@both_ways
async def test_what_is_left_is_a_metric_and_too_little_is_a_warning(through_quart: bool) -> None:
    """A node that soon takes no writes stays ready: others have no more room, and its readers would be sent away."""
    async with open_bench(through_quart=through_quart) as bench:
        assert "warnings" not in (await bench.ask("GET", "/readyz")).json
        assert b"scoreboard_disk_free_bytes NaN" in (await bench.ask("GET", "/metrics")).body
        bench.storage = msgspec.structs.replace(bench.storage, free_bytes=4711, warning="4711 bytes are left")
        ready = await bench.ask("GET", "/readyz")
        assert (ready.status, ready.json["status"]) == (200, "ready")
        assert ready.json["warnings"] == ["4711 bytes are left"]
        assert b"scoreboard_disk_free_bytes 4711.0" in (await bench.ask("GET", "/metrics")).body
