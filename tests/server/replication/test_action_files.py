"""Files of older actions: a replica has all that its snapshot names before it takes the snapshot over."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from engine import action_blocks
from engine.action_reading import read_in
from engine.actions import key_of
from engine.errors import DiskFault
from engine.events import Incremented
from engine.log_reader import scan
from engine.record import events_of
from engine.scoreboard import Scoreboard
from server.replication.bootstrap import Bootstrap, Fetched
from server.replication.download import ShowBytes, no_bytes
from server.replication.failure import FollowingFailed
from server.replication.messages import ACTIONS_PATH
from server.replication.sharding import Shard
from snapshots.opening import open_directory
from snapshots.sealing import IndexRules, Sealer
from tests.cluster.wires import Wire
from tests.server.replication.network import (
    TOKEN,
    Leader,
    follow_so_far,
    make_bootstrap,
    open_replica,
    open_shard,
    patience,
    start,
)
from tests.server.replication.test_bootstrap import HEADERS, Flip
from tests.snapshots.directories import RULES, InlineDisk, Killed, MortalDisk, contents, digest
from tests.snapshots.forgetting import command

BLOCK = 16


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_blocks, "BLOCK_ACTIONS", BLOCK)


class Sealing(Leader):
    """A leader whose older actions go to files at each snapshot."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.directory = directory
        self.known: dict[str, int] = {}  # actions of before the log was cut
        self.sealer = Sealer(
            self.writer.scoreboard, InlineDisk(), str(directory), self.writer.log, IndexRules("disk"),
            tell=self.told.append,
        )  # fmt: skip

    async def checkpoint(self, *, keep: int = 2) -> int:
        """Seal, save a snapshot, and let go of the snapshots before the newest ones, with their files."""
        await self.sealer.seal()
        info = self.writer.snapshot()
        for old in self.store.list()[keep:]:
            self.store.remove(old.path)
        await self.sealer.tidy()
        return info.seq

    def damage(self, number: int, offset: int = 40) -> Path:
        """Flip a bit in one of its files; give the path of the file."""
        path = Path(self.directory / "actions" / self.files[number])
        data = bytearray(path.read_bytes())
        data[offset] ^= 1
        path.write_bytes(data)
        return path

    @property
    def files(self) -> list[str]:
        """The names of the files of the state now, the oldest actions first."""
        return [action_blocks.run_name(info) for info in self.writer.scoreboard.actions.sealed.infos]

    def actions(self, until_seq: int) -> dict[str, int]:
        """All applied actions that the log still has up to a seq, with the seqs of their events."""
        frames = scan(InlineDisk(), str(self.directory / "log"), until_seq=until_seq)
        return {e.action_id: e.seq for frame in frames for e in events_of(frame) if isinstance(e, Incremented)}


@asynccontextmanager
async def sealing(directory: Path) -> AsyncIterator[Sealing]:
    """A leader with files of several sizes, over a listener."""
    leader = Sealing(directory)
    leader.play(100)
    await leader.checkpoint()
    assert len(leader.files) >= 3
    leader.play(3)
    async with leader.open():
        yield leader


def fail(fault: object) -> None:
    raise AssertionError(fault)


async def check_known(leader: Sealing, scoreboard: Scoreboard) -> None:
    """The state can say of every action of the leader up to its own seq which event applied it."""
    actions = leader.known | leader.actions(scoreboard.seq)
    actions = {action: seq for action, seq in actions.items() if seq <= scoreboard.seq}
    assert len(actions) >= 300
    await read_in(scoreboard, [key_of(action) for action in actions], blocks=False, on_damage=fail)
    assert {action: scoreboard.action_seq(action) for action in actions} == actions
    await read_in(scoreboard, [key_of("none")], blocks=False, on_damage=fail)
    assert scoreboard.action_seq("none") is None


def files_in(directory: Path) -> dict[str, bytes]:
    return contents(directory / "actions")


