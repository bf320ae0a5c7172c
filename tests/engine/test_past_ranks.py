"""How far users moved: notes once an hour, the day and the period before. `test_boards_stateful` has a whole model."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from engine.board_rules import BoardRules, OrderMode, RankMode
from engine.commands import FreezeBoard, ResetBoard
from engine.events import ClockCorrected, RanksNoted
from engine.first_rows import first_slots
from engine.limits import SCORE_MAX
from engine.past_ranks import Change
from engine.schedule import Schedule, Season
from engine.scoreboard import Scoreboard
from tests.engine.games import Game, ms
from tests.engine.logs import segment_of

HOUR_MS = 3_600_000
LOG_ID = bytes.fromhex("00112233445566778899aabbccddeeff")
GOLDEN = Path(__file__).parent / "golden" / "notes" / "00000000000000000001.log"
ALWAYS = BoardRules({"WIN": 10, "LATE": -10})


def notes(game: Game) -> list[RanksNoted]:
    """List the notes that were logged."""
    return [event for event in game.events() if isinstance(event, RanksNoted)]


def changes(game: Game, board_id: str = "cup") -> dict[str, Change | None]:
    """Give what each of the first rows says."""
    return {row.user_id: row.change for row in game.board(board_id).top(100)}


def begun(*users: str) -> Game:
    """Begin with these users, the first one with the most points."""
    game = Game("2026-11-27 12:00")
    game.put(ALWAYS)
    for number, user in enumerate(reversed(users), 1):
        for _ in range(number):
            game.win(user)
    return game


def test_a_day_later_rows_say_how_far_they_moved() -> None:
    """The ranks of then are those of the note before; who was not there has None."""
    game = begun("ann", "bob", "cleo")
    game.reach("2026-11-27 13:00")
    game.alarm()
    assert changes(game) == {"ann": None, "bob": None, "cleo": None}
    game.reach("2026-11-28 11:00")
    for _ in range(5):
        game.win("cleo")
    game.win("dora")
    assert set(changes(game).values()) == {None}
    game.reach("2026-11-28 14:00")
    game.alarm()
    assert changes(game) == {"cleo": Change(2), "ann": Change(-1), "bob": Change(-1), "dora": Change(None)}


def test_a_move_counts_at_once_and_the_base_moves_once_an_hour() -> None:
    game = begun("ann", "bob")
    game.reach("2026-11-28 13:00")
    game.alarm()
    assert changes(game) == {"ann": Change(0), "bob": Change(0)}
    game.win("bob")
    game.win("bob")
    assert changes(game) == {"bob": Change(1), "ann": Change(-1)}
    game.reach("2026-11-29 12:59")
    game.alarm()
    assert changes(game) == {"bob": Change(1), "ann": Change(-1)}
    game.reach("2026-11-29 14:00")
    game.alarm()
    assert changes(game) == {"bob": Change(0), "ann": Change(0)}


def test_nothing_is_noted_once_a_day_showed_no_move() -> None:
    """One record an hour for a day, then none. The first action afterwards is noted soon."""
    game = begun("ann", "bob")
    for _ in range(100):
        game.now_ms += HOUR_MS
        game.alarm()
    assert len(notes(game)) == 24
    seq = game.scoreboard.seq
    game.win("bob")
    game.alarm()
    assert [event.seq for event in notes(game)[24:]] == [seq + 2]


def test_a_note_says_since_when_the_ranks_hold() -> None:
    """After a night without a leader, the ranks of a day ago are those of the evening before."""
    game = begun("ann", "bob")
    game.win("bob")
    game.win("bob")
    game.reach("2026-11-28 12:10")
    game.alarm()
    [note] = notes(game)
    assert (note.time_ms - note.as_of_ms) == (24 * 60 + 10) * 60_000
    assert changes(game) == {"bob": Change(0), "ann": Change(0)}


def test_a_period_is_compared_with_the_end_of_the_one_before() -> None:
    game = Game("2026-11-27 12:00")
    game.put(BoardRules({"WIN": 10}, schedule=Schedule("day")))
    for user in ("ann", "bob", "bob"):
        game.win(user)
    assert set(changes(game).values()) == {None}
    game.reach("2026-11-28 08:00")
    for user in ("cleo", "ann", "ann"):
        game.win(user)
    assert changes(game) == {"ann": Change(UNSET, 1), "cleo": Change(UNSET, None)}
    assert not notes(game), "a day is over before a note is a day old"


def test_a_reset_begins_a_period() -> None:
    game = begun("ann", "bob")
    game.write(ResetBoard("cup", "ops"))
    game.win("bob")
    assert changes(game) == {"bob": Change(UNSET, 1)}


def test_a_frozen_board_shows_the_changes_of_then() -> None:
    """The public's stay; the present goes on."""
    game = begun("ann", "bob")
    game.reach("2026-11-28 13:00")
    game.write(FreezeBoard("cup", "ops"))
    public = game.board().public
    before, seq = public.top(10), public.seq
    game.win("bob")
    game.win("bob")
    game.reach("2026-11-30 12:00")
    game.alarm()
    assert (public.top(10), public.seq) == (before, seq)
    assert [row.change for row in before] == [Change(0), Change(0)]
    game.reach("2026-11-30 14:00")
    game.alarm()
    assert changes(game) == {"bob": Change(0), "ann": Change(0)}


