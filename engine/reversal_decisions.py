"""Deciding a reversal: from the actions that shall count no more, or again, to the event that must be logged. Pure.

    reversal = decide_reversal(scoreboard, command, seq, now_ms)          a `Reversal`, or a `Rejection`

The recount of the command has seen every event up to the state (`engine.recount`). All that changes is said by one
event, so a reader sees all of it or nothing.

Rules:
- Actions that are taken back already are left out, and so are those that count, where they shall count again. If none
  is left, the reversal is refused.
- A reversalId is used once, as an actionId is, and is none of them. The same one again is answered as before, if it
  asks for the same.
- A past period is changed where it is kept. What counted in older ones changes nothing any more.
- If the log does not explain a score that is shown, nothing is changed: what the right one is, is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import get_args

import msgspec
from msgspec.structs import replace

from engine.actions import key_of
from engine.board import Board
from engine.board_rules import BoardRules, OrderMode, PastPeriod, ScoreMode
from engine.commands import BoardChange, Rejection, ReversalReceipt, Reverse, UserChange
from engine.events import BoardScores, PeriodScores, Rescored, Reversed
from engine.limits import SEQ_MAX
from engine.ranking import TOP_WATCHED
from engine.recount import Span, Unknown
from engine.scoreboard import Scoreboard


class Reversal(msgspec.Struct, frozen=True, gc=False):
    """A decided reversal, and its answer. Without an event nothing has to be logged."""

    event: Reversed | None
    receipt: ReversalReceipt


def spans_of(board: Board) -> Iterator[tuple[PastPeriod | None, Span]]:
    """Yield the kept periods of a board, the oldest first, and the running one, None, each with its events."""
    past = () if board.definition is None else board.definition.past
    after, since_ms = 0, 0
    if board.definition is not None:
        after = board.definition.forgotten_seq
        if not after and len(past) >= board.definition.rules.keep_periods:
            since_ms = past[0].period.begins_ms  # an older version forgot which event ended the one before
    for each in past:
        if each.seq > after:
            if each.count:  # else nobody played, or it only passed, and the one that ended with it is forgotten
                yield each, Span(after, each.seq, since_ms)
            after, since_ms = each.seq, 0
    yield None, Span(after, SEQ_MAX, since_ms)


def decide_reversal(scoreboard: Scoreboard, command: Reverse, seq: int, now_ms: int) -> Reversal | Rejection:
    """Decide a command whose event would have this seq and time."""
    assert command.recount.seq == scoreboard.seq == seq - 1
    position = scoreboard.actions.find(key_of(command.reversal_id))
    if position >= 0:
        return _known(scoreboard, command, position)
    again, held = command.recount.again, scoreboard.reversals.of_action
    chosen = {each for each in command.recount.actions if held(each) == command.of}
    if not chosen:
        what = "no action of it is still held back" if again else "no action that counts matches"
        return Rejection("CONFLICT", f"there is nothing to reverse: {what}", {"field": _field(command)})
    try:
        work = _Work(scoreboard, command, chosen)
    except _NotExplained as fault:
        return fault.rejection
    receipt = ReversalReceipt(
        command.reversal_id, not command.preview, again, scoreboard.epoch, scoreboard.seq if command.preview else seq,
        tuple(sorted(chosen)), tuple(work.changes), len(chosen) - len(work.kept),
    )  # fmt: skip
    if command.preview:
        return Reversal(None, receipt)
    event = Reversed(
        seq, now_ms, command.reversal_id, command.reason, command.caller, command.asked, again, tuple(sorted(chosen)),
        tuple(work.scores), tuple(work.periods),
    )  # fmt: skip
    return Reversal(event, receipt)


def _known(scoreboard: Scoreboard, command: Reverse, position: int) -> Reversal | Rejection:
    seq = scoreboard.actions.seq_at(position)
    if scoreboard.actions.mark_at(position) != command.asked:
        message = f"{command.reversal_id!r} was used before, for something else; nothing was changed"
        details: dict[str, str | int | list[str]] = {
            "field": "reversalId",
            "reversalId": command.reversal_id,
            "seq": seq,
        }
        return Rejection("CONFLICT", message, details)
    epoch = scoreboard.epoch_of(seq)
    return Reversal(None, ReversalReceipt(command.reversal_id, False, command.recount.again, epoch, seq))


def _field(command: Reverse) -> str:
    return "reversalId" if command.preview else "actionIds"


class _NotExplained(Exception):
    def __init__(self, user_id: str, board_id: str, why: str, period: str = "") -> None:
        super().__init__(why)
        message = f"the score of {user_id!r} on board {board_id!r} can't be counted again: {why}; nothing was changed"
        details: dict[str, str | int | list[str]] = {"field": "boardId", "boardId": board_id, "userId": user_id}
        self.rejection = Rejection("CONFLICT", message, details | ({"period": period} if period else {}))


class _Work:
    """Finds what a reversal changes. `kept` are the actions that counted in a period that is kept."""

    def __init__(self, scoreboard: Scoreboard, command: Reverse, chosen: set[int]) -> None:
        self._scoreboard = scoreboard
        self._command = command
        self._chosen = chosen
        self.kept: set[int] = set()
        self.scores: list[BoardScores] = []
        self.periods: list[PeriodScores] = []
        self.changes: list[BoardChange] = []
        users: dict[str, list[str]] = {}
        for board_id, user_id in sorted(command.recount.places):
            users.setdefault(board_id, []).append(user_id)
        for board_id, user_ids in users.items():
            board = scoreboard.boards.get(board_id)
            if board is not None:
                for past, span in spans_of(board):
                    touched = [user_id for user_id in user_ids if self._touches(board_id, user_id, span)]
                    if touched and past is None:
                        self._running(board, touched, span)
                    elif touched and past is not None:
                        self._past(board, touched, past, span)

    def _touches(self, board_id: str, user_id: str, span: Span) -> bool:
        seqs = self._chosen.intersection(self._command.recount.chosen(board_id, user_id, span))
        self.kept |= seqs
        return bool(seqs)

    def _counts_now(self, seq: int) -> bool:
        return self._scoreboard.reversals.of_action(seq) is None

    def _counts_then(self, seq: int) -> bool:
        return self._counts_now(seq) != (seq in self._chosen)

    def _of(self, board: Board, rules: BoardRules, user_id: str, span: Span, counts: Callable[[int], bool]) -> Rescored:
        try:
            return self._command.recount.of(rules, board.board_id, user_id, span, counts)
        except Unknown as fault:
            raise _NotExplained(user_id, board.board_id, str(fault)) from fault

    def _recounted(
        self, board: Board, user_id: str, span: Span, shown: Rescored | None
    ) -> tuple[Rescored, UserChange] | None:
        """Count a user's score again; None if it stays. `shown` is what the board or the past period has."""
        found: tuple[Rescored, Rescored] | None = None
        if self._command.recount.is_split(board.board_id, user_id, span):
            why = "an action came in the millisecond in which its oldest kept period began; it may be of the one before"
            raise _NotExplained(user_id, board.board_id, why)
        for rules in _possible_rules(board, span):
            now = self._of(board, rules, user_id, span, self._counts_now)
            expected = (None, 0) if shown is None else (shown.new_score, shown.reached_seq)
            fits = self._command.recount.fits(rules, board.board_id, user_id, span)
            if not fits or (now.new_score, now.reached_seq) != expected:
                continue
            then = self._of(board, rules, user_id, span, self._counts_then)
            if found is not None and found != (now, then):
                raise _NotExplained(user_id, board.board_id, "its rules have changed since, the log does not say how")
            found = now, then
        if found is None:
            raise _NotExplained(user_id, board.board_id, "the log has other actions than those that made it")
        now, then = found
        return None if then == now else (then, UserChange(user_id, now.new_score, then.new_score))

    def _running(self, board: Board, user_ids: list[str], span: Span) -> None:
        found = [self._recounted(board, user_id, span, board.place_of(user_id)) for user_id in user_ids]
        changed = [each for each in found if each is not None]
        if not changed:
            return
        rows = tuple(row for row, _ in changed)
        hidden = {row.user_id for row in rows if not self._scoreboard.is_active(row.user_id)}
        top = tuple(board.top_after(rows, TOP_WATCHED, hidden))
        self.scores.append(BoardScores(board.board_id, rows))
        self.changes.append(BoardChange(board.board_id, None, tuple(change for _, change in changed), top))

    def _past(self, board: Board, user_ids: list[str], past: PastPeriod, span: Span) -> None:
        board_id = board.board_id
        known = self._command.rows.get((board_id, past.seq))
        if known is None:
            why = f"its period {past.period.id!r} ended just now; send it again"
            raise _NotExplained(user_ids[0], board_id, why, past.period.id)
        corrected = self._scoreboard.reversals.of_period(board_id, past.seq)
        gone = set() if corrected is None else {row.user_id for row in corrected.rows if row.new_score is None}
        changed = []
        for user_id in user_ids:
            shown = known[user_id]
            if shown is None and user_id not in gone:
                continue  # inactive when the period ended, so not in its ranking
            if (found := self._recounted(board, user_id, span, shown)) is not None:
                changed.append(found)
        if changed:
            count = past.count if corrected is None else corrected.count
            count += sum((then.new_score is not None) - (change.old_score is not None) for then, change in changed)
            self.periods.append(PeriodScores(board_id, past.seq, count, tuple(row for row, _ in changed)))
            self.changes.append(BoardChange(board_id, past.period.id, tuple(change for _, change in changed)))


def _possible_rules(board: Board, span: Span) -> list[BoardRules]:
    """List the rules by which a period may have been counted.

    While a board has scores, the way they grow stays. For a past period it may have been another one.
    """
    rules = BoardRules({}) if board.definition is None else board.definition.rules
    if span.until == SEQ_MAX:
        return [rules]
    return [replace(rules, score=score, order=order) for score in get_args(ScoreMode) for order in get_args(OrderMode)]
