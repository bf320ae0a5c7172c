"""The boards of the operator's file: written into the log once, told when they differ, refused when they contradict."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from msgspec.structs import replace
from structlog.testing import capture_logs
from structlog.typing import EventDict

from engine import errors
from engine.actor import Actor
from engine.board_rules import BoardDefinition, BoardRules, Range, Rules
from engine.commands import CloseBoard, Outcome, Receipt, Rejection
from engine.disk import RealFile
from engine.events import BoardPut, Event, Incremented
from engine.limits import BATCH_COMMANDS_MAX
from engine.local_log import LocalLog
from engine.log_reader import scan
from engine.machine import Applied, StateMachine
from engine.record import events_of
from engine.scoreboard import Scoreboard
from server import bounds
from server.node import start
from server.node.file_boards import CALLER, FileBoards, check_file_boards
from server.node.surroundings import Surroundings
from server.settings.config import Config, ConfigError
from snapshots.opening import open_directory
from snapshots.store import SnapshotInfo, Store
from tests.engine.model import increment, rows
from tests.server.cli.directories import increments, make, save_snapshot
from tests.server.node.test_start import client_of, config_of, serve_and_use, stop
from tests.server.node.worlds import NOW_MS, open_world
from tests.snapshots.directories import InlineDisk, Told, digest

ENGINE_GOLDEN = Path(__file__).parents[2] / "engine" / "golden"
MAIN = BoardRules({"ACTION_COMPLETED": 10})
LAPS = BoardRules({"LAP": Range(1, 90)}, "Laps", score="best", order="ascending", ranks="shared")
CUP = BoardRules({"ACTION_COMPLETED": 1}, feeds=("main",))


class Bench:
    """A leader's directory that is open, with its actor and the boards of its file."""

    def __init__(self, world: Surroundings, data: Path) -> None:
        self.config = world.config
        self.told = Told()
        opened = open_directory(world.disk, str(data), world.config.rules, tell=self.told, segment_bytes=4096)
        self.scoreboard: Scoreboard = opened.scoreboard
        self.log = opened.log
        self.frames: list[list[Event]] = []
        self.machine = StateMachine(opened.scoreboard, LocalLog(opened.log), self._applied)
        self.actor = Actor(self.machine, clock=world.clock)
        self.boards = FileBoards(world, self.actor, opened.scoreboard)

    def _applied(self, applied: Applied) -> None:
        self.frames.append(applied.events)

    @property
    def put(self) -> list[str]:
        """The boards that were written in this life, in order."""
        return [event.board_id for frame in self.frames for event in frame if isinstance(event, BoardPut)]

    async def score(self, user: str, action: str, board: str = "main") -> Outcome:
        """Count an action."""
        [outcome] = await self.actor.submit([increment(user, action, board=board)])
        return outcome


class ScarceDisk(InlineDisk):
    """A disk on which no file can be made while `roomless`."""

    roomless = False

    def create(self, path: str, mode: int = 0o600) -> RealFile:
        """Make a file, or find no room for it."""
        if self.roomless:
            raise errors.NoSpace("can't create: No space left on device", path=path)
        return super().create(path, mode)


def config_with(data: Path, boards: dict[str, BoardRules]) -> Config:
    """A configuration with these boards and no others."""
    return replace(config_of(data), boards=boards)


@asynccontextmanager
async def life(data: Path, boards: dict[str, BoardRules], disk: InlineDisk | None = None) -> AsyncIterator[Bench]:
    """A leader begins with these boards in its file, and has written them if it can. It ends with the block."""
    async with open_world(data, disk) as world:
        object.__setattr__(world, "config", config_with(data, boards))
        bench = Bench(world, data)
        check_file_boards(bench.config, bench.scoreboard, 0)
        async with trio.open_nursery() as nursery:
            await nursery.start(bench.actor.run)
            await nursery.start(bench.boards.run)
            yield bench
            bench.scoreboard._check()
            await bench.actor.drain()
            nursery.cancel_scope.cancel()
        bench.log.close()


def lines_about(logged: list[EventDict], event: str) -> list[EventDict]:
    """The lines of one event."""
    return [line for line in logged if line["event"] == event]


async def test_the_first_start_writes_the_boards_and_the_second_writes_nothing(
    tmp_path: Path, logged: list[EventDict]
) -> None:
    """One frame, with the caller "configuration" and the rules of the file, in its order. They may feed later ones."""
    boards = {"cup": CUP, "laps": LAPS, "main": MAIN}
    async with life(tmp_path, boards) as first:
        [frame] = first.frames
        assert [type(event) for event in frame] == [BoardPut] * 3
        assert first.put == ["cup", "laps", "main"]
        for event in frame:
            assert isinstance(event, BoardPut)
            assert (event.caller, event.rules) == (CALLER, boards[event.board_id]) == ("configuration", event.rules)
        assert all(board.is_logged for board in first.scoreboard.boards.values())
        await first.score("ann", "a1", "cup")
        before = digest(first.scoreboard)
    async with life(tmp_path, boards) as second:
        assert second.frames == []
        assert digest(second.scoreboard) == before
        assert rows(second.scoreboard.boards["main"]) == [(1, "ann", 10)]
    assert lines_about(logged, "board_differs_from_file") == []


