"""What viewers are told of how far users moved."""

from __future__ import annotations

from server.live.editions import NO_EDITION
from tests.server.live.stage import DAY_MS, NOW_MS, PLAIN, Stage, told

HOUR_MS = 3_600_000


def test_a_note_alone_is_told_and_a_move_changes_only_the_rows_that_it_moves() -> None:
    """A day after the first points nobody has moved: that is news. Then one user passes another."""
    stage = Stage({"main": PLAIN})
    channel = stage.channel()
    stage.score("ann", "ann", "ann", "ben", "ben", "cid")
    has = channel.publish().number
    stage.pass_to(NOW_MS + DAY_MS + HOUR_MS)
    assert channel.is_behind
    [message] = told(channel, has, deltas=True)
    assert message["type"] == "scoreboard_delta"
    assert [(row["userId"], row["change"]) for row in message["changed"]] == [
        ("ann", {"day": 0}), ("ben", {"day": 0}), ("cid", {"day": 0})
    ]  # fmt: skip
    has = channel.published.number
    stage.score("cid", "cid")
    [message] = told(channel, has, deltas=True)
    assert [(row["userId"], row["rank"], row["change"]) for row in message["changed"]] == [
        ("cid", 2, {"day": 1}), ("ben", 3, {"day": -1})
    ]  # fmt: skip


def test_a_note_that_shows_nothing_new_is_no_message() -> None:
    """Before the board is a day old, and while the ranks of a day ago are those of the hour before."""
    stage = Stage({"main": PLAIN})
    channel = stage.channel()
    stage.score("ann", "ben")
    channel.publish()
    for hours in (1, 2, 3):
        stage.pass_to(NOW_MS + hours * HOUR_MS)
        assert not channel.is_behind
    stage.pass_to(NOW_MS + DAY_MS + 4 * HOUR_MS)
    assert channel.is_behind
    channel.publish()
    stage.score("ben")
    channel.publish()
    stage.pass_to(NOW_MS + DAY_MS + 5 * HOUR_MS)
    assert not channel.is_behind


def test_a_snapshot_has_the_changes_of_now() -> None:
    """For a viewer who comes later, too."""
    stage = Stage({"main": PLAIN})
    channel = stage.channel()
    stage.score("ann", "ben")
    stage.pass_to(NOW_MS + DAY_MS + HOUR_MS)
    stage.score("ben", "dan")
    [message] = told(channel, NO_EDITION)
    assert [(row["userId"], row["change"]) for row in message["entries"]] == [
        ("ben", {"day": 1}), ("ann", {"day": -1}), ("dan", {"day": None})
    ]  # fmt: skip
