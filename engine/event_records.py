"""Events ⇄ records: the body of a frame. Pure.

    body = encode_events(events)
    events = decode_events(body, count, time_ms, seqs)

A record is a msgpack array, and its first element is its type. Seq and time are not in it: the frame has them.

      Incremented      [1, boardId, userId, actionId, delta, reason, caller, newScore]
                       [6, …the same…, value | nil, chosen, [[boardId, delta, newScore, value], …]]    if it says more
                       [16, …the same as 6…, [place of a board that held it …]]
      UserPut          [2, userId, displayName | nil, active, caller]
      EpochBegun       [5, epoch, note, history]            history: HISTORY_BYTES bytes
                       [3, epoch, note]                     by older versions, which drew no identity
      ClockCorrected   [4, fromSeq, aheadMs, note]          alone in its frame; times go back only here
      BoardPut         [7, boardId, rules, caller, period | nil]      rules: a map with the fields of `BoardRules` that
                                                                      have not their default
      BoardClosed      [8, boardId, caller]
      PeriodChanged    [9, boardId, ended, following | nil, over, [passed period …], caller]
      BoardFrozen      [10, boardId, atMs | nil, caller]
      BoardUnfrozen    [11, boardId, caller]
      RowsRevealed     [12, boardId, step, caller]
      RanksNoted       [13, asOfMs]
      Reversed         [14, reversalId, reason, caller, asked, again, [seq of an action …], [[boardId, [row …]] …],
                        [[boardId, endedSeq, count, [row …]] …]]         row: [userId, score | nil, reachedSeq, ms]
      ReviewDecided    [17, boardId, reviewId, decision, reversalId, note, caller]
                       [17, …the same…, scores, periods]          if it says more: the last two fields of a `Reversed`
      UserErased       [18, userId, pseudonym, caller, seqs]              seqs: bytes (`engine.erased`)
      any of these     [19, record, balance]      in a frame that was rewritten: four bytes that give it its checksum
      ScoreImported    [15, boardId, userId, value, newScore, reachedMs | nil, importId, row, caller]
      ImportBegun      [21, boardId, importId, rows, digest, merge, caller]
      FlagPut          [22, flag, enabled, caller]

A period is [id, beginning, end | nil], in ms since 1970 UTC.

Rules:
- An event has one record: the shortest form that says all.
- An unknown type, another number of fields, or an unknown key in a map raises `msgspec.DecodeError`: a newer version
  wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec

from engine.balance import BALANCE_BYTES
from engine.board_rules import BoardRules, Decision
from engine.events import (
    BoardClosed,
    BoardFrozen,
    BoardPut,
    BoardScores,
    BoardUnfrozen,
    ClockCorrected,
    EpochBegun,
    Event,
    Fed,
    FlagName,
    FlagPut,
    ImportBegun,
    Incremented,
    PeriodChanged,
    PeriodScores,
    RanksNoted,
    Reversed,
    ReviewDecided,
    RowsRevealed,
    ScoreImported,
    UserErased,
    UserPut,
)
from engine.history import HISTORY_BYTES
from engine.limits import FEEDS_MAX, SCORE_MAX, SEQ_MAX
from engine.schedule import Period

_Seq = Annotated[int, msgspec.Meta(ge=1, le=SEQ_MAX)]
_Score = Annotated[int, msgspec.Meta(ge=0, le=SCORE_MAX)]
_Place = Annotated[int, msgspec.Meta(ge=0, le=FEEDS_MAX)]
_Delta = Annotated[int, msgspec.Meta(ge=-SCORE_MAX, le=SCORE_MAX)]


class _IncrementedRecord(msgspec.Struct, array_like=True, tag=1, forbid_unknown_fields=True, gc=False):
    board_id: str
    user_id: str
    action_id: str
    delta: _Delta
    reason: str
    caller: str
    new_score: _Score


class _UserPutRecord(msgspec.Struct, array_like=True, tag=2, forbid_unknown_fields=True, gc=False):
    user_id: str
    display_name: str | None
    active: bool
    caller: str


class _EpochBegunRecord(msgspec.Struct, array_like=True, tag=3, forbid_unknown_fields=True, gc=False):
    epoch: _Seq
    note: str


class _ClockCorrectedRecord(msgspec.Struct, array_like=True, tag=4, forbid_unknown_fields=True, gc=False):
    from_seq: _Seq
    ahead_ms: int
    note: str


class _HistoryBegunRecord(msgspec.Struct, array_like=True, tag=5, forbid_unknown_fields=True, gc=False):
    epoch: _Seq
    note: str
    history: Annotated[bytes, msgspec.Meta(min_length=HISTORY_BYTES, max_length=HISTORY_BYTES)]


class _CountedRecord(msgspec.Struct, array_like=True, tag=6, forbid_unknown_fields=True, gc=False):
    board_id: str
    user_id: str
    action_id: str
    delta: _Delta
    reason: str
    caller: str
    new_score: _Score
    value: _Delta | None
    chosen: bool
    fed: tuple[Fed, ...]


class _HeldRecord(msgspec.Struct, array_like=True, tag=16, forbid_unknown_fields=True, gc=False):
    board_id: str
    user_id: str
    action_id: str
    delta: _Delta
    reason: str
    caller: str
    new_score: _Score
    value: _Delta | None
    chosen: bool
    fed: tuple[Fed, ...]
    held: Annotated[tuple[_Place, ...], msgspec.Meta(min_length=1)]


class _BoardPutRecord(msgspec.Struct, array_like=True, tag=7, forbid_unknown_fields=True, gc=False):
    board_id: str
    rules: BoardRules
    caller: str
    period: Period | None


class _BoardClosedRecord(msgspec.Struct, array_like=True, tag=8, forbid_unknown_fields=True, gc=False):
    board_id: str
    caller: str


class _PeriodChangedRecord(msgspec.Struct, array_like=True, tag=9, forbid_unknown_fields=True, gc=False):
    board_id: str
    ended: Period
    following: Period | None
    over: bool
    passed: tuple[Period, ...]
    caller: str


class _BoardFrozenRecord(msgspec.Struct, array_like=True, tag=10, forbid_unknown_fields=True, gc=False):
    board_id: str
    at_ms: int | None
    caller: str


class _BoardUnfrozenRecord(msgspec.Struct, array_like=True, tag=11, forbid_unknown_fields=True, gc=False):
    board_id: str
    caller: str


class _RowsRevealedRecord(msgspec.Struct, array_like=True, tag=12, forbid_unknown_fields=True, gc=False):
    board_id: str
    step: Annotated[int, msgspec.Meta(ge=1)]
    caller: str


class _RanksNotedRecord(msgspec.Struct, array_like=True, tag=13, forbid_unknown_fields=True, gc=False):
    as_of_ms: int


class _ReversedRecord(msgspec.Struct, array_like=True, tag=14, forbid_unknown_fields=True, gc=False):
    reversal_id: str
    reason: str
    caller: str
    asked: int
    again: bool
    actions: tuple[_Seq, ...]
    scores: tuple[BoardScores, ...]
    periods: tuple[PeriodScores, ...]


class _ReviewDecidedRecord(msgspec.Struct, array_like=True, tag=17, forbid_unknown_fields=True, gc=False):
    board_id: str
    review_id: str
    decision: Decision
    reversal_id: str
    note: str
    caller: str
    scores: tuple[BoardScores, ...] = ()
    periods: tuple[PeriodScores, ...] = ()


class _UserErasedRecord(msgspec.Struct, array_like=True, tag=18, forbid_unknown_fields=True, gc=False):
    user_id: str
    pseudonym: str
    caller: str
    actions: bytes


class _ScoreImportedRecord(msgspec.Struct, array_like=True, tag=15, forbid_unknown_fields=True, gc=False):
    board_id: str
    user_id: str
    value: _Score
    new_score: _Score
    reached_ms: int | None
    import_id: str
    row: Annotated[int, msgspec.Meta(ge=0, le=SEQ_MAX)]
    caller: str


class _ImportBegunRecord(msgspec.Struct, array_like=True, tag=21, forbid_unknown_fields=True, gc=False):
    board_id: str
    import_id: str
    rows: _Seq
    digest: str
    merge: bool
    caller: str


class _FlagPutRecord(msgspec.Struct, array_like=True, tag=22, forbid_unknown_fields=True, gc=False):
    flag: FlagName
    enabled: bool
    caller: str


_PlainRecord = (
    _IncrementedRecord
    | _UserPutRecord
    | _EpochBegunRecord
    | _ClockCorrectedRecord
    | _HistoryBegunRecord
    | _CountedRecord
    | _HeldRecord
    | _BoardPutRecord
    | _BoardClosedRecord
    | _PeriodChangedRecord
    | _BoardFrozenRecord
    | _BoardUnfrozenRecord
    | _RowsRevealedRecord
    | _RanksNotedRecord
    | _ReversedRecord
    | _ReviewDecidedRecord
    | _UserErasedRecord
    | _ScoreImportedRecord
    | _ImportBegunRecord
    | _FlagPutRecord
)


class _BalancedRecord(msgspec.Struct, array_like=True, tag=19, forbid_unknown_fields=True, gc=False):
    record: _PlainRecord
    balance: Annotated[bytes, msgspec.Meta(min_length=BALANCE_BYTES, max_length=BALANCE_BYTES)]


_Record = _PlainRecord | _BalancedRecord
_SAME_FIELDS: dict[type[Any], type[Any]] = {
    _UserErasedRecord: UserErased,
    _ClockCorrectedRecord: ClockCorrected,
    _RanksNotedRecord: RanksNoted,
    _ImportBegunRecord: ImportBegun,
    _FlagPutRecord: FlagPut,
    _ReversedRecord: Reversed,
    _BoardPutRecord: BoardPut,
    _BoardClosedRecord: BoardClosed,
    _PeriodChangedRecord: PeriodChanged,
    _BoardFrozenRecord: BoardFrozen,
    _BoardUnfrozenRecord: BoardUnfrozen,
    _RowsRevealedRecord: RowsRevealed,
    _ReviewDecidedRecord: ReviewDecided,
}
"""Each record of these has the fields of its event, in the event's order, but for seq and time."""

