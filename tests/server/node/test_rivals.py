"""Two replicas are promoted at once: one of the two leaders goes on, the other is deposed and can be demoted."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from server import bounds
from server.node.directories import check_leads
from server.replication.bootstrap import Bootstrap
from server.replication.link import parse_leader
from server.role import State
from server.settings.config import ConfigError
from snapshots.demotion import DemotionReport, demote_directory
from snapshots.promotion import NO_RULES, read_deposed, read_marker
from snapshots.state import read_state
from tests.cluster.wires import Wire
from tests.e2e import leader as outside
from tests.server.lanes.support import PATIENCE_SECONDS
from tests.server.node.lives import Life, holds, increment, is_in, quick
from tests.server.node.nodes import Served, caught_up, config_for, fill, leader_of_directory, replica_of, serving
from tests.server.node.test_start import client_of
from tests.snapshots.directories import InlineDisk, Told

pytestmark = pytest.mark.usefixtures("logged")


@pytest.fixture(autouse=True, params=[1, -1], ids=["the later identity wins", "the earlier identity wins"])
def _drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Identities differ, and grow or fall from one to the next."""
    numbers = itertools.count(100, request.param)
    monkeypatch.setattr("tests.server.node.nodes.IDENTITIES", lambda count: bytes([next(numbers)] * count))
    monkeypatch.setattr(bounds, "RECONNECT_SECONDS_MAX", 0.1)


class Family:
    """An old leader behind a wire, and its replicas."""

    def __init__(self, old: Served, wire: Wire) -> None:
        self.old = old
        self.wire = wire
        self.lives = {"one": Life(), "other": Life()}

    async def end(self, served: Served) -> None:
        """End a replica."""
        for life in self.lives.values():
            if life.served is served:
                await life.end()


@asynccontextmanager
async def family(directory: Path, *, behind_relay: bool = False) -> AsyncIterator[Family]:
    """Two replicas that have caught up, and can be promoted. One follows a relay, if that is wanted."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with serving(quick(config_for(directory / "old")), leader_of_directory) as old:
            await fill(old)
            wire = Wire("old", old.port)
            relay = Life()
            async with trio.open_nursery() as nursery:
                await nursery.start(wire.run)
                relatives = Family(old, wire)
                follows = {"one": wire.url, "other": wire.url}
                if behind_relay:
                    await nursery.start(relay.live, directory / "relay", wire.url)
                    follows["other"] = relay.served.url
                for name, url in follows.items():
                    await nursery.start(relatives.lives[name].live, directory / name, url)
                yield relatives
                for life in (relay, *relatives.lives.values()):
                    life.wanted.set()
                for life in relatives.lives.values():
                    await life.ended.wait()
                nursery.cancel_scope.cancel()


async def promote_both(relatives: Family) -> tuple[Served, Served]:
    """Promote both while the old leader is out of reach, so that both lead in one epoch; give winner and loser."""
    one, other = (life.served for life in relatives.lives.values())
    relatives.wire.refuse()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.node.promote)
        nursery.start_soon(other.node.promote)
    marks = {node.node.scoreboard.mark: node for node in (one, other)}
    assert [mark.epoch for mark in marks] == [2, 2]
    return marks[max(marks)], marks[min(marks)]


async def demote(loser: Served, winner: Served) -> DemotionReport:
    """Demote the stopped loser, as the command does."""
    disk, data = InlineDisk(), loser.config.data_dir
    asking = Bootstrap(
        parse_leader(winner.url), disk, data, token=lambda: outside.token("log:read"),
        uniform=lambda _low, _high: 0.0, tell=pytest.fail,
    )  # fmt: skip
    scoreboard, _ = read_state(disk, data, NO_RULES, tell=Told())
    common = await asking.common(scoreboard.marks())
    return demote_directory(disk, data, common, leader=winner.url, tell=Told())


@pytest.mark.parametrize("behind_relay", [False, True], ids=["two replicas", "one behind a relay"])
async def test_of_two_leaders_in_one_epoch_one_remains(tmp_path: Path, behind_relay: bool) -> None:
    """Two promotions make two leaders in one epoch, for ever: both write at the same positions."""
    async with family(tmp_path, behind_relay=behind_relay) as relatives:
        winner, loser = await promote_both(relatives)
        receipts = [(await increment(node, f"at {node.url}")).json() for node in (winner, loser)]
        assert receipts[0]["seq"] == receipts[1]["seq"], "both write at one position"
        relatives.wire.mend()
        for node in (loser, relatives.old):
            await is_in(node, State.DEPOSED)
        await holds(lambda: relatives.old.node.role.now.successor == loser.node.role.now.successor)
        mark = winner.node.scoreboard.mark
        successor = loser.node.role.now.successor
        assert successor is not None
        assert (successor.mark, successor.leader) == (mark, winner.url)
        assert (await increment(winner, "later")).status == 200
        assert winner.node.role.now.state is State.LEADING
        answer = await increment(loser, "later")
        assert (answer.status, answer.json()["error"]["details"]["history"]) == (421, mark.history)
        async with client_of(loser.url) as client:
            ready = await client.get("/readyz")
        assert ready.status == 503
        assert mark.history in ready.json()["error"]["details"]["reason"]


async def test_an_etag_of_one_leader_is_not_known_to_the_other(tmp_path: Path) -> None:
    """Both leaders have other rows at one position. An ETag of one got 304 from the other."""
    async with family(tmp_path) as relatives:
        etags = {}
        for node in await promote_both(relatives):
            await increment(node, f"at {node.url}")
            async with client_of(node.url) as client:
                etags[node.url] = (await client.get("/scoreboard/top")).headers["etag"]
        for url in etags:
            async with client_of(url) as client:
                for known, etag in etags.items():
                    answer = await client.get("/scoreboard/top", {"if-none-match": etag})
                    assert answer.status == (304 if known == url else 200)


async def test_the_losers_directory_is_taken_back_and_its_own_actions_are_listed(tmp_path: Path) -> None:
    """`demote` refused, because the epochs have one number, and listed nothing."""
    async with family(tmp_path) as relatives:
        winner, loser = await promote_both(relatives)
        only = ["x", "y"]
        for action in only:
            assert (await increment(loser, action)).status == 200
        relatives.wire.mend()
        await is_in(loser, State.DEPOSED)
        await relatives.end(loser)
        disk, data = InlineDisk(), loser.config.data_dir
        with pytest.raises(ConfigError, match="began elsewhere"):
            check_leads(disk, data)
        report = await demote(loser, winner)
        assert [action.action_id for action in report.actions] == only
        marker = read_marker(disk, data)
        assert marker is not None
        assert (marker.leader, read_deposed(disk, data)) == (winner.url, None)
        async with serving(quick(config_for(Path(data))), replica_of(winner.url)) as again:
            await caught_up(again)
            for action in only:
                assert (await increment(winner, action)).json()["applied"]
            await holds(lambda: again.node.scoreboard.seq == winner.node.scoreboard.seq)
            assert again.node.scoreboard.mark == winner.node.scoreboard.mark
