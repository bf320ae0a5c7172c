"""Reversals beside the plain model of boards, on boards of every kind: periods, freezes, feeds, restarts, replicas.

The model takes the actions out of its lists and counts what is left. A reversal that the engine refuses because it
can't count a score again must concern a past period, whose board counts by other rules now. Or the score would pass the
largest one: others may have counted while an action was out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from engine.batch import Batch
from engine.board_rules import BoardRules
from engine.calendar import period_at
from engine.commands import BoardCommand, Increment, PutUser, Rejection, ReversalReceipt, Reverse
from engine.events import BoardPut, Incremented, Rescored, Reversed
from engine.recount import Recount
from engine.reversals import CorrectedPeriod
from tests.engine.plain_boards import LARGEST, Done, Past, PlainBoard, place_of
from tests.engine.test_boards_stateful import BoardsMachine
from tests.seeds import in_ci

Counted = tuple[str, int, str, Done]
"""Where an action counted: board, number of the period, user, and what it was."""


class ReversalsMachine(BoardsMachine):
    """The boards, with reversals. `out` is what the model took out of its lists, by the seq of the action."""

    def __init__(self) -> None:
        super().__init__()
        self.out: dict[int, list[Counted]] = {}
        self.reversals: list[Reversed] = []
        self.past_done: dict[tuple[str, int], tuple[BoardRules, dict[str, list[Done]]]] = {}
        self.past_numbers: dict[tuple[str, int], int] = {}
        self.running: dict[str, int] = {}
        self.count = 0

    def _change_periods(self) -> None:
        self._remember()
        super()._change_periods()
        self._forget()

    def _write(self, *commands: Increment | PutUser | BoardCommand) -> None:
        self._remember()
        super()._write(*commands)
        self._forget()

    def _remember(self) -> None:
        """Keep what was done in the running periods, in case that one ends now."""
        for board_id, board in self.plain.boards.items():
            done = {user: list(each) for user, each in board.done.items()}
            self.past_done[board_id, board.period_number] = (board.rules, done)
            self.running[board_id] = board.period_number

    def _forget(self) -> None:
        """Note the number of a period with users that ended. Others that ended with it were empty."""
        for board_id, board in self.plain.boards.items():
            for past in board.past:
                if past.users:
                    self.past_numbers.setdefault((board_id, past.seq), self.running[board_id])

    def _reverse(self, name: str, seqs: Sequence[int], of: Reversed | None, *, preview: bool = False) -> None:
        self._change_periods()
        events = {event.seq: event for event, _ in self.events if isinstance(event, Incremented)}
        recount = Recount({seq: events[seq] for seq in seqs}, again=of is not None)
        for event, _ in self.events:
            recount.take(event)
        rows = {
            (board_id, past.seq): {user: self._past_row(board_id, past, user) for user in recount.users}
            for board_id, board in self.plain.boards.items()
            for past in board.past
        }
        command = Reverse(name, "cheated", "ref", 7, recount, None if of is None else of.seq, rows, preview)
        batch = Batch(self.scoreboard, max(self.now_ms, self.scoreboard.time_ms), period_at)
        batch.decide([command])
        self._log(batch.events)
        [outcome] = batch.settle()
        self._settled()
        held = self.scoreboard.reversals.of_action
        if isinstance(outcome, Rejection):
            assert not batch.events
            if "largest score" in outcome.message:
                board_id, user = str(outcome.details["boardId"]), str(outcome.details["userId"])
                assert self._would_pass(seqs, of, board_id, user), outcome
            elif "nothing to reverse" not in outcome.message:
                board_id = str(outcome.details["boardId"])
                puts = [each for each, _ in self.events if isinstance(each, BoardPut) and each.board_id == board_id]
                ways = {(put.rules.score, put.rules.order) for put in puts}  # an empty board may get others
                assert len(ways) > 1 or any(kept.users for kept in self.plain.boards[board_id].past), outcome
            return
        assert isinstance(outcome, ReversalReceipt)
        if preview:
            assert not batch.events
            assert not outcome.applied
            self._reverse(name, seqs, of)
            return
        [event] = batch.events
        assert isinstance(event, Reversed)
        assert event.actions == outcome.actions
        self.reversals.append(event)
        self.plain._next(max(self.now_ms, self.plain.time_ms))
        for seq in event.actions:
            assert (held(seq) is None) == event.again
            self._put_back(seq) if event.again else self._take_out(seq)
        for change in outcome.changes:
            if change.period is None:
                assert [(row.rank, row.user_id, row.score) for row in change.top] == self.plain.rows(change.board_id)[
                    :10
                ]

    def _would_pass(self, seqs: Sequence[int], of: Reversed | None, board_id: str, user: str) -> bool:
        """Tell whether a user's score in a period of a board would pass the largest one after a reversal."""
        held = self.scoreboard.reversals.of_action
        back = {seq for seq in seqs if of is not None and held(seq) == of.seq}
        for other_id, number, done in self._lists():
            if other_id == board_id:
                here = (board_id, number, user)
                again = [one for seq in back for *place, one in self.out[seq] if tuple(place) == here]
                left = [one for one in done.get(user, []) if of is not None or one.seq not in seqs]
                running = self.plain.boards[board_id]
                rules = running.rules if number == running.period_number else self.past_done[board_id, number][0]
                each = sorted([*left, *again], key=lambda one: one.seq)
                if each and place_of(rules, each).score > LARGEST:
                    return True
        return False

    def _take_out(self, seq: int) -> None:
        taken = self.out[seq] = []
        for board_id, number, done in self._lists():
            for user in [user for user, each in done.items() if any(one.seq == seq for one in each)]:
                [one] = [one for one in done[user] if one.seq == seq]
                done[user].remove(one)
                taken.append((board_id, number, user, one))
                if not done[user]:
                    del done[user]
                    if number == self.plain.boards[board_id].period_number:
                        self.plain.boards[board_id].past_ranks.forget(user)

    def _put_back(self, seq: int) -> None:
        for board_id, number, user, one in self.out.pop(seq):
            for other_id, other, done in self._lists():
                if (other_id, other) == (board_id, number):
                    done[user] = sorted([*done.get(user, []), one], key=lambda each: each.seq)

    def _lists(self) -> list[tuple[str, int, dict[str, list[Done]]]]:
        """List what was done in each period, the running ones as they are now."""
        lists = [(board_id, board.period_number, board.done) for board_id, board in self.plain.boards.items()]
        running = {(board_id, number) for board_id, number, _ in lists}
        return lists + [(*key, done) for key, (_, done) in self.past_done.items() if key not in running]

    def _past_row(self, board_id: str, past: Past, user: str) -> Rescored | None:
        """Look a user up in a past period, as it was corrected since."""
        corrected = self.scoreboard.reversals.of_period(board_id, past.seq)
        for row in () if corrected is None else corrected.rows:
            if row.user_id == user:
                return None if row.new_score is None else row
        for other_id, other, rows in self.plain.ended:
            if (other_id, other.seq) == (board_id, past.seq):
                for _, name, score, ms, reached in rows:
                    if name == user:
                        return Rescored(user, score, reached, ms)
        return None

    # Steps

    @precondition(lambda self: self.scoreboard.actions)
    @rule(data=st.data(), count=st.integers(1, 4), preview=st.booleans(), user=st.integers(0, 5) | st.none())
    def take_back(self, data: st.DataObject, count: int, preview: bool, user: int | None) -> None:
        """Take some actions back, or all of a user."""
        found = [event for event, _ in self.events if isinstance(event, Incremented)]
        if user is None:
            chosen = data.draw(st.lists(st.sampled_from(found), min_size=1, max_size=count)) if found else []
        else:
            chosen = [event for event in found if event.user_id == f"user-{user}"]
        if chosen:
            self.count += 1
            self._reverse(f"reversal-{self.count}", sorted({event.seq for event in chosen}), None, preview=preview)

    @precondition(lambda self: self.reversals)
    @rule(data=st.data())
    def let_count_again(self, data: st.DataObject) -> None:
        """Reverse a reversal."""
        reversal = data.draw(st.sampled_from(self.reversals))
        if not reversal.again:
            self.count += 1
            self._reverse(f"again-{self.count}", reversal.actions, reversal)

    @precondition(lambda self: self.reversals)
    @rule(data=st.data(), asked=st.sampled_from([7, 8]))
    def send_again(self, data: st.DataObject, asked: int) -> None:
        """Send a reversal again: it is known. With another meaning, or as an action, it is a conflict."""
        before, scoreboard = data.draw(st.sampled_from(self.reversals)), self.scoreboard
        self._change_periods()
        batch = Batch(scoreboard, max(self.now_ms, scoreboard.time_ms), period_at)
        recount = Recount({}, again=before.again, seq=scoreboard.seq)
        batch.decide([Reverse(before.reversal_id, "x", "ref", asked, recount)])
        action = Increment("user-1", before.reversal_id, "WIN", "cup", "game")
        again = Batch(scoreboard, max(self.now_ms, scoreboard.time_ms), period_at)
        again.decide([action])
        [answer], [conflict] = batch.settle(), again.settle()
        assert not batch.events
        assert isinstance(conflict, Rejection)
        if asked == before.asked:
            assert isinstance(answer, ReversalReceipt)
            assert (answer.applied, answer.seq) == (False, before.seq)
        else:
            assert isinstance(answer, Rejection)
            assert (answer.code, conflict.code) == ("CONFLICT", "CONFLICT")

    @invariant()
    def past_periods_are_as_the_model_says(self) -> None:
        """Who was corrected in a kept past period has the score of what is left; the others were not touched."""
        for board_id, board in self.plain.boards.items():
            for past in board.past:
                corrected = self.scoreboard.reversals.of_period(board_id, past.seq)
                # Others only passed with the one that ended, which may be forgotten before them.
                ended = any((other, each) == (board_id, past) for other, each, _ in self.plain.ended)
                if corrected is not None and ended:
                    self._check_past(board_id, board, past)

    def _check_past(self, board_id: str, board: PlainBoard, past: Past) -> None:
        rules, done = self.past_done[board_id, self.past_numbers[board_id, past.seq]]
        corrected = self.scoreboard.reversals.of_period(board_id, past.seq)
        assert corrected is not None
        places = {user: place_of(rules, each) for user, each in done.items()}
        for row in corrected.rows:
            place = places.get(row.user_id)
            expected = (None, 0, 0) if place is None else (place.score, place.seq, place.ms)
            assert (row.new_score, row.reached_seq, row.updated_ms) == expected
        [shown] = [rows for other, each, rows in self.plain.ended if (other, each.seq) == (board_id, past.seq)]
        assert corrected.count == len(self._were_there(shown, corrected) & places.keys())

    def _were_there(self, shown: Sequence[tuple[Any, ...]], _corrected: CorrectedPeriod) -> set[str]:
        """Who has a row in a past period, unless a correction takes it."""
        return {name for _, name, *_ in shown}


TestReversals = ReversalsMachine.TestCase
TestReversals.settings = settings(max_examples=in_ci(25, 60), stateful_step_count=40)
