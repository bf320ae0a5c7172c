"""Ranks in every mode: random events on a board, held against a plain list that is sorted anew each time."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.board import Board
from engine.board_rules import BoardDefinition, BoardRules, Frozen, OrderMode, Range, RankMode, ScoreMode, next_score
from engine.events import Rescored
from engine.frozen_board import FrozenBoard
from engine.pinned import PinnedOrder
from engine.ranking import Row, Standing
from engine.scored_ranking import FedStep, Step

MS = 1_700_000_000_000
USERS = ("ann", "ben", "cid", "dan", "eve", "fay")
SCORES: tuple[ScoreMode, ...] = ("sum", "best", "last", "count")
ORDERS: tuple[OrderMode, ...] = ("descending", "ascending")
RANKS: tuple[RankMode, ...] = ("unique", "shared", "dense")
MODES = [
    BoardRules({"ANY": Range(0, 9), "LESS": -3}, score=score, order=order, ranks=ranks)
    for score, order, ranks in product(SCORES, ORDERS, RANKS)
]
every_mode = pytest.mark.parametrize("rules", MODES, ids=lambda rules: f"{rules.score}-{rules.order}-{rules.ranks}")

actions = st.lists(st.tuples(st.sampled_from(USERS), st.integers(-3, 5)), min_size=1, max_size=4)
steps = st.one_of(
    actions, actions, st.tuples(st.sampled_from(["hide", "show", "touch", "leave", "back"]), st.sampled_from(USERS))
)
WhatIsDone = list[tuple[str, int]] | tuple[str, str]
"""Actions that are applied together, as user and value; or what is done with a user."""


class Plain:
    """The judge: who has which score since which seq, and who is hidden. Everything is sorted and counted anew."""

    def __init__(self, rules: BoardRules) -> None:
        self.rules = rules
        self.scores: dict[str, tuple[int, int]] = {}
        self.hidden: set[str] = set()

    def rows(self) -> list[Row]:
        """Sort the users who are shown, and rank them by counting who is better."""
        sign = 1 if self.rules.order == "ascending" else -1
        shown = sorted(
            (sign * score, seq, user) for user, (score, seq) in self.scores.items() if user not in self.hidden
        )
        rows = []
        for place, (signed, _, user) in enumerate(shown, 1):
            better = [other for other, _, _ in shown if other < signed]
            rank = {"unique": place, "shared": 1 + len(better), "dense": 1 + len(set(better))}[self.rules.ranks]
            rows.append(Row(rank, user, sign * signed))
        return rows

    def rank(self, user: str) -> int | None:
        """Look a rank up."""
        return next((row.rank for row in self.rows() if row.user_id == user), None)

    def standing(self, user: str) -> Standing | None:
        """Find the next better user: the row above, or the last one with a better score."""
        rows = self.rows()
        place = next((place for place, row in enumerate(rows) if row.user_id == user), None)
        if place is None:
            return None
        above = [row for row in rows[:place] if self.rules.ranks == "unique" or row.score != rows[place].score]
        return Standing(rows[place].rank, abs(above[-1].score - rows[place].score) if above else None)

    def around(self, user: str, count: int) -> list[Row]:
        """Cut a window of 2 * count + 1 rows, moved in from the edges."""
        rows = self.rows()
        place = next((place for place, row in enumerate(rows) if row.user_id == user), None)
        if place is None:
            return []
        windows = [rows[start : start + 2 * count + 1] for start in range(max(1, len(rows) - 2 * count))]
        return windows[min(max(0, place - count), len(windows) - 1)]


class World:
    """A board and its judge."""

    def __init__(self, rules: BoardRules) -> None:
        self.board = Board("main", BoardDefinition(rules))
        self.plain = Plain(rules)
        self.seq = 0
        self.log: list[Step | tuple[str, str, int, int]] = []
        self.firsts: dict[str, int] = {}

    def do(self, what: WhatIsDone) -> None:
        """Do it on both; what the board tells of ranks must be what the judge finds before and after each action."""
        if isinstance(what, tuple):
            self._change(*what)
        else:
            self._count(what)
        self.board._check()

    def _change(self, what: str, user: str) -> None:
        self.seq += 1
        done = (what, user, self.seq, self.firsts.get(user, 0))
        self.log.append(done)
        change(self.board, *done)
        if what == "leave":
            self.plain.scores.pop(user, None)
            self.plain.hidden.discard(user)
        elif what == "back":
            if user in self.firsts:
                self.plain.scores[user] = (1, self.firsts[user])
        elif what == "hide":
            self.plain.hidden |= {user} & set(self.plain.scores)
        elif what == "show":
            self.plain.hidden.discard(user)

    def _count(self, values: list[tuple[str, int]]) -> None:
        scores, taken, expected = self.plain.scores, [], []
        for user, value in values:
            self.seq += 1
            old = scores.get(user)
            score = next_score(self.plain.rules, None if old is None else old[0], value)
            before = self.plain.rank(user)
            if old is None or old[0] != score:
                scores[user] = (score, self.seq)
                self.firsts.setdefault(user, self.seq)
            expected.append((before, self.plain.rank(user)))
            taken.append(Step(user, score, self.seq))
        self.log += taken
        assert self.board.record_all(taken, MS) == expected

    def put(self, rules: BoardRules) -> None:
        """Replace the rules."""
        self.seq += 1
        self.board.define(BoardDefinition(rules), self.seq)
        self.plain.rules = rules
        self.board._check()


def change(board: Board, what: str, user: str, seq: int, first: int) -> None:
    """Do with a user what a step says. `back`: to one point, which the user's first action reached."""
    if what == "leave":
        board.rescore([Rescored(user, None, 0, 0)], seq)
    elif what == "back":
        if first:
            board.rescore([Rescored(user, 1, first, MS)], seq)
    else:
        {"hide": board.hide, "show": board.show, "touch": board.touch}[what](user, seq)


