"""A plain model of boards, obviously right: lists of what happened, dictionaries, a sort. Made without the engine.

    plain = PlainBoards()
    plain.pass_time(now_ms)                          what is due happens first
    answer = plain.perform(command, now_ms)          what became of it: `told` says the same of a real outcome

It takes the engine's commands and rules, which are values. It counts, ranks, ends and names periods by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from msgspec import UNSET

from engine.board_rules import BoardRules, Range
from engine.commands import (
    BoardCommand,
    BoardReceipt,
    CloseBoard,
    FreezeBoard,
    Increment,
    PutBoard,
    PutUser,
    Receipt,
    Rejection,
    ResetBoard,
    RevealRows,
    UnfreezeBoard,
    UserReceipt,
)
from tests.engine.plain_notes import DAY_MS, HOUR_MS, PlainPast
from tests.engine.plain_spans import Span, first_span, named, span_at

LARGEST = 2**53 - 1
Answer = tuple[object, ...]
"""What became of a command: a word or the code of a refusal, and what the receipt says."""


class Done(NamedTuple):
    """An action that counted: its value on the board, its seq, its time."""

    value: int
    seq: int
    ms: int


class Place(NamedTuple):
    """A score, and the event and the time that brought it."""

    score: int
    seq: int
    ms: int


class Past(NamedTuple):
    """A period that ended: with which event, and with how many users on the board."""

    span: Span
    seq: int
    users: int


PlainRow = tuple[int, str, int]


@dataclass
class Shown:
    """What the public sees of a frozen board."""

    rules: BoardRules
    places: dict[str, Place]
    seq: int
    ms: int
    period_number: int
    past_ranks: PlainPast
    revealed: set[str] = field(default_factory=set)


@dataclass
class PlainBoard:
    """A board. `done` are the actions of each user in the running period."""

    rules: BoardRules
    begun_ms: int
    period: Span | None
    done: dict[str, list[Done]] = field(default_factory=dict)
    past: list[Past] = field(default_factory=list)
    ever: list[Past] = field(default_factory=list)
    period_number: int = 0
    over: bool = False
    closed: bool = False
    freeze_at_ms: int | None = None
    shown: Shown | None = None
    past_ranks: PlainPast = field(default_factory=PlainPast)

    @property
    def is_noted(self) -> bool:
        """Whether its ranks are noted: not if the period is over within a day."""
        span = self.period
        is_short = span is not None and span.ends_ms is not None and span.ends_ms - span.begins_ms < 2 * DAY_MS
        return not is_short or bool(self.past_ranks.notes)

    def places(self) -> dict[str, Place]:
        """Give the score of each user."""
        return {user: place_of(self.rules, done) for user, done in self.done.items()}

    def score(self, user: str) -> int | None:
        """Give a user's score, None before the first points."""
        return place_of(self.rules, self.done[user]).score if user in self.done else None

    def taken(self) -> list[str]:
        """List the ids of the kept periods, and of the running one."""
        return [past.span.id for past in self.past] + ([] if self.period is None else [self.period.id])

    def due_ms(self) -> int | None:
        """Give the next time at which something happens by itself."""
        ends = None if self.period is None or self.over or self.closed else self.period.ends_ms
        return min((ms for ms in (ends, self.freeze_at_ms) if ms is not None), default=None)


def scores_after(rules: BoardRules, values: Sequence[int]) -> list[int]:
    """List a user's score after each action."""
    if rules.score == "count":
        return list(range(1, len(values) + 1))
    if rules.score == "sum":
        return list(accumulate(values, lambda score, value: max(0, score + value), initial=0))[1:]
    positive = [max(0, value) for value in values]
    if rules.score == "last":
        return positive
    return list(accumulate(positive, max if rules.order == "descending" else min))


def ways_of(rules: BoardRules) -> tuple[str, str]:
    """Give how scores grow and which is better."""
    return rules.score, rules.order