def test_only_the_first_hundred_rows_say_anything() -> None:
    """And whoever comes from below has None."""
    users = [f"user-{number:03}" for number in range(103)]
    game = Game("2026-11-27 12:00")
    game.put(ALWAYS)
    for user in users:
        game.win(user)
    game.reach("2026-11-28 13:00")
    game.win("user-101")
    game.win("user-099")
    rows = game.board().top(103)
    assert [row.change for row in rows[:3]] == [Change(None), Change(98), Change(-2)]
    assert [row.change for row in rows[99:]] == [Change(-2), None, None, None]
    assert [row.change for row in game.board().around("user-100", 1)] == [None, None, None]


def test_a_change_of_what_is_compared_moves_the_position_of_the_board() -> None:
    """So one position always shows the same rows: viewers get an update, and an ETag ends."""
    game = begun("ann", "bob")
    game.reach("2026-11-27 13:00")
    game.alarm()
    board = game.board()
    assert (board.seq, board.top10_seq) == (4, 4), "no row shows the note yet"
    game.reach("2026-11-28 13:00")
    game.alarm()
    assert (board.seq, board.top10_seq) == (6, 6)


def test_a_clock_that_goes_back_leaves_no_note_in_the_future() -> None:
    game = begun("ann", "bob")
    for at in ("2026-11-29 12:00", "2026-11-29 14:00", "2026-11-29 16:00"):
        game.reach(at)
        game.win("bob")
    scoreboard = game.scoreboard
    assert game.board().past_ranks.notes[-1].as_of_ms == ms("2026-11-29 14:00")
    game.reach("2026-11-27 12:00")
    scoreboard.apply(ClockCorrected(scoreboard.seq + 1, game.now_ms, scoreboard.seq + 1, 1, "test"), 1)
    scoreboard._check()
    assert all(note.as_of_ms <= game.now_ms for note in game.board().past_ranks.notes)
    assert scoreboard.dues.note_ms(scoreboard.seq) == game.now_ms + HOUR_MS


