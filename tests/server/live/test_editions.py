"""Editions of a board's top: made when something moved, encoded once, the right message for what a viewer has."""

from __future__ import annotations

import msgspec
import pytest

from engine.board_rules import rules_of_points
from engine.scoreboard import Scoreboard
from server.live import encoding
from server.live.board_view import BoardView
from server.live.editions import DELTA, NO_EDITION, SNAPSHOT, UPDATE, Channel, Edition, Shown
from server.live.encoding import Moment
from tests.engine.model import increment, perform, put
from tests.server.live.client_frames import take_server_frame


class Table:
    """A scoreboard and the channel of its board."""

    def __init__(self) -> None:
        self.scoreboard = Scoreboard(rules_of_points({"main": {"ACTION_COMPLETED": 10}}))
        self.now_ms = 0
        self.channel = Channel(BoardView("main"), self.scoreboard, lambda: self.now_ms)

    def score(self, user: str, action: str) -> None:
        """Give a user points."""
        perform(self.scoreboard, [increment(user, action)])


def type_of(shown: Shown) -> str:
    """Read the type out of a message's frame."""
    frame = take_server_frame(bytearray(shown.frame))
    assert frame is not None
    return str(msgspec.json.decode(frame[1])["type"])


def test_an_edition_is_made_only_when_the_top_moved() -> None:
    """Asking again gives the same edition; a change gives one with the next number."""
    table = Table()
    first = table.channel.newest()
    assert table.channel.newest() is first
    table.score("ann", "a")
    second = table.channel.newest()
    assert (first.number, second.number) == (NO_EDITION + 1, NO_EDITION + 2)
    assert (second.seq, second.epoch, len(second.rows)) == (1, 1, 1)
    assert table.channel.newest() is second


def test_what_does_not_show_makes_no_edition() -> None:
    """A user with a name but without points is not shown."""
    table = Table()
    first = table.channel.newest()
    perform(table.scoreboard, [put("nobody", "Nobody")])
    assert table.channel.newest() is first
    assert not table.channel.is_behind


def test_points_below_the_first_rows_are_not_published_but_told_to_newcomers() -> None:
    """The rows stay, so there is nothing to publish; yet the position that a newcomer gets is that of the board."""
    table = Table()
    for number in range(10):
        table.score(f"u{number}", f"first-{number}")
        table.score(f"u{number}", f"second-{number}")
    published = table.channel.publish()
    table.score("eleventh", "e")
    assert not table.channel.is_behind
    newest = table.channel.newest()
    assert newest.rows == published.rows
    assert (published.seq, newest.seq) == (20, 21)


def test_publishing_brings_the_channel_up_to_date() -> None:
    """`is_behind` tells of changes since the last published edition, however many newer ones were made."""
    table = Table()
    assert not table.channel.is_behind
    table.score("ann", "a")
    assert table.channel.is_behind
    newest = table.channel.newest()
    assert table.channel.is_behind
    assert table.channel.publish() is newest is table.channel.published
    assert not table.channel.is_behind


def test_a_new_epoch_makes_an_edition() -> None:
    """The position is part of every message, and the epoch of the position."""
    table = Table()
    first = table.channel.newest()
    table.scoreboard.epoch = 2
    assert table.channel.newest().number == first.number + 1


@pytest.mark.parametrize(
    ("has", "deltas", "kind"),
    [
        (NO_EDITION, False, SNAPSHOT),
        (NO_EDITION, True, SNAPSHOT),
        (1, False, UPDATE),
        (1, True, SNAPSHOT),
        (2, False, UPDATE),
        (2, True, DELTA),
        (3, False, UPDATE),
        (3, True, SNAPSHOT),
    ],
)
def test_the_message_depends_on_what_the_viewer_has(has: int, deltas: bool, kind: str) -> None:
    """Edition 2 was published, 3 was only for viewers that came in between, 4 is next: the delta is from 2 to 4."""
    table = Table()
    table.score("ann", "a")
    assert table.channel.publish().number == 2
    table.score("bob", "b")
    assert table.channel.newest().number == 3
    table.score("cid", "c")
    edition = table.channel.publish()
    assert edition.number == 4
    shown = edition.for_viewer(has, deltas=deltas)
    assert shown.kind == kind
    assert type_of(shown) == f"scoreboard_{kind}"
    if kind == DELTA:
        expected = encoding.delta_message(edition.rows[:1], edition.rows, 1, Moment("main", 1, 3, 0))
        assert take_server_frame(bytearray(shown.frame)) == (1, expected)


def test_each_message_is_encoded_once() -> None:
    """Every viewer of a kind gets the very same bytes object."""
    table = Table()
    table.score("ann", "a")
    edition = table.channel.publish()
    for has, deltas in ((NO_EDITION, False), (1, False), (1, True)):
        assert edition.for_viewer(has, deltas=deltas) is edition.for_viewer(has, deltas=deltas)
    assert edition.for_viewer(NO_EDITION, deltas=False) is edition.for_viewer(NO_EDITION, deltas=True)


def test_an_edition_tells_when_it_was_made() -> None:
    """All messages of an edition have the same time: that of the edition, not of the viewer."""
    table = Table()
    table.now_ms = 5
    table.score("ann", "a")
    edition = table.channel.publish()
    table.now_ms = 77
    assert b'"generatedAt":"1970-01-01T00:00:00.005Z"' in edition.for_viewer(NO_EDITION, deltas=False).frame
    assert b'"generatedAt":"1970-01-01T00:00:00.005Z"' in edition.for_viewer(1, deltas=True).frame


def test_old_editions_do_not_hang_on_to_each_other() -> None:
    """What an edition keeps of the one before are rows; so a long history is not kept alive by the newest edition."""
    table = Table()
    for number in range(5):
        table.score("ann", str(number))
        table.channel.publish()
    base = table.channel.published._base
    assert base is not None
    assert not any(isinstance(part, Edition) for part in base)


def test_a_channel_tells_when_it_becomes_stale_and_when_it_is_fresh_again() -> None:
    """Each is an edition at the same position, also as a delta; only the stale one has `stale` and its age."""
    scoreboard = Scoreboard(rules_of_points({"main": {"A": 1}}))
    age_ms: list[int | None] = [None]
    channel = Channel(BoardView("main"), scoreboard, lambda: 0, lambda: age_ms[0])
    assert not channel.is_behind
    fresh = channel.published
    age_ms[0] = 4_000
    assert channel.is_behind
    stale = channel.publish()
    assert stale.number > fresh.number
    assert stale.for_viewer(fresh.number, deltas=False).frame.endswith(b'"stale":true,"ageMs":4000}')
    assert b'"stale":true' in stale.for_viewer(fresh.number, deltas=True).frame
    age_ms[0] = None
    assert channel.is_behind
    assert b"stale" not in channel.publish().for_viewer(stale.number, deltas=False).frame
    assert not channel.is_behind
