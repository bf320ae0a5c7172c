"""What a board holds until somebody decides: which actions, what becomes of them, and the same on every node."""

from __future__ import annotations

import msgspec
import pytest

from engine import foresight, reviews
from engine.board_rules import BoardRules, Range, Rules, WatchRules
from engine.commands import DecideReview, PutBoard, Receipt, Rejection, ResetBoard, ReviewReceipt
from engine.events import Incremented, Reversed, ReviewDecided
from engine.holds import Holds
from engine.limits import SCORE_MAX
from engine.recount import Adds, Recount
from engine.scoreboard import Scoreboard
from snapshots.digests import digests_of
from tests.engine.holding import HoldStory
from tests.engine.test_watch import POINTS, replayed, rules


def hold(feeds: tuple[str, ...] = (), limit: int = 100) -> BoardRules:
    """A board that holds what comes after more than `limit` points within a minute."""
    watch = WatchRules(growth_per_minute=limit, action="hold")
    return BoardRules(POINTS, feeds=feeds, watch=watch)


def flagged(**boards: BoardRules) -> HoldStory:
    """A story in which ann has 120 points on the cup, which flagged her."""
    story = HoldStory(**boards)
    story.do(story.score("ann", 60))
    story.do(story.score("ann", 60))
    return story


def test_what_comes_after_the_flag_is_held() -> None:
    """The action that flagged counts, the next ones do not, others go on, and the answers say so."""
    story = flagged(cup=hold())
    assert (story.held(), story.shown("ann")) == ([False], 120)
    story.do(story.score("ben", 7), story.score("ann", 5), story.score("ann", 6), story.score("ben", 7))
    assert story.held() == [False, True, True, False]
    assert (story.shown("ann"), story.shown("ben")) == (120, 14)
    [_, first, _, _] = story.answers
    assert isinstance(first, Receipt)
    assert (first.new_score, first.delta, first.applied, first.rank, first.previous_rank) == (120, 0, True, 1, 1)
    [event] = [event for event in story.frames[-1] if event.seq == first.seq]
    assert isinstance(event, Incremented)
    assert (event.held, event.delta, event.value, event.new_score) == ((0,), 0, 5, 120)
    assert story.scoreboard.reviews.holds.by_board() == {"cup": 2}


def test_the_hold_begins_within_a_batch() -> None:
    """A batch that flags a user holds what follows in it, as single actions would be held."""
    story = HoldStory(cup=hold())
    story.do(*(story.score("ann", 40) for _ in range(5)), story.score("ben", 1))
    assert story.held() == [False, False, False, True, True, False]
    assert story.shown("ann") == 120
    one_by_one = HoldStory(cup=hold())
    for _ in range(5):
        one_by_one.do(one_by_one.score("ann", 40))
    assert one_by_one.shown("ann") == 120
    assert len(one_by_one.scoreboard.reviews.holds.of(("cup", "ann"))) == 2


def test_a_board_that_is_fed_holds_for_itself() -> None:
    """The action counts on its own board; only the one where the user was flagged holds it."""
    story = HoldStory(all=hold(limit=50), cup=BoardRules(POINTS, feeds=("all",)))
    story.do(story.score("ann", 60), story.score("ann", 5))
    assert (story.held(), story.shown("ann"), story.shown("ann", "all")) == ([False, False], 65, 60)
    story.decide(story.open("ann", "all"), "accept")
    assert (story.shown("ann"), story.shown("ann", "all")) == (65, 65)


def test_a_flag_alone_holds_nothing() -> None:
    """And a watch that is removed, or only flags, holds no more; what is held stays held."""
    story = flagged(cup=hold())
    story.do(story.score("ann", 5))
    flag = msgspec.structs.replace(hold(), watch=WatchRules(growth_per_minute=100))
    story.do(PutBoard("cup", flag, "ops"))
    story.do(story.score("ann", 3))
    assert (story.held(), story.shown("ann")) == ([False], 123)
    story.do(PutBoard("cup", BoardRules(POINTS), "ops"))
    story.do(story.score("ann", 2))
    assert story.shown("ann") == 125
    assert story.scoreboard.reviews.holds.count == 1
    story.decide(story.open("ann"), "accept")
    assert (story.shown("ann"), story.scoreboard.reviews.holds.count) == (130, 0)


