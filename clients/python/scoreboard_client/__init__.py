"""The Python client of a scoreboard: actions counted once, whatever happens on the way.

    from scoreboard_client import Scoreboard

    with Scoreboard("http://127.0.0.1:8080", token=token) as scoreboard:
        receipt = scoreboard.board("main").increment("bob", action_id="order-4711")

README.md has the whole of it.
"""

from scoreboard_client.answers import Around, Entry, LiveState, Position, RankedEntry, Ranks, Receipt, Score, Top
from scoreboard_client.async_batcher import AsyncBatcher
from scoreboard_client.async_client import AsyncBoard, AsyncScoreboard
from scoreboard_client.async_sender import AsyncSender
from scoreboard_client.async_watch import AsyncWatch
from scoreboard_client.batcher import Batcher
from scoreboard_client.client import Board, Scoreboard
from scoreboard_client.delivery import Held
from scoreboard_client.errors import (
    ApiError,
    BatcherClosed,
    BoardClosed,
    BoardNotOpen,
    ClientClosed,
    Conflict,
    DeadlineExceeded,
    Erased,
    InvalidRequest,
    NotAnswered,
    NotFound,
    NotLeader,
    OutboxFault,
    OutboxFull,
    OutcomeUnknown,
    RateLimited,
    ScoreboardError,
    Unauthenticated,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from scoreboard_client.outbox import Outbox, SetAside
from scoreboard_client.sender import Sender
from scoreboard_client.watch import Watch

__all__ = [
    "ApiError",
    "Around",
    "AsyncBatcher",
    "AsyncBoard",
    "AsyncScoreboard",
    "AsyncSender",
    "AsyncWatch",
    "Batcher",
    "BatcherClosed",
    "Board",
    "BoardClosed",
    "BoardNotOpen",
    "ClientClosed",
    "Conflict",
    "DeadlineExceeded",
    "Entry",
    "Erased",
    "Held",
    "InvalidRequest",
    "LiveState",
    "NotAnswered",
    "NotFound",
    "NotLeader",
    "Outbox",
    "OutboxFault",
    "OutboxFull",
    "OutcomeUnknown",
    "Position",
    "RankedEntry",
    "Ranks",
    "RateLimited",
    "Receipt",
    "Score",
    "Scoreboard",
    "ScoreboardError",
    "Sender",
    "SetAside",
    "Top",
    "Unauthenticated",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "Watch",
]