@pytest.mark.parametrize("order", get_args(OrderMode))
@pytest.mark.parametrize("ranks", get_args(RankMode))
def test_a_replay_comes_to_the_same_notes(order: OrderMode, ranks: RankMode) -> None:
    """It has no order, and finds the first rows by the columns: of 150 users, many of them equal."""
    game = Game("2026-11-27 12:00")
    game.put(BoardRules({"WIN": 10, "LAP": 3}, order=order, ranks=ranks))
    for number in range(150):
        game.win(f"user-{number}", "WIN" if number % 3 else "LAP")
    game.reach("2026-11-28 13:00")
    for number in range(0, 150, 7):
        game.win(f"user-{number}")
    game.alarm()
    replayed = Scoreboard(game.scoreboard.rules)
    replayed.begin_replay()
    for event in game.events():
        replayed.apply(event, 1)
    replayed.end_replay()
    assert replayed.boards["cup"].past_ranks == game.board().past_ranks
    assert replayed.boards["cup"].top(100) == game.board().top(100)
    assert any(row.change != Change(0) for row in game.board().top(100))


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=40),
    st.integers(1, 12),
    st.sampled_from([0, SCORE_MAX]),
    st.randoms(use_true_random=False),
)
def test_the_first_rows_by_columns_are_those_of_a_sort(
    users: list[tuple[int, bool]], count: int, flip: int, chance: object
) -> None:
    """Whatever is equal, and whoever is hidden."""
    assert hasattr(chance, "shuffle")
    seqs = list(range(1, len(users) + 1))
    chance.shuffle(seqs)
    scores = array("Q", [score for score, _ in users])
    hidden = {slot for slot, (_, is_hidden) in enumerate(users) if is_hidden}
    shown = [slot for slot in range(len(users)) if slot not in hidden]
    expected = sorted(shown, key=lambda slot: (flip ^ scores[slot], seqs[slot]))[:count]
    assert first_slots(scores, array("Q", seqs), flip, hidden, count) == expected


def test_the_segment_with_notes_is_as_it_always_was() -> None:
    """Written once, read and written for ever. Applying it gives the change that a row then has."""
    game = begun("ann", "bob")
    game.reach("2026-11-28 13:00")
    game.win("bob")
    game.win("bob")
    data = segment_of(game.frames, LOG_ID)
    assert data == GOLDEN.read_bytes()
    assert [type(event) for event in game.events()].count(RanksNoted) == 1
    assert changes(game) == {"bob": Change(1), "ann": Change(-1)}


def test_after_days_without_a_leader_nobody_moved_within_a_day() -> None:
    """Though another board changes its period first: the ranks are noted before it."""
    game = begun("ann", "bob")
    game.put(BoardRules({"WIN": 10}, schedule=Schedule("day")), "daily")
    game.win("ann", board_id="daily")
    game.reach("2026-11-27 13:00")
    game.win("bob")
    game.win("bob")
    game.reach("2026-11-30 13:00")
    game.alarm()
    assert changes(game) == {"bob": Change(0), "ann": Change(0)}


@pytest.mark.parametrize("ranks", ["dense", "shared"])
def test_other_ranks_begin_anew(ranks: RankMode) -> None:
    """Else users would seem to move who stayed."""
    game = Game("2026-11-27 12:00")
    game.put(ALWAYS)
    for user in ("ann", "bob", "cleo"):
        game.win(user)
    game.reach("2026-11-28 13:00")
    game.alarm()
    assert changes(game)["cleo"] == Change(0)
    game.put(BoardRules(ALWAYS.points, ranks=ranks))
    assert set(changes(game).values()) == {None}


def test_an_empty_board_has_no_notes() -> None:
    """So a season that was put days before it begins does not know a day ago when it begins, and no note is logged."""
    game = Game("2026-11-27 12:00")
    game.put(BoardRules({"WIN": 10}, season=Season(ms("2026-12-01 12:00"), None)))
    for _ in range(90):
        game.now_ms += HOUR_MS
        game.alarm()
    assert len(notes(game)) == 1
    game.reach("2026-12-01 13:00")
    game.win("ann")
    assert changes(game) == {"ann": None}


def test_a_period_that_passed_without_anybody_is_the_one_before() -> None:
    game = Game("2026-11-27 12:00")
    game.put(BoardRules({"WIN": 10}, schedule=Schedule("day")))
    game.win("ann")
    game.reach("2026-11-30 12:00")
    game.win("ann")
    assert changes(game) == {"ann": Change(UNSET, None)}


def test_a_day_of_25_hours_is_a_day() -> None:
    """Its board has no notes, as on all other days."""
    game = Game("2026-10-24 22:00")
    game.put(BoardRules({"WIN": 10}, schedule=Schedule("day", "Europe/Berlin")))
    game.win("ann")
    game.reach("2026-10-25 22:59")
    game.win("ben")
    assert not notes(game)
    assert changes(game) == {"ann": None, "ben": None}
