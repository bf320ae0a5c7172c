"""What webhooks find in the log: remembered since the start, or read from it in bounded pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from engine.errors import NoLongerKept
from engine.events import BoardFrozen, Event, Incremented, PeriodChanged, UserErased
from engine.record import Frame, chain_start, pack_frame, unpack_frame
from engine.schedule import Period
from server.webhooks import rare_events
from server.webhooks.cursor import Due
from server.webhooks.rare_events import Found, RareEvents, Scan, event_of

DAY = Period("day", 0, 1)


def plain(seq: int) -> Event:
    return Incremented(seq, 1, "main", "ann", f"a{seq}", 10, "WIN", "backend", 10)


def ended(seq: int) -> Event:
    return PeriodChanged(seq, 1, "main", DAY, None, False, (), "")


def erased(seq: int) -> Event:
    return UserErased(seq, 1, "\x001", "\x001", "ops", b"")


class SomeLog:
    """A log of these frames. Those that begin before `first_seq` are gone."""

    blocks = False

    def __init__(self, *frames: list[Event], first_seq: int = 1) -> None:
        self.frames: list[Frame] = []
        self.read: list[int] = []
        self.first_seq = first_seq
        previous = chain_start(bytes(16))
        for events in frames:
            frame = unpack_frame(pack_frame(events, epoch=1, previous=previous))
            previous = frame.checksum
            self.frames.append(frame)

    def read_from(self, seq: int) -> Iterator[Frame]:
        """See `ReadableLog`."""
        if seq < self.first_seq:
            raise NoLongerKept(seq, self.first_seq)
        for frame in self.frames:
            if frame.last_seq >= seq:
                self.read.append(frame.first_seq)
                yield frame

    def event_at(self, seq: int) -> tuple[Frame, Any]:
        """See `ReadableLog`."""
        raise NoLongerKept(seq, self.first_seq)


FRAMES: list[list[Event]] = [
    [plain(1), plain(2)],
    [ended(3)],
    [plain(4)],
    [BoardFrozen(5, 1, "main", None, "ops"), erased(6)],
    [ended(7)],
    [plain(8)],
]


async def test_a_scan_finds_what_is_rare_up_to_an_event() -> None:
    """And nothing of before its beginning, or of after its end."""
    log = SomeLog(*FRAMES)
    found = await Scan(log, 1, 8).next()
    assert found.dues == [
        Due(3, 0, "period.ended", "main"), Due(6, 0, "user.erased"), Due(7, 0, "period.ended", "main"),
    ]  # fmt: skip
    assert (found.until_seq, found.lost) == (8, 0)
    found = await Scan(log, 4, 6).next()
    assert (found.dues, found.until_seq) == ([Due(6, 0, "user.erased")], 6)


async def test_a_scan_reads_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each goes on where the one before stopped, and reads no frame twice."""
    monkeypatch.setattr(rare_events, "SCANNED_FOUND_MAX", 1)
    log = SomeLog(*FRAMES)
    scan = Scan(log, 1, 8)
    found: list[Found] = []
    while not found or found[-1].until_seq < 8:
        found.append(await scan.next())
    assert [[due.seq for due in each.dues] for each in found] == [[3], [6], [7], []]
    assert log.read == [1, 3, 4, 5, 7, 8]


async def test_what_is_no_longer_kept_is_said_to_be_lost() -> None:
    """Reading goes on with the oldest event, if that is not beyond the end."""
    found = await Scan(SomeLog(*FRAMES, first_seq=5), 2, 8).next()
    assert ([due.seq for due in found.dues], found.until_seq, found.lost) == ([6, 7], 8, 5)
    found = await Scan(SomeLog(*FRAMES, first_seq=8), 2, 7).next()
    assert (found.dues, found.until_seq, found.lost) == ([], 7, 8)
    assert await event_of(SomeLog(first_seq=9), 3) is None


def test_places_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is further behind is sent to the log; whoever is not gets all of them."""
    monkeypatch.setattr(rare_events, "RARE_EVENTS_KEPT", 2)
    rare = RareEvents(2)
    assert rare.after(1) is None
    for seq in (3, 6, 7):
        rare.took([ended(seq)])
    assert rare.after(2) is None
    assert [due.seq for due in rare.after(3) or []] == [6, 7]
    assert [due.seq for due in rare.after(6) or []] == [7]
    rare.restart(9)
    assert rare.after(8) is None
    assert rare.after(9) == []
