"""A pinned order: the board of one moment, whatever happens afterwards."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine import pinned as module
from engine.board import Board
from engine.pinned import PinnedOrder
from engine.ranking import Row

USERS = [f"u{number}" for number in range(8)]
MS = 1_700_000_000_000

changes = st.tuples(
    st.sampled_from(["record", "record", "record", "hide", "show"]), st.sampled_from(USERS), st.integers(0, 3)
)


class World:
    """A board, and what its events did."""

    def __init__(self) -> None:
        self.board = Board("main")
        self.hidden: set[str] = set()

    def do(self, what: str, user_id: str, points: int) -> None:
        seq = self.board.seq + 1
        if what == "record" and user_id not in self.hidden:
            self.board.record(user_id, (self.board.score(user_id) or 0) + points, seq, MS)
        elif what == "hide":
            self.hidden.add(user_id)
            self.board.hide(user_id, seq)
        elif what == "show":
            self.hidden.discard(user_id)
            self.board.show(user_id, seq)
        self.board._check()


def walk(board: Board, pinned: PinnedOrder, page: int) -> list[Row]:
    """Read a pinned order to its end."""
    rows: list[Row] = []
    key = None
    while keys := pinned.keys_after(key, page):
        assert len(keys) <= page
        rows += board.rows_of(keys, len(rows))
        key = keys[-1]
    return rows


@given(st.lists(changes, max_size=20), st.lists(st.lists(changes, max_size=8), max_size=5), st.integers(1, 4))
def test_a_walk_lists_what_was_there_when_it_began(
    before: list[tuple[str, str, int]], between: list[list[tuple[str, str, int]]], page: int
) -> None:
    """Whatever changes between two pages: users come, climb, leave, come back. Each page is that of a plain copy."""
    world = World()
    for change in before:
        world.do(*change)
    board = world.board
    copy = board.top(100)
    pinned = board.pin()
    assert (pinned.count, pinned.seq) == (len(copy), board.seq)
    later = board.pin()
    rows: list[Row] = []
    key = None
    for some in between:
        for change in some:
            world.do(*change)
        keys = pinned.keys_after(key, page)
        rows += board.rows_of(keys, len(rows))
        key = keys[-1] if keys else key
    assert rows == copy[: len(rows)]
    assert len(rows) == min(len(copy), page * len(between))
    assert walk(board, pinned, page) == copy, "it may be read again"
    assert walk(board, later, page) == copy


def test_two_pins_show_two_moments() -> None:
    """Each keeps what it needs, and the board goes on without them."""
    world = World()
    for number, user_id in enumerate(USERS):
        world.do("record", user_id, number)
    first, at_first = world.board.pin(), world.board.top(100)
    world.do("record", "u0", 100)
    second, at_second = world.board.pin(), world.board.top(100)
    world.do("hide", "u5", 0)
    world.do("record", "new", 1)
    assert walk(world.board, first, 3) == at_first
    assert walk(world.board, second, 3) == at_second
    world.board.unpin(first)
    world.board.unpin(first)
    world.do("record", "u3", 50)
    assert first.ended
    assert walk(world.board, second, 3) == at_second
    world.board.unpin(second)
    assert world.board._pinned == []


def test_too_many_changes_end_it() -> None:
    """It holds as many as it may, then drops all; a user who moves again counts once."""
    world = World()
    for user_id in USERS:
        world.do("record", user_id, 1)
    copy = world.board.top(100)
    order = world.board._ranked()
    pinned = PinnedOrder(order, world.board.seq, slots=8, slot_mask=module_mask(), changes_max=3)
    world.board._pinned.append(pinned)
    for user_id in ("u1", "u2", "u1", "u3", "u3"):
        world.do("record", user_id, 5)
    assert walk(world.board, pinned, 3) == copy
    world.do("record", "u4", 1)
    assert pinned.ended
    assert not pinned._old
    assert not pinned._changed
    world.do("record", "u5", 1)
    assert module.CHANGES_MAX >= 10_000


def module_mask() -> int:
    """The bits of a key that are its slot."""
    return (1 << 32) - 1
