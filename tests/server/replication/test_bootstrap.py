"""The start of a replica: it fetches the newest snapshot, resumes after every cut, proves it, then follows the log."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest
import trio

from engine.disk import RealDisk
from engine.record import chain_start
from server.replication.bootstrap import Bootstrap, Fetched, prepare_directory
from server.replication.download import ShowBytes, no_bytes
from server.replication.failure import FollowingFailed
from server.replication.link import LinkEnded, parse_leader
from server.replication.messages import FORK_PATH, SNAPSHOT_PATH, ForkQuestion
from server.replication.sharding import Shard, shard_of
from snapshots.checkpoint import RETRY_SECONDS
from snapshots.opening import open_directory
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
from tests.snapshots.directories import (
    LOG_ID,
    RULES,
    SEGMENT_BYTES,
    InlineDisk,
    Killed,
    MortalDisk,
    Told,
    contents,
    damage_snapshot,
    digest,
    snapshot_files,
)

HEADERS = {"authorization": f"Bearer {TOKEN}"}


async def ask(leader: Leader, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.request(method, leader.url + path, headers={**HEADERS, **headers})


async def test_a_snapshot_comes_whole_in_part_or_as_its_head(tmp_path: Path) -> None:
    """The ETag names its content. A range resumes a cut download, but only of that content."""
    leader = Leader(tmp_path / "leader")
    leader.play(30)
    leader.writer.snapshot()
    data = snapshot_files(tmp_path / "leader")[-1].read_bytes()
    async with patience(), leader.open():
        whole = await ask(leader, SNAPSHOT_PATH)
        assert (whole.status_code, whole.content) == (200, data)
        etag = whole.headers["etag"]
        assert (whole.headers["accept-ranges"], whole.headers["scoreboard-seq"]) == ("bytes", str(leader.seq))
        part = await ask(leader, SNAPSHOT_PATH, range="bytes=100-", **{"if-range": etag})
        assert (part.status_code, part.content) == (206, data[100:])
        assert part.headers["content-range"] == f"bytes 100-{len(data) - 1}/{len(data)}"
        other = await ask(leader, SNAPSHOT_PATH, range="bytes=100-", **{"if-range": '"other"'})
        assert (other.status_code, other.content) == (200, data)
        beyond = await ask(leader, SNAPSHOT_PATH, range=f"bytes={len(data)}-")
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(data)}")
        for odd in ("bytes=-5", "bytes=1-2", "lines=1-", "bytes=1-,5-"):
            assert (await ask(leader, SNAPSHOT_PATH, range=odd)).status_code == 200
        head = await ask(leader, SNAPSHOT_PATH, "HEAD")
        assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", etag)
        assert head.headers["content-length"] == str(len(data))
        assert leader.followers.pinned_seq() is None


async def test_who_may_not_read_the_log_gets_no_snapshot(tmp_path: Path) -> None:
    """A snapshot tells as much as the log."""
    leader = Leader(tmp_path / "leader")
    leader.play(3)
    leader.writer.snapshot()
    async with patience(), leader.open():
        for path in (SNAPSHOT_PATH, f"{FORK_PATH}?epoch=0"):
            assert (await ask(leader, path, authorization="Bearer wrong")).status_code == 401


async def test_a_damaged_snapshot_is_not_offered(tmp_path: Path) -> None:
    """The one before it is offered, if there is one."""
    leader = Leader(tmp_path / "leader")
    async with patience(), leader.open():
        assert (await ask(leader, SNAPSHOT_PATH)).status_code == 404
        leader.play(10)
        first = leader.writer.snapshot()
        leader.play(10)
        leader.writer.snapshot()
        damage_snapshot(snapshot_files(tmp_path / "leader")[-1])
        offered = await ask(leader, SNAPSHOT_PATH)
        assert offered.headers["scoreboard-seq"] == str(first.seq)
        assert len(leader.told) == 1
        await ask(leader, SNAPSHOT_PATH)
        assert len(leader.told) == 1


async def test_where_an_epoch_began_is_told(tmp_path: Path) -> None:
    """The last place before it; before the first one, the start of the chain."""
    leader = Leader(tmp_path / "leader")
    async with patience(), leader.open():
        bootstrap = make_bootstrap(leader.url, tmp_path)
        start_of_log = await bootstrap.fork(ForkQuestion(0))
        assert (start_of_log.seq, start_of_log.checksum) == (0, chain_start(LOG_ID))
        leader.play(3)
        assert await bootstrap.fork(ForkQuestion(0)) == start_of_log
        first = leader.writer.log.tail
        with pytest.raises(LinkEnded) as ended:
            await bootstrap.fork(ForkQuestion(1))
        assert ended.value.status == 404
        leader.begin_epoch()
        leader.play(2)
        second = leader.writer.log.tail
        leader.begin_epoch()
        assert await bootstrap.fork(ForkQuestion(1)) == first
        assert await bootstrap.fork(ForkQuestion(2)) == second
        assert (await ask(leader, f"{FORK_PATH}?epoch=x")).status_code == 400


async def test_an_empty_replica_begins_with_the_newest_snapshot(tmp_path: Path) -> None:
    """It follows from there. Its own log has nothing from before."""
    leader = Leader(tmp_path / "leader")
    leader.play(40)
    info = leader.writer.snapshot()
    leader.play(5)
    async with patience() as nursery, leader.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        assert replica.opened.snapshot_seq == info.seq
        assert replica.log.segments()[0].first_seq == info.seq + 1
        running = await start(nursery, replica.follower)
        await running.reaches(leader.seq)
        assert digest(running.scoreboard) == leader.writer.digest()


async def test_without_a_snapshot_it_begins_with_the_log(tmp_path: Path) -> None:
    """The log id is the leader's."""
    leader = Leader(tmp_path / "leader")
    leader.play(4)
    async with patience() as nursery, leader.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        assert (replica.log.tail.seq, replica.log.tail.log_id) == (0, LOG_ID)
        running = await start(nursery, replica.follower)
        await running.reaches(leader.seq)


