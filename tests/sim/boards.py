"""The boards of the simulated world, and its calendar: a minute takes four seconds, in some runs a day 1.5.

    main, weekly     as they always were: points are added
    laps             the least value counts, users with one value share a rank
    cup              points are taken away too, or chosen; dense ranks; feeds `all-time` and `laps`
    all-time         counts actions
    minutes          begins anew with each minute, and feeds `weekly`
    spare-1 …        made, changed and closed by an operator (`tests.sim.operators`), each with rules by chance

The real calendar reads the tz database of the machine, so a run would not be the same everywhere. Its own tests are in
`tests/engine`. Here matters when the leader asks it, and what becomes of its answer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from engine import board, dues, past_ranks
from engine.board_rules import BoardRules, OrderMode, Range, RankMode, Rules, ScoreMode, Worth
from engine.schedule import Period, Schedule, Season

MINUTE_MS = 4_000
DAY_MS = 1_500
NOTE_EVERY_MS = 500
"""A day, and the time between two notes of ranks, in the runs that have them: the real ones never come up."""

EVERY_MINUTE = Schedule("cron", cron="* * * * *")

LAPS = Range(1, 90)

RULES = Rules(
    {
        "main": BoardRules({"ACTION_COMPLETED": 10, "BONUS": 128}),
        "weekly": BoardRules({"ACTION_COMPLETED": 1}),
        "laps": BoardRules({"LAP": LAPS}, score="best", order="ascending", ranks="shared"),
        "cup": BoardRules({"WIN": 10, "LATE": -5, "LAP": LAPS}, ranks="dense", feeds=("all-time", "laps")),
        "all-time": BoardRules({"WIN": 10, "LAP": LAPS}, score="count", ranks="shared"),
        "minutes": BoardRules({"ACTION_COMPLETED": 10}, schedule=EVERY_MINUTE, keep_periods=3, feeds=("weekly",)),
    }
)

SPARE = ("spare-1", "spare-2", "spare-3")
BOARDS = (*RULES.boards, *SPARE)

PLACES = [
    *(("main", reason) for reason in ("ACTION_COMPLETED", "BONUS") for _ in range(3)),
    *(("weekly", "ACTION_COMPLETED") for _ in range(2)),
    *(("minutes", "ACTION_COMPLETED") for _ in range(2)),
    *(("cup", reason) for reason in ("WIN", "LATE", "LAP")),
    *((board_id, "LAP") for board_id in ("laps", "spare-1", "spare-2")),
]
"""Boards and reasons of actions; a board may stand here more than once, so that it gets more of them."""

VALUES = (10, 20, 20, 30, 90, 91)
"""Values of an action whose worth is chosen. Few, so that scores are equal; the last one is refused."""

SCORES: tuple[ScoreMode, ...] = ("sum", "best", "last", "count")
ORDERS: tuple[OrderMode, ...] = ("descending", "ascending")
RANKS: tuple[RankMode, ...] = ("unique", "shared", "dense")


@contextmanager
def short_days(day_ms: int = DAY_MS, note_every_ms: int = NOTE_EVERY_MS) -> Iterator[None]:
    """Let days be short, so that ranks are noted, and compared with those of a day ago."""
    with ExitStack() as patched:
        patched.enter_context(mock.patch.object(past_ranks, "DAY_MS", day_ms))
        for module in (past_ranks, board):
            patched.enter_context(mock.patch.object(module, "LONG_MS", 2 * day_ms))
        patched.enter_context(mock.patch.object(dues, "NOTE_EVERY_MS", note_every_ms))
        yield


def period_at(schedule: Schedule, time_ms: int) -> Period:
    """Give the minute in which an instant lies."""
    assert schedule == EVERY_MINUTE
    number = time_ms // MINUTE_MS
    return Period(f"minute-{number}", number * MINUTE_MS, (number + 1) * MINUTE_MS)


def draw_value(dice: random.Random, reason: str) -> int | None:
    """Choose the value of an action; None where its worth is fixed."""
    return dice.choice(VALUES) if reason == "LAP" else None


def draw_rules(dice: random.Random, old: BoardRules | None, now_ms: int) -> BoardRules:
    """Make rules by chance; `old` are those of a board that there is, and they keep how scores grow, mostly."""
    schedule = dice.choice([None, EVERY_MINUTE])
    season = Season(dice.choice([None, now_ms + 500]), now_ms + dice.choice([1_000, 5_000]))
    points: dict[str, Worth] = {"LAP": LAPS, "ACTION_COMPLETED": dice.choice([-3, 1, 7])}
    keeps = old is not None and dice.random() < 0.9
    return BoardRules(
        points=points if old is None or dice.random() < 0.2 else old.points,
        title=dice.choice(["", "A cup", "Another cup"]),
        score=old.score if old is not None and keeps else dice.choice(SCORES),
        order=old.order if old is not None and keeps else dice.choice(ORDERS),
        ranks=dice.choice(RANKS),
        schedule=schedule,
        season=season if schedule is None and dice.random() < 0.5 else None,
        keep_periods=dice.choice([1, 2, 5]),
        feeds=dice.choice([(), ("all-time",), ("all-time", "laps")]) if old is None else old.feeds,
    )
