"""Frames of steps that a large board takes together, beside a board that takes the same steps one by one."""

from __future__ import annotations

import random

import numpy as np
import pytest

from engine import moving as moving_module
from engine import order as order_module
from engine import scored_ranking as scored_ranking_module
from engine.board import Board
from engine.board_rules import BoardDefinition, BoardRules, OrderMode
from engine.keys import CODE_SCORES, CompactKeys
from engine.order import Order
from engine.scored_ranking import ScoredRanking, Step

MS = 1_700_000_000_000


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boards are large from two users on, frames from two steps on, and lists and parts are short."""
    monkeypatch.setattr(order_module, "COMPACT_FROM", 1)
    monkeypatch.setattr(scored_ranking_module, "TOGETHER", 2)
    monkeypatch.setattr(moving_module, "PART", 7)
    monkeypatch.setattr(Order, "DEFAULT_LOAD_FACTOR", 4)


class Pair:
    """A board that takes frames together, and one that takes the steps one by one."""

    def __init__(self, order: OrderMode, chance: random.Random) -> None:
        definition = BoardDefinition(BoardRules({"A": 1}, order=order))
        self.board, self.plain = Board("main", definition), Board("main", definition)
        self._chance = chance
        self._scores: dict[str, int] = {}
        self.seq = 0
        self.frames_together = 0

    def step(self, users: int, most: int) -> Step:
        """A step of some user, who may be new, up or down."""
        self.seq += self._chance.randint(1, 3)
        user_id = f"u{self._chance.randrange(users)}"
        score = self._scores[user_id] = max(0, self._scores.get(user_id, 0) + self._chance.randint(-most // 4, most))
        return Step(user_id, score, self.seq)

    def take(self, steps: list[Step]) -> None:
        """Take a frame, and compare all that can be seen."""
        users = [step.user_id for step in steps]
        expected = [self.plain.record_all([step], MS)[0] for step in steps]
        order, together = self.board._ranked(), None
        if order.is_compact:
            together = self.board._record_together(order, steps, MS, np.array(self.board.find(users)))
        self.frames_together += together is not None
        assert (self.board.record_all(steps, MS) if together is None else together) == expected
        self.compare()

    def compare(self) -> None:
        self.board._check()
        assert self.board.capture() == self.plain.capture()
        assert list(self.board.all_rows()) == list(self.plain.all_rows())
        assert self.board.top10_seq == self.plain.top10_seq

    def grow(self, users: int) -> None:
        """Begin with so many users, whose order is built at once."""
        for board in (self.board, self.plain):
            board.begin_replay()
        steps = [self.step(users, 40) for _ in range(2 * users)]
        for board in (self.board, self.plain):
            board.record_all(steps, MS)
            board.end_replay()


@pytest.mark.parametrize("order", ["descending", "ascending"])
@pytest.mark.parametrize("users", [3, 20, 150])
@pytest.mark.parametrize("seed", range(4))
def test_a_frame_gives_what_its_steps_give_one_by_one(together: None, order: OrderMode, seed: int, users: int) -> None:
    """Ranks before and after, rows and image: with users who are new, hidden, or move several times in a frame."""
    chance = random.Random(seed)
    pair = Pair(order, chance)
    pair.grow(users)
    pinned = [board.pin() for board in (pair.board, pair.plain)]
    for _ in range(6):
        pair.take([pair.step(users + 10, chance.choice([2, 40, 400])) for _ in range(chance.choice([2, 30, 300]))])
        is_hidden = pair.board.rank("u1") is None
        for board in (pair.board, pair.plain):
            if is_hidden:
                board.show("u1", pair.seq)
            else:
                board.hide("u1", pair.seq)
        pair.compare()
    keys = [each.keys_after(None, 2**20) for each in pinned]
    assert keys[0] == keys[1]
    assert pair.frames_together >= 3, "only frames with a hidden user go one by one"


def test_all_users_climb_to_the_front_and_lists_are_cut_and_joined(together: None) -> None:
    """In frames as large as the board: behind, lists become empty."""
    pair = Pair("descending", random.Random(7))
    pair.grow(100)
    for turn in range(1, 4):
        users = sorted(pair._scores, key=pair._scores.__getitem__)
        steps = []
        for user_id in users:
            pair.seq += 1
            steps.append(Step(user_id, 10_000 * turn + pair.seq, pair.seq))
        pair.take(steps)
    assert pair.frames_together == 3


def test_a_score_that_does_not_fit_is_taken_all_the_same(together: None) -> None:
    """From then on this list has integers, and frames go one by one."""
    pair = Pair("ascending", random.Random(3))
    pair.grow(50)
    pair.take([pair.step(50, 40) for _ in range(20)])
    pair.take([Step("u1", CODE_SCORES, pair.seq + 1), Step("u2", CODE_SCORES + 7, pair.seq + 2)])
    pair.seq += 2
    order = pair.board._ranked()
    assert not order.is_compact
    assert any(isinstance(keys, CompactKeys) for keys in order._lists)
    pair.take([pair.step(50, 40) for _ in range(20)])


def test_a_step_that_moves_nobody_has_its_rank_twice(together: None) -> None:
    """Before and after steps of the same user that do."""
    pair = Pair("descending", random.Random(5))
    pair.grow(50)
    steps = []
    for more in (0, 0, 3, 0, 4, 0):
        for user_id in ("u4", "u5", "new"):
            pair._scores[user_id] = pair._scores.get(user_id, 0) + more
            pair.seq += 1
            steps.append(Step(user_id, pair._scores[user_id], pair.seq))
    pair.take(steps)
    assert pair.frames_together == 1


def test_small_frames_and_boards_with_shared_ranks_go_one_by_one(
    together: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so does a small board: only there is it worth it."""
    monkeypatch.setattr(ScoredRanking, "_record_together", None)
    pair = Pair("descending", random.Random(5))
    pair.grow(50)
    pair.board.record_all([Step("u1", 5_000, pair.seq + 1)], MS)
    shared = Board("main", BoardDefinition(BoardRules({"A": 1}, ranks="shared")))
    shared.record_all([Step("a", 1, 1), Step("b", 1, 2)], MS)
    assert shared.record_all([Step("a", 2, 3), Step("b", 2, 4)], MS) == [(1, 1), (2, 1)]