async def test_a_file_comes_whole_in_part_or_as_its_head(tmp_path: Path) -> None:
    """Only by the name of a file that is there, and only to those who may read the log."""
    async with patience(), sealing(tmp_path / "leader") as leader, httpx.AsyncClient() as client:

        async def ask(query: str, method: str = "GET", **headers: str) -> httpx.Response:
            return await client.request(method, f"{leader.url}{ACTIONS_PATH}{query}", headers={**HEADERS, **headers})

        for name, data in files_in(tmp_path / "leader").items():
            whole = await ask(f"?name={name}")
            assert (whole.status_code, whole.content) == (200, data)
            etag = whole.headers["etag"]
            for begin in (1, len(data) // 2, len(data) - 1):
                part = await ask(f"?name={name}", range=f"bytes={begin}-", **{"if-range": etag})
                assert (part.status_code, part.content) == (206, data[begin:])
            other = await ask(f"?name={name}", range="bytes=9-", **{"if-range": '"other"'})
            assert (other.status_code, other.content) == (200, data)
            head = await ask(f"?name={name}", "HEAD")
            assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(data)))
        (tmp_path / "leader" / "actions" / "notes.run").write_text("x")
        missing = "0000000000-0000000001-0123456789abcdef.run"
        for odd in (missing, "notes.run", "../lock", f"../actions/{name}", f"{name}.tmp", "", ".", f"/{name}"):
            assert (await ask(f"?name={odd}")).status_code in (404, 400 if not odd else 404), odd
        assert (await ask("")).status_code == 400
        assert (await ask(f"?name={name}", authorization="Bearer wrong")).status_code == 401


async def test_a_new_replica_has_every_file_and_knows_every_action(tmp_path: Path) -> None:
    """Its files are the leader's, byte for byte. It opens again with them; and so it is for a replica of it."""
    async with patience() as nursery, sealing(tmp_path / "leader") as leader:
        replica = await open_replica(tmp_path / "replica", leader.url)
        assert files_in(tmp_path / "replica") == files_in(tmp_path / "leader")
        running = await start(nursery, replica.follower)
        await running.reaches(leader.seq)
        await check_known(leader, running.scoreboard)
        assert digest(running.scoreboard) == leader.writer.digest()
        served = replica.relaying()
        async with served.open():
            below = await open_replica(tmp_path / "below", served.url)
            assert files_in(tmp_path / "below") == files_in(tmp_path / "leader")
            last = await start(nursery, below.follower)
            await last.reaches(leader.seq)
            await check_known(leader, last.scoreboard)
        await running.stop()
        replica.log.close()
        again = open_directory(InlineDisk(), str(tmp_path / "replica"), RULES, tell=fail)
        await check_known(leader, again.scoreboard)
        assert not list((tmp_path / "replica").glob("fetched*"))


async def test_a_shard_has_no_files(tmp_path: Path) -> None:
    """It knows no actions."""
    async with patience() as nursery, sealing(tmp_path / "leader") as leader:
        running = await start(nursery, open_shard(tmp_path / "shard", leader.url, Shard(1, 1)))
        await running.reaches(leader.seq)
        assert not (tmp_path / "shard" / "actions").exists()
        assert not running.scoreboard.actions.sealed.infos


async def test_downloads_are_resumed_and_those_that_are_here_are_not_repeated(tmp_path: Path) -> None:
    """Cuts cost nothing that came. A file of before, whole, stays; a damaged one is fetched."""
    told: list[str] = []
    async with patience() as nursery, sealing(tmp_path / "leader") as leader:
        wire = Wire("leader", leader.port)
        await nursery.start(wire.run)
        theirs = files_in(tmp_path / "leader")
        here = tmp_path / "replica" / "actions"
        here.mkdir(parents=True)
        (here / leader.files[0]).write_bytes(theirs[leader.files[0]])
        (here / leader.files[1]).write_bytes(theirs[leader.files[1]][:-9])
        bootstrap = make_bootstrap(wire.url, tmp_path / "replica", told)
        fetched = await bootstrap.fetch()
        carried = wire.carried
        assert fetched is not None
        assert files_in(tmp_path / "replica") == theirs
        snapshot_bytes = len(contents(tmp_path / "replica")["fetched.snapshot"])
        assert carried < snapshot_bytes + sum(map(len, theirs.values())) - len(theirs[leader.files[0]]) + 9_000
        for path in here.iterdir():
            path.unlink()
        wire.cut_after = snapshot_bytes + 8_000  # in the first file, a few pages after its begin
        wire.carried = 0
        assert await bootstrap.fetch() is not None
        assert files_in(tmp_path / "replica") == theirs
        assert len(told) == 1
        assert "the download was cut" in told[0]
        assert wire.carried < snapshot_bytes + sum(map(len, theirs.values())) + 9_000


