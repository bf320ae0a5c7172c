"""Who passed whom: the search beside a look at everybody, and what happens when there is no room for more."""

from __future__ import annotations

import random

import pytest

from engine.board import Board
from server import bounds
from server.live.moves import BLOCK_SLOTS, Moves, Passers, Place
from tests.seeds import first_seed

COUNT = 1000


def place_of(board: Board, moves: Moves, user: str) -> Place:
    """Give the place of a user now."""
    slot = board.slot(user)
    assert slot is not None
    (key,) = board.keys_of((slot,))
    return Place(moves.moment(), len(board), key)


class Race:
    """A board with many users that move, and what is kept of it."""

    def __init__(self, dice: random.Random, changes_max: int = 100_000) -> None:
        self.dice = dice
        self.board = Board("main")
        self.scores: dict[str, int] = {}
        for number in range(COUNT):
            self.give(f"user-{number}", self.dice.choice((1, 1, 2, 5, 100)))
        self.moves = Moves(len(self.board), changes_max)
        self.board.watch(self.moves)

    def move(self, times: int) -> None:
        """Give users of the first `COUNT + 50` points, some of them many."""
        for _ in range(times):
            self.give(f"user-{self.dice.randrange(COUNT + 50)}", self.dice.choice((1, 1, 2, 5, 100)))

    def give(self, user: str, points: int) -> None:
        """Give a user points."""
        self.scores[user] = self.scores.get(user, 0) + points
        self.board.record(user, self.scores[user], self.board.seq + 1, 0)

    def order(self) -> list[str]:
        """List all users, the first one first."""
        return [row.user_id for row in self.board.top(2 * COUNT)]


def test_a_search_finds_whom_a_look_at_everybody_finds() -> None:
    """For users of all ranks, with places from several moments, and many blocks of users that moved."""
    dice = random.Random(first_seed("MOVES_SEED"))
    race = Race(dice)
    places: list[tuple[str, Place, set[str]]] = []
    for _ in range(4):
        race.move(400)
        order = race.order()
        for user in dice.sample(order, 20):
            ahead = set(order[: order.index(user)])
            places.append((user, place_of(race.board, race.moves, user), ahead))
    passers = Passers(race.board, race.moves)
    some = 0
    for times in (400, 50, 0, 50, 400, 1):
        race.move(times)
        passers.renew()
        some += check(race, passers, places)
    assert len(race.moves.moved()) > 4 * BLOCK_SLOTS
    assert some > 10
    race.board._check()


def check(race: Race, passers: Passers, places: list[tuple[str, Place, set[str]]]) -> int:
    """Compare what a search finds with a look at everybody. Gives how many users were passed by somebody."""
    some, order = 0, race.order()
    for user, place, ahead in places:
        now = place_of(race.board, race.moves, user)
        expected = [other for other in reversed(order[: order.index(user)]) if other not in ahead]
        slots, more = passers.of(place, now.key, 10)
        assert [race.board.user(slot) for slot in slots] == expected[:10]
        assert more == (len(expected) > 10)
        some += bool(expected)
    return some


def test_only_keys_of_later_moments_are_kept() -> None:
    """Nothing is kept when all places are of now; else only what changed since the oldest."""
    dice = random.Random(first_seed("MOVES_SEED"))
    race = Race(dice)
    race.move(100)
    race.give("user-1", 1)
    old = place_of(race.board, race.moves, "user-1")
    race.move(10)
    new = place_of(race.board, race.moves, "user-1")
    race.move(10)
    race.moves.forget(old.moment, old.slots)
    assert 1 <= race.moves._count <= 20
    race.moves.forget(new.moment, new.slots)
    assert 1 <= race.moves._count <= 10
    assert race.moves.is_certain(new.moment)
    race.moves.forget(race.moves.moment(), len(race.board))
    assert race.moves._count == 0
    race.moves._check()


def test_old_places_take_no_room_from_new_ones() -> None:
    """Once they would need more than half of it, they are no longer certain. New ones are."""
    dice = random.Random(first_seed("MOVES_SEED"))
    race = Race(dice, changes_max=100)
    old = place_of(race.board, race.moves, "user-1")
    for number in range(80):
        race.give(f"user-{number}", 1)
    assert race.moves.is_certain(old.moment)
    race.moves.forget(old.moment, old.slots)
    assert race.moves._count == 0
    new = place_of(race.board, race.moves, "user-1")
    for number in range(80):
        race.give(f"user-{number}", 1)
    assert (race.moves.is_certain(old.moment), race.moves.is_certain(new.moment)) == (False, True)
    race.move(500)
    assert not race.moves.is_certain(new.moment)
    race.moves._check()


def test_without_room_those_that_are_named_passed_all_the_same() -> None:
    """The list may be short, and says so."""
    dice = random.Random(first_seed("MOVES_SEED"))
    race = Race(dice, changes_max=200)
    order = race.order()
    user = order[500]
    place, ahead = place_of(race.board, race.moves, user), set(order[:500])
    race.move(5000)
    now = place_of(race.board, race.moves, user)
    slots, more = Passers(race.board, race.moves).of(place, now.key, 2 * COUNT)
    order = race.order()
    passed = {other for other in order[: order.index(user)] if other not in ahead}
    named = {race.board.user(slot) for slot in slots}
    assert more
    assert named < passed
    assert named


def test_an_import_of_new_users_is_not_sorted_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are looked at, and there may be more."""
    monkeypatch.setattr(bounds, "MOVES_MAX", 50)
    board = Board("main")
    board.record("ann", 1, 1, 0)
    moves = Moves(len(board))
    board.watch(moves)
    place = place_of(board, moves, "ann")
    for number in range(60):
        board.record(f"user-{number}", 2 + number, 2 + number, 0)
    slots, more = Passers(board, moves).of(place, place.key, 100)
    assert [board.user(slot) for slot in slots] == [f"user-{number}" for number in range(10, 60)]
    assert more
