"""A stream that is purged at 64 KiB, looked at each second: what a node's process of the takeover storm imports.

The configuration allows 16 MiB at least, and no storm writes that. So standbys that were away for some seconds find
their places purged, and go on from another node's snapshot.

    leader.launch(…, constants={"tests.cluster.small_stream.KEEP_BYTES": 2**16})       importing it makes the change
"""

from __future__ import annotations

from server.node import stream_retention
from server.quorum.retention import purge_before
from server.quorum.stream import Bounds

KEEP_BYTES = 2**16
LOOK_SECONDS = 1.0


def _purge_before(bounds: Bounds, *, archived: int, keep_bytes: int, forget: int) -> int | None:
    return purge_before(bounds, archived=archived, keep_bytes=min(keep_bytes, KEEP_BYTES), forget=forget)


vars(stream_retention).update(purge_before=_purge_before, LOOK_SECONDS=LOOK_SECONDS)
