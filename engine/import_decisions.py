"""Deciding about rows of an import: from a chunk of rows to the events that must be logged. Pure.

    decision = decide_import(scoreboard, command, seq, now_ms)          an `ImportDecision`, or a `Rejection`
    receipt = settle_import(scoreboard, decision)                       when its events are on disk

Rules:
- The rows of an import come in order. Rows that are done are left out, so a chunk may be sent again. A gap is refused.
- A chunk is decided as a whole: one bad row refuses all of it, and is named by its field and its number.
- An import begins on a board without scores, unless it merges. What a row does is the same either way: by the board's
  mode `sum` and `count` add it, `best` keeps the better, `last` takes the row. So points that count while an import
  runs are not lost. On a board without scores each of these gives the row's score.
- The catalogue, its ranges and what a board feeds are about actions. They do not apply: a row is a score.
- A user who is inactive gets the score, and stays hidden. Where users must be registered, a row with a name registers.
- A board that takes no action takes no row. An import does not run on into another period of its board.
- `reached_ms` is when the user reached the score, as the source says. It is shown, and decides nothing: of equal
  scores the row that comes first is ahead.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.board_faults import unwritten, write_fault
from engine.board_rules import score_after_row
from engine.commands import ImportReceipt, ImportRow, ImportRows, Rejection
from engine.events import Event, ImportBegun, ScoreImported, UserPut
from engine.imports import Import
from engine.limits import IMPORTS_MAX, SCORE_MAX
from engine.scoreboard import UNKNOWN_USER, Scoreboard


class ImportDecision(msgspec.Struct, frozen=True, gc=False):
    """The events of a chunk; none if all of its rows are done already."""

    command: ImportRows
    events: Sequence[Event]
    applied: int


def decide_import(scoreboard: Scoreboard, command: ImportRows, seq: int, now_ms: int) -> ImportDecision | Rejection:
    """Decide a chunk; its first event has this seq. O(rows)."""
    board = scoreboard.board(command.board_id)
    if board is None or board.definition is None:
        message = f"there is no board {command.board_id!r}"
        return Rejection("NOT_FOUND", message, {"field": "boardId", "boardId": command.board_id})
    known = scoreboard.imports.get(command.import_id)
    fault = _order_fault(command, known)
    if fault is not None:
        return fault
    done = 0 if known is None else known.rows_done
    rows = command.rows[done - command.first_row :]
    if not rows:
        return ImportDecision(command, (), 0)
    if not board.is_logged:
        return unwritten(command.board_id)
    fault = write_fault(command.board_id, board.definition, now_ms)
    if fault is not None:
        return fault
    events: list[Event] = []
    if known is None:
        fault = _begin_fault(scoreboard, command)
        if fault is not None:
            return fault
        about = (command.board_id, command.import_id, command.total, command.digest, command.merge, command.caller)
        events.append(ImportBegun(seq, now_ms, *about))
    elif board.definition.past and board.definition.past[-1].seq > known.begun_seq:
        message = f"the period of board {command.board_id!r} in which the import {command.import_id!r} began has ended"
        return _conflict("importId", f"{message}: import the other rows under another id", rowsDone=done)
    return _rows(scoreboard, command, rows, done, events, seq, now_ms)


def settle_import(scoreboard: Scoreboard, decision: ImportDecision) -> ImportReceipt:
    """Apply the events of a decision, which are all on disk now; give the answer."""
    for event in decision.events:
        scoreboard.apply(event, scoreboard.epoch)
    import_id = decision.command.import_id
    known = scoreboard.imports.get(import_id)
    assert known is not None
    return ImportReceipt(
        import_id, known.board_id, known.rows, known.rows_done, decision.applied, scoreboard.epoch, scoreboard.seq
    )


def _order_fault(command: ImportRows, known: Import | None) -> Rejection | None:
    """Refuse rows that are not those of this import, or not the next ones."""
    last = command.first_row + len(command.rows)
    if last > command.total:
        message = f"rows {command.first_row} to {last - 1} are not within the {command.total} rows of the import"
        return Rejection("INVALID_REQUEST", message, {"field": "rows", "total": command.total})
    done = 0
    if known is not None:
        done = known.rows_done
        for field, theirs, ours in (
            ("boardId", command.board_id, known.board_id),
            ("total", command.total, known.rows),
            ("digest", command.digest, known.digest),
            ("merge", command.merge, known.merge),
        ):
            if theirs != ours:
                message = f"the import {command.import_id!r} began with another {field}: {ours!r}, not {theirs!r}"
                return _conflict(field, message, rowsDone=done)
    if command.first_row > done:
        message = f"row {done} of the import {command.import_id!r} comes next, not row {command.first_row}"
        return _conflict("firstRow", message, rowsDone=done)
    return None


def _begin_fault(scoreboard: Scoreboard, command: ImportRows) -> Rejection | None:
    """Refuse to begin an import."""
    count = len(scoreboard.boards[command.board_id])
    if count and not command.merge:
        message = f"board {command.board_id!r} has scores ({count} users): only an import that merges may add to them"
        return _conflict("merge", message, users=count)
    if len(scoreboard.imports) >= IMPORTS_MAX:
        return _conflict("importId", f"the log has {IMPORTS_MAX} imports, and no more are begun", maximum=IMPORTS_MAX)
    return None


def _rows(
    scoreboard: Scoreboard, command: ImportRows, rows: Sequence[ImportRow], row: int, events: list[Event], seq: int,
    now_ms: int,
) -> ImportDecision | Rejection:  # fmt: skip
    """Decide rows, of which the first is the import's row number `row`. `events` are those before them."""
    board = scoreboard.boards[command.board_id]
    assert board.definition is not None
    rules, score_of = board.definition.rules, board.score
    board_id, import_id, caller = command.board_id, command.import_id, command.caller
    users_matter = scoreboard.rules.require_registered or len(scoreboard.users) > 0
    seq += len(events)
    applied, begun, seen = len(rows), row, dict[str, int]()
    for each in rows:
        user_id, value, reached_ms, name = each.user_id, each.score, each.reached_ms, each.display_name
        first = seen.setdefault(user_id, row)
        if first != row:
            return _row_fault(command, row, "userId", f"names {user_id!r}, as row {first} does")
        if not 0 <= value <= SCORE_MAX:
            return _row_fault(command, row, "score", f"has a score that is not from 0 to {SCORE_MAX}: {value}")
        if reached_ms is not None and not 0 <= reached_ms <= now_ms:
            return _row_fault(command, row, "reachedAt", "has a time that is not between 1970 and now")
        if name is not None or users_matter:
            known = scoreboard.users.get(user_id)
            if name is None:
                if known is None and scoreboard.rules.require_registered:
                    return _row_fault(command, row, "userId", f"names {user_id!r}, who is not registered")
            elif known is None or known.display_name != name:
                active = (known or UNKNOWN_USER).active
                events.append(UserPut(seq, now_ms, user_id, name, active, caller))
                seq += 1
        new_score = score_after_row(rules, score_of(user_id), value)
        if new_score > SCORE_MAX:
            return _row_fault(command, row, "score", f"would take {user_id!r} past the largest score, {SCORE_MAX}")
        events.append(
            ScoreImported(seq, now_ms, board_id, user_id, value, new_score, reached_ms, import_id, row, caller)
        )
        seq += 1
        row += 1
    assert row == begun + applied
    return ImportDecision(command, events, applied)


def _row_fault(command: ImportRows, row: int, field: str, what: str) -> Rejection:
    place = f"rows[{row - command.first_row}].{field}"
    return Rejection("INVALID_REQUEST", f"row {row} of the import {what}", {"field": place, "row": row})


def _conflict(field: str, message: str, **details: int) -> Rejection:
    return Rejection("CONFLICT", message, {"field": field, **details})
