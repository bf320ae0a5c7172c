"""The log lines about flagged users, and about who decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import structlog
from structlog.testing import capture_logs

from engine.board_rules import BoardRules, Rules, WatchRules
from engine.commands import Increment, PutBoard, ReviewReceipt
from engine.scoreboard import Scoreboard
from server.api.audit import Audit
from server.bounds import LOG_LINES_PER_SECOND
from server.node.review_lines import tell_flags
from tests.e2e import leader as outside
from tests.e2e.client import Client
from tests.engine.model import perform
from tests.server.node.nodes import Served, config_for, leader_of_directory, replica_of, serving

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


async def test_a_replica_that_catches_up_raises_no_alarm(tmp_path: Path) -> None:
    """Not of what happened before it came, nor of what happened while it was away. Of what comes then it does."""
    with capture_logs() as lines:
        async with serving(config_for(tmp_path / "leader"), leader_of_directory) as leader:
            rules = {"points": {"WIN": 10}, "watch": {"growth_per_minute": 5}}
            await ask(leader, "PUT", "/boards/cup", rules, 201)
            for user, told in (("ann", ["ann"]), ("ben", ["ann", "zoe", "zoe", "ben"])):
                await flag(leader, user)
                async with serving(config_for(tmp_path / "replica"), replica_of(leader.url)) as replica:
                    await level(replica, leader)
                    assert replica.node.scoreboard.reviews.open_count == leader.node.scoreboard.reviews.open_count
                    assert [line["user_id"] for line in lines if line["event"] == "user_flagged"] == told
                    if user == "ann":
                        await flag(leader, "zoe")
                        await level(replica, leader)


async def level(replica: Served, leader: Served) -> None:
    """Wait until a replica follows, and has all that its leader has now."""
    assert replica.node.following is not None
    seq = leader.node.scoreboard.seq
    progress = replica.node.following._progress
    await progress.wait_until(lambda status: (status.seq, status.state) == (seq, "following"))


async def flag(leader: Served, user: str) -> None:
    """Give a user more points than a minute may have."""
    body = {"userId": user, "actionId": f"of {user}", "boardId": "cup", "reason": "WIN"}
    await ask(leader, "POST", "/scores/increment", body)


async def ask(node: Served, method: str, path: str, body: object, status: int = 200) -> Any:
    """Have an operator ask a node; the answer, decoded."""
    token = outside.token("scores:write", "boards:write")
    async with Client("127.0.0.1", node.port, token) as client:
        answer = await client.request(method, path, msgspec.json.encode(body))
    assert answer.status == status, answer.body
    return answer.json()
