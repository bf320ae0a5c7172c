"""The JSON of the top rows: the specification's shapes, byte by byte where it matters, and deltas that add up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ranking import Row
from engine.users import User, Users
from server.live import encoding
from server.live.encoding import Entry, Moment, Rows, delta, entries_of, iso_ms
from tests.server.live.watching import apply_delta

BOARD_ROWS = [Row(1, "123", 1500), Row(2, "7", 10)]
NOON_MS = 1_765_802_096_000
MOMENT = Moment("main", 2, 42, NOON_MS)


def named(user_id: str, name: str) -> Users:
    users = Users()
    users.put(user_id, User(name, active=True))
    return users


NAMES = named("123", "Alice")
ROWS = entries_of(BOARD_ROWS, NAMES)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (NOON_MS, "2025-12-15T12:34:56.000Z"),
        (NOON_MS + 7, "2025-12-15T12:34:56.007Z"),
        (951_782_400_999, "2000-02-29T00:00:00.999Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_iso_with_milliseconds(ms: int, text: str) -> None:
    """Always three digits and a Z, as in the specification."""
    assert iso_ms(ms) == text


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001  # made UTC below
def test_any_time_is_what_the_standard_library_says(moment: datetime) -> None:
    """The calendar is our own, because pure code has no clock beside it; it agrees with Python's to the millisecond."""
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)
    ms = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert iso_ms(ms) == moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_the_top_has_the_shape_and_the_order_of_the_specification() -> None:
    """`entries` and `generatedAt` first, as there, then what this project adds; an unknown name is left out."""
    assert encoding.top_body(ROWS, MOMENT) == (
        b'{"entries":[{"userId":"123","displayName":"Alice","score":1500,"rank":1},{"userId":"7","score":10,"rank":2}],'
        b'"generatedAt":"2025-12-15T12:34:56.000Z","boardId":"main","epoch":2,"seq":42}'
    )


def test_an_empty_board_has_no_entries() -> None:
    """An empty list, not a missing one."""
    assert b'{"entries":[],' in encoding.top_body((), Moment("main", 1, 0, 0))


@pytest.mark.parametrize("kind", ["snapshot", "update"])
def test_messages_are_the_top_with_a_type(kind: str) -> None:
    """A message begins with its type and goes on exactly like the top."""
    make = {"snapshot": encoding.snapshot_message, "update": encoding.update_message}[kind]
    top = encoding.top_body(ROWS, MOMENT)
    assert make(ROWS, MOMENT) == b'{"type":"scoreboard_' + kind.encode() + b'",' + top[1:]


def test_a_delta_tells_what_it_applies_to() -> None:
    """Changed rows are whole, users that left are ids; the seq before and after."""
    before = entries_of([Row(1, "7", 5), Row(2, "9", 4)], NAMES)
    assert encoding.delta_message(before, ROWS, 41, MOMENT) == (
        b'{"type":"scoreboard_delta","boardId":"main","epoch":2,"baseSeq":41,"seq":42,"changed":['
        b'{"userId":"123","displayName":"Alice","score":1500,"rank":1},{"userId":"7","score":10,"rank":2}],'
        b'"left":["9"],"generatedAt":"2025-12-15T12:34:56.000Z"}'
    )


def test_any_id_and_name_survives() -> None:
    """Quotes, backslashes, other planes and what HTML would mind come out as they went in."""
    user_id, name = 'a"b\\c</script>', "Ünï\U0001f600 <b>"
    rows = entries_of([Row(1, user_id, 2**53 - 1)], named(user_id, name))
    body = encoding.top_body(rows, Moment("main", 1, 1, 0))
    assert msgspec.json.decode(body)["entries"] == [
        {"userId": user_id, "displayName": name, "score": 2**53 - 1, "rank": 1}
    ]


# Deltas


def row(user_id: str, score: int, rank: int, name: str | None = None) -> Entry:
    """Make an entry."""
    return Entry(user_id=user_id, display_name=name, score=score, rank=rank)


A, B, C = row("a", 30, 1), row("b", 20, 2), row("c", 10, 3)
B_FIRST, A_SECOND = row("b", 40, 1), row("a", 30, 2)
X, Y, Z = row("x", 20, 2), row("y", 20, 2), row("z", 20, 2)


