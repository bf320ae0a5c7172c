"""Users who are looked up together: a large submission is decided as its commands are one by one."""

from __future__ import annotations

import random

import pytest

from engine.batch import Batch
from engine.board import NOBODY_KNOWN, Board
from engine.board_rules import BoardRules, Range, Rules
from engine.commands import Command, Increment, PutBoard
from engine.limits import SCORE_MAX
from engine.looking_up import look_up
from engine.scoreboard import Scoreboard
from engine.slots import MANY
from snapshots.digests import digests_of
from tests.engine.model import perform, put

MS = 1_765_800_896_000
CATALOGUE = {
    "year": BoardRules({"WIN": 1}),
    "laps": BoardRules({"LAP": Range(10, 90)}, score="best"),
    "cup": BoardRules({"WIN": 10, "DRAW": 5, "LAP": Range(0, 100)}, feeds=("year", "laps")),
    "rich": BoardRules({"WIN": SCORE_MAX // 4}, feeds=("year",)),
}


def started() -> Scoreboard:
    """A scoreboard whose boards are events."""
    scoreboard = Scoreboard(Rules({}))
    perform(scoreboard, [PutBoard(name, rules, "tests") for name, rules in CATALOGUE.items()], MS)
    return scoreboard


@pytest.mark.parametrize("board_ids", [["cup"], ["rich"], ["year", "cup", "laps", "cup", "nowhere"]])
def test_a_large_submission_counts_as_its_commands_do_one_by_one(board_ids: list[str]) -> None:
    """With users who are new or act several times, repeated actions, refusals, and boards that feed others."""
    chance = random.Random(3)
    together, apart = started(), started()
    for _ in range(2):
        commands: list[Command] = []
        for _ in range(200):
            board_id, reason = chance.choice(board_ids), chance.choice(["WIN", "WIN", "DRAW", "LAP"])
            value = chance.randint(5, 95) if reason == "LAP" else None
            user_id, action_id = f"u{chance.randrange(40)}", f"a{chance.randrange(700)}"
            commands.append(Increment(user_id, action_id, reason, board_id, "tests", value=value))
        commands.insert(100, put("u1", name="One"))
        one, other = Batch(together, MS), Batch(apart, MS)
        one.decide(commands)
        for command in commands:
            other.decide([command])
        assert one.events == other.events
        assert one.settle() == other.settle()
        assert digests_of(together.capture()) == digests_of(apart.capture())
        together._check()


def test_what_is_known_of_users_together_is_what_is_known_of_each() -> None:
    """Slot, score and kept mark; also of nobody, and on a board without anybody."""
    board = Board("main")
    users = [f"u{number}" for number in range(2 * MANY)]
    commands = [Increment(user, user, "WIN", "main", "tests") for user in users]
    assert list(look_up(commands, {"main": board}, dict)) == [NOBODY_KNOWN] * len(users)  # type: ignore[arg-type]
    for seq, user in enumerate(users[::2], 1):
        board.record(user, 7 * seq, seq, MS)
    for slot in (0, 3):
        board.mark(slot, board.user(slot), "WIN")
    board.record("late", 5, 1_000, MS)
    commands.append(Increment("late", "late", "WIN", "main", "tests"))
    known = list(look_up(commands, {"main": board}, dict))  # type: ignore[arg-type]
    assert known == [board.look_up(command.user_id) for command in commands]
    assert [each[0] for each in known if each is not None and each[2]] == [0, 3]
    few = look_up(commands[: MANY - 1], {"main": board}, dict)  # type: ignore[arg-type]
    assert next(few) is None