def test_accepted_actions_count_from_then_on_as_if_they_had_never_been_held() -> None:
    """The score is reached by the last of them: who had as many points before is ahead."""
    story = flagged(cup=hold())
    story.do(story.score("ann", 5))
    story.now_ms += 60_000
    story.do(story.score("ben", 90))
    story.do(story.score("ann", 5))
    seq = story.scoreboard.seq
    outcome = story.decide(story.open("ann"), "accept")
    assert isinstance(outcome, ReviewReceipt)
    assert len(outcome.actions) == 2
    [change] = outcome.changes
    assert [(user.old_score, user.new_score) for user in change.users] == [(120, 130)]
    place = story.scoreboard.boards["cup"].place_of("ann")
    assert place is not None
    assert (place.new_score, place.reached_seq) == (130, seq)
    story.do(story.score("ann", 5))
    assert (story.held(), story.shown("ann")) == ([False], 135)


def test_reversed_actions_are_gone_on_all_boards_and_the_hold_ends() -> None:
    """One frame has the reversal and the decision; what came before the window stays."""
    story = HoldStory(all=BoardRules(POINTS), cup=hold(("all",)))
    story.do(story.score("ann", 50))
    story.now_ms += 120_000
    story.do(story.score("ann", 101), story.score("ann", 5))
    assert (story.shown("ann"), story.shown("ann", "all")) == (151, 156)
    review = story.open("ann")
    outcome = story.decide(review, "reverse")
    assert isinstance(outcome, ReviewReceipt)
    assert (outcome.reversal_id, len(outcome.actions)) == (f"review-{review.review_id}", 2)
    assert [type(event) for event in story.frames[-1]] == [Reversed, ReviewDecided]
    assert (story.shown("ann"), story.shown("ann", "all")) == (50, 50)
    assert story.scoreboard.reviews.open_count == 0
    story.do(story.score("ann", 5))
    assert (story.held(), story.shown("ann")) == ([False], 55)
    reversal = story.scoreboard.action_seq(outcome.reversal_id)
    story.reverse_actions("back", list(outcome.actions), reversal)
    assert (story.shown("ann"), story.shown("ann", "all")) == (161, 161)


def test_actions_that_come_between_gathering_and_writing_are_part_of_the_decision() -> None:
    """Neither lost nor left held: the recount takes them in while it is completed."""
    for decision, expected in (("accept", 135), ("reverse", None)):
        story = flagged(cup=hold())
        story.do(story.score("ann", 5))
        story.do(story.score("ann", 10))
        outcome = story.decide(story.open("ann"), decision, late=1)
        assert isinstance(outcome, ReviewReceipt), outcome
        assert (story.shown("ann"), story.scoreboard.reviews.holds.count) == (expected, 0)


def test_a_decision_that_did_not_look_at_what_is_held_changes_nothing() -> None:
    """Its sender is told to gather it: `again`. So it is if a board was not looked at from the beginning."""
    story = flagged(all=BoardRules(POINTS), cup=hold(("all",)))
    story.do(story.score("ann", 5))
    review = story.open("ann")
    short = Recount({}, again=False, seq=story.scoreboard.seq, adds=Adds("cup", "ann", 0))
    for command in (
        DecideReview(review.review_id, "accept", "", "judge"),
        DecideReview(review.review_id, "reverse", "", "judge"),
        DecideReview(review.review_id, "reverse", "", "judge", "", short),
    ):
        story.do(command)
        [outcome] = story.answers
        assert isinstance(outcome, Rejection)
        assert outcome.details["again"] == 1
    assert story.scoreboard.reviews.open_count == 1


def test_a_preview_says_what_would_come_of_it() -> None:
    """Nothing is logged, and the decision then does what it said."""
    story = flagged(cup=hold())
    story.do(story.score("ann", 5))
    for decision in ("reverse", "accept"):
        seq = story.scoreboard.seq
        told = story.decide(story.open("ann"), decision, preview=True)
        assert isinstance(told, ReviewReceipt)
        assert (told.applied, told.seq, story.scoreboard.seq) == (False, seq, seq)
    done = story.decide(story.open("ann"), "accept")
    assert isinstance(done, ReviewReceipt)
    assert isinstance(told, ReviewReceipt)
    assert (done.applied, done.changes) == (True, told.changes)