@pytest.mark.parametrize(
    ("before", "after", "changed", "left"),
    [
        pytest.param((), (), (), (), id="nothing to nothing"),
        pytest.param((A, B), (A, B), (), (), id="the same"),
        pytest.param((), (A,), (A,), (), id="the first row"),
        pytest.param((A,), (), (), ("a",), id="the last one leaves"),
        pytest.param((A, B), (A, B, C), (C,), (), id="one more"),
        pytest.param((A, B), (A, row("b", 25, 2)), (row("b", 25, 2),), (), id="a score"),
        pytest.param((A,), (row("a", 30, 1, "Anna"),), (row("a", 30, 1, "Anna"),), (), id="a name"),
        pytest.param((A, B), (B_FIRST, A_SECOND), (B_FIRST, A_SECOND), (), id="overtaken"),
        pytest.param((A, B), (A, row("d", 25, 2)), (row("d", 25, 2),), ("b",), id="one comes, one leaves"),
        pytest.param((A, X), (A, X, Y), (X, Y), (), id="a rank becomes shared"),
        pytest.param((A, X, Z), (A, X, Y, Z), (X, Y, Z), (), id="one comes between equals"),
        pytest.param((A, X, Y), (A, Y, X), (Y, X), (), id="equals change places"),
        pytest.param((A, X, Y, Z), (A, X, Z), (), ("y",), id="one of equals leaves"),
        pytest.param((A, X, Y), (row("a", 31, 1), X, Y), (row("a", 31, 1),), (), id="equals stay as they are"),
    ],
)
def test_a_delta_has_what_differs_and_nothing_else(
    before: Rows, after: Rows, changed: Rows, left: tuple[str, ...]
) -> None:
    """Rows that stay as they are are not told again."""
    assert delta(before, after) == (changed, left)


def ranked(scores: dict[str, int], mode: str) -> Rows:
    """Rank users as a board of this mode does, those with equal scores in the order given."""
    rows: list[Entry] = []
    for place, (user, score) in enumerate(sorted(scores.items(), key=lambda item: -item[1]), 1):
        rank = place
        if rows and mode != "unique":
            rank = rows[-1].rank if rows[-1].score == score else place if mode == "shared" else rows[-1].rank + 1
        rows.append(row(user, score, rank))
    return tuple(rows)


tied_tops = st.lists(
    st.tuples(st.sampled_from("abcdefghijkl"), st.integers(0, 4)), unique_by=lambda chosen: chosen[0], max_size=10
)

tops = st.lists(
    st.tuples(st.sampled_from("abcdefghijkl"), st.integers(0, 50), st.sampled_from([None, "x", "y"])),
    unique_by=lambda chosen: chosen[0],
    max_size=10,
).map(lambda chosen: tuple(row(user, score, rank, name) for rank, (user, score, name) in enumerate(chosen, 1)))


@given(st.lists(tops, min_size=2, max_size=6))
def test_deltas_one_after_another_lead_to_the_same_rows(sequence: list[Rows]) -> None:
    """A client that begins with one top and applies every delta has, after each of them, the rows of the next top."""
    shown = msgspec.to_builtins(sequence[0])
    for number, (before, after) in enumerate(pairwise(sequence)):
        message = msgspec.json.decode(encoding.delta_message(before, after, number, Moment("main", 1, number + 1, 0)))
        shown = apply_delta(list(shown), message)
        assert shown == msgspec.to_builtins(list(after))


@given(st.sampled_from(["unique", "shared", "dense"]), st.lists(tied_tops, min_size=2, max_size=6))
def test_deltas_keep_the_order_of_equal_ranks(mode: str, sequence: list[list[tuple[str, int]]]) -> None:
    """However users with equal scores change places, a client has them in the board's order."""
    shown: list[dict[str, object]] = []
    for before, after in pairwise(ranked(dict(chosen), mode) for chosen in [[], *sequence]):
        message = msgspec.json.decode(encoding.delta_message(before, after, 0, Moment("main", 1, 1, 0)))
        shown = apply_delta(shown, message)
        assert shown == msgspec.to_builtins(list(after))


@given(tops, tops)
def test_a_delta_is_never_longer_than_it_has_to_be(before: Rows, after: Rows) -> None:
    """Every row in it is new or differs, and all users that left were there."""
    changed, left = delta(before, after)
    assert set(changed) == set(after) - set(before)
    assert set(left) == {entry.user_id for entry in before} - {entry.user_id for entry in after}
