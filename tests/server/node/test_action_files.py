"""Whole nodes whose older actions lie in files: a replica or a member that came late counts no action twice."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
import trio

from engine import action_blocks
from engine.action_blocks import run_name
from engine.disk import RealDisk
from server.node.newcomer import bootstrap_of, prepare
from server.node.shutdown import tell
from server.role import State
from server.settings.config import Config
from snapshots.action_store import ActionStore
from snapshots.digests import state_digest
from tests.e2e import leader as outside
from tests.quorum.members import leads, member_of, until
from tests.quorum.model_stream import Cloud
from tests.quorum.test_member import has, operator_of
from tests.server.lanes.support import PATIENCE_SECONDS
from tests.server.node.nodes import Served, caught_up, config_for, leader_of_directory, replica_of, serving
from tests.server.node.test_start import client_of

ACTIONS, BLOCK = 70, 16

pytestmark = pytest.mark.usefixtures("logged")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_blocks, "BLOCK_ACTIONS", BLOCK)


def config_at(directory: Path) -> Config:
    """Files from the first whole block on."""
    return config_for(
        directory, SCOREBOARD_ACTIONS_INDEX="disk", SCOREBOARD_QUORUM_SILENCE_SECONDS="1",
        SCOREBOARD_REPLICATION_NODE_NAME=directory.name,
    )  # fmt: skip


def member(directory: Path, cloud: Cloud, name: str) -> AbstractAsyncContextManager[Served]:
    return serving(config_at(directory / name), member_of(cloud, name))


def action(number: int) -> dict[str, str]:
    return {"userId": f"user-{number % 7}", "actionId": f"act-{number}"}


async def play(served: Served) -> None:
    """Count actions, and have most of them sealed into files. The last one comes after the snapshot."""
    async with client_of(served.url) as client:
        answer = await client.post("/scores/increment/batch", [action(number) for number in range(ACTIONS - 1)])
        assert answer.status == 200
        assert all(each["applied"] for each in answer.json())
        assert served.node.log_service is not None
        await served.node.log_service.checkpoint()
        assert served.node.scoreboard.actions.sealed.blocks == 3
        assert (await client.post("/scores/increment", action(ACTIONS - 1))).status == 200


async def knows_them(served: Served, *, writes: bool) -> None:
    """The oldest action is known. Where writes are taken, it is a duplicate, and a conflict for another user."""
    actions = served.node.scoreboard.actions
    assert (actions.sealed.blocks, len(actions)) == (3, ACTIONS)
    async with client_of(served.url) as client:
        found = await client.get("/actions/act-0")
        assert (found.status, found.json()["applied"]) == (200, True)
        assert (await client.get("/actions/none")).status == 404
        if not writes:
            return
        again = await client.post("/scores/increment", action(0))
        assert (again.status, again.json()["applied"], again.json()["seq"]) == (200, False, found.json()["seq"])
        other = await client.post("/scores/increment", action(1) | {"userId": "user-5"})
        assert (other.status, other.json()["error"]["code"]) == (409, "CONFLICT")
        batch = await client.post("/scores/increment/batch", [action(number) for number in range(ACTIONS + 1)])
        assert [each["applied"] for each in batch.json()] == [False] * ACTIONS + [True]


async def test_a_promoted_replica_counts_no_old_action_again(tmp_path: Path) -> None:
    """It began with a snapshot, so it has no log of these actions. Before and after its promotion it knows them."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with serving(config_at(tmp_path / "leader"), leader_of_directory) as leader:
            await play(leader)
            async with serving(config_at(tmp_path / "replica"), replica_of(leader.url)) as replica:
                await caught_up(replica)
                assert replica.node.log is not None
                assert replica.node.log.statistics().first_seq > ACTIONS - 1
                await knows_them(replica, writes=False)
                await replica.node.promote()
                await knows_them(replica, writes=True)


async def test_an_erasure_leaves_no_file_that_has_not_forgotten(tmp_path: Path) -> None:
    """Files that only a snapshot of before names go with that snapshot."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with serving(config_at(tmp_path), leader_of_directory) as leader, operator_of(leader.url) as client:
            await play(leader)
            more = [action(number) for number in range(ACTIONS, 100)]
            assert (await client.post("/scores/increment/batch", more)).status == 200
            assert (await client.request("DELETE", "/users/user-3")).status == 200
            node = leader.node
            assert node.log is not None
            assert node.log_service is not None
            await node.log_service.checkpoint()
            store, sealed = ActionStore(leader.disk, leader.config.data_dir), node.scoreboard.actions.sealed
            runs = store.open_all(sealed.infos, node.log.tail.log_id)
            assert [run.forgotten for run in runs] == [9, 2]
            assert store.list() == [run_name(run.info) for run in runs]


async def test_a_new_member_of_a_quorum_counts_no_old_action_again(tmp_path: Path) -> None:
    """The stream begins later, so it goes on from another member's snapshot. Then that one is gone, and it leads."""
    cloud = Cloud()
    async with member(tmp_path, cloud, "a") as a:
        await leads(a)
        await play(a)
        cloud.purge(cloud.last)
        data = str(tmp_path / "b")
        bootstrap = partial(
            bootstrap_of, disk=RealDisk(), data_directory=data, token=partial(outside.token, "log:read"),
            uniform=lambda a, _b: a, node_id="b",
        )  # fmt: skip
        await prepare(RealDisk(), data, cloud.stream("b first"), bootstrap, tell=tell)
        async with member(tmp_path, cloud, "b") as b:
            await has(b.node, a.node.scoreboard.seq)
            await until(b, State.FOLLOWING)
            assert state_digest(b.node.scoreboard.capture()) == state_digest(a.node.scoreboard.capture())
            await knows_them(b, writes=False)
            cloud.cut("a")
            await leads(b)
            await knows_them(b, writes=True)


async def test_a_member_that_was_away_too_long_fetches_the_files_while_it_runs(tmp_path: Path) -> None:
    """What it missed is purged meanwhile. It goes on from another member's snapshot with all its files."""
    cloud = Cloud()
    async with member(tmp_path, cloud, "a") as a:
        await leads(a)
        async with member(tmp_path, cloud, "b") as b:
            await has(b.node, a.node.scoreboard.seq)
            cloud.cut("b")
            await play(a)
            cloud.purge(cloud.last)
            cloud.mend("b")
            await has(b.node, a.node.scoreboard.seq)
            await until(b, State.FOLLOWING)
            await knows_them(b, writes=False)


async def test_all_may_be_sent_again_though_the_limits_of_new_actions_are_used_up(tmp_path: Path) -> None:
    """It is not known yet that an old action was applied. Its filter says so, and it is charged as a repeat."""
    config = config_for(tmp_path, SCOREBOARD_ACTIONS_INDEX="disk", SCOREBOARD_LIMITS_USER_PER_MINUTE="10")
    async with serving(config, leader_of_directory) as served:
        await play(served)
        async with client_of(served.url) as client:
            assert (await client.post("/scores/increment", {"userId": "user-3", "actionId": "new"})).status == 429
            single = await client.post("/scores/increment", action(3))
            assert (single.status, single.json()["applied"]) == (200, False)
            batch = await client.post("/scores/increment/batch", [action(number) for number in range(ACTIONS)])
            assert [each.get("applied") for each in batch.json()] == [False] * ACTIONS
