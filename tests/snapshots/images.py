"""State images for tests of the format: a fixed one, a strategy for any, and bytes to read them from."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from hypothesis import strategies as st
from msgspec.structs import replace

from engine.board_rules import BoardDefinition, BoardRules, Frozen, Range
from engine.image import ACTIONS, PARTS, ActionsImage, BoardImage, StateImage, UsersImage
from engine.past_ranks import NOTHING, Note, PastRanks, Start, began_after
from engine.record import Tail
from engine.user_ids import UserIds

WORD_MAX = 2**64 - 1


class Bytes:
    """Bytes that are read like a file, and count the longest read that was asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.longest_read = 0

    def size(self) -> int:
        """Give the length."""
        return len(self.data)

    def read_at(self, offset: int, length: int) -> bytes:
        """Read like a file does: short at the end."""
        self.longest_read = max(self.longest_read, length)
        return self.data[offset : offset + length]


def board(board_id: str, seq: int, rows: Sequence[tuple[str, int, int, int]]) -> BoardImage:
    """Make a board from rows of user id, score, reached, updated."""
    return BoardImage(
        board_id=board_id,
        seq=seq,
        count=len(rows),
        user_ids=UserIds(row[0] for row in rows),
        scores=array("Q", [row[1] for row in rows]),
        reached=array("Q", [row[2] for row in rows]),
        updated=array("Q", [row[3] for row in rows]),
    )


def users(rows: Sequence[tuple[str, str | None, bool]]) -> UsersImage:
    """Make users from rows of user id, name, active."""
    return UsersImage(
        count=len(rows),
        user_ids=[row[0] for row in rows],
        names=[row[1] for row in rows],
        active=bytes(row[2] for row in rows),
    )


def actions(rows: Sequence[tuple[int, int, int, int]]) -> ActionsImage:
    """Make actions from rows of two digest words, seq, mark."""
    return ActionsImage(
        count=len(rows),
        digests=array("Q", [word for row in rows for word in row[:2]]),
        seqs=array("Q", [row[2] for row in rows]),
        marks=array("Q", [row[3] for row in rows]),
    )


def sample() -> StateImage:
    """A small state with a bit of everything: two epochs, two boards, a nameless and an inactive user."""
    return StateImage(
        epoch=3,
        seq=9,
        time_ms=1_765_802_096_789,
        epochs=[(1, 1), (7, 3)],
        boards=[
            board(
                "main", 9, [("ann", 30, 9, 1_765_802_096_789), ("bob", 20, 4, 1_765_802_090_000), ("čeněk", 0, 5, 1)]
            ),
            board("weekly ✓", 6, [("bob", 2**53 - 1, 6, 1_765_802_091_000)]),
        ],
        users=users([("ann", "Ann 🦊", True), ("dan", None, False)]),
        actions=actions([(1, 2, 2, 3), (WORD_MAX, 0, 4, 5), (6, 7, 5, 8), (9, 10, 6, 11), (12, 13, 9, WORD_MAX)]),
    )


def sample_with_definitions() -> StateImage:
    """The same with boards that events defined: with all rules, closed and empty, with the fewest, and one without."""
    image = sample()
    main, weekly = image.boards
    laps = BoardRules(
        {"LAP": Range(1, 2**53 - 1), "FOUL": -4, "größer-🎯": 10}, "Runden 🏁",
        score="best", order="ascending", ranks="dense", keep_periods=3, feeds=("main", "weekly ✓"),
    )  # fmt: skip
    boards = [
        replace(board("laps", 8, []), definition=BoardDefinition(laps, closed=True)),
        replace(main, definition=BoardDefinition(BoardRules({"ACTION_COMPLETED": 10}))),
        weekly,
    ]
    return replace(image, boards=boards)


