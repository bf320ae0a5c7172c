"""The first rows of a board as it was, from the nearest snapshot and the log after it.

    reply = read_top(disk, start, question)

Nothing is locked or written, and a server may be writing to the directory. Times go by the corrected clock
(`snapshots.state`). The rows have names, and who was shown, as they were then.
"""

from __future__ import annotations

import msgspec

from engine.disk import Disk
from engine.errors import ScoreboardError
from server.live.encoding import Moment, about, entries_of, top_body
from server.past.questions import Failed, NoBoard, NotKept, Question, Reply, Start, Top
from snapshots.opening import Tell
from snapshots.state import BeginsLate, read_state


def read_top(disk: Disk, start: Start, question: Question, *, tell: Tell = lambda _: None) -> Reply:
    """Answer a question. O(users + events after the snapshot); what the disk does wrong becomes an answer."""
    try:
        scoreboard, tail = read_state(
            disk, start.data_directory, start.rules, until_seq=question.seq, until_ms=question.time_ms, tell=tell
        )
    except BeginsLate:
        return NotKept()
    except (ScoreboardError, OSError) as fault:
        return Failed(str(fault))
    except AssertionError:
        return Failed("the log does not give this state: users are being erased from its files, or there is a bug")
    if question.seq is not None and tail.seq != question.seq:
        return Failed(f"the log ends at seq {tail.seq}, before seq {question.seq}")
    board = scoreboard.board(question.board_id)
    if board is None or not tail.seq:
        return NoBoard(tail.seq)
    # The order is not built: the first rows are found without it.
    gone = {user_id for user_id, seq in question.erased if tail.seq < seq}
    rows = [row for row in board.rows_of(board.first_keys(question.limit)) if row.user_id not in gone]
    history = scoreboard.mark.history
    moment = Moment(board.board_id, scoreboard.epoch, tail.seq, scoreboard.time_ms, about(board.definition), history)
    return Top(tail.seq, msgspec.Raw(top_body(entries_of(rows, scoreboard.users), moment)))
