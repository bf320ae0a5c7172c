"""All boards, users and applied actions: the state, and the two functions that are everything it does.

    decide(command, now) → event | duplicate | unchanged | rejection       reads the state, changes nothing
    apply(event)                                                           changes the state, decides nothing

Both are deterministic and touch no clock, disk or network. A leader decides, logs, then applies; a restart and a
replica only apply. Two scoreboards that applied the same events are equal, slot by slot: their images are the same
bytes.

Events that are being written are not applied yet. A `Batch` decides a row of commands as if those before it in the same
batch were applied, by keeping beside the state what they will change; nobody else sees that.

Invariants:
- events are applied in the order of their seq, without a gap; `seq`, `epoch` and `time_ms` are those of the last one;
- an actionId is in `actions` exactly if an `Incremented` event with it was applied, once;
- a user whom the registry calls inactive is hidden on every board.
"""

from __future__ import annotations

from bisect import bisect_right

import msgspec

from engine.actions import Actions, Key, key_of, mark_of
from engine.board import Board
from engine.commands import Command, Increment, Outcome, PutUser, Receipt, Rejection, UserReceipt
from engine.events import EpochBegun, Event, Incremented, UserPut
from engine.image import StateImage
from engine.limits import SCORE_MAX
from engine.users import User, Users

FIRST_EPOCH = 1
UNKNOWN_USER = User(display_name=None, active=True)


class Rules(msgspec.Struct, frozen=True):
    """What the operator configured: the boards, and what each reason is worth there; points are 1 … SCORE_MAX."""

    points: dict[str, dict[str, int]]
    require_registered: bool = False


class Duplicate(msgspec.Struct, frozen=True, gc=False):
    """The decision that an action was applied before, by the event `seq`."""

    seq: int


class Unchanged(msgspec.Struct, frozen=True, gc=False):
    """The decision that a user is already as the command wants."""

    user: User


Decision = Event | Duplicate | Unchanged | Rejection


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

    # Reading

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

    # Deciding and applying

    def begin_batch(self, now_ms: int) -> Batch:
        """Begin to decide commands that will be logged together, at a time that never goes back."""
        return Batch(self, max(now_ms, self.time_ms))

    def apply(self, event: Event, epoch: int) -> None:
        """Take in an event that is on disk. Never fails on what `decide` made."""
        assert event.seq == self.seq + 1, f"event {event.seq} cannot follow {self.seq}"
        if isinstance(event, Incremented):
            assert epoch == self.epoch
            self._apply_incremented(event)
        elif isinstance(event, UserPut):
            assert epoch == self.epoch
            self._apply_user(event)
        else:
            assert epoch == event.epoch > self.epoch
            self.epoch = event.epoch
            self._epochs.append((event.seq, event.epoch))
        self.seq = event.seq
        self.time_ms = event.time_ms

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

    def _apply_incremented(self, event: Incremented) -> None:
        board = self.boards.get(event.board_id)
        if board is None:
            board = self._new_board(event.board_id)
        assert (board.score(event.user_id) or 0) + event.delta == event.new_score
        mark = mark_of(event.user_id, event.board_id, event.reason)
        self.actions.add(key_of(event.action_id), event.seq, mark)
        board.record(event.user_id, event.new_score, event.seq, event.time_ms)

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

    def settle(self, command: Command, decision: Decision) -> Outcome:
        """Apply what was decided and is on disk now, and say what the caller is told."""
        if isinstance(decision, Rejection):
            return decision
        if isinstance(command, Increment):
            assert isinstance(decision, Incremented | Duplicate)
            return self._settle_increment(command, decision)
        if isinstance(decision, UserPut):
            self.apply(decision, self.epoch)
            user = User(decision.display_name, decision.active)
        else:
            assert isinstance(decision, Unchanged)
            user = decision.user
        applied = isinstance(decision, UserPut)
        return UserReceipt(command.user_id, user.display_name, user.active, applied, self.epoch, self.seq)

    def _settle_increment(self, command: Increment, decision: Incremented | Duplicate) -> Receipt:
        board = self.boards[command.board_id]
        previous_rank = board.rank(command.user_id)
        delta, epoch, rank = 0, self.epoch, previous_rank
        if isinstance(decision, Incremented):
            self.apply(decision, self.epoch)
            delta, rank = decision.delta, board.rank(command.user_id)
        else:
            epoch = self.epoch_of(decision.seq)
        new_score = board.score(command.user_id)
        assert new_score is not None
        return Receipt(
            user_id=command.user_id,
            new_score=new_score,
            delta=delta,
            applied=isinstance(decision, Incremented),
            action_id=command.action_id,
            board_id=command.board_id,
            epoch=epoch,
            seq=decision.seq,
            rank=rank,
            previous_rank=previous_rank,
        )

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