_TYPES = {event: record.__struct_config__.tag for record, event in _SAME_FIELDS.items()}

CORRECTION_HEAD = b"\x94\x04"
"""How the record of a `ClockCorrected` begins: an array of four, and its type."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Record]).decode


def encode_events(events: Sequence[Event]) -> bytes:
    """Encode the records of events, one after the other. Raises ValueError for a score that no board can have."""
    return b"".join(
        [
            _encode(
                (
                    1, event.board_id, event.user_id, event.action_id, event.delta, event.reason, event.caller,
                    event.new_score,
                )
            )
            if type(event) is Incremented and event.value is None and not event.fed and not event.held
            and 0 <= event.new_score <= SCORE_MAX and -SCORE_MAX <= event.delta <= SCORE_MAX
            else _encode(_record_of(event))
            for event in events
        ]
    )  # fmt: skip


def balanced_record(event: Event, balance: bytes) -> bytes:
    """Encode the record of an event in a frame that was rewritten. `balance` are the last bytes of it."""
    assert len(balance) == BALANCE_BYTES
    return b"\x93\x13" + encode_events([event]) + b"\xc4\x04" + balance  # an array of three, 19, and four bytes


def decode_events(body: bytes, count: int, time_ms: int, seqs: Iterable[int]) -> list[Event]:
    """Decode the `count` records of a body. Raises `msgspec.DecodeError` or UnicodeDecodeError."""
    # With the header of a msgpack array before it, the body is one list: one call decodes and validates it.
    records = _decode(b"\xdd" + count.to_bytes(4, "big") + body)
    return [
        Incremented(
            seq,
            time_ms,
            record.board_id,
            record.user_id,
            record.action_id,
            record.delta,
            record.reason,
            record.caller,
            record.new_score,
        )
        if type(record) is _IncrementedRecord
        else _rare_event(seq, time_ms, record)
        for seq, record in zip(seqs, records, strict=True)
    ]


def _record_of(event: Event) -> tuple[object, ...]:
    """Give the fields of a record in the order of the format, its type first. An action says more than type 1 can."""
    if isinstance(event, Incremented):
        if not (0 <= event.new_score <= SCORE_MAX and -SCORE_MAX <= event.delta <= SCORE_MAX):
            raise ValueError(f"seq {event.seq} would make a score of {event.new_score}")
        for fed in event.fed:
            if not (0 <= fed.new_score <= SCORE_MAX and -SCORE_MAX <= fed.delta <= SCORE_MAX):
                raise ValueError(f"seq {event.seq} would make a score of {fed.new_score} on board {fed.board_id!r}")
        counted = (
            event.board_id, event.user_id, event.action_id, event.delta, event.reason, event.caller, event.new_score,
            event.value, event.chosen, event.fed,
        )  # fmt: skip
        return (16, *counted, event.held) if event.held else (6, *counted)
    if isinstance(event, ScoreImported):
        if not (0 <= event.value <= SCORE_MAX and 0 <= event.new_score <= SCORE_MAX):
            raise ValueError(f"seq {event.seq} would make a score of {event.new_score} from a row of {event.value}")
        return (
            15, event.board_id, event.user_id, event.value, event.new_score, event.reached_ms, event.import_id,
            event.row, event.caller,
        )  # fmt: skip
    if isinstance(event, UserPut):
        return (2, event.user_id, event.display_name, event.active, event.caller)
    if isinstance(event, ReviewDecided) and not event.scores and not event.periods:
        return (17, *msgspec.structs.astuple(event)[2:-2])
    if not isinstance(event, EpochBegun):
        return (_TYPES[type(event)], *msgspec.structs.astuple(event)[2:])
    if event.history:
        assert len(event.history) == HISTORY_BYTES
        return (5, event.epoch, event.note, event.history)
    return (3, event.epoch, event.note)


def _rare_event(seq: int, time_ms: int, record: _Record) -> Event:
    """Make the event of a record that is no plain increment, or of one in a frame that was rewritten."""
    if isinstance(record, _BalancedRecord):
        return _rare_event(seq, time_ms, record.record)
    if isinstance(record, _IncrementedRecord | _CountedRecord | _HeldRecord):
        return Incremented(seq, time_ms, *msgspec.structs.astuple(record))
    if isinstance(record, _ScoreImportedRecord):
        return ScoreImported(
            seq, time_ms, record.board_id, record.user_id, record.value, record.new_score, record.reached_ms,
            record.import_id, record.row, record.caller,
        )  # fmt: skip
    if isinstance(record, _UserPutRecord):
        return UserPut(seq, time_ms, record.user_id, record.display_name, record.active, record.caller)
    if isinstance(record, _HistoryBegunRecord):
        return EpochBegun(seq, time_ms, record.epoch, record.note, record.history)
    if isinstance(record, _EpochBegunRecord):
        return EpochBegun(seq, time_ms, record.epoch, record.note)
    event: Event = _SAME_FIELDS[type(record)](seq, time_ms, *msgspec.structs.astuple(record))
    return event
