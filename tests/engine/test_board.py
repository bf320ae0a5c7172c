"""One ranking: order, ties, ranks, neighbours, hiding, and what counts as a change of the top."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.board import Board
from engine.keys import SLOT_MASK
from engine.limits import SCORE_MAX
from tests.engine.model import rows


def board_of(*scores: tuple[str, int]) -> Board:
    board = Board("main")
    for seq, (user, score) in enumerate(scores, 1):
        board.record(user, score, seq, 1_000 + seq)
    board._check()
    return board


def test_the_higher_score_stands_first() -> None:
    """Three users come in any order and are listed by score."""
    board = board_of(("low", 10), ("high", 30), ("middle", 20))
    assert rows(board) == [(1, "high", 30), (2, "middle", 20), (3, "low", 10)]
    assert [board.rank(user) for user in ("high", "middle", "low")] == [1, 2, 3]


def test_of_equal_scores_the_one_reached_first_stands_first() -> None:
    """A user who draws level ranks behind the one who was there before, whatever their names."""
    board = board_of(("zoe", 10), ("adam", 10))
    assert rows(board) == [(1, "zoe", 10), (2, "adam", 10)]
    board.record("adam", 20, 3, 0)
    board.record("zoe", 20, 4, 0)
    assert rows(board) == [(1, "adam", 20), (2, "zoe", 20)]


def test_the_largest_score_is_kept_exactly() -> None:
    """2^53 - 1 and its neighbour are told apart: no floating point is involved."""
    board = board_of(("almost", SCORE_MAX - 1), ("most", SCORE_MAX))
    assert rows(board) == [(1, "most", SCORE_MAX), (2, "almost", SCORE_MAX - 1)]


def test_an_unknown_user_has_no_score_rank_or_neighbours() -> None:
    """Asking for somebody without points is no error here."""
    board = board_of(("a", 1))
    assert board.score("b") is None
    assert board.rank("b") is None
    assert board.updated_ms("b") is None
    assert board.around("b", 3) == []


def test_neighbours_stop_at_both_ends() -> None:
    """The rows around the first and the last user are more on the other side, if there are so many."""
    board = board_of(*((f"u{n}", 100 - n) for n in range(10)))
    assert [row.user_id for row in board.around("u0", 2)] == ["u0", "u1", "u2", "u3", "u4"]
    assert [row.user_id for row in board.around("u9", 2)] == ["u5", "u6", "u7", "u8", "u9"]
    assert len(board.around("u5", 20)) == 10
    assert [(row.rank, row.user_id) for row in board.around("u5", 1)] == [(5, "u4"), (6, "u5"), (7, "u6")]
    assert [row.user_id for row in board.around("u5", 0)] == ["u5"]


def test_a_hidden_user_leaves_and_comes_back_with_the_score() -> None:
    """Hiding closes the gap in the ranks; showing again restores the place, ties included."""
    board = board_of(("a", 10), ("b", 10), ("c", 10))
    board.hide("a", 4)
    board._check()
    assert rows(board) == [(1, "b", 10), (2, "c", 10)]
    assert board.rank("a") is None
    assert board.score("a") == 10
    board.show("a", 5)
    board._check()
    assert rows(board) == [(1, "a", 10), (2, "b", 10), (3, "c", 10)]


def test_only_a_change_among_the_first_ten_counts_as_a_change_of_the_top() -> None:
    """Points for the eleventh user move `seq`; points that bring him into the ten move `top10_seq` too."""
    board = board_of(*((f"u{n}", 100 - n) for n in range(11)))
    assert (board.seq, board.top10_seq) == (11, 10)
    board.record("u10", 91, 12, 0)
    assert (board.seq, board.top10_seq) == (12, 10), "level with the tenth, who was first: still the eleventh"
    board.record("u10", 92, 13, 0)
    assert (board.seq, board.top10_seq) == (13, 13)


def test_hiding_showing_and_renaming_count_where_they_are_seen() -> None:
    """A change to somebody far down leaves the top alone; one among the ten does not."""
    board = board_of(*((f"u{n}", 100 - n) for n in range(12)))
    before = board.top10_seq
    board.touch("u11", 13)
    board.hide("u11", 14)
    board.show("u11", 15)
    assert board.top10_seq == before
    board.touch("u3", 16)
    assert board.top10_seq == 16
    board.hide("u3", 17)
    assert board.top10_seq == 17
    board.show("u3", 18)
    assert board.top10_seq == 18


class Notes:
    """A watcher that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int | None]] = []

    def note(self, slot: int, key: int | None) -> None:
        """See `Watcher`."""
        self.told.append((slot, key))

    def end(self) -> None:
        """See `Watcher`."""

    def _check(self) -> None:
        """Has no invariants."""


