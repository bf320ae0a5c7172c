"""The keeper of past periods: full and failing disks, readers meanwhile, and replicas that fetch what they lack."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing
from structlog.typing import EventDict

from engine.board_rules import Rules
from engine.disk import FileMissing, RealDisk
from engine.errors import NoSpace, Overloaded, SnapshotDamaged, WriteFailed
from engine.filtered_frame import link_start, pack_filtered
from engine.ranking import FinalRow
from engine.record import chain_start
from engine.scoreboard import Scoreboard
from server import bounds
from server.node.period_keeper import Fetch, PeriodKeeper, fetch_nothing
from server.node.surroundings import Surroundings
from server.replication.feed import FrameFeed
from server.replication.link import parse_leader
from server.replication.messages import PERIOD_PATH
from server.replication.period_fetch import FETCHED, PeriodFetch
from server.replication.replicas import ShardReplica
from server.replication.sharding import Shard
from snapshots.past_ranking import PastRanking
from snapshots.period_file import PeriodHead, pack_period
from snapshots.period_store import PeriodStore
from tests.cluster.wires import Wire
from tests.server.node.worlds import FullDisk, RoomlessDisk, open_world
from tests.server.replication.network import TOKEN, Served, at_once, patience
from tests.snapshots.directories import LOG_ID, InlineDisk, contents, flip
from tests.snapshots.leagues import FIRST, SECOND, League, play

HEADERS = {"authorization": f"Bearer {TOKEN}"}


class Bench:
    """A league whose files a keeper writes. `first` and `second` are the seqs of its past periods."""

    def __init__(self, world: Surroundings, league: League, seqs: tuple[int, int], fetch: Fetch) -> None:
        self.world = world
        self.league = league
        self.first, self.second = seqs
        self.keeper = PeriodKeeper(world, league.scoreboard, LOG_ID, fetch)

    def take_all(self) -> None:
        """Hand over what has ended."""
        for ended in self.league.ended:
            self.keeper.take(ended)

    async def rows(self, seq: int) -> list[tuple[int, str, int]]:
        """List the rows of a past period."""
        return [(row.rank, row.user_id, row.score) for row in await self.keeper.read(seq, lambda past: past.top(100))]


@asynccontextmanager
async def open_bench(
    directory: Path,
    disk: RealDisk | None = None,
    *,
    keeps: bool = False,
    fetch: Fetch = fetch_nothing,
    patience_s: float = 20.0,
) -> AsyncIterator[Bench]:
    """A world with a league that was played in it, and a keeper that does not run yet."""
    league = League(InlineDisk(), str(directory), keeps=keeps)
    seqs = play(league)
    async with open_world(directory, disk) as world:
        with trio.fail_after(patience_s):
            yield Bench(world, league, seqs, fetch)
    league.close()


async def test_a_period_is_read_from_memory_until_it_has_its_file(tmp_path: Path) -> None:
    """The rows are the same before and after, one user's too."""
    async with open_bench(tmp_path) as bench:
        bench.take_all()

        def look(past: PastRanking) -> tuple[list[FinalRow], tuple[int, FinalRow] | None, object]:
            return list(past.rows(1, 5)), past.find("cid"), past.find("dan")

        before = await bench.keeper.read(bench.first, look)
        assert bench.league.periods.list() == []
        assert await bench.rows(bench.first) == FIRST
        await bench.world.tasks.start(bench.keeper.run)
        await bench.keeper.written()
        assert bench.league.periods.list() == [bench.first, bench.second]
        assert await bench.keeper.read(bench.first, look) == before
        assert (await bench.rows(bench.first), await bench.rows(bench.second)) == (FIRST, SECOND)


async def test_what_has_its_file_is_not_in_memory(tmp_path: Path) -> None:
    """Neither the order nor the users of the ranking."""
    async with open_bench(tmp_path) as bench:
        bench.take_all()
        await bench.world.tasks.start(bench.keeper.run)
        await trio.testing.wait_all_tasks_blocked()
        assert [len(ended.ranking) for ended in bench.league.ended] == [0, 0]
        assert not any(ended.ranking.is_ordered or ended.ranking._slots for ended in bench.league.ended)


class WaitingDisk(InlineDisk):
    """A disk whose writes of whole files wait, in their thread, until they are let go."""

    blocks = True

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.let_go = threading.Event()

    def write_whole(self, path: str, chunks: Iterable[bytes], mode: int = 0o600, paced: bool = False) -> int:
        """Wait, then write."""
        self.begun.set()
        assert self.let_go.wait(20.0)
        return super().write_whole(path, chunks, mode, paced)


