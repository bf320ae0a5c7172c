"""Increments that are alike: decided together, they are what they are one by one."""

from __future__ import annotations

import random

import pytest

from engine import batch as batch_module
from engine.batch import Batch
from engine.board_rules import BoardRules, Rules
from engine.commands import Command, Increment, PutBoard
from engine.deciding import decide_alike
from engine.limits import SCORE_MAX
from engine.scoreboard import Scoreboard
from engine.slots import MANY
from snapshots.digests import digests_of
from tests.engine.model import put

MS = 1_765_800_896_000
QUARTER = SCORE_MAX // 4


class Both:
    """Two scoreboards: one takes submissions as they are, the other their commands one by one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.together, self.apart = Scoreboard(Rules({})), Scoreboard(Rules({}))
        self.alike = 0

        def counted(*args: object) -> object:
            found = decide_alike(*args)  # type: ignore[arg-type]
            self.alike += 0 if found is None else len(found)
            return found

        monkeypatch.setattr(batch_module, "decide_alike", counted)
        rules = {"main": BoardRules({"WIN": 10, "DRAW": 5}), "rich": BoardRules({"WIN": QUARTER})}
        self.take([PutBoard(name, each, "tests") for name, each in rules.items()])

    def take(self, *submissions: list[Command]) -> int:
        """Take submissions of one frame, and compare; give how many commands were decided together."""
        before = self.alike
        one, other = Batch(self.together, MS), Batch(self.apart, MS)
        for submission in submissions:
            one.decide(submission)
            if isinstance(submission[0], PutBoard):
                other.decide(submission)
            else:
                for command in submission:
                    other.decide([command])
        assert one.events == other.events
        assert one.settle() == other.settle()
        assert digests_of(self.together.capture()) == digests_of(self.apart.capture())
        self.together._check()
        return self.alike - before


def wins(first: int, users: list[str], reason: str = "WIN", board_id: str = "main") -> list[Command]:
    """New actions of these users, numbered from `first` on."""
    return [
        Increment(user, f"a{number}", reason, board_id, f"caller {number % 3}")
        for number, user in enumerate(users, first)
    ]


def test_users_who_are_new_or_known_and_act_several_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several submissions of one frame go on from each other, by the first reason of the board and by another."""
    chance, both = random.Random(5), Both(monkeypatch)
    for start in range(0, 4_000, 1_000):
        submissions = [
            wins(start + more, [f"u{chance.randrange(150)}" for _ in range(2 * MANY)], reason)
            for more, reason in ((0, "WIN"), (200, "WIN"), (400, "DRAW"), (600, "WIN"))
        ]
        assert both.take(*submissions) == 8 * MANY


def test_what_differs_is_decided_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated actions, in the index, in the frame and in the submission; reasons and boards; a user who is off."""
    both, users = Both(monkeypatch), [f"u{number}" for number in range(MANY)]
    assert both.take(wins(0, users)) == MANY
    assert both.take(wins(MANY - 1, users)) == 0
    assert both.take(wins(200, users), wins(200, users)) == MANY
    assert both.take(wins(300, users) + wins(300, users)) == 0
    assert both.take(wins(400, users) + wins(500, users, "DRAW")) == 0
    assert both.take(wins(600, users) + wins(700, users, board_id="rich")) == 0
    assert both.take(wins(800, users, "LOSS")) == 0
    assert both.take([put("u1", name="One")]) == 0
    assert both.take(wins(900, users)) == MANY
    assert both.take([put("u1", active=False)]) == 0
    assert both.take(wins(1_000, users)) == 0


def test_a_score_that_gets_too_high_refuses_its_own_action_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was added before it was noticed is taken back."""
    both, users = Both(monkeypatch), [f"u{number}" for number in range(MANY + 1)]
    assert both.take(wins(0, [*users, "u0", "u0", "u0"], board_id="rich")) == MANY + 4
    assert both.take(wins(100, [*users, "u1"], board_id="rich"), wins(200, users[1:], board_id="rich")) == MANY
    assert both.together.boards["rich"].score("u0") == 4 * QUARTER
