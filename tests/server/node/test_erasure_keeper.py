"""The keeper of erasures: when it settles, what it does when the disk is full, and what operators are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from engine.commands import EraseUser
from engine.errors import DiskFault, LogDamaged, WriteFailed
from engine.ledger import Ledger
from engine.traces import newest_first
from server.node import erasure_keeper
from server.node.erasure_keeper import HOUR_MS, ErasureKeeper
from server.node.period_keeper import PeriodKeeper
from server.node.surroundings import Surroundings
from snapshots.settling import settle_files
from snapshots.store import SnapshotInfo
from tests.server.node.worlds import open_world
from tests.snapshots.directories import LOG_ID, InlineDisk, segments
from tests.snapshots.forgetting import traces
from tests.snapshots.leagues import League, play


class Bench:
    """A league that was played, in which ann is erased, and a keeper. `takes` are the snapshots that it asked for."""

    def __init__(self, world: Surroundings, league: League, first: int, hours: int) -> None:
        privacy = replace(world.config.privacy, erase_within_hours=hours)
        object.__setattr__(world, "config", replace(world.config, privacy=privacy))
        self.world, self.league, self.first = world, league, first
        self.periods = PeriodKeeper(world, league.scoreboard, LOG_ID)
        opened = league.opened
        self.keeper = ErasureKeeper(
            world, league.scoreboard, league.log, self.periods, opened.unsettled, None,
            erasures_known=opened.erasures_known,
        )  # fmt: skip
        self.takes: list[int] = []
        self.cuts = 0
        self.tidies = 0
        self.untidy: DiskFault | None = None
        self.age_ms = 0

    def erase(self, user: str = "ann") -> None:
        """Erase a user, and hand the event over."""
        league, seq = self.league, self.league.seq
        found = (event for _, event in Ledger(InlineDisk(), league.log).events_of(user))
        league.write(EraseUser(user, "dpo", newest_first(user, seq, found)))
        _, event = league.log.event_at(league.seq)
        self.keeper.took([event])

    def cut(self) -> None:
        self.cuts += 1

    async def take(self) -> SnapshotInfo:
        """Do what the checkpointer does."""
        await self.keeper.before_snapshot()
        info = self.league.snapshot()
        self.takes.append(info.seq)
        await self.keeper.settle(info, self.cut, self.tidy)
        return info

    async def tidy(self) -> None:
        """Remove files of older actions, as the sealer does, or fail to."""
        self.tidies += 1
        if self.untidy is not None:
            raise self.untidy


@asynccontextmanager
async def open_bench(directory: Path, *, hours: int = 24, disk: InlineDisk | None = None) -> AsyncIterator[Bench]:
    """The keeper does not run yet."""
    league = League(InlineDisk(), str(directory))
    first, _ = play(league)
    async with open_world(directory, disk) as world:
        with trio.fail_after(20):
            yield Bench(world, league, first, hours)
    league.close()


async def test_past_periods_forget_at_once_and_files_at_the_next_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The links end right before the log is rewritten, once."""
    monkeypatch.setattr(ErasureKeeper, "age_ms", property(lambda _: 0))
    async with open_bench(tmp_path) as bench:
        await bench.world.tasks.start(bench.keeper.run, bench.take)
        bench.erase()
        await bench.keeper.hidden()
        assert "\x001" in [user for _, user, _ in bench.league.rows(bench.first)]
        await trio.testing.wait_all_tasks_blocked()
        assert (bench.takes, len(bench.keeper.unsettled)) == ([], 1)
        assert traces(tmp_path, "ann")
        await bench.take()
        assert (bench.cuts, len(bench.keeper.unsettled)) == (1, 0)
        assert traces(tmp_path, "ann") == []
        await bench.take()
        assert bench.cuts == 1


async def test_an_erasure_is_settled_only_once_stale_files_of_actions_are_gone(tmp_path: Path) -> None:
    """They tell which actions the user had. If one can't be removed, the next checkpoint tries again."""
    async with open_bench(tmp_path) as bench:
        bench.erase()
        bench.untidy = DiskFault("can't remove it", path="/data/actions/0.run")
        await bench.take()
        assert (bench.tidies, len(bench.keeper.unsettled)) == (1, 1)
        bench.untidy = None
        await bench.take()
        assert (bench.tidies, len(bench.keeper.unsettled)) == (2, 0)
        await bench.take()
        assert bench.tidies == 3, "files of older actions go without an erasure too"


