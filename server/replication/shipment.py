"""A shipment: everything that one link to a follower is sent, in order.

    shipment = Shipment(log, feed, marks, node, readers, link, hello, lease, timing, clock_ms)
    await shipment.run()

    ┌─► due? heartbeat, mark, digest
    │   frames in the ring? send them in one write, then pause
    │   behind the ring? read on from the log, in a worker thread
    └── else wait for news, or for the next heartbeat

Rules:
- Frames that are ready go out in one write. After a write that was not full comes a pause of SHIP_SECONDS, in which the
  next frames gather. So the cost of a follower hardly grows with the load.
- A mark is sent exactly where the state was captured. A link that has passed that place leaves it out.
- A relay's heartbeat has the age of the leader's last word, and goes out as soon as there is a newer word. So followers
  measure the age from the leader, and a long chain of relays adds little to it.
- A follower with a shard gets filtered frames (`engine.filtered_frame`), chained from the welcome on.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from functools import partial
from typing import Protocol

import msgspec
import trio

from engine.errors import NoLongerKept
from engine.events import Event
from engine.filtered_frame import link_start, pack_filtered
from engine.history import EpochMark
from engine.record import Frame, Tail, chain_start, frame_bytes, unpack_frame
from engine.threads import run
from server import bounds
from server.access.key_exchange import SharedKey
from server.access.lease import Lease
from server.replication import messages
from server.replication.feed import FrameFeed
from server.replication.link import Link, LinkTiming
from server.replication.messages import Hello, NodeRef, SnapshotNeeded, encode
from server.replication.sharding import Shard

pause = trio.sleep
"""The pause of a shipment between two writes."""


class ReadableLog(Protocol):
    """What is needed of a log. `blocks`: reading waits for a disk."""

    tail: Tail

    @property
    def blocks(self) -> bool: ...

    def read_from(self, seq: int) -> Iterator[Frame]:
        """Give the durable frames from the one that holds `seq` on."""

    def event_at(self, seq: int) -> tuple[Frame, Event]: ...


class Marks(Protocol):
    """What is needed of a scoreboard."""

    @property
    def mark(self) -> EpochMark: ...

    def mark_of(self, epoch: int) -> EpochMark | None: ...


class NodeInfo(msgspec.Struct, frozen=True):
    """What we tell followers about this node.

    `relays`: it is a replica too. `path` goes from this node to the leader, as far as that is known. `word_s` is when
    the leader's last word was sent, on Trio's clock, None on a leader. `leader_seq` is how far its log reached then.
    `unfit` says why this node can't be followed, "" if it can. `leader_url` is our leader's address, ours on a leader.
    `key` is what is told of the key of tokens (`server.access.key_exchange`).
    """

    name: str = ""
    public_url: str | None = None
    relays: bool = False
    path: tuple[NodeRef, ...] = ()
    word_s: float | None = None
    leader_seq: int = 0
    unfit: str = ""
    leader_url: str | None = None
    key: SharedKey = SharedKey()

    @property
    def age_ms(self) -> int:
        return 0 if self.word_s is None else max(0, round(1000 * (trio.current_time() - self.word_s)))


class Expired(Exception):
    """The token of a link is no longer good."""


class Shipment:
    """Sends everything on one link, in order. `seq` is the last event that was sent."""

    def __init__(
        self,
        log: ReadableLog,
        feed: FrameFeed,
        marks: Marks,
        node: Callable[[], NodeInfo],
        readers: trio.Semaphore,
        link: Link,
        hello: Hello,
        lease: Lease,
        timing: LinkTiming,
        clock_ms: Callable[[], int],
    ) -> None:
        self.seq = hello.after
        self._lease = lease
        self._log = log
        self._feed = feed
        self._marks = marks
        self._node = node
        self._told_word_s = node().word_s or 0.0
        self._readers = readers
        self._link = link
        self._shard = hello.shard
        self._heartbeat_seconds = timing.heartbeat_seconds
        self._clock_ms = clock_ms
        self._heartbeat_at = trio.current_time() + timing.heartbeat_seconds
        start = chain_start(log.tail.log_id) if hello.checksum is None else hello.checksum
        self._filter_link = link_start(start)
        self._marked: dict[int, bool] = {}  # marks that were sent, and whether their digests were

    async def run(self) -> None:
        """Send until the link ends, or the next frames are no longer kept. Raises `Expired`."""
        try:
            while True:
                await self._send_due()
                ready = self._feed.ready_after(self.seq, bounds.SHIP_BYTES)
                if ready:
                    await self._ship([entry.data for entry in ready], ready[-1].last_seq)
                    if sum(len(entry.data) for entry in ready) < bounds.SHIP_BYTES // 2:
                        await pause(bounds.SHIP_SECONDS)
                elif self.seq < self._feed.seq:
                    await self._catch_up()
                else:
                    await self._wait()
        except NoLongerKept as gone:
            await self._link.send(encode(SnapshotNeeded(f"seq {self.seq + 1} is no longer kept here", gone.first_seq)))

    async def _wait(self) -> None:
        with trio.move_on_at(min(self._heartbeat_at, trio.current_time() + bounds.LEASE_CHECK_SECONDS)):
            await self._feed.wait_news()

    async def _send_heartbeat(self) -> None:
        """Send one if it is due: after `heartbeat_seconds`, and on a relay after a newer word of the leader."""
        now_s, node = trio.current_time(), self._node()
        word_s = now_s if node.word_s is None else node.word_s
        newer = node.word_s is not None and word_s - self._told_word_s >= self._heartbeat_seconds / 2
        if now_s < self._heartbeat_at and not newer:
            return
        self._heartbeat_at, self._told_word_s = now_s + self._heartbeat_seconds, word_s
        tail, mark = self._log.tail, self._marks.mark
        leader_seq = max(tail.seq, node.leader_seq)
        heartbeat = messages.Heartbeat(
            mark.epoch, tail.seq, self._clock_ms(), mark.first_seq, mark.history, node.path, node.age_ms, leader_seq
        )
        await self._link.send(encode(heartbeat))

    async def _send_due(self) -> None:
        """Send what is due between two frames."""
        if self._lease.ended():
            raise Expired
        await self._send_heartbeat()
        marks = self._feed.marks
        if self.seq in marks and self.seq not in self._marked:
            self._marked[self.seq] = False
            await self._link.send(encode(messages.Mark(self.seq)))
        for seq, told in list(self._marked.items()):
            digests = marks.get(seq)
            if seq not in marks:
                del self._marked[seq]
            elif digests is not None and not told:
                self._marked[seq] = True
                await self._link.send(encode(messages.Digest(seq, digests)))

    async def _ship(self, frames: list[bytes], last_seq: int) -> None:
        if self._shard is not None:
            frames = [self._filtered(data, self._shard) for data in frames]
        await self._link.send_all(frames)
        self.seq = last_seq

    def _filtered(self, data: bytes, shard: Shard) -> bytes:
        filtered, self._filter_link = pack_filtered(unpack_frame(data), shard.wants, self._filter_link)
        return filtered

    async def _catch_up(self) -> None:
        """Ship from the log until the ring has the next frame. Raises `NoLongerKept`."""
        try:
            self._readers.acquire_nowait()
        except trio.WouldBlock:
            await self._wait()
            return
        try:
            frames = self._log.read_from(self.seq + 1)
            while self._feed.next_after(self.seq) is None:
                taken = await run(partial(_take_piece, frames), blocks=self._log.blocks)
                if not taken:
                    return
                for group in _groups(taken, self._feed.marks):
                    await self._send_due()
                    await self._ship([frame_bytes(frame) for frame in group], group[-1].last_seq)
        finally:
            self._readers.release()


def _take_piece(frames: Iterator[Frame]) -> list[Frame]:
    taken, size = [], 0
    for frame in frames:
        taken.append(frame)
        size += len(frame.body)
        if size >= bounds.CATCH_UP_BYTES:
            break
    return taken


def _groups(frames: Iterable[Frame], marks: Container[int]) -> Iterator[list[Frame]]:
    """Group frames into writes of about SHIP_BYTES. A group ends at each mark that is known by then."""
    group: list[Frame] = []
    size = 0
    for frame in frames:
        group.append(frame)
        size += len(frame.body)
        if size >= bounds.SHIP_BYTES or frame.last_seq in marks:
            yield group
            group, size = [], 0
    if group:
        yield group