async def test_readers_are_served_while_the_file_is_being_written(tmp_path: Path) -> None:
    """From memory, whole; and the board goes on meanwhile."""
    disk = WaitingDisk()
    async with open_bench(tmp_path, disk) as bench:
        bench.take_all()
        await bench.world.tasks.start(bench.keeper.run)
        assert await trio.to_thread.run_sync(disk.begun.wait, 20.0)
        assert bench.league.periods.list() == []
        assert await bench.rows(bench.first) == FIRST
        bench.league.win("cup", "ann", "bob", "cid")
        assert await bench.rows(bench.first) == FIRST
        disk.let_go.set()
        await bench.keeper.written()
        assert await bench.rows(bench.first) == FIRST


async def test_on_a_full_disk_a_period_waits_in_memory(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, logged: list[EventDict]
) -> None:
    """It is served meanwhile, and who waits to take a snapshot is told why it can't be. With room all is written."""
    disk = RoomlessDisk()
    async with open_bench(tmp_path, disk, patience_s=1_000) as bench:
        bench.take_all()
        await bench.world.tasks.start(bench.keeper.run)
        await trio.sleep(3 * bounds.DISK_FULL_RETRY_SECONDS)
        with pytest.raises(NoSpace):
            await bench.keeper.written()
        assert await bench.rows(bench.second) == SECOND
        assert bench.league.periods.list() == []
        disk.full = False
        await trio.sleep(2 * bounds.DISK_FULL_RETRY_SECONDS)
        await bench.keeper.written()
        assert bench.league.periods.list() == [bench.first, bench.second]
        assert bench.world.shutdown.fault is None
    assert [line["event"] for line in logged].count("period_kept") == 2


class SlowFullDisk(RoomlessDisk):
    """A full disk that takes a while to say so."""

    blocks = True

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.begun = threading.Event()

    def write_whole(self, path: str, chunks: Iterable[bytes], mode: int = 0o600, paced: bool = False) -> int:
        """Wait, then find no room."""
        self.begun.set()
        assert self.let_go.wait(20.0)
        return super().write_whole(path, chunks, mode, paced)


async def test_who_waits_for_the_files_sleeps(tmp_path: Path) -> None:
    """While one file is written and another period has ended: a wait that asks all the time would take a processor."""
    disk, answers = SlowFullDisk(), list[str]()
    async with open_bench(tmp_path, disk) as bench:
        bench.keeper.take(bench.league.ended[0])
        await bench.world.tasks.start(bench.keeper.run)
        assert await trio.to_thread.run_sync(disk.begun.wait, 20.0)
        bench.keeper.take(bench.league.ended[1])

        async def wait() -> None:
            try:
                await bench.keeper.written()
            except NoSpace as fault:
                answers.append(fault.what)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert answers == []
            disk.let_go.set()
        assert answers == ["can't write: No space left on device"]


async def test_a_failing_disk_ends_the_process_and_nothing_counts_as_kept(
    tmp_path: Path, logged: list[EventDict]
) -> None:
    """The ranking stays readable until the end. A snapshot that waits for its file fails: it would cover the log."""
    async with open_bench(tmp_path, FullDisk()) as bench:
        bench.take_all()
        await bench.world.tasks.start(bench.keeper.run)
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(bench.world.shutdown.fault, WriteFailed)
        with pytest.raises(WriteFailed):
            await bench.keeper.written()
        assert await bench.rows(bench.first) == FIRST
    assert "period_kept" not in [line["event"] for line in logged]


async def test_files_that_no_board_calls_for_go(tmp_path: Path) -> None:
    """At the start, and what an interrupted write left; those of the kept periods stay."""
    async with open_bench(tmp_path, keeps=True) as bench:
        (tmp_path / "periods" / f"{99:020}.period").write_bytes(b"another history's")
        (tmp_path / "periods" / f"{7:020}.period.tmp").write_bytes(b"half")
        await bench.world.tasks.start(bench.keeper.run)
        await trio.testing.wait_all_tasks_blocked()
        kept = {f"{seq:020}.period" for seq in (bench.first, bench.second)}
        assert set(contents(tmp_path / "periods")) == kept