async def test_without_a_checkpoint_they_are_settled_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the time is over; and if it is over, operators are warned."""
    age_ms: int | None = 0
    monkeypatch.setattr(ErasureKeeper, "age_ms", property(lambda _: age_ms))
    monkeypatch.setattr(erasure_keeper, "LOOK_SECONDS", 0.01)
    async with open_bench(tmp_path, hours=8) as bench:
        bench.erase()
        assert bench.keeper.warning() is None
        age_ms = 8 * HOUR_MS + 1
        assert bench.keeper.warning() == (
            "1 erased users are still in the files of this node after 8 hours; its log says why"
        )
        age_ms = 6 * HOUR_MS - 1
        await bench.world.tasks.start(bench.keeper.run, bench.take)
        await trio.sleep(0.05)
        assert bench.takes == []
        age_ms = 6 * HOUR_MS
        while not bench.takes:  # noqa: ASYNC110  # it looks by itself
            await trio.sleep(0.01)
        assert len(bench.keeper.unsettled) == 0


async def test_with_no_time_they_are_settled_at_once(tmp_path: Path) -> None:
    """Each erasure takes a snapshot."""
    async with open_bench(tmp_path, hours=0) as bench:
        await bench.world.tasks.start(bench.keeper.run, bench.take)
        for user in ("ann", "bob"):
            bench.erase(user)
            while len(bench.keeper.unsettled):  # noqa: ASYNC110  # it does it by itself
                await trio.sleep(0.01)
            assert traces(tmp_path, user) == []
        assert len(bench.takes) == 2


async def test_an_erasure_that_came_during_a_snapshot_does_not_wait_for_a_retry(tmp_path: Path) -> None:
    """The snapshot has the first, and is no failure. The other one needs the next snapshot, at once."""
    async with open_bench(tmp_path, hours=0) as bench:

        async def take() -> SnapshotInfo:
            info = await bench.take()
            if len(bench.takes) == 1:
                bench.erase("bob")
            return info

        await bench.world.tasks.start(bench.keeper.run, take)
        bench.erase()
        while len(bench.takes) < 2 or len(bench.keeper.unsettled):  # noqa: ASYNC110  # it does it by itself
            await trio.sleep(0.01)
        assert traces(tmp_path, "ann") == traces(tmp_path, "bob") == []


async def test_a_log_that_was_damaged_at_the_start_is_read_again(tmp_path: Path) -> None:
    """Until then nothing is rewritten: which erasures are left is not known, and an operator is warned."""
    async with open_bench(tmp_path) as bench:
        bench.league.log.seal()
        bench.erase()
        bench.league.snapshot()
    path = segments(tmp_path)[0]
    whole, other = path.read_bytes(), segments(tmp_path)[1].read_bytes()
    path.write_bytes(whole.replace(b"ann", b"abn", 1))
    league = League(InlineDisk(), str(tmp_path))
    async with open_world(tmp_path) as world:
        again = Bench(world, league, 1, 24)
        with pytest.raises(LogDamaged):
            await again.keeper.known()
        assert "the log is damaged" in (again.keeper.warning() or "")
        await again.take()
        assert (again.cuts, len(again.keeper.unsettled)) == (0, 0)
        assert segments(tmp_path)[1].read_bytes() == other, "it names ann, and is as it was"
        path.write_bytes(whole)
        await again.take()
        assert (again.cuts, len(again.keeper.unsettled), again.keeper.warning()) == (1, 0, None)
        assert traces(tmp_path, "ann") == []
    league.close()


async def test_what_another_process_left_is_settled_at_once(tmp_path: Path) -> None:
    """It may have been killed in the middle of it."""
    async with open_bench(tmp_path) as bench:
        bench.erase()
    league = League(InlineDisk(), str(tmp_path))
    async with open_world(tmp_path) as world:
        again = Bench(world, league, 1, 24)
        assert len(again.keeper.unsettled) == 1
        await world.tasks.start(again.keeper.run, again.take)
        with trio.fail_after(20):
            while len(again.keeper.unsettled):  # noqa: ASYNC110  # it does it by itself
                await trio.sleep(0.01)
        assert traces(tmp_path, "ann") == []
    league.close()


async def test_followers_of_before_an_erasure_may_go_on_until_the_log_is_rewritten(tmp_path: Path) -> None:
    """A start does not know whether it is. Without a snapshot of after the erasure it takes one at once."""
    async with open_bench(tmp_path) as bench:
        bench.erase()
        seq, at_cut = bench.league.seq, list[int]()
        assert bench.keeper.rewritten_seq == 0
        bench.cut = lambda: at_cut.append(bench.keeper.rewritten_seq)  # type: ignore[method-assign]
        await bench.take()
        assert (at_cut, bench.keeper.rewritten_seq) == ([seq], seq), "known before the first link may come again"
        bench.erase("bob")
        assert bench.keeper.rewritten_seq == seq
        await bench.take()
    for snapshot_seq, takes in ((None, 1), (seq, 1), (seq + 1, 0)):
        league = League(InlineDisk(), str(tmp_path))
        async with open_world(tmp_path) as world:
            again = Bench(world, league, 1, 24)
            again.keeper = ErasureKeeper(world, league.scoreboard, league.log, again.periods, (), snapshot_seq)
            assert again.keeper.rewritten_seq == seq + 1
            await world.tasks.start(again.keeper.run, again.take)
            await trio.testing.wait_all_tasks_blocked()
            assert len(again.takes) == takes, snapshot_seq
        league.close()


async def test_a_fault_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user stays on the list until all is done."""
    monkeypatch.setattr(erasure_keeper, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(erasure_keeper, "RETRY_SECONDS", 0.03)
    faults = 2

    def failing(*arguments: object) -> object:
        nonlocal faults
        if faults:
            faults -= 1
            raise WriteFailed("the disk is tired", path="log")
        return settle_files(*arguments)  # type: ignore[arg-type]  # those of the call

    monkeypatch.setattr(erasure_keeper, "settle_files", failing)
    told: list[object] = []
    async with open_bench(tmp_path, hours=0) as bench:
        object.__setattr__(bench.world, "tell", told.append)
        bench.erase()
        await bench.world.tasks.start(bench.keeper.run, bench.take)
        while len(bench.keeper.unsettled):  # noqa: ASYNC110  # it does it by itself
            await trio.sleep(0.01)
        assert bench.keeper.age_ms is None
        assert [str(fault) for fault in told if "tired" in str(fault)] == [str(told[0])] * 2
        assert len(bench.takes) == 3
        assert traces(tmp_path, "ann") == []


async def test_a_file_that_was_fetched_after_the_erasure_is_looked_into_again(tmp_path: Path) -> None:
    """A replica may have it from a leader that was not so far."""
    async with open_bench(tmp_path) as bench:
        whole = await trio.Path(bench.periods.store.path(bench.first)).read_bytes()
        bench.erase()
        await bench.keeper.hidden()
        bench.periods.store.take(bench.first, [whole])
        await bench.keeper.hidden()
        assert "ann" in [user for _, user, _ in bench.league.rows(bench.first)]
        await bench.take()
        assert traces(tmp_path, "ann") == []


async def test_a_keeper_that_starts_removes_what_was_set_aside(tmp_path: Path) -> None:
    """Of a node where somebody was erased; elsewhere it stays."""
    aside = tmp_path / "aside-1-2" / "log" / "old"
    for erases in (False, True):
        aside.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text("ann")
        async with open_bench(tmp_path / str(erases)) as bench:
            if erases:
                bench.erase()
            object.__setattr__(bench.world, "config", replace(bench.world.config, data_dir=str(tmp_path)))
            await bench.world.tasks.start(bench.keeper.run, bench.take)
            await trio.testing.wait_all_tasks_blocked()
        assert aside.exists() is not erases