def test_a_hold_goes_on_over_the_end_of_a_period() -> None:
    """A user without a row gets none by an action that is held. Both periods are right after the decision."""
    story = flagged(cup=hold())
    story.do(story.score("ann", 5), story.score("ben", 1))
    story.do(ResetBoard("cup", "ops"))
    story.do(story.score("ann", 7), story.score("ben", 1))
    [answer, _] = story.answers
    assert isinstance(answer, Receipt)
    assert (answer.held, answer.new_score, answer.rank, story.shown("ann")) == (True, 0, None, None)
    story.decide(story.open("ann"), "accept")
    [ended] = story.ended
    corrected = story.scoreboard.reversals.of_period("cup", ended.past.seq)
    assert corrected is not None
    assert [(row.user_id, row.new_score) for row in corrected.rows] == [("ann", 125)]
    assert (story.shown("ann"), corrected.count) == (7, 2)


@pytest.mark.parametrize("mode", ["sum", "best", "last", "count"])
def test_who_did_nothing_that_counted_in_a_past_period_gets_a_row_by_its_rules(mode: str) -> None:
    """All was held there, so the board counts by the same rules since."""
    board = msgspec.structs.replace(hold(), score=mode)
    story = HoldStory(cup=board)
    story.do(story.score("ann", 101) if mode != "count" else story.score("ann", 1))
    story.do(*(story.score("ann", 1) for _ in range(100 if mode == "count" else 0)))
    story.do(ResetBoard("cup", "ops"))
    story.do(story.score("ben", 9), story.score("ann", 4), story.score("ann", 3))
    assert story.held() == [False, True, True]
    story.do(ResetBoard("cup", "ops"))
    story.decide(story.open("ann"), "accept")
    corrected = story.scoreboard.reversals.of_period("cup", story.ended[-1].past.seq)
    assert corrected is not None
    assert [row.new_score for row in corrected.rows] == [{"sum": 7, "best": 4, "last": 3, "count": 2}[mode]]


def test_a_board_that_holds_goes_on_counting_in_the_same_way() -> None:
    """Also while it has no scores: what is held will be counted by the rules under which it came."""
    story = flagged(cup=hold())
    story.do(story.score("ann", 5))
    story.do(ResetBoard("cup", "ops"))
    other = msgspec.structs.replace(hold(), score="best")
    story.do(PutBoard("cup", other, "ops"))
    [refused] = story.answers
    assert isinstance(refused, Rejection)
    assert (refused.details["field"], "holds actions" in refused.message) == ("score", True)
    story.decide(story.open("ann"), "accept")
    story.do(PutBoard("cup", other, "ops"))
    assert not isinstance(story.answers[0], Rejection)


def test_a_reversal_takes_held_actions_too() -> None:
    """It changes no score, and they do not count after the decision. Taken back itself, they do."""
    story = flagged(cup=hold())
    story.do(story.score("ann", 5))
    [seq] = story.scoreboard.reviews.holds.of(("cup", "ann"))
    story.reverse_actions("dispute", [seq])
    assert story.shown("ann") == 120
    reversal = story.scoreboard.seq
    story.decide(story.open("ann"), "accept")
    assert story.shown("ann") == 120
    story.reverse_actions("back", [seq], reversal)
    assert story.shown("ann") == 125


def test_a_reversal_that_was_made_before_can_be_named_if_nothing_is_left_held() -> None:
    """Otherwise the refusal says what to send."""
    story = flagged(cup=hold())
    story.do(story.score("ann", 5))
    counted = [event.seq for event in story.events() if isinstance(event, Incremented) and not event.held]
    story.reverse_actions("dispute", counted)
    refused = story.decide(story.open("ann"), "reverse", reversal_id="dispute")
    assert isinstance(refused, Rejection)
    assert (refused.details["held"], "leave reversalId out" in refused.message) == (1, True)
    story.reverse_actions("rest", list(story.scoreboard.reviews.holds.of(("cup", "ann"))))
    nothing = story.decide(story.open("ann"), "reverse")
    assert isinstance(nothing, Rejection)
    assert "nothing left" in nothing.message
    assert isinstance(story.decide(story.open("ann"), "reverse", reversal_id="dispute"), ReviewReceipt)
    assert (story.shown("ann"), story.scoreboard.reviews.holds.count) == (None, 0)


def test_a_repeated_action_is_answered_as_held_while_it_is() -> None:
    """Exactly once holds, and the answer says what is so now."""
    story = flagged(cup=hold())
    action = story.score("ann", 5)
    story.do(action)
    story.do(action)
    assert story.held() == [True]
    story.decide(story.open("ann"), "accept")
    story.do(action)
    [answer] = story.answers
    assert isinstance(answer, Receipt)
    assert (answer.held, answer.applied, answer.new_score) == (msgspec.UNSET, False, 125)