def compare(board: Board, plain: Plain) -> None:
    """Ask the board everything that can be asked."""
    rows = plain.rows()
    assert [board.top(count) for count in range(len(rows) + 2)] == [rows[:count] for count in range(len(rows) + 2)]
    assert board.ranked == len(rows)
    for user in (*USERS, "nobody"):
        assert board.rank(user) == plain.rank(user)
        assert board.standing(user) == plain.standing(user)
        assert board.score(user) == plain.scores.get(user, (None, 0))[0]
        for count in range(4):
            assert board.around(user, count) == plain.around(user, count)
    for users in (USERS, USERS[::2], ("nobody", *USERS[3:])):
        found, missing = board.rows_for(users)
        assert found == [row for row in rows if row.user_id in users]
        assert missing == [user for user in users if plain.rank(user) is None]


def walk(board: Board, pinned: PinnedOrder, page: int) -> list[Row]:
    """Read a pinned order to its end, each page with the rank and the key of the row before it."""
    rows: list[Row] = []
    before: tuple[int, int] | None = None
    while keys := pinned.keys_after(before and before[1], page):
        rows += board.rows_of(keys, len(rows), before)
        before = (rows[-1].rank, keys[-1])
    return rows


@every_mode
@settings(max_examples=30)
@given(st.lists(steps, max_size=12))
def test_a_board_ranks_as_a_plain_sort(rules: BoardRules, story: list[WhatIsDone]) -> None:
    """After each step: top, rank, standing, neighbours, chosen users; and the ranks that a receipt has."""
    world = World(rules)
    for what in story:
        world.do(what)
        compare(world.board, world.plain)


@every_mode
@settings(max_examples=15)
@given(st.lists(steps, max_size=12), st.lists(steps, max_size=4))
def test_a_board_of_an_image_ranks_as_before(
    rules: BoardRules, before: list[WhatIsDone], after: list[WhatIsDone]
) -> None:
    """Captured, made anew and its order built: the same board, which then goes on as the first one would."""
    world = World(rules)
    world.put(rules)
    for what in before:
        world.do(what)
    image = world.board.capture()
    world.board = Board.from_image(image, sorted(world.plain.hidden))
    world.board.end_replay()
    world.board._check()
    compare(world.board, world.plain)
    assert world.board.capture() == image
    for what in after:
        world.do(what)
    compare(world.board, world.plain)


@every_mode
@settings(max_examples=15)
@given(st.lists(steps, max_size=12))
def test_a_replay_makes_the_same_board(rules: BoardRules, story: list[WhatIsDone]) -> None:
    """Without the order no ranks are told; built once at the end it is the same, and so is the image."""
    world = World(rules)
    again = Board("main", BoardDefinition(rules))
    again.begin_replay()
    for what in story:
        world.do(what)
    for each in world.log:
        if isinstance(each, Step):
            assert again.record_all([each], MS) == [(None, None)]
        else:
            change(again, *each)
    again.end_replay()
    again._check()
    compare(again, world.plain)
    assert again.capture() == world.board.capture()


@every_mode
@settings(max_examples=15)
@given(st.lists(steps, max_size=12))
def test_a_board_that_is_fed_is_as_one_that_is_scored_on(rules: BoardRules, story: list[WhatIsDone]) -> None:
    """It tells no ranks, but has the same order, the same image, and the same mark of what its viewers see."""
    world = World(rules)
    fed = Board("main", BoardDefinition(rules))
    scores: dict[str, int] = {}
    for what in story:
        done = len(world.log)
        world.do(what)
        taken: list[FedStep] = []
        for each in world.log[done:]:
            if isinstance(each, Step):
                taken.append((each.user_id, each.new_score - scores.get(each.user_id, 0), each.new_score, each.seq))
                scores[each.user_id] = each.new_score
            else:
                change(fed, *each)
                scores = {user: score for user, (score, _) in world.plain.scores.items()}
        fed.feed(taken, MS)
        fed._check()
        compare(fed, world.plain)
        assert (fed.seq, fed.top10_seq) == (world.board.seq, world.board.top10_seq)
        assert fed.capture() == world.board.capture()


