"""A copy of a ranking: the rows of one moment, whatever happens to the ranking afterwards."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.board import Board
from engine.board_rules import BoardDefinition, BoardRules, OrderMode, RankMode
from engine.ranking import FinalRow
from engine.ranking_copy import RankingCopy, copy_of

USERS = [f"u{number}" for number in range(8)]
MS = 1_700_000_000_000

changes = st.lists(st.tuples(st.sampled_from(["record", "hide", "show"]), st.sampled_from(USERS), st.integers(0, 3)))


def apply(board: Board, story: list[tuple[str, str, int]]) -> None:
    for what, user_id, points in story:
        seq = board.seq + 1
        if what == "record" and user_id not in {board.user(slot) for slot in board._hidden}:
            board.record(user_id, points, seq, MS + seq)
        elif what == "hide":
            board.hide(user_id, seq)
        elif what == "show":
            board.show(user_id, seq)


def rows_of(copied: RankingCopy, part: int) -> list[FinalRow]:
    parts = list(copied.parts(part))
    assert all(len(each) == part for each in parts[:-1])
    return [row for each in parts for row in each]


@pytest.mark.parametrize("order", ["descending", "ascending"])
@pytest.mark.parametrize("ranks", ["unique", "shared", "dense"])
@settings(max_examples=30)
@given(before=changes, after=changes, part=st.integers(1, 4))
def test_a_copy_has_the_rows_of_its_moment(
    order: OrderMode, ranks: RankMode, before: list[tuple[str, str, int]], after: list[tuple[str, str, int]], part: int
) -> None:
    """With ranks, scores and times as the board lists them, also of a board in a replay."""
    board = Board("main", BoardDefinition(BoardRules({"A": 1}, order=order, ranks=ranks)))
    apply(board, before)
    expected = list(board.all_rows())
    copied = copy_of(board)
    board.begin_replay()
    replayed = copy_of(board)
    board.end_replay()
    apply(board, after)
    for each in (copied, replayed):
        each.sort()
        assert rows_of(each, part) == expected
        assert each.count == len(expected)


def test_the_largest_scores_are_exact_and_in_order() -> None:
    """Beyond 2^52 a floating point number would lose the difference."""
    board = Board("main", BoardDefinition(BoardRules({"A": 1})))
    for seq, score in enumerate((2**53 - 2, 2**53 - 1, 0), 1):
        board.record(f"u{seq}", score, seq, MS)
    copied = copy_of(board)
    copied.sort()
    assert [(row.rank, row.user_id, row.score) for row in rows_of(copied, 2)] == [
        (1, "u2", 2**53 - 1), (2, "u1", 2**53 - 2), (3, "u3", 0)
    ]  # fmt: skip