@pytest.mark.parametrize("times", [1, 1000])
async def test_a_damaged_download_is_fetched_again_and_at_last_given_up(tmp_path: Path, times: int) -> None:
    """Nothing of it is used, and nothing of it is left."""
    told: list[str] = []
    async with patience() as nursery, sealing(tmp_path / "leader") as leader:
        await make_bootstrap(leader.url, tmp_path / "x").fetch()
        wire = Wire("leader", leader.port)
        await nursery.start(wire.run)
        fetched: list[Fetched | None] = []

        class FlipsLate(Bootstrap):
            async def _fetch_snapshot(self, progress: ShowBytes) -> Fetched | None:
                fetched.append(await super()._fetch_snapshot(progress))
                wire.change = Flip(times)
                return fetched[-1]

        bootstrap = FlipsLate(
            make_bootstrap(wire.url, tmp_path / "x")._leader, InlineDisk(), str(tmp_path / "replica"),
            token=lambda: TOKEN, uniform=lambda _low, _high: 0.0, tell=told.append,
        )  # fmt: skip
        if times == 1:
            assert await bootstrap.fetch() == fetched[0]
            assert files_in(tmp_path / "replica") == files_in(tmp_path / "leader")
            assert len(told) == 1
        else:
            with pytest.raises(FollowingFailed, match=r"downloads of the leader's file 0000000000-.* were all damaged"):
                await bootstrap.fetch(no_bytes)
            assert sorted(path.name for path in (tmp_path / "replica").iterdir()) == ["fetched.snapshot"]
        assert all("is damaged" in reason for reason in told)


@pytest.mark.parametrize("offset", [40, -60], ids=["entries", "tables"])
async def test_a_file_that_is_damaged_at_the_leader_is_made_anew_there(tmp_path: Path, offset: int) -> None:
    """The leader finds it while it sends. The download goes on with the same bytes afterwards."""
    async with patience() as nursery, sealing(tmp_path / "leader") as leader:
        whole = files_in(tmp_path / "leader")
        path = leader.damage(0, offset)
        await nursery.start(leader.sealer.run)

        def mend(fault: DiskFault) -> None:
            leader.damaged.append(fault)
            leader.sealer.damaged(fault)

        leader.lane._on_damage = mend
        replica = await open_replica(tmp_path / "replica", leader.url)
        assert {fault.path for fault in leader.damaged} == {str(path)}
        assert files_in(tmp_path / "replica") == files_in(tmp_path / "leader") == whole
        await check_known(leader, replica.opened.scoreboard)
        replica.log.close()


async def test_a_file_that_went_meanwhile_begins_anew_with_a_newer_snapshot(tmp_path: Path) -> None:
    """The leader joined it with others between the two downloads. What came before stays."""
    told: list[str] = []
    async with patience(), sealing(tmp_path / "leader") as leader:
        before = leader.files
        tails: list[int] = []

        class Slow(Bootstrap):
            async def _fetch_snapshot(self, progress: ShowBytes) -> Fetched | None:
                fetched = await super()._fetch_snapshot(progress)
                assert fetched is not None
                tails.append(fetched.tail.seq)
                if len(tails) == 1:
                    leader.play(60)
                    await leader.checkpoint(keep=1)
                return fetched

        bootstrap = Slow(
            make_bootstrap(leader.url, tmp_path / "x")._leader, InlineDisk(), str(tmp_path / "replica"),
            token=lambda: TOKEN, uniform=lambda _low, _high: 0.0, tell=told.append,
        )  # fmt: skip
        fetched = await bootstrap.fetch()
        assert fetched is not None
        assert fetched.tail.seq == tails[1] > tails[0]
        assert [before[0] in leader.files, before[-1] in leader.files] == [True, False]
        assert len(told) == 1
        assert "no longer has the file" in told[0]
        assert set(leader.files) <= files_in(tmp_path / "replica").keys()


