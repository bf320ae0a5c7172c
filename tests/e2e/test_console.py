"""The console of a real leader, turned off by the configuration."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.e2e.leader import ALARM_SECONDS, serving


async def test_a_console_that_is_turned_off_is_not_served(tmp_path: Path) -> None:
    """404, with a sentence that names the key. The other pages are there."""
    extra = {"SCOREBOARD_CONSOLE_ENABLED": "false"}
    async with (
        serving(tmp_path / "data", extra=extra) as leader,
        httpx.AsyncClient(base_url=leader.url, trust_env=False, timeout=ALARM_SECONDS) as http,
    ):
        gone = await http.get("/console")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "NOT_FOUND")
        assert "[console] enabled" in gone.json()["error"]["message"]
        assert (await http.get("/docs")).status_code == 200
