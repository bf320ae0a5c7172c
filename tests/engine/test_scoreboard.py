"""Deciding, applying, settling: exactly once, the rules, images and replays."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import UNSET

from engine.batch import Batch
from engine.board_rules import rules_of_points
from engine.commands import Command, Increment, Receipt, Rejection, UserReceipt
from engine.events import EpochBegun, Event
from engine.limits import SCORE_MAX
from engine.scoreboard import Scoreboard
from engine.users import User
from tests.engine.model import Model, increment, perform, put, rows, told

POINTS = {"main": {"ACTION_COMPLETED": 10, "BONUS": 25}, "weekly": {"ACTION_COMPLETED": 1}}


def scoreboard_of(*, require_registered: bool = False, points: dict[str, dict[str, int]] | None = None) -> Scoreboard:
    return Scoreboard(rules_of_points(points or POINTS, require_registered=require_registered))


def one(scoreboard: Scoreboard, command: Command) -> Any:
    return perform(scoreboard, [command])[0]


def test_the_server_decides_the_points_and_tells_the_new_place() -> None:
    """The receipt of a first and of a second action, with ranks before and after."""
    scoreboard = scoreboard_of()
    one(scoreboard, increment("ben", "b-1", "BONUS"))
    first = one(scoreboard, increment("ann", "a-1"))
    assert first == Receipt("ann", 10, 10, True, "a-1", "main", 1, 2, 2, None)
    second = one(scoreboard, increment("ann", "a-2", "BONUS"))
    assert second == Receipt("ann", 35, 25, True, "a-2", "main", 1, 3, 1, 2)


def test_the_same_action_again_is_answered_but_not_counted() -> None:
    """The duplicate has the original's seq, adds nothing, and shows the score of now."""
    scoreboard = scoreboard_of()
    original = one(scoreboard, increment("ann", "a-1"))
    one(scoreboard, increment("ann", "a-2"))
    again = one(scoreboard, increment("ann", "a-1"))
    assert again == Receipt("ann", 20, 0, False, "a-1", "main", 1, original.seq, 1, 1)
    assert scoreboard.seq == 2
    assert len(scoreboard.actions) == 2


def test_the_same_action_with_another_meaning_is_a_conflict() -> None:
    """Another user, board or reason under a used actionId is refused, and nothing is logged."""
    scoreboard = scoreboard_of()
    one(scoreboard, increment("ann", "a-1"))
    for command in (
        increment("ben", "a-1"),
        increment("ann", "a-1", board="weekly"),
        increment("ann", "a-1", "BONUS"),
        increment("ann", "a-1", "NO_SUCH_REASON"),
    ):
        outcome = one(scoreboard, command)
        assert outcome.code == "CONFLICT"
        assert outcome.details == {"field": "actionId", "actionId": "a-1", "seq": 1}
    assert scoreboard.seq == 1


def test_duplicates_and_conflicts_inside_one_batch() -> None:
    """A batch behaves as if its commands had come one after another, before any of it is applied."""
    scoreboard = scoreboard_of()
    commands: list[Command] = [
        increment("ann", "a"),
        increment("ann", "a"),
        increment("ben", "a"),
        increment("ann", "b"),
        put("ann", active=False),
        increment("ann", "c"),
        put("ann", active=True),
        increment("ann", "d"),
    ]
    outcomes = perform(scoreboard, commands)
    assert [told(outcome) for outcome in outcomes] == [
        ("applied", 1, 10),
        ("duplicate", 1, 10),
        ("CONFLICT", None, None),
        ("applied", 2, 20),
        ("put", 3, None),
        ("INVALID_REQUEST", None, None),
        ("put", 4, None),
        ("applied", 5, 30),
    ]
    scoreboard._check()


def test_unknown_boards_and_reasons_are_refused_by_name() -> None:
    """The rejection names the field and what is known."""
    scoreboard = scoreboard_of()
    outcome = one(scoreboard, increment("ann", "a", board="nope"))
    assert (outcome.code, outcome.details) == ("INVALID_REQUEST", {"field": "boardId", "allowed": ["main", "weekly"]})
    outcome = one(scoreboard, increment("ann", "a", "BONUS", board="weekly"))
    assert outcome.details == {"field": "reason", "allowed": ["ACTION_COMPLETED"]}
    assert scoreboard.seq == 0


