"""Boards as contests: ids, ranks, names within a tie, times in both versions, states."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.board_rules import BoardDefinition, BoardRules, Frozen, rules_of_points
from engine.schedule import Period
from engine.scoreboard import Scoreboard
from server.live import clics
from server.live.clics import (
    ENDLESS,
    Contestant,
    Times,
    Version,
    contest_of,
    contestants,
    name_order,
    relative,
    score_rows,
    scoreboard_times,
    state_of,
    teams_of,
    times_of,
)
from server.live.clics_ids import board_of, clics_id
from server.live.names import names_for
from tests.engine.model import increment, perform, put
from tests.server.live import contest_rules

HOUR_MS = 3_600_000
BEGIN_MS = 1_765_800_000_000  # 2025-12-15T12:00:00.000Z
END_MS = BEGIN_MS + 5 * HOUR_MS
RULES = BoardRules({"WIN": 10})
CUP = BoardDefinition(BoardRules({"WIN": 10}, title="Cup"), BEGIN_MS, Period("2025-12-15", BEGIN_MS, END_MS))
VERSIONS: tuple[Version, ...] = ("2023-06", "2026-01")


def plain(value: Any) -> Any:
    """As a client reads it."""
    return msgspec.json.decode(msgspec.json.encode(value))


# Ids


@pytest.mark.parametrize("own", ["ann", "a", "_", "A-1.b_2", "x" * 36, "id_", "9-", "id_" + "0" * 31, "id_" + "A" * 32])
def test_a_good_id_stays_as_it_is(own: str) -> None:
    """It is what the system that made it calls the user."""
    assert clics_id(own) == own


@pytest.mark.parametrize(
    "own", ["a/b", "zoë", "-a", ".a", "a.", "a b", "x" * 37, "😀", "a\n", "ann@example.org", "id_" + "0" * 32]
)
def test_any_other_is_mapped_and_always_to_the_same(own: str) -> None:
    """So is an id that looks as if it was mapped: nobody can choose another user's."""
    contest_rules.check_id(clics_id(own))
    assert clics_id(own) == clics_id(own) != own


def test_the_mapped_ids_are_the_same_for_ever() -> None:
    """They stand in the files of others. SHA-256 of the id in UTF-8."""
    assert clics_id("a/b") == "id_c14cddc033f64b9dea80ea675cf280a0"
    assert clics_id("zoë") == "id_2752b88686847fa5c86f47b94ce652b7"


@given(st.lists(st.text(min_size=1, max_size=40), unique=True))
def test_two_users_never_have_one_id(own: list[str]) -> None:
    """Whatever they are called, also by each other's ids."""
    both = {*own, *map(clics_id, own)}
    assert len({clics_id(each) for each in both}) == len(both)


def test_a_contest_is_found_by_either_id() -> None:
    """By the mapped one, and by the board's own."""
    served = ["main", "a/b", "zoë"]
    assert [board_of(contest_id, served) for contest_id in ("main", "a/b", clics_id("a/b"))] == ["main", "a/b", "a/b"]
    assert board_of(clics_id("gone/away"), served) == clics_id("gone/away")


# Rows


def users(*rows: tuple[str, str, int]) -> list[Contestant]:
    """Id, name and score, in the order of the board."""
    return [
        Contestant(user, name, score, BEGIN_MS + 90_500, place) for place, (user, name, score) in enumerate(rows, 1)
    ]


def test_equal_scores_have_equal_ranks_and_stand_by_name() -> None:
    """1, 2, 2, 4: though the board itself has no two equal ranks."""
    rows = score_rows(
        users(("d", "Dora", 30), ("z", "zoe", 20), ("b", "Bob", 20), ("é", "Émile", 20), ("a", "ann", 5)),
        Times(BEGIN_MS, None),
        "2023-06",
    )
    assert [(row.rank, row.team_id) for row in rows] == [(1, "d"), (2, "b"), (2, clics_id("é")), (2, "z"), (5, "a")]


def test_names_stand_as_readers_look_them_up() -> None:
    """Not by the numbers of their letters: Z is not before a, nor É behind z."""
    names = ["Zoë", "émile", "Émile", "bob", "anna", "Anna", "Ærø", "10 ants", "ann"]
    assert sorted(names, key=name_order) == ["10 ants", "ann", "anna", "Anna", "bob", "émile", "Émile", "Zoë", "Ærø"]


def test_equal_names_stand_by_id() -> None:
    """So every node has the same order."""
    rows = score_rows(users(("z", "Ann", 1), ("y", "Ann", 1)), Times(None, None), "2023-06")
    assert [row.team_id for row in rows] == ["y", "z"]


@pytest.mark.parametrize(("version", "times"), [("2023-06", [1, 0]), ("2026-01", ["0:01:30", "0:00:00"])])
def test_a_time_is_minutes_or_a_clock(version: Version, times: list[int | str]) -> None:
    """By the version. What an import brought from before the contest is at its beginning."""
    early = Contestant("b", "b", 1, BEGIN_MS - 1, 2)
    rows = score_rows([*users(("a", "a", 2)), early], Times(BEGIN_MS, END_MS), version)
    assert [row.score.time for row in rows] == times


