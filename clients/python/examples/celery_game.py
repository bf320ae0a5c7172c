"""A game on Celery: a worker counts a won match, and Celery tries again for as long as the board is away.

    export SCOREBOARD_URL=http://127.0.0.1:8080 SCOREBOARD_TOKEN=… CELERY_BROKER_URL=redis://127.0.0.1
    celery -A celery_game worker
    python -c "import celery_game; celery_game.match_won.delay('bob', 4711)"

A broker may deliver a task twice, and a worker may die after the point was counted. The match's own number is the
action, so it counts once all the same.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from celery import Celery

from scoreboard_client import DeadlineExceeded, Scoreboard

app = Celery("celery_game", broker=os.environ.get("CELERY_BROKER_URL", "memory://"))
app.conf.task_acks_late = True


@cache
def scoreboard() -> Scoreboard:
    """Make the client of this worker process, after the fork."""
    return Scoreboard(os.environ["SCOREBOARD_URL"].split(","), token=os.environ["SCOREBOARD_TOKEN"], deadline_s=20.0)


@app.task(autoretry_for=(DeadlineExceeded,), retry_backoff=True, retry_backoff_max=600, max_retries=None)
def match_won(user_id: str, match: int) -> dict[str, Any]:
    """Count a won match. A refusal for good, such as a conflict, fails the task and is seen as every failed task is."""
    receipt = scoreboard().board("main").increment(user_id, action_id=f"match-{match}")
    return {"score": receipt.new_score, "rank": receipt.rank, "isNew": receipt.applied}