def place_of(rules: BoardRules, done: Sequence[Done]) -> Place:
    """Give the score after all of these, and which of them it is due to: those after that one left it as it was."""
    scores = scores_after(rules, [each.value for each in done])
    at = len(done) - 1
    while at and scores[at - 1] == scores[-1]:
        at -= 1
    return Place(scores[-1], done[at].seq, done[at].ms)


def ranking(rules: BoardRules, places: dict[str, Place], inactive: Iterable[str]) -> list[PlainRow]:
    """List (rank, user, score): the better score first, then who reached it first."""
    sign = 1 if rules.order == "ascending" else -1
    users = sorted(places.keys() - set(inactive), key=lambda user: (sign * places[user].score, places[user].seq))
    rows = []
    for position, user in enumerate(users):
        score = places[user].score
        better = [places[other].score for other in users if sign * places[other].score < sign * score]
        rank = {"unique": position, "shared": len(better), "dense": len(set(better))}[rules.ranks] + 1
        rows.append((rank, user, score))
    return rows


def gap(rules: BoardRules, rows: list[PlainRow], user: str) -> int | None:
    """Give the lead of the next better user: of the row above, or of the next better score where ranks are shared."""
    at = next(at for at, row in enumerate(rows) if row[1] == user)
    better = [row for row in rows[:at] if rules.ranks == "unique" or row[2] != rows[at][2]]
    return abs(better[-1][2] - rows[at][2]) if better else None


