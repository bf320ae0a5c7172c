"""What one board must show, from its events alone. It refuses an event that the rules of boards don't allow.

    board.count(event, worth)            an action; gives the score that it must have led to
    board.take(event, hidden)            an event about the board itself
    board.shown(hidden)                  the rows as they count now; `board.public(hidden)` those that the public sees

`hidden` tells of a user whether the operator took the user off all boards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from engine import past_ranks
from engine.board_rules import BoardDefinition, BoardRules, Frozen, PastPeriod
from engine.events import (
    BoardClosed,
    BoardEvent,
    BoardFrozen,
    BoardPut,
    BoardUnfrozen,
    PeriodChanged,
    PeriodScores,
    RanksNoted,
    Reversed,
    ReviewDecided,
    RowsRevealed,
)
from engine.ranking import FinalRow
from engine.schedule import Period
from tests.engine.plain_notes import PlainPast

Hidden = Callable[[str], bool]

Score = tuple[int, int, int]
"""A score, the seq of the event that reached it, and its time."""


class Done(NamedTuple):
    """What an action was worth, or what a row of an import says; the event, and when it counts as reached.

    `was_held`: the board held it when it came.
    """

    worth: int
    seq: int
    time_ms: int
    is_row: bool = False
    was_held: bool = False


@dataclass
class Face:
    """What a board shows: its scores, and what is known of it beside them."""

    definition: BoardDefinition | None = None
    scores: dict[str, Score] = field(default_factory=dict)
    ended_seq: int = 0
    """The last event at which a period ended for those who watch."""
    revealed: set[str] = field(default_factory=set)
    past_ranks: PlainPast = field(default_factory=PlainPast)

    def rows(self, hidden: Hidden) -> list[FinalRow]:
        """Sort the users who are shown, and rank them."""
        assert self.definition is not None
        rules, scores = self.definition.rules, self.scores
        sign = 1 if rules.order == "ascending" else -1
        order = sorted((sign * score, reached, user) for user, (score, reached, _) in scores.items())
        rows: list[FinalRow] = []
        for user in (user for _, _, user in order if not hidden(user)):
            score, reached, time_ms = scores[user]
            rank = len(rows) + 1
            if rows and rules.ranks != "unique":
                same = rows[-1].score == score
                rank = rows[-1].rank if same else rows[-1].rank + 1 if rules.ranks == "dense" else rank
            rows.append(FinalRow(rank, user, score, time_ms, reached))
        return rows

    def ranks(self, hidden: Hidden) -> list[tuple[int, str, int]]:
        """List rank, user and score of the rows."""
        return [(row.rank, row.user_id, row.score) for row in self.rows(hidden)]

    def forget(self, user: str) -> None:
        """Forget a user who was erased, in the ranks of the period before too."""
        self.scores.pop(user, None)
        self.revealed.discard(user)
        self.past_ranks.forget(user)
        if self.past_ranks.start is not None:
            self.past_ranks.start = {other: rank for other, rank in self.past_ranks.start.items() if other != user}


class PlainBoard(Face):
    """One board. `frozen_face` is what the public sees while it is frozen. `finals` has each period that ended.

    `corrected` has users and scores of a past period after each reversal that changed it, by the seq that ended it.
    """

    def __init__(self, board_id: str, rules: BoardRules | None = None) -> None:
        """Rules are those of the operator's file."""
        super().__init__(None if rules is None else BoardDefinition(rules))
        self.board_id = board_id
        self.is_logged = False
        self.frozen_face: Face | None = None
        self.finals: dict[int, list[FinalRow]] = {}
        self.corrected: dict[int, list[list[tuple[str, int]]]] = {}
        self._done: dict[str, list[Done]] = {}
        self._past_done: dict[int, tuple[BoardRules, dict[str, list[Done]]]] = {}
        self._past_scores: dict[int, dict[str, Score]] = {}
        self._added: dict[int, set[str]] = {}
        self.freezes = 0

    @property
    def face(self) -> Face:
        """What the public sees."""
        return self if self.frozen_face is None else self.frozen_face

    def is_open(self, time_ms: int) -> bool:
        """Whether actions count. The periods and freezes that were due before must be in the log."""
        definition = self.definition
        if definition is None or definition.closed or definition.over:
            return False
        season = definition.rules.season
        return season is None or season.begins_ms is None or time_ms >= season.begins_ms

    def count(self, user: str, worth: int, seq: int, time_ms: int) -> tuple[int, int]:
        """Count an action of this worth; give how the score changed, and the score."""
        definition = self.definition
        assert definition is not None
        assert definition.due_ms is None or time_ms < definition.due_ms, f"seq {seq} came before what was due"
        old = self.scores[user][0] if user in self.scores else None
        score = counted(definition.rules, old, worth)
        self._done.setdefault(user, []).append(Done(worth, seq, time_ms))
        if old != score:
            self.scores[user] = (score, seq, time_ms)
        return score - (old or 0), score

    def hold(self, user: str, worth: int, seq: int, time_ms: int) -> tuple[int, int]:
        """Hold an action: it changes nothing. Give that, and the score that is shown."""
        definition = self.definition
        assert definition is not None
        assert definition.due_ms is None or time_ms < definition.due_ms, f"seq {seq} came before what was due"
        self._done.setdefault(user, []).append(Done(worth, seq, time_ms, was_held=True))
        return 0, self.scores[user][0] if user in self.scores else 0

    def take_row(self, user: str, value: int, seq: int, time_ms: int, reached_ms: int) -> int:
        """Take a row of an import; give the score after it."""
        definition = self.definition
        assert definition is not None
        assert definition.due_ms is None or time_ms < definition.due_ms, f"seq {seq} came before what was due"
        done = Done(value, seq, reached_ms, is_row=True)
        self._done.setdefault(user, []).append(done)
        old = self.scores[user][0] if user in self.scores else None
        score = _after(definition.rules, old, done)
        if old != score:
            self.scores[user] = (score, seq, reached_ms)
        return score

    def reverse(self, event: Reversed | ReviewDecided, holds: Callable[[int], bool], hidden: Hidden) -> None:
        """Count again without the actions that are held back; the event must say the same."""
        assert self.definition is not None
        before, rules = self.scores, self.definition.rules
        self.scores = counted_again(rules, self._done, holds)
        changed = {user for user in before.keys() | self.scores.keys() if before.get(user) != self.scores.get(user)}
        told = [row for part in event.scores if part.board_id == self.board_id for row in part.rows]
        assert {row.user_id for row in told} == changed, f"seq {event.seq} changes {told}, a plain sum {changed}"
        for row in told:
            expected = self.scores.get(row.user_id, (None, 0, 0))
            assert (row.new_score, row.reached_seq, row.updated_ms) == expected, f"seq {event.seq} says {row}"
            if row.new_score is None:
                self.past_ranks.forget(row.user_id)
        parts = {part.ended_seq: part for part in event.periods if part.board_id == self.board_id}
        for ended_seq in [past.seq for past in self.definition.past if past.count]:
            self._correct(event.seq, ended_seq, parts.pop(ended_seq, None), holds, hidden)
        assert not parts, f"seq {event.seq} corrects periods of {self.board_id} that are not kept: {parts}"

    def _correct(
        self, seq: int, ended_seq: int, part: PeriodScores | None, holds: Callable[[int], bool], hidden: Hidden
    ) -> None:
        """Count a past period again. Who was not shown when it ended is not in it, and stays so.

        But who had no score in it because the board held the actions may come into it.
        """
        rules, done = self._past_done[ended_seq]
        before = self._past_scores[ended_seq]
        scores = {user: score for user, score in before.items() if user not in done}  # they were erased since
        scores |= counted_again(rules, done, holds)
        self._past_scores[ended_seq] = scores
        ranked = {row.user_id for row in self.finals[ended_seq]} | self._added.get(ended_seq, set())
        held = {user for user, all_done in done.items() if any(each.was_held for each in all_done)}
        ranked |= {user for user in held - before.keys() if not hidden(user)}
        changed = {user for user in ranked if before.get(user) != scores.get(user)}
        self._added.setdefault(ended_seq, set()).update(changed)
        ranked = {row.user_id for row in self.finals[ended_seq]} | self._added[ended_seq]
        rows = () if part is None else part.rows
        told = {row.user_id for row in rows}
        assert told == changed, f"seq {seq} changes {told} in the period until {ended_seq}, a plain sum {changed}"
        if part is None:
            return
        for row in rows:
            expected = scores.get(row.user_id, (None, 0, 0))
            assert (row.new_score, row.reached_seq, row.updated_ms) == expected, f"{part} says {row}, not {expected}"
        shown = ranked & scores.keys()
        assert part.count == len(shown), f"{part} counts other users than {shown}"
        sign = 1 if rules.order == "ascending" else -1
        order = sorted((sign * scores[user][0], scores[user][1], user) for user in shown)
        self.corrected.setdefault(part.ended_seq, []).append([(user, sign * score) for score, _, user in order])

    def note(self, event: RanksNoted, hidden: Hidden) -> None:
        """Note the ranks, unless the period is over within a day."""
        definition = self.definition
        if definition is None or not self.is_logged:
            return
        period = definition.period
        ends_ms = None if period is None else period.ends_ms
        is_short = period is not None and ends_ms is not None and ends_ms - period.begins_ms < past_ranks.LONG_MS
        if self.scores and (not is_short or self.past_ranks.notes):
            self.past_ranks.note(event.as_of_ms, event.time_ms, self.ranks(hidden), past_ranks.DAY_MS)

    def erase(self, user: str) -> None:
        """Forget a user who was erased. Past periods stay as they are: nothing of the user in them changes any more."""
        self._done.pop(user, None)
        for _, done in self._past_done.values():
            done.pop(user, None)
        self.forget(user)
        face = self.frozen_face
        if face is not None:
            was_revealed = user in face.revealed
            face.forget(user)
            if was_revealed:
                self._count_revealed(face)

    def take(self, event: BoardEvent, hidden: Hidden) -> None:
        """Take in an event about the board itself."""
        old = self.definition
        if isinstance(event, BoardPut):
            self._put(event)
            return
        assert old is not None, f"seq {event.seq} is about a board that was never put"
        assert self.is_logged
        if isinstance(event, PeriodChanged):
            self._change(old, event, hidden)
        elif isinstance(event, BoardClosed):
            assert not old.closed, f"seq {event.seq} closes a board that is closed"
            self._redefine(closed=True)
        elif isinstance(event, BoardUnfrozen):
            assert old.frozen is not None or old.freeze_at_ms is not None
            self._redefine(frozen=None, freeze_at_ms=None)
            self.frozen_face = None
        elif isinstance(event, BoardFrozen):
            self._freeze(old, event)
        else:
            self._reveal(old, event, hidden)

    def _redefine(self, **fields: object) -> None:
        old = self.definition
        assert old is not None
        known = {name: getattr(old, name) for name in BoardDefinition.__struct_fields__}
        self.definition = BoardDefinition(**(known | fields))

    def _put(self, event: BoardPut) -> None:
        old, rules = self.definition, event.rules
        known = BoardRules({}) if old is None else old.rules
        if (known.order, known.ranks) != (rules.order, rules.ranks):
            self.past_ranks = PlainPast()
        if not self.is_logged:
            then = BoardRules({}) if old is None else old.rules
            self.definition = BoardDefinition(rules, event.time_ms, event.period)
            self.is_logged = True
        else:
            assert old is not None
            assert not old.closed, f"seq {event.seq} puts a board that is closed"
            then = rules if old.over else old.rules
            self._redefine(rules=rules, period=event.period, over=old.over and event.period == old.period)
        if self.scores:
            assert (rules.score, rules.order) == (then.score, then.order), f"seq {event.seq} makes scores meaningless"

    def _change(self, old: BoardDefinition, event: PeriodChanged, hidden: Hidden) -> None:
        what = f"seq {event.seq} ends the period {event.ended}, and {event.following} follows"
        running, ended, following = old.period, event.ended, event.following
        assert not old.closed, what
        if not event.caller:
            assert not old.over, what
            assert running == ended, what
            assert ended.ends_ms is not None, what
            assert ended.ends_ms <= event.time_ms, what
            assert event.over is (following is None), what
        elif running is not None:
            # A clock that was ahead, and was corrected since, may have begun the running one later than now.
            assert (ended.id, ended.begins_ms) == (running.id, min(running.begins_ms, event.time_ms)), what
        if following is not None and not event.caller:
            chain = [ended, *event.passed, following]
            pairs = list(pairwise(chain))
            whole = len(event.passed) < old.rules.keep_periods
            assert all(one.ends_ms == next_one.begins_ms for one, next_one in pairs[0 if whole else 1 :]), what
            assert following.ends_ms is not None, what
            assert following.begins_ms <= event.time_ms < following.ends_ms, what
        rows = self.rows(hidden)
        self.finals[event.seq] = rows
        self._past_done[event.seq], self._past_scores[event.seq] = (old.rules, self._done), self.scores
        if not old.over:
            self.ended_seq = event.seq
        if event.over:
            self._redefine(over=True)
            return
        past = [PastPeriod(ended, event.seq, len(rows)), *(PastPeriod(one, event.seq, 0) for one in event.passed)]
        kept = (*old.past, *past)[-old.rules.keep_periods :]
        gone = [one.seq for one in (*old.past, *past)[: -len(kept)]]
        ids = [one.period.id for one in kept] + ([] if following is None else [following.id])
        assert len(set(ids)) == len(ids), f"two periods have one id: {ids}"
        begun_ms = event.time_ms if following is None else following.begins_ms
        self.past_ranks = PlainPast(start={} if event.passed else {row.user_id: row.rank for row in rows[:100]})
        forgotten_seq = gone[-1] if gone else old.forgotten_seq
        self._redefine(begun_ms=begun_ms, period=following, past=kept, over=False, forgotten_seq=forgotten_seq)
        self.scores, self._done = {}, {}

    def _freeze(self, old: BoardDefinition, event: BoardFrozen) -> None:
        assert old.frozen is None, f"seq {event.seq} freezes a board that is frozen"
        if event.at_ms is not None:
            assert event.at_ms > event.time_ms
            self._redefine(freeze_at_ms=event.at_ms)
            return
        if not event.caller:
            assert old.freeze_at_ms is not None
            assert old.freeze_at_ms <= event.time_ms
        self.freezes += 1
        self._redefine(freeze_at_ms=None, frozen=Frozen(event.seq, event.time_ms))
        self.frozen_face = Face(self.definition, dict(self.scores), self.ended_seq, past_ranks=self.past_ranks.copy())

    def _reveal(self, old: BoardDefinition, event: RowsRevealed, hidden: Hidden) -> None:
        face = self.frozen_face
        assert face is not None, f"seq {event.seq} reveals a board that is not frozen"
        assert face.definition is not None
        assert face.definition.past == old.past, f"seq {event.seq} reveals a period that has ended"
        for _ in range(event.step):
            user = self._next_hidden_row(face, hidden)
            if user is not None and user not in self.scores:  # a reversal took the user off the board
                del face.scores[user]
                face.past_ranks.forget(user)
            elif user is not None:
                face.scores[user] = self.scores[user]
                face.revealed.add(user)
        if self._next_hidden_row(face, hidden) is None:
            self._redefine(frozen=None)
            self.frozen_face = None
        else:
            self._count_revealed(face)

    def _count_revealed(self, face: Face) -> None:
        """Say of the board, and of what the public sees, how many rows are revealed."""
        assert self.definition is not None
        old = self.definition.frozen
        assert old is not None
        self._redefine(frozen=Frozen(old.seq, old.time_ms, len(face.revealed)))
        known = {name: getattr(face.definition, name) for name in BoardDefinition.__struct_fields__}
        face.definition = BoardDefinition(**(known | {"frozen": self.definition.frozen}))

    def _next_hidden_row(self, face: Face, hidden: Hidden) -> str | None:
        """Give the user whose row is revealed next: a newcomer, the last one first, or the last row that was not."""
        newcomers = [row.user_id for row in self.rows(hidden) if row.user_id not in face.scores]
        waiting = [row.user_id for row in face.rows(hidden) if row.user_id not in face.revealed]
        return next(reversed(newcomers or waiting), None)

    @property
    def period(self) -> Period | None:
        """The running period."""
        return None if self.definition is None else self.definition.period


def counted(rules: BoardRules, old: int | None, worth: int) -> int:
    """Give the score after an action."""
    return {
        "sum": max(0, (old or 0) + worth),
        "count": (old or 0) + 1,
        "last": max(0, worth),
        "best": max(0, worth) if old is None else (max if rules.order == "descending" else min)(old, max(0, worth)),
    }[rules.score]


def counted_again(rules: BoardRules, done: dict[str, list[Done]], holds: Callable[[int], bool]) -> dict[str, Score]:
    """Count actions in their order, without those that a reversal holds back, and rows of imports, which stay."""
    scores: dict[str, Score] = {}
    for user, actions in done.items():
        for each in actions:
            if not holds(each.seq):
                old = scores[user][0] if user in scores else None
                score = _after(rules, old, each)
                if score != old:
                    scores[user] = (score, each.seq, each.time_ms)
    return scores


def _after(rules: BoardRules, old: int | None, done: Done) -> int:
    """Give the score after an action or a row. A row says a score, so where actions are counted it is added."""
    if done.is_row and (old is None or rules.score == "count"):
        return (old or 0) + done.worth
    return counted(rules, old, done.worth)
