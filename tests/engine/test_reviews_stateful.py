"""Watched boards among all else that happens: reversals, imports, periods, feeds, freezes, restarts, replicas.

The plain model of reviews (`tests.engine.plain_watch`) keeps every event of a user and looks at all of them. It takes
the events of the log; the boards beside it are compared with their own model as before.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from engine import watch
from engine.batch import Batch
from engine.calendar import period_at
from engine.commands import DecideReview, ReviewReceipt
from engine.events import Event, ReviewDecided
from tests.engine.plain_watch import PlainReviews, told_of
from tests.engine.test_boards_stateful import BOARDS, MINUTE_MS
from tests.engine.test_imports_stateful import ImportsMachine
from tests.engine.test_reversals_stateful import ReversalsMachine


class ReviewsMachine(ReversalsMachine, ImportsMachine):
    """All of it, and reviews. Few events are counted at once, and few users are a population: so all ways are taken."""

    def __init__(self) -> None:
        self._bounds, watch.MANY, watch.POPULATION_MIN = (watch.MANY, watch.POPULATION_MIN), 3, 3
        self.plain_reviews = PlainReviews()
        super().__init__()

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

    @invariant()
    def reviews_are_as_the_model_says(self) -> None:
        """Who was flagged by what, since when, and what was decided."""
        assert told_of(self.scoreboard.reviews) == self.plain_reviews.told()


TestReviews = ReviewsMachine.TestCase
TestReviews.settings = settings(max_examples=60, stateful_step_count=40)
