"""A member of a quorum has a snapshot that reaches to the oldest frame of the stream: a new node can go on from it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

from engine.disk import RealDisk
from engine.record import Tail
from server.node import stream_cover
from server.node.newcomer import bootstrap_of, prepare
from server.node.shutdown import tell
from server.node.stream_cover import StreamCover
from snapshots.digests import state_digest
from tests.e2e import leader as outside
from tests.quorum.members import ALARM_SECONDS, leads, member, member_of
from tests.quorum.model_stream import Cloud
from tests.quorum.test_member import has, post
from tests.server.node.nodes import config_for, serving


async def test_a_new_node_needs_no_snapshot_that_was_there_before_a_purge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No checkpoint was due yet: the node that is there makes a snapshot because the stream begins later."""
    monkeypatch.setattr(stream_cover, "LOOK_SECONDS", 0.05)
    cloud = Cloud()
    async with member(tmp_path, cloud, "a") as a:
        await leads(a)
        await post(a, "one")
        await post(a, "two")
        cloud.purge(cloud.last)
        config = config_for(tmp_path / "b", SCOREBOARD_QUORUM_SILENCE_SECONDS="1")
        bootstrap = partial(
            bootstrap_of, disk=RealDisk(), data_directory=config.data_dir, token=partial(outside.token, "log:read"),
            uniform=lambda a, _b: a, node_id="b",
        )  # fmt: skip
        with trio.fail_after(ALARM_SECONDS):
            await prepare(RealDisk(), config.data_dir, cloud.stream("b first"), bootstrap, tell=tell)
        async with serving(config, member_of(cloud, "b")) as b:
            await has(b.node, a.node.scoreboard.seq)
            assert state_digest(b.node.scoreboard.capture()) == state_digest(a.node.scoreboard.capture())


async def test_a_snapshot_is_made_only_if_it_helps(tmp_path: Path) -> None:
    """Not while the stream has all, not if one reaches to it, and not by a node that lacks what is purged itself."""
    cloud = Cloud()
    async with member(tmp_path, cloud, "a") as a:
        await leads(a)
        await post(a, "one")
        await post(a, "two")
        tail = a.node.scoreboard.seq
        made: list[int] = []

        async def look(*, snapshot_seq: int | None, tail_seq: int) -> int:
            async def take() -> None:
                made.append(tail_seq)

            stream = cloud.stream("looks")
            await StreamCover(stream, lambda: Tail(bytes(16), 2, tail_seq, 0), lambda: snapshot_seq, take).look()
            return len(made)

        assert await look(snapshot_seq=None, tail_seq=tail) == 0
        cloud.purge(cloud.last)
        assert await look(snapshot_seq=tail - 1, tail_seq=tail) == 0
        assert await look(snapshot_seq=None, tail_seq=tail - 2) == 0
        assert await look(snapshot_seq=tail - 2, tail_seq=tail) == 1
        assert await look(snapshot_seq=None, tail_seq=tail - 1) == 2
