"""What the watch of a board flags: beside a plain model, and the same on every node however it came by the events."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import reviews
from engine.batch import Batch
from engine.board_rules import BoardRules, OrderMode, Range, Rules, WatchRules
from engine.commands import DecideReview, Increment, PutBoard, Rejection, ResetBoard, ReviewReceipt
from engine.events import ClockCorrected, Event, ReviewDecided
from engine.reviews import Review, Reviews
from engine.schedule import Period
from engine.scoreboard import Scoreboard
from engine.watch import POPULATION_MIN, SAMPLE, limit_of
from snapshots.digests import digests_of
from tests.engine.model import perform
from tests.engine.plain_watch import HOUR_MS, MINUTE_MS, PlainReviews, told_of

START_MS = 1_795_388_400_000
POINTS: dict[str, int | Range] = {"WIN": 10, "FOUL": -5, "LAP": Range(0, 2_000)}


def rules(order: OrderMode = "descending", feeds: tuple[str, ...] = (), **watch: float) -> BoardRules:
    """A board that chooses values, with a watch."""
    mode = "last" if order == "ascending" else "sum"
    return BoardRules(POINTS, order=order, score=mode, feeds=feeds, watch=WatchRules(**watch))  # type: ignore[arg-type]


class Story:
    """A board that is written to at times that a test sets, and all its frames."""

    def __init__(self, **boards: BoardRules) -> None:
        self.scoreboard = Scoreboard(Rules({}))
        self.frames: list[list[Event]] = []
        self.now_ms = START_MS
        self._actions = 0
        self.do(*(PutBoard(board_id, each, "ops") for board_id, each in boards.items()))

    def do(self, *commands: Increment | PutBoard | ResetBoard | DecideReview) -> None:
        """Decide and apply commands as one frame."""
        batch = Batch(self.scoreboard, self.now_ms, lambda _, ms: Period("p", ms, None))
        batch.decide(commands)
        if batch.events:
            self.frames.append(batch.events)
        batch.settle()
        self.scoreboard._check()

    def correct(self, time_ms: int) -> None:
        """Correct the clock."""
        self.now_ms = time_ms
        event = ClockCorrected(self.scoreboard.seq + 1, time_ms, self.scoreboard.seq, 1, "test")
        self.frames.append([event])
        self.scoreboard.apply(event, 1)

    def reverse(self, review: Review) -> None:
        """Decide that the points of a review were taken back, as a log says it."""
        event = ReviewDecided(
            self.scoreboard.seq + 1, self.now_ms, review.board_id, review.review_id, "reverse", "dispute", "", "judge"
        )
        self.frames.append([event])
        self.scoreboard.apply(event, 1)

    def score(self, user: str, value: int, caller: str = "game", board_id: str = "cup") -> Increment:
        """Make an increment with a value."""
        self._actions += 1
        return Increment(user, f"action-{self._actions}", "LAP", board_id, caller, value=value)

    def found(self) -> list[tuple[str, str]]:
        """List users and rules of the reviews."""
        return [(each.user_id, each.rule) for each in self.scoreboard.reviews.all()]

    def events(self) -> list[Event]:
        """List all events."""
        return [event for frame in self.frames for event in frame]


def replayed(events: Sequence[Event]) -> Scoreboard:
    """Apply events one by one, as a restart does."""
    scoreboard = Scoreboard(Rules({}))
    scoreboard.begin_replay()
    for event in events:
        scoreboard.apply(event, 1)
    scoreboard.end_replay()
    return scoreboard


def model(events: Sequence[Event]) -> PlainReviews:
    """Let the plain model see events."""
    plain = PlainReviews()
    for event in events:
        plain.take(event)
    return plain


def test_growth_within_a_minute_is_flagged_when_it_passes_the_limit() -> None:
    """At the limit nothing happens; one more point is too much, and the review says since when."""
    story = Story(cup=rules(growth_per_minute=100))
    story.do(story.score("ann", 60))
    story.now_ms += MINUTE_MS - 1
    story.do(story.score("ann", 40))
    assert story.found() == []
    story.do(story.score("ann", 1))
    [review] = story.scoreboard.reviews.all()
    assert (review.rule, review.value, review.limit, review.since_ms) == ("growth_per_minute", 101, 100, START_MS)
    assert (review.score, review.state, review.review_id) == (101, "open", f"{story.scoreboard.seq}-0")


def test_a_window_begins_with_the_first_event_after_the_one_before() -> None:
    """So what came before it does not count, and losses are not set off against growth."""
    story = Story(cup=rules(growth_per_minute=100, growth_per_hour=150))
    story.do(story.score("ann", 100))
    story.now_ms += MINUTE_MS
    story.do(Increment("ann", "foul", "FOUL", "cup", "game"), story.score("ann", 50))
    assert story.found() == []
    story.do(story.score("ann", 1))
    assert story.found() == [("ann", "growth_per_hour")]


def test_callers_of_one_user_are_counted_by_the_hour() -> None:
    """The third caller within an hour is too much where two may be; after an hour there is room again."""
    story = Story(cup=rules(callers_per_user=2))
    story.do(*(story.score("ann", 1, caller) for caller in ("one", "two", "one", "two")))
    story.now_ms += HOUR_MS
    story.do(story.score("ann", 1, "three"), story.score("ann", 1, "one"))
    assert story.found() == []
    story.do(story.score("ann", 1, "two"))
    assert story.found() == [("ann", "callers_per_user")]


@pytest.mark.parametrize("order", ["descending", "ascending"])
def test_an_outlier_is_judged_among_users_of_the_same_age(order: OrderMode) -> None:
    """Newcomers have other scores than those of an hour ago; a score that is far out is told by the order."""
    story = Story(cup=rules(order, outlier_z=5))
    story.do(*(story.score(f"old-{n}", 1_000 + n) for n in range(30)))
    story.now_ms += HOUR_MS
    story.do(*(story.score(f"new-{n}", 100 + n) for n in range(30)))
    story.now_ms += MINUTE_MS
    story.do(story.score("old-1", 0), story.score("new-1", 20))
    assert story.found() == ([("old-1", "outlier_z"), ("new-1", "outlier_z")] if order == "ascending" else [])
    story.do(story.score("new-2", 900), story.score("new-3", 110 if order == "ascending" else 5))
    assert (("new-2", "outlier_z") in story.found()) is (order == "descending")
    assert "new-3" not in dict(story.found())


def test_few_users_and_equal_scores_judge_nobody() -> None:
    """Fewer than POPULATION_MIN are no population, and where most have one score nothing says how far is far."""
    assert limit_of([1] * 5 + [2] * (POPULATION_MIN - 6), 1.0, "descending") is None
    assert limit_of([1] * 100, 1.0, "descending") is None
    assert limit_of(list(range(100)), 2.0, "descending") == 50 + int(2 * 1.4826 * 25)
    assert limit_of(list(range(100)), 1.0, "ascending") == 50 - int(1.4826 * 25)
    assert limit_of(list(range(100)), 50.0, "ascending") == 0


def test_a_large_population_is_sampled_at_even_distances() -> None:
    """The limit of some thousand users is near the one of all, and the first few do not decide it."""
    story = Story(cup=rules(outlier_z=3))
    scores = [10] * SAMPLE + [500 + n % 100 for n in range(1_600)]
    for start in range(0, len(scores), 500):
        story.do(*(story.score(f"user-{n}", score) for n, score in enumerate(scores[start : start + 500], start)))
    story.now_ms += MINUTE_MS
    story.do(story.score("user-300", 30), story.score("user-301", 900))
    assert story.found() == [("user-301", "outlier_z")]


def test_while_a_review_is_open_there_is_no_other() -> None:
    """One review of a user on a board, whatever else breaks a rule; another user and another board have their own."""
    story = Story(sum=rules(growth_per_minute=5), cup=rules(growth_per_minute=10, callers_per_user=1, feeds=("sum",)))
    story.do(story.score("ann", 11), story.score("ann", 11, "other"), story.score("ben", 11))
    found = [(each.board_id, each.user_id, each.place) for each in story.scoreboard.reviews.all()]
    assert found == [("cup", "ann", 0), ("sum", "ann", 1), ("cup", "ben", 0), ("sum", "ben", 1)]


def test_after_a_decision_a_user_begins_anew() -> None:
    """The growth until then is forgotten; an outlier who was found good is one again at twice the score."""
    story = Story(cup=rules(growth_per_minute=100, outlier_z=3))
    story.do(*(story.score(f"user-{n}", 10 + n) for n in range(30)))
    story.now_ms += MINUTE_MS
    story.do(story.score("user-1", 90))
    assert story.found() == [("user-1", "outlier_z")]
    [review] = story.scoreboard.reviews.all()
    story.do(DecideReview(review.review_id, "accept", "a good day", "judge"))
    story.do(story.score("user-1", 95))
    assert story.scoreboard.reviews.open_count == 0
    story.do(story.score("user-1", 5))
    story.do(story.score("user-1", 1))
    assert story.found() == [("user-1", "outlier_z"), ("user-1", "growth_per_minute")]


def test_a_period_begins_with_an_empty_watch_and_the_old_reviews() -> None:
    """The growth of the last period is gone with its scores; who was flagged stays on the queue."""
    story = Story(cup=rules(growth_per_hour=100))
    story.do(story.score("ann", 101), story.score("ben", 60))
    story.do(ResetBoard("cup", "ops"))
    story.do(story.score("ben", 60))
    assert story.found() == [("ann", "growth_per_hour")]


def test_other_limits_begin_a_new_watch_and_none_ends_it() -> None:
    """A put with the same watch goes on counting."""
    story = Story(cup=rules(growth_per_hour=100))
    story.do(story.score("ann", 60))
    story.do(PutBoard("cup", msgspec.structs.replace(rules(growth_per_hour=100), title="The cup"), "ops"))
    story.do(story.score("ann", 60))
    assert story.found() == [("ann", "growth_per_hour")]
    story.do(PutBoard("cup", rules(growth_per_hour=90), "ops"))
    story.do(story.score("ben", 60))
    story.do(PutBoard("cup", BoardRules(POINTS), "ops"))
    story.do(story.score("ben", 1_000))
    assert story.scoreboard.reviews.watches == {}
    assert story.found() == [("ann", "growth_per_hour")]


def test_a_replay_and_a_replica_that_catches_up_raise_no_false_alarm() -> None:
    """An hour's events, applied within a moment by a restart, or frame by frame by a replica, are no burst."""
    story = Story(cup=rules(growth_per_minute=100, growth_per_hour=5_000))
    for _ in range(60):
        story.now_ms += MINUTE_MS
        story.do(story.score("ann", 80))
    assert story.found() == []
    restarted = replayed(story.events())
    assert list(restarted.reviews.all()) == []
    assert digests_of(restarted.capture()) == digests_of(story.scoreboard.capture())


