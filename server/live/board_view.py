"""Which state of a board a viewer watches: the public one, or the present one of a board that may be frozen. Pure.

ranking = BoardView("main").ranking(scoreboard)              what the public sees
ranking = BoardView("main", live=True).ranking(scoreboard)   what is counted now
"""

from __future__ import annotations

import msgspec

from engine.board import Board
from engine.scoreboard import Scoreboard
from server.live.names import NameForm, Names, names_for


class BoardView(msgspec.Struct, frozen=True):
    """A board, and whether the present is watched, which a freeze hides from the public.

    `as_contest`: its viewers get the event feed of a contest (`server.live.feed_editions`).
    """

    board_id: str
    live: bool = False
    as_contest: bool = False

    def ranking(self, scoreboard: Scoreboard) -> Board:
        """Give the ranking that is shown now. A freeze, its end and a fetched snapshot put another in its place."""
        board = scoreboard.boards[self.board_id]
        return board if self.live else board.public

    def names(self, scoreboard: Scoreboard, form: NameForm) -> Names:
        """Give the names that are shown. Whoever may watch the present sees them whole."""
        return names_for(scoreboard.users, "shown" if self.live else form)
