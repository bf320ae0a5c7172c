"""Holds among all else that happens to boards: the machine of `test_reversals_stateful`, with boards that hold.

So holds, reviews and reversals meet periods, modes, freezes, feeds, corrections of the clock, restarts, replays of any
first part, and shards. What is held is said by a plain model of watches (`tests.engine.plain_watch`), which reads the
events. To the plain boards an action that is held is in a drawer beside the lists. A decision puts it into the list of
the period in which it came, unless a reversal has it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from msgspec.structs import replace

from engine.batch import Batch
from engine.board_rules import Decision, WatchRules
from engine.calendar import period_at
from engine.commands import BoardCommand, DecideReview, Increment, PutBoard, PutUser, Rejection, ReviewReceipt
from engine.events import BoardPut, Event, Incremented, Reversed, ReviewDecided
from engine.recount import Adds, Recount
from engine.reversals import CorrectedPeriod
from engine.reviews import Review
from tests.engine.plain_boards import Answer, Done, PlainBoards, told, ways_of
from tests.engine.plain_watch import PlainReviews, told_of
from tests.engine.test_reversals_stateful import ReversalsMachine
from tests.seeds import in_ci


class HeldBoards(PlainBoards):
    """The plain boards with what each holds: `drawer` has period and action, by board, user and seq."""

    def __init__(self) -> None:
        super().__init__()
        self.reviews = PlainReviews()
        self.drawer: dict[tuple[str, str, int], tuple[int, Done]] = {}

    def _increment(self, command: Increment, now_ms: int) -> Answer:
        user, board_id = command.user_id, command.board_id
        holds = [each for each in self.boards if each in self.reviews.rules and self.reviews.is_held(each, user)]
        rank, score = self.rank(board_id, user) if board_id in self.boards else None, 0
        if board_id in self.boards:
            score = self.boards[board_id].score(user) or 0
        answer = super()._increment(command, now_ms)
        if answer[0] != "applied":
            return answer
        for each in holds:
            board = self.boards[each]
            done = board.done.get(user, [])
            if done and done[-1].seq == self.seq:
                self.drawer[each, user, self.seq] = board.period_number, done.pop()
                if not done:
                    del board.done[user]
        shown = self.boards[board_id].score(user) or 0
        return "applied", self.seq, shown, shown - score, self.rank(board_id, user), rank

    def _put_board(self, command: PutBoard, now_ms: int) -> Answer:
        board, rules = self.boards.get(command.board_id), command.rules
        holds = any(board_id == command.board_id for board_id, _, _ in self.drawer)
        is_refused = board is not None and not board.closed and set(rules.feeds) <= self.boards.keys()
        if is_refused and holds and board is not None and ways_of(board.rules) != ways_of(rules):
            return ("CONFLICT",)
        return super()._put_board(command, now_ms)


class HoldsMachine(ReversalsMachine):
    """The boards, with reversals, reviews and holds."""

    def __init__(self) -> None:
        super().__init__()
        self.plain: HeldBoards = HeldBoards()
        self.told_seq = 0

    def _log(self, events: list[Event], epoch: int = 0) -> None:  # type: ignore[override]
        super()._log(events, epoch)
        self._tell(events)

    def _tell(self, events: list[Event]) -> None:
        """Tell the model of reviews of events, each once."""
        for event in events:
            if event.seq > self.told_seq:
                self.plain.reviews.take(event)
                self.told_seq = event.seq

    def _write(self, *commands: Increment | PutUser | BoardCommand) -> None:
        """Let boards with a watch hold. What a board holds depends on the actions before, also of the same batch."""
        asked = [_holding(command) for command in commands]
        self._change_periods()
        self._remember()
        batch = Batch(self.scoreboard, max(self.now_ms, self.scoreboard.time_ms), period_at)
        batch.decide(asked)
        expected = []
        for command in asked:
            expected.append(self.plain.perform(command, self.now_ms))
            self._tell([event for event in batch.events if event.seq <= self.plain.seq])
        self._log(batch.events)
        outcomes = batch.settle()
        self._settled()
        assert [told(outcome) for outcome in outcomes] == expected  # type: ignore[arg-type]
        self._forget()

    # Reviews

    @precondition(lambda self: self.scoreboard.reviews.open_count)
    @rule(data=st.data(), accepts=st.booleans(), preview=st.sampled_from([False, False, True]))
    def decide(self, data: st.DataObject, accepts: bool, preview: bool) -> None:
        """Decide an open review."""
        self._decide(data.draw(st.sampled_from(self._opened())), accepts=accepts, preview=preview)

    @precondition(lambda self: self.plain.drawer)
    @rule(seed=st.integers(0, 2**32))
    def decide_all(self, seed: int) -> None:
        """Decide all open reviews, one after the other."""
        chance = random.Random(seed)
        for review in self._opened():
            self._decide(review, accepts=chance.random() < 0.6, preview=False)
            self.is_as_the_model_says()

    def _opened(self) -> list[Review]:
        return [each for each in self.scoreboard.reviews.all() if each.state == "open"]

    def _decide(self, review: Review, *, accepts: bool, preview: bool) -> None:
        self._change_periods()
        adds = Adds(review.board_id, review.user_id, None if accepts else review.since_ms)
        events = [event for event, _ in self.events]
        actions = {event.seq: event for event in events if isinstance(event, Incremented) and adds.wants(event)}
        recount = Recount(actions, again=False, adds=adds)
        for event in events:
            recount.take(event)
        rows = {
            (board_id, past.seq): {review.user_id: self._past_row(board_id, past, review.user_id)}
            for board_id, board in self.plain.boards.items()
            for past in board.past
        }
        decision: Decision = "accept" if accepts else "reverse"
        command = DecideReview(review.review_id, decision, "", "judge", "", recount, rows, preview)
        batch = Batch(self.scoreboard, max(self.now_ms, self.scoreboard.time_ms), period_at)
        batch.decide([command])
        self._log(batch.events)
        [outcome] = batch.settle()
        self._settled()
        if isinstance(outcome, Rejection):
            assert not batch.events
            assert "nothing left to reverse" in outcome.message or self._counts_otherwise(outcome), outcome
            return
        assert isinstance(outcome, ReviewReceipt)
        assert outcome.applied is bool(batch.events) is not preview
        for event in batch.events:
            self.plain._next(max(self.now_ms, self.plain.time_ms))
            if isinstance(event, Reversed):
                self.reversals.append(event)
                for seq in event.actions:
                    self._take_out(seq)
            else:
                assert isinstance(event, ReviewDecided)
                self._release(review.board_id, review.user_id)

    def _counts_otherwise(self, outcome: Rejection) -> bool:
        """Whether a board may have counted a kept period in another way: then the log does not explain its scores."""
        board_id = str(outcome.details["boardId"])
        puts = [each for each, _ in self.events if isinstance(each, BoardPut) and each.board_id == board_id]
        ways = {(put.rules.score, put.rules.order) for put in puts}
        return len(ways) > 1 or any(kept.users for kept in self.plain.boards[board_id].past)

    def _release(self, board_id: str, user: str) -> None:
        """Let what a board holds of a user count, or be held back by the reversal that has it."""
        for key in [key for key in self.plain.drawer if key[:2] == (board_id, user)]:
            number, done = self.plain.drawer.pop(key)
            out = self.out.get(done.seq)
            if out is not None:
                out.append((board_id, number, user, done))
                continue
            for other_id, other, lists in self._lists():
                if (other_id, other) == (board_id, number):
                    lists[user] = sorted([*lists.get(user, []), done], key=lambda each: each.seq)

    def _were_there(self, shown: Sequence[tuple[Any, ...]], corrected: CorrectedPeriod) -> set[str]:
        """Who had nothing in a period but what was held comes into it with a decision."""
        return super()._were_there(shown, corrected) | {row.user_id for row in corrected.rows}

    @invariant()
    def what_is_held_is_as_the_model_says(self) -> None:
        """And so are all reviews."""
        reviews = self.scoreboard.reviews
        assert told_of(reviews) == self.plain.reviews.told()
        held = {(*place, seq) for place in reviews.holds.places() for seq in reviews.holds.of(place)}
        assert held == set(self.plain.drawer)


def _holding(command: Increment | PutUser | BoardCommand) -> Increment | PutUser | BoardCommand:
    """Let most boards hold, and no score be so large that a sum of few is none."""
    if not isinstance(command, PutBoard):
        return command
    rules = command.rules
    points = {reason: 10 if worth == 2**52 else worth for reason, worth in rules.points.items()}
    watch = rules.watch
    if watch is None and command.board_id != "total":
        watch = WatchRules(growth_per_minute=20) if rules.order == "descending" else WatchRules(callers_per_user=1)
    watch = None if watch is None else replace(watch, action="hold")
    return replace(command, rules=replace(rules, points=points, watch=watch))


TestHolds = HoldsMachine.TestCase
TestHolds.settings = settings(max_examples=in_ci(25, 60), stateful_step_count=40)
