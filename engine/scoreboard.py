"""All boards, users and applied actions: the state, and the one function that changes it.

    decide(command, now) → event | duplicate | unchanged | rejection       in `engine.batch`: changes nothing
    apply(event)                                                           changes the state, decides nothing

Both are deterministic and touch no clock, disk or network. A leader decides, logs, then applies; a restart and a
replica only apply. Two scoreboards that applied the same events are equal, slot by slot: their images are the same
bytes.

Invariants:
- events are applied in the order of their seq, without a gap; `seq`, `epoch` and `time_ms` are those of the last one;
- an actionId is in `actions` exactly if an `Incremented` event with it was applied, once;
- a user whom the registry calls inactive is hidden on every board.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import msgspec

from engine.actions import Actions, Key, key_of, mark_of
from engine.board import Board, Ranks
from engine.events import Event, Incremented, UserPut
from engine.image import StateImage
from engine.users import User, Users

FIRST_EPOCH = 1
UNKNOWN_USER = User(display_name=None, active=True)


FoundIncrement = tuple[Incremented, Board, Key, int]
"""An increment with its board, and key and mark of its action."""


_board_of = itemgetter(1)


class Rules(msgspec.Struct, frozen=True):
    """What the operator configured: the boards, and what each reason is worth there; points are 1 … SCORE_MAX."""

    points: dict[str, dict[str, int]]
    require_registered: bool = False


class Scoreboard:
    """The state. Everything is synchronous and O(log users) or better, but for replays and images."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.epoch = FIRST_EPOCH
        self.seq = 0
        self.time_ms = 0
        self.users = Users()
        self.actions = Actions()
        self.boards = {board_id: Board(board_id) for board_id in rules.points}
        self._epochs = [(1, FIRST_EPOCH)]
        self._replaying = False

    # LogReader

    def board(self, board_id: str) -> Board | None:
        """Give a board that the rules name, None for any other: one that only the log knows is kept, but not served."""
        return self.boards[board_id] if board_id in self.rules.points else None

    def action_seq(self, action_id: str) -> int | None:
        """Give the seq of the event that applied an action, None if it never was."""
        position = self.actions.find(key_of(action_id))
        return None if position < 0 else self.actions.seq_at(position)

    def epoch_of(self, seq: int) -> int:
        """Give the epoch in which an event was written."""
        return self._epochs[bisect_right(self._epochs, (seq, 2**63)) - 1][1]

    # Applying

    def apply(self, event: Event, epoch: int) -> None:
        """Take in an event that is on disk. Never fails on what was decided."""
        if isinstance(event, Incremented):
            board = self.boards.get(event.board_id)
            if board is None:
                board = self._new_board(event.board_id)
            assert (board.score(event.user_id) or 0) + event.delta == event.new_score
            mark = mark_of(event.user_id, event.board_id, event.reason)
            self.apply_increments([(event, board, key_of(event.action_id), mark)], epoch)
            return
        assert event.seq == self.seq + 1, f"event {event.seq} cannot follow {self.seq}"
        if isinstance(event, UserPut):
            assert epoch == self.epoch
            self._apply_user(event)
        else:
            assert epoch == event.epoch > self.epoch
            self.epoch = event.epoch
            self._epochs.append((event.seq, event.epoch))
        self.seq = event.seq
        self.time_ms = event.time_ms

    def apply_increments(self, found: Sequence[FoundIncrement], epoch: int) -> list[Ranks]:
        """Take in increments of one time, at least one, whose boards, keys and marks were found; give their ranks."""
        first, last = found[0][0], found[-1][0]
        assert first.seq == self.seq + 1, f"event {first.seq} cannot follow {self.seq}"
        assert last.seq - first.seq == len(found) - 1
        assert last.time_ms == first.time_ms
        assert epoch == self.epoch
        self.actions.add([key for _, _, key, _ in found], first.seq, [mark for _, _, _, mark in found])
        ranks: list[Ranks] = []
        for board, some in groupby(found, key=_board_of):
            ranks += board.record_all([event for event, _, _, _ in some], last.time_ms)
        self.seq = last.seq
        self.time_ms = last.time_ms
        return ranks

    def follow(self, event: Event, epoch: int) -> None:
        """Take in an event of a part of the log, as a replica of some boards does: seqs in between may be left out.

        No action is indexed: such a replica never decides, and knows only a part of the actions.
        """
        assert event.seq > self.seq, f"event {event.seq} cannot follow {self.seq}"
        if not isinstance(event, Incremented):
            self.advance(event.seq - 1, event.time_ms)
            self.apply(event, epoch)
            return
        assert epoch == self.epoch
        board = self.boards.get(event.board_id)
        if board is None:
            board = self._new_board(event.board_id)
        assert (board.score(event.user_id) or 0) + event.delta == event.new_score
        board.record(event.user_id, event.new_score, event.seq, event.time_ms)
        self.advance(event.seq, event.time_ms)

    def advance(self, seq: int, time_ms: int) -> None:
        """Pass over events that are not for the boards which are held here, up to `seq`."""
        assert seq >= self.seq
        self.seq = seq
        self.time_ms = time_ms

    def take_over(self, other: Scoreboard) -> None:
        """Become what `other` is, which nobody uses afterwards. Whoever reads this scoreboard reads the new state."""
        self.epoch, self.seq, self.time_ms = other.epoch, other.seq, other.time_ms
        self.users, self.actions, self.boards = other.users, other.actions, other.boards
        self._epochs, self._replaying = other._epochs, other._replaying

    def epoch_after(self, epoch: int) -> tuple[int, int] | None:
        """Give (first seq, epoch) of the first epoch after this one, None if it is the last."""
        return next(((seq, later) for seq, later in self._epochs if later > epoch), None)

    def _new_board(self, board_id: str) -> Board:
        board = Board(board_id)
        if self._replaying:
            board.begin_replay()
        self.boards[board_id] = board
        return board

    def _apply_user(self, event: UserPut) -> None:
        before = self.users.get(event.user_id) or UNKNOWN_USER
        after = User(event.display_name, event.active)
        self.users.put(event.user_id, after)
        for board in self.boards.values():
            if before.active and not after.active:
                board.hide(event.user_id, event.seq)
            elif after.active and not before.active:
                board.show(event.user_id, event.seq)
            elif before.display_name != after.display_name:
                board.touch(event.user_id, event.seq)

    # Replay and images

    def begin_replay(self) -> None:
        """Keep no order until `end_replay`: many events follow, and nobody reads."""
        self._replaying = True
        for board in self.boards.values():
            board.begin_replay()

    def end_replay(self) -> None:
        """Build the order of every board, once."""
        self._replaying = False
        for board in self.boards.values():
            board.end_replay()

    def capture(self) -> StateImage:
        """Copy the state of this moment: 24 bytes a user are copied, the rest is shared (see `engine.image`)."""
        return StateImage(
            epoch=self.epoch,
            seq=self.seq,
            time_ms=self.time_ms,
            epochs=self._epochs.copy(),
            boards=[self.boards[board_id].capture() for board_id in sorted(self.boards) if self.boards[board_id].seq],
            users=self.users.capture(),
            actions=self.actions.capture(),
        )

    @classmethod
    def from_image(cls, rules: Rules, image: StateImage) -> Scoreboard:
        """Make the scoreboard of an image, in the middle of a replay: `end_replay` makes it ready to read."""
        scoreboard = cls(rules)
        scoreboard.epoch = image.epoch
        scoreboard.seq = image.seq
        scoreboard.time_ms = image.time_ms
        scoreboard._epochs = [(first_seq, epoch) for first_seq, epoch in image.epochs]
        scoreboard.users = Users.from_image(image.users)
        scoreboard.actions = Actions.from_image(image.actions)
        inactive = scoreboard.users.inactive()
        for board_image in image.boards:
            scoreboard.boards[board_image.board_id] = Board.from_image(board_image, inactive)
        scoreboard.begin_replay()
        return scoreboard

    def _check(self) -> None:
        self.users._check()
        self.actions._check()
        inactive = set(self.users.inactive())
        for board_id, board in self.boards.items():
            board._check()
            assert board.board_id == board_id
            assert board.seq <= self.seq
            assert {board._ids[slot] for slot in board._hidden} == inactive & set(board._slots)
        assert set(self.rules.points) <= set(self.boards)
        assert self._epochs[-1][1] == self.epoch
        assert self._epochs == sorted(self._epochs)