@every_mode
@settings(max_examples=15)
@given(st.lists(steps, max_size=10), st.lists(steps, max_size=8), st.integers(1, 4))
def test_a_walk_in_pages_ranks_as_the_moment_that_was_pinned(
    rules: BoardRules, before: list[WhatIsDone], after: list[WhatIsDone], page: int
) -> None:
    """Users of one score who are cut apart by a page still share their rank, whatever happens meanwhile."""
    world = World(rules)
    for what in before:
        world.do(what)
    rows = world.plain.rows()
    pinned = world.board.pin()
    assert walk(world.board, pinned, page) == rows
    for what in after:
        world.do(what)
        if pinned.ended:  # somebody left
            break
        assert walk(world.board, pinned, page) == rows
    world.board.unpin(pinned)


@settings(max_examples=150)
@given(st.sampled_from(MODES), st.lists(st.one_of(steps, st.sampled_from(RANKS)), max_size=12))
def test_ranks_may_change_while_the_board_has_scores(rules: BoardRules, story: list[WhatIsDone | RankMode]) -> None:
    """A PUT between two events may make ranks shared, dense or unique: the same order, ranked anew."""
    world = World(rules)
    for what in story:
        if isinstance(what, str):
            world.put(replace(world.plain.rules, ranks=what))
        else:
            world.do(what)
        compare(world.board, world.plain)


@given(st.sampled_from(MODES), st.sampled_from(ORDERS), st.lists(steps, max_size=8))
def test_an_order_that_is_turned_round_ranks_as_if_it_had_always_been_so(
    rules: BoardRules, order: OrderMode, story: list[WhatIsDone]
) -> None:
    """No command does that on a board with scores, but applying an event must not fail."""
    world = World(replace(rules, score="last"))
    for what in story:
        world.do(what)
    world.put(replace(world.plain.rules, order=order))
    compare(world.board, world.plain)
    world.do([("ann", 2), ("ben", 2), ("ann", 4)])
    compare(world.board, world.plain)


def test_equal_scores_in_the_three_modes() -> None:
    """The table of the documents: 9, 7, 7, 4 are ranked 1 2 3 4, 1 2 2 4, and 1 2 2 3."""
    for ranks, expected in zip(RANKS, ([1, 2, 3, 4], [1, 2, 2, 4], [1, 2, 2, 3]), strict=True):
        board = Board("main", BoardDefinition(BoardRules({"ANY": Range(0, 9)}, score="last", ranks=ranks)))
        board.record_all([Step("a", 9, 1), Step("b", 7, 2), Step("c", 7, 3), Step("d", 4, 4)], MS)
        assert [row.rank for row in board.top(4)] == expected
        last = Standing(3, 0) if ranks == "unique" else Standing(2, 2)
        assert board.standing("c") == last
        assert [row.rank for row in board.around("d", 1)] == expected[1:]


def test_a_frozen_board_reveals_that_users_left() -> None:
    """A row whose user left the board since goes away when it is its turn. Rows that were revealed stay so."""
    board = Board("main", BoardDefinition(BoardRules({"ANY": 1}), frozen=Frozen(4, MS)), is_logged=True)
    board.record_all([Step("ann", 4, 1), Step("ben", 3, 2), Step("cid", 2, 3), Step("dan", 1, 4)], MS)
    board.frozen = public = FrozenBoard.of(board)
    board.record("eve", 1, 5, MS)
    assert not public.reveal(board, 2, 6)  # eve, who is new, and dan
    board.rescore([Rescored("ben", None, 0, 0), Rescored("eve", None, 0, 0), Rescored("ann", 2, 1, MS)], 7)
    board.record("fay", 9, 8, MS)
    public._check()
    assert [row.user_id for row in public.top(9)] == ["ann", "ben", "cid", "dan", "eve"]
    told = [
        [(row.user_id, row.score) for row in public.top(9)] for seq in range(9, 13) if not public.reveal(board, 1, seq)
    ]
    assert told[0] == [("fay", 9), ("ann", 4), ("ben", 3), ("cid", 2), ("dan", 1), ("eve", 1)]
    assert ("ben", 3) not in told[-1]
    assert public.reveal(board, 9, 13)
    assert [row for row in public.top(9) if row.user_id != "eve"] == [*board.top(9)]
    public._check()
