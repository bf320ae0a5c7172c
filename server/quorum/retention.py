"""Which places of the stream may be purged. Pure.

    first = purge_before(bounds, archived=place, keep_bytes=2**30, forget=0)     None: nothing to purge

Rules:
- Nothing is purged that two nodes do not have on their own disks (`archived`).
- The newest place always stays, so that the stream says where it ends.
- Beyond `keep_bytes` the oldest places go, as many as the excess is a part of the whole: frames are taken as equally
  long, so it takes a few rounds where they are not. A purge is worth it from an excess of EXCESS on.
- Places up to `forget` hold users who were erased. They go however little the stream holds.
"""

from __future__ import annotations

from server.quorum.stream import Bounds

EXCESS = 1 / 8


def purge_before(bounds: Bounds, *, archived: int, keep_bytes: int, forget: int) -> int | None:
    """Give the place that shall be the first one; None if it is that already, or is not worth it."""
    count = bounds.last - bounds.first + 1
    if count <= 1:
        return None
    first = bounds.first
    if bounds.bytes > keep_bytes * (1 + EXCESS):
        first += int(count * (bounds.bytes - keep_bytes) / bounds.bytes)
    first = min(max(first, forget + 1), archived + 1, bounds.last)
    return first if first > bounds.first else None
