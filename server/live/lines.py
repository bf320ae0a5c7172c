"""Lines: what a viewer is told of one user's place on one board. Pure.

    lines = Lines(scoreboard, now_ms, stale_ms)
    own = ViewerLines(); lines.subscribe(own, "main", "ann")    # then `own.first()` is the frame of the first message
    for part in lines.take_due(): look(part); ...               # at a tick; see `BoardLines`

    subscribe ──► owed: the state of now ──► said (written to the socket)
    tick ──► look: differs from what was said? ─┬─► yes: owed, in place of an older message that still waits
                                                └─► no: nothing owed, and the place moves on to this moment

Rules:
- A line holds what was last said and at most one message that is owed. So a slow viewer costs no more than any other,
  and is told the state of the last tick when its socket drains.
- A message is owed if rank, score, gap, name or staleness differ from what was said, or somebody passed the user. It is
  no reason that the number of ranked users changed.
- `overtaken` is exact: who was behind the user at the last message, and is ahead at this one. The place at the last
  message is kept until the next one is written. Between two looks without a message nobody passed, so the later place
  says the same. `server.live.moves` has the search, and says when `overtakenMore` is all that can be said.
- Who was not ranked at the last message was overtaken by nobody. After a replica replaced its board by a snapshot the
  old places mean nothing: the next message has `overtakenMore`.
- An inactive user looks like one without a score: no name, rank or score. Where reads are public anybody may ask.
- Each look is one moment of the board: there is no await in it. A tick looks in slices, and the board may change
  between two.

Invariants:
- A line is in the table of its viewer and in that of its board, or it has ended.
- A board is watched while it has lines. `ViewerLines._owed` are the lines with a message owed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from engine.ranking import Ranking, Row
from engine.scoreboard import Scoreboard
from server import bounds
from server.http.messages import invalid, overloaded
from server.http.websocket import text_frame
from server.live import encoding
from server.live.board_view import BoardView
from server.live.encoding import UserLine
from server.live.moves import Moves, Passers, Place
from server.live.names import NameForm, Names


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What a message says, as far as a change of it is a reason for another message."""

    rank: int | None
    score: int | None
    gap: int | None
    name: str | None
    stale: bool


class Owed(msgspec.Struct, frozen=True, gc=False):
    """A message that is to be written, and the place that it tells of; None for a user who is not ranked."""

    message: UserLine
    facts: Facts
    place: Place | None


class Line:
    """One subscription. `said` and `place` are those of the last message. `unsure`: somebody may have passed unseen."""

    __slots__ = ("board", "ended", "owed", "owner", "place", "said", "unsure", "user_id")

    def __init__(self, owner: ViewerLines, board: BoardLines, user_id: str) -> None:
        self.owner = owner
        self.board = board
        self.user_id = user_id
        self.said: Facts | None = None
        self.place: Place | None = None
        self.owed: Owed | None = None
        self.unsure = False
        self.ended = False


class ViewerLines:
    """The lines of one viewer, and the refusals that it is still to be sent. `push` writes to the viewer."""

    __slots__ = ("_owed", "_written", "lines", "push", "refusals")

    def __init__(self, push: Callable[[], None] = lambda: None) -> None:
        self.push = push
        self.lines: dict[tuple[str, str], Line] = {}
        self.refusals: list[bytes] = []
        self._owed: dict[Line, None] = {}
        self._written = 0

    def refuse(self, frame: bytes) -> None:
        """Owe a refusal, unless the viewer reads none."""
        if len(self.refusals) < bounds.REPLIES_MAX:
            self.refusals.append(frame)

    def owe(self, line: Line, owed: Owed | None) -> None:
        """Owe a line's message in place of an older one. None: nothing is owed any more."""
        line.owed = owed
        if owed is None:
            self._owed.pop(line, None)
        else:
            self._owed[line] = None

    def first(self) -> bytes | None:
        """Give the frame to write next, None if nothing is owed."""
        if self.refusals:
            return self.refusals[0]
        for line in self._owed:
            assert line.owed is not None
            return text_frame(encoding.user_message(line.owed.message))
        return None

    def wrote(self) -> None:
        """Note that the socket took the frame that `first` gave, or a part of it."""
        if self.refusals:
            del self.refusals[0]
            return
        line = next(iter(self._owed))
        assert line.owed is not None
        line.said, line.place, line.unsure = line.owed.facts, line.owed.place, False
        self.owe(line, None)
        self._written += 1

    def take_written(self) -> int:
        """Count the messages of lines that were written since the last time."""
        written, self._written = self._written, 0
        return written