def test_a_score_never_passes_the_largest() -> None:
    """The increment that would do it is refused, also when it is the second of one batch."""
    scoreboard = scoreboard_of(points={"main": {"ACTION_COMPLETED": 10, "BONUS": SCORE_MAX - 15}})
    reasons = ["BONUS", "ACTION_COMPLETED", "ACTION_COMPLETED"]
    outcomes = perform(scoreboard, [increment("ann", f"a{n}", reason) for n, reason in enumerate(reasons)])
    assert [told(outcome)[0] for outcome in outcomes] == ["applied", "applied", "INVALID_REQUEST"]
    assert scoreboard.boards["main"].score("ann") == SCORE_MAX - 5


def test_registration_can_be_required() -> None:
    """Unknown users are refused until they are put."""
    scoreboard = scoreboard_of(require_registered=True)
    outcome = one(scoreboard, increment("ann", "a"))
    assert isinstance(outcome, Rejection)
    assert outcome.details == {"field": "userId"}
    assert one(scoreboard, put("ann")) == UserReceipt("ann", None, True, True, 1, 1)
    assert one(scoreboard, increment("ann", "a")).applied


def test_an_inactive_user_is_off_every_board_and_comes_back_with_the_scores() -> None:
    """An increment meanwhile is refused with the reason; retries of old actions are still answered."""
    scoreboard = scoreboard_of()
    perform(scoreboard, [increment("ann", "a"), increment("ann", "b", board="weekly"), increment("ben", "c")])
    receipt = one(scoreboard, put("ann", active=False))
    assert receipt == UserReceipt("ann", None, False, True, 1, 4)
    assert rows(scoreboard.boards["main"]) == [(1, "ben", 10)]
    assert rows(scoreboard.boards["weekly"]) == []
    refused = one(scoreboard, increment("ann", "d"))
    assert "inactive" in refused.message
    retried = one(scoreboard, increment("ann", "a"))
    assert (retried.applied, retried.new_score, retried.rank) == (False, 10, None)
    one(scoreboard, put("ann", active=True))
    assert rows(scoreboard.boards["main"]) == [(1, "ann", 10), (2, "ben", 10)]
    scoreboard._check()


def test_putting_what_is_already_so_logs_nothing() -> None:
    """The answer says so; a first put registers even without any detail."""
    scoreboard = scoreboard_of()
    one(scoreboard, put("ann", name="Ann"))
    assert one(scoreboard, put("ann", name="Ann")) == UserReceipt("ann", "Ann", True, False, 1, 1)
    assert one(scoreboard, put("ann")) == UserReceipt("ann", "Ann", True, False, 1, 1)
    assert scoreboard.seq == 1


def test_a_display_name_moves_the_boards_on_which_it_is_seen() -> None:
    """Renaming counts as a change of the top where the user stands in it."""
    scoreboard = scoreboard_of()
    perform(scoreboard, [increment("ann", "a"), put("ann", name="Ann")])
    assert scoreboard.boards["main"].top10_seq == 2
    assert scoreboard.boards["weekly"].seq == 0
    assert scoreboard.users.name("ann") == "Ann"


def test_a_name_can_be_taken_away() -> None:
    """It is an event as any other change of a name is, and the boards move where the name was seen."""
    scoreboard = scoreboard_of()
    perform(scoreboard, [increment("ann", "a"), put("ann", name="Ann")])
    assert one(scoreboard, put("ann", name=None)) == UserReceipt("ann", None, True, True, 1, 3)
    assert (scoreboard.users.name("ann"), scoreboard.boards["main"].top10_seq) == (None, 3)
    assert one(scoreboard, put("ann", name=None)) == UserReceipt("ann", None, True, False, 1, 3)
    copy = Scoreboard.from_image(scoreboard.rules, scoreboard.capture())
    assert copy.users.get("ann") == User(None, active=True)


def test_a_board_that_left_the_rules_is_kept_but_not_served() -> None:
    """Its events still apply; it is not offered to readers, and comes back when the rules name it again."""
    scoreboard = scoreboard_of()
    one(scoreboard, increment("ann", "a", board="weekly"))
    image = scoreboard.capture()
    smaller = Scoreboard.from_image(rules_of_points({"main": POINTS["main"]}), image)
    smaller.end_replay()
    smaller._check()
    assert smaller.board("weekly") is None
    assert smaller.boards["weekly"].score("ann") == 1
    again = one(smaller, increment("ann", "a", board="weekly"))
    assert isinstance(again, Receipt)
    assert not again.applied
    assert smaller.capture() == image


