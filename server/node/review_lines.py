"""The log lines about users whom the watch of a board flagged.

    tell_flags(scoreboard.reviews)                     right after a frame was applied
    tell_flags(scoreboard.reviews, are_old=True)       nothing is told

Each node that holds the board tells them as they are made. A restart tells nothing again, nor does a replica while it
catches up: these flags are old, and were told when they were made. Who decided a review is told where the request was
answered (`server.api.audit`).
"""

from __future__ import annotations

import structlog

from engine.reviews import Reviews
from server import bounds

log = structlog.get_logger()


def tell_flags(reviews: Reviews, *, are_old: bool = False) -> None:
    """Tell the reviews that were made since the last call: one by one, or how many if there are too many for lines.

    `are_old`: they are taken, and not told.
    """
    news = reviews.take_news()
    if are_old:
        return
    for review in news[: bounds.LOG_LINES_PER_SECOND]:
        log.warning(
            "user_flagged",
            review_id=review.review_id,
            board_id=review.board_id,
            user_id=review.user_id,
            rule=review.rule,
            value=review.value,
            limit=review.limit,
            holds=review.board_id in reviews.holding,
        )
    if len(news) > bounds.LOG_LINES_PER_SECOND:
        log.warning("users_flagged", more=len(news) - bounds.LOG_LINES_PER_SECOND, open=reviews.open_count)
