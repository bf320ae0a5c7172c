"""A story with boards that hold: its reviews are decided by a recount of all that was logged.

story = HoldStory(cup=rules(action="hold", growth_per_minute=100))
story.do(story.score("ann", 60), story.score("ann", 60), story.score("ann", 5))
story.decide(story.open("ann"), "accept")
"""

from __future__ import annotations

from typing import Any, cast

from engine.batch import Batch
from engine.board_events import EndedPeriod
from engine.board_rules import BoardRules, Decision
from engine.commands import Command, DecideReview, Outcome, Receipt, Reverse
from engine.events import Incremented, Rescored
from engine.recount import Adds, Recount
from engine.reviews import Review
from engine.schedule import Period
from engine.scored_ranking import ScoredRanking
from tests.engine.test_watch import Story


class HoldStory(Story):
    """A story whose answers are kept: `answers` are those of the last frame, `ended` the periods that ended."""

    def __init__(self, **boards: BoardRules) -> None:
        self.answers: list[Outcome] = []
        self.ended: list[EndedPeriod] = []
        self._periods = 0
        super().__init__(**boards)

    def do(self, *commands: Command) -> None:
        """Decide and apply commands as one frame."""
        batch = Batch(self.scoreboard, self.now_ms, self._period)
        batch.decide(commands)
        if batch.events:
            self.frames.append(batch.events)
        self.answers = batch.settle()
        self.ended += self.scoreboard.take_ended()
        self.scoreboard._check()

    def _period(self, _rules: Any, ms: int) -> Period:
        self._periods += 1
        return Period(f"period-{self._periods}", ms, None)

    def held(self) -> list[bool]:
        """Tell of each answer of the last frame whether the board holds the action."""
        return [isinstance(answer, Receipt) and bool(answer.held) for answer in self.answers]

    def open(self, user: str, board_id: str = "cup") -> Review:
        """Give the open review of a user."""
        [review] = [
            each for each in self.scoreboard.reviews.all()
            if (each.user_id, each.board_id, each.state) == (user, board_id, "open")
        ]  # fmt: skip
        return review

    def decide(
        self, review: Review, decision: Decision | str, *, reversal_id: str = "", preview: bool = False, late: int = 0
    ) -> Outcome:
        """Decide a review. The last `late` events come after its actions were gathered."""
        since_ms = review.since_ms if decision == "reverse" else None
        adds = Adds(review.board_id, review.user_id, since_ms)
        events = self.events()
        early = events[: len(events) - late]
        actions = {event.seq: event for event in early if isinstance(event, Incremented) and adds.wants(event)}
        recount = Recount(actions, again=False, adds=adds)
        for event in events:
            recount.take(event)
        command = DecideReview(
            review.review_id, cast("Decision", decision), "looked at", "judge", reversal_id, recount,
            self.past_rows(review.user_id), preview,
        )  # fmt: skip
        self.do(command)
        return self.answers[0]

    def reverse_actions(self, name: str, seqs: list[int], of: int | None = None) -> Outcome:
        """Take actions back by a reversal of their own, or let them count again."""
        events = {event.seq: event for event in self.events() if isinstance(event, Incremented)}
        recount = Recount({seq: events[seq] for seq in seqs}, again=of is not None)
        for event in self.events():
            recount.take(event)
        rows: dict[tuple[str, int], dict[str, Rescored | None]] = {}
        for user in recount.users:
            for key, found in self.past_rows(user).items():
                rows.setdefault(key, {}).update(found)
        self.do(Reverse(name, "a bot", "ref", 7, recount, of, rows))
        return self.answers[0]

    def past_rows(self, user: str) -> dict[tuple[str, int], dict[str, Rescored | None]]:
        """Look a user up in the past periods as their files and the corrections have them."""
        rows: dict[tuple[str, int], dict[str, Rescored | None]] = {}
        for ended in self.ended:
            key = (ended.ranking.board_id, ended.past.seq)
            rows[key] = {user: ScoredRanking.place_of(cast("ScoredRanking", ended.ranking), user)}
            corrected = self.scoreboard.reversals.of_period(*key)
            for row in () if corrected is None else corrected.rows:
                if row.user_id == user:
                    rows[key][user] = None if row.new_score is None else row
        return rows

    def shown(self, user: str, board_id: str = "cup") -> int | None:
        """Give the score that the board shows."""
        return self.scoreboard.boards[board_id].score(user)