class BoardLines:
    """The lines of one board. A tick calls `begin`, `look` for each slice, and `finish`."""

    def __init__(
        self,
        view: BoardView,
        scoreboard: Scoreboard,
        now_ms: Callable[[], int],
        stale_ms: Callable[[], int | None],
        form: NameForm,
    ) -> None:
        self.view = view
        self._form = form
        self.lines: dict[Line, None] = {}
        self._scoreboard = scoreboard
        self._now_ms = now_ms
        self._stale_ms = stale_ms
        self._board = view.ranking(scoreboard)
        self._moves = self._watch(self._board)
        self._passers: Passers | None = None

    def begin(self) -> list[list[Line]]:
        """Give the lines to look at, in slices. Other tasks may run between two slices."""
        lines, size = list(self.lines), bounds.SLICE_SUBSCRIPTIONS
        return [lines[start : start + size] for start in range(0, len(lines), size)]

    def look(self, lines: Iterable[Line]) -> list[ViewerLines]:
        """Find out what these lines are owed at this moment. Gives the viewers that are owed something."""
        if not self.lines:
            return []  # all went while a tick was at other lines: the board is not watched any more
        self._follow_board()
        moment = self._moves.moment()
        age_ms, generated_at = self._stale_ms(), encoding.iso_ms(self._now_ms())
        owners: dict[ViewerLines, None] = {}
        for line in lines:
            if not line.ended:
                self._look_at(line, moment, age_ms, generated_at)
                if line.owed is not None:
                    owners[line.owner] = None
        return list(owners)

    def finish(self) -> None:
        """Drop the keys from before the oldest place that a line may still be compared with."""
        self._passers = None
        places = [place for line in self.lines if (place := _oldest_place(line)) is not None]
        moment = min((place.moment for place in places), default=self._moves.moment())
        self._moves.forget(moment, min((place.slots for place in places), default=len(self._board)))

    def end(self) -> None:
        """Stop watching the board: it has no lines."""
        self._board.unwatch(self._moves)

    def _watch(self, board: Ranking) -> Moves:
        moves = Moves(len(board))
        board.watch(moves)
        return moves

    def _follow_board(self) -> None:
        """Watch what is shown now, if that is another state: of a fetched snapshot, of a freeze, or of a new period."""
        board = self.view.ranking(self._scoreboard)
        if board is self._board and not self._moves.ended:
            return
        is_emptied = board is self._board
        self._board.unwatch(self._moves)
        self._board, self._moves, self._passers = board, self._watch(board), None
        for line in self.lines:
            line.unsure = line.unsure or (line.place is not None and not is_emptied)
            line.place = None

    def _look_at(self, line: Line, moment: int, age_ms: int | None, generated_at: str) -> None:
        board = self._board
        facts = self._facts(line.user_id, stale=age_ms is not None)
        place, passed, more = self._place(line.user_id, facts, moment), list[int](), False
        if place is not None and line.place is not None:
            passed, more = self._passers_of_now().of(line.place, place.key, bounds.OVERTAKEN_MAX)
        if facts == line.said and not passed:
            line.owner.owe(line, None)
            line.place, line.unsure = place, line.unsure or more
            return
        message = UserLine(
            board_id=board.board_id,
            user_id=line.user_id,
            display_name=facts.name,
            rank=facts.rank,
            score=facts.score,
            count=board.ranked,
            gap_to_next=facts.gap,
            overtaken=encoding.entries_of(reversed(self._rows(passed)), self._names),
            overtaken_more=facts.rank is not None and (more or line.unsure),
            epoch=self._scoreboard.epoch,
            seq=board.seq,
            generated_at=generated_at,
            stale=facts.stale,
            age_ms=age_ms,
        )
        line.owner.owe(line, Owed(message, facts, place))

    def _facts(self, user_id: str, *, stale: bool) -> Facts:
        board = self._board
        standing = board.standing(user_id)
        if standing is None:
            return Facts(None, None, None, None, stale)
        name = self._names.name(user_id)
        return Facts(standing.rank, board.score(user_id), standing.ahead, name, stale)

    @property
    def _names(self) -> Names:
        return self.view.names(self._scoreboard, self._form)

    def _place(self, user_id: str, facts: Facts, moment: int) -> Place | None:
        slot = self._board.slot(user_id)
        if facts.rank is None or slot is None:
            return None
        (key,) = self._board.keys_of((slot,))
        return Place(moment, len(self._board), key)

    def _passers_of_now(self) -> Passers:
        if self._passers is None:
            self._passers = Passers(self._board, self._moves)
        self._passers.renew()
        return self._passers

    def _rows(self, slots: list[int]) -> list[Row]:
        rows, unranked = self._board.rows_for([self._board.user(slot) for slot in slots])
        assert not unranked
        return rows


