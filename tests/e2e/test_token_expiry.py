"""Tokens that expire while a connection is open, with real nodes: a viewer of a private board, and a replica's link."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed, open_websocket_url

from tests.e2e.leader import ALARM_SECONDS, following, serving, token

AT_ONCE = {
    "server.bounds.LEASE_GRACE_SECONDS": 0,
    "server.bounds.TOKEN_LEEWAY_SECONDS": 0,
    "server.bounds.RECONNECT_SECONDS_MAX": 0.5,
}
"""Without the leeway for clocks that differ, so that the end comes soon."""


async def test_a_viewer_of_a_private_board_ends_with_its_token(tmp_path: Path) -> None:
    """1008, `token expired`. The viewer comes back with a new token, not with the old one."""
    private = {"SCOREBOARD_AUTH_PUBLIC_READS": "false"}
    async with serving(tmp_path / "data", extra=private, constants=AT_ONCE) as leader:
        url = f"ws://127.0.0.1:{leader.port}/ws/scoreboard"
        bearer = f"Bearer {token('scores:read', seconds=8)}"
        with trio.fail_after(ALARM_SECONDS):
            async with open_websocket_url(url, extra_headers=[(b"authorization", bearer.encode())]) as viewer:
                await viewer.get_message()
                with pytest.raises(ConnectionClosed) as closed:
                    await viewer.get_message()
        reason = closed.value.reason
        assert reason is not None
        assert (reason.code, reason.reason) == (1008, "token expired")
        async with httpx.AsyncClient(trust_env=False) as client:
            read = f"{leader.url}/scoreboard/top"
            assert (await client.get(read, headers={"authorization": bearer})).status_code == 401
            fresh = {"authorization": f"Bearer {token('scores:read')}"}
            assert (await client.get(read, headers=fresh)).status_code == 200


async def test_a_replica_comes_back_with_the_token_that_its_file_has_by_then(tmp_path: Path) -> None:
    """Its link ends with the first token. It follows on as soon as the file has the second one."""
    async with serving(tmp_path / "data", constants=AT_ONCE) as leader:
        tokens = tmp_path / "short.token"
        tokens.write_text(token("log:read", seconds=15))
        arguments = ("--token-file", str(tokens))
        async with (
            following(tmp_path, "replica", leader.url, *arguments, constants=AT_ONCE) as replica,
            httpx.AsyncClient(trust_env=False) as client,
        ):
            with trio.fail_after(ALARM_SECONDS):
                while "token expired" not in replica.stderr():  # noqa: ASYNC110  # another process
                    await trio.sleep(0.05)
            tokens.write_text(token("log:read"))
            headers = {"authorization": f"Bearer {token('scores:write')}"}
            action = {"userId": "ann", "actionId": "a1"}
            counted = await client.post(f"{leader.url}/scores/increment", json=action, headers=headers)
            assert counted.status_code == 200
            with trio.fail_after(ALARM_SECONDS):
                while (await client.get(f"{replica.url}/scores/ann")).status_code != 200:  # noqa: ASYNC110  # as above
                    await trio.sleep(0.05)