def test_a_correction_of_the_clock_ends_all_windows() -> None:
    """Their times were wrong: growth and callers begin anew, and who joined in the future joined now."""
    story = Story(cup=rules(growth_per_hour=100, callers_per_user=1, outlier_z=1_000))
    story.do(story.score("ann", 60))
    story.correct(story.now_ms - 1)
    story.do(story.score("ann", 60, "another"))
    assert story.found() == []
    story.do(story.score("ann", 41, "another"))
    assert story.found() == [("ann", "growth_per_hour")]


def test_a_backlog_that_arrives_at_once_is_a_burst() -> None:
    """What a backend held back is counted when it is sent, so its users are flagged. The documentation says so."""
    story = Story(cup=rules(growth_per_minute=100))
    story.do(*(story.score("ann", 80) for _ in range(60)))
    assert story.found() == [("ann", "growth_per_minute")]


def test_a_replica_applies_a_frame_event_by_event_and_finds_the_same() -> None:
    """A leader applies a whole batch at once: scores of the same batch must not make other limits of it."""
    story = Story(cup=rules(outlier_z=3, growth_per_minute=10**9), sum=BoardRules(POINTS, feeds=("cup",)))
    story.do(*(story.score(f"user-{n}", 10 + n) for n in range(40)))
    story.now_ms += MINUTE_MS
    story.do(*(story.score(f"user-{n}", 100 * n % 700, board_id="sum") for n in range(40)), story.score("user-39", 9))
    replica, shard = Scoreboard(Rules({})), Scoreboard(Rules({}))
    for event in story.events():
        replica.apply(event, 1)
        shard.follow(event, 1, "cup".__eq__)
    assert story.found()
    assert told_of(replica.reviews) == told_of(story.scoreboard.reviews) == told_of(shard.reviews)
    assert digests_of(replica.capture()) == digests_of(story.scoreboard.capture())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_random_play_agrees_with_the_plain_model(seed: int) -> None:
    """Growth, callers and outliers on two boards, with resets, decisions, other rules, and a clock that is corrected.

    The state may go through an image at any moment, and a replay of all events comes to the same bytes.
    """
    dice = random.Random(seed)
    story = Story(cup=draw_rules(dice, ("laps",)), laps=draw_rules(dice, ()))
    users = [f"user-{n}" for n in range(dice.choice([3, 45]))]
    for _ in range(dice.choice([10, 40])):
        story.now_ms += dice.choice([0, 1, 20_000, MINUTE_MS, 20 * MINUTE_MS, HOUR_MS, 3 * HOUR_MS])
        step(story, dice, users)
        if dice.random() < 0.2:
            image = story.scoreboard.capture()
            story.scoreboard = Scoreboard.from_image(Rules({}), image)
            story.scoreboard.end_replay()
            assert digests_of(story.scoreboard.capture()) == digests_of(image)
    assert told_of(story.scoreboard.reviews) == model(story.events()).told()
    assert digests_of(replayed(story.events()).capture()) == digests_of(story.scoreboard.capture())


