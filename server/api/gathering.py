"""What a reversal needs of the log: the actions that it names, and all that their users did since. For a worker thread.

    actions = actions_at(log, seqs)                             the events of actions, by seq
    actions = actions_within(log, asked, held)                  those of a user or a caller
    recount = recount_of(log, actions, again=False, from_seq=1)          all that their users did, to the end of the log

The log is read while it is written. The recount says up to which seq it went, and the writer adds the rest
(`engine.recount`).

Rules:
- A frame is decoded only if its bytes have the id of a user or caller that is looked for: most have not.
- At most REVERSAL_ACTIONS_MAX actions: the event that says all of them must not stop the loop for long. The refusal
  says where to stop.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Protocol

from engine.errors import NoLongerKept
from engine.events import Event, Incremented
from engine.record import Frame, events_of
from engine.recount import Recount
from server import bounds
from server.api.reversal_forms import Asked
from server.http.messages import Refused, invalid

USERS_SOUGHT = 50
"""Up to this number of users are sought in the bytes of a frame. For more it is quicker to decode it."""


class GatheredLog(Protocol):
    """The log, as far as it is needed here."""

    def event_at(self, seq: int) -> tuple[Frame, Event]: ...

    def read_from(self, seq: int) -> Iterator[Frame]: ...


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


def actions_within(log: GatheredLog, asked: Asked, held: Container[int]) -> dict[int, Incremented]:
    """Read the actions of a user or a caller within a range that count. Raises `Refused` if they are too many."""
    sought = (asked.user_id if asked.user_id is not None else asked.caller or "").encode()
    first, frames = read_kept(log, asked.within.from_seq)
    if first > asked.within.from_seq > 1:
        message = f"The log is kept from seq {first} on."
        raise Refused(409, "CONFLICT", message, {"field": "from", "seq": first})
    found: dict[int, Incremented] = {}
    for frame in frames:
        if frame.first_seq > asked.within.to_seq:
            break
        if sought not in frame.body:
            continue
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


def recount_of(log: GatheredLog, actions: Mapping[int, Incremented], *, again: bool, from_seq: int) -> Recount:
    """Count all that the users of these actions did, from a seq up to the end of the log."""
    first, frames = read_kept(log, from_seq)
    recount = Recount(actions, again=again, seq=first - 1, log_begins=first)
    users = {user_id.encode() for user_id in recount.users}
    for frame in frames:
        if len(users) > USERS_SOUGHT or any(user in frame.body for user in users):
            for event in events_of(frame):
                if event.seq >= first:
                    recount.take(event)
        recount.seq = max(recount.seq, frame.last_seq)
    return recount