def test_a_watcher_is_told_the_key_before_each_change() -> None:
    """Of points, hiding and showing; not of first points, of a name, or after `unwatch`."""
    board, notes = board_of(("a", 1), ("b", 2)), Notes()
    board.watch(notes)
    (old,) = board.keys_of([0])
    board.record("a", 3, 3, 0)
    (new,) = board.keys_of([0])
    assert (board.slot("a"), board.slot("zoe"), board.user(0), new & SLOT_MASK) == (0, None, "a", 0)
    board.record("c", 9, 4, 0)
    board.touch("b", 5)
    board.hide("a", 6)
    assert board.keys_of([0]) == []
    board.show("a", 7)
    board.unwatch(notes)
    board.unwatch(notes)
    board.record("a", 4, 8, 0)
    assert notes.told == [(0, old), (0, new), (0, None)]
    assert new < old


def test_hiding_twice_or_somebody_unknown_changes_nothing() -> None:
    """Only a real change moves the board's seq."""
    board = board_of(("a", 1), ("b", 2))
    board.hide("a", 3)
    board.hide("a", 4)
    board.hide("nobody", 5)
    board.show("b", 6)
    board.touch("a", 7)
    assert board.seq == 3


def test_the_order_is_built_at_the_end_of_a_replay() -> None:
    """A board that kept no order meanwhile ends as one that did."""
    steps = [("a", 5), ("b", 7), ("a", 9), ("c", 9)]
    replayed = Board("main")
    replayed.begin_replay()
    for seq, (user, score) in enumerate(steps, 1):
        replayed.record(user, score, seq, 0)
    replayed.hide("b", 5)
    replayed.end_replay()
    replayed._check()
    assert rows(replayed) == [(1, "a", 9), (2, "c", 9)]


def test_an_image_is_the_moment_at_which_it_was_taken() -> None:
    """Events after the capture do not show in it, although it shares the list of users."""
    board = board_of(("a", 1), ("b", 2))
    image = board.capture()
    board.record("c", 3, 3, 0)
    board.record("a", 4, 4, 0)
    copy = Board.from_image(image, inactive=["b"])
    copy.end_replay()
    copy._check()
    assert rows(copy) == [(1, "a", 1)]
    assert copy.score("b") == 2
    assert (copy.seq, len(copy)) == (2, 2)


@given(
    st.lists(
        st.tuples(st.integers(0, 7), st.sampled_from(["add", "add", "add", "hide", "show"]), st.integers(1, 3)),
        max_size=60,
    )
)
def test_any_history_equals_a_plain_sort(steps: list[tuple[int, str, int]]) -> None:
    """Whatever happens, rows, ranks and neighbours are those of sorting everybody anew."""
    board = Board("main")
    scores: dict[str, tuple[int, int]] = {}
    hidden: set[str] = set()
    for seq, (number, verb, delta) in enumerate(steps, 1):
        user = f"u{number}"
        if verb == "add" and user not in hidden:
            scores[user] = (scores.get(user, (0, 0))[0] + delta, seq)
            board.record(user, scores[user][0], seq, seq)
        elif verb == "hide":
            board.hide(user, seq)
            hidden |= {user} & set(scores)
        elif verb == "show":
            board.show(user, seq)
            hidden.discard(user)
        board._check()
        plain = sorted((u for u in scores if u not in hidden), key=lambda u: (-scores[u][0], scores[u][1]))
        assert rows(board) == [(rank, u, scores[u][0]) for rank, u in enumerate(plain, 1)]
        assert [board.rank(u) for u in plain] == list(range(1, len(plain) + 1))