async def test_it_asks_for_a_snapshot_again_once_the_log_begins_later(tmp_path: Path) -> None:
    """There was none at first. Then the leader made one, and removed the beginning of its log."""
    leader = Leader(tmp_path / "leader")
    leader.play(4)
    asked: list[bool] = []

    class Early(Bootstrap):
        async def fetch(self, progress: ShowBytes = no_bytes, *, actions: bool = True) -> Fetched | None:
            fetched = await super().fetch(progress, actions=actions)
            if not asked:
                leader.play(200)
                leader.writer.log.remove_before(leader.writer.snapshot().seq)
            asked.append(fetched is not None)
            return fetched

    async with patience(), leader.open():
        bootstrap = Early(
            parse_leader(leader.url), RealDisk(), str(tmp_path / "replica"),
            token=lambda: TOKEN, uniform=lambda _low, _high: 0.0, tell=lambda _reason: None,
        )  # fmt: skip
        await prepare_directory(RealDisk(), str(tmp_path / "replica"), bootstrap, tell=Told())
    assert asked == [False, True]
    assert snapshot_files(tmp_path / "replica")


async def test_a_download_that_is_cut_goes_on_where_it_was(tmp_path: Path) -> None:
    """Every byte comes once, and progress never goes back."""
    leader = Leader(tmp_path / "leader")
    leader.play(300)
    leader.writer.snapshot()
    data = snapshot_files(tmp_path / "leader")[-1].read_bytes()
    told: list[str] = []
    progress: list[tuple[int, int]] = []
    async with patience() as nursery, leader.open():
        wire = Wire("leader", leader.port)
        await nursery.start(wire.run)
        wire.cut_after = 2000
        cuts = iter([3000, 400, 5000])

        def cut_again(reason: str) -> None:
            told.append(reason)
            wire.cut_after = next(cuts, None)

        bootstrap = Bootstrap(
            parse_leader(wire.url), InlineDisk(), str(tmp_path / "x"),
            token=lambda: TOKEN, uniform=lambda _low, _high: 0.0, tell=cut_again,
        )  # fmt: skip
        fetched = await bootstrap.fetch(lambda done, total: progress.append((done, total)))
    assert fetched is not None
    assert (fetched.tail, contents(tmp_path / "x")["fetched.snapshot"]) == (leader.writer.log.tail, data)
    assert len(told) == 4
    done = [each for each, _ in progress]
    assert done == sorted(set(done))
    assert progress[-1] == (len(data), len(data))
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["fetched.snapshot"]


async def test_a_download_begins_anew_when_the_leader_has_a_newer_snapshot(tmp_path: Path) -> None:
    """Halves of two snapshots would not fit."""
    leader = Leader(tmp_path / "leader")
    leader.play(300)
    leader.writer.snapshot()
    async with patience() as nursery, leader.open():
        wire = Wire("leader", leader.port)
        await nursery.start(wire.run)
        wire.cut_after = 3000

        def newer(_reason: str) -> None:
            leader.play(10)
            leader.writer.snapshot()

        bootstrap = Bootstrap(
            parse_leader(wire.url), InlineDisk(), str(tmp_path / "x"),
            token=lambda: TOKEN, uniform=lambda _low, _high: 0.0, tell=newer,
        )  # fmt: skip
        fetched = await bootstrap.fetch()
    assert fetched is not None
    assert fetched.tail == leader.writer.log.tail


