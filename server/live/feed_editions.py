"""Editions of a board as a contest, for the event feed: which events bring a viewer from one to another. Pure.

    contest, teams, state ──► all of them, to a viewer that has none or missed an edition
                          └─► those that differ, and the state, to one that has the edition before

Rules:
- Each event has a whole object or a whole collection. So nothing is ever deleted by name: who was erased is just no
  longer in the list.
- Scores have no event of their own in the Contest API. When they change, the state comes again, though it is the same.
  That is the sign to read the scoreboard.
- The token of an event says where a client may go on that got this event and no later one. So only the last event of an
  edition has the edition's token, and those before it have the older one.
- A contest begins without an event in the log. `is_behind` sees it, and the sweep of `server.live.broadcast` looks.
- An edition is encoded once for all viewers. The teams are written anew only if somebody came, left or was renamed.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from engine.board import Board
from engine.scoreboard import Scoreboard
from server.live import clics
from server.live.board_view import BoardView
from server.live.clics import Version
from server.live.editions import NO_EDITION, SNAPSHOT, UPDATE, Shown
from server.live.event_feed import Position, is_newest, line, source_of, token_of
from server.live.names import NameForm

_encode = msgspec.json.Encoder().encode


class _Objects(msgspec.Struct, frozen=True):
    """The objects of a contest, encoded."""

    contest: bytes
    teams: bytes
    state: bytes


class FeedEdition:
    """A contest at one position."""

    __slots__ = ("_base", "_messages", "_objects", "number", "position", "source")

    def __init__(
        self, number: int, objects: _Objects, position: Position, source: str, base: FeedEdition | None
    ) -> None:
        self.number = number
        self.position = position
        self.source = source
        self._objects = objects
        # Not the base itself, or old editions would keep each other in memory.
        self._base = None if base is None else (base.number, base.position, base._changes(objects))
        self._messages: dict[str, Shown] = {}

    def for_viewer(self, has: int, *, deltas: bool, as_event: bool = False) -> Shown:
        """Give the message that brings a viewer from the edition `has` to this one."""
        assert as_event
        assert not deltas
        kind = UPDATE if self._base is not None and self._base[0] == has else SNAPSHOT
        shown = self._messages.get(kind)
        if shown is None:
            shown = self._messages[kind] = Shown(kind, self._lines(kind))
        return shown

    def is_known(self, token: str | None) -> bool:
        """Whether a client with this token has all of this edition. Raises `Refused` for a wrong token."""
        return token is not None and is_newest(token, self.position, self.source)

    def _lines(self, kind: str) -> bytes:
        if kind == UPDATE:
            assert self._base is not None
            _, before, names = self._base
        else:
            before, names = self.position._replace(seq=0, started=False), ["contest", "teams"]
        older = token_of(before, self.source)
        lines = [line(name, getattr(self._objects, name), older) for name in names]
        return b"".join([*lines, line("state", self._objects.state, token_of(self.position, self.source))])

    def _changes(self, objects: _Objects) -> list[str]:
        return [name for name in ("contest", "teams") if getattr(objects, name) != getattr(self._objects, name)]


class FeedChannel:
    """The editions of one contest. What it shows is looked up for each, as `server.live.editions.Channel` does."""

    def __init__(
        self, view: BoardView, scoreboard: Scoreboard, now_ms: Callable[[], int], version: Version, form: NameForm
    ) -> None:
        self.view = view
        self._scoreboard = scoreboard
        self._now_ms = now_ms
        self._form = form
        self._source = source_of(view, version, form)
        self._named: dict[str, str] | None = None
        self._teams = b""
        self._newest = self._published = self._make(NO_EDITION + 1, None)

    @property
    def _board(self) -> Board:
        return self.view.ranking(self._scoreboard)

    @property
    def _position(self) -> Position:
        board, scoreboard = self._board, self._scoreboard
        started = clics.has_started(clics.times_of(board.definition), self._now_ms())
        return Position(scoreboard.epoch, board.seq, scoreboard.mark.history, started)

    @property
    def published(self) -> FeedEdition:
        """The edition of the last tick."""
        return self._published

    @property
    def is_behind(self) -> bool:
        """Whether anything of the contest changed since the last tick."""
        return self._published.position != self._position

    def newest(self) -> FeedEdition:
        """Give the edition of the contest as it is now."""
        if self._newest.position != self._position:
            self._newest = self._make(self._newest.number + 1, self._published)
        return self._newest

    def publish(self) -> FeedEdition:
        """Give the newest edition, and make it the base of the next one."""
        self._published = self.newest()
        return self._published

    def _make(self, number: int, base: FeedEdition | None) -> FeedEdition:
        board, position = self._board, self._position
        users = clics.contestants(board, self.view.names(self._scoreboard, self._form))
        named = {user.user_id: user.name for user in users}
        if named != self._named:
            self._named, self._teams = named, _encode(clics.teams_of(users))
        objects = _Objects(
            _encode(clics.contest_of(board.board_id, board.definition)),
            self._teams,
            _encode(clics.state_of(board.definition, self._now_ms())),
        )
        return FeedEdition(number, objects, position, self._source, base)