async def test_a_missing_file_is_told_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, logged: list[EventDict]
) -> None:
    """However often it is looked for. Who reads it gets an error that says so."""
    async with open_bench(tmp_path, patience_s=1_000) as bench:
        await bench.world.tasks.start(bench.keeper.run)
        await trio.sleep(10 * bounds.PERIOD_FETCH_SECONDS)
        with pytest.raises(FileMissing):
            await bench.rows(bench.first)
    told = [line for line in logged if line["event"] == "period_missing"]
    assert [line["seq"] for line in told] == [bench.first, bench.second]


async def test_a_damaged_file_is_an_error_for_its_readers_only(tmp_path: Path, logged: list[EventDict]) -> None:
    """Each read of it says so, the other periods are read, and the keeper goes on."""
    async with open_bench(tmp_path, keeps=True) as bench:
        flip(Path(bench.league.periods.path(bench.first)), 60)
        await bench.world.tasks.start(bench.keeper.run)
        for _ in range(2):
            with pytest.raises(SnapshotDamaged):
                await bench.rows(bench.first)
        assert await bench.rows(bench.second) == SECOND
        assert bench.world.shutdown.fault is None


async def test_readers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many at once as there are threads for it, some that wait, and the next one is refused at once."""
    monkeypatch.setattr(bounds, "PERIOD_WAITERS_MAX", 1)
    disk, let_go, done = WaitingDisk(), threading.Event(), list[int]()
    disk.let_go.set()
    async with open_bench(tmp_path, disk, keeps=True) as bench:

        async def read() -> None:
            await bench.keeper.read(bench.first, lambda _: let_go.wait(20.0))
            done.append(1)

        async with trio.open_nursery() as nursery:
            for _ in range(bounds.PERIOD_READERS_MAX + 1):
                nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Overloaded):
                await bench.rows(bench.second)
            let_go.set()
        assert len(done) == bounds.PERIOD_READERS_MAX + 1
        assert await bench.rows(bench.second) == SECOND


# Replicas


@asynccontextmanager
async def open_leader(directory: Path) -> AsyncIterator[tuple[Served, League, tuple[int, int]]]:
    """A leader with two past periods, over a listener."""
    league = League(InlineDisk(), str(directory))
    seqs = play(league)
    served = Served(directory, league.scoreboard, league.log, FrameFeed(league.seq))
    async with patience(), served.open():
        yield served, league, seqs
    league.close()


def fetch_from(served: Served, directory: Path, token: str = TOKEN) -> Fetch:
    """A way to fetch from a leader."""
    return fetch_over(served.url, directory, token)


def fetch_over(url: str, directory: Path, token: str = TOKEN) -> Fetch:
    """A way to fetch from an address."""
    disk = InlineDisk()
    return PeriodFetch(lambda: parse_leader(url), disk, str(directory), token=lambda: token, uniform=at_once).fetch


def read(league: League, seq: int) -> bytes:
    """Read a file as it is."""
    return Path(league.periods.path(seq)).read_bytes()


def write(league: League, seq: int, data: bytes) -> None:
    """Put something in the place of a file."""
    Path(league.periods.path(seq)).write_bytes(data)


async def ask(served: Served, query: str, method: str = "GET", **headers: str) -> httpx.Response:
    """Ask a node for a period's file."""
    async with httpx.AsyncClient() as client:
        return await client.request(method, f"{served.url}{PERIOD_PATH}{query}", headers={**HEADERS, **headers})


async def test_a_node_gives_the_files_of_its_past_periods(tmp_path: Path) -> None:
    """Whole, the rest or the head of each, to those who may read the log; of another seq there is none."""
    async with open_leader(tmp_path / "leader") as (served, league, (first, second)):
        data = read(league, first)
        whole = await ask(served, f"?seq={first}")
        assert (whole.status_code, whole.content) == (200, data)
        head = await ask(served, f"?seq={first}", "HEAD")
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(data)))
        part = await ask(served, f"?seq={first}", range="bytes=50-", **{"if-range": whole.headers["etag"]})
        assert (part.status_code, part.content) == (206, data[50:])
        assert whole.headers["etag"] != (await ask(served, f"?seq={second}")).headers["etag"]
        assert (await ask(served, f"?seq={first + 1}")).status_code == 404
        assert (await ask(served, f"?seq={first + 1}", "HEAD")).status_code == 404
        assert (await ask(served, f"?seq={first}", authorization="Bearer wrong")).status_code == 401
        for query in ("", "?seq=", "?seq=0", "?seq=-1", "?seq=x", f"?seq={first}&seq={first}"):
            assert (await ask(served, query)).status_code == 400, query


