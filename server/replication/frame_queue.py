"""The frame queue between a follower's socket and its replica, and the check of digests at marks.

Rules:
- Frames and marks are taken in the order in which they came: a mark stands between two frames.
- The queue is bounded by bytes. A full queue stops reading from the socket, so TCP makes the leader wait.
- At a mark our state is captured, between the same two frames as the leader's. Its digests are computed in a thread,
  and nothing waits for them. They are compared when the leader's are here too.
- One check at a time, because each holds a copy of 24 bytes a user. A mark that comes meanwhile is left out.
"""

from __future__ import annotations

from collections import deque
from functools import partial

import trio

from engine.image import StateImage
from engine.threads import run
from server import bounds
from server.replication.failure import FollowingFailed
from server.replication.messages import Digest, Mark
from server.replication.replicas import Replica
from snapshots.digests import StateDigests, difference, digests_of


class FrameQueue:
    """What was received and not taken yet, in order."""

    def __init__(self) -> None:
        self._waiting: deque[bytes | Mark | Digest] = deque()
        self._bytes = 0
        self._changed = trio.lowlevel.ParkingLot()

    async def put(self, what: bytes | Mark | Digest) -> None:
        """Add a frame or a message. Waits while INTAKE_BYTES or more are queued."""
        while self._bytes >= bounds.INTAKE_BYTES:
            await self._changed.park()
        self._waiting.append(what)
        self._bytes += len(what) if isinstance(what, bytes) else 0
        self._changed.unpark_all()

    async def take(self) -> tuple[list[bytes], Mark | Digest | None]:
        """Take all frames up to the first message, and the message. Waits while the queue is empty."""
        while not self._waiting:
            await self._changed.park()
        frames: list[bytes] = []
        said: Mark | Digest | None = None
        while self._waiting and said is None:
            what = self._waiting.popleft()
            if isinstance(what, bytes):
                frames.append(what)
                self._bytes -= len(what)
            else:
                said = what
        self._changed.unpark_all()
        return frames, said


class DigestCheck:
    """Compares the digests of our state with the leader's, one mark at a time."""

    def __init__(self, replica: Replica, nursery: trio.Nursery, blocks: bool) -> None:
        self._replica = replica
        self._nursery = nursery
        self._blocks = blocks
        self._seq: int | None = None
        self._ours: StateDigests | None = None
        self._theirs: StateDigests | None = None
        self._computing = False

    def mark(self, seq: int) -> None:
        """Capture our state, which must be at this seq. Raises `FollowingFailed`."""
        scoreboard = self._replica.scoreboard
        if scoreboard.seq != seq:
            what = f"the leader marked seq {seq} where this replica is at seq {scoreboard.seq}: frames are missing"
            raise FollowingFailed(what, epoch=scoreboard.epoch, seq=scoreboard.seq)
        if not self._computing:
            self._seq, self._ours, self._theirs = seq, None, None
            self._computing = True
            self._nursery.start_soon(self._compute, scoreboard.capture())

    def theirs(self, seq: int, digests: StateDigests) -> None:
        """Take the leader's digests. Raises `FollowingFailed` if ours differ."""
        if seq == self._seq:
            self._theirs = digests
            self._compare()

    async def _compute(self, image: StateImage) -> None:
        self._ours = await run(partial(digests_of, image), blocks=self._blocks, abandon_on_cancel=True)
        self._computing = False
        self._compare()

    def _compare(self) -> None:
        if self._ours is None or self._theirs is None:
            return
        shard = self._replica.shard
        differs = difference(self._ours, self._theirs, None if shard is None else shard.holds)
        if differs is not None:
            what = f"the state is not the leader's: at seq {self._seq} {differs} differ"
            raise FollowingFailed(what, epoch=self._replica.scoreboard.epoch, seq=self._replica.scoreboard.seq)
