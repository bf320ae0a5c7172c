"""The events: facts that are logged. The leader decides an event once. Applying it is deterministic and never fails.

Each event has its seq and its time. The epoch stands in the event's frame. `engine.record` packs events into frames.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from engine.board_rules import BoardRules, Decision
from engine.schedule import Period


class Fed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """What an action did on a board that its own board feeds. `value` is what it was worth there."""

    board_id: str
    delta: int
    new_score: int
    value: int


class Rescored(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """A user's score after a correction, which event reached it, and when (ms). None: the user left the board."""

    user_id: str
    new_score: int | None
    reached_seq: int
    updated_ms: int


class BoardScores(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """What a correction did on a board: scores of its running period."""

    board_id: str
    rows: tuple[Rescored, ...]


class PeriodScores(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """What a correction did to a past period, which the event `ended_seq` ended. It has `count` rows since."""

    board_id: str
    ended_seq: int
    count: int
    rows: tuple[Rescored, ...]


class Incremented(msgspec.Struct, frozen=True, gc=False):
    """An action was counted for a user. `new_score` is the user's score on this board after it, `delta` the change.

    `time_ms` is in milliseconds since 1970-01-01 UTC. It goes back from one event to the next only at `ClockCorrected`.
    `value` is what the action was worth, None where `delta` says it: most boards just add points. `chosen`: the request
    chose it within a range. `fed` are the other boards on which it counted.

    `held` are the places of the boards that held it (`engine.holds`): 0 is its own, 1 the first of `fed`. There `delta`
    is 0, `new_score` is the score that is shown, 0 without a row, and `value` says what the action is worth.
    """

    seq: int
    time_ms: int
    board_id: str
    user_id: str
    action_id: str
    delta: int
    reason: str
    caller: str
    new_score: int
    value: int | None = None
    chosen: bool = False
    fed: tuple[Fed, ...] = ()
    held: tuple[int, ...] = ()

    @property
    def chosen_value(self) -> int | None:
        """The value that the request carried, None if it carried none."""
        return self.value if self.chosen else None


class BoardPut(msgspec.Struct, frozen=True, gc=False):
    """A board was made, or its rules were replaced. `period` is the one that runs from now on."""

    seq: int
    time_ms: int
    board_id: str
    rules: BoardRules
    caller: str
    period: Period | None = None


class BoardClosed(msgspec.Struct, frozen=True, gc=False):
    """A board was closed: it stays readable, and nothing is written to it any more."""

    seq: int
    time_ms: int
    board_id: str
    caller: str


class UserPut(msgspec.Struct, frozen=True, gc=False):
    """A user was registered or changed. The event has all fields, so applying it needs nothing that came before."""

    seq: int
    time_ms: int
    user_id: str
    display_name: str | None
    active: bool
    caller: str


class UserErased(msgspec.Struct, frozen=True, gc=False):
    """A user left all boards for good, and is no longer registered. `actions` are the seqs of the user's actions.

    `pseudonym` stands for the user in the log once it was rewritten (`engine.rewriting`), in this event too.
    `engine.erased` packs the seqs.
    """

    seq: int
    time_ms: int
    user_id: str
    pseudonym: str
    caller: str
    actions: bytes


class EpochBegun(msgspec.Struct, frozen=True, gc=False):
    """A new epoch began: a new leader's first event. `note` says why.

    `history` is its identity (`engine.history`), empty if an older version wrote the event.
    """

    seq: int
    time_ms: int
    epoch: int
    note: str
    history: bytes = b""


class ClockCorrected(msgspec.Struct, frozen=True, gc=False):
    """The clock was wrong before this event, and its time is right. `note` says why. It stands alone in its frame.

    The events from `from_seq` up to this one have times that are `ahead_ms` ahead of the truth. If there are none,
    `ahead_ms` says how far the log was ahead of the clock. `engine.corrections` says what follows.
    """

    seq: int
    time_ms: int
    from_seq: int
    ahead_ms: int
    note: str


class RanksNoted(msgspec.Struct, frozen=True, gc=False):
    """Every board noted the ranks of its first users. The last event before this one has the time `as_of_ms`."""

    seq: int
    time_ms: int
    as_of_ms: int


class Reversed(msgspec.Struct, frozen=True, gc=False):
    """Actions were taken back, and count no more. `again`: a reversal was taken back, so that they count again.

    `actions` are the seqs of their events, ascending. `asked` is the mark of what the sender asked for: a repeated
    reversalId must ask for the same. A user without an action that counts has no score, and leaves the board.
    """

    seq: int
    time_ms: int
    reversal_id: str
    reason: str
    caller: str
    asked: int
    again: bool
    actions: tuple[int, ...]
    scores: tuple[BoardScores, ...]
    periods: tuple[PeriodScores, ...]


class PeriodChanged(msgspec.Struct, frozen=True, gc=False):
    """The period `ended` of a board ended, and `following` runs now; None: none does.

    `over`: a season ended, and its last ranking stays. Otherwise the board is empty now. `passed` are periods between
    the two that passed while no leader ran: nobody scored in them. `caller` is empty if the clock ended the period.
    """

    seq: int
    time_ms: int
    board_id: str
    ended: Period
    following: Period | None
    over: bool
    passed: tuple[Period, ...]
    caller: str


class BoardFrozen(msgspec.Struct, frozen=True, gc=False):
    """The public sees the board as it is now, until `BoardUnfrozen`. With `at_ms` it will be frozen at that time.

    `caller` is empty if the clock froze it.
    """

    seq: int
    time_ms: int
    board_id: str
    at_ms: int | None
    caller: str


class BoardUnfrozen(msgspec.Struct, frozen=True, gc=False):
    """The public sees the board of now again, and no later freeze is planned."""

    seq: int
    time_ms: int
    board_id: str
    caller: str


class RowsRevealed(msgspec.Struct, frozen=True, gc=False):
    """The last `step` rows of a frozen board that were not revealed yet are shown as they are now."""

    seq: int
    time_ms: int
    board_id: str
    step: int
    caller: str


class ReviewDecided(msgspec.Struct, frozen=True, gc=False):
    """Somebody decided a review (`engine.reviews`). `note` says why.

    `reversal_id` names what took the actions back, where that was the decision; else it is empty. `scores` and
    `periods` are what held actions made of the user's score once they counted, if the review held any and was accepted.
    """

    seq: int
    time_ms: int
    board_id: str
    review_id: str
    decision: Decision
    reversal_id: str
    note: str
    caller: str
    scores: tuple[BoardScores, ...] = ()
    periods: tuple[PeriodScores, ...] = ()


class ImportBegun(msgspec.Struct, frozen=True, gc=False):
    """An import of `rows` scores to a board began. `digest` is what its sender says of the source (`engine.imports`).

    `merge`: the board may have scores already.
    """

    seq: int
    time_ms: int
    board_id: str
    import_id: str
    rows: int
    digest: str
    merge: bool
    caller: str


class ScoreImported(msgspec.Struct, frozen=True, gc=False):
    """Row number `row` of an import says a score, `value`. `new_score` is the user's score on this board after it.

    `reached_ms` is when the score was reached, if the source says it.
    """

    seq: int
    time_ms: int
    board_id: str
    user_id: str
    value: int
    new_score: int
    reached_ms: int | None
    import_id: str
    row: int
    caller: str


FlagName = Literal["live"]
"""What an operator can switch off on every node: `live` is the live channel."""


class FlagPut(msgspec.Struct, frozen=True, gc=False):
    """An operator switched something off, or on again, on every node (`engine.flags`)."""

    seq: int
    time_ms: int
    flag: FlagName
    enabled: bool
    caller: str


BoardEvent = BoardPut | BoardClosed | PeriodChanged | BoardFrozen | BoardUnfrozen | RowsRevealed
"""An event about a board itself."""

ImportEvent = ImportBegun | ScoreImported
"""An event of an import. It concerns one board."""

Event = (
    Incremented
    | UserPut
    | UserErased
    | EpochBegun
    | ClockCorrected
    | RanksNoted
    | Reversed
    | ReviewDecided
    | FlagPut
    | BoardEvent
    | ImportEvent
)
