"""The token of a link: a link stays as long as its token is good."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server.replication.network import LANDLORD, Leader, open_replica, patience, start


async def test_a_link_ends_with_its_token_and_comes_back_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader closes the link with the reason; the follower tells it, and follows on when its token is good."""
    leader = Leader(tmp_path / "leader")
    leader.play(3)
    async with patience() as nursery, leader.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        running = await start(nursery, replica.follower)
        await running.is_in("following")
        monkeypatch.setattr(LANDLORD, "ended", True)
        status = await replica.follower.wait_until(lambda status: status.state == "disconnected")
        assert status.reason == "the connection was closed: token expired"
        monkeypatch.setattr(LANDLORD, "ended", False)
        leader.play(3)
        await running.reaches(leader.seq)
        await running.stop()


async def test_a_link_that_is_refused_tells_that_it_is_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is in the status, for `/readyz`. The token is not."""
    leader = Leader(tmp_path / "leader")
    leader.play(3)
    async with patience() as nursery, leader.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        monkeypatch.setattr(replica.follower, "_token", lambda: "expired-token")
        running = await start(nursery, replica.follower)
        status = await replica.follower.wait_until(lambda status: status.state == "disconnected")
        assert status.reason == "the leader refused the token, or wants one (status 401)"
        await running.stop()