def draw_rules(dice: random.Random, feeds: tuple[str, ...]) -> BoardRules:
    """Choose limits that are passed now and then."""
    watch: dict[str, float] = {}
    for name, limits in (("growth_per_minute", (40, 300)), ("growth_per_hour", (200, 900)), ("outlier_z", (1, 2.5))):
        if dice.random() < 0.6:
            watch[name] = dice.choice(limits)
    if dice.random() < 0.6 or not watch:
        watch["callers_per_user"] = dice.choice([1, 2])
    return rules("descending", feeds, **watch)


def step(story: Story, dice: random.Random, users: list[str]) -> None:
    """Do one thing."""
    verb = dice.choices(["score", "decide", "reset", "put", "correct"], [12, 4, 1, 1, 1])[0]
    opened = [each for each in story.scoreboard.reviews.all() if each.state == "open"]
    if verb == "decide" and opened:
        first, *chosen = dice.sample(opened, min(len(opened), 3))
        story.reverse(first)
        if chosen:
            story.do(*(DecideReview(each.review_id, "accept", "", "judge") for each in chosen))
    elif verb == "reset":
        story.do(ResetBoard(dice.choice(["cup", "laps"]), "ops"))
    elif verb == "put":
        story.do(PutBoard("cup", draw_rules(dice, ("laps",)), "ops"))
    elif verb == "correct":
        story.correct(story.now_ms - dice.choice([1, MINUTE_MS, 2 * HOUR_MS]))
    else:
        story.do(
            *(
                story.score(user, dice.randrange(60), dice.choice(["a", "b", "c"]), dice.choice(["cup", "cup", "laps"]))
                for user in dice.choices(users, k=dice.choice([1, 60]))
            )
        )