async def test_a_replica_fetches_what_it_lacks(tmp_path: Path) -> None:
    """Its file has the bytes of the leader's, and no download is left behind."""
    async with open_leader(tmp_path / "leader") as (served, league, (first, second)):
        async with open_bench(tmp_path / "replica", fetch=fetch_from(served, tmp_path / "replica")) as bench:
            await bench.world.tasks.start(bench.keeper.run)
            with trio.fail_after(20):
                while bench.league.periods.list() != [first, second]:  # noqa: ASYNC110  (nothing tells of it)
                    await trio.sleep(0.01)
            assert contents(tmp_path / "replica" / "periods") == contents(tmp_path / "leader" / "periods")
            assert await bench.rows(first) == FIRST
            assert league.periods.list() == [first, second]
        assert not list((tmp_path / "replica").glob(f"{FETCHED}*"))


async def test_a_file_that_can_not_be_had_is_no_failure(tmp_path: Path) -> None:
    """The leader lacks it, has a damaged or another one, does not let us in, or is gone: then there is none here."""
    (tmp_path / "replica").mkdir()
    store = PeriodStore(InlineDisk(), str(tmp_path / "replica"))
    async with open_leader(tmp_path / "leader") as (served, league, (first, second)):
        fetch = fetch_from(served, tmp_path / "replica")
        assert not await fetch(second + 100, store)
        assert not await fetch_from(served, tmp_path / "replica", "wrong")(first, store)
        whole, other = read(league, first), read(league, second)
        for wrong in (other, whole[:60] + bytes([whole[60] ^ 1]) + whole[61:], whole[: len(whole) // 2], b""):
            write(league, first, wrong)
            assert not await fetch(first, store)
        assert store.list() == []
        write(league, first, whole)
        assert await fetch(first, store)
        assert [row.user_id for row in store.open(first).top(9)] == ["ann", "bob", "cid"]
    assert not await fetch(second, store)
    assert store.list() == [first]


async def test_a_cut_download_goes_on_as_long_as_more_comes(tmp_path: Path) -> None:
    """Each attempt asks for the rest of the same content. The first one that brings nothing is the last for now."""
    (tmp_path / "replica").mkdir()
    store = PeriodStore(InlineDisk(), str(tmp_path / "replica"))
    asked: list[str] = []
    cuts = iter([2_000, 3_000, 60, None, 2_000, None])  # bytes of an answer, of which the head takes more than 60

    def begin(request: bytes) -> None:
        asked.extend(line for line in request.decode().split("\r\n") if line.startswith("range"))
        wire.cut_after = next(cuts)

    async with open_leader(tmp_path / "leader") as (served, league, (first, _)), trio.open_nursery() as nursery:
        wire = Wire("leader", served.port)
        wire.on_forth = begin
        await nursery.start(wire.run)
        fetch = fetch_over(wire.url, tmp_path / "replica")
        many = [FinalRow(rank, f"user-{rank}", 10, 0, rank) for rank in range(1, 1_001)]
        write(league, first, b"".join(pack_period(PeriodHead("cup", "1", 0, 1, first, len(many), LOG_ID), many)))
        assert not await fetch(first, store)
        offsets = [int(line.removeprefix("range: bytes=").removesuffix("-")) for line in asked]
        assert 0 < offsets[0] < 2_000 < offsets[1] < 5_000
        assert (len(offsets), wire.connections, store.list()) == (2, 3, [])
        assert await fetch(first, store)
        assert [*contents(tmp_path / "replica" / "periods").values()] == [read(league, first)]
        store.remove_before(first + 1)
        asked.clear()
        assert await fetch(first, store)
        assert (len(asked), store.list()) == (1, [first])
        nursery.cancel_scope.cancel()


async def test_a_replica_of_a_shard_keeps_no_past_periods(tmp_path: Path) -> None:
    """It knows which there were, and their rankings take no memory: a shard has no files."""
    league = League(InlineDisk(), str(tmp_path / "leader"))
    first, second = play(league)
    replica = ShardReplica(InlineDisk(), Scoreboard(Rules({})), Shard(1, 1), on_applied=lambda _: None)
    replica.begin_link(LOG_ID)
    link = link_start(chain_start(LOG_ID))
    for frame in league.log.read_from(1):
        data, link = pack_filtered(frame, replica.shard.wants, link)
        await replica.take([data])
    definition = replica.scoreboard.boards["cup"].definition
    assert definition is not None
    assert [past.seq for past in definition.past] == [first, second]
    assert replica.scoreboard.take_ended() == []
    league.close()
