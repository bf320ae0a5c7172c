"""What changes on all boards when some actions count no more, again, or are held no more. Pure.

    work = Work(scoreboard, recount, rows, chosen, flipped=chosen)         may raise `NotExplained`
    work.scores, work.periods                          for the event that is logged
    work.changes                                       for the answer

The recount has seen every event up to the state (`engine.recount`).

Rules:
- An action counts on a board exactly if no reversal holds it back and the board does not hold it.
- A past period is changed where it is kept. What counted in older ones changes nothing any more.
- If the log does not explain a score that is shown, nothing is changed: what the right one is, is not known.
- So it is if a user falls back to what was where the log begins, and that may have been a score of 0 as well as none.
- A past period of which the board holds something is counted by the rules of now, which can't have changed since.
  Others are counted by each rules that explain the score, and these must agree.
- Whoever has no row in a past period was inactive when it ended, or all that the user did there was held.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterator, Mapping
from typing import get_args

from msgspec.structs import replace

from engine.board import Board
from engine.board_rules import BoardRules, OrderMode, PastPeriod, Range, ScoreMode
from engine.commands import BoardChange, Rejection, UserChange
from engine.events import BoardScores, PeriodScores, Rescored
from engine.holds import Place
from engine.limits import SCORE_MAX, SEQ_MAX
from engine.ranking import TOP_WATCHED
from engine.recount import Recount, Span, Unknown
from engine.scoreboard import Scoreboard

PastRows = Mapping[tuple[str, int], Mapping[str, Rescored | None]]
"""Rows of users in past periods, None for those without one, by board and the seq that ended the period."""


def spans_of(board: Board) -> Iterator[tuple[PastPeriod | None, Span]]:
    """Yield the kept periods of a board, the oldest first, and the running one, None, each with its events."""
    past = () if board.definition is None else board.definition.past
    after = 0 if board.definition is None else board.definition.forgotten_seq
    for each in past:
        if each.seq > after:
            if each.count:  # else nobody played, or it only passed, and the one that ended with it is forgotten
                yield each, Span(after, each.seq)
            after = each.seq
    yield None, Span(after, SEQ_MAX)


class NotExplained(Exception):
    def __init__(self, user_id: str, board_id: str, why: str, period: str = "") -> None:
        super().__init__(why)
        message = f"the score of {user_id!r} on board {board_id!r} can't be counted again: {why}; nothing was changed"
        details: dict[str, str | int | list[str]] = {"field": "boardId", "boardId": board_id, "userId": user_id}
        self.rejection = Rejection("CONFLICT", message, details | ({"period": period} if period else {}))


class Work:
    """Finds what changes. `kept` are the actions that counted in a period that is kept."""

    def __init__(
        self, scoreboard: Scoreboard, recount: Recount, rows: PastRows, chosen: set[int], *,
        flipped: Container[int] = (), released: Place | None = None,
    ) -> None:  # fmt: skip
        """`chosen` are the actions in question. Those `flipped` count no more, or again, as far as reversals say.

        The board and user `released` hold nothing any more.
        """
        self._scoreboard = scoreboard
        self._recount = recount
        self._rows = rows
        self._chosen = chosen
        self._flipped = flipped
        self._released = released
        self.kept: set[int] = set()
        self.scores: list[BoardScores] = []
        self.periods: list[PeriodScores] = []
        self.changes: list[BoardChange] = []
        users: dict[str, list[str]] = {}
        for board_id, user_id in sorted(recount.places):
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
        seqs = self._chosen.intersection(self._recount.chosen(board_id, user_id, span))
        self.kept |= seqs
        return bool(seqs)

    def _held(self, place: Place) -> Collection[int]:
        return frozenset(self._scoreboard.reviews.holds.of(place))

    def _counts_now(self, place: Place) -> Callable[[int], bool]:
        reversal_of, held = self._scoreboard.reversals.of_action, self._held(place)
        return lambda seq: reversal_of(seq) is None and seq not in held

    def _counts_then(self, place: Place) -> Callable[[int], bool]:
        reversal_of, flipped = self._scoreboard.reversals.of_action, self._flipped
        held = () if place == self._released else self._held(place)
        return lambda seq: (reversal_of(seq) is None) != (seq in flipped) and seq not in held

    def _of(self, board: Board, rules: BoardRules, user_id: str, span: Span, counts: Callable[[int], bool]) -> Rescored:
        try:
            return self._recount.of(rules, board.board_id, user_id, span, counts)
        except Unknown as fault:
            raise NotExplained(user_id, board.board_id, str(fault)) from fault

    def _recounted(
        self, board: Board, user_id: str, span: Span, shown: Rescored | None
    ) -> tuple[Rescored, UserChange] | None:
        """Count a user's score again; None if it stays. `shown` is what the board or the past period has."""
        found: tuple[Rescored, Rescored] | None = None
        place = (board.board_id, user_id)
        counts_now, counts_then = self._counts_now(place), self._counts_then(place)
        for rules in self._possible_rules(board, user_id, span):
            now = self._of(board, rules, user_id, span, counts_now)
            expected = (None, 0) if shown is None else (shown.new_score, shown.reached_seq)
            fits = self._recount.fits(rules, board.board_id, user_id, span)
            if not fits or (now.new_score, now.reached_seq) != expected:
                continue
            then = self._of(board, rules, user_id, span, counts_then)
            if self._may_begin_at_0(board, rules, span) and self._recount.needs_beginning(
                rules, board.board_id, user_id, span, counts_now, counts_then
            ):
                why = "the log no longer says whether the user had a score of 0 where it begins, or none"
                raise NotExplained(user_id, board.board_id, why)
            if found is not None and found != (now, then):
                raise NotExplained(user_id, board.board_id, "its rules have changed since, the log does not say how")
            found = now, then
        if found is None:
            raise NotExplained(user_id, board.board_id, "the log has other actions than those that made it")
        now, then = found
        if (then.new_score or 0) > SCORE_MAX:
            raise NotExplained(user_id, board.board_id, f"it would pass the largest score, {SCORE_MAX}")
        return None if then == now else (then, UserChange(user_id, now.new_score, then.new_score))

    def _may_begin_at_0(self, board: Board, rules: BoardRules, span: Span) -> bool:
        """Whether a user may have had a score of 0 where the log begins: by an action, or by a row of an import.

        Points that the board gave earlier are not known. To refuse because of them would be to refuse each reversal of
        all that a newcomer did, once the log no longer goes back to the beginning.
        """
        log_begins = self._recount.log_begins
        if log_begins <= span.after + 1:
            return False
        worths = () if rules.score == "count" else rules.points.values()
        if any((worth.min if isinstance(worth, Range) else worth) <= 0 for worth in worths):
            return True
        imports = self._scoreboard.imports.of_board(board.board_id)
        return any(span.after < each.begun_seq < log_begins for each in imports)

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
        known = self._rows.get((board_id, past.seq))
        if known is None:
            why = f"its period {past.period.id!r} ended just now; send it again"
            raise NotExplained(user_ids[0], board_id, why, past.period.id)
        corrected = self._scoreboard.reversals.of_past(board_id, past)
        gone = set() if corrected is None else {row.user_id for row in corrected.rows if row.new_score is None}
        changed = []
        for user_id in user_ids:
            shown = known[user_id]
            if shown is None and user_id not in gone and not self._was_only_held(board, user_id, span):
                continue  # inactive when the period ended, so not in its ranking
            if (found := self._recounted(board, user_id, span, shown)) is not None:
                changed.append(found)
        if changed:
            count = past.count if corrected is None else corrected.count
            count += sum((then.new_score is not None) - (change.old_score is not None) for then, change in changed)
            self.periods.append(PeriodScores(board_id, past.seq, count, tuple(row for row, _ in changed)))
            self.changes.append(BoardChange(board_id, past.period.id, tuple(change for _, change in changed)))

    def _was_only_held(self, board: Board, user_id: str, span: Span) -> bool:
        """Whether a user who is active has no score in a span because the board held what would have made one."""
        if not self._scoreboard.is_active(user_id) or not self._recount.was_held(board.board_id, user_id, span):
            return False
        counts = self._counts_now((board.board_id, user_id))
        return self._of(board, BoardRules({}), user_id, span, counts).new_score is None

    def _possible_rules(self, board: Board, user_id: str, span: Span) -> list[BoardRules]:
        """List the rules by which a period may have been counted.

        While a board has scores, or holds actions, the way they grow stays. For other periods it may have been another.
        """
        rules = BoardRules({}) if board.definition is None else board.definition.rules
        held = self._scoreboard.reviews.holds.of((board.board_id, user_id))
        if span.until == SEQ_MAX or any(span.after < seq <= span.until for seq in held):
            return [rules]
        return [
            replace(rules, score=score, order=order) for score in get_args(ScoreMode) for order in get_args(OrderMode)
        ]
