"""The snapshot server: what replicas fetch over plain HTTP.

    GET  /replication/snapshot             the newest snapshot that proves itself, streamed; resumable
    GET  /replication/fork?epoch=E&history=H[&before=S]
                                           the last place that this history shares with one that has epoch E of the
                                           identity H, and leaves that epoch before seq S

    GET  /replication/period?seq=S         the file of the past period that seq S ended; 404 without one here; resumable
    GET  /replication/actions?name=N       the file of older actions of this name; 404 without one here; resumable

Rules:
- The asker goes back through its own epochs until this history has one of them, with its identity (`engine.history`).
  An epoch that this history does not have is 409. Without `history` epochs are compared by their numbers.
- A snapshot is proved as a whole, once, before it is offered. Otherwise a follower, which proves it too, would fetch
  the same damaged file for ever. A damaged one is told, and the one before it is offered. It is looked at again after
  RETRY_SECONDS: an operator may have put the whole file back.
- The ETag of a snapshot or a period is the seq and the digest in the file, so it names the content. `Range: bytes=N-`
  with a matching `If-Range` resumes a cut download. With another `If-Range` the whole file is sent, as RFC 9110
  (13.1.5, 14.2) says.
- An open file is read to its end, even if retention removes its name. The log after it is pinned meanwhile.
- A file of actions is proved while it is sent: its tables first, its entries with each piece. A damaged one is made
  anew from the log. Its ETag has a checksum of all of it, so a download goes on with the same bytes afterwards.
- A file is sent in pieces, each with the connection's send deadline. At most SNAPSHOT_STREAMS_MAX are sent at once.
- If the file fails after the head was sent, the connection is cut, and the follower resumes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import msgspec
import trio

from engine.action_run_bytes import RunBytes
from engine.disk import Disk, File, FileMissing
from engine.errors import DiskFault, NoLongerKept, RunDamaged, SnapshotDamaged
from engine.history import EpochMark
from engine.record import Tail
from engine.threads import run
from server import bounds
from server.http.connection import Connection
from server.http.messages import Refused, Response, json_response, overloaded
from server.http.request_parser import IncomingRequest
from server.http.response_head import head_end
from server.replication.followers import Followers
from server.replication.messages import (
    ACTIONS_PATH,
    FORK_PATH,
    PERIOD_PATH,
    SNAPSHOT_PATH,
    fork_of,
    parse_actions,
    parse_fork,
    parse_period,
)
from server.replication.shipment import ReadableLog
from server.replication.shipper import Authorize
from snapshots import period_file
from snapshots.action_store import ActionStore
from snapshots.checkpoint import RETRY_SECONDS
from snapshots.format import footer_digest
from snapshots.period_store import PeriodStore
from snapshots.store import SnapshotInfo, Store

_RANGE = re.compile(r"bytes=([0-9]{1,18})-")
SNAPSHOT_TYPE = "application/octet-stream"
PATHS = (SNAPSHOT_PATH, FORK_PATH, PERIOD_PATH, ACTIONS_PATH)
TARGETS = frozenset((method, path) for method in ("GET", "HEAD") for path in PATHS)
"""The methods and paths that it answers."""

T = TypeVar("T")


class Epochs(Protocol):
    """What is needed of a scoreboard."""

    def epoch_after(self, epoch: int) -> tuple[int, int] | None: ...

    def mark_of(self, epoch: int) -> EpochMark | None: ...


class Readable(Protocol):
    """What is needed of a file that is sent."""

    def read_at(self, offset: int, length: int) -> bytes: ...


async def take_whole(connection: Connection) -> tuple[IncomingRequest, bool]:
    """Take a request and drop its body; tell whether its answer is the last one."""
    inbound = connection.take_request()
    await connection.read_body(inbound)
    connection.release_body()
    return inbound, not inbound.keep_alive or connection.closing


async def respond_to(connection: Connection, inbound: IncomingRequest, response: Response, last: bool) -> None:
    """Answer a request, without a body if it is HEAD."""
    response = msgspec.structs.replace(response, omit_body=inbound.head.method == "HEAD")
    await connection.respond(response, last=last)


async def go_on(connection: Connection, last: bool) -> bool:
    """Go on after an answer; tell whether another request follows."""
    if last:
        await connection.linger()
        return False
    return await connection.read_head()


class _Offer(msgspec.Struct, frozen=True):
    """A snapshot that was proved, and its ETag."""

    info: SnapshotInfo
    etag: str


class _Content(NamedTuple):
    """A file that is sent, its length, and its ETag."""

    file: Readable
    size: int
    etag: str


class SnapshotServer:
    """Answers the plain requests of replicas. A lane of the listener."""

    def __init__(
        self,
        disk: Disk,
        store: Store,
        periods: PeriodStore,
        actions: ActionStore,
        log: ReadableLog,
        epochs: Epochs,
        followers: Followers,
        *,
        authorize: Authorize,
        tell: Callable[[DiskFault], None],
        on_damage: Callable[[DiskFault], None],
        on_missing: Callable[[str], None],
    ) -> None:
        """`on_damage` is told of a damaged file of older actions, `on_missing` of the name of one that is not here."""
        self._disk = disk
        self._store = store
        self._periods = periods
        self._actions = actions
        self._on_damage, self._on_missing = on_damage, on_missing
        self._log = log
        self._epochs = epochs
        self._followers = followers
        self._authorize = authorize
        self._tell = tell
        self._offer: _Offer | None = None
        self._damaged: dict[SnapshotInfo, float] = {}  # until when each is left out; those that are still there
        self._proving = trio.Lock()
        self._streams = 0

    async def serve(self, connection: Connection) -> bool:
        """Answer a request; tell whether another one follows. Raises `Refused`, BrokenResourceError."""
        inbound, last = await take_whole(connection)
        found = await self._authorize(inbound.header("authorization") or None)
        if isinstance(found, Response):
            await respond_to(connection, inbound, found, last)
        elif inbound.path == FORK_PATH:
            await respond_to(connection, inbound, await self._fork(inbound), last)
        elif inbound.path == PERIOD_PATH:
            await self._period(connection, inbound, last)
        elif inbound.path == ACTIONS_PATH:
            await self._run(connection, inbound, last)
        else:
            await self._snapshot(connection, inbound, last)
        return await go_on(connection, last)

    # The fork

    async def _fork(self, inbound: IncomingRequest) -> Response:
        question = parse_fork(inbound.head.query)
        epoch, ours = question.epoch, self._epochs.mark_of(question.epoch)
        if question.history and (ours is None or ours.history != question.history):
            raise Refused(409, "CONFLICT", f"This node's history has no epoch {epoch} of {question.history}.")
        later = self._epochs.epoch_after(epoch)
        ends = [seq for seq in (later and later[0], question.before) if seq is not None]
        if not ends:
            raise Refused(404, "NOT_FOUND", f"This node knows of no epoch after {epoch}.")
        return json_response(fork_of(await self._place_before(min(ends))), (("cache-control", "no-store"),))

    async def _place_before(self, seq: int) -> Tail:
        """Give the place in the log right before the frame that begins with `seq`. Raises `Refused`."""
        tail = self._log.tail
        if seq > tail.seq:
            return tail  # an empty log: its first epoch has no event yet
        try:
            frame, _ = await self._in_thread(partial(self._log.event_at, seq))
            if frame.first_seq != seq:
                raise Refused(404, "NOT_FOUND", f"No frame of this node's log begins with seq {seq}.")
            epoch = 1
            if seq > 1:
                before, _ = await self._in_thread(partial(self._log.event_at, seq - 1))
                epoch = before.epoch
        except NoLongerKept as gone:
            message = f"The log around seq {seq} is no longer kept here; it begins at seq {gone.first_seq}."
            raise Refused(404, "NOT_FOUND", message, {"firstSeq": gone.first_seq}) from None
        return Tail(tail.log_id, epoch, seq - 1, frame.previous)

    # A past period

    async def _period(self, connection: Connection, inbound: IncomingRequest, last: bool) -> None:
        seq = parse_period(inbound.head.query)
        with self._streaming():
            try:
                file = await self._in_thread(partial(self._disk.open, self._periods.path(seq)))
            except FileMissing:
                raise Refused(404, "NOT_FOUND", "This node has no such past period.") from None
            with closing(file):
                content = await self._in_thread(partial(_period_content, file, seq))
                await self._send_content(connection, inbound, content, last)

    # A file of older actions

    async def _run(self, connection: Connection, inbound: IncomingRequest, last: bool) -> None:
        name = parse_actions(inbound.head.query)
        with self._streaming():
            path = await self._in_thread(partial(self._actions.path_of, name))
            try:
                if path is None:
                    raise FileMissing("there is no such file", path=name)
                source = await self._in_thread(partial(RunBytes.open, self._disk, path))
            except FileMissing:
                self._on_missing(name)
                raise Refused(404, "NOT_FOUND", "This node has no such file of older actions.") from None
            except RunDamaged as damage:
                self._on_damage(damage)
                raise overloaded("This file of older actions is being made anew.") from damage
            with closing(source):
                content = _Content(source, source.size, f'"{name}-{source.mark}"')
                await self._send_content(connection, inbound, content, last)

    @contextmanager
    def _streaming(self) -> Iterator[None]:
        """Count a file that is sent. Raises `Refused` if there are as many as may be."""
        if self._streams >= bounds.SNAPSHOT_STREAMS_MAX:
            raise overloaded("This node sends as many snapshots as it can.")
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    # The snapshot

    async def _snapshot(self, connection: Connection, inbound: IncomingRequest, last: bool) -> None:
        with self._streaming():
            offer, file = await self._open_newest()
            with closing(file), self._followers.pinned(offer.info.seq):
                content = _Content(file, offer.info.bytes, offer.etag)
                await self._send_content(connection, inbound, content, last, f"scoreboard-seq: {offer.info.seq}")

    async def _send_content(
        self, connection: Connection, inbound: IncomingRequest, content: _Content, last: bool, *more: str
    ) -> None:
        """Send a file, or the end of it that is asked for. `more` are lines of the head."""
        size, begin = content.size, _begin_of(inbound, content.etag)
        if begin is not None and begin >= size:
            headers = (("content-range", f"bytes */{size}"),)
            raise Refused(416, "INVALID_REQUEST", f"The file has {size} bytes.", headers=headers)
        lines = ["HTTP/1.1 200 OK" if begin is None else "HTTP/1.1 206 Partial Content"]
        lines += [f"content-type: {SNAPSHOT_TYPE}", f"content-length: {size - (begin or 0)}", f"etag: {content.etag}"]
        lines += ["accept-ranges: bytes", "cache-control: no-store", *more]
        if begin is not None:
            lines.append(f"content-range: bytes {begin}-{size - 1}/{size}")
        await connection.send("\r\n".join([*lines, ""]).encode("ascii") + head_end(last=last))
        if inbound.head.method != "HEAD":
            await self._send_pieces(connection, content.file, begin or 0, size)

    async def _send_pieces(self, connection: Connection, file: Readable, begin: int, size: int) -> None:
        for offset in range(begin, size, bounds.SNAPSHOT_PIECE_BYTES):
            length = min(bounds.SNAPSHOT_PIECE_BYTES, size - offset)
            try:
                piece = await self._in_thread(partial(file.read_at, offset, length))
            except RunDamaged as damage:
                self._on_damage(damage)
                piece = b""
            except DiskFault as fault:
                self._tell(fault)
                piece = b""
            if len(piece) != length:
                connection.cut()
            await connection.send(piece)

    async def _open_newest(self) -> tuple[_Offer, File]:
        """Open the newest valid snapshot. Raises `Refused` if there is none."""
        async with self._proving:
            infos, now_s = await self._in_thread(self._store.list), trio.current_time()
            self._damaged = {info: self._damaged[info] for info in infos if self._damaged.get(info, now_s) > now_s}
            for info in infos:
                if info in self._damaged:
                    continue
                try:
                    return await self._in_thread(partial(self._open, info))
                except FileMissing:
                    continue
                except SnapshotDamaged as damage:
                    self._damaged[info] = now_s + RETRY_SECONDS
                    self._tell(damage)
        raise Refused(404, "NOT_FOUND", "There is no snapshot here yet: follow the log from its beginning.")

    def _open(self, info: SnapshotInfo) -> tuple[_Offer, File]:
        """Prove a snapshot, unless that was done, and open it. In the worker thread."""
        offer = self._offer
        if offer is not None and offer.info == info:
            return offer, self._disk.open(info.path)
        self._store.verify(info)
        file = self._disk.open(info.path)
        self._offer = offer = _Offer(info, f'"{info.seq}-{footer_digest(file).hex()}"')
        return offer, file

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await run(work, blocks=self._log.blocks)


def _period_content(file: File, seq: int) -> _Content:
    return _Content(file, file.size(), f'"{seq}-{period_file.footer_digest(file).hex()}"')


def _begin_of(inbound: IncomingRequest, etag: str) -> int | None:
    """Give the offset where a resumed download goes on, None for the whole file."""
    match = _RANGE.fullmatch(inbound.header("range"))
    condition = inbound.header("if-range")
    if match is None or inbound.head.method != "GET" or condition not in ("", etag):
        return None
    return int(match[1])