class PlainBoards:
    """The boards and users, and `ended`: the final rows of each period that ended, with their times and seqs."""

    def __init__(self) -> None:
        self.boards: dict[str, PlainBoard] = {}
        self.users: dict[str, tuple[str | None, bool]] = {}
        self.actions: dict[str, tuple[int, tuple[object, ...]]] = {}
        self.ended: list[tuple[str, Past, list[tuple[int, str, int, int, int]]]] = []
        self.seq = 0
        self.time_ms = 0
        self.noted = (0, 0)

    # Looking

    def inactive(self) -> set[str]:
        """List the users who are not shown."""
        return {user for user, (_, active) in self.users.items() if not active}

    def rows(self, board_id: str) -> list[PlainRow]:
        """List a board as it is."""
        board = self.boards[board_id]
        return ranking(board.rules, board.places(), self.inactive())

    def public_past(self, board_id: str) -> PlainPast:
        """Give what the ranks that the public sees are compared with."""
        board = self.boards[board_id]
        return board.past_ranks if board.shown is None else board.shown.past_ranks

    def public_rows(self, board_id: str) -> list[PlainRow]:
        """List a board as the public sees it."""
        shown = self.boards[board_id].shown
        return self.rows(board_id) if shown is None else ranking(shown.rules, shown.places, self.inactive())

    def rank(self, board_id: str, user: str) -> int | None:
        """Give a user's rank."""
        return next((rank for rank, other, _ in self.rows(board_id) if other == user), None)

    # What happens by itself

    def pass_time(self, now_ms: int) -> None:
        """Let happen what is due: one thing on each board in turn, until nothing is left."""
        self._note_ranks(now_ms := max(now_ms, self.time_ms))
        while due := [board_id for board_id in sorted(self.boards) if self._is_due(board_id, now_ms)]:
            for board_id in due:
                board = self.boards[board_id]
                if board.freeze_at_ms is not None and board.freeze_at_ms == board.due_ms():
                    self._freeze(board, self._next(now_ms), now_ms)
                else:
                    self._end_by_itself(board_id, board, now_ms)
            self._note_ranks(now_ms)

    def _note_ranks(self, now_ms: int) -> None:
        if (due_ms := self.note_due_ms()) is not None and due_ms <= now_ms:
            as_of_ms = self.time_ms
            self.noted = self._next(now_ms), now_ms
            for board_id, board in self.boards.items():
                if board.is_noted and board.done:
                    board.past_ranks.note(as_of_ms, now_ms, self.rows(board_id))

    def note_due_ms(self) -> int | None:
        """Give the next time at which ranks are noted."""
        noted = [board for board in self.boards.values() if board.is_noted]
        is_settled = all(board.past_ranks.is_settled or not board.done for board in noted)
        if not noted or (self.seq == self.noted[0] and is_settled):
            return None
        return max(min(board.begun_ms for board in noted), self.noted[1]) + HOUR_MS

    def correct(self, now_ms: int) -> None:
        """Put the clock back."""
        self._next(now_ms)
        self.noted = self.noted[0], min(self.noted[1], now_ms)
        for board in self.boards.values():
            board.past_ranks.correct(now_ms)

    def due_ms(self) -> int | None:
        """Give the next time at which something happens by itself."""
        dues = [self.note_due_ms(), *(board.due_ms() for board in self.boards.values())]
        return min((ms for ms in dues if ms is not None), default=None)

    def _is_due(self, board_id: str, now_ms: int) -> bool:
        return (due_ms := self.boards[board_id].due_ms()) is not None and due_ms <= now_ms

    def _end_by_itself(self, board_id: str, board: PlainBoard, now_ms: int) -> None:
        seq, ended, schedule = self._next(now_ms), board.period, board.rules.schedule
        assert ended is not None
        if schedule is None:
            board.over = True
            return
        assert ended.ends_ms is not None
        spans = [span_at(schedule.every, ended.ends_ms)]
        while (ends_ms := spans[-1].ends_ms) is not None and ends_ms <= now_ms:
            spans.append(span_at(schedule.every, ends_ms))
        taken = board.taken()
        spans = spans[-1 - board.rules.keep_periods :]
        for at, span in enumerate(spans):
            spans[at] = named(span, taken)
            taken.append(spans[at].id)
        self._change(board_id, board, ended, spans[-1], seq, spans[-1].begins_ms, passed=spans[:-1])

    def _change(
        self, board_id: str, board: PlainBoard, ended: Span, following: Span | None, seq: int, begun_ms: int,
        passed: Sequence[Span] = (),
    ) -> None:  # fmt: skip
        places = board.places()
        rows = ranking(board.rules, places, self.inactive())
        past = Past(ended, seq, len(rows))
        if rows:
            final = [(rank, user, score, places[user].ms, places[user].seq) for rank, user, score in rows]
            self.ended.append((board_id, past, final))
        board.ever += [past, *(Past(span, seq, 0) for span in passed)]
        board.past = board.ever[-min(board.rules.keep_periods, len(board.past) + 1 + len(passed)) :]
        board.done, board.period, board.begun_ms, board.over = {}, following, begun_ms, False
        board.period_number += 1
        board.past_ranks = PlainPast(start={} if passed else {user: rank for rank, user, _ in rows[:100]})

    def _next(self, now_ms: int) -> int:
        self.seq += 1
        self.time_ms = now_ms
        return self.seq

    def _freeze(self, board: PlainBoard, seq: int, now_ms: int) -> None:
        board.freeze_at_ms = None
        board.shown = Shown(board.rules, board.places(), seq, now_ms, board.period_number, board.past_ranks.copy())

    # Commands

    def perform(self, command: Increment | PutUser | BoardCommand, now_ms: int) -> Answer:
        """Perform a command: what became of it."""
        now_ms = max(now_ms, self.time_ms)
        if isinstance(command, Increment):
            return self._increment(command, now_ms)
        if isinstance(command, PutUser):
            return self._put_user(command, now_ms)
        if isinstance(command, PutBoard):
            return self._put_board(command, now_ms)
        assert isinstance(command, BoardCommand), "reviews have a model of their own (`plain_watch`)"
        board = self.boards.get(command.board_id)
        if board is None:
            return ("NOT_FOUND",)
        if isinstance(command, ResetBoard):
            return self._reset(board, command, now_ms)
        if isinstance(command, FreezeBoard):
            return self._freeze_by_hand(board, command, now_ms)
        if isinstance(command, RevealRows):
            return self._reveal(board, command.step, now_ms)
        if isinstance(command, CloseBoard):
            if board.closed:
                return ("unchanged",)
            board.closed = True
        else:
            assert isinstance(command, UnfreezeBoard)
            if board.shown is None and board.freeze_at_ms is None:
                return ("unchanged",)
            board.shown = board.freeze_at_ms = None
        return "changed", self._next(now_ms)

    def _increment(self, command: Increment, now_ms: int) -> Answer:
        user, board_id = command.user_id, command.board_id
        what = (user, board_id, command.reason, command.value)
        if command.action_id in self.actions:
            seq, before = self.actions[command.action_id]
            if what != before:
                return ("CONFLICT",)
            rank = self.rank(board_id, user)
            return "duplicate", seq, self.boards[board_id].score(user) or 0, 0, rank, rank
        board = self.boards.get(board_id)
        if board is None:
            return ("INVALID_REQUEST",)
        if (fault := self._write_fault(board, now_ms)) is not None:
            return (fault,)
        worth = board.rules.points.get(command.reason)
        if worth is None or user in self.inactive() or isinstance(worth, Range) != (command.value is not None):
            return ("INVALID_REQUEST",)
        if isinstance(worth, Range):
            assert command.value is not None
            if not worth.min <= command.value <= worth.max:
                return ("INVALID_REQUEST",)
            worth = command.value
        counts = [(board, worth)]
        for fed_id in board.rules.feeds:
            fed = self.boards.get(fed_id)
            theirs = None if fed is None else fed.rules.points.get(command.reason)
            if fed is None or theirs is None or self._write_fault(fed, now_ms) is not None:
                continue
            if isinstance(theirs, Range) and not theirs.min <= worth <= theirs.max:
                return ("INVALID_REQUEST",)
            counts.append((fed, worth if isinstance(theirs, Range) else theirs))
        for each, value in counts:
            values = [done.value for done in each.done.get(user, [])]
            if scores_after(each.rules, [*values, value])[-1] > LARGEST:
                return ("INVALID_REQUEST",)
        rank_before, score_before = self.rank(board_id, user), board.score(user) or 0
        seq = self._next(now_ms)
        for each, value in counts:
            each.done.setdefault(user, []).append(Done(value, seq, now_ms))
        self.actions[command.action_id] = seq, what
        score = board.score(user)
        assert score is not None
        return "applied", seq, score, score - score_before, self.rank(board_id, user), rank_before

    def _write_fault(self, board: PlainBoard, now_ms: int) -> str | None:
        if board.closed or board.over:
            return "BOARD_CLOSED"
        season = board.rules.season
        begins_ms = None if season is None else season.begins_ms
        return "BOARD_NOT_OPEN" if begins_ms is not None and now_ms < begins_ms else None

    def _put_user(self, command: PutUser, now_ms: int) -> Answer:
        name, active = self.users.get(command.user_id, (None, True))
        after = (
            name if command.display_name is UNSET else command.display_name,
            active if command.active is UNSET else command.active,
        )
        if self.users.get(command.user_id) == after:
            return "unchanged", *after
        self.users[command.user_id] = after
        self._next(now_ms)
        return "put", *after

    def _put_board(self, command: PutBoard, now_ms: int) -> Answer:
        board_id, rules = command.board_id, command.rules
        board = self.boards.get(board_id)
        if not set(rules.feeds) <= self.boards.keys():
            return ("INVALID_REQUEST",)
        if board is not None and board.closed:
            return ("BOARD_CLOSED",)
        if board is not None and board.rules == rules:
            return ("unchanged",)
        if board is not None and board.done and ways_of(board.rules) != ways_of(rules):
            begins_anew = (board.rules.schedule, board.rules.season) != (rules.schedule, rules.season)
            if not (board.over and begins_anew):
                return ("CONFLICT",)
        is_new = board is None or board.rules.season != rules.season
        if rules.season is not None and is_new and rules.season.ends_ms is not None and rules.season.ends_ms <= now_ms:
            return ("INVALID_REQUEST",)
        if board is None:
            self.boards[board_id] = PlainBoard(rules, now_ms, first_span(rules, (), now_ms))
            return "changed", self._next(now_ms)
        if (board.rules.schedule, board.rules.season) != (rules.schedule, rules.season):
            if board.over:
                assert board.period is not None
                following = first_span(rules, board.taken(), now_ms)
                begun_ms = now_ms if following is None else following.begins_ms
                was = board.period
                ended = Span(was.id, min(was.begins_ms, now_ms), min(was.ends_ms or now_ms, now_ms))
                self._change(board_id, board, ended, following, self._next(now_ms), begun_ms)
            else:
                period = first_span(rules, [past.span.id for past in board.past], now_ms)
                if period is None and board.period is not None:
                    period = Span(board.period.id, board.period.begins_ms, None)
                board.period = period
        if (board.rules.order, board.rules.ranks) != (rules.order, rules.ranks):
            board.past_ranks = PlainPast()
        board.rules = rules
        return "changed", self._next(now_ms)

    def _reset(self, board: PlainBoard, command: ResetBoard, now_ms: int) -> Answer:
        running = board.period
        if board.closed or board.over:
            return ("BOARD_CLOSED",)
        if command.period is not None and (running is None or running.id != command.period):
            return ("CONFLICT",)
        if running is not None and running.begins_ms > now_ms and board.rules.season is not None:
            return ("BOARD_NOT_OPEN",)
        seq = self._next(now_ms)
        if running is None:
            day = named(span_at("day", now_ms), board.taken())
            ended = Span(day.id, min(board.begun_ms, now_ms), now_ms)
            self._change(command.board_id, board, ended, None, seq, now_ms)
        else:
            following = first_span(board.rules, board.taken(), now_ms)
            if following is not None:
                following = Span(following.id, now_ms, following.ends_ms)
            ended = Span(running.id, min(running.begins_ms, now_ms), now_ms)
            self._change(command.board_id, board, ended, following, seq, now_ms)
        return "changed", seq

    def _freeze_by_hand(self, board: PlainBoard, command: FreezeBoard, now_ms: int) -> Answer:
        if command.at_ms is None:
            if board.shown is not None:
                return ("unchanged",)
            self._freeze(board, self._next(now_ms), now_ms)
            return "changed", self.seq
        if board.shown is not None:
            return ("CONFLICT",)
        if command.at_ms <= now_ms:
            return ("INVALID_REQUEST",)
        if command.at_ms == board.freeze_at_ms:
            return ("unchanged",)
        board.freeze_at_ms = command.at_ms
        return "changed", self._next(now_ms)

    def _reveal(self, board: PlainBoard, step: int, now_ms: int) -> Answer:
        shown = board.shown
        if shown is None or shown.period_number != board.period_number:
            return ("CONFLICT",)
        seq = self._next(now_ms)
        while step and (user := self._hidden_still(board, shown)) is not None:
            if user not in board.done:  # taken off the board meanwhile
                del shown.places[user]
                shown.past_ranks.forget(user)
            else:
                shown.places[user] = board.places()[user]
                shown.revealed.add(user)
            step -= 1
        if self._hidden_still(board, shown) is None:
            board.shown = None
        return "changed", seq

    def _hidden_still(self, board: PlainBoard, shown: Shown) -> str | None:
        """Give who is revealed next: newcomers first, then the public's rows, each from the last place up."""
        newcomers = [row for row in ranking(board.rules, board.places(), self.inactive()) if row[1] not in shown.places]
        if newcomers:
            return newcomers[-1][1]
        rows = ranking(shown.rules, shown.places, self.inactive())
        return next((user for _, user, _ in reversed(rows) if user not in shown.revealed), None)


def told(outcome: Receipt | UserReceipt | BoardReceipt | Rejection) -> Answer:
    """Bring a real outcome into the model's terms."""
    match outcome:
        case Rejection():
            return (outcome.code,)
        case BoardReceipt():
            return ("changed", outcome.seq) if outcome.applied else ("unchanged",)
        case UserReceipt():
            return "put" if outcome.applied else "unchanged", outcome.display_name, outcome.active
        case Receipt():
            word = "applied" if outcome.applied else "duplicate"
            return word, outcome.seq, outcome.new_score, outcome.delta, outcome.rank, outcome.previous_rank
