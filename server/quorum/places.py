"""Where a log stands on the stream: the place of the frame that ends at its tail.

    place = await place_of(stream, tail)          0 if the log is where the stream begins

Frames carry their seqs, so bisection finds a place; nothing on disk has to remember it. The frame must be the log's
own, checksum and all: otherwise the directory is of another history, and nothing of it is used.
"""

from __future__ import annotations

from engine.record import FrameFault, Header, Tail, unpack_header
from server.quorum.stream import Bounds, PlacePurged, Stream, StreamRefused, Unanswered


async def place_of(stream: Stream, tail: Tail) -> int:
    """Find the place of the frame that ends at `tail`.

    Raises `PlacePurged` if the stream no longer holds what follows, `StreamRefused` if the log is not the stream's,
    `Unanswered` also if the stream ends before `tail`: a server that was cut off may say so for a while.
    """
    origin = stream.origin.tail
    if tail.log_id != origin.log_id:
        what = f"the log of this directory is {tail.log_id.hex()}, and the stream's is {origin.log_id.hex()}"
        raise StreamRefused(what, key="quorum.stream", remedy="Name the stream of this log, or use another directory.")
    bounds = await stream.bounds()
    if tail.seq <= origin.seq:
        if tail.seq < origin.seq or bounds.first > 1:
            raise PlacePurged(1 if tail.seq == origin.seq else 0, bounds.first)
        _check_own(origin.checksum, tail)
        return 0
    if bounds.last < bounds.first:
        raise Unanswered(_ends_before(origin.seq, tail))
    oldest = await _header_at(stream, bounds.first)
    if oldest.first_seq > tail.seq + 1:
        raise PlacePurged(bounds.first - 1, bounds.first)
    if oldest.first_seq == tail.seq + 1:
        _check_own(oldest.previous, tail)
        return bounds.first - 1
    place, header = await _holding(stream, bounds, tail.seq)
    if header.last_seq < tail.seq and place == bounds.last:
        raise Unanswered(_ends_before(header.last_seq, tail))
    _check_own(header.checksum if header.last_seq == tail.seq else None, tail)
    return place


async def last_at(stream: Stream, seq: int) -> int:
    """Give the last place whose frame ends at `seq` or before; one before the first place if none does."""
    bounds = await stream.bounds()
    if bounds.last < bounds.first or (await _header_at(stream, bounds.first)).last_seq > seq:
        return bounds.first - 1
    place, header = await _holding(stream, bounds, seq)
    return place if header.last_seq <= seq else place - 1


async def _holding(stream: Stream, bounds: Bounds, seq: int) -> tuple[int, Header]:
    """Bisect for the last place whose frame begins at `seq` or before. The first place does."""
    low, high = bounds.first, bounds.last
    while low < high:
        middle = (low + high + 1) // 2
        if (await _header_at(stream, middle)).first_seq <= seq:
            low = middle
        else:
            high = middle - 1
    return low, await _header_at(stream, low)


async def _header_at(stream: Stream, place: int) -> Header:
    frames = await stream.read(place, 1)
    if not frames:
        raise Unanswered(f"the stream has no place {place}, as far as its server knows")
    try:
        return unpack_header(frames[0])
    except FrameFault as fault:
        raise StreamRefused(f"what is at place {place} of the stream is no frame of a log: {fault}") from fault


def _ends_before(seq: int, tail: Tail) -> str:
    return f"the stream ends at seq {seq}, as far as its server knows, and this node at seq {tail.seq}"


def _check_own(checksum: int | None, tail: Tail) -> None:
    if checksum != tail.checksum:
        what = f"the stream has another history than this directory, which ends at epoch {tail.epoch}, seq {tail.seq}"
        remedy = "Move the directory aside, and start with an empty one: it is filled from the other nodes."
        raise StreamRefused(what, key="quorum.stream", remedy=remedy)
