"""Holds beside a plain model: a list of actions for each period, sorted and counted anew after every step.

Two boards, one fed by the other, of every mode; flags and holds, decisions, reversals, resets, other rules, restarts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import pytest

from engine.board_rules import BoardRules, Rules, WatchRules, next_score
from engine.commands import PutBoard, Rejection, ResetBoard, ReviewReceipt
from engine.events import Event, Incremented, PeriodChanged, Reversed, ReviewDecided
from engine.scoreboard import Scoreboard
from snapshots.digests import digests_of
from tests.engine.holding import HoldStory
from tests.engine.plain_watch import HOUR_MS, MINUTE_MS, PlainReviews, told_of
from tests.engine.test_watch import POINTS, replayed
from tests.seeds import in_ci

MODES = (("sum", "descending"), ("best", "descending"), ("last", "ascending"), ("count", "descending"))


@dataclass
class Plain:
    """What counts, as lists. `actions` are (seq, period, board, user, worth)."""

    reviews: PlainReviews = field(default_factory=PlainReviews)
    rules: dict[str, BoardRules] = field(default_factory=dict)
    period: dict[str, int] = field(default_factory=dict)
    actions: list[tuple[int, int, str, str, int]] = field(default_factory=list)
    held: set[tuple[int, str]] = field(default_factory=set)
    reversed: set[int] = field(default_factory=set)
    held_ever = 0
    released_ever = 0

    def take(self, event: Event) -> None:
        """Take in the next event; check that exactly those actions are held that should be."""
        if isinstance(event, Incremented):
            boards = [event.board_id, *(fed.board_id for fed in event.fed)]
            worths = [event.delta if event.value is None else event.value, *(fed.value for fed in event.fed)]
            for place, (board_id, worth) in enumerate(zip(boards, worths, strict=True)):
                assert (place in event.held) == self.reviews.is_held(board_id, event.user_id), (event, place)
                self.actions.append((event.seq, self.period.get(board_id, 0), board_id, event.user_id, worth))
                if place in event.held:
                    self.held.add((event.seq, board_id))
                    self.held_ever += 1
        elif isinstance(event, Reversed):
            self.reversed = self.reversed - set(event.actions) if event.again else self.reversed | set(event.actions)
        elif isinstance(event, ReviewDecided):
            board_id, user = self.reviews.reviews[event.review_id][:2]
            mine = {seq for seq, _, board, name, _ in self.actions if (board, name) == (board_id, user)}
            freed = {(seq, board) for seq, board in self.held if board == board_id and seq in mine}
            self.held -= freed
            self.released_ever += len(freed)
        elif isinstance(event, PeriodChanged):
            self.period[event.board_id] = self.period.get(event.board_id, 0) + 1
        self.reviews.take(event)

    def scores(self, board_id: str, period: int) -> dict[str, tuple[int, int]]:
        """Count all scores of a period anew: score and the seq that reached it, by user."""
        found: dict[str, tuple[int, int]] = {}
        for seq, other, board, user, worth in self.actions:
            if (other, board) == (period, board_id) and seq not in self.reversed and (seq, board) not in self.held:
                old = found.get(user)
                score = next_score(self.rules[board_id], None if old is None else old[0], worth)
                if old is None or score != old[0]:
                    found[user] = (score, seq)
        return found


class Play:
    """One random story, with its model beside it."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.plain = Plain()
        self.taken = 0
        boards = {"cup": self.rules(("laps",)), "laps": self.rules(())}
        self.plain.rules = boards
        self.story = HoldStory(**boards)
        self.users = [f"user-{n}" for n in range(self.dice.choice([2, 30]))]
        self.refused = self.reversals = 0
        self.check()

    def rules(self, feeds: tuple[str, ...]) -> BoardRules:
        """Choose a board. Its mode never changes: the model counts a past period by the rules of now."""
        mode, order = self.dice.choice(MODES)
        watch: dict[str, float] = {"callers_per_user": self.dice.choice([1, 2])}
        if order == "descending":
            watch["growth_per_minute"] = self.dice.choice([40, 300])
        watch["outlier_z"] = self.dice.choice([1, 2.5])
        action = self.dice.choice(["hold", "hold", "flag"])
        watching = WatchRules(**watch, action=action)  # type: ignore[arg-type]
        return BoardRules(POINTS, score=mode, order=order, feeds=feeds, watch=watching)  # type: ignore[arg-type]

    def step(self) -> None:
        """Do one thing."""
        story, dice = self.story, self.dice
        story.now_ms += dice.choice([0, 1, 20_000, MINUTE_MS, 20 * MINUTE_MS, HOUR_MS])
        verb = dice.choices(["score", "decide", "reverse", "reset", "put", "restart"], [12, 6, 2, 1, 1, 1])[0]
        opened = [each for each in story.scoreboard.reviews.all() if each.state == "open"]
        if verb == "decide" and opened:
            late = dice.choice([0, 0, 1])
            preview = dice.random() < 0.1
            decision = dice.choice(["accept", "reverse"])
            outcome = story.decide(dice.choice(opened), decision, late=late, preview=preview)
            assert isinstance(outcome, ReviewReceipt) or self.may_be_refused(outcome), outcome
        elif verb == "reverse":
            self.reverse()
        elif verb == "reset":
            story.do(ResetBoard(dice.choice(["cup", "laps"]), "ops"))
        elif verb == "put":
            board_id = dice.choice(["cup", "laps"])
            old = self.plain.rules[board_id]
            watch = dice.choice([None, self.rules(()).watch]) if old.order == "descending" else None
            self.plain.rules[board_id] = msgspec.structs.replace(old, watch=watch)
            story.do(PutBoard(board_id, self.plain.rules[board_id], "ops"))
        elif verb == "restart":
            image = story.scoreboard.capture()
            story.scoreboard = Scoreboard.from_image(Rules({}), image)
            story.scoreboard.end_replay()
            assert digests_of(story.scoreboard.capture()) == digests_of(image)
        else:
            chosen = dice.choices(self.users, k=dice.choice([1, 6, 40]))
            story.do(*(
                story.score(user, dice.randrange(60), dice.choice("abc"), dice.choice(["cup", "cup", "laps"]))
                for user in chosen
            ))  # fmt: skip
        self.check()

    def may_be_refused(self, outcome: object) -> bool:
        """Whether a refusal is one that must be: nothing is left to reverse, or its sender gathers anew."""
        assert isinstance(outcome, Rejection)
        self.refused += 1
        return "nothing left" in outcome.message or "again" in outcome.details

    def reverse(self) -> None:
        """Take some actions back, or let those of a reversal count again."""
        seqs = sorted({seq for seq, *_ in self.plain.actions})
        made = [event for event in self.story.events() if isinstance(event, Reversed) and not event.again]
        self.reversals += 1
        if made and self.dice.random() < 0.4:
            event = self.dice.choice(made)
            self.story.reverse_actions(f"r{self.reversals}", list(event.actions), event.seq)
        elif seqs:
            self.story.reverse_actions(f"r{self.reversals}", self.dice.sample(seqs, min(len(seqs), 4)))

    def check(self) -> None:
        """Compare all that is shown with the model."""
        events = self.story.events()
        for event in events[self.taken :]:
            self.plain.take(event)
        self.taken = len(events)
        scoreboard = self.story.scoreboard
        assert told_of(scoreboard.reviews) == self.plain.reviews.told()
        held = {(seq, place[0]) for place in scoreboard.reviews.holds.places()
                for seq in scoreboard.reviews.holds.of(place)}  # fmt: skip
        assert held == self.plain.held
        for board_id in self.plain.rules:
            expected = self.plain.scores(board_id, self.plain.period.get(board_id, 0))
            board = scoreboard.boards[board_id]
            shown = {user: board.place_of(user) for user in self.users}
            found = {user: (row.new_score, row.reached_seq) for user, row in shown.items() if row is not None}
            assert found == expected, board_id
            self.check_past(board_id)

    def check_past(self, board_id: str) -> None:
        """Compare the past periods that were corrected. The model numbers periods as they end.

        Whoever had no row when a period ended, because of a reversal, does not come back into it.
        """
        ends = [event.seq for event in self.story.events()
                if isinstance(event, PeriodChanged) and event.board_id == board_id]  # fmt: skip
        for number, seq in enumerate(ends):
            corrected = self.story.scoreboard.reversals.of_period(board_id, seq)
            expected = self.plain.scores(board_id, number)
            for row in () if corrected is None else corrected.rows:
                place = expected.get(row.user_id)
                assert (row.new_score, row.reached_seq) == ((None, 0) if place is None else place)
            if corrected is not None:
                [names] = [each.ranking._ids for each in self.story.ended if each.past.seq == seq]
                assert corrected.count == len(expected.keys() & {*names, *(row.user_id for row in corrected.rows)})


@pytest.mark.parametrize("start", range(0, in_ci(60, 120), 30))
def test_random_play_agrees_with_the_plain_model(start: int) -> None:
    """Every score, every held action and every review; a replay of the log has the same bytes."""
    held = released = 0
    for seed in range(start, start + 30):
        play = Play(seed)
        for _ in range(25):
            play.step()
        digests = digests_of(play.story.scoreboard.capture())
        assert digests_of(replayed(play.story.events()).capture()) == digests
        held, released = held + play.plain.held_ever, released + play.plain.released_ever
        if seed % 10 == 0:
            check_every_prefix(play.story.events())
    assert held > 300, "the dice hold too little to test anything"
    assert released > 100


def check_every_prefix(events: Sequence[Event]) -> None:
    """Stop a replay after each event, as a restore may: also between a reversal and its decision all is whole."""
    scoreboard = Scoreboard(Rules({}))
    for event in events:
        scoreboard.apply(event, 1)
        scoreboard._check()
        image = scoreboard.capture()
        read = Scoreboard.from_image(Rules({}), image)
        read.end_replay()
        assert digests_of(read.capture()) == digests_of(image)
