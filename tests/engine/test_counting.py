"""What an action does where its board has more than fixed points: ranges, negative points, modes, feeds."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from engine.actions import mark_of
from engine.batch import Batch
from engine.board_rules import BoardRules, Range, Rules
from engine.commands import CloseBoard, Command, Increment, Outcome, PutBoard, Receipt, Rejection
from engine.event_records import decode_events, encode_events
from engine.events import Event, Fed, Incremented
from engine.limits import SCORE_MAX
from engine.scoreboard import Scoreboard
from snapshots.digests import digests_of
from tests.engine.model import perform, put, rows

MS = 1_765_800_896_000
CATALOGUE: dict[str, BoardRules] = {
    "year": BoardRules({"WIN": 1}),
    "laps": BoardRules({"LAP": Range(10, 90)}, score="best", order="ascending"),
    "wins": BoardRules({"WIN": 7, "LAP": 7}, score="count"),
    "cup": BoardRules({"WIN": 10, "FOUL": -4, "LAP": Range(0, 100)}, feeds=("year", "laps", "wins")),
    "plain": BoardRules({"WIN": 10, "FOUL": -4, "LAP": Range(1, 5)}),
}


def started(**changed: BoardRules) -> Scoreboard:
    """A scoreboard whose boards are events, as after the first start of a leader."""
    scoreboard = Scoreboard(Rules({}))
    perform(scoreboard, [PutBoard(name, rules, "tests") for name, rules in {**CATALOGUE, **changed}.items()], MS)
    return scoreboard


def act(action: str, reason: str, board: str, value: int | None = None, user: str = "ann") -> Increment:
    """Make an action; it is ann's if nothing else is said."""
    return Increment(
        user_id=user, action_id=action, reason=reason, board_id=board, caller="tests", key=b"", value=value
    )


def one(scoreboard: Scoreboard, command: Command) -> Outcome:
    """Perform one command."""
    [outcome] = perform(scoreboard, [command], MS)
    return outcome


def event_of(scoreboard: Scoreboard, command: Increment) -> Incremented:
    """Decide and apply one action; give its event."""
    batch = Batch(scoreboard, MS)
    batch.decide([command])
    [event] = batch.events
    assert isinstance(event, Incremented)
    batch.settle()
    scoreboard._check()
    return event


def scores_of(scoreboard: Scoreboard, user: str = "ann") -> dict[str, int]:
    """The scores of a user, by board."""
    scores = {board_id: scoreboard.boards[board_id].score(user) for board_id in scoreboard.served()}
    return {board_id: score for board_id, score in scores.items() if score is not None}