async def test_a_file_that_was_changed_is_told_and_does_not_count(tmp_path: Path, logged: list[EventDict]) -> None:
    """A warning with the board, the fields and the remedy. A board that left the file is served on."""
    async with life(tmp_path, {"main": MAIN, "laps": LAPS}):
        pass
    changed = replace(MAIN, points={"ACTION_COMPLETED": 99}, title="Changed")
    async with life(tmp_path, {"main": changed}) as bench:
        assert bench.frames == []
        assert bench.scoreboard.served() == ["laps", "main"]
        await bench.score("ann", "a1")
        assert rows(bench.scoreboard.boards["main"]) == [(1, "ann", 10)]
        assert bench.scoreboard.boards["laps"].definition == BoardDefinition(LAPS, begun_ms=NOW_MS)
    [line] = lines_about(logged, "board_differs_from_file")
    assert (line["log_level"], line["board_id"], line["fields"]) == ("warning", "main", ["points", "title"])
    assert "PUT /boards/main" in line["remedy"]


async def test_an_order_that_was_changed_in_the_file_is_only_told(tmp_path: Path, logged: list[EventDict]) -> None:
    """The log has the board, so nothing is put, and nothing contradicts: the node starts."""
    async with life(tmp_path, {"main": MAIN}) as bench:
        await bench.score("ann", "a1")
    async with life(tmp_path, {"main": replace(MAIN, order="ascending", score="best")}) as bench:
        assert bench.frames == []
    [line] = lines_about(logged, "board_differs_from_file")
    assert line["fields"] == ["score", "order"]


async def test_a_new_board_of_the_file_is_added(tmp_path: Path) -> None:
    """It may feed boards that the log has. The others stay as they are."""
    async with life(tmp_path, {"main": MAIN}) as bench:
        await bench.score("ann", "a1")
    async with life(tmp_path, {"main": MAIN, "cup": CUP}) as bench:
        assert bench.put == ["cup"]
        await bench.score("ann", "a2", "cup")
        assert rows(bench.scoreboard.boards["main"]) == [(1, "ann", 20)]


async def test_a_board_that_was_closed_stays_closed(tmp_path: Path, logged: list[EventDict]) -> None:
    """The file still has it; the log decides."""
    async with life(tmp_path, {"main": MAIN}) as bench:
        await bench.actor.submit([CloseBoard("main", "ops")])
    async with life(tmp_path, {"main": MAIN}) as bench:
        assert bench.frames == []
        refused = await bench.score("ann", "a1")
        assert isinstance(refused, Rejection)
        assert refused.code == "BOARD_CLOSED"
    assert logged == []


async def test_boards_may_feed_each_other_in_any_order(tmp_path: Path) -> None:
    """They are written together, before the node serves."""
    boards = {"a": BoardRules({"WIN": 1}, feeds=("b",)), "b": BoardRules({"WIN": 1}, feeds=("a", "c")), "c": MAIN}
    async with life(tmp_path, boards) as bench:
        assert [len(frame) for frame in bench.frames] == [3]
        assert bench.scoreboard.served() == ["a", "b", "c"]


async def test_a_file_names_only_as_many_boards_as_fit_in_a_frame(tmp_path: Path) -> None:
    """The others are for the API."""
    boards = {f"b{number}": MAIN for number in range(BATCH_COMMANDS_MAX + 1)}
    with pytest.raises(ConfigError, match="put the others by the API"):
        check_file_boards(Config(data_dir=str(tmp_path), boards=boards), Scoreboard(Rules(boards)), 0)


def old_log(data: Path, golden: str) -> None:
    """Put a log that an older version wrote into a directory: it has no boards in it."""
    (data / "log").mkdir(parents=True)
    for path in (ENGINE_GOLDEN / golden).iterdir():
        shutil.copy(path, data / "log" / path.name)


def scores_in(data: Path) -> list[tuple[str, str, int]]:
    """What the increments of a log say: board, user and new score."""
    events = [event for frame in scan(InlineDisk(), f"{data}/log") for event in events_of(frame)]
    return [(event.board_id, event.user_id, event.new_score) for event in events if isinstance(event, Incremented)]


