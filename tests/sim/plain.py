"""What a scoreboard must show, from its events alone: dictionaries and sorts, obviously right.

A `Plain` is told each event that is known to be on disk, in order. It refuses what must never be in a log: a gap, an
action twice, a sum that is wrong, an action after the end of its period. It says of a real scoreboard whether it shows
anything else than the sorts do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from engine.board import Board
from engine.board_rules import Range
from engine.events import (
    BoardEvent,
    BoardPut,
    ClockCorrected,
    EpochBegun,
    Event,
    Fed,
    FlagPut,
    ImportBegun,
    Incremented,
    RanksNoted,
    Reversed,
    ReviewDecided,
    ScoreImported,
    UserErased,
    UserPut,
)
from engine.log import Log
from engine.ranking import FinalRow
from engine.record import events_of
from engine.scoreboard import Scoreboard
from tests.engine.plain_watch import PlainReviews, told_of
from tests.sim.boards import RULES
from tests.sim.indexes import all_read
from tests.sim.plain_board import Face, PlainBoard
from tests.sim.plain_erasures import PlainErasures
from tests.sim.plain_imports import PlainImports

CONFIGURATION = "configuration"
"""The caller of the events that write the boards of the operator's file."""


class Plain:
    """The state after some events. `events[n]` has the seq n + 1."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.boards = {board_id: PlainBoard(board_id, rules) for board_id, rules in RULES.boards.items()}
        self.users: dict[str, tuple[str | None, bool]] = {}
        self.actions: dict[str, Incremented] = {}
        self.reviews = PlainReviews()
        self.imports = PlainImports()
        self.erasures = PlainErasures()
        self.held: dict[int, int] = {}
        """The actions that a reversal holds back, with the seq of the reversal."""
        self.reversals: dict[str, Reversed] = {}
        self.on_hold: set[tuple[str, int]] = set()
        """Boards, and actions that they hold until a review is decided."""
        self.live_off_ms: int | None = None
        """Since when the live channel is switched off."""
        self.epoch = 1
        self._only_file = True

    @property
    def seq(self) -> int:
        """The seq of the last event."""
        return len(self.events)

    def is_hidden(self, user: str) -> bool:
        """Whether the operator took a user off all boards."""
        return not self.users.get(user, (None, True))[1]

    def take(self, event: Event) -> None:
        """Take in the next event."""
        assert event.seq == self.seq + 1, f"seq {event.seq} after {self.seq}"
        back = bool(self.events) and event.time_ms < self.events[-1].time_ms
        assert not back or isinstance(event, ClockCorrected), f"the time goes back at seq {event.seq}"
        if isinstance(event, Incremented):
            self._count(event)
        elif isinstance(event, UserPut):
            self.users[event.user_id] = (event.display_name, event.active)
        elif isinstance(event, UserErased):
            self.erasures.take(event, self.actions.values())
            self.users.pop(event.user_id, None)
            self._release(event.user_id, list(self.boards))
            for board in self.boards.values():
                board.erase(event.user_id)
        elif isinstance(event, BoardEvent):
            self._take_board(event)
        elif isinstance(event, RanksNoted):
            assert event.as_of_ms == self.events[-1].time_ms, f"seq {event.seq} notes ranks of another time"
            for board in self.boards.values():
                board.note(event, self.is_hidden)
        elif isinstance(event, ClockCorrected):
            for board in self.boards.values():
                board.past_ranks.correct(event.time_ms)
        elif isinstance(event, Reversed):
            self._reverse(event)
        elif isinstance(event, ReviewDecided):
            self._decide(event)
        elif isinstance(event, ImportBegun | ScoreImported):
            self.imports.take(event, self.boards[event.board_id])
        elif isinstance(event, FlagPut):
            assert event.enabled is (self.live_off_ms is not None), f"seq {event.seq} changes nothing: {event}"
            self.live_off_ms = None if event.enabled else event.time_ms
        elif isinstance(event, EpochBegun):
            assert event.epoch > self.epoch, f"the epoch does not grow at seq {event.seq}"
            self.epoch = event.epoch
        self.reviews.take(event)
        self.events.append(event)

    def _count(self, event: Incremented) -> None:
        seq, user, time_ms = event.seq, event.user_id, event.time_ms
        assert event.action_id not in self.actions, f"{event.action_id} is counted twice, at seq {seq}"
        assert not self.is_hidden(user), f"an inactive user scored at seq {seq}"
        board = self.boards[event.board_id]
        assert board.definition is not None
        assert board.is_open(time_ms), f"seq {seq} counts on the board {event.board_id}, which is not open"
        rules = board.definition.rules
        worth = rules.points[event.reason]
        told = event.delta if event.value is None else event.value
        if isinstance(worth, Range):
            assert event.chosen, f"nobody chose the value of seq {seq}"
            assert worth.min <= told <= worth.max, f"seq {seq} has a value out of its range"
        else:
            assert not event.chosen
            assert told == worth, f"wrong points at seq {seq}"
        places = [event.board_id, *(fed.board_id for fed in event.fed)]
        held = tuple(place for place, board_id in enumerate(places) if self._holds_for(board_id, user))
        assert event.held == held, f"seq {seq} is held on the places {event.held}, a plain watch holds it on {held}"
        self.on_hold.update((places[place], seq) for place in held)
        change = (board.hold if 0 in held else board.count)(user, told, seq, time_ms)
        assert (event.delta, event.new_score) == change, f"seq {seq} says {event}, a plain sum gives {change}"
        fed = [self._feed(board_id, event, told) for board_id in rules.feeds]
        expected = tuple(one for one in fed if one is not None)
        assert event.fed == expected, f"seq {seq} feeds {event.fed}, plain sums give {expected}"
        self.actions[event.action_id] = event

    def _feed(self, board_id: str, event: Incremented, worth: int) -> Fed | None:
        board = self.boards[board_id]
        if board.definition is None or not board.is_open(event.time_ms):
            return None
        theirs = board.definition.rules.points.get(event.reason)
        if theirs is None:
            return None
        value = worth if isinstance(theirs, Range) else theirs
        assert not isinstance(theirs, Range) or theirs.min <= value <= theirs.max
        is_held = self._holds_for(board_id, event.user_id)
        delta, score = (board.hold if is_held else board.count)(event.user_id, value, event.seq, event.time_ms)
        return Fed(board_id, delta, score, value)

    def _reverse(self, event: Reversed) -> None:
        assert event.reversal_id not in self.reversals, f"{event.reversal_id} is done twice, at seq {event.seq}"
        self.reversals[event.reversal_id] = event
        for seq in event.actions:
            assert (seq in self.held) == event.again, f"seq {event.seq} reverses {seq}, which it can't"
            if event.again:
                del self.held[seq]
            else:
                self.held[seq] = event.seq
        for board in self.boards.values():
            if board.definition is not None:
                board.reverse(event, self._held_on(board.board_id), self.is_hidden)

    def _decide(self, event: ReviewDecided) -> None:
        """Let what the board held count, as far as no reversal takes it back."""
        board_id, user, *_ = self.reviews.told()[event.review_id]
        assert event.board_id == board_id
        self._release(user, [board_id])
        self.boards[board_id].reverse(event, self._held_on(board_id), self.is_hidden)

    def _release(self, user: str, board_ids: Sequence[str]) -> None:
        theirs = {event.seq for event in self.actions.values() if event.user_id == user}
        self.on_hold -= {(board_id, seq) for board_id, seq in self.on_hold if board_id in board_ids and seq in theirs}

    def _holds_for(self, board_id: str, user: str) -> bool:
        """Whether a board holds what a user does now."""
        return board_id in self.reviews.rules and self.reviews.is_held(board_id, user)

    def _held_on(self, board_id: str) -> Callable[[int], bool]:
        """Tell of an action whether it does not count on a board: a reversal or the board holds it back."""
        return lambda seq: seq in self.held or (board_id, seq) in self.on_hold

    def _take_board(self, event: BoardEvent) -> None:
        if isinstance(event, BoardPut) and event.caller == CONFIGURATION:
            assert event.rules == RULES.boards[event.board_id], f"wrong rules at seq {event.seq}"
        if self._only_file:
            self._only_file = False
            for board in self.boards.values():
                board.definition = None
        self.boards.setdefault(event.board_id, PlainBoard(event.board_id)).take(event, self.is_hidden)

    def rows(self, board_id: str, *, live: bool = False) -> list[FinalRow]:
        """Give the rows that the public sees, or those that count now."""
        board = self.boards[board_id]
        return (board if live else board.face).rows(self.is_hidden)

    def finals(self) -> dict[int, list[FinalRow]]:
        """Give the last rows of each period, by the seq of the event that ended it."""
        return {seq: rows for board in self.boards.values() for seq, rows in board.finals.items()}

    # What is real

    def check_scoreboard(self, scoreboard: Scoreboard, *, may_be_damaged: bool = False) -> None:
        """Compare all that a scoreboard shows: boards and their rules, order, ranks, scores, names, actions.

        `may_be_damaged`: a bit of a file of actions may have flipped.
        """
        assert (scoreboard.epoch, scoreboard.seq) == (self.epoch, self.seq)
        off_ms = scoreboard.flags.since_ms("live")
        assert off_ms == self.live_off_ms, f"the live channel is off since {off_ms}, not since {self.live_off_ms}"
        served = sorted(board_id for board_id, board in self.boards.items() if board.definition is not None)
        assert scoreboard.served() == served, f"there are {scoreboard.served()}, and not {served}"
        for board_id in served:
            plain, board = self.boards[board_id], scoreboard.boards[board_id]
            assert board.definition == plain.definition, f"{board_id} is {board.definition}, not {plain.definition}"
            self._check_rows(board, plain)
            face = plain.frozen_face
            assert (board.frozen is None) is (face is None)
            if board.frozen is not None and face is not None:
                assert board.frozen.definition == face.definition
                self._check_rows(board.frozen, face)
        for user, (name, active) in self.users.items():
            found = scoreboard.users.get(user)
            assert found is not None
            assert (found.display_name, found.active) == (name, active)
        assert len(scoreboard.users) == len(self.users), f"{len(scoreboard.users)} users are registered: {self.users}"
        self._check_actions(scoreboard, may_be_damaged=may_be_damaged)
        erasures = (scoreboard.erasures.count, scoreboard.erasures.last_seq)
        assert erasures == (self.erasures.count, self.erasures.last_seq), f"the erasures are {erasures}"
        reviews = told_of(scoreboard.reviews)
        assert reviews == self.reviews.told(), f"the reviews are {reviews}, and not {self.reviews.told()}"
        holds = scoreboard.reviews.holds
        on_hold = {(place[0], seq) for place in holds.places() for seq in holds.of(place)}
        assert on_hold == self.on_hold, f"on hold are {on_hold}, and not {self.on_hold}"
        for event in self.actions.values():
            assert scoreboard.reversals.of_action(event.seq) == self.held.get(event.seq)
        self.imports.check(scoreboard.imports)
        scoreboard._check()

    def _check_actions(self, scoreboard: Scoreboard, *, may_be_damaged: bool) -> None:
        """Compare the applied actions, also those that are sealed."""
        seqs = {action_id: event.seq for action_id, event in self.actions.items()}
        seqs |= {reversal_id: event.seq for reversal_id, event in self.reversals.items()}
        assert len(scoreboard.actions) == len(seqs)
        with all_read(scoreboard, seqs, may_be_damaged=may_be_damaged) as unreadable:
            for action_id, seq in seqs.items():
                if action_id in unreadable:
                    continue
                found = scoreboard.action_seq(action_id)
                assert found == seq, f"{action_id} is known by the seq {found}, and not by its seq {seq}"
                is_forgotten = scoreboard.actions.is_forgotten(action_id)
                expected = seq in self.erasures.actions
                assert is_forgotten == expected, f"{action_id} is forgotten: {is_forgotten}"

    def _check_rows(self, board: Board, face: Face) -> None:
        expected = face.rows(self.is_hidden)
        changes = face.past_ranks.changes(face.ranks(self.is_hidden))
        assert [row.change for row in board.top(len(expected))] == changes, f"{board.board_id} tells other changes"
        rows = board.final_rows(0, len(expected) + 1)
        assert rows == expected, f"{board.board_id} shows {rows}, a sort gives {expected}"
        for row in expected:
            assert (board.rank(row.user_id), board.score(row.user_id)) == (row.rank, row.score)

    def check_log(self, log: Log, erasures: PlainErasures | None = None) -> None:
        """Compare everything that a log still has; `Log` itself proves that it has no gap.

        It may be rewritten for `erasures`, by default for those of these events.
        """
        first = log.segments()[0].first_seq
        same = (self.erasures if erasures is None else erasures).are_same(
            read_events(log, first), self.events[first - 1 :]
        )
        assert same, "the log has other events"


def plain_of(events: Iterable[Event]) -> Plain:
    """Make the model of some events."""
    plain = Plain()
    for event in events:
        plain.take(event)
    return plain


def check_read(plain: Plain, then: Plain, scoreboard: Scoreboard, *, may_be_damaged: bool = False) -> None:
    """Compare a replica with the leader at an earlier moment, `then`, or with what a rewritten log says of it.

    A rewritten log has the pseudonyms of users from its beginning. Who reads it and has not come to the erasure yet has
    them on its boards. Answers leave them out. It may have been rewritten for the first of the later erasures alone.
    """
    faults: list[AssertionError] = []
    for last_seq in [then.seq, *[seq for seq in plain.erasures.seqs if seq > then.seq]]:
        read = then if last_seq == then.seq else plain_of(_rewritten(plain, then.events, last_seq))
        try:
            read.check_scoreboard(scoreboard, may_be_damaged=may_be_damaged)
        except AssertionError as fault:
            faults.append(fault)
        else:
            return
    raise faults[0]


def _rewritten(plain: Plain, events: Sequence[Event], last_seq: int) -> list[Event]:
    return [
        replace(plain.erasures.forgotten(event, last_seq), action_id=event.action_id)
        if isinstance(event, Incremented)
        else plain.erasures.forgotten(event, last_seq)
        for event in events
    ]


def read_events(log: Log, from_seq: int) -> Sequence[Event]:
    """Read a log from some seq on, to its end."""
    return [event for frame in log.read_from(from_seq) for event in events_of(frame) if event.seq >= from_seq]