@pytest.mark.parametrize("version", VERSIONS)
def test_without_a_start_no_time_is_told(version: Version) -> None:
    """It would be a guess."""
    [row] = score_rows(users(("a", "a", 2)), Times(None, None), version)
    assert plain(row) == {"rank": 1, "team_id": "a", "score": {"score": 2}}


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0:00:00"), (999, "0:00:00"), (-999, "0:00:00"), (-1000, "-0:00:01"), (3_599_999, "0:59:59"),
     (36_000_000, "10:00:00"), (400 * HOUR_MS + 61_000, "400:01:01")],
)  # fmt: skip
def test_relative_times(ms: int, text: str) -> None:
    """Hours may have many digits, and never a leading zero."""
    assert relative(ms) == text
    contest_rules.check_relative(text, negative=True)


def test_teams_are_the_same_list_while_users_only_move() -> None:
    """A consumer gets it again only if somebody came, left or was renamed."""
    first, second = ("b", "Bob", 9), ("a", "Ann", 5)
    assert teams_of(users(first, second)) == teams_of(users(second, first))
    contest_rules.check_teams(plain(teams_of(users(first, second, ("a/b", "Slash", 1)))))


def test_the_first_users_of_a_large_board_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a user without a name by the id."""
    monkeypatch.setattr(clics, "FEED_USERS_MAX", 3)
    scoreboard = Scoreboard(rules_of_points({"main": {"ACTION_COMPLETED": 1}}))
    perform(scoreboard, [increment(f"u{number}", f"a{number}") for number in range(5)])
    perform(scoreboard, [put("u1", "Eins")])
    shown = contestants(scoreboard.boards["main"], scoreboard.users)
    assert len(shown) == 3
    assert [user.name for user in shown] == ["u0", "Eins", "u2"]
    initials = contestants(scoreboard.boards["main"], names_for(scoreboard.users, "initials"))
    assert [user.name for user in initials] == ["u0", "E.", "u2"]


# Contests and their states


def test_a_season_is_a_contest_with_a_length() -> None:
    """Its title is the name, and a freeze in its rules is told."""
    contest = contest_of("cup", CUP)
    contest_rules.check_contest(plain(contest))
    assert plain(contest) == {
        "id": "cup", "name": "Cup", "start_time": "2025-12-15T12:00:00.000Z", "duration": "5:00:00",
        "scoreboard_type": "score",
    }  # fmt: skip
    planned = msgspec.structs.replace(CUP, freeze_at_ms=END_MS - HOUR_MS)
    assert contest_of("cup", planned).scoreboard_freeze_duration == "1:00:00"
    frozen = msgspec.structs.replace(CUP, frozen=Frozen(7, END_MS - 2 * HOUR_MS))
    assert contest_of("cup", frozen).scoreboard_freeze_duration == "2:00:00"


def test_a_board_without_an_end_has_a_duration_all_the_same() -> None:
    """The specification requires one. A start that is not known is null."""
    for definition, start in ((BoardDefinition(RULES, BEGIN_MS), "2025-12-15T12:00:00.000Z"), (None, None)):
        contest = contest_of("a/b", definition)
        contest_rules.check_contest(plain(contest))
        assert (contest.name, contest.start_time, contest.duration) == ("a/b", start, ENDLESS)


@pytest.mark.parametrize(
    ("definition", "now_ms", "told"),
    [
        (CUP, BEGIN_MS - 1, {}),
        (CUP, BEGIN_MS, {"started": BEGIN_MS}),
        (msgspec.structs.replace(CUP, over=True), END_MS + 1, {"started": BEGIN_MS, "ended": END_MS}),
        (msgspec.structs.replace(CUP, frozen=Frozen(7, END_MS - 1)), END_MS - 1,
         {"started": BEGIN_MS, "frozen": END_MS - 1}),
        (BoardDefinition(RULES, BEGIN_MS), BEGIN_MS + 1, {"started": BEGIN_MS}),
        (None, BEGIN_MS, {}),
    ],
)  # fmt: skip
def test_states(definition: BoardDefinition | None, now_ms: int, told: dict[str, int]) -> None:
    """What did not happen, or is not known, is null."""
    state = plain(state_of(definition, now_ms))
    contest_rules.check_state(state)
    assert {name for name, value in state.items() if value is not None} == set(told)
    assert state["started"] in (None, contest_of("cup", definition).start_time)


def test_the_time_of_a_scoreboard_is_that_of_its_last_change() -> None:
    """Not later than now, and before the start it counts down."""
    times = times_of(CUP)
    rows = users(("a", "a", 2))
    assert scoreboard_times(rows, times, END_MS) == ("2025-12-15T12:01:30.500Z", "0:01:30")
    assert scoreboard_times([], times, END_MS) == ("2025-12-15T12:00:00.000Z", "0:00:00")
    assert scoreboard_times([], times, BEGIN_MS - 61_000) == ("2025-12-15T11:58:59.000Z", "-0:01:01")
    assert scoreboard_times([], Times(None, None), BEGIN_MS) == ("2025-12-15T12:00:00.000Z", "0:00:00")
