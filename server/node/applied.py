"""What follows a frame that was applied: it is shipped, counted, shown, and told.

    machine = StateMachine(scoreboard, log, on_applied(world, scoreboard, freshness, show, feed, erasures, hooks))

Rule: all of it happens right after the frame was applied, without an await. So whoever is told sees the same state.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.events import Incremented
from engine.machine import Applied
from engine.scoreboard import Scoreboard
from server.node.board_lines import tell_board_events
from server.node.erasure_keeper import ErasureKeeper
from server.node.review_lines import tell_flags
from server.node.surroundings import Surroundings
from server.replication.feed import FrameFeed
from server.replication.freshness import Freshness
from server.webhooks.webhooks import Webhooks


def on_applied(
    world: Surroundings, scoreboard: Scoreboard, freshness: Freshness, show: Callable[[Applied], set[str]],
    feed: FrameFeed | None = None, erasures: ErasureKeeper | None = None, hooks: Webhooks | None = None,
) -> Callable[[Applied], None]:  # fmt: skip
    """Make the function that is called after each frame. `show` shows it, and gives the boards that it touched."""

    def took(applied: Applied) -> None:
        if feed is not None:
            feed.append(applied.synced.frame)
        # What is rare has frames of its own: a frame that begins with an increment has nothing else to tell.
        is_plain = bool(applied.events) and type(applied.events[0]) is Incremented
        if erasures is not None and not is_plain:
            erasures.took(applied.events)
        world.applied(applied)
        boards = show(applied)
        if hooks is not None:
            hooks.applied(applied.events, boards)
        if not is_plain:
            tell_board_events(applied.events, scoreboard)
        if scoreboard.reviews.news:
            tell_flags(scoreboard.reviews, are_old=freshness.is_behind)

    return took
