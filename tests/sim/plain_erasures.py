"""The erasures of the plain model: who was erased when, and how a log reads once it was rewritten for them.

    erasures.take(event, actions)          a `UserErased`, with the user's own id
    erasures.forgotten(event)              the event as a log has it that was rewritten for all of them
    erasures.forgotten(event, seq)         the same for those up to a seq

What was written before an erasure has the pseudonym instead of the user, wherever the id stands. An action of the user
has a digest for its actionId, and a registration no name. This is done here by looking into every field of an event,
and in `engine.rewriting` by a table of the types of events.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from engine.actions import key_of
from engine.board_rules import BoardRules
from engine.erased import unpack_seqs
from engine.events import Event, Incremented, UserErased
from engine.limits import SEQ_MAX


class PlainErasures:
    """See above. `actions` has the actions of erased users, by their seqs, with the seq of the erasure."""

    def __init__(self) -> None:
        self.count = 0
        self.last_seq = 0
        self.actions: dict[int, int] = {}
        self.left_out: dict[int, int] = {}
        """For each erasure the last action of the user that it does not name: the log no longer had it."""
        self._by_user: dict[str, list[tuple[int, str]]] = {}

    @property
    def users(self) -> list[str]:
        """List who was ever erased."""
        return sorted(self._by_user)

    def erased_at(self, user: str) -> int:
        """Give the seq of the last erasure of a user, 0 if there was none."""
        return self._by_user[user][-1][0] if user in self._by_user else 0

    def take(self, event: UserErased, actions: Iterable[Incremented]) -> None:
        """Take an erasure. `actions` are all that were ever applied."""
        user = event.user_id
        assert event.pseudonym == f"\0{self.count + 1}", f"seq {event.seq} is the erasure number {self.count + 1}"
        theirs = [each.seq for each in actions if each.user_id == user and each.seq > self.erased_at(user)]
        named = unpack_seqs(event.actions)
        left_out = theirs[: len(theirs) - len(named)]
        assert left_out + named == theirs, f"seq {event.seq} names the actions {named}, {user} has {theirs}"
        self.left_out[event.seq] = max(left_out, default=0)
        self.actions |= dict.fromkeys(named, event.seq)
        self._by_user.setdefault(user, []).append((event.seq, event.pseudonym))
        self.count, self.last_seq = self.count + 1, event.seq

    def forgotten(self, event: Event, last_seq: int = SEQ_MAX) -> Event:
        """Give an event as a log has it that was rewritten for all erasures up to `last_seq`."""
        if not self.count:
            return event
        user = getattr(event, "user_id", None)
        changed: Any = _renamed(event, lambda text: self._name(text, event.seq, last_seq))
        if getattr(changed, "user_id", None) != user:
            if isinstance(event, Incremented):
                digest = urlsafe_b64encode(key_of(event.action_id)).rstrip(b"=").decode()
                changed = replace(changed, action_id=f"\0{digest}")
            elif hasattr(changed, "display_name"):
                changed = replace(changed, display_name=None)
        return changed  # type: ignore[no-any-return]

    def are_same(self, found: Sequence[Event], events: Sequence[Event]) -> bool:
        """Whether events of a log are these, perhaps rewritten for some of the erasures or for all."""
        if not self.count:
            return found == events
        return [*map(self.forgotten, found)] == [*map(self.forgotten, events)]

    def back(self, events: Sequence[Event]) -> list[str]:
        """List the erased users whom something was written of since."""
        last = {user: self.erased_at(user) for user in self._by_user}
        return [user for user, seq in last.items() if any(f"'{user}'" in repr(event) for event in events[seq:])]

    @property
    def seqs(self) -> list[int]:
        """List the seqs of all erasures, in order."""
        return sorted(seq for each in self._by_user.values() for seq, _ in each)

    def _name(self, text: str, seq: int, last_seq: int) -> str:
        erasures = self._by_user.get(text, ())
        return next((pseudonym for erased_seq, pseudonym in erasures if seq <= erased_seq <= last_seq), text)


def _renamed(value: Any, name: Any) -> Any:
    """Replace texts, however deep they are. Rules of boards name no users."""
    if isinstance(value, str):
        return name(value)
    if isinstance(value, tuple):
        return tuple(_renamed(each, name) for each in value)
    if isinstance(value, msgspec.Struct) and not isinstance(value, BoardRules):
        fields = {field: getattr(value, field) for field in value.__struct_fields__}
        changed = {field: new for field, old in fields.items() if (new := _renamed(old, name)) != old}
        return replace(value, **changed) if changed else value
    return value


def names(data: bytes, user: str) -> bool:
    """Whether bytes name a user. A longer id does not.

    Before a short text MessagePack has a byte with its length. So a shorter id is another one whatever follows it.
    """
    sought = user.encode()
    for match in re.finditer(re.escape(sought) + rb"(?![0-9])", data):
        before = data[match.start() - 1] if match.start() else 0
        if not 0xA0 <= before <= 0xBF or before == 0xA0 | len(sought):
            return True
    return False
