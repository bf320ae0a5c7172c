"""The log lines about users whom the watch of a board flagged.

    tell_flags(scoreboard.reviews)                     right after a frame was applied

Each node that holds the board tells them. A restart tells nothing again. Who decided a review is told where the request
was answered (`server.api.audit`).
"""

from __future__ import annotations

import structlog

from engine.reviews import Reviews
from server import bounds

log = structlog.get_logger()


def tell_flags(reviews: Reviews) -> None:
    """Tell the reviews that were made since the last call: one by one, or how many if there are too many for lines."""
    news = reviews.take_news()
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
