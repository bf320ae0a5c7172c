"""What a start from a snapshot holds at its peak, beside what remains."""

from __future__ import annotations

import tracemalloc
from array import array

import pytest
from msgspec.structs import replace

from engine import slots, sorting
from engine.board_rules import Rules
from engine.image import BoardImage
from engine.scoreboard import Scoreboard
from engine.user_ids import UserIds
from snapshots.format import pack, unpack
from tests.snapshots.images import Bytes, sample, sample_tail

USERS = 200_000


def file_of_many() -> bytes:
    """The snapshot of a state with one board of USERS users."""
    numbers = range(1, USERS + 1)
    board = BoardImage(
        "main", USERS, USERS, UserIds(f"user-{number:07}" for number in numbers),
        array("Q", numbers), array("Q", numbers), array("Q", numbers),
    )  # fmt: skip
    image, tail = replace(sample(), boards=[board], seq=USERS), replace(sample_tail(), seq=USERS)
    return b"".join(pack(image, tail))


def test_a_start_holds_little_more_than_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state takes ids and columns as they were read. What is worked on in pieces is cut into more of them here."""
    for module in (slots, sorting):
        monkeypatch.setattr(module, "PIECE", 2**12)
    source = Bytes(file_of_many())
    tracemalloc.start()
    try:
        image, _ = unpack(source, "a snapshot")
        scoreboard = Scoreboard.from_image(Rules({}), image, owned=True)
        del image
        scoreboard.end_replay()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(scoreboard.boards["main"]) == USERS
    assert peak < 1.15 * held
