"""A member of a quorum that lacks what the stream no longer has: it goes on from a snapshot of another node.

    done = await Newcomer(...).fetch()                            a running member, past places that are purged
    await prepare(disk, data_directory, stream, …)                a directory without a log

Rules:
- The nodes are known by their words. The one that is furthest is asked; it is given up when it is heard no more.
- A new directory whose stream still begins where its log began needs no other node.
- What is fetched is proved, and is of this log, as for every replica (`server.replication.bootstrap`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import structlog
import trio

from engine.disk import Disk, FileMissing
from engine.errors import DiskFault, RunDamaged, SnapshotDamaged
from engine.limits import SEGMENT_BYTES
from engine.log import Log
from engine.threads import run
from server.quorum.peers import PEER_SECONDS, Peers
from server.quorum.stream import Stream, Unanswered
from server.quorum.words import Word, decode
from server.replication.bootstrap import Bootstrap, prepare_directory
from server.replication.download import ShowBytes, no_bytes
from server.replication.failure import FollowingFailed
from server.replication.link import parse_leader
from server.replication.replicas import WholeReplica
from snapshots.opening import log_directory

log = structlog.get_logger()

MakeBootstrap = Callable[[Word], Bootstrap]

RETRY_SECONDS = 1.0


class Newcomer:
    """Fetches snapshots for one running member."""

    def __init__(self, peers: Peers, replica: WholeReplica, bootstrap: MakeBootstrap) -> None:
        self._peers = peers
        self._replica = replica
        self._bootstrap = bootstrap

    async def fetch(self) -> bool:
        """Go on from the snapshot of the node that is furthest; False if that was not possible. Raises `DiskFull`."""
        alive = self._peers.alive(trio.current_time())
        if not alive or alive[0].seq <= self._replica.tail.seq:
            log.warning("no_node_to_fetch_from", seq=self._replica.tail.seq)
            await trio.sleep(RETRY_SECONDS)
            return False
        word = alive[0]
        log.info("fetches_snapshot", node=word.name, url=word.url, seq=self._replica.tail.seq)
        bootstrap = self._bootstrap(word)
        before = self._replica.tail.seq

        async def fetch() -> None:
            try:
                fetched = await bootstrap.fetch(no_bytes)
                if fetched is not None:
                    await self._replica.restart(fetched.path)
            except (FollowingFailed, SnapshotDamaged, RunDamaged, FileMissing) as fault:
                log.warning("snapshot_not_taken", node=word.name, reason=str(fault))

        await while_alive(self._peers, word.node_id, fetch)
        if self._replica.tail.seq == before:
            await bootstrap.discard()
            await trio.sleep(RETRY_SECONDS)
        return self._replica.tail.seq > before


async def while_alive(peers: Peers, node_id: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do some work with a node; give it up when the node is no longer heard."""
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            while True:
                await trio.sleep(PEER_SECONDS / 10)
                if all(word.node_id != node_id for word in peers.alive(trio.current_time())):
                    nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        await work()
        nursery.cancel_scope.cancel()


async def prepare(
    disk: Disk, data_directory: str, stream: Stream, bootstrap: MakeBootstrap, *, tell: Callable[[DiskFault], None],
    progress: ShowBytes = no_bytes, segment_bytes: int = SEGMENT_BYTES,
) -> None:  # fmt: skip
    """Make a log in a directory without one: an empty one, or what another node's snapshot goes on with.

    Waits until it is known which. Raises `FollowingFailed`, `DiskFault`, `StreamRefused`.
    """
    peers = Peers("")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_hear, stream, peers)
        while True:
            origin = stream.origin.tail
            try:
                if origin.seq == 0 and (await stream.bounds()).first <= 1:
                    create = partial(
                        Log.create, disk, log_directory(data_directory), log_id=origin.log_id, tail=origin,
                        segment_bytes=segment_bytes,
                    )  # fmt: skip
                    (await run(create, blocks=disk.blocks)).close()
                    break
            except Unanswered as unanswered:
                log.warning("stream_unanswered", reason=str(unanswered))
            else:
                alive = peers.alive(trio.current_time())
                if alive:
                    await while_alive(peers, alive[0].node_id, partial(
                        prepare_directory, disk, data_directory, bootstrap(alive[0]), tell=tell, progress=progress,
                        segment_bytes=segment_bytes,
                    ))  # fmt: skip
                    if disk.exists(log_directory(data_directory)):
                        break
                else:
                    log.info("waits_for_a_node", why="this directory is empty, and the stream begins later")
            await trio.sleep(RETRY_SECONDS)
        nursery.cancel_scope.cancel()


async def _hear(stream: Stream, peers: Peers) -> None:
    while True:
        word = decode(await stream.hear())
        if word is not None:
            peers.heard(word, trio.current_time())


def bootstrap_of(
    word: Word, disk: Disk, data_directory: str, *, token: Callable[[], str], uniform: Callable[[float, float], float],
    node_id: str,
) -> Bootstrap:  # fmt: skip
    """Make what fetches from a node."""

    def tell(reason: str) -> None:
        log.warning("snapshot_not_fetched", node=word.name, url=word.url, reason=reason)

    node = parse_leader(word.public_url or word.url)
    return Bootstrap(node, disk, data_directory, token=token, uniform=uniform, tell=tell, node_id=node_id)