def test_time_never_goes_back_in_the_log() -> None:
    """A clock that was set back does not make a later event look older."""
    scoreboard = scoreboard_of()
    perform(scoreboard, [increment("ann", "a")], now_ms=2_000)
    batch = Batch(scoreboard, 1_000)
    batch.decide([increment("ann", "b")])
    assert batch.events[0].time_ms == 2_000


def test_a_new_epoch_is_kept_with_the_seq_where_it_began() -> None:
    """A duplicate from before tells the epoch of its own event."""
    scoreboard = scoreboard_of()
    one(scoreboard, increment("ann", "a"))
    scoreboard.apply(EpochBegun(seq=2, time_ms=5, epoch=2, note="restored"), 2)
    assert one(scoreboard, increment("ann", "b")).epoch == 2
    assert one(scoreboard, increment("ann", "a")).epoch == 1
    assert [scoreboard.epoch_of(seq) for seq in (1, 2, 3)] == [1, 2, 2]
    scoreboard._check()


class ScoreboardMachine(RuleBasedStateMachine):
    """The real scoreboard beside the plain model, through batches, replays and images."""

    @initialize(require_registered=st.booleans())
    def start(self, require_registered: bool) -> None:
        self.scoreboard = scoreboard_of(require_registered=require_registered)
        self.model = Model(POINTS, require_registered)
        self.events: list[Event] = []

    commands = st.lists(
        st.one_of(
            st.builds(
                increment,
                st.sampled_from(["ann", "ben", "cleo", "dora"]),
                st.integers(0, 60).map(str),
                st.sampled_from(["ACTION_COMPLETED", "BONUS", "NOPE"]),
                st.sampled_from(["main", "main", "weekly", "nope"]),
            ),
            st.builds(
                put,
                st.sampled_from(["ann", "ben", "cleo", "dora"]),
                st.sampled_from([UNSET, None, "Name", "Other"]),
                st.sampled_from([UNSET, True, False]),
            ),
        ),
        min_size=1,
        max_size=12,
    )

    @rule(commands=commands)
    def batch(self, commands: list[Command]) -> None:
        batch = Batch(self.scoreboard, 0)
        half = len(commands) // 2
        for submission in (commands[:half], commands[half:]):
            if submission:
                batch.decide(submission)
        outcomes = batch.settle()
        self.events += batch.events
        for command, outcome in zip(commands, outcomes, strict=True):
            place = (command.board_id, command.user_id) if isinstance(command, Increment) else None
            rank_before = place and self.model.rank(*place)
            kind, seq, score = self.model.perform(command)
            real = told(outcome)
            assert real[:2] == (kind, seq)
            if kind == "applied":
                assert real[2] == score
            if place and isinstance(outcome, Receipt) and outcome.applied:
                assert (outcome.previous_rank, outcome.rank) == (rank_before, self.model.rank(*place))

    @rule()
    def restart_from_an_image(self) -> None:
        self.scoreboard = Scoreboard.from_image(self.scoreboard.rules, self.scoreboard.capture())
        self.scoreboard.end_replay()

    @rule(data=st.data())
    def replay_from_the_start_with_an_image_on_the_way(self, data: st.DataObject) -> None:
        cut = data.draw(st.integers(0, len(self.events)))
        first = Scoreboard(self.scoreboard.rules)
        first.begin_replay()
        for event in self.events[:cut]:
            first.apply(event, 1)
        second = Scoreboard.from_image(first.rules, first.capture())
        for event in self.events[cut:]:
            second.apply(event, 1)
        second.end_replay()
        second._check()
        assert second.capture() == self.scoreboard.capture()

    @invariant()
    def equals_the_model(self) -> None:
        self.scoreboard._check()
        assert self.scoreboard.seq == self.model.seq
        for board_id in POINTS:
            ranking = self.model.ranking(board_id)
            board = self.scoreboard.boards[board_id]
            assert rows(board) == ranking
            for rank, user, score in ranking:
                assert (board.rank(user), board.score(user)) == (rank, score)
        for action, (seq, *_) in self.model.actions.items():
            assert self.scoreboard.action_seq(action) == seq


TestScoreboard = ScoreboardMachine.TestCase
TestScoreboard.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
