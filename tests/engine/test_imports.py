"""Rows of imports: what they do on boards of each mode, what is refused, and where an import goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from engine.batch import Batch
from engine.board_rules import BoardRules, Range, Rules
from engine.commands import (
    CloseBoard,
    FreezeBoard,
    ImportReceipt,
    ImportRow,
    ImportRows,
    PutBoard,
    PutUser,
    Rejection,
    ResetBoard,
)
from engine.event_records import encode_events
from engine.events import ImportBegun, Incremented, ScoreImported, UserPut
from engine.limits import FRAME_BYTES_MAX, FRAME_RECORDS_MAX, ID_CHARACTERS_MAX, IMPORT_ROWS_MAX, SCORE_MAX
from engine.recount import Recount, Span
from engine.schedule import Season
from engine.scoreboard import Scoreboard
from snapshots.digests import state_digest
from tests.engine.model import increment, perform, rows

MS = 1_765_800_896_000
RULES = BoardRules({"ACTION_COMPLETED": 10})


def scoreboard_with(rules: BoardRules = RULES, *, require_registered: bool = False) -> Scoreboard:
    """A scoreboard with the board `main`."""
    scoreboard = Scoreboard(Rules({}, require_registered))
    perform(scoreboard, [PutBoard("main", rules, "ops")], MS)
    return scoreboard


def chunk(
    scores: Sequence[tuple[str, int] | ImportRow], first: int = 0, total: int | None = None, **more: Any
) -> ImportRows:
    """Rows of the import `i`, which has no others unless `total` says so."""
    made = [each if isinstance(each, ImportRow) else ImportRow(*each) for each in scores]
    command = ImportRows("main", "i", first, first + len(made) if total is None else total, "", False, made, "ops")
    return replace(command, **more)


def take(scoreboard: Scoreboard, command: ImportRows, now_ms: int = MS) -> ImportReceipt:
    """Perform a chunk that is taken."""
    [outcome] = perform(scoreboard, [command], now_ms)
    assert isinstance(outcome, ImportReceipt), outcome
    scoreboard._check()
    return outcome


def refusal(scoreboard: Scoreboard, command: ImportRows, now_ms: int = MS) -> tuple[str, str, str]:
    """Perform a chunk that is refused and changes nothing; give the code, the field and the message."""
    before = state_digest(scoreboard.capture())
    [outcome] = perform(scoreboard, [command], now_ms)
    assert isinstance(outcome, Rejection), outcome
    assert state_digest(scoreboard.capture()) == before
    return outcome.code, str(outcome.details["field"]), outcome.message


def test_equal_scores_keep_the_order_of_the_rows() -> None:
    """On a board of either direction: each row has a seq of its own."""
    for order, expected in (("descending", "cab"), ("ascending", "abc")):
        scoreboard = scoreboard_with(replace(RULES, order=order))
        receipt = take(scoreboard, chunk([("a", 5), ("b", 5), ("c", 7 if order == "descending" else 9)]))
        assert receipt == ImportReceipt("i", "main", 3, 3, 3, 1, 5)
        assert [user for _, user, _ in rows(scoreboard.boards["main"])] == list(expected)


@pytest.mark.parametrize(
    ("mode", "order", "expected"),
    [
        ("sum", "descending", 13),
        ("count", "descending", 4),
        ("last", "descending", 3),
        ("best", "descending", 10),
        ("best", "ascending", 3),
    ],
)
def test_a_row_of_a_merge_counts_by_the_mode_of_the_board(mode: Any, order: Any, expected: int) -> None:
    """Ann has 10 points, or 1 where actions are counted; the row says 3. Ben is new."""
    rules = BoardRules({"ACTION_COMPLETED": 10}, score=mode, order=order)
    scoreboard = scoreboard_with(rules)
    perform(scoreboard, [increment("ann", "a")], MS)
    take(scoreboard, chunk([("ann", 3), ("ben", 0)], merge=True))
    board = scoreboard.boards["main"]
    assert (board.score("ann"), board.score("ben")) == (expected, 0)


def test_a_better_score_keeps_its_place_and_its_time() -> None:
    """A row that changes nothing is logged, as the import must know it, and moves nobody."""
    scoreboard = scoreboard_with(replace(RULES, score="best"))
    perform(scoreboard, [increment("ann", "a"), increment("ben", "b")], MS)
    take(scoreboard, chunk([ImportRow("ann", 10, 5), ImportRow("ben", 4)], merge=True), MS + 9)
    board = scoreboard.boards["main"]
    assert [user for _, user, _ in rows(board)] == ["ann", "ben"]
    assert board.updated_ms("ann") == MS


def test_points_that_count_during_an_import_are_not_lost() -> None:
    """The import began on an empty board. Then ben scores, and his row comes."""
    scoreboard = scoreboard_with()
    take(scoreboard, chunk([("ann", 1)], total=2))
    perform(scoreboard, [increment("ben", "b")], MS)
    take(scoreboard, chunk([("ben", 5)], first=1))
    assert scoreboard.boards["main"].score("ben") == 15


def test_a_chunk_that_was_cut_off_is_sent_again() -> None:
    """Whole, in part, or after the end: rows that are done are left out."""
    scoreboard = scoreboard_with()
    all_rows = [(f"u{number}", number) for number in range(6)]
    assert take(scoreboard, chunk(all_rows[:4], total=6)).applied == 4
    assert take(scoreboard, chunk(all_rows[:4], total=6)) == ImportReceipt("i", "main", 6, 4, 0, 1, 6)
    assert take(scoreboard, chunk(all_rows[2:6], first=2)).applied == 2
    digest = state_digest(scoreboard.capture())
    perform(scoreboard, [CloseBoard("main", "ops")], MS)
    assert take(scoreboard, chunk(all_rows, total=6)).applied == 0
    assert scoreboard.boards["main"].score("u5") == 5
    assert state_digest(scoreboard.capture()) != digest  # it is closed


def test_a_gap_and_another_source_are_refused() -> None:
    """Each refusal says how many rows are done."""
    scoreboard = scoreboard_with()
    perform(scoreboard, [PutBoard("other", RULES, "ops")], MS)
    take(scoreboard, chunk([("a", 1)], total=3, digest="d"))
    good = chunk([("b", 1)], first=1, total=3, digest="d")
    for field, command in {
        "firstRow": replace(good, first_row=2),
        "digest": replace(good, digest="e"),
        "total": replace(good, total=4),
        "merge": replace(good, merge=True),
        "boardId": replace(good, board_id="other"),
    }.items():
        [outcome] = perform(scoreboard, [command], MS)
        assert isinstance(outcome, Rejection)
        assert (outcome.code, outcome.details) == ("CONFLICT", {"field": field, "rowsDone": 1})
    assert refusal(scoreboard, replace(good, first_row=3))[:2] == ("INVALID_REQUEST", "rows")
    assert take(scoreboard, good).rows_done == 2


def test_a_board_with_scores_takes_only_a_merge() -> None:
    """Otherwise two imports of one season would double all scores."""
    scoreboard = scoreboard_with()
    perform(scoreboard, [increment("ann", "a")], MS)
    code, field, message = refusal(scoreboard, chunk([("ben", 1)]))
    assert (code, field) == ("CONFLICT", "merge")
    assert "has scores (1 users)" in message


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (ImportRow("a", 1), "rows[1].userId"),
        (ImportRow("b", -1), "rows[1].score"),
        (ImportRow("b", SCORE_MAX + 1), "rows[1].score"),
        (ImportRow("b", 1, MS + 1), "rows[1].reachedAt"),
        (ImportRow("b", 1, -1), "rows[1].reachedAt"),
        (ImportRow("full", 1), "rows[1].score"),
    ],
)
def test_one_bad_row_refuses_the_chunk(row: ImportRow, field: str) -> None:
    """A user twice, a score or a time out of range, a sum past the largest score. The row is named."""
    scoreboard = scoreboard_with()
    take(scoreboard, chunk([("full", SCORE_MAX)], import_id="before"))
    command = chunk([("a", 1), row], first=0, merge=True)
    code, found, message = refusal(scoreboard, command)
    assert (code, found) == ("INVALID_REQUEST", field)
    assert message.startswith("row 1 of the import")


def test_a_name_comes_as_the_event_of_a_user() -> None:
    """Only where it is new; whether a user is active stays."""
    scoreboard = scoreboard_with()
    perform(scoreboard, [PutUser("ann", "Ann", False, "ops"), PutUser("ben", "Ben", True, "ops")], MS)
    batch = Batch(scoreboard, MS)
    batch.decide([chunk([ImportRow("ann", 3, None, "Anna"), ImportRow("ben", 2, None, "Ben"), ImportRow("cat", 1)])])
    assert [event for event in batch.events if isinstance(event, UserPut)] == [
        UserPut(5, MS, "ann", "Anna", False, "ops")
    ]
    batch.settle()
    board = scoreboard.boards["main"]
    assert [user for _, user, _ in rows(board)] == ["ben", "cat"]
    perform(scoreboard, [PutUser("ann", "Anna", True, "ops")], MS)
    assert rows(board)[0] == (1, "ann", 3)


def test_where_users_must_be_registered_a_name_registers() -> None:
    """A row without one names a user who is not known."""
    scoreboard = scoreboard_with(require_registered=True)
    assert refusal(scoreboard, chunk([("ann", 1)]))[1] == "rows[0].userId"
    take(scoreboard, chunk([ImportRow("ann", 1, None, "Ann")]))
    assert scoreboard.users.name("ann") == "Ann"


def test_a_board_that_takes_no_action_takes_no_row() -> None:
    """Closed, over, not open yet, not there; as actions are refused."""
    scoreboard = scoreboard_with()
    perform(scoreboard, [CloseBoard("main", "ops")], MS)
    assert refusal(scoreboard, chunk([("a", 1)]))[0] == "BOARD_CLOSED"
    early = scoreboard_with(replace(RULES, season=Season(MS + 1_000, MS + 2_000)))
    assert refusal(early, chunk([("a", 1)]))[0] == "BOARD_NOT_OPEN"
    assert refusal(early, chunk([("a", 1)], board_id="nowhere"))[0] == "NOT_FOUND"
    from_file = Scoreboard(Rules({"main": RULES}))
    assert refusal(from_file, chunk([("a", 1)]))[0] == "BOARD_NOT_OPEN"


def test_an_import_does_not_run_on_into_another_period() -> None:
    """Half of a ranking in each of two periods is no ranking."""
    scoreboard = scoreboard_with()
    take(scoreboard, chunk([("a", 1)], total=2))
    perform(scoreboard, [ResetBoard("main", "ops")], MS + 5)
    assert refusal(scoreboard, chunk([("b", 1)], first=1), MS + 6)[1] == "importId"
    take(scoreboard, chunk([("b", 1)], import_id="j"), MS + 6)


def test_the_public_of_a_frozen_board_sees_no_row() -> None:
    """An import counts in the present, as an action does."""
    scoreboard = scoreboard_with()
    perform(scoreboard, [FreezeBoard("main", "ops")], MS)
    take(scoreboard, chunk([("a", 1)]))
    board = scoreboard.boards["main"]
    assert (len(board), len(board.public)) == (1, 0)


def test_a_catalogue_with_ranges_is_about_actions() -> None:
    """A row may be outside of each of them."""
    scoreboard = scoreboard_with(BoardRules({"LAP": Range(100, 200)}, score="best", order="ascending"))
    take(scoreboard, chunk([("a", 99)]))
    assert rows(scoreboard.boards["main"]) == [(1, "a", 99)]


def test_the_state_knows_its_imports_after_a_snapshot() -> None:
    """And a state without an import has no part, so its bytes are what they were."""
    scoreboard = scoreboard_with()
    assert scoreboard.capture().parts == ()
    take(scoreboard, chunk([("z", 1)], total=2, import_id="z"))
    take(scoreboard, chunk([("y", 1)], total=1, import_id="a", merge=True))
    image = scoreboard.capture()
    assert [name for name, _ in image.parts] == ["imports"]
    again = Scoreboard.from_image(Rules({}), image)
    again.end_replay()
    again._check()
    assert state_digest(again.capture()) == state_digest(image)
    assert [each.import_id for each in again.imports.of_board("main")] == ["z", "a"]
    assert take(again, chunk([("x", 2)], first=1, import_id="z")).rows_done == 2
    other = Scoreboard(Rules({}))
    other.take_over(again)
    assert len(other.imports) == 2


def test_a_log_has_a_bounded_number_of_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state remembers each of them for good."""
    monkeypatch.setattr("engine.import_decisions.IMPORTS_MAX", 1)
    scoreboard = scoreboard_with()
    take(scoreboard, chunk([("a", 1)], total=2))
    assert refusal(scoreboard, chunk([("b", 1)], import_id="j", merge=True))[1] == "importId"
    take(scoreboard, chunk([("b", 1)], first=1))