def _oldest_place(line: Line) -> Place | None:
    """Give the place that the line's next look, or the one after its owed message, compares with."""
    if line.place is not None or line.owed is None:
        return line.place
    return line.owed.place


class Lines:
    """All lines of a node. `now_ms` and `stale_ms` are as in `server.live.editions`."""

    def __init__(
        self,
        scoreboard: Scoreboard,
        now_ms: Callable[[], int],
        stale_ms: Callable[[], int | None] = lambda: None,
        form: NameForm = "shown",
    ) -> None:
        self._form = form
        self._scoreboard = scoreboard
        self._now_ms = now_ms
        self._stale_ms = stale_ms
        self._boards: dict[BoardView, BoardLines] = {}
        self._due: dict[BoardView, None] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def is_due(self) -> bool:
        """Whether boards with lines changed since `take_due`."""
        return bool(self._due)

    def board_changed(self, board_id: str) -> bool:
        """Note that a board changed, or became stale or fresh. Gives whether it has lines."""
        if not self._boards:
            return False
        views = [view for view in (BoardView(board_id), BoardView(board_id, live=True)) if view in self._boards]
        for view in views:
            self._due[view] = None
        return bool(views)

    def take_due(self) -> list[BoardLines]:
        """Give the boards to look at, each once."""
        due, self._due = self._due, {}
        return [self._boards[view] for view in due if view in self._boards]

    def check(self, board_id: str) -> None:
        """Refuse a board that does not exist. Raises `Refused`."""
        if self._scoreboard.board(board_id) is None:
            raise invalid("boardId", "There is no such board.", allowed=self._scoreboard.served())

    def subscribe(self, owner: ViewerLines, view: BoardView, user_id: str) -> None:
        """Tell a viewer of a user from now on; it is owed the state of now. The board exists. Raises `Refused`.

        To subscribe again begins anew.
        """
        line = owner.lines.get((view.board_id, user_id))
        if line is None:
            line = self._begin(owner, view, user_id)
        line.said = line.place = None
        line.unsure = False
        line.board.look([line])

    def _begin(self, owner: ViewerLines, view: BoardView, user_id: str) -> Line:
        most = bounds.SUBSCRIPTIONS_PER_VIEWER_MAX
        if len(owner.lines) >= most:
            raise invalid("userId", f"A connection has at most {most} subscriptions.", maximum=most)
        if self._count >= bounds.SUBSCRIPTIONS_MAX:
            raise overloaded("There are as many subscriptions as this server takes.")
        board = self._boards.get(view)
        if board is None:
            board = self._boards[view] = BoardLines(view, self._scoreboard, self._now_ms, self._stale_ms, self._form)
        line = Line(owner, board, user_id)
        owner.lines[view.board_id, user_id] = line
        board.lines[line] = None
        self._count += 1
        return line

    def unsubscribe(self, owner: ViewerLines, board_id: str, user_id: str) -> None:
        """Tell a viewer nothing more of a user. Does nothing if it was told nothing."""
        line = owner.lines.pop((board_id, user_id), None)
        if line is None:
            return
        line.ended = True
        owner.owe(line, None)
        self._count -= 1
        del line.board.lines[line]
        if not line.board.lines:
            line.board.end()
            del self._boards[line.board.view]

    def leave(self, owner: ViewerLines) -> None:
        """End all lines of a viewer."""
        for board_id, user_id in list(owner.lines):
            self.unsubscribe(owner, board_id, user_id)

    def _check(self) -> None:
        lines = [line for board in self._boards.values() for line in board.lines]
        assert len(lines) == self._count <= bounds.SUBSCRIPTIONS_MAX
        for line in lines:
            assert not line.ended
            assert line.owner.lines[line.board.view.board_id, line.user_id] is line
            assert (line in line.owner._owed) == (line.owed is not None)
        for board in self._boards.values():
            assert board.lines
            board._moves._check()
