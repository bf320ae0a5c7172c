"""Deciding a reversal: from the actions that shall count no more, or again, to the event that must be logged. Pure.

    reversal = decide_reversal(scoreboard, command, seq, now_ms)          a `Reversal`, or a `Rejection`

The recount of the command has seen every event up to the state (`engine.recount`). All that changes is said by one
event, so a reader sees all of it or nothing.

Rules:
- Actions that are taken back already are left out, and so are those that count, where they shall count again. If none
  is left, the reversal is refused.
- A reversalId is used once, as an actionId is, and is none of them. The same one again is answered as before, if it
  asks for the same.
- What it changes is found by `engine.recounting`.
"""

from __future__ import annotations

import msgspec

from engine.actions import key_of
from engine.commands import Rejection, ReversalReceipt, Reverse
from engine.events import Reversed
from engine.recounting import NotExplained, Work
from engine.scoreboard import Scoreboard


class Reversal(msgspec.Struct, frozen=True, gc=False):
    """A decided reversal, and its answer. Without an event nothing has to be logged."""

    event: Reversed | None
    receipt: ReversalReceipt

    @property
    def events(self) -> tuple[Reversed, ...]:
        """What must be logged."""
        return () if self.event is None else (self.event,)


def decide_reversal(scoreboard: Scoreboard, command: Reverse, seq: int, now_ms: int) -> Reversal | Rejection:
    """Decide a command whose event would have this seq and time."""
    assert command.recount.seq == scoreboard.seq == seq - 1
    position = scoreboard.actions.find(key_of(command.reversal_id))
    if position >= 0:
        return _known(scoreboard, command, position)
    again, held = command.recount.again, scoreboard.reversals.of_action
    chosen = {each for each in command.recount.actions if held(each) == command.of}
    if not chosen:
        what = "no action of it is still held back" if again else "no action that counts matches"
        return Rejection("CONFLICT", f"there is nothing to reverse: {what}", {"field": _field(command)})
    try:
        work = Work(scoreboard, command.recount, command.rows, chosen, flipped=chosen)
    except NotExplained as fault:
        return fault.rejection
    receipt = ReversalReceipt(
        command.reversal_id, not command.preview, again, scoreboard.epoch, scoreboard.seq if command.preview else seq,
        tuple(sorted(chosen)), tuple(work.changes), len(chosen) - len(work.kept),
    )  # fmt: skip
    if command.preview:
        return Reversal(None, receipt)
    event = Reversed(
        seq, now_ms, command.reversal_id, command.reason, command.caller, command.asked, again, tuple(sorted(chosen)),
        tuple(work.scores), tuple(work.periods),
    )  # fmt: skip
    return Reversal(event, receipt)


def _known(scoreboard: Scoreboard, command: Reverse, position: int) -> Reversal | Rejection:
    seq = scoreboard.actions.seq_at(position)
    if scoreboard.actions.mark_at(position) != command.asked:
        message = f"{command.reversal_id!r} was used before, for something else; nothing was changed"
        details: dict[str, str | int | list[str]] = {
            "field": "reversalId",
            "reversalId": command.reversal_id,
            "seq": seq,
        }
        return Rejection("CONFLICT", message, details)
    epoch = scoreboard.epoch_of(seq)
    return Reversal(None, ReversalReceipt(command.reversal_id, False, command.recount.again, epoch, seq))


def _field(command: Reverse) -> str:
    return "reversalId" if command.preview else "actionIds"
