"""The state: all boards, users and applied actions, and the functions that change it.

    decide(command, now) → event | duplicate | unchanged | rejection       in `engine.batch`: changes nothing
    apply(event)                                                           changes the state, decides nothing

Both are deterministic, and use no clock, disk or network. A leader decides, logs, then applies. A restart and a replica
only apply. Two scoreboards that applied the same events are equal slot by slot: their images have the same bytes.

Invariants:
- Events are applied in the order of their seqs, without a gap. `seq` and `time_ms` are those of the last one, `epoch`
  is the current one. A correction of the clock may set `time_ms` back.
- An actionId is in `actions` exactly if an `Incremented` event with it was applied. No two events have the same one.
- A user who is registered as inactive is hidden on every board.
- `due_ms` is the next instant at which something happens by itself, None if there is none: a period ends, a board is
  frozen, the ranks are noted. A leader logs that before it decides anything later (`engine.periods`).
- The log says which boards there are, and their rules. A board of the operator's file counts only until the log
  defines one: in a log of an older version, and before the first start has written them down.

A replica of one shard applies only some events (`follow`, `advance`). Its seqs have gaps, and it indexes no actions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.actions import Actions, key_of, key_of_logged, mark_of
from engine.board import Board
from engine.board_events import EndedPeriod, apply_to_board
from engine.board_rules import BoardDefinition, Rules
from engine.commands import Increment
from engine.dues import Dues
from engine.epochs import Epochs
from engine.erased import Erasures, erasures_in
from engine.events import (
    BoardEvent,
    ClockCorrected,
    EpochBegun,
    Event,
    FlagPut,
    ImportEvent,
    Incremented,
    RanksNoted,
    Reversed,
    ReviewDecided,
    UserErased,
    UserPut,
)
from engine.flags import Flags, flags_in
from engine.forgetting import forget_user
from engine.frozen_board import FrozenBoard
from engine.image import BoardImage, StateImage
from engine.imports import Imports
from engine.recording import FoundIncrement, record, record_held
from engine.reversals import Reversals
from engine.reviews import Reviews
from engine.scored_ranking import Ranks
from engine.sealed_actions import SealedActions, manifest_in
from engine.slots import NOBODY
from engine.steps import Steps
from engine.users import User, Users

UNKNOWN_USER = User(display_name=None, active=True)


OtherEvent = (
    UserPut | UserErased | BoardEvent | ImportEvent | RanksNoted | Reversed | ReviewDecided | FlagPut | ClockCorrected
)


class Scoreboard(Epochs):
    """The state. Everything is synchronous, and O(log users) or better except for replays and images."""

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.rules = rules
        self.ended: list[EndedPeriod] = []  # and not taken yet
        self.seq = 0
        self.time_ms = 0
        self.users = Users()
        self.actions = Actions()
        self.reversals = Reversals()
        self.reviews = Reviews()
        self.erasures, self.imports, self.flags = Erasures(), Imports(), Flags()
        self.boards = {board_id: Board(board_id, BoardDefinition(each)) for board_id, each in rules.boards.items()}
        self.dues = Dues(self.boards)
        self._replaying, self._only_file = False, True

    # Reading

    def board(self, board_id: str) -> Board | None:
        """Give a board that has rules, else None. A board that only increments name is kept, but not served."""
        board = self.boards.get(board_id)
        return board if board is not None and board.definition is not None else None

    def served(self) -> list[str]:
        """List the boards that have rules, sorted by id."""
        return sorted(board_id for board_id, board in self.boards.items() if board.definition is not None)

    def unwritten(self) -> set[str]:
        """Give the boards that only the operator's file defines, while the log defines none. An event ends them all."""
        return set(self.rules.boards) if self._only_file else set()

    @property
    def due_ms(self) -> int | None:
        """See above."""
        return self.dues.next_ms(self.seq)

    def is_active(self, user_id: str) -> bool:
        """Whether a user may score and is shown, as everybody who is not registered."""
        return (self.users.get(user_id) or UNKNOWN_USER).active

    def action_seq(self, action_id: str) -> int | None:
        """Give the seq of the event that applied an action, None if no event did."""
        position = self.actions.find(key_of(action_id))
        return None if position < 0 else self.actions.seq_at(position)

    def repeats(self, position: int, command: Increment) -> bool:
        """Whether the action at this position of the index was applied to what a command names."""
        mark = mark_of(command.user_id, command.board_id, command.reason, command.value)
        return self.actions.mark_at(position) == mark

    # Applying

    def apply(self, event: Event, epoch: int) -> None:
        """Apply an event that is on disk. Never fails for an event that a leader decided."""
        if isinstance(event, Incremented):
            board = self._board(event.board_id)
            slot = board.slot(event.user_id)
            assert (0 if slot is None else board.score_at(slot)) + event.delta == event.new_score
            for fed in event.fed:
                assert (self._board(fed.board_id).score(event.user_id) or 0) + fed.delta == fed.new_score
            mark = mark_of(event.user_id, event.board_id, event.reason, event.chosen_value)
            found = (event, board, key_of_logged(event.action_id), mark, NOBODY if slot is None else slot)
            self.apply_increments([found], epoch)
            return
        assert event.seq == self.seq + 1, f"event {event.seq} cannot follow {self.seq}"
        if isinstance(event, EpochBegun):
            assert epoch == event.epoch > self.epoch
            self._begin_epoch(event)
        else:
            assert epoch == self.epoch
            self._apply_other(event)
        self.seq, self.time_ms = event.seq, event.time_ms

    def _apply_other(self, event: OtherEvent) -> None:
        if isinstance(event, ImportEvent):
            self.imports.apply(event, self._board(event.board_id), self.users)
        elif isinstance(event, UserPut):
            self._apply_user(event)
        elif isinstance(event, BoardEvent):
            self._apply_board(event)
        elif isinstance(event, RanksNoted):
            self._note_ranks(event)
        elif isinstance(event, UserErased):
            forget_user(event, self.boards.values(), self.users, self.actions, self.reversals, self.reviews)
            self.erasures = Erasures(self.erasures.count + 1, event.seq)
        elif isinstance(event, Reversed):
            self.actions.add([key_of(event.reversal_id)], event.seq, [event.asked])
            self._reverse(event)
        elif isinstance(event, ReviewDecided):
            self._decide(event)
        elif isinstance(event, FlagPut):
            self.flags = self.flags.after(event)
        else:
            self._correct_notes(event)

    def apply_increments(self, found: Sequence[FoundIncrement], epoch: int) -> list[Ranks]:
        """Apply consecutive increments of one time, at least one; give the ranks before and after each."""
        first, last = found[0][0], found[-1][0]
        assert first.seq == self.seq + 1, f"event {first.seq} cannot follow {self.seq}"
        assert last.seq - first.seq == len(found) - 1
        assert last.time_ms == first.time_ms
        assert epoch == self.epoch
        self.actions.add([each[2] for each in found], first.seq, [each[3] for each in found])
        reviews, time_ms = self.reviews, last.time_ms
        if reviews.watches and reviews.is_due(time_ms):
            reviews.turn([each[0] for each in found], time_ms, self.boards)
        held = [each[0] for each in found if each[0].held] if reviews.holding else ()
        ranks, seen = (record_held if held else record)(found, self._board, reviews.watches, time_ms)
        if seen:
            reviews.see(seen, time_ms)
        if held:
            reviews.hold(held)
        self.seq, self.time_ms = last.seq, time_ms
        return ranks

    def follow(self, event: Event, epoch: int, holds: Callable[[str], bool]) -> None:
        """Apply an event of a filtered frame, on a replica that holds only some boards. Seqs before it may be left out.

        Actions are not indexed: this replica never decides, and it knows only some of the actions.
        """
        assert event.seq > self.seq, f"event {event.seq} cannot follow {self.seq}"
        if not isinstance(event, Incremented):
            self.advance(event.seq - 1, event.time_ms)
            if isinstance(event, Reversed | ReviewDecided):
                (self._reverse if isinstance(event, Reversed) else self._decide)(event, holds)  # type: ignore[arg-type]
                self.advance(event.seq, event.time_ms)
            else:
                self.apply(event, epoch)
            return
        assert epoch == self.epoch
        self.reviews.turn([event], event.time_ms, self.boards)
        parts = [(event.board_id, event.delta, event.new_score)]
        parts += [(fed.board_id, fed.delta, fed.new_score) for fed in event.fed]
        for place, (board_id, delta, new_score) in enumerate(parts):
            if holds(board_id) and place not in event.held:
                board = self._board(board_id)
                assert (board.score(event.user_id) or 0) + delta == new_score
                board.record(event.user_id, new_score, event.seq, event.time_ms)
                if board_id in self.reviews.watches:
                    steps = Steps([event], board.known([NOBODY], [event.user_id]), [place])
                    self.reviews.see([(board_id, steps)], event.time_ms)
        self.reviews.hold([event], holds)
        self.advance(event.seq, event.time_ms)

    def _reverse(self, event: Reversed, holds: Callable[[str], bool] = lambda _: True) -> None:
        self.reversals.apply(event)
        for part in event.scores:
            if holds(part.board_id):
                moves = self._board(part.board_id).correct(part.rows, event.seq, self.is_active)
                self.reviews.leave(part.board_id, moves)

    def _decide(self, event: ReviewDecided, holds: Callable[[str], bool] = lambda _: True) -> None:
        """Apply a decision: first the scores that held actions make, which a watch then finds good."""
        self.reversals.correct(event)
        for part in event.scores:
            if holds(part.board_id):
                moves = self._board(part.board_id).correct(part.rows, event.seq, self.is_active)
                self.reviews.leave(part.board_id, moves)
        self.reviews.decide(event, self.boards)

    def advance(self, seq: int, time_ms: int) -> None:
        """Skip events up to `seq` that belong to boards of other shards."""
        assert seq >= self.seq
        self.seq, self.time_ms = seq, time_ms

    def take_ended(self) -> list[EndedPeriod]:
        """Give the periods that ended since the last call. Whoever applies events takes them, to keep or to drop."""
        ended, self.ended = self.ended, []
        return ended

    def take_over(self, other: Scoreboard) -> None:
        """Take the state of `other`, which is not used afterwards. Readers of this scoreboard then see that state."""
        self.epoch, self.seq, self.time_ms = other.epoch, other.seq, other.time_ms
        self.users, self.actions, self.boards = other.users, other.actions, other.boards
        self.reversals, self.reviews = other.reversals, other.reviews
        self._epochs, self._histories, self._log_id = other._epochs, other._histories, other._log_id
        self._replaying, self._only_file = other._replaying, other._only_file
        self.dues, self.erasures, self.imports, self.flags = other.dues, other.erasures, other.imports, other.flags

    def _board(self, board_id: str) -> Board:
        """Give a board, whether or not it has rules; make it if it is new."""
        board = self.boards.get(board_id)
        if board is None:
            board = self.boards[board_id] = Board(board_id)
            if self._replaying:
                board.begin_replay()
        return board

    def _apply_board(self, event: BoardEvent) -> None:
        ended = apply_to_board(board := self._board(event.board_id), event)
        if self.reversals:
            self.reversals.forget_periods(event.board_id, {past.seq for past in board.known_past})
        if ended is not None and ended.past.count:
            self.ended.append(ended)
        self.reviews.define(event.board_id, self.boards[event.board_id].definition, anew=ended is not None)
        self._forget_file()
        self.dues.stale = True

    def _forget_file(self) -> None:
        """Drop what only the operator's file says of boards, once the log defines boards."""
        if self._only_file:
            self._only_file = False
            for board in [board for board in self.boards.values() if not board.is_logged]:
                board.definition = None

    def _note_ranks(self, event: RanksNoted) -> None:
        for board in self.boards.values():
            board.note_ranks(event)
        self.dues.note(event.seq, event.time_ms)

    def _correct_notes(self, event: ClockCorrected) -> None:
        """Let no note lie in the future. Beside the time of the last event, a correction changes nothing else."""
        for board in self.boards.values():
            board.past_ranks = board.past_ranks.corrected(event.time_ms)
        self.reviews.correct(event.time_ms)
        self.dues.correct(event.time_ms)

    def _apply_user(self, event: UserPut) -> None:
        before = self.users.get(event.user_id) or UNKNOWN_USER
        after = User(event.display_name, event.active)
        self.users.put(event.user_id, after)
        for board in self.boards.values():
            for shown in (board,) if board.frozen is None else (board, board.frozen):
                if before.active and not after.active:
                    shown.hide(event.user_id, event.seq)
                elif after.active and not before.active:
                    shown.show(event.user_id, event.seq)
                elif before.display_name != after.display_name:
                    shown.touch(event.user_id, event.seq)

    # Replay and images

    def begin_replay(self) -> None:
        """Maintain no order until `end_replay`: many events follow, and nobody reads meanwhile."""
        self._replaying = True
        for board in self.boards.values():
            board.begin_replay()

    def end_replay(self) -> None:
        """Build the order of every board, once."""
        self._replaying = False
        self.reviews.take_news()  # they were told before
        for board in self.boards.values():
            board.end_replay()

    def capture(self) -> StateImage:
        """Copy the state now: 24 bytes a user are copied, the rest is shared (see `engine.image`)."""
        return StateImage(
            epoch=self.epoch,
            seq=self.seq,
            time_ms=self.time_ms,
            epochs=self._epochs.copy(),
            boards=[self.boards[board_id].capture() for board_id in sorted(self.boards) if self.boards[board_id].seq],
            users=self.users.capture(),
            actions=self.actions.capture(),
            histories=list(self._histories.items()),
            noted=self.dues.noted,
            parts=(
                *self.actions.sealed.parts(),
                *self.erasures.parts(),
                *self.flags.parts(),
                *self.imports.parts(),
                *self.reversals.parts(),
                *self.reviews.parts(),
            ),
        )

    @classmethod
    def from_image(
        cls, rules: Rules, image: StateImage, sealed: SealedActions | None = None, *, owned: bool = False
    ) -> Scoreboard:
        """Make the scoreboard of an image, as in the middle of a replay: call `end_replay` before reading from it.

        `sealed` are the opened sealed actions of the image. Without them it can't be asked for actions, if it has some.
        `owned`: the image is nobody else's (`engine.image`).
        """
        scoreboard = cls(rules)
        scoreboard.epoch, scoreboard.seq, scoreboard.time_ms = image.epoch, image.seq, image.time_ms
        scoreboard._epochs = [(first_seq, epoch) for first_seq, epoch in image.epochs]
        scoreboard._histories = dict(image.histories)
        scoreboard.dues.note(*image.noted)
        scoreboard.reversals = Reversals.unpack(dict(image.parts).get("reversals", b""))
        scoreboard.erasures, scoreboard.flags = erasures_in(image.parts), flags_in(image.parts)
        scoreboard.users = Users.from_image(image.users, owned=owned)
        known = SealedActions.of(manifest_in(image.parts)) if sealed is None else sealed
        scoreboard.actions = Actions.from_image(image.actions, known, owned=owned)
        scoreboard.imports = Imports.from_image(image.parts)
        inactive = scoreboard.users.inactive()
        for board_image in image.boards:
            scoreboard._restore(board_image, inactive, owned)
        scoreboard.reviews = Reviews.from_image(image)
        scoreboard.begin_replay()
        return scoreboard

    def _restore(self, image: BoardImage, inactive: list[str], owned: bool) -> None:
        known = self.boards.get(image.board_id)
        board = self.boards[image.board_id] = Board.from_image(image, inactive, owned=owned)
        if image.frozen is not None:
            board.frozen = FrozenBoard.from_image(image.frozen, inactive, owned=owned)
        if board.is_logged:
            self._forget_file()
        elif known is not None and self._only_file:
            board.take_from_file(known.definition)

    def _check(self) -> None:
        for part in (self.users, self.reviews, self.actions, self.imports):
            part._check()
        inactive = set(self.users.inactive())
        for board_id, board in self.boards.items():
            board._check()
            assert board.board_id == board_id
            assert board.seq <= self.seq
            assert {board.user(slot) for slot in board._hidden} == inactive & set(board._ids)
        assert self._only_file == (not any(board.is_logged for board in self.boards.values()))
        self._check_epochs()