def test_the_longest_chunk_fits_in_a_frame() -> None:
    """Each row with a name, and all ids as long as they may be."""
    long = "\U0001f3af" * (ID_CHARACTERS_MAX - 8)
    scoreboard = scoreboard_with()
    perform(scoreboard, [PutBoard(long, RULES, "ops")], MS)
    made = [ImportRow(f"{long}{row:08}", SCORE_MAX, MS, long) for row in range(IMPORT_ROWS_MAX)]
    batch = Batch(scoreboard, MS)
    batch.decide([ImportRows(long, long, 0, IMPORT_ROWS_MAX, long, False, made, long)])
    assert isinstance(batch.events[0], ImportBegun)
    assert len(batch.events) == 2 * IMPORT_ROWS_MAX + 1 <= FRAME_RECORDS_MAX
    assert len(encode_events(batch.events)) < FRAME_BYTES_MAX


@pytest.mark.parametrize(
    ("mode", "expected"), [("sum", (12, 6, MS + 2)), ("count", (6, 6, MS + 2)), ("last", (5, 4, 99))]
)
def test_a_recount_counts_rows_in_their_place(mode: Any, expected: tuple[int, int, int]) -> None:
    """An action before the row is left out: what is left is the row's 5, and the action after it."""
    rules = BoardRules({"WIN": 7} if mode != "last" else {"WIN": 5}, score=mode)
    win = Incremented(3, MS, "main", "ann", "a", 7, "WIN", "backend", 7)
    row = ScoreImported(4, MS + 1, "main", "ann", 5, 12, 99, "i", 0, "ops")
    # The same score again leaves the place.
    again = Incremented(6, MS + 2, "main", "ann", "b", 7, "WIN", "backend", 19, 5 if mode == "last" else None)
    recount = Recount({3: win}, again=False)
    for event in (win, row, again):
        recount.take(event)
    found = recount.of(rules, "main", "ann", Span(0, 9), lambda seq: seq != 3)
    assert (found.new_score, found.reached_seq, found.updated_ms) == expected
    only = recount.of(rules, "main", "ann", Span(0, 5), lambda seq: seq != 3)
    assert (only.new_score, only.reached_seq, only.updated_ms) == (5, 4, 99)


def test_a_row_is_the_base_where_the_log_begins_later() -> None:
    """What came before it can't be taken back, so the score after it stands."""
    row = ScoreImported(40, MS + 1, "main", "ann", 5, 105, None, "i", 0, "ops")
    win = Incremented(41, MS + 2, "main", "ann", "a", 7, "WIN", "backend", 112)
    recount = Recount({41: win}, again=False, log_begins=40)
    for event in (row, win):
        recount.take(event)
    found = recount.of(BoardRules({"WIN": 7}), "main", "ann", Span(0, 50), lambda seq: seq != 41)
    assert (found.new_score, found.reached_seq, found.updated_ms) == (105, 40, MS + 1)
