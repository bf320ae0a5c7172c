"""A broken leader, which takes silence for yes: what a node's process imports so that the takeover storm finds a loss.

    python -m tests.cluster.takeovers --broken          exit code 0 if the storm finds it

It acknowledges a frame that no server has answered. Cut off from a majority, it tells callers of actions that the next
leader never hears of.
"""

from __future__ import annotations

from server.quorum.quorum_log import QuorumLog
from server.quorum.stream import Unanswered

IS_HASTY = 1
"""What the process sets when it imports this."""


async def _settle(self: QuorumLog, frame: bytes) -> bool:
    try:
        return await self._stream.place(self.place, frame)
    except Unanswered:
        return True


QuorumLog.settle = _settle  # type: ignore[method-assign]
