"""Who comes to a quorum, and who leaves it: a new node, one that was away too long, a replica, a leader that ends."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from engine.disk import RealDisk
from engine.log import Log
from server.http.messages import Refused
from server.node.directories import check_leads, check_member, mark_replica
from server.node.newcomer import bootstrap_of, prepare
from server.node.shutdown import tell
from server.role import State
from server.settings.values import ConfigError
from snapshots.digests import state_digest
from snapshots.importing import ImportRefused, OpenDirectory
from snapshots.membership import Membership, read_membership, remove_membership, write_membership
from snapshots.opening import log_directory
from snapshots.promotion import NO_RULES, promote_directory
from snapshots.restore import RestoreRefused
from tests.e2e import leader as outside
from tests.quorum.members import leads, member, member_of, step_down, until
from tests.quorum.model_stream import Cloud
from tests.quorum.test_member import has, post
from tests.server.node.nodes import Served, caught_up, config_for, replica_of, serving


async def snapshot_of(served: Served) -> None:
    """Have a node take a snapshot, as it does at a checkpoint."""
    assert served.node.log_service is not None
    await served.node.log_service.checkpoint()


async def test_a_new_node_begins_from_another_one_when_the_stream_begins_later(tmp_path: Path) -> None:
    """Places are purged: it fetches a snapshot, finds its place, and holds the same state."""
    cloud = Cloud()
    async with member(tmp_path, cloud, "a") as a:
        await leads(a)
        for number in range(5):
            await post(a, f"action {number}")
        await snapshot_of(a)
        cloud.purge(cloud.last)
        config = config_for(tmp_path / "b", SCOREBOARD_QUORUM_SILENCE_SECONDS="1")
        token = partial(outside.token, "log:read")
        bootstrap = partial(
            bootstrap_of, disk=RealDisk(), data_directory=config.data_dir, token=token, uniform=lambda a, _b: a,
            node_id="b",
        )  # fmt: skip
        stream = cloud.stream("b first")
        await prepare(RealDisk(), config.data_dir, stream, bootstrap, tell=tell)
        async with serving(config, member_of(cloud, "b")) as b:
            await has(b.node, a.node.scoreboard.seq)
            await until(b, State.FOLLOWING)
            assert state_digest(b.node.scoreboard.capture()) == state_digest(a.node.scoreboard.capture())


async def test_a_node_that_was_away_too_long_goes_on_from_a_snapshot_of_another(tmp_path: Path) -> None:
    """It runs, is cut off, and what it missed is purged meanwhile."""
    cloud = Cloud()
    async with member(tmp_path, cloud, "a") as a:
        await leads(a)
        await post(a, "before")
        async with member(tmp_path, cloud, "b") as b:
            await has(b.node, a.node.scoreboard.seq)
            cloud.cut("b")
            for number in range(5):
                await post(a, f"action {number}")
            await snapshot_of(a)
            await post(a, "last")
            cloud.purge(cloud.last)
            cloud.mend("b")
            await has(b.node, a.node.scoreboard.seq)
            await until(b, State.FOLLOWING)
            assert state_digest(b.node.scoreboard.capture()) == state_digest(a.node.scoreboard.capture())


async def test_a_replica_follows_a_standby_through_a_takeover(tmp_path: Path) -> None:
    """The standby becomes the leader; the replica goes on with it in the new epoch."""
    cloud = Cloud()
    async with member(tmp_path, cloud, "a") as a:
        await leads(a)
        await post(a, "one")
        async with member(tmp_path, cloud, "b") as b:
            await until(b, State.FOLLOWING)
            config = config_for(tmp_path / "replica", SCOREBOARD_REPLICATION_HEARTBEAT_SECONDS="1")
            async with serving(config, replica_of(b.url)) as replica:
                await caught_up(replica)
                assert b.node.member is not None
                with pytest.raises(Refused, match=rf"it is following\. The leader is {a.url}\.$") as refused:
                    await b.node.member.step_down()
                assert refused.value.details == {"leader": a.url}
                await step_down(a)
                await leads(b)
                answer = await post(b, "two")
                assert answer.json()["epoch"] == 3
                await has(replica.node, b.node.scoreboard.seq)
                assert state_digest(replica.node.scoreboard.capture()) == state_digest(b.node.scoreboard.capture())


async def test_a_leader_that_is_stopped_hands_over_and_may_come_back(tmp_path: Path) -> None:
    """Another takes over; the directory is a prefix of the stream, so the same node goes on with it."""
    cloud = Cloud()
    async with member(tmp_path, cloud, "b") as b:
        await leads(b)
        async with member(tmp_path, cloud, "a") as a:
            await until(a, State.FOLLOWING)
            await step_down(b)
            await leads(a)
            await post(a, "one")
        await leads(b)
        again = await post(b, "one")
        assert (again.status, again.json()["applied"]) == (200, False)
        await post(b, "two")
        async with member(tmp_path, cloud, "a") as a:
            await has(a.node, b.node.scoreboard.seq)
            assert state_digest(a.node.scoreboard.capture()) == state_digest(b.node.scoreboard.capture())


def test_a_directory_of_a_quorum_is_written_by_nothing_else(tmp_path: Path) -> None:
    """Each command says so and names the stream; without the marker the directory is a leader's."""
    disk, data = RealDisk(), str(tmp_path / "data")
    log_id = bytes(16)
    disk.make_directory(data)
    membership = Membership("games", log_id.hex())
    check_member(disk, data, membership)
    assert read_membership(disk, data) == membership
    Log.create(disk, log_directory(data), log_id=log_id).close()
    check_member(disk, data, membership)
    for refused in (check_leads, partial(mark_replica, leader="http://a:1")):
        with pytest.raises(ConfigError, match="is of a quorum, whose log is the stream 'games'"):
            refused(disk, data)
    with pytest.raises(RestoreRefused, match="quorum export"):
        promote_directory(disk, data, now_ms=1, tell=tell)
    with pytest.raises(ImportRefused, match="quorum export"):
        OpenDirectory(disk, data, NO_RULES, clock_ms=lambda: 1, tell=tell)
    with pytest.raises(ConfigError, match="names one with the log 01"):
        check_member(disk, data, Membership("games", "01" * 16))
    remove_membership(disk, data)
    check_leads(disk, data)
    with pytest.raises(ConfigError, match="is a leader's, and no quorum's"):
        check_member(disk, data, membership)
    write_membership(disk, data, membership)
    check_member(disk, data, Membership("renamed", log_id.hex()))
    assert read_membership(disk, data) == Membership("renamed", log_id.hex())
