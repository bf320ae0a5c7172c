"""Watched boards among all else that happens: reversals, imports, erasures, periods, freezes, restarts, replicas.

An erased user is taken out of the log as well, and out of what the models say of before. So what is replayed later has
the pseudonym from the beginning, and must come to the same state.

The plain model of reviews (`tests.engine.plain_watch`) keeps every event of a user and looks at all of them. It takes
the events of the log; the boards beside it are compared with their own model as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from engine import watch
from engine.batch import Batch
from engine.calendar import period_at
from engine.commands import DecideReview, Increment, ReviewReceipt
from engine.erased import pack_seqs, pseudonym_of
from engine.events import Event, Incremented, ReviewDecided, UserErased
from engine.rewriting import Forgetting, rewrite_frame
from tests.engine.plain_boards import Answer
from tests.engine.plain_watch import PlainReviews, told_of
from tests.engine.test_boards_stateful import BOARDS, MINUTE_MS, USERS
from tests.engine.test_imports_stateful import ImportsMachine, PlainImports
from tests.engine.test_reversals_stateful import ReversalsMachine
from tests.seeds import in_ci


class PlainErasures(PlainImports):
    """The plain boards, from which users are erased."""

    def __init__(self) -> None:
        super().__init__()
        self.erased: set[str] = set()

    def erase(self, user: str, pseudonym: str) -> None:
        """Forget a user, but for the rows of past periods."""
        self.seq += 1
        self.users.pop(user, None)
        self.erased |= {action_id for action_id, (_, what) in self.actions.items() if what[0] == user}
        for board in self.boards.values():
            board.done.pop(user, None)
            for past in (board.past_ranks,) if board.shown is None else (board.past_ranks, board.shown.past_ranks):
                past.forget(user)
                past.start = None if past.start is None else {name: n for name, n in past.start.items() if name != user}
            if board.shown is not None:
                board.shown.places.pop(user, None)
                board.shown.revealed.discard(user)
        self.ended = [(board_id, past, renamed(rows, user, pseudonym)) for board_id, past, rows in self.ended]

    def _increment(self, command: Increment, now_ms: int) -> Answer:
        return ("ERASED",) if command.action_id in self.erased else super()._increment(command, now_ms)


Named = TypeVar("Named", bound=tuple[Any, ...])


def renamed(rows: list[Named], user: str, pseudonym: str) -> list[Named]:
    """Let a pseudonym have the rows of a user."""
    return [type(row)((row[0], pseudonym, *row[2:])) if row[1] == user else row for row in rows]


class ReviewsMachine(ReversalsMachine, ImportsMachine):
    """All of it, and reviews. Few events are counted at once, and few users are a population: so all ways are taken."""

    def __init__(self) -> None:
        self._bounds, watch.MANY, watch.POPULATION_MIN = (watch.MANY, watch.POPULATION_MIN), 3, 3
        self.plain_reviews = PlainReviews()
        super().__init__()
        self.plain: PlainErasures = PlainErasures()
        self.erasures = 0

    def teardown(self) -> None:
        """Count as before."""
        watch.MANY, watch.POPULATION_MIN = self._bounds

    def _log(self, events: Sequence[Event], epoch: int = 0) -> None:
        super()._log(events, epoch)
        for event in events:
            self.plain_reviews.take(event)

    @rule(seed=st.integers(0, 2**32), count=st.integers(6, 40), board_id=BOARDS | st.none())
    def play_much(self, seed: int, count: int, board_id: str | None) -> None:
        """Count many actions in one batch."""
        self.play(seed, count, board_id)

    @rule(seed=st.integers(0, 2**32), minutes=st.lists(st.sampled_from([0, 1, 1, 5, 61]), min_size=2, max_size=4))
    def play_for_a_while(self, seed: int, minutes: list[int]) -> None:
        """Play on, with some minutes in between."""
        for number, each in enumerate(minutes):
            self.now_ms += each * MINUTE_MS
            self.play(seed + number, 8, None)
            self.reviews_are_as_the_model_says()

    def _open(self) -> list[str]:
        return [each.review_id for each in self.scoreboard.reviews.all() if each.state == "open"]

    @precondition(lambda self: self._open())
    @rule(data=st.data())
    def accept(self, data: st.DataObject) -> None:
        """Accept some reviews in one batch."""
        chosen = data.draw(st.lists(st.sampled_from(self._open()), min_size=1, max_size=3, unique=True))
        self._change_periods()
        batch = Batch(self.scoreboard, max(self.now_ms, self.scoreboard.time_ms), period_at)
        batch.decide([DecideReview(review_id, "accept", "a good day", "judge") for review_id in chosen])
        self._log(batch.events)
        outcomes = batch.settle()
        self._settled()
        assert all(isinstance(each, ReviewReceipt) and each.applied for each in outcomes)
        for _ in chosen:
            self.plain._next(max(self.now_ms, self.plain.time_ms))

    @precondition(lambda self: self._open())
    @rule(data=st.data())
    def find_guilty(self, data: st.DataObject) -> None:
        """Decide that the points were taken back, as a log says it."""
        review_id, scoreboard = data.draw(st.sampled_from(self._open())), self.scoreboard
        review = scoreboard.reviews.get(review_id)
        assert review is not None
        event = ReviewDecided(
            scoreboard.seq + 1, scoreboard.time_ms, review.board_id, review_id, "reverse", "judge", "", "reversal-1"
        )
        self.plain.seq += 1
        self._apply_alone(event, scoreboard.epoch)

    @precondition(lambda self: len(self.events) > 20)
    @rule(user=USERS)
    def erase(self, user: str) -> None:
        """Erase a user, who may come back as somebody else."""
        self._change_periods()
        self.erasures += 1
        pseudonym, scoreboard = pseudonym_of(self.erasures), self.scoreboard
        events = [event for event, _ in self.events if isinstance(event, Incremented) and event.user_id == user]
        seqs = pack_seqs(event.seq for event in events)
        event = UserErased(scoreboard.seq + 1, scoreboard.time_ms, user, pseudonym, "ops", seqs)
        self.plain.erase(user, pseudonym)
        self._apply_alone(event, scoreboard.epoch)
        change = Forgetting({user: [(event.seq, pseudonym)]})
        self.frames = [rewrite_frame(frame, change) or frame for frame in self.frames]
        self.events = [(change.event(each), epoch) for each, epoch in self.events]
        self.moments = {event.seq: self.moments[event.seq]}
        self.ended = [(seq, renamed(rows, user, pseudonym)) for seq, rows in self.ended]
        self.out = {seq: [each for each in counted if each[2] != user] for seq, counted in self.out.items()}
        for _, done in self.past_done.values():
            if user in done:
                done[pseudonym] = done.pop(user)

    @invariant()
    def reviews_are_as_the_model_says(self) -> None:
        """Who was flagged by what, since when, and what was decided."""
        assert told_of(self.scoreboard.reviews) == self.plain_reviews.told()


TestReviews = ReviewsMachine.TestCase
TestReviews.settings = settings(max_examples=in_ci(25, 60), stateful_step_count=40)