class Batch:
    """Commands that will be logged together, each decided as if those before it were applied.

    `events` are what has to be logged, in order. The state must not change between `begin_batch` and the last `settle`.
    """

    def __init__(self, scoreboard: Scoreboard, now_ms: int) -> None:
        self.events: list[Event] = []
        self._scoreboard = scoreboard
        self._now_ms = now_ms
        self._scores: dict[tuple[str, str], int] = {}
        self._actions: dict[Key, tuple[int, int]] = {}
        self._users: dict[str, User] = {}

    def decide(self, command: Command) -> Decision:
        """Say what becomes of a command; an event is added to `events`."""
        decision = self._increment(command) if isinstance(command, Increment) else self._put_user(command)
        if isinstance(decision, Incremented | UserPut | EpochBegun):
            self.events.append(decision)
        return decision

    def _next_seq(self) -> int:
        return self._scoreboard.seq + len(self.events) + 1

    def _user(self, user_id: str) -> User | None:
        return self._users.get(user_id) or self._scoreboard.users.get(user_id)

    def _increment(self, command: Increment) -> Decision:
        # First of all the repeated action: an answer that was given once must be given again, also when the rules
        # or the user have changed since.
        key = key_of(command.action_id)
        mark = mark_of(command.user_id, command.board_id, command.reason)
        applied = self._applied(key)
        if applied is not None:
            seq, mark_applied = applied
            return Duplicate(seq) if mark == mark_applied else _conflict(command, seq)
        catalogue = self._scoreboard.rules.points.get(command.board_id)
        if catalogue is None:
            return _unknown("boardId", command.board_id, "board", self._scoreboard.rules.points)
        delta = catalogue.get(command.reason)
        if delta is None:
            return _unknown("reason", command.reason, f"reason on board {command.board_id!r}", catalogue)
        user = self._user(command.user_id)
        if user is None and self._scoreboard.rules.require_registered:
            return _invalid("userId", f"user {command.user_id!r} is not registered")
        if user is not None and not user.active:
            return _invalid("userId", f"user {command.user_id!r} is inactive and cannot be incremented")
        place = (command.board_id, command.user_id)
        score = self._scores.get(place)
        if score is None:
            score = self._scoreboard.boards[command.board_id].score(command.user_id) or 0
        new_score = score + delta
        if new_score > SCORE_MAX:
            return _invalid("userId", f"the score of {command.user_id!r} would pass the largest score, {SCORE_MAX}")
        seq = self._next_seq()
        self._actions[key] = (seq, mark)
        self._scores[place] = new_score
        return Incremented(
            seq=seq,
            time_ms=self._now_ms,
            board_id=command.board_id,
            user_id=command.user_id,
            action_id=command.action_id,
            delta=delta,
            reason=command.reason,
            caller=command.caller,
            new_score=new_score,
        )

    def _applied(self, key: Key) -> tuple[int, int] | None:
        """Give seq and mark of an action that was applied, or will be by this batch."""
        actions = self._scoreboard.actions
        position = actions.find(key)
        if position >= 0:
            return actions.seq_at(position), actions.mark_at(position)
        return self._actions.get(key)

    def _put_user(self, command: PutUser) -> Decision:
        known = self._user(command.user_id)
        before = known or UNKNOWN_USER
        after = User(
            before.display_name if command.display_name is None else command.display_name,
            before.active if command.active is None else command.active,
        )
        if known is not None and before == after:
            return Unchanged(after)
        self._users[command.user_id] = after
        return UserPut(
            seq=self._next_seq(),
            time_ms=self._now_ms,
            user_id=command.user_id,
            display_name=after.display_name,
            active=after.active,
            caller=command.caller,
        )


def _invalid(field: str, message: str) -> Rejection:
    return Rejection("INVALID_REQUEST", message, {"field": field})


def _unknown(field: str, value: str, what: str, known: dict[str, int] | dict[str, dict[str, int]]) -> Rejection:
    allowed = sorted(known)
    message = f"unknown {what}: {value!r}; known: {', '.join(allowed)}"
    return Rejection("INVALID_REQUEST", message, {"field": field, "allowed": allowed})


def _conflict(command: Increment, seq: int) -> Rejection:
    message = f"action {command.action_id!r} was already applied to another user, board or reason; nothing was changed"
    return Rejection("CONFLICT", message, {"field": "actionId", "actionId": command.action_id, "seq": seq})
