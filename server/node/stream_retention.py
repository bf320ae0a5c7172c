"""The retention of a quorum's stream: the leader purges what two nodes have on their own disks.

Rule: what `server.quorum.retention` says goes, now and then. Frames that name users who were erased go as soon as the
files of this node have forgotten them.
"""

from __future__ import annotations

from contextlib import suppress

import structlog
import trio

from server.node.erasure_keeper import ErasureKeeper
from server.node.surroundings import Surroundings
from server.quorum.peers import Peers
from server.quorum.places import last_at
from server.quorum.quorum_log import QuorumLog
from server.quorum.retention import purge_before
from server.quorum.stream import Bounds, PlacePurged, Stream, Unanswered

log = structlog.get_logger()

LOOK_SECONDS = 10.0


class StreamRetention:
    """See above. `bounds` are those of the last look, None before the first."""

    def __init__(
        self, world: Surroundings, stream: Stream, log_: QuorumLog, peers: Peers, erasures: ErasureKeeper
    ) -> None:
        self.bounds: Bounds | None = None
        self._keep_bytes = world.config.quorum.stream_keep_bytes
        self._stream = stream
        self._log = log_
        self._peers = peers
        self._erasures = erasures
        self._forgot_seq = 0

    async def run(self) -> None:
        """Look and purge until cancelled."""
        while True:
            with suppress(Unanswered, PlacePurged):
                await self.look()
            await trio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look once. Raises `Unanswered`, `PlacePurged`, `StreamRefused`."""
        self.bounds = bounds = await self._stream.bounds()
        erased_seq = 0 if len(self._erasures.unsettled) else self._erasures.rewritten_seq
        forget = await last_at(self._stream, erased_seq) if erased_seq > self._forgot_seq else 0
        archived = self._peers.archived(self._log.place, trio.current_time())
        first = purge_before(bounds, archived=archived, keep_bytes=self._keep_bytes, forget=forget)
        if first is not None:
            await self._stream.purge(first)
            log.info("stream_purged", first=first, last=bounds.last, bytes=bounds.bytes)
        if forget < (first or bounds.first):
            self._forgot_seq = erased_seq
