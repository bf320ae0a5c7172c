"""What a reversal needs of the log: the actions that it names, and all that their users did since. For a worker thread.

    actions = actions_at(log, seqs)                                the events of actions, by seq
    actions = actions_of_user(ledger, asked, held, until_seq)      those of a user
    actions = actions_of_caller(log, asked, held)                  those of a caller
    actions = actions_of_review(log, ledger, adds, held)           what the decision of a review concerns
    recount = recount_of(ledger, actions, again=False, from_seq=1, until_seq=4711)      all that their users did

The log is read while it is written. The recount says up to which seq it went, and the writer adds the rest
(`engine.recount`).

Rules:
- Users are found by the indexes of sealed segments (`engine.user_frames`). Callers have no index: a frame is decoded
  only if its bytes have the caller.
- At most REVERSAL_ACTIONS_MAX actions: the event that says all of them must not stop the loop for long. The refusal
  says where to stop.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from typing import Protocol

from engine.errors import NoLongerKept
from engine.events import Event, Incremented
from engine.limits import SEQ_MAX
from engine.record import Frame, events_of
from engine.recount import Adds, Recount
from server import bounds
from server.api.dependencies import LedgerReader
from server.api.reversal_forms import Asked
from server.http.messages import Refused, invalid


class GatheredLog(Protocol):
    """The log, as far as it is needed here."""

    def event_at(self, seq: int) -> tuple[Frame, Event]: ...

    def read_from(self, seq: int) -> Iterator[Frame]: ...


class GatheredLedger(Protocol):
    """The ledger, as far as it is needed here."""

    @property
    def oldest_seq(self) -> int: ...

    def frames_of(self, users: Collection[str], *, from_seq: int, until_seq: int) -> Iterator[Frame]: ...


def read_kept(log: GatheredLog, seq: int) -> tuple[int, Iterator[Frame]]:
    """Give the first seq that is kept, at least this one, and the frames from it on."""
    try:
        frames = log.read_from(seq)
        first = next(frames, None)
    except NoLongerKept as gone:
        return read_kept(log, gone.first_seq)

    def whole() -> Iterator[Frame]:
        if first is not None:
            yield first
            yield from frames

    return seq, whole()


def actions_at(log: GatheredLog, seqs: Sequence[int]) -> dict[int, Incremented]:
    """Read the events of actions by their seqs. Raises `Refused` if the log no longer has one."""
    found: dict[int, Incremented] = {}
    for seq in seqs:
        try:
            _, event = log.event_at(seq)
        except NoLongerKept as gone:
            message = f"The log no longer has the action of seq {seq}; it is kept from seq {gone.first_seq} on."
            raise Refused(409, "CONFLICT", message, {"field": "actionIds", "seq": seq}) from gone
        if not isinstance(event, Incremented):
            raise invalid("actionIds", "One of actionIds is that of a reversal. Name a reversal alone.", seq=seq)
        found[seq] = event
    return found


def actions_of_user(
    ledger: GatheredLedger, asked: Asked, held: Container[int], until_seq: int
) -> dict[int, Incremented]:
    """Read the actions of a user within a range that count, up to a seq. Raises `Refused` if they are too many."""
    assert asked.user_id is not None
    first = max(asked.within.from_seq, ledger.oldest_seq)
    _check_kept(asked, first)
    until_seq = min(asked.within.to_seq, until_seq)
    return _chosen(ledger.frames_of({asked.user_id}, from_seq=first, until_seq=until_seq), asked, held)


def actions_of_caller(log: GatheredLog, asked: Asked, held: Container[int]) -> dict[int, Incremented]:
    """Read the actions that a caller sent within a range and that count. Raises `Refused` if they are too many."""
    assert asked.caller is not None
    sought = asked.caller.encode()
    first, frames = read_kept(log, asked.within.from_seq)
    _check_kept(asked, first)
    return _chosen((frame for frame in frames if sought in frame.body), asked, held)


def _check_kept(asked: Asked, first: int) -> None:
    if first > asked.within.from_seq > 1:
        message = f"The log is kept from seq {first} on."
        raise Refused(409, "CONFLICT", message, {"field": "from", "seq": first})


def _chosen(frames: Iterator[Frame], asked: Asked, held: Container[int]) -> dict[int, Incremented]:
    found: dict[int, Incremented] = {}
    for frame in frames:
        if frame.first_seq > asked.within.to_seq:
            break
        for event in events_of(frame):
            if isinstance(event, Incremented) and _matches(event, asked) and event.seq not in held:
                if len(found) == bounds.REVERSAL_ACTIONS_MAX:
                    most, last = bounds.REVERSAL_ACTIONS_MAX, max(found)
                    message = (
                        f"More than {most} actions match. Reverse them in parts: the first part ends at seq {last}."
                    )
                    raise invalid("to", message, maximum=most, seq=last)
                found[event.seq] = event
    return found


def _matches(event: Incremented, asked: Asked) -> bool:
    mine = event.user_id == asked.user_id if asked.user_id is not None else event.caller == asked.caller
    return mine and asked.within.holds(event.seq, event.time_ms)


def actions_of_review(
    log: GatheredLog, ledger: LedgerReader, adds: Adds, held: Sequence[int]
) -> dict[int, Incremented]:
    """Read what a decision concerns of a user: what is held, and with `since_ms` what came since then.

    Raises `Refused` if the log no longer has all of it, or if it is too much for one event.
    """
    found: dict[int, Incremented] = {}
    first = held[0] if held else SEQ_MAX
    since_ms = SEQ_MAX if adds.since_ms is None else adds.since_ms
    is_whole = (oldest := ledger.oldest_seq) == 1
    for _, event in ledger.events_of(adds.user_id):
        if event.seq < first and event.time_ms < since_ms:
            is_whole = True
            break
        if isinstance(event, Incremented) and adds.wants(event):
            found[event.seq] = event
            if len(found) > 2 * bounds.REVERSAL_ACTIONS_MAX:
                raise _too_many(adds)
    if not is_whole:
        is_whole = first >= oldest and log.event_at(oldest)[1].time_ms < since_ms
    if not is_whole:
        message = f"The log no longer has all actions of this decision: it begins at seq {oldest}."
        raise Refused(409, "CONFLICT", message, {"field": "reviewId", "seq": oldest})
    return found


def _too_many(adds: Adds) -> Refused:
    most = bounds.REVERSAL_ACTIONS_MAX
    message = f"More than {most} actions of this user are concerned: take the oldest back by POST /reversals first."
    return Refused(409, "CONFLICT", message, {"field": "decision", "maximum": most, "boardId": adds.board_id})


def recount_of(
    ledger: GatheredLedger, actions: Mapping[int, Incremented], *, again: bool, from_seq: int, until_seq: int,
    adds: Adds | None = None,
) -> Recount:  # fmt: skip
    """Count all that the users of these actions did, from one seq up to another."""
    first = max(from_seq, ledger.oldest_seq)
    recount = Recount(actions, again=again, seq=first - 1, log_begins=first, adds=adds)
    if recount.users:
        for frame in ledger.frames_of(recount.users, from_seq=first, until_seq=until_seq):
            for event in events_of(frame):
                if first <= event.seq <= until_seq:
                    recount.take(event)
    recount.seq = max(recount.seq, until_seq)
    return recount