def sample_with_past_ranks() -> StateImage:
    """The same, one of the boards frozen. All but one have ranks of earlier moments."""
    image = sample_with_definitions()
    laps, main, weekly = image.boards
    assert main.definition is not None
    definition = replace(main.definition, frozen=Frozen(5, 1_765_802_091_000, 1))
    public = board("main", 6, [("ann", 10, 2, 1), ("bob", 20, 4, 1_765_802_090_000)])
    past = began_after(["bob", "čeněk 🦊"], [1, 1]).noted(1_765_802_000_000, 1_765_802_000_001, [1, 0], [1, 2])
    public = replace(public, definition=definition, revealed=b"\1\0", past_ranks=past)
    past = past.noted(1_765_802_003_600_000, 1_765_888_400_001, [0, 1, 2], [1, 2, 2])
    boards = [
        laps,
        replace(main, definition=definition, frozen=public, past_ranks=past),
        replace(weekly, past_ranks=NOTHING.noted(1_765_802_000_000, 1_765_802_000_001, [], [])),
    ]
    return replace(image, boards=boards, noted=(8, 1_765_802_090_000))


def sample_with_parts() -> StateImage:
    """The same with parts, whose bytes mean nothing here."""
    return replace(sample_with_past_ranks(), parts=(("imports", b"\0\1"), ("reversals", b"2")))


def sample_tail() -> Tail:
    """The tail that goes with `sample`."""
    return Tail(log_id=bytes(range(16)), epoch=3, seq=9, checksum=0xDEADBEEF)


WORDS = st.integers(0, WORD_MAX)
SEQS = st.integers(0, 2**53 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=128)
BOARD_ROWS = st.lists(st.tuples(TEXTS, WORDS, WORDS, WORDS), max_size=9)
USER_ROWS = st.lists(st.tuples(TEXTS, st.none() | TEXTS, st.booleans()), max_size=9)
ACTION_ROWS = st.lists(st.tuples(WORDS, WORDS, WORDS, WORDS), max_size=9)


WORTHS = st.integers(-(2**53), 2**53) | st.builds(Range, min=SEQS, max=SEQS)
RULES = st.builds(
    BoardRules,
    points=st.dictionaries(TEXTS, WORTHS, max_size=3),
    title=st.just("") | TEXTS,
    keep_periods=st.integers(1, 1_000),
    feeds=st.lists(TEXTS, max_size=2).map(tuple),
)
DEFINITIONS = st.none() | st.builds(BoardDefinition, rules=RULES, closed=st.booleans())
WORDS_32 = st.binary(max_size=24).map(lambda data: data[: len(data) // 4 * 4])
PAST_RANKS = st.just(NOTHING) | st.builds(
    PastRanks,
    notes=st.lists(st.builds(Note, as_of_ms=SEQS, slots=WORDS_32, ranks=WORDS_32), max_size=2).map(tuple),
    has_day=st.booleans(),
    start=st.none() | st.builds(Start, users=st.binary(max_size=9), ranks=WORDS_32),
)


PART_NAMES = st.sampled_from([name for name in PARTS if name != ACTIONS])


@st.composite
def images(draw: st.DrawFn) -> tuple[StateImage, Tail]:
    """Any state, and a tail that goes with it."""
    epoch, seq = draw(SEQS), draw(SEQS)
    board_ids = sorted(draw(st.sets(TEXTS, max_size=3)))
    image = StateImage(
        epoch=epoch,
        seq=seq,
        time_ms=draw(SEQS),
        epochs=draw(st.lists(st.tuples(SEQS, SEQS), max_size=3)),
        boards=[
            replace(
                board(board_id, draw(SEQS), draw(BOARD_ROWS)), definition=draw(DEFINITIONS), past_ranks=draw(PAST_RANKS)
            )
            for board_id in board_ids
        ],
        users=users(draw(USER_ROWS)),
        actions=actions(draw(ACTION_ROWS)),
        histories=draw(st.lists(st.tuples(SEQS, st.binary(min_size=16, max_size=16)), max_size=2)),
        noted=draw(st.just((0, 0)) | st.tuples(SEQS, SEQS)),
        parts=tuple((name, draw(st.binary(min_size=1, max_size=9))) for name in sorted(draw(st.sets(PART_NAMES)))),
    )
    log_id = draw(st.binary(min_size=16, max_size=16))
    return image, Tail(log_id=log_id, epoch=epoch, seq=seq, checksum=draw(st.integers(0, 2**32 - 1)))