def test_a_score_that_would_pass_the_largest_refuses_the_decision() -> None:
    """What is held was not added up. It can be taken back."""
    wide = BoardRules({"LAP": Range(0, SCORE_MAX)}, watch=WatchRules(growth_per_minute=1, action="hold"))
    story = HoldStory(cup=wide)
    story.do(story.score("ann", SCORE_MAX), story.score("ann", SCORE_MAX))
    refused = story.decide(story.open("ann"), "accept")
    assert isinstance(refused, Rejection)
    assert "largest score" in refused.message
    assert isinstance(story.decide(story.open("ann"), "reverse"), ReviewReceipt)


def test_no_more_is_held_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The action is refused, on all its boards; also within a batch. After a decision there is room again."""
    monkeypatch.setattr(foresight, "HELD_ACTIONS_MAX", 2)
    story = HoldStory(all=BoardRules(POINTS, feeds=("cup",)), cup=hold())
    story.do(story.score("ann", 101), *(story.score("ann", 1, board_id="all") for _ in range(3)))
    [*_, last] = story.answers
    assert isinstance(last, Rejection)
    assert (last.code, last.details["boardId"], "decision" in last.message) == ("CONFLICT", "cup", True)
    assert story.shown("ann", "all") == 2
    monkeypatch.setattr(foresight, "HELD_MAX", 2)
    monkeypatch.setattr(foresight, "HELD_ACTIONS_MAX", 9)
    story.do(story.score("ann", 1))
    assert isinstance(story.answers[0], Rejection)
    story.decide(story.open("ann"), "accept")
    story.do(story.score("ann", 1))
    assert story.shown("ann") == 104


def test_flags_of_other_boards_prevent_no_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue has room for users whom a board holds. Without that room the hold begins with the next batch."""
    monkeypatch.setattr(reviews, "OPEN_REVIEWS_MAX", 1)
    monkeypatch.setattr(foresight, "OPEN_REVIEWS_MAX", 1)
    story = HoldStory(cup=hold(), fair=rules(growth_per_minute=10))
    story.do(*(story.score(f"user-{n}", 11, board_id="fair") for n in range(3)))
    assert story.scoreboard.reviews.passed_over == 2
    story.do(story.score("ann", 101), story.score("ann", 5))
    assert story.held() == [False, True]
    monkeypatch.setattr(reviews, "OPEN_HOLDS_MORE", 1)
    monkeypatch.setattr(foresight, "OPEN_HOLDS_MORE", 1)
    story.do(story.score("ben", 101), story.score("ben", 5))
    assert story.held() == [False, False]


def test_a_state_with_holds_goes_through_images_and_replays() -> None:
    """A restart, a replica and a shard hold the same; without holds the part has its old bytes."""
    story = HoldStory(all=hold(limit=50), cup=hold(("all",)))
    before = dict(story.scoreboard.capture().parts)["reviews"]
    assert len(msgspec.msgpack.decode(before)) == 5
    story.do(*(story.score("ann", 40) for _ in range(5)), *(story.score("ben", 60) for _ in range(3)))
    image = story.scoreboard.capture()
    read = Scoreboard.from_image(Rules({}), image)
    read.end_replay()
    read._check()
    assert digests_of(read.capture()) == digests_of(image) == digests_of(replayed(story.events()).capture())
    shard = Scoreboard(Rules({}))
    for event in story.events():
        shard.follow(event, 1, "all".__eq__)
    assert shard.boards["all"].top(9) == story.scoreboard.boards["all"].top(9)
    story.scoreboard = read
    story.decide(story.open("ann"), "accept")
    story.decide(story.open("ann", "all"), "accept")
    for event in story.events()[-2:]:
        shard.follow(event, 1, "all".__eq__)
    assert shard.boards["all"].top(9) == story.scoreboard.boards["all"].top(9)
    assert shard.reviews.holds.by_board() == {"all": 2}


def test_holds_are_packed_in_one_way() -> None:
    """Equal holds have equal bytes, in whatever order they came."""
    one, other = Holds(), Holds()
    events = [Incremented(seq, 0, "b", user, f"a{seq}", 0, "R", "c", 0, 1, False, (), (0,))
              for seq, user in enumerate(("x", "y", "x"), 5)]  # fmt: skip
    for event in events:
        one.add(event)
    for event in sorted(events, key=lambda each: (each.user_id != "y", each.seq)):
        other.add(event)
    assert one.pack() == other.pack() == Holds.unpack(one.pack()).pack()
    assert (one.has(("b", "x"), 7), one.has(("b", "x"), 6), one.has(("b", "z"), 7)) == (True, False, False)
