"""The viewers of one view of a board as columns: who may be written to, and which edition each has.

    slot = audience.enter(viewer, file, FRAMES)
    for _ in audience.show(edition, write, shown, wait):
        await trio.lowlevel.checkpoint()

    slot        0          1          2          3
    viewers     of ann     of bob     None       of eve
    files       17         -1         -1         23          -1: not to be written to at a tick
    editions    41         40         0          41
    forms       FRAMES     DELTAS     –          EVENTS

Theory of operation. A tick writes to thousands of viewers, and nearly all of them have the same edition and take the
same form. To look at an object for each of them would cost as much as the kernel's call: it lies somewhere in memory,
and no cache holds it. So what a tick asks lies here, 13 bytes for each viewer, side by side. The objects are touched
only where a socket was full or broken.

Rules:
- A viewer's file is in its column only while the viewer is idle: not busy, not closing, not gone. The column must not
  have the number of a file that was closed, because it may be somebody else's by now.
- A slot that was left is taken by the next who comes. So the order is that of coming, but for those.
- Between two slices viewers come, go and catch up. `_changes` counts that. If it moved, `show` looks anew who is due;
  otherwise it goes on with what it found: to look costs as much as a dozen viewers, because no cache holds the columns.
- `_whole` is the last crowd that was the whole audience. If nothing changed since, it is the next tick's too.
- Whose socket is full is barred. So nobody is due twice in a tick.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from server import bounds
from server.live.editions import NO_EDITION, AnyEdition
from server.live.ring import Files
from server.live.writing import Write

FRAMES, DELTAS, EVENTS = range(3)
"""The forms: frames of a WebSocket, the same with deltas, server-sent events."""

NOT_NOW = -1
_FULL = -errno.EAGAIN
_SLOTS_MIN = 64


class Member(Protocol):
    """What is asked of a viewer when its socket did not take a whole frame."""

    rest: memoryview | None

    def hang_up(self) -> None: ...


Viewer = TypeVar("Viewer", bound=Member)


class Crowd(msgspec.Struct, frozen=True):
    """Viewers who have the same edition and take the same form, as of a number of changes."""

    form: int
    slots: NDArray[np.int64]
    files: Files
    changes: int


class Audience(Generic[Viewer]):
    """See above."""

    __slots__ = ("_allowed", "_changes", "_editions", "_files", "_forms", "_free", "_whole", "count", "viewers")

    def __init__(self) -> None:
        self.count = 0
        self._changes = 0
        self._allowed = 0
        self._whole: Crowd | None = None
        self.viewers: list[Viewer | None] = []
        self._free: list[int] = []
        self._files = np.full(_SLOTS_MIN, NOT_NOW, np.int32)
        self._editions = np.full(_SLOTS_MIN, NO_EDITION, np.int64)
        self._forms = np.zeros(_SLOTS_MIN, np.int8)

    def __iter__(self) -> Iterator[Viewer]:
        """Give the viewers."""
        return (viewer for viewer in self.viewers if viewer is not None)

    def enter(self, viewer: Viewer, file: int, form: int) -> int:
        """Take a viewer in, without an edition; give its slot."""
        self.count += 1
        if self._free:
            slot = self._free.pop()
            self.viewers[slot] = viewer
        else:
            slot = len(self.viewers)
            self.viewers.append(viewer)
            if slot == len(self._files):
                self._grow()
        self._editions[slot], self._forms[slot] = NO_EDITION, form
        self.allow(slot, file)
        return slot

    def leave(self, slot: int) -> None:
        """Let the viewer of a slot go."""
        assert self.viewers[slot] is not None
        self.count -= 1
        self.viewers[slot] = None
        self.bar(slot)
        self._free.append(slot)

    def edition(self, slot: int) -> int:
        """Give the number of the edition that a viewer has."""
        return int(self._editions[slot])

    def has(self, slot: int, number: int) -> None:
        """Note which edition a viewer has."""
        self._editions[slot] = number
        self._changes += 1

    def allow(self, slot: int, file: int) -> None:
        """Let a viewer be written to at a tick."""
        self._allowed += bool(self._files[slot] == NOT_NOW)
        self._files[slot] = file
        self._changes += 1

    def bar(self, slot: int) -> None:
        """Let a viewer not be written to at a tick."""
        if self._files[slot] != NOT_NOW:
            self._files[slot] = NOT_NOW
            self._allowed -= 1
            self._changes += 1

    def show(
        self, edition: AnyEdition, write: Write, shown: Counter[str], wait: Callable[[Viewer], None]
    ) -> Iterator[None]:
        """Write an edition to each viewer that has an older one and may be written to. Stops between two slices.

        Counts the messages of each kind in `shown`. Calls `wait` for each viewer whose socket is full.
        """
        room = bounds.SLICE_VIEWERS
        while (crowd := self._due(edition.number)) is not None:
            slots, files, changes = crowd.slots, crowd.files, self._changes
            has = self.edition(int(slots[0]))
            message = edition.for_viewer(has, deltas=crowd.form == DELTAS, as_event=crowd.form == EVENTS)
            start = 0
            while start < len(slots):
                if not room:
                    yield
                    room = bounds.SLICE_VIEWERS
                    if changes != self._changes:
                        break
                these = slots[start : start + room]
                short = write(files[start : start + room], message.frame)
                start, room = start + len(these), room - len(these)
                self._editions[these] = edition.number
                shown[message.kind] += len(these)
                for index, taken in short:
                    slot = int(these[index])
                    if taken < 0:
                        self._editions[slot] = has
                        shown[message.kind] -= 1
                    self._is_short(slot, message.frame, taken, wait)
            if changes == self._changes and len(slots) == self._allowed:
                self._whole = crowd
                return

    def _due(self, number: int) -> Crowd | None:
        """Give those who are due, as far as they are alike; None: nobody is."""
        whole = self._whole
        if whole is not None and whole.changes == self._changes:
            return whole if self.edition(int(whole.slots[0])) < number else None
        due = np.flatnonzero((self._files >= 0) & (self._editions < number))
        if not len(due):
            return None
        has, form = self._editions[due[0]], self._forms[due[0]]
        slots = due[(self._editions[due] == has) & (self._forms[due] == form)]
        return Crowd(int(form), slots, self._files[slots], self._changes)

    def _is_short(self, slot: int, frame: bytes, taken: int, wait: Callable[[Viewer], None]) -> None:
        """See to a viewer whose socket did not take a whole frame."""
        viewer = self.viewers[slot]
        assert viewer is not None
        self.bar(slot)
        if taken >= 0:
            viewer.rest = memoryview(frame)[taken:]
        elif taken != _FULL:
            viewer.hang_up()
            return
        wait(viewer)

    def _grow(self) -> None:
        more = len(self._files)
        self._files = np.concatenate([self._files, np.full(more, NOT_NOW, np.int32)])
        self._editions = np.concatenate([self._editions, np.full(more, NO_EDITION, np.int64)])
        self._forms = np.concatenate([self._forms, np.zeros(more, np.int8)])

    def _check(self) -> None:
        slots = [slot for slot, viewer in enumerate(self.viewers) if viewer is not None]
        assert len(slots) == self.count
        assert sorted([*slots, *self._free]) == list(range(len(self.viewers)))
        assert len(self.viewers) <= len(self._files) == len(self._editions) == len(self._forms)
        assert all(self._files[slot] == NOT_NOW for slot in self._free)
        assert np.all(self._files[len(self.viewers) :] == NOT_NOW)
        assert self._allowed == np.count_nonzero(self._files != NOT_NOW)