@pytest.mark.parametrize(
    ("reason", "value", "says"),
    [
        ("LAP", None, "value is missing: 'LAP' on board 'plain' takes one, 1 to 5"),
        ("LAP", 0, "value 0 is not allowed: 'LAP' on board 'plain' takes 1 to 5"),
        ("LAP", 6, "value 6 is not allowed: 'LAP' on board 'plain' takes 1 to 5"),
        ("LAP", -1, "value -1 is not allowed"),
        ("WIN", 10, "'WIN' on board 'plain' has fixed points and takes no value"),
        ("FOUL", -4, "'FOUL' on board 'plain' has fixed points and takes no value"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(reason: str, value: int | None, says: str) -> None:
    """A range needs a value within it, and fixed points take none, not even their own number."""
    scoreboard = started()
    before = scoreboard.seq
    refused = one(scoreboard, act("a1", reason, "plain", value))
    assert isinstance(refused, Rejection)
    assert (refused.code, refused.details) == ("INVALID_REQUEST", {"field": "value"})
    assert says in refused.message
    assert (scoreboard.seq, scores_of(scoreboard)) == (before, {})


@pytest.mark.parametrize("value", [1, 3, 5])
def test_a_value_within_the_range_counts(value: int) -> None:
    """Both ends belong to the range. The event says that the request chose the value."""
    event = event_of(started(), act("a1", "LAP", "plain", value))
    assert (event.delta, event.new_score, event.value, event.chosen) == (value, value, value, True)
    assert event.chosen_value == value


def test_negative_points_stop_at_zero() -> None:
    """The delta is what was really taken away. The event says what the action was worth where the delta does not."""
    scoreboard = started()
    event_of(scoreboard, act("a1", "WIN", "plain"))
    deltas = [event_of(scoreboard, act(f"f{n}", "FOUL", "plain")) for n in range(4)]
    assert [(event.delta, event.new_score, event.value) for event in deltas] == [
        (-4, 6, None), (-4, 2, None), (-2, 0, -4), (0, 0, -4),
    ]  # fmt: skip
    assert not any(event.chosen for event in deltas)
    assert rows(scoreboard.boards["plain"]) == [(1, "ann", 0)]


def test_a_first_action_with_negative_points_begins_at_zero() -> None:
    """The user is on the board from then on, with 0 and no change."""
    scoreboard = started()
    event = event_of(scoreboard, act("a1", "FOUL", "plain"))
    assert (event.delta, event.new_score, event.value) == (0, 0, -4)
    assert scoreboard.boards["plain"].rank("ann") == 1


def test_an_action_that_leaves_the_score_leaves_the_place() -> None:
    """With equal scores the first one stays ahead, whatever the first one does again without effect."""
    scoreboard = started(laps=BoardRules({"LAP": Range(1, 99)}, score="best", order="ascending"))
    commands = [act("a1", "LAP", "laps", 20), act("b1", "LAP", "laps", 20, "ben"), act("a2", "LAP", "laps", 30)]
    receipts = perform(scoreboard, [*commands, act("a3", "LAP", "laps", 20)], MS)
    assert [(r.new_score, r.delta, r.previous_rank, r.rank) for r in receipts if isinstance(r, Receipt)] == [
        (20, 20, None, 1), (20, 20, None, 2), (20, 0, 1, 1), (20, 0, 1, 1),
    ]  # fmt: skip
    assert rows(scoreboard.boards["laps"]) == [(1, "ann", 20), (2, "ben", 20)]
    assert scoreboard.boards["laps"].seq == scoreboard.seq


def test_a_fed_board_counts_by_its_own_catalogue() -> None:
    """A win is 10 points on the cup, 1 on the year, and one on the count of wins. The laps do not list it."""
    scoreboard = started()
    event = event_of(scoreboard, act("a1", "WIN", "cup"))
    assert event.fed == (Fed("year", 1, 1, 1), Fed("wins", 1, 1, 7))
    assert (event.delta, event.value, event.chosen) == (10, None, False)
    assert scores_of(scoreboard) == {"cup": 10, "year": 1, "wins": 1}
    seqs = {board_id: scoreboard.boards[board_id].seq for board_id in ("cup", "year", "wins", "laps")}
    assert seqs == {"cup": 6, "year": 6, "wins": 6, "laps": 2}


def test_a_reason_that_no_fed_board_lists_counts_on_its_own_board_alone() -> None:
    """The event has the short form then, as on a board that feeds none."""
    scoreboard = started()
    event_of(scoreboard, act("a1", "WIN", "cup"))
    event = event_of(scoreboard, act("a2", "FOUL", "cup"))
    assert (event.fed, event.value) == ((), None)
    assert encode_events([event])[:2] == b"\x98\x01"
    assert scores_of(scoreboard) == {"cup": 6, "year": 1, "wins": 1}


def test_what_a_board_feeds_does_not_feed_further() -> None:
    """The year feeds all time; a win on the cup reaches the year, and stops there."""
    scoreboard = started()
    perform(scoreboard, [PutBoard("ever", BoardRules({"WIN": 1}), "t")], MS)
    perform(scoreboard, [PutBoard("year", BoardRules({"WIN": 1}, feeds=("ever",)), "t")], MS)
    event_of(scoreboard, act("a1", "WIN", "cup"))
    assert scores_of(scoreboard) == {"cup": 10, "year": 1, "wins": 1}
    event_of(scoreboard, act("a2", "WIN", "year"))
    assert scores_of(scoreboard) == {"cup": 10, "year": 2, "wins": 1, "ever": 1}


def test_a_closed_board_is_fed_no_more() -> None:
    """The action counts on the others; the closed board keeps what it has."""
    scoreboard = started()
    event_of(scoreboard, act("a1", "WIN", "cup"))
    perform(scoreboard, [CloseBoard("year", "tests")], MS)
    event = event_of(scoreboard, act("a2", "WIN", "cup"))
    assert [fed.board_id for fed in event.fed] == ["wins"]
    assert scores_of(scoreboard) == {"cup": 20, "year": 1, "wins": 2}
    refused = one(scoreboard, act("a3", "WIN", "year"))
    assert isinstance(refused, Rejection)
    assert refused.code == "BOARD_CLOSED"


def test_a_range_on_a_fed_board_takes_the_value() -> None:
    """The lap counts as it was sent on both boards; the fed one keeps the best."""
    scoreboard = started()
    assert event_of(scoreboard, act("a1", "LAP", "cup", 50)).fed == (Fed("laps", 50, 50, 50), Fed("wins", 1, 1, 7))
    assert event_of(scoreboard, act("a2", "LAP", "cup", 60)).fed == (Fed("laps", 0, 50, 60), Fed("wins", 1, 2, 7))
    assert event_of(scoreboard, act("a3", "LAP", "cup", 40)).fed == (Fed("laps", -10, 40, 40), Fed("wins", 1, 3, 7))
    assert scores_of(scoreboard) == {"cup": 150, "laps": 40, "wins": 3}


@pytest.mark.parametrize("value", [0, 9, 91, 100])
def test_a_value_out_of_the_range_of_a_fed_board_refuses_the_action(value: int) -> None:
    """It counts on all boards or on none: the range of its own board is wider."""
    scoreboard = started()
    before = scoreboard.seq
    refused = one(scoreboard, act("a1", "LAP", "cup", value))
    assert isinstance(refused, Rejection)
    assert (refused.code, refused.details) == ("INVALID_REQUEST", {"field": "value"})
    assert f"a value of {value} is not allowed on board 'laps', which is fed: it takes 10 to 90" in refused.message
    assert (scoreboard.seq, scores_of(scoreboard)) == (before, {})


@pytest.mark.parametrize("big", ["cup", "year"])
def test_a_score_that_would_pass_the_largest_refuses_the_action_on_all_boards(big: str) -> None:
    """Whether it is the score of its own board or of a fed one; an action that still fits counts."""
    feeds = CATALOGUE["cup"].feeds
    boards = {"cup": BoardRules({"WIN": 10, "BIG": 1}, feeds=feeds), "year": BoardRules({"WIN": 10, "BIG": 1})}
    boards[big] = replace(boards[big], points={"WIN": 10, "BIG": SCORE_MAX - 5})
    scoreboard = started(**boards)
    event_of(scoreboard, act("a1", "BIG", "cup"))
    before = scores_of(scoreboard)
    refused = one(scoreboard, act("a2", "WIN", "cup"))
    assert isinstance(refused, Rejection)
    assert refused.details == {"field": "userId"}
    assert f"on board {big!r} would pass the largest score" in refused.message
    assert scores_of(scoreboard) == before
    assert isinstance(one(scoreboard, act("a2", "WIN", "cup", user="ben")), Receipt)


def test_an_action_that_one_fed_board_refuses_leaves_the_others_for_the_rest_of_its_batch() -> None:
    """The boards that are fed before the one that is full have no points of it."""
    cup = BoardRules({"WIN": 10, "BIG": 1}, feeds=("year", "month"))
    year, month = BoardRules({"WIN": 10}), BoardRules({"WIN": 10, "BIG": SCORE_MAX - 15})
    scoreboard = started(cup=cup, year=year, month=month)
    taken = [("a1", "BIG", "cup"), ("a2", "WIN", "cup"), ("a3", "WIN", "cup"), ("a4", "WIN", "year")]
    outcomes = perform(scoreboard, [act(*each) for each in taken])
    assert [isinstance(outcome, Receipt) for outcome in outcomes] == [True, True, False, True]
    assert scores_of(scoreboard) == {"cup": 11, "year": 20, "month": SCORE_MAX - 5}


@pytest.mark.parametrize("board", ["cup", "plain"])
def test_a_repeat_is_the_same_action_only_with_the_same_value(board: str) -> None:
    """The value belongs to what the action is: another one, or none, is a conflict. In one batch as in two."""
    first, other = act("a1", "LAP", board, 5 if board == "plain" else 50), act("a1", "LAP", board, 4)
    none = act("a1", "LAP", board)
    for together in (True, False):
        scoreboard = started()
        outcomes = perform(scoreboard, [first, first, other, none] if together else [first], MS)
        if not together:
            outcomes += [one(scoreboard, command) for command in (first, other, none)]
        applied, again, conflict, conflict_too = outcomes
        assert isinstance(applied, Receipt)
        assert isinstance(again, Receipt)
        assert (applied.applied, again.applied, again.seq, again.delta) == (True, False, applied.seq, 0)
        assert again.new_score == applied.new_score
        for outcome in (conflict, conflict_too):
            assert isinstance(outcome, Rejection)
            assert (outcome.code, outcome.details["seq"]) == ("CONFLICT", applied.seq)


def test_a_repeat_is_recognised_after_the_rules_have_changed() -> None:
    """The range is gone and the board is closed; the answer is still the first one's."""
    scoreboard = started()
    first = act("a1", "LAP", "plain", 3)
    seq = event_of(scoreboard, first).seq
    for change in (PutBoard("plain", BoardRules({"WIN": 1}), "tests"), CloseBoard("plain", "tests")):
        perform(scoreboard, [change], MS)
        again = one(scoreboard, first)
        assert isinstance(again, Receipt)
        assert (again.applied, again.seq, again.new_score) == (False, seq, 3)


def test_the_mark_of_an_action_without_a_value_is_as_it_always_was() -> None:
    """Actions of old logs are found again; a value makes another mark."""
    plain = mark_of("ann", "main", "WIN")
    marks = {plain, mark_of("ann", "main", "WIN", 0), mark_of("ann", "main", "WIN", 1)}
    assert len(marks) == 3
    assert mark_of("ann", "main", "WIN", None) == plain


STORY: list[list[Command]] = [
    [act("a0", "FOUL", "cup"), act("a1", "WIN", "cup"), act("a2", "FOUL", "cup")],
    [act("a3", "LAP", "cup", 50), act("a4", "WIN", "year")],
    [act("a5", "FOUL", "cup"), act("a6", "FOUL", "cup"), act("a7", "LAP", "laps", 12), act("a8", "LAP", "cup", 90)],
    [act("b1", "WIN", "cup", user="ben"), act("a9", "FOUL", "cup"), act("a1", "WIN", "cup")],
    [act("aa", "LAP", "cup", 9)],
    [put("ben", active=False), act("b2", "WIN", "cup", user="ben"), act("ab", "WIN", "wins"), act("ac", "WIN", "cup")],
]
"""Many actions of one user on boards that feed each other, and on the fed boards directly."""


def test_a_batch_counts_as_the_same_commands_one_by_one() -> None:
    """Each action of a batch is decided by the scores that those before it make, on its own board and on fed ones."""
    together, apart, flat = started(), started(), [command for commands in STORY for command in commands]
    batch = Batch(together, MS)
    for commands in STORY:
        batch.decide(commands)
    outcomes = batch.settle()
    assert outcomes == [one(apart, command) for command in flat]
    assert digests_of(together.capture()) == digests_of(apart.capture())
    assert scores_of(together) == {"cup": 144, "year": 3, "laps": 12, "wins": 5}
    for scoreboard in (together, apart):
        scoreboard._check()


def test_events_are_the_same_after_the_log() -> None:
    """With values, chosen or not, with feeds and with none, and the definitions of boards."""
    events: list[Event] = []
    scoreboard = Scoreboard(Rules({}))
    puts: list[Command] = [PutBoard(name, rules, "tests") for name, rules in CATALOGUE.items()]
    story: list[list[Command]] = [puts, *STORY, [CloseBoard("laps", "tests")], [act("ad", "LAP", "cup", 20)]]
    for commands in story:
        batch = Batch(scoreboard, MS)
        batch.decide(commands)
        events += batch.events
        batch.settle()
    decoded = decode_events(encode_events(events), len(events), MS, range(1, len(events) + 1))
    assert decoded == events
    assert {type(event).__name__ for event in events} == {"BoardPut", "BoardClosed", "Incremented", "UserPut"}

    replayed = Scoreboard(Rules({}))
    replayed.begin_replay()
    for event in decoded:
        replayed.apply(event, 1)
    replayed.end_replay()
    replayed._check()
    assert digests_of(replayed.capture()) == digests_of(scoreboard.capture())
    for board_id in scoreboard.served():
        assert rows(replayed.boards[board_id]) == rows(scoreboard.boards[board_id])


def test_the_record_of_a_score_that_no_board_can_have_is_refused() -> None:
    """On its own board, and on a fed one: the log must not hold what no reader accepts."""
    event = Incremented(1, MS, "cup", "ann", "a1", 10, "WIN", "tests", 10, fed=(Fed("year", 1, SCORE_MAX + 1, 1),))
    with pytest.raises(ValueError, match="on board 'year'"):
        encode_events([event])
    with pytest.raises(ValueError, match=f"a score of {SCORE_MAX + 1}"):
        encode_events([replace(event, new_score=SCORE_MAX + 1)])
