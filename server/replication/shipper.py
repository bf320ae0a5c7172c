"""The shipper: the leader's side of replication links. It sends each follower the log, at the follower's own pace.

    hello ─► judged ─► welcome ─► shipment (`server.replication.shipment`)

Rules:
- Only durable frames are shipped: the ring and the log have no others.
- A link has no queue. One write, or CATCH_UP_BYTES of the log, is in flight; the rest waits on disk. A follower that
  does not read sends no positions either, and its link ends after that silence.
- A follower's position is judged before anything is sent: it must lie between two frames of our history. A follower
  of an epoch that outranks ours deposes us (`on_deposed`): it must not follow, and we must not write. That is a higher
  epoch, or one of our number with a greater mark (`engine.history`).
- A position whose epoch has another identity here, or none, is `diverged`. The answer has our own mark, so a leader of
  a lesser mark learns that ours outranks it.
- A deposed leader ends its links, and answers `deposed` to every hello. Its heartbeats would make its followers look
  fresh, although the new leader's history goes on without them. And the frame that was being written may be in no other
  history: a follower that took it could never follow the new leader.
- If the log is damaged, the operator is told. The follower begins anew from a snapshot after its position. If there is
  none yet, the link ends, and the follower comes again.
- A follower that has not seen an erasure never goes on in a log that may be rewritten for it: it would keep the user.
  It begins anew from a snapshot of after the erasure. If there is none, the link ends, and the follower comes again.
- A link stays as long as its token is good. Then it is closed with 1008 and the reason `token expired`, and the
  follower comes again with the token that it has by then.
- A relay is a replica that ships its own log in the same way. It is never deposed. It passes a newer epoch on
  (`on_newer`), and answers `behind` to a follower that is further than itself.
- A relay that does not hear its leader can't be followed. It answers `no_leader` with the path that it knows, in which
  a loop of relays shows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import msgspec
import trio

from engine.errors import DiskFault, LogDamaged, NoLongerKept
from engine.threads import run
from server import bounds
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
from server.replication.shipment import Expired, Marks, NodeInfo, ReadableLog, Shipment
from snapshots.promotion import Successor, newest

Authorize = Callable[[str | None], Awaitable[Response | Lease]]
"""From the header Authorization to the refusal, or to how long the link may stay."""


class Shipper:
    """Serves the log to at most FOLLOWERS_MAX followers. A lane of the listener."""

    def __init__(
        self,
        log: ReadableLog,
        feed: FrameFeed,
        followers: Followers,
        *,
        marks: Marks,
        authorize: Authorize,
        clock_ms: Callable[[], int],
        node: Callable[[], NodeInfo] = NodeInfo,
        successor: Callable[[], Successor | None] = lambda: None,
        on_deposed: Callable[[Successor], None] = lambda _successor: None,
        on_newer: Callable[[Hello], None] = lambda _hello: None,
        tell: Callable[[DiskFault], None] = lambda _fault: None,
        snapshot_seq: Callable[[], int | None] = lambda: None,
        erased_seq: Callable[[], int] = lambda: 0,
        timing: LinkTiming | None = None,
    ) -> None:
        """`successor` gives what is known of an epoch that outranks ours. `tell` gets the faults of the log.

        `on_deposed` gets what is known of a newer epoch, before the hello is answered. It must not raise. On a relay
        `on_newer` gets the hello instead, for our leader. `snapshot_seq` gives the seq of the newest snapshot,
        `erased_seq` that of the last erasure of a user for which the log may be rewritten.
        """
        self._log = log
        self._feed = feed
        self._followers = followers
        self._marks = marks
        self._authorize = authorize
        self._clock_ms = clock_ms
        self._node = node
        self._successor = successor
        self._on_deposed = on_deposed
        self._on_newer = on_newer
        self._tell = tell
        self._snapshot_seq = snapshot_seq
        self._erased_seq = erased_seq
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
        shipment = Shipment(
            self._log,
            self._feed,
            self._marks,
            self._node,
            self._readers,
            link,
            hello,
            lease,
            self._timing,
            self._clock_ms,
        )
        damage: LogDamaged | None = None
        expired = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, link, key, nursery.cancel_scope)
            try:
                with suppress(LinkEnded):
                    await shipment.run()
            except LogDamaged as found:
                damage = found
            except Expired:
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

    def depose(self, successor: Successor, teller: trio.CancelScope | None = None) -> None:
        """Depose this leader, or note what more is known of its successor. The link of the `teller` goes on."""
        before = self._successor()
        self._on_deposed(newest(before, successor))
        if before is None:
            self.end_links(but=teller)

    async def _judge(self, hello: Hello, scope: trio.CancelScope) -> FromLeader:
        tail = self._log.tail
        if hello.log_id not in (None, tail.log_id):
            return messages.Diverged("this is another log, which never was one with the follower's")
        node, own = self._node(), self._marks.mark
        if hello.mark > own:
            if node.relays:
                self._on_newer(hello)
                return _deposed(newest(self._successor(), msgspec.structs.replace(hello.successor, leader=None)))
            self.depose(hello.successor, scope)
        if not node.relays and (successor := self._successor()) is not None:
            return _deposed(successor)
        if hello.history and self._marks.mark_of(hello.epoch) != hello.mark:
            reason = f"the follower's epoch {hello.epoch} is of another history, {hello.history}"
            return messages.Diverged(reason, own.epoch, own.first_seq, own.history, node.leader_url)
        if node.unfit:
            return messages.NoLeader(node.unfit, node.path)
        if hello.after > tail.seq:
            if node.relays and hello.epoch == tail.epoch:
                return messages.Behind(tail.seq)
            reason = f"the follower has events up to seq {hello.after}, but this log ends at seq {tail.seq}"
            return messages.Diverged(reason)
        erased_seq = self._erased_seq()
        if 0 < hello.after < erased_seq:
            # The log before it may have been rewritten: its user is not the one that the follower has.
            if erased_seq > (self._snapshot_seq() or 0):
                raise LinkEnded("a user was erased since, and there is no snapshot of after it yet")
            return SnapshotNeeded(f"a user was erased here at seq {erased_seq}", erased_seq + 1)
        try:
            checksum = tail.checksum if hello.after == tail.seq else await self._checksum_before(hello.after + 1)
        except NoLongerKept as gone:
            return SnapshotNeeded(f"seq {hello.after + 1} is no longer kept here", gone.first_seq)
        except LogDamaged as damage:
            return self._past(damage, hello.after)
        if checksum is None or hello.checksum not in (None, checksum):
            return messages.Diverged(f"what the follower has at seq {hello.after} is not what this log has there")
        return Welcome(
            tail.log_id.hex(),
            own.epoch,
            tail.seq,
            self._timing.heartbeat_seconds,
            node.name,
            node.public_url,
            own.first_seq,
            own.history,
            node.path,
            node.age_ms,
            node.key.pem,
            node.key.key_id,
        )

    async def _checksum_before(self, seq: int) -> int | None:
        """Give the checksum before the frame that begins with `seq`; None if no frame begins there."""
        frame, _ = await run(partial(self._log.event_at, seq), blocks=self._log.blocks)
        return frame.previous if frame.first_seq == seq else None


def _deposed(successor: Successor) -> messages.Deposed:
    return messages.Deposed(successor.epoch, successor.leader, successor.first_seq, successor.history)
