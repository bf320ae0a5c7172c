"""The flag of the live channel with real processes: a leader and a replica obey at once, and after `kill -9` too."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio_websocket import ConnectionClosed, HandshakeError, open_websocket_url

from tests.e2e.client import Answer, Client
from tests.e2e.leader import ALARM_SECONDS, SECRET, Leader, following, serving, token

BOARDS = {"SCOREBOARD_BOARDS_MAIN_POINTS": "ACTION_COMPLETED=10"}
REPLICA = {"SCOREBOARD_AUTH_JWT_SECRET": SECRET, **BOARDS}


def client(node: Leader) -> Client:
    return Client(node.host, node.port, token("admin", "scores:write"))


async def switch(node: Leader, *, enabled: bool) -> Answer:
    """Put the flag on a leader."""
    async with client(node) as operator:
        answer = await operator.put("/flags/live", {"enabled": enabled})
    assert (answer.status, answer.json()["enabled"]) == (200, enabled)
    return answer


async def known(node: Leader, *, enabled: bool) -> None:
    """Wait until a node knows the flag."""
    async with client(node) as operator:
        with trio.fail_after(ALARM_SECONDS):
            while True:
                answer = await operator.get("/flags/live")
                if answer.status == 200 and answer.json()["enabled"] is enabled:
                    return
                await trio.sleep(0.05)  # another process: there is only its answer to wait for


def live(node: Leader) -> str:
    return f"ws://{node.host}:{node.port}/ws/scoreboard"


async def is_refused(node: Leader) -> None:
    """No viewer is let in, of either kind; what a page polls is there."""
    with pytest.raises(HandshakeError):
        async with open_websocket_url(live(node)):
            pass
    async with Client(node.host, node.port) as page:
        answer = await page.get("/sse/scoreboard")
        assert (answer.status, answer.json()["error"]["details"]) == (503, {"flag": "live"})
        assert 1 <= int(answer.headers["retry-after"]) <= 30
    async with Client(node.host, node.port) as page:
        for path in ("/scoreboard/top", "/readyz", "/metrics"):
            assert (await page.get(path)).status == 200, path


async def test_every_node_obeys_and_remembers(tmp_path: Path) -> None:
    """Viewers of both get 1013. After both were killed they still let nobody in, until the channel is on again."""
    data, copy = tmp_path / "leader", ("--data-dir", str(tmp_path / "replica"))
    async with (
        serving(data, extra=BOARDS) as leader,
        following(tmp_path, "first", leader.url, *copy, extra=REPLICA) as replica,
    ):
        await known(replica, enabled=True)
        async with open_websocket_url(live(leader)) as one, open_websocket_url(live(replica)) as other:
            for viewer in (one, other):
                await viewer.get_message()
            await switch(leader, enabled=False)
            for viewer in (one, other):
                with pytest.raises(ConnectionClosed) as closed:
                    await viewer.get_message()
                assert closed.value.reason is not None
                assert closed.value.reason.code == 1013
        await known(replica, enabled=False)
        for node in (leader, replica):
            await is_refused(node)
        assert '"event": "flag_changed"' in leader.stderr()
        assert '"event": "live_channel_off"' in replica.stderr()
        await replica.kill()
        await leader.kill()
    async with (
        serving(data, extra=BOARDS) as leader,
        following(tmp_path, "second", leader.url, *copy, extra=REPLICA) as replica,
    ):
        for node in (leader, replica):
            await known(node, enabled=False)
            await is_refused(node)
        await switch(leader, enabled=True)
        await known(replica, enabled=True)
        async with open_websocket_url(live(leader)) as one, open_websocket_url(live(replica)) as other:
            for viewer in (one, other):
                assert await viewer.get_message()
