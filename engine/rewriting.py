r"""Takes a user out of frames and segments that were written long ago, without a break in the chain. Pure.

    change = Forgetting({"ann": [(120, "\x001")]})            erased by the event 120, as number 1
    frame = rewrite_frame(frame, change)                       None: nothing of it is about these users
    content = rewrite_content(content, change)                 the same for a whole segment

Theory: the chain is made of checksums, not of bytes. A frame with other records and the same checksum is as good a link
as before: the next frame, segment headers, snapshots and replicas name it by this checksum. CRC32C finds accidents and
no intent, so four free bytes are enough to give any frame the checksum that it had (`engine.balance`). They stand in
the last record that was changed (`engine.event_records`, type 19). Rejected: writing the log anew with another chain.
All snapshots, replicas and backups would then be of another log.

Rules:
- A user is replaced by the pseudonym of the first erasure that follows the event. So whoever comes back after an
  erasure under the same id is another user, and may be erased as another one.
- Of the user's own records the name goes, and the digest stays for the actionId. The caller goes where it is the user.
- Every type of event says here who is in it. One that does not can't be rewritten (a test knows all types).
- Records of others keep their bytes. A rewritten frame is proved before it is given.
- Applying rewritten events gives the state that the original ones gave, from the erasure on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from engine.actions import key_of_logged
from engine.balance import BALANCE_BYTES, balance
from engine.erased import erased_action
from engine.event_records import balanced_record, encode_events
from engine.events import (
    BoardClosed,
    BoardFrozen,
    BoardPut,
    BoardUnfrozen,
    ClockCorrected,
    EpochBegun,
    Event,
    FlagPut,
    ImportBegun,
    Incremented,
    PeriodChanged,
    RanksNoted,
    Rescored,
    Reversed,
    ReviewDecided,
    RowsRevealed,
    ScoreImported,
    UserErased,
    UserPut,
)
from engine.record import HEADER_BYTES, SEGMENT_HEADER_BYTES, Frame, FrameFault, events_of, frame_bytes, unpack_frame

Who = Callable[[str], str]
"""Gives what stands for an id: the id itself, or a pseudonym."""

ErasedBy = tuple[int, str]
"""The seq of an erasure, and its pseudonym."""

_raws = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def _increment(event: Any, who: Who) -> Event:
    user_id, caller = who(event.user_id), who(event.caller)
    action_id = event.action_id if user_id == event.user_id else erased_action(key_of_logged(event.action_id))
    changed: Event = replace(event, user_id=user_id, action_id=action_id, caller=caller)
    return changed


def _user(event: Any, who: Who) -> Event:
    user_id, caller = who(event.user_id), who(event.caller)
    name = event.display_name if user_id == event.user_id else None
    changed: Event = replace(event, user_id=user_id, display_name=name, caller=caller)
    return changed


def _erasure(event: Any, who: Who) -> Event:
    changed: Event = replace(event, user_id=who(event.user_id), caller=who(event.caller))
    return changed


def _caller(event: Any, who: Who) -> Event:
    changed: Event = replace(event, caller=who(event.caller))
    return changed


def _reversal(event: Any, who: Who) -> Event:
    scores = tuple(replace(each, rows=_rows(each.rows, who)) for each in event.scores)
    periods = tuple(replace(each, rows=_rows(each.rows, who)) for each in event.periods)
    changed: Event = replace(event, caller=who(event.caller), scores=scores, periods=periods)
    return changed


def _rows(rows: tuple[Rescored, ...], who: Who) -> tuple[Rescored, ...]:
    return tuple(replace(row, user_id=who(row.user_id)) for row in rows)


def _nobody(event: Event, _who: Who) -> Event:
    return event


WHO_IS_IN: dict[type[Any], Callable[[Any, Who], Event]] = {
    Incremented: _increment,
    UserPut: _user,
    UserErased: _erasure,
    ScoreImported: _erasure,
    **dict.fromkeys((Reversed, ReviewDecided), _reversal),
    **dict.fromkeys(
        (BoardPut, BoardClosed, PeriodChanged, BoardFrozen, BoardUnfrozen, RowsRevealed, ImportBegun, FlagPut), _caller
    ),
    **dict.fromkeys((EpochBegun, ClockCorrected, RanksNoted), _nobody),
}
"""How each type of event is rewritten."""


def users_in(event: Event) -> set[str]:
    """Give whom an event names: users, and callers, who may be users."""
    found: set[str] = set()

    def note(user_id: str) -> str:
        found.add(user_id)
        return user_id

    WHO_IS_IN[type(event)](event, note)
    return found


SEARCHED_MAX = 16
"""Users whose bytes are searched for. To look for more takes longer than to decode the records, at 0.4 µs each."""


class Forgetting:
    """Replaces users by pseudonyms. `erasures` are those of each user, in the order of their seqs."""

    def __init__(self, erasures: Mapping[str, Sequence[ErasedBy]]) -> None:
        self._erasures = erasures
        self._needles = [user_id.encode() for user_id in erasures] if len(erasures) <= SEARCHED_MAX else [b""]

    def may_touch(self, data: bytes) -> bool:
        """Whether bytes of records may have one of the users: msgpack keeps the bytes of a string. Many may always."""
        return any(needle in data for needle in self._needles)

    def event(self, event: Event) -> Event:
        """Give the event without the users."""

        def who(user_id: str) -> str:
            for seq, pseudonym in self._erasures.get(user_id, ()):
                if event.seq <= seq:
                    return pseudonym
            return user_id

        return WHO_IS_IN[type(event)](event, who)


def rewrite_frame(frame: Frame, change: Forgetting) -> Frame | None:
    """Give the frame without the users, with the same checksum; None if it has nothing of them. Raises `FrameFault`."""
    if not change.may_touch(frame.body):
        return None
    events = events_of(frame)
    changed = {place: new for place, old in enumerate(events) if (new := change.event(old)) != old}
    if not changed:
        return None
    raws = _raws(b"\xdd" + frame.count.to_bytes(4, "big") + frame.body)
    records = [encode_events([changed[place]]) if place in changed else bytes(raw) for place, raw in enumerate(raws)]
    last = max(changed)
    records[last] = balanced_record(changed[last], bytes(BALANCE_BYTES))
    before = b"".join(records[: last + 1])
    whole = replace(frame, body=before + b"".join(records[last + 1 :]))
    covered, place = frame_bytes(whole)[8:], HEADER_BYTES - 8 + len(before) - BALANCE_BYTES
    records[last] = balanced_record(changed[last], balance(covered, place, frame.checksum))
    rewritten = replace(frame, body=b"".join(records))
    if unpack_frame(frame_bytes(rewritten)) != rewritten:  # also refuses a body that is too long
        raise AssertionError(f"the frame of seq {frame.first_seq} was rewritten wrongly")
    assert events_of(rewritten) == [changed.get(place, event) for place, event in enumerate(events)]
    return rewritten


def rewrite_content(content: bytes, change: Forgetting) -> bytes | None:
    """Give the content of a segment without the users, and without the zeros at its end; None if it has none of them.

    Raises `FrameFault` for anything but whole frames and zeros: what can't be read can't be rewritten.
    """
    if not change.may_touch(content):
        return None
    pieces = [content[:SEGMENT_HEADER_BYTES]]
    offset, is_changed = SEGMENT_HEADER_BYTES, False
    while offset < len(content):
        if content[offset : offset + HEADER_BYTES].strip(b"\x00") == b"":
            if content[offset:].strip(b"\x00"):
                raise FrameFault(f"there is something behind the last frame, after offset {offset}")
            break
        frame = unpack_frame(content, offset)
        end = offset + HEADER_BYTES + len(frame.body)
        rewritten = rewrite_frame(frame, change)
        pieces.append(content[offset:end] if rewritten is None else frame_bytes(rewritten))
        is_changed = is_changed or rewritten is not None
        offset = end
    return b"".join(pieces) if is_changed else None