@pytest.mark.parametrize("golden", ["version-1-corrected", "histories"])
async def test_the_log_of_an_older_version_gets_its_boards_and_goes_on(tmp_path: Path, golden: str) -> None:
    """Its scores are those that it had, and stay; the rules of the file are written for them at the first start."""
    old_log(tmp_path, golden)
    before = scores_in(tmp_path)
    boards = {"main": replace(MAIN, ranks="shared"), "laps": LAPS}
    async with life(tmp_path, boards) as bench:
        assert bench.put == ["main", "laps"]
        done = await bench.score("123", "new")
        assert isinstance(done, Receipt)
        assert done.new_score == [score for board, user, score in before if (board, user) == ("main", "123")][-1] + 10
        after = digest(bench.scoreboard)
        seq = bench.scoreboard.seq
    assert scores_in(tmp_path) == [*before, ("main", "123", done.new_score)]
    async with life(tmp_path, boards) as bench:
        assert bench.frames == []
        assert (digest(bench.scoreboard), bench.scoreboard.seq) == (after, seq)


def version_of(snapshot: SnapshotInfo) -> int:
    """The version of a snapshot file."""
    return Path(snapshot.path).read_bytes()[8]


async def test_the_snapshot_of_an_older_version_is_as_good(tmp_path: Path) -> None:
    """It has no definitions. The next one has them, and from then on the state has another digest."""
    make(tmp_path, [[command for [command] in increments(5)]])
    assert version_of(save_snapshot(tmp_path)) == 1
    async with life(tmp_path, {"main": MAIN}) as bench:
        assert (bench.put, bench.scoreboard.seq) == (["main"], 6)
        assert rows(bench.scoreboard.boards["main"]) == [(1, "user-0", 30), (2, "user-1", 20)]
        new = Store(InlineDisk(), str(tmp_path)).save(bench.scoreboard.capture(), bench.log.tail)
        assert version_of(new) == 3
        before = digest(bench.scoreboard)
    async with life(tmp_path, {"main": MAIN}) as bench:
        assert bench.frames == []
        assert digest(bench.scoreboard) == before


@pytest.mark.parametrize(
    ("field", "rules"), [("order", replace(MAIN, order="ascending")), ("score", replace(MAIN, score="best"))]
)
async def test_a_board_that_old_scores_contradict_is_refused_by_its_key(
    tmp_path: Path, field: str, rules: BoardRules
) -> None:
    """The scores of the old log are sums, the highest first: the node does not start, and nothing is written."""
    make(tmp_path, increments(3))
    before = scores_in(tmp_path)
    with pytest.raises(ConfigError) as refused:
        await start.serve(config_with(tmp_path, {"main": rules, "laps": LAPS}), pytest.fail)
    assert str(refused.value).startswith(f"boards.main.{field}: ")
    assert "while the board has scores" in str(refused.value)
    assert [event for frame in scan(InlineDisk(), f"{tmp_path}/log") for event in events_of(frame)][3:] == []
    assert scores_in(tmp_path) == before


async def test_a_feed_that_nothing_knows_is_refused_by_its_key(tmp_path: Path) -> None:
    """The boards of the file and those of the log are known."""
    with pytest.raises(ConfigError, match=r"^boards\.cup\.feeds: .*'main'"):
        await start.serve(config_with(tmp_path, {"cup": CUP}), pytest.fail)
    async with life(tmp_path, {"main": MAIN}):
        pass
    async with life(tmp_path, {"cup": CUP}) as bench:
        assert bench.put == ["cup"]


async def test_a_whole_leader_serves_its_boards_from_the_first_request_on(tmp_path: Path) -> None:
    """As its process does it: they are in the log before anybody is answered, and the empty board has its seq."""
    tops: list[tuple[str, int]] = []

    async def use(url: str) -> None:
        async with client_of(url) as client:
            for board in ("laps", "main"):
                top = (await client.get(f"/scoreboard/top?boardId={board}")).json()
                tops.append((board, top["seq"]))
        await stop(url)

    for _ in range(2):
        with capture_logs():
            assert await serve_and_use(config_with(tmp_path, {"main": MAIN, "laps": LAPS}), use) == 0
    assert tops == [("laps", 2), ("main", 1)] * 2


async def test_on_a_full_disk_it_serves_and_writes_the_boards_later(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Meanwhile the boards count as the file says. They are written as soon as there is room."""
    make(tmp_path, increments(20), segment_bytes=4096)
    disk = ScarceDisk()
    disk.roomless = True
    long = BoardRules({f"REASON-{number:03}-{'x' * 100}": 1 for number in range(40)})
    async with life(tmp_path, {"main": MAIN, "long": long}, disk) as bench:
        assert bench.log.full is not None
        done = await bench.score("user-0", "it fits")
        assert isinstance(done, Receipt)
        assert (done.new_score, done.rank) == (110, 1)
        assert bench.scoreboard.served() == ["long", "main"]
        await trio.sleep(3.5 * bounds.DISK_FULL_RETRY_SECONDS)
        assert bench.put == []
        disk.roomless = False
        await trio.sleep(2 * bounds.DISK_FULL_RETRY_SECONDS)
        assert bench.put == ["main", "long"]
        assert all(board.is_logged for board in bench.scoreboard.boards.values())
        assert rows(bench.scoreboard.boards["main"])[0] == (1, "user-0", 110)
