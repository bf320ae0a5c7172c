"""The answer to an action that was applied before. Pure.

receipt = receipt_again(scoreboard, command, seq)        the position of its event, and the score of now
"""

from __future__ import annotations

from msgspec import UNSET

from engine.commands import Increment, Receipt
from engine.scoreboard import Scoreboard


def receipt_again(scoreboard: Scoreboard, command: Increment, seq: int) -> Receipt:
    """Answer a repeated action: the position of its event, and the user's score and rank now.

    The score is 0 if the period in which the action counted has ended. `held`: the board holds the action still.
    """
    board = scoreboard.boards[command.board_id]
    # A user without points in the running period has a score of 0 here: the action counted in an earlier one.
    rank, score = board.rank(command.user_id), board.score(command.user_id) or 0
    epoch = scoreboard.epoch_of(seq)
    held = scoreboard.reviews.holds.has((command.board_id, command.user_id), seq)
    return Receipt(
        command.user_id, score, 0, False, command.action_id, command.board_id, epoch, seq, rank, rank,
        True if held else UNSET,
    )  # fmt: skip