def test_a_watch_that_is_not_needed_leaves_no_part() -> None:
    """A state without watched boards has the bytes that it always had."""
    story = Story(cup=BoardRules(POINTS))
    story.do(story.score("ann", 5))
    assert story.scoreboard.capture().parts == ()
    assert Reviews.from_image(story.scoreboard.capture()).open_count == 0


def test_more_open_reviews_than_fit_are_counted_and_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that flag everybody fill no memory; a decision makes room."""
    monkeypatch.setattr(reviews, "OPEN_REVIEWS_MAX", 2)
    story = Story(cup=rules(growth_per_minute=10))
    story.do(*(story.score(f"user-{n}", 11) for n in range(4)))
    assert (story.found(), story.scoreboard.reviews.passed_over) == (
        [("user-0", "growth_per_minute"), ("user-1", "growth_per_minute")],
        2,
    )
    [first, _] = story.scoreboard.reviews.all()
    story.do(DecideReview(first.review_id, "accept", "", "judge"))
    story.do(story.score("user-3", 1))
    assert dict(story.found()).keys() == {"user-0", "user-1", "user-3"}


def test_old_decisions_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest decision goes first, however old its review is."""
    monkeypatch.setattr(reviews, "DECIDED_REVIEWS_KEPT", 1)
    story = Story(cup=rules(growth_per_minute=10))
    story.do(*(story.score(f"user-{n}", 11) for n in range(3)))
    first, second, third = (each.review_id for each in story.scoreboard.reviews.all())
    story.do(DecideReview(second, "accept", "", "judge"), DecideReview(first, "accept", "", "judge"))
    assert [each.review_id for each in story.scoreboard.reviews.all()] == [first, third]