class Flip:
    """Flips a bit of the answer, a number of times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self, data: bytes) -> bytes:
        if self.left and len(data) > 2000:
            self.left -= 1
            return data[:1500] + bytes([data[1500] ^ 1]) + data[1501:]
        return data


@pytest.mark.parametrize("times", [1, 2])
async def test_a_damaged_download_is_thrown_away_and_fetched_again(tmp_path: Path, times: int) -> None:
    """A bit that flips on the way is found, and the download is repeated."""
    leader = Leader(tmp_path / "leader")
    leader.play(100)
    leader.writer.snapshot()
    told: list[str] = []
    async with patience() as nursery, leader.open():
        wire = Wire("leader", leader.port)
        wire.change = Flip(times)
        await nursery.start(wire.run)
        fetched = await make_bootstrap(wire.url, tmp_path / "x", told).fetch()
    assert fetched is not None
    assert len(told) == times
    assert all("is damaged" in reason for reason in told)


async def test_downloads_that_are_always_damaged_are_given_up(tmp_path: Path) -> None:
    """The error says what to check, and no file is left."""
    leader = Leader(tmp_path / "leader")
    leader.play(100)
    leader.writer.snapshot()
    async with patience() as nursery, leader.open():
        wire = Wire("leader", leader.port)
        wire.change = Flip(1000)
        await nursery.start(wire.run)
        with pytest.raises(FollowingFailed, match="all damaged"):
            await open_replica(tmp_path / "replica", wire.url)
    assert list((tmp_path / "replica").iterdir()) == []


async def test_a_replica_that_fell_too_far_behind_begins_anew(tmp_path: Path) -> None:
    """It takes the leader's snapshot while it serves. Its old files are set aside, and it opens again afterwards."""
    leader = Leader(tmp_path / "leader")
    leader.play(10)
    async with patience() as nursery, leader.open():
        replica = await follow_so_far(tmp_path / "replica", leader, nursery)
        had = leader.seq
        leader.play(200)
        info = leader.writer.snapshot()
        leader.writer.log.remove_before(info.seq)
        assert leader.writer.log.segments()[0].first_seq > had + 1
        leader.play(3)
        running = await start(nursery, replica.follower)
        await running.reaches(leader.seq)
        assert digest(running.scoreboard) == leader.writer.digest()
        assert "bootstrapping" in [state for state, _ in replica.states]
        assert [path.name for path in (tmp_path / "replica" / f"aside-1-{had}").iterdir()] == ["log"]
        await running.stop()
        replica.log.close()
        again = await open_replica(tmp_path / "replica", leader.url)
        assert again.opened.scoreboard.seq == leader.seq
        assert digest(again.opened.scoreboard) == leader.writer.digest()


async def killed_in_beginning_anew(tmp_path: Path, dies_at: int) -> bool:
    """Kill a replica at one step of beginning anew, start it, and see that it follows; tell whether it was killed."""
    leader = Leader(tmp_path / "leader")
    leader.play(10)
    leader.writer.snapshot()
    killed = False
    async with patience() as nursery, leader.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        leader.play(200)
        info = leader.writer.snapshot()
        leader.writer.log.remove_before(info.seq)
        fetched = await make_bootstrap(leader.url, tmp_path / "replica").fetch()
        assert fetched is not None
        disk = MortalDisk(dies_at)
        replica.replica._disk = disk
        replica.log._disk = disk
        try:
            await replica.replica.restart(fetched.path)
        except Killed:
            killed = True
        again = await open_replica(tmp_path / "replica", leader.url)
        running = await start(nursery, again.follower)
        await running.reaches(leader.seq)
        assert digest(running.scoreboard) == leader.writer.digest()
    return killed


async def test_killed_anywhere_in_beginning_anew_it_begins_again(tmp_path: Path) -> None:
    """Whatever is left of the directory can be prepared, opened and followed from."""
    dies_at = 1
    while await killed_in_beginning_anew(tmp_path / str(dies_at), dies_at):
        dies_at += 1
    assert dies_at > 8


