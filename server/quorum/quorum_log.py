"""The log of a quorum as its writer appends to it: a frame goes to the stream, then to this node's own log.

    log = QuorumLog(local, stream, patience_s=1.0); log.place = await place_of(stream, log.tail)
    synced = await log.append(log.tail.seq, frame)          a majority has it, and our own disk

    reserve space here → place on the stream, until it is known who has the place → write here, fdatasync → `Synced`

Invariants:
- Our own log is a prefix of the stream: a frame is written here only after it was read there, or was acknowledged.
  So no node of a quorum ever needs to be cut back.
- `place` is that of the last frame of our own log.
- **One frame is in flight.** Its place is settled before any other frame is packed. The stream checks the place, not
  the writer: of frames that were sent one after the other, later ones could follow another leader's frame.

Rules:
- A frame whose outcome is not known is sent again: the same bytes to the same place. It ends with its own bytes at the
  place, or with another frame there. Silence, however long, ends nothing.
- Nothing is sent that our own disk could refuse: its space is laid out before (`DiskFull`).
- After `patience_s` without an outcome, `on_doubt` is told why, and None once the outcome is known.
- If the place was purged meanwhile, our frame may have been there: it is in doubt before `LostPlace` is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from engine.errors import DiskFull, LostPlace
from engine.local_log import LocalLog
from engine.log import Log
from engine.log_facts import Synced
from engine.record import Frame, FrameFault, Tail, unpack_header
from engine.threads import run
from server.quorum.stream import PlacePurged, Stream, StreamRefused, Unanswered

NOWHERE = -1
"""The place of a log that was not looked for yet on the stream."""

RETRY_SECONDS = 0.05
"""The shortest wait before a frame is sent again; the longest is RETRY_SECONDS_MAX."""

RETRY_SECONDS_MAX = 0.5

QUORUM_FRAME_BYTES_MAX = 4 * 2**20 - 2**10
"""The longest frame: what every server must take (`server.quorum.nats_setup`), less the headers of a message."""

SHORT_ANSWERS_MAX = 20
"""So often in a row a stream may answer that it ends before what we have, before it is believed. A server that was cut
off says so too, until it hears of the others."""


def nobody(*_: object) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observers:
    """Who is told of appends. All are quick and do not raise.

    `on_doubt` gets why the frame in flight is in doubt, None when it no longer is. `on_placed` is called after each
    append with its seconds on the stream. `on_confirmed` gets the time, on Trio's clock, at which a frame was sent that
    a majority then took.
    """

    on_doubt: Callable[[str | None], None] = nobody
    on_placed: Callable[[float], None] = nobody
    on_confirmed: Callable[[float], None] = nobody


class QuorumLog:
    """See above. One task at a time appends or settles. `place` moves with what this node reads, too (`followed`)."""

    frame_bytes_max = QUORUM_FRAME_BYTES_MAX

    def __init__(self, local: Log, stream: Stream, *, patience_s: float) -> None:
        self.place = NOWHERE
        self.blocks = local.blocks
        self._local = local
        self._written = LocalLog(local)
        self._stream = stream
        self._patience_s = patience_s
        self._observers: list[Observers] = []

    def observe(self, observers: Observers) -> None:
        """Tell these of appends, too."""
        self._observers.append(observers)

    @property
    def is_located(self) -> bool:
        """Whether `place` is known."""
        return self.place != NOWHERE

    @property
    def tail(self) -> Tail:
        return self._local.tail

    @property
    def full(self) -> DiskFull | None:
        return self._local.full

    def make_room(self) -> None:
        """As `Log.make_room`."""
        self._local.make_room()

    def read_from(self, seq: int) -> Iterator[Frame]:
        """Give the frames of our own log, as `Log.read_from`. It has all that is applied here."""
        return self._local.read_from(seq)

    async def append(self, expected_seq: int, frame: bytes) -> Synced:
        """Have a majority take a frame, then write it here. Raises `LostPlace`, `DiskFull`, `WriteFailed`."""
        assert expected_seq == self.tail.seq
        await self.reserve(len(frame))
        begun_s = trio.current_time()
        if not await self.settle(frame):
            raise LostPlace(f"another frame is at place {self.place + 1} of the stream")
        seconds = trio.current_time() - begun_s
        with trio.CancelScope(shield=True):
            synced = await self._written.append(expected_seq, frame)
            self.place += 1
        for each in self._observers:
            each.on_placed(seconds)
        return Synced(synced.bytes, seconds + synced.seconds, frame)

    async def reserve(self, length: int) -> None:
        """Lay out the space for a frame on our own disk. Raises `DiskFull`, `WriteFailed`."""
        await run(partial(self._local.reserve, length), blocks=self.blocks)

    def followed(self, frames: Sequence[bytes]) -> None:
        """Note that the first of these frames, which come after our place, are written here: those up to `tail`."""
        for frame in frames:
            try:
                last_seq = unpack_header(frame).last_seq
            except FrameFault:
                return
            if last_seq > self.tail.seq:
                return
            self.place += 1

    async def settle(self, frame: bytes) -> bool:
        """Send a frame to the place after ours until it is known who has it; tell whether it is this frame.

        Raises `StreamRefused` if the stream can't be this log's.
        """
        begun_s = trio.current_time()
        doubted, short, wait_s = False, 0, RETRY_SECONDS
        why = "the log's servers gave no answer"
        try:
            while True:
                sent_s = trio.current_time()
                try:
                    if await self._stream.place(self.place, frame):
                        self._confirmed(sent_s)
                        return True
                    there = await self._stream.read(self.place + 1, 1)
                    if there:
                        return there[0] == frame
                    short = short + 1 if await self._ends_early() else 0
                    if short >= SHORT_ANSWERS_MAX:
                        raise _too_short(self.place)
                except PlacePurged:
                    self._doubt("its place on the stream is purged")
                    doubted = True
                    return False
                except Unanswered as unanswered:
                    short, why = 0, str(unanswered)
                if trio.current_time() - begun_s >= self._patience_s:
                    self._doubt(why)
                    doubted = True
                await trio.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_SECONDS_MAX)
        finally:
            if doubted:
                self._doubt(None)

    async def _ends_early(self) -> bool:
        bounds = await self._stream.bounds()
        return bounds.last < self.place

    def _doubt(self, why: str | None) -> None:
        for each in self._observers:
            each.on_doubt(why)

    def _confirmed(self, sent_s: float) -> None:
        for each in self._observers:
            each.on_confirmed(sent_s)


def _too_short(place: int) -> StreamRefused:
    return StreamRefused(
        f"the stream ends before place {place}, which this node has: it lost frames, or is another one",
        key="quorum.stream",
        remedy="Restore the stream's servers, or move this log to a new stream: scoreboard quorum import --help",
    )