def test_only_a_reversal_that_holds_actions_back_can_be_named() -> None:
    """No id, an unknown one, and that of an action are refused, and the review stays open."""
    story = Story(cup=rules(growth_per_minute=10))
    story.do(story.score("ann", 11))
    [review] = story.scoreboard.reviews.all()
    commands = [DecideReview(review.review_id, "reverse", "", "judge", named) for named in ("", "no", "action-1")]
    outcomes = perform(story.scoreboard, [*commands], story.now_ms)
    assert [each.code for each in outcomes if isinstance(each, Rejection)] == ["CONFLICT"] * 3
    assert story.scoreboard.reviews.open_count == 1


def test_a_decision_is_taken_once() -> None:
    """The same again changes nothing, also within one batch; another one is refused, and so is an unknown review."""
    story = Story(cup=rules(growth_per_minute=10))
    story.do(story.score("ann", 11))
    [review] = story.scoreboard.reviews.all()
    accept = DecideReview(review.review_id, "accept", "fine", "judge")
    reverse = msgspec.structs.replace(accept, decision="reverse")
    unknown = msgspec.structs.replace(accept, review_id="99-0")
    seq = story.scoreboard.seq + 1
    first = perform(story.scoreboard, [accept, accept, reverse, unknown], story.now_ms)
    again = perform(story.scoreboard, [accept, reverse, unknown], story.now_ms)
    assert first[0] == ReviewReceipt(review.review_id, True, 1, seq)
    assert first[1] == again[0] == ReviewReceipt(review.review_id, False, 1, seq)
    assert first[2:] == again[1:]
    assert [each.code for each in first[2:] if isinstance(each, Rejection)] == ["CONFLICT", "NOT_FOUND"]
    [decided] = story.scoreboard.reviews.all()
    assert (decided.state, decided.decided_seq, decided.decided_by, decided.note) == ("accepted", seq, "judge", "fine")