class SyncingDisk(InlineDisk):
    """Notes which directories were synced, and what was created, in order."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def sync_directory(self, path: str) -> None:
        self.steps.append(f"sync {Path(path).name}")
        super().sync_directory(path)

    def make_directory(self, path: str) -> None:
        self.steps.append(f"make {Path(path).name}")
        super().make_directory(path)


async def test_a_snapshot_that_is_there_is_made_durable_before_a_log_begins_behind_it(tmp_path: Path) -> None:
    """The process that renamed it may have ended before the sync. Then a power cut would remove it."""
    leader = Leader(tmp_path / "leader")
    leader.play(10)
    info = leader.writer.snapshot()
    replica = tmp_path / "replica"
    (replica / "snapshots").mkdir(parents=True)
    shutil.copy(info.path, replica / "snapshots")
    disk = SyncingDisk()
    async with leader.open():
        opened = await open_replica(replica, leader.url, disk=disk)
    assert opened.opened.scoreboard.seq == leader.seq
    assert "sync snapshots" in disk.steps[: disk.steps.index("make log")]


async def test_snapshots_from_before_the_beginning_of_the_log_are_removed(tmp_path: Path) -> None:
    """Damaged or whole, they are left from a preparation that was cut short, and retention would wait for their log."""
    leader = Leader(tmp_path / "leader")
    replica = tmp_path / "replica"
    (replica / "snapshots").mkdir(parents=True)
    for _ in range(3):
        leader.play(10)
        shutil.copy(leader.writer.snapshot().path, replica / "snapshots")
    damage_snapshot(snapshot_files(replica)[0])
    async with leader.open():
        await open_replica(replica, leader.url)
    assert [path.name for path in snapshot_files(replica)] == [f"{leader.seq:020}.snapshot"]


async def test_a_shard_takes_its_boards_out_of_a_snapshot(tmp_path: Path) -> None:
    """It keeps nothing on disk."""
    leader = Leader(tmp_path / "leader")
    leader.play(40)
    info = leader.writer.snapshot()
    leader.writer.log.remove_before(info.seq)
    leader.play(5)
    shard = Shard(shard_of("weekly", 3), 3)
    assert not shard.holds("main")
    async with patience() as nursery, leader.open():
        follower = open_shard(tmp_path / "shard", leader.url, shard)
        running = await start(nursery, follower)
        await running.reaches(leader.seq)
        whole = leader.writer.scoreboard
        assert running.scoreboard.boards["weekly"].capture() == whole.boards["weekly"].capture()
        assert running.scoreboard.users.capture() == whole.users.capture()
        assert (len(running.scoreboard.boards["main"]), len(running.scoreboard.actions)) == (0, 0)
        await leader.checkpointer.take()
        leader.play(1)
        await running.reaches(leader.seq)
    assert contents(tmp_path / "shard") == {}


async def test_a_leader_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    """Each reason is told, and the first answer counts."""
    leader = Leader(tmp_path / "leader")
    leader.play(3)
    tries = trio.Event()
    told: list[str] = []

    def tell(reason: str) -> None:
        told.append(reason)
        wire.refusing = len(told) < 3
        tries.set()

    async with patience() as nursery, leader.open():
        wire = Wire("leader", leader.port)
        wire.refusing = True
        await nursery.start(wire.run)
        bootstrap = Bootstrap(
            parse_leader(wire.url), RealDisk(), str(tmp_path / "replica"),
            token=lambda: TOKEN, uniform=lambda _low, _high: 0.0, tell=tell,
        )  # fmt: skip
        await prepare_directory(RealDisk(), str(tmp_path / "replica"), bootstrap, tell=Told())
    assert len(told) == 3
    opened = open_directory(InlineDisk(), str(tmp_path / "replica"), RULES, tell=Told(), segment_bytes=SEGMENT_BYTES)
    assert opened.log.tail.log_id == LOG_ID
    opened.log.close()


async def test_a_snapshot_that_was_mended_is_offered_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged one is not read for each asker, and not left out for ever. One that is gone is not remembered."""
    leader = Leader(tmp_path / "leader")
    async with patience(), leader.open():
        leader.play(10)
        leader.writer.snapshot()
        [path] = snapshot_files(tmp_path / "leader")
        whole = path.read_bytes()
        damage_snapshot(path)
        assert (await ask(leader, SNAPSHOT_PATH)).status_code == 404
        path.write_bytes(whole)
        assert (await ask(leader, SNAPSHOT_PATH)).status_code == 404
        assert len(leader.told) == 1
        clock, later_s = trio.current_time, RETRY_SECONDS + 1
        monkeypatch.setattr("server.replication.snapshot_server.trio.current_time", lambda: clock() + later_s)
        assert (await ask(leader, SNAPSHOT_PATH)).content == whole
