"""/readyz warns of an index of actions that takes more memory than `[actions] memory_bytes`."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.actions import key_of
from tests.server.node.nodes import config_for, leader_of_directory, serving
from tests.server.node.test_start import client_of

pytestmark = pytest.mark.usefixtures("logged")

MANY = 30_000
"""Actions that take more than a MiB: 32 bytes each, and a table."""


@pytest.mark.parametrize(("index", "warns"), [("memory", True), ("auto", False), ("disk", False)])
async def test_it_warns_where_nothing_will_make_room(tmp_path: Path, index: str, warns: bool) -> None:
    """With "auto" and "disk" the next checkpoint seals. In memory it goes on growing, and that is said."""
    config = config_for(tmp_path, SCOREBOARD_ACTIONS_INDEX=index, SCOREBOARD_ACTIONS_MEMORY_BYTES=str(2**20))
    async with serving(config, leader_of_directory) as served, client_of(served.url) as client:
        assert "warnings" not in (await client.get("/readyz")).json()
        actions = served.node.scoreboard.actions
        actions.add([key_of(f"act-{number}") for number in range(MANY)], served.node.scoreboard.seq + 1, [1] * MANY)
        warnings = (await client.get("/readyz")).json().get("warnings", [])
        assert any("[actions] memory_bytes = 1048576" in each for each in warnings) == warns
        text = (await client.get("/metrics")).body.decode()
        assert f"scoreboard_actions {MANY}.0" in text
        assert "scoreboard_actions_sealed 0.0" in text
