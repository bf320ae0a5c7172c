"""The log lines about flagged users, and about who decided."""

from __future__ import annotations

import structlog
from structlog.testing import capture_logs

from engine.board_rules import BoardRules, Rules, WatchRules
from engine.commands import Increment, PutBoard, ReviewReceipt
from engine.scoreboard import Scoreboard
from server.api.audit import Audit
from server.bounds import LOG_LINES_PER_SECOND
from server.node.review_lines import tell_flags
from tests.engine.model import perform

WATCHED = BoardRules({"WIN": 10}, watch=WatchRules(growth_per_minute=5))


def flagged(users: int) -> Scoreboard:
    """Give a state whose last frame flagged this many users."""
    scoreboard = Scoreboard(Rules({}))
    perform(scoreboard, [PutBoard("cup", WATCHED, "ops")])
    perform(scoreboard, [Increment(f"user-{n}", f"action-{n}", "WIN", "cup", "game") for n in range(users)])
    return scoreboard


def test_a_flag_is_told_once() -> None:
    """With the rule, what was found, and the limit."""
    scoreboard = flagged(1)
    with capture_logs() as lines:
        tell_flags(scoreboard.reviews)
        tell_flags(scoreboard.reviews)
    assert lines == [
        {
            "event": "user_flagged", "log_level": "warning", "review_id": "2-0", "board_id": "cup",
            "user_id": "user-0", "rule": "growth_per_minute", "value": 10, "limit": 5, "holds": False,
        }
    ]  # fmt: skip


def test_a_frame_that_flags_many_is_told_in_few_lines() -> None:
    """A wrong limit flags everybody: that fills no disk, and the number is told."""
    scoreboard = flagged(LOG_LINES_PER_SECOND + 5)
    with capture_logs() as lines:
        tell_flags(scoreboard.reviews)
    assert [line["event"] for line in lines] == ["user_flagged"] * LOG_LINES_PER_SECOND + ["users_flagged"]
    assert (lines[-1]["more"], lines[-1]["open"]) == (5, LOG_LINES_PER_SECOND + 5)


def test_a_restart_tells_nothing_again() -> None:
    """What a replay finds was told when it happened."""
    live = flagged(2)
    scoreboard = Scoreboard.from_image(Rules({}), live.capture())
    scoreboard.end_replay()
    assert scoreboard.reviews.open_count == 2
    again = Scoreboard(Rules({}))
    again.begin_replay()
    perform(again, [PutBoard("cup", WATCHED, "ops")])
    perform(again, [Increment("ann", "a", "WIN", "cup", "game")])
    again.end_replay()
    with capture_logs() as lines:
        tell_flags(scoreboard.reviews)
        tell_flags(again.reviews)
    assert lines == []


def test_a_decision_is_told_with_who_and_why() -> None:
    """For those who ask later."""
    [review] = flagged(1).reviews.all()
    with capture_logs() as lines:
        Audit(structlog.get_logger(), lambda: 0.0).review_decided(review, ReviewReceipt("2-0", True, 1, 9, (3, 4)))
    [line] = lines
    assert (line["event"], line["review_id"], line["user_id"], line["state"]) == (
        "review_decided",
        "2-0",
        "user-0",
        "open",
    )
    assert {"note", "caller", "seq", "reversal_id"} <= set(line)
    assert line["actions"] == 2
