"""Deciding: from commands to the events that must be logged, and, once these are on disk, to the answers.

    batch = Batch(scoreboard, now_ms)
    batch.decide(commands)               as often as needed; then `batch.events` go to the log
    outcomes = batch.settle()            applies the events; gives one outcome for each command, in order

A batch decides each command as if the commands before it were applied. It keeps the changes that they will make beside
the state, where nobody else sees them. The state itself changes only in `settle`.

Rules:
- A repeated action is recognised before anything else is checked. Its answer must be given again even if the rules or
  the user have changed since.
- Commands about boards come in batches of their own: other commands would be decided by the old rules. A reversal and
  the decision of a review are alone, too: a recount has all that was logged before it. So are the rows of an import,
  an erasure, and a flag.
- `settle` uses what `decide` looked up (board, digest, mark, slot), so nothing is looked up twice. It is called once,
  when all events are on disk, and the state must not have changed since the batch began.
- Times never go back: if the last event is later than `now_ms`, the batch takes the time of that event. If it is later
  by more than a moment, the writer has logged a correction of the clock before (`engine.corrections`).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET, Struct

from engine.action_blocks import FORGOTTEN
from engine.actions import Key, key_of, mark_of
from engine.board import Board
from engine.board_decisions import decide_board
from engine.board_faults import unwritten, write_fault
from engine.board_rules import BoardRules, next_score
from engine.commands import (
    AloneCommand,
    BoardReceipt,
    Command,
    DecideReview,
    EraseUser,
    ImportRows,
    Increment,
    Outcome,
    PutBoard,
    PutFlag,
    PutUser,
    Receipt,
    Rejection,
    Reverse,
    ReviewReceipt,
    UserReceipt,
)
from engine.counting import conflict, erased, fed_boards, feed, never_held, too_high, unknown, worth_of
from engine.deciding import FedPlace, Place, are_alike, decide_alike, feed_points
from engine.erasure_decisions import Erasure, decide_erasure
from engine.events import BoardEvent, Event, Fed, Incremented, ReviewDecided, UserPut
from engine.flags import FlagDecision, decide_flag
from engine.foresight import Foresight
from engine.import_decisions import ImportDecision, decide_import, settle_import
from engine.limits import SCORE_MAX
from engine.looking_up import look_up
from engine.periods import PeriodAt, no_calendar
from engine.recording import FoundIncrement
from engine.repeats import receipt_again
from engine.reversal_decisions import Reversal, decide_reversal
from engine.review_decisions import ReviewDecision, decide_review
from engine.scoreboard import Scoreboard
from engine.slots import MANY
from engine.user_decisions import Unchanged, decide_user, user_fault
from engine.users import User


class _Duplicate(Struct, frozen=True, gc=False):
    """The decision that an action was applied before, by the event `seq`."""

    command: Increment
    seq: int


class _BoardDecision(Struct, frozen=True, gc=False):
    """The events of a command about a board; none if it is already as the command wants."""

    board_id: str
    events: Sequence[BoardEvent]


_NOWHERE: Place = (Board(""), 0, {}, ())

_Told = ReviewReceipt | Rejection
_Alone = Reversal | ReviewDecision | ImportDecision | Erasure | FlagDecision | _BoardDecision
_Other = PutUser | AloneCommand
_Decision = FoundIncrement | UserPut | _Alone | _Duplicate | Unchanged | _Told


class Batch:
    """Commands that are logged together, as `events`."""

    def __init__(self, scoreboard: Scoreboard, now_ms: int, period_at: PeriodAt = no_calendar) -> None:
        """`period_at` is needed for commands about boards with periods only."""
        self._period_at = period_at
        self.events: list[Event] = []
        self._scoreboard = scoreboard
        self._actions = scoreboard.actions
        self._seq = scoreboard.seq  # of the last event, or of the state
        self._now_ms = max(now_ms, scoreboard.time_ms)
        self._decided: list[_Decision] = []
        self._places: dict[tuple[str, str], Place] = {}
        # If no user is registered, and none has to be, there is nothing to look up about a user.
        self._must_be_known = scoreboard.rules.require_registered
        self._users_matter = self._must_be_known or len(scoreboard.users) > 0
        # What the events will change:
        self._scores: dict[str, dict[str, int]] = {}
        self._begun: dict[Key, FoundIncrement] = {}
        self._users: dict[str, User] = {}
        self._put_boards: frozenset[str] = frozenset()  # all of the submission, so that they may feed each other
        self._decided_boards: set[str] = set()
        self._reviewed: dict[str, ReviewDecided] = {}
        self._foresight = Foresight(scoreboard, self._now_ms) if scoreboard.reviews.holding else None

    def decide(self, commands: Sequence[Command]) -> None:
        """Decide commands, after those of earlier calls. O(1) for each."""
        if commands and type(commands[0]) is PutBoard:
            self._put_boards = frozenset(command.board_id for command in commands if isinstance(command, PutBoard))
        increments = [command for command in commands if type(command) is Increment]
        keys = [increment.key or key_of(increment.action_id) for increment in increments]
        positions = self._actions.find_all(keys)
        if len(commands) == len(increments) >= MANY and max(positions) < 0 and self._decide_together(increments, keys):
            return
        decided, events = self._decided, self.events
        begun, now_ms = self._begun, self._now_ms
        known = zip(keys, positions, strict=True)
        users = look_up(commands, self._scoreboard.boards, self._scores_of)
        last_board_id = last_reason = ""  # no command has these
        (board, delta, scores, feeds), is_marked = _NOWHERE, False
        for command in commands:
            if not isinstance(command, Increment):
                decided.append(self._decide_other(command))
                continue
            user_id, board_id, reason = command.user_id, command.board_id, command.reason
            key, position = next(known)
            user = next(users)
            if position >= 0 or key in begun:
                decided.append(self._repeated(command, key, position))
                continue
            if reason != last_reason or board_id != last_board_id:
                place = self._places.get((board_id, reason)) or self._place(board_id, reason)
                if isinstance(place, Rejection):
                    decided.append(place)
                    continue
                board, delta, scores, feeds = place
                last_board_id, last_reason = board_id, reason
                is_marked = reason == board.marked_reason
            if self._users_matter and (fault := self._fault(command)) is not None:
                decided.append(fault)
                continue
            slot, score, mark = user or board.look_up(user_id)
            if not delta or command.value is not None:
                decided.append(self._count(command, key, board, slot, scores))
                continue
            new_score = scores.get(user_id, score) + delta
            if new_score > SCORE_MAX:
                decided.append(too_high(user_id, board_id))
                continue
            fed = feed_points(user_id, feeds) if feeds else ()
            if isinstance(fed, Rejection):
                decided.append(fed)
                continue
            seq = self._seq = self._seq + 1
            event = Incremented(
                seq, now_ms, board_id, user_id, command.action_id, delta, reason, command.caller, new_score, None,
                False, fed,
            )  # fmt: skip
            scores[user_id] = new_score
            events.append(event)
            if not mark or not is_marked:
                mark = board.mark(slot, user_id, reason)
            begun[key] = found = (event, board, key, mark, slot)
            decided.append(found)

    def settle(self) -> list[Outcome]:
        """Apply the events, which are all on disk now; give the outcome of each command, in order."""
        outcomes: list[Outcome] = []
        run: list[FoundIncrement] = []
        for decision in self._decided:
            if type(decision) is tuple:
                run.append(decision)
            else:
                # Its answer must show the state at exactly this place in the batch.
                self._settle_run(run, outcomes)
                run.clear()
                outcomes.append(self._settle_other(decision))
        self._settle_run(run, outcomes)
        return outcomes

    # Deciding

    def _decide_together(self, increments: Sequence[Increment], keys: Sequence[Key]) -> bool:
        """Decide new increments together, if they are alike."""
        first = increments[0]
        if not are_alike(increments):
            return False
        place = self._places.get((first.board_id, first.reason)) or self._place(first.board_id, first.reason)
        if isinstance(place, Rejection) or (self._users_matter and any(map(self._fault, increments))):
            return False
        found = decide_alike(increments, keys, place, self._begun, self._seq, self._now_ms) or ()
        self._seq += len(found)
        self._decided += found
        self.events += [each[0] for each in found]
        return bool(found)

    def _fault(self, command: Increment) -> Rejection | None:
        return user_fault(command.user_id, self._user(command.user_id), must_be_known=self._must_be_known)

    def _repeated(self, command: Increment, key: Key, position: int) -> _Decision:
        """Decide a repeated action: it is at this position of the index or, if that is -1, earlier in this batch."""
        actions = self._actions
        if position >= 0:
            seq, applied = actions.seq_at(position), actions.mark_at(position)
        else:
            event, _, _, applied, _ = self._begun[key]
            seq = event.seq
        if applied == FORGOTTEN:
            return erased(command, seq)
        if mark_of(command.user_id, command.board_id, command.reason, command.value) == applied:
            return _Duplicate(command, seq)
        return conflict(command, seq)

    def _place(self, board_id: str, reason: str) -> Place | Rejection:
        """Find a board, the points of a reason there, and its scores after this batch. Called once for each pair."""
        board = self._scoreboard.board(board_id)
        if board is None or board.definition is None:
            return unknown("boardId", board_id, "board", self._scoreboard.served())
        if (fault := write_fault(board_id, board.definition, self._now_ms)) is not None:
            return fault
        rules = board.definition.rules
        if not board.is_logged and (rules.score, rules.order, rules.feeds) != ("sum", "descending", ()):
            return unwritten(board_id)  # a log without these rules could not say by which ones it counted
        worth = rules.points.get(reason)
        if worth is None:
            return unknown("reason", reason, f"reason on board {board_id!r}", rules.points)
        points = worth if rules.score == "sum" and isinstance(worth, int) and worth > 0 else 0
        if self._foresight is not None and self._foresight.holds(board):
            points = 0
        feeds = self._fed(rules, reason) if rules.feeds else ()
        if feeds is None:
            points, feeds = 0, ()
        place = self._places[board_id, reason] = (board, points, self._scores_of(board_id), feeds)
        return place

    def _fed(self, rules: BoardRules, reason: str) -> Sequence[FedPlace] | None:
        """Find the boards that a reason feeds with fixed points; None: their rules are more than that."""
        feeds: list[FedPlace] = []
        for board, theirs, worth in fed_boards(rules, self._scoreboard.boards, reason, self._now_ms):
            if theirs.score != "sum" or not isinstance(worth, int) or worth <= 0:
                return None
            if self._foresight is not None and self._foresight.holds(board):
                return None
            feeds.append((board, worth, self._scores_of(board.board_id)))
        return feeds

    def _scores_of(self, board_id: str) -> dict[str, int]:
        return self._scores.setdefault(board_id, {})

    def _score(self, board: Board, user_id: str) -> int | None:
        score = self._scores_of(board.board_id).get(user_id)
        return board.score(user_id) if score is None else score

    def _count(
        self, command: Increment, key: Key, board: Board, slot: int, scores: dict[str, int]
    ) -> FoundIncrement | Rejection:
        """Decide an increment by rules that are more than fixed points."""
        assert board.definition is not None
        rules, user_id = board.definition.rules, command.user_id
        worth = worth_of(rules, board.board_id, command.reason, command.value)
        if isinstance(worth, Rejection):
            return worth
        held: bool | Rejection = False if self._foresight is None else self._foresight.held(board, user_id)
        if isinstance(held, Rejection):
            return held
        old = self._score(board, user_id)
        new_score = (old or 0) if held else next_score(rules, old, worth)
        if new_score > SCORE_MAX:
            return too_high(user_id, board.board_id)
        steps: tuple[Fed, ...] = ()
        places: tuple[int, ...] = ()
        if rules.feeds:
            holds = never_held if self._foresight is None else self._foresight.held
            fed = feed(rules, self._scoreboard.boards, command, worth, self._score, holds, self._now_ms)
            if isinstance(fed, Rejection):
                return fed
            steps, places = fed
        self._seq += 1
        chosen, delta = command.value is not None, new_score - (old or 0)
        event = Incremented(
            self._seq, self._now_ms, board.board_id, user_id, command.action_id, delta, command.reason, command.caller,
            new_score, worth if chosen or held or worth != delta else None, chosen, steps,
            (0, *places) if held else places,
        )  # fmt: skip
        self.events.append(event)
        if self._foresight is not None:
            self._foresight.note(event)
        if not held:
            scores[user_id] = new_score
        for place, each in enumerate(steps, 1):
            if place not in places:
                self._scores_of(each.board_id)[user_id] = each.new_score
        mark = mark_of(user_id, board.board_id, command.reason, command.value)
        self._begun[key] = found = (event, board, key, mark, slot)
        return found

    def _decide_other(self, command: _Other) -> _Decision:
        if isinstance(command, PutUser):
            return self._put_user(command)
        scoreboard, place = self._scoreboard, (self._seq + 1, self._now_ms)
        if isinstance(command, ImportRows):
            return self._alone(decide_import(scoreboard, command, *place))
        if isinstance(command, Reverse):
            return self._alone(decide_reversal(scoreboard, command, *place))
        if isinstance(command, EraseUser):
            return self._alone(decide_erasure(scoreboard, command, *place))
        if isinstance(command, PutFlag):
            return self._alone(decide_flag(scoreboard.flags, command, scoreboard.epoch, *place))
        if isinstance(command, DecideReview):
            return self._review(command)
        assert command.board_id not in self._decided_boards, "a submission has one command a board"
        self._decided_boards.add(command.board_id)
        made, period_at = self._put_boards, self._period_at
        decided = decide_board(scoreboard, command, made=made, seq=place[0], now_ms=place[1], period_at=period_at)
        return decided if isinstance(decided, Rejection) else self._alone(_BoardDecision(command.board_id, decided))

    def _alone(self, decided: _Alone | Rejection) -> _Decision:
        if not isinstance(decided, Rejection):
            self.events += decided.events
            self._seq += len(decided.events)
        return decided

    def _review(self, command: DecideReview) -> _Decision:
        review_id = command.review_id
        pending = self._reviewed.get(review_id)
        decided = decide_review(self._scoreboard, command, pending, seq=self._seq + 1, now_ms=self._now_ms)
        if isinstance(decided, ReviewDecision):
            self._alone(decided)
            for event in decided.events:
                if isinstance(event, ReviewDecided):
                    self._reviewed[review_id] = event
        elif isinstance(decided, int):
            return ReviewReceipt(review_id, False, self._scoreboard.epoch_of(decided), decided)
        return decided

    def _user(self, user_id: str) -> User | None:
        return self._users.get(user_id) or self._scoreboard.users.get(user_id)

    def _put_user(self, command: PutUser) -> UserPut | Unchanged:
        decided = decide_user(command, self._user(command.user_id), seq=self._seq + 1, now_ms=self._now_ms)
        if isinstance(decided, UserPut):
            self._users[command.user_id] = User(decided.display_name, decided.active)
            self._users_matter = True
            self._seq += 1
            self.events.append(decided)
        return decided

    # Settling

    def _settle_run(self, run: list[FoundIncrement], outcomes: list[Outcome]) -> None:
        if not run:
            return
        epoch = self._scoreboard.epoch
        ranks = self._scoreboard.apply_increments(run, epoch)
        outcomes += [
            Receipt(
                event.user_id, event.new_score, event.delta, True, event.action_id, event.board_id, epoch, event.seq,
                rank, previous_rank, True if 0 in event.held else UNSET,
            )
            for (event, _, _, _, _), (previous_rank, rank) in zip(run, ranks, strict=True)
        ]  # fmt: skip

    def _settle_other(self, decision: _Decision) -> Outcome:
        scoreboard = self._scoreboard
        if isinstance(decision, _Told):
            return decision
        if isinstance(decision, Reversal | ReviewDecision | Erasure | FlagDecision):
            for each in decision.events:
                scoreboard.apply(each, scoreboard.epoch)
            return decision.receipt
        if isinstance(decision, _Duplicate):
            return receipt_again(scoreboard, decision.command, decision.seq)
        if isinstance(decision, _BoardDecision):
            for event in decision.events:
                scoreboard.apply(event, scoreboard.epoch)
            seq = scoreboard.boards[decision.board_id].seq
            return BoardReceipt(decision.board_id, bool(decision.events), scoreboard.epoch_of(seq), seq)
        if isinstance(decision, ImportDecision):
            return settle_import(scoreboard, decision)
        if isinstance(decision, UserPut):
            scoreboard.apply(decision, scoreboard.epoch)
            user, applied = User(decision.display_name, decision.active), True
        else:
            assert isinstance(decision, Unchanged)
            user, applied = decision.user, False
        return UserReceipt(decision.user_id, user.display_name, user.active, applied, scoreboard.epoch, scoreboard.seq)