async def go_on(leader: Sealing) -> None:
    """Have the leader go on so far that a replica of before must begin anew."""
    leader.known = leader.actions(leader.seq)
    leader.play(100)
    leader.writer.log.remove_before(await leader.checkpoint(keep=1))


async def test_a_replica_that_begins_anew_takes_the_files_along(tmp_path: Path) -> None:
    """Its checkpoints remove nothing of them, before and after. What no snapshot names any more goes."""
    async with patience() as nursery, sealing(tmp_path / "leader") as leader:
        replica = await follow_so_far(tmp_path / "replica", leader, nursery)
        sealer = Sealer(
            replica.opened.scoreboard, InlineDisk(), str(tmp_path / "replica"), replica.log, IndexRules("disk"),
            tell=fail,
        )  # fmt: skip
        await go_on(leader)
        leader.play(3)
        fetch = replica.follower._bootstrap.fetch

        async def fetch_beside_a_checkpoint(progress: ShowBytes = no_bytes, *, actions: bool = True) -> Fetched | None:
            fetched = await fetch(progress, actions=actions)
            await sealer.tidy()
            return fetched

        replica.follower._bootstrap.fetch = fetch_beside_a_checkpoint  # type: ignore[method-assign]
        running = await start(nursery, replica.follower)
        await running.reaches(leader.seq)
        assert "bootstrapping" in [state for state, _ in replica.states]
        await sealer.tidy()
        assert sorted(files_in(tmp_path / "replica")) == sorted(leader.files)
        await check_known(leader, running.scoreboard)
        await running.stop()
        replica.log.close()
        again = await open_replica(tmp_path / "replica", leader.url)
        assert digest(again.opened.scoreboard) == leader.writer.digest()


async def test_a_replica_that_begins_anew_after_an_erasure_keeps_no_older_file(tmp_path: Path) -> None:
    """An older one has marks of the user's actions, and this replica is not told whose they are."""
    async with patience() as nursery, sealing(tmp_path / "leader") as leader:
        replica = await follow_so_far(tmp_path / "replica", leader, nursery)
        before = files_in(tmp_path / "replica").keys()
        leader.write([command(leader.writer, "user-1")])
        await go_on(leader)
        running = await start(nursery, replica.follower)
        await running.reaches(leader.seq)
        assert before - set(leader.files)
        assert sorted(files_in(tmp_path / "replica")) == sorted(leader.files)
        await running.stop()


async def killed_in_beginning_anew(leader: Sealing, directory: Path, dies_at: int) -> bool:
    """Kill a replica at one step of fetching and beginning anew, start it, and see that it knows what it must."""
    replica, killed, disk = await open_replica(directory, leader.url), False, MortalDisk(dies_at)
    replica.replica._disk = replica.log._disk = disk
    try:
        fetched = await make_bootstrap(leader.url, directory, disk=disk).fetch()
        assert fetched is not None
        await replica.replica.restart(fetched.path)
    except Killed:
        killed = True
    replica.log.close()
    again = await open_replica(directory, leader.url)
    await check_known(leader, again.opened.scoreboard)
    again.log.close()
    return killed


async def test_killed_anywhere_in_beginning_anew_it_knows_every_action(tmp_path: Path) -> None:
    """What was fetched before is there after it, and what is missing is fetched then."""
    async with patience() as nursery, sealing(tmp_path / "leader") as leader:
        (await follow_so_far(tmp_path / "before", leader, nursery)).log.close()
        await go_on(leader)
        for dies_at in range(1, 100, 3):
            shutil.copytree(tmp_path / "before", tmp_path / str(dies_at))
            if not await killed_in_beginning_anew(leader, tmp_path / str(dies_at), dies_at):
                break
        assert dies_at > 20


async def test_a_state_with_other_blocks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is a matter of versions: the reason says so."""
    async with patience(), sealing(tmp_path / "leader") as leader:
        monkeypatch.setattr(action_blocks, "BLOCK_ACTIONS", 2 * BLOCK)
        with pytest.raises(FollowingFailed, match="have blocks of 16") as failed:
            await make_bootstrap(leader.url, tmp_path / "replica").fetch()
        assert "version" in str(failed.value)
