"""The past of a board is what a replay up to there gives, at every seq, from snapshots and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from engine.board import Board
from engine.board_rules import BoardRules, Rules
from engine.commands import CloseBoard, Command, Increment, PutBoard, PutUser, ResetBoard
from engine.disk import RealDisk
from engine.log_reader import scan
from engine.record import events_of
from engine.scoreboard import Scoreboard
from server.live.encoding import entries_of, iso_ms
from server.past.questions import Failed, NoBoard, NotKept, Question, Reply, Start, Top
from server.past.reading import read_top
from snapshots.opening import log_directory
from tests.server.cli.directories import (
    BEGIN_MS,
    RULES,
    flip,
    increment,
    increments,
    make,
    open_for_writing,
    put_user,
    save_snapshot,
    segments,
    write,
)

SHARED = PutBoard("cup", BoardRules({"WIN": 10, "LATE": -5}, ranks="shared"), "ops")
MAIN = PutBoard("main", BoardRules({"ACTION_COMPLETED": 10}), "ops")
BEFORE: list[list[Command]] = [
    [MAIN], [SHARED], [increment("alice", "a1"), increment("bob", "b1")], [put_user("alice", "Alice")],
    [Increment(f"u{number % 3}", f"w{number}", "WIN", "cup", "game") for number in range(7)],
    [PutUser("u1", msgspec.UNSET, False, "ops")],
]  # fmt: skip
AFTER: list[list[Command]] = [
    [put_user("alice", "Al")], [Increment("u2", "late", "LATE", "cup", "game")], [ResetBoard("main", "ops")],
    [increment("carol", "c1")], [PutUser("u1", msgspec.UNSET, True, "ops")], [CloseBoard("cup", "ops")],
]  # fmt: skip


def story(path: Path, *, snapshot: bool) -> Path:
    """Make a directory with all kinds of changes, and a snapshot in the middle."""
    make(path, BEFORE)
    if snapshot:
        save_snapshot(path)
    opened = open_for_writing(path)
    write(opened, AFTER)
    opened.log.close()
    return path


def ask(
    path: Path, board: str = "main", limit: int = 10, *, seq: int | None = None, time_ms: int | None = None,
    erased: tuple[tuple[str, int], ...] = (),
) -> Reply:  # fmt: skip
    return read_top(RealDisk(), Start(str(path), RULES), Question(board, limit, seq, time_ms, erased))


def body_of(reply: Reply) -> dict[str, Any]:
    assert isinstance(reply, Top), reply
    body: dict[str, Any] = msgspec.json.decode(reply.body)
    assert body["seq"] == reply.seq
    return body


def shown(board: Board, scoreboard: Scoreboard, limit: int) -> Any:
    return msgspec.json.decode(msgspec.json.encode(entries_of(board.top(limit), scoreboard.users)))


def test_at_every_seq_it_is_what_a_replay_gives(tmp_path: Path) -> None:
    """Rows, ranks, names and who is shown; with a snapshot in the middle too."""
    for path in (story(tmp_path / "a", snapshot=False), story(tmp_path / "b", snapshot=True)):
        plain = Scoreboard(RULES)
        for frame in scan(RealDisk(), log_directory(str(path))):
            for event in events_of(frame):
                plain.apply(event, frame.epoch)
                plain.take_ended()
                for board_id in ("main", "cup"):
                    board = plain.board(board_id)
                    reply = ask(path, board_id, 3, seq=plain.seq)
                    if board is None:
                        assert reply == NoBoard(plain.seq)
                        continue
                    body = body_of(reply)
                    assert body["entries"] == shown(board, plain, 3), (path, plain.seq, board_id)
                    position = (body["seq"], body["epoch"], body["generatedAt"])
                    assert position == (plain.seq, plain.epoch, iso_ms(plain.time_ms))
                    assert len(body["history"]) == 32


def test_at_a_time_it_is_the_state_after_the_last_event_of_then(tmp_path: Path) -> None:
    """Before the first event there was no board."""
    path = make(tmp_path / "data", increments(3))
    for number, at_ms in ((1, BEGIN_MS), (1, BEGIN_MS + 999), (2, BEGIN_MS + 1000), (3, BEGIN_MS + 10**9)):
        assert ask(path, time_ms=at_ms) == ask(path, seq=number)
    assert ask(path, time_ms=BEGIN_MS - 1) == NoBoard(0)


def test_what_can_not_be_read_is_said(tmp_path: Path) -> None:
    """A seq that the log does not have, damage, no data at all, and a log that no longer goes back so far."""
    path = make(tmp_path / "data", increments(3000), segment_bytes=65_536)
    assert ask(path, seq=3001) == Failed("the log ends at seq 3000, before seq 3001")
    save_snapshot(path)
    first, second, *_ = segments(path)
    first.unlink()
    assert ask(path, seq=5) == NotKept()
    assert ask(path, time_ms=BEGIN_MS) == NotKept()
    assert body_of(ask(path, seq=3000))["entries"][0]["score"] == 15_000
    flip(second, b"ACTION_COMPLETED")
    assert isinstance(ask(tmp_path / "none", seq=1), Failed)
    (path / "snapshots").rename(tmp_path / "away")
    assert isinstance(ask(path, seq=3000), NotKept)


def test_the_boards_of_the_file_are_known(tmp_path: Path) -> None:
    """Those that no event defines: the rules come with the first line."""
    path = make(tmp_path / "data", increments(1))
    assert read_top(RealDisk(), Start(str(path), Rules({})), Question("main", 10, seq=1)) == NoBoard(1)
