"""The shipper: the leader's side of replication links. It sends each follower the log, at the follower's own pace.

    hello ─► judged ─► welcome ─► ┌─► due? heartbeat, mark, digest
                                  │   frames in the ring? send them in one write, then pause
                                  │   behind the ring? read on from the log, in a worker thread
                                  └── else wait for news, or for the next heartbeat

Rules:
- Only durable frames are shipped: the ring and the log have no others.
- A link has no queue. One write, or CATCH_UP_BYTES of the log, is in flight; the rest waits on disk. A follower that
  does not read sends no positions either, and its link ends after that silence.
- Each frame is a message of its own. Frames that are ready go out in one write. After a write that was not full comes a
  pause of SHIP_SECONDS, in which the next frames gather. So the cost of a follower hardly grows with the load.
- A follower's position is judged before anything is sent: it must lie between two frames of our history. A follower
  that knows a newer epoch deposes us (`on_deposed`): it must not follow, and we must not write.
- A deposed leader ends its links, and answers `deposed` to every hello. Its heartbeats would make its followers look
  fresh, although the new leader's history goes on without them. And the frame that was being written may be in no other
  history: a follower that took it could never follow the new leader.
- If the log is damaged, the operator is told. The follower begins anew from a snapshot after its position. If there is
  none yet, the link ends, and the follower comes again.
- A link stays as long as its token is good. Then it is closed with 1008 and the reason `token expired`, and the
  follower comes again with the token that it has by then.
- A mark is sent exactly where the state was captured. A link that has passed that place leaves it out.
- A follower with a shard gets filtered frames (`engine.filtered_frame`), chained from the welcome on.
- A relay is a replica that ships its own log in the same way. It is never deposed. It passes a newer epoch on
  (`on_newer`), and answers `behind` to a follower that is further than itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Protocol

import msgspec
import trio

from engine.errors import DiskFault, LogDamaged, NoLongerKept
from engine.events import Event
from engine.filtered_frame import link_start, pack_filtered
from engine.record import Frame, Tail, chain_start, frame_bytes, unpack_frame
from engine.threads import run
from server import bounds
from server.access.key_exchange import SharedKey
from server.access.lease import TOKEN_EXPIRED, Lease
from server.http.connection import Connection
from server.http.handshake import check_upgrade
from server.http.messages import Response, overloaded
from server.http.websocket import POLICY_VIOLATION
from server.replication import messages
from server.replication.feed import FrameFeed
from server.replication.followers import FollowerInfo, Followers
from server.replication.link import Link, LinkEnded, LinkTiming, accept_link
from server.replication.messages import FromLeader, Hello, SnapshotNeeded, Welcome, encode, parse_hello
from server.replication.sharding import Shard
from snapshots.promotion import Successor, newest

Authorize = Callable[[str | None], Awaitable[Response | Lease]]
"""From the header Authorization to the refusal, or to how long the link may stay."""


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


class NodeInfo(msgspec.Struct, frozen=True):
    """What we tell followers about this node. `relays`: it is a replica too. `key`: `server.access.key_exchange`."""

    name: str = ""
    public_url: str | None = None
    relays: bool = False
    key: SharedKey = SharedKey()


class Shipper:
    """Serves the log to at most FOLLOWERS_MAX followers. A lane of the listener."""

    def __init__(
        self,
        log: ReadableLog,
        feed: FrameFeed,
        followers: Followers,
        *,
        authorize: Authorize,
        clock_ms: Callable[[], int],
        node: Callable[[], NodeInfo] = NodeInfo,
        successor: Callable[[], Successor | None] = lambda: None,
        on_deposed: Callable[[Successor], None] = lambda _successor: None,
        on_newer: Callable[[Hello], None] = lambda _hello: None,
        tell: Callable[[DiskFault], None] = lambda _fault: None,
        snapshot_seq: Callable[[], int | None] = lambda: None,
        timing: LinkTiming | None = None,
    ) -> None:
        """`successor` gives what is known of the epoch that deposed us. `tell` gets the faults of the log.

        `on_deposed` gets what is known of a newer epoch, before the hello is answered. It must not raise. On a relay
        `on_newer` gets the hello instead, for our leader. `snapshot_seq` gives the seq of the newest snapshot.
        """
        self._log = log
        self._feed = feed
        self._followers = followers
        self._authorize = authorize
        self._clock_ms = clock_ms
        self._node = node
        self._successor = successor
        self._on_deposed = on_deposed
        self._on_newer = on_newer
        self._tell = tell
        self._snapshot_seq = snapshot_seq
        self._timing = timing or LinkTiming()
        self._readers = trio.Semaphore(bounds.CATCH_UP_READERS_MAX)
        self._links: set[trio.CancelScope] = set()
        self._closing = False

    async def serve(self, connection: Connection) -> bool:
        """Answer a request for the log. Returns when the link has ended. Raises `Refused`."""
        inbound = connection.request
        check_upgrade(inbound.head, "The log")
        lease = await self._authorize(inbound.header("authorization") or None)
        if isinstance(lease, Response):
            connection.take_request()
            await connection.respond(lease, last=True)
            await connection.linger()
            return False
        hello = parse_hello(inbound.head.query)
        if self._closing or len(self._followers) >= bounds.FOLLOWERS_MAX:
            raise overloaded("There are as many followers as this node can serve.")
        stream, head = connection.take_stream()
        shard = None if hello.shard is None else str(hello.shard)
        info = FollowerInfo(connection.peer[0], shard, hello.epoch, hello.after, False, self._clock_ms())
        with trio.CancelScope() as scope, self._followers.linked(info) as key:
            self._links.add(scope)
            try:
                with suppress(LinkEnded):  # the follower left, was silent, or was told why it can't follow
                    async with accept_link(stream, head, self._timing) as link:
                        await self._converse(link, hello, key, scope, lease)
            finally:
                self._links.discard(scope)
        return False

    def close(self) -> None:
        """End all links and take no new ones."""
        self._closing = True
        self.end_links()

    def end_links(self, but: trio.CancelScope | None = None) -> None:
        """End all links, except `but`. The followers come again, and are judged anew."""
        for scope in self._links - {but}:
            scope.cancel()

    # Judging

    async def _converse(self, link: Link, hello: Hello, key: object, scope: trio.CancelScope, lease: Lease) -> None:
        verdict = await self._judge(hello, scope)
        await link.send(encode(verdict))
        if not isinstance(verdict, Welcome):
            return
        shipment = _Shipment(self._log, self._feed, self._readers, link, hello, lease, self._timing, self._clock_ms)
        damage: LogDamaged | None = None
        expired = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, link, key, nursery.cancel_scope)
            try:
                with suppress(LinkEnded):
                    await shipment.run()
            except LogDamaged as found:
                damage = found
            except _Expired:
                expired = True
            nursery.cancel_scope.cancel()
        if expired:
            await link.close(self._timing.close_seconds_max, POLICY_VIOLATION, TOKEN_EXPIRED)
        if damage is not None:
            await link.send(encode(self._past(damage, shipment.seq)))

    def _past(self, damage: LogDamaged, seq: int) -> SnapshotNeeded:
        """Send a follower at `seq` past the damage, to a snapshot. Raises `LinkEnded` if there is none."""
        self._tell(damage)
        offered = self._snapshot_seq()
        if offered is None or offered <= seq:
            raise LinkEnded("the log is damaged where the follower goes on")
        return SnapshotNeeded(f"the log is damaged here after seq {seq}", offered + 1)

    async def _listen(self, link: Link, key: object, scope: trio.CancelScope) -> None:
        """Note the follower's positions. End the link when nothing is heard for too long."""
        try:
            while True:
                message = await link.receive(self._timing.silence_seconds_max)
                position = messages.decode_from_follower(message if isinstance(message, str) else "")
                self._followers.heard(key, position.epoch, position.seq, durable=position.durable)
        except (LinkEnded, messages.MessageFault):
            scope.cancel()

    def _depose(self, hello: Hello, teller: trio.CancelScope) -> None:
        before = self._successor()
        self._on_deposed(newest(before, Successor(hello.epoch, hello.leader)))
        if before is None:
            self.end_links(but=teller)

    async def _judge(self, hello: Hello, scope: trio.CancelScope) -> FromLeader:
        tail = self._log.tail
        if hello.log_id not in (None, tail.log_id):
            return messages.Diverged("this is another log, which never was one with the follower's")
        node = self._node()
        if hello.epoch > tail.epoch:
            if node.relays:
                self._on_newer(hello)
                return messages.Deposed(hello.epoch)
            self._depose(hello, scope)
        if (successor := self._successor()) is not None:
            return messages.Deposed(successor.epoch, successor.leader)
        if hello.after > tail.seq:
            if node.relays and hello.epoch == tail.epoch:
                return messages.Behind(tail.seq)
            reason = f"the follower has events up to seq {hello.after}, but this log ends at seq {tail.seq}"
            return messages.Diverged(reason)
        try:
            checksum = tail.checksum if hello.after == tail.seq else await self._checksum_before(hello.after + 1)
        except NoLongerKept as gone:
            return SnapshotNeeded(f"seq {hello.after + 1} is no longer kept here", gone.first_seq)
        except LogDamaged as damage:
            return self._past(damage, hello.after)
        if checksum is None or hello.checksum not in (None, checksum):
            return messages.Diverged(f"what the follower has at seq {hello.after} is not what this log has there")
        where, beats, key = (tail.log_id.hex(), tail.epoch, tail.seq), self._timing.heartbeat_seconds, node.key
        return Welcome(*where, beats, node.name, node.public_url, key.pem, key.key_id)

    async def _checksum_before(self, seq: int) -> int | None:
        """Give the checksum before the frame that begins with `seq`; None if no frame begins there."""
        frame, _ = await run(partial(self._log.event_at, seq), blocks=self._log.blocks)
        return frame.previous if frame.first_seq == seq else None


class _Expired(Exception):
    """The token of a link is no longer good."""


class _Shipment:
    """Sends everything on one link, in order. `seq` is the last event that was sent."""

    def __init__(
        self,
        log: ReadableLog,
        feed: FrameFeed,
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
        """Send until the link ends, or the next frames are no longer kept. Raises `_Expired`."""
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

    async def _send_due(self) -> None:
        """Send what is due between two frames."""
        if self._lease.ended():
            raise _Expired
        if trio.current_time() >= self._heartbeat_at:
            self._heartbeat_at = trio.current_time() + self._heartbeat_seconds
            tail = self._log.tail
            await self._link.send(encode(messages.Heartbeat(tail.epoch, tail.seq, self._clock_ms())))
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
