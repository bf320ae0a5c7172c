"""The start of a replica: download the leader's newest snapshot, prove it, and put it in place.

    await prepare_directory(disk, data_directory, Bootstrap(leader, disk, directory, …), tell=tell)

    fetched.snapshot.tmp ──proved──► fetched.snapshot ──► files of older actions ──► snapshots/SEQ.snapshot

Rules:
- Downloads go through cuts, and begin anew when the leader has a newer snapshot (`server.replication.download`).
- A snapshot is used only after all of it is proved. A damaged one is removed and fetched again, a few times.
- It is used only when the files of older actions that it names are here too (`server.replication.action_fetch`). If the
  leader no longer has one of them, its newest snapshot is fetched instead. A shard has no actions, so it needs none.
- Only a directory without a log is prepared. If it has snapshots, a preparation or a restart of the log was cut short.
  The replica then goes on from the newest one and removes the others. Nothing is lost: the leader has what follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import TypeVar

import httpx
import msgspec

from engine.disk import TMP, Disk
from engine.errors import DiskFault, SnapshotDamaged
from engine.history import EpochMark
from engine.limits import SEGMENT_BYTES
from engine.log import Log
from engine.log_reader import holds_log
from engine.record import Tail
from engine.sealed_actions import Manifest
from engine.threads import run
from server import bounds
from server.replication.action_fetch import ActionFetch
from server.replication.download import Downloads, ShowBytes, headers_with, http_client, no_bytes
from server.replication.failure import FollowingFailed
from server.replication.link import Endpoint, LinkEnded, reason_of
from server.replication.messages import FORK_PATH, SNAPSHOT_PATH, Fork, ForkQuestion, Path
from server.replication.paths import Nodes, cut
from server.replication.replicas import place
from server.replication.retry import Backoff
from snapshots import format as snapshot_format
from snapshots.opening import log_directory
from snapshots.part_reading import read_manifest
from snapshots.settling import remove_downloads
from snapshots.store import FETCHED, Store

T = TypeVar("T")


class Fetched(msgspec.Struct, frozen=True):
    """A snapshot that was fetched and proved. Its file belongs to the caller. `manifest`: the files that it names."""

    path: str
    tail: Tail
    manifest: Manifest | None = None


class _Details(msgspec.Struct):
    path: Path = ()


class _Error(msgspec.Struct):
    details: _Details


class _Refusal(msgspec.Struct):
    """The error answer of a node that has no snapshot yet (`server.node.waiting`)."""

    error: _Error


class Bootstrap:
    """Asks a leader for its newest snapshot, and where epochs began. Downloads are kept in `directory`."""

    def __init__(
        self,
        leader: Endpoint,
        disk: Disk,
        directory: str,
        *,
        token: Callable[[], str],
        uniform: Callable[[float, float], float],
        tell: Callable[[str], None],
        node_id: str = "",
        read_seconds_max: float = bounds.SNAPSHOT_READ_SECONDS_MAX,
    ) -> None:
        """`tell` takes the reason of each attempt that failed. `node_id` is ours in the paths of nodes."""
        self.path: Nodes = ()
        self._leader = leader
        self._disk = disk
        self._directory = directory
        self._token = token
        self._uniform = uniform
        self._tell = tell
        self._node_id = node_id
        self._timeout = httpx.Timeout(read_seconds_max)
        self._downloads = Downloads(
            leader, disk, token=token, uniform=uniform, tell=tell, refusal=self._refusal,
            read_seconds_max=read_seconds_max,
        )  # fmt: skip
        self._actions = ActionFetch(self._downloads, disk, directory, tell=tell)

    async def fetch(self, progress: ShowBytes = no_bytes, *, actions: bool = True) -> Fetched | None:
        """Download the leader's newest snapshot and prove it; None if the leader has none.

        `actions`: with the files of older actions that it names, as every replica but a shard needs them. Raises
        `FollowingFailed` after DAMAGED_DOWNLOADS_MAX damaged downloads.
        """
        await self._in_thread(partial(self._disk.make_directory, self._directory))
        backoff = Backoff(self._uniform)
        while True:
            fetched = await self._fetch_snapshot(progress)
            if fetched is None or not actions or await self.complete(fetched, progress):
                return fetched
            await backoff.wait()

    async def complete(self, snapshot: Fetched, progress: ShowBytes = no_bytes) -> bool:
        """Download the files of older actions that a snapshot names; False if the leader no longer has one of them."""
        if snapshot.manifest is None:
            return True
        return await self._actions.complete(snapshot.manifest, snapshot.tail.log_id, progress)

    async def discard(self) -> None:
        """Remove what was fetched and is not in place, as nobody goes on with it."""
        await self._in_thread(partial(remove_downloads, self._disk, self._directory))

    async def _fetch_snapshot(self, progress: ShowBytes) -> Fetched | None:
        unfinished = f"{self._directory}/{FETCHED}{TMP}"
        for _ in range(bounds.DAMAGED_DOWNLOADS_MAX):
            if not await self._downloads.fill(SNAPSHOT_PATH, unfinished, "snapshot", progress):
                return None
            try:
                return await self._in_thread(self._prove)
            except SnapshotDamaged as damage:
                self._tell(f"the snapshot that was downloaded is damaged: {damage.what}")
        what = f"{bounds.DAMAGED_DOWNLOADS_MAX} downloads of the leader's snapshot were all damaged"
        remedy = "Check the network and the leader's disk (`scoreboard log verify`), then start this replica again."
        raise FollowingFailed(what, epoch=1, seq=0, remedy=remedy)

    async def common(self, marks: Sequence[EpochMark]) -> Tail:
        """Ask for the last place that the leader's history shares with ours. `marks` are those of all our epochs.

        Raises `LinkEnded`, with status 404 or 409 and the leader's reason if the leader can't know the place.
        """
        before: int | None = None
        for mark in reversed(marks):
            try:
                return await self.fork(ForkQuestion(mark.epoch, mark.history, before))
            except LinkEnded as ended:
                if ended.status != httpx.codes.CONFLICT or mark is marks[0]:
                    raise
            before = mark.first_seq  # the leader does not have this epoch: we left the one before it here
        raise AssertionError("a log has an epoch")

    async def fork(self, question: ForkQuestion) -> Tail:
        """Ask where the leader's history leaves ours.

        Raises `LinkEnded`, with status 404 and the leader's reason if the leader can't know the place, and with 409 if
        its history does not have the epoch.
        """
        try:
            async with http_client(self._timeout) as client:
                url = self._leader.url(f"{FORK_PATH}?{question.query}")
                response = await client.get(url, headers=headers_with(self._token()))
            if response.status_code in (httpx.codes.NOT_FOUND, httpx.codes.CONFLICT):
                raise LinkEnded(_message_of(response), response.status_code)
            if response.status_code != httpx.codes.OK:
                raise LinkEnded(f"the leader answered with status {response.status_code}", response.status_code)
            return msgspec.json.decode(response.content, type=Fork).tail
        except (httpx.HTTPError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise LinkEnded(f"the leader gave no answer: {reason_of(error)}") from error

    async def wait_origin(self) -> Tail | None:
        """Ask for the place before the leader's first event, until the leader answers.

        None if its log no longer begins there: it has begun anew, or made a snapshot, since it had none.
        """
        backoff = Backoff(self._uniform)
        while True:
            try:
                return await self.fork(ForkQuestion(0))
            except LinkEnded as ended:
                self._tell(ended.reason)
                gone = ended.status == httpx.codes.NOT_FOUND
            await backoff.wait()
            if gone:
                return None

    def _prove(self) -> Fetched:
        """Prove the whole file and rename it, in the worker thread."""
        unfinished, path = f"{self._directory}/{FETCHED}{TMP}", f"{self._directory}/{FETCHED}"
        with closing(self._disk.open(unfinished)) as file:
            try:
                tail = snapshot_format.verify(file, unfinished)
                manifest = read_manifest(file, unfinished)
            except SnapshotDamaged:
                self._disk.remove(unfinished)
                raise
        self._disk.rename(unfinished, path)
        self._disk.sync_directory(self._directory)
        return Fetched(path, tail, manifest)

    async def _refusal(self, response: httpx.Response) -> LinkEnded:
        """Say why there is no snapshot. A node that has none itself tells its path, which may lead to us."""
        status = response.status_code
        if not 0 < int(response.headers.get("content-length", "0")) <= bounds.REFUSAL_BYTES_MAX:
            return LinkEnded(f"the leader answered with status {status}", status)
        await response.aread()
        reason = _message_of(response)
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            told = msgspec.json.decode(response.content, type=_Refusal).error.details.path
            self.path, loop = cut(told, self._node_id)
            reason = loop or reason
        return LinkEnded(f"the leader answered with status {status}: {reason}", status)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await run(work, blocks=self._disk.blocks)


async def prepare_directory(
    disk: Disk,
    data_directory: str,
    bootstrap: Bootstrap,
    *,
    tell: Callable[[DiskFault], None],
    progress: ShowBytes = no_bytes,
    segment_bytes: int = SEGMENT_BYTES,
) -> None:
    """Make sure that a data directory has a log. The caller holds its lock.

    Waits for the leader if nothing usable is here. `tell` may be called from a worker thread. Raises
    `FollowingFailed`, `DiskFault`.
    """
    directory = log_directory(data_directory)
    if holds_log(disk, directory):
        return
    here = await run(partial(_newest, disk, data_directory, tell), blocks=disk.blocks)
    tail = None
    if here is not None and await bootstrap.complete(here, progress):
        tail = here.tail
    while tail is None:
        fetched = await bootstrap.fetch(progress)
        if fetched is None:
            tail = await bootstrap.wait_origin()
        else:
            tail = fetched.tail
            await run(partial(place, disk, data_directory, fetched.path, tail), blocks=disk.blocks)
    await run(partial(_remove_older, disk, data_directory, tail.seq), blocks=disk.blocks)
    create = partial(Log.create, disk, directory, log_id=tail.log_id, tail=tail, segment_bytes=segment_bytes)
    (await run(create, blocks=disk.blocks)).close()


def _remove_older(disk: Disk, data_directory: str, seq: int) -> None:
    """Remove the snapshots before `seq`, where the log is about to begin: the log can't join them."""
    store = Store(disk, data_directory)
    older = [info for info in store.list() if info.seq < seq]
    for info in older:
        store.remove(info.path)
    if older:
        # If one came back after a power cut, retention would keep all later snapshots and the whole log.
        disk.sync_directory(store.directory)


def _message_of(response: httpx.Response) -> str:
    """Give the message of an error answer, or its status if it is not in our format."""
    try:
        return str(msgspec.json.decode(response.content)["error"]["message"])
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
        return f"the leader answered with status {response.status_code}"


def _newest(disk: Disk, data_directory: str, tell: Callable[[DiskFault], None]) -> Fetched | None:
    """Give the newest valid snapshot here, and make its name durable; None without one."""
    store = Store(disk, data_directory)
    for info in store.list():
        try:
            found = Fetched(info.path, store.verify(info), store.manifest(info))
        except SnapshotDamaged as damage:
            tell(damage)
        else:
            # The process that renamed it may have ended before the sync. A log is about to begin after it.
            disk.sync_directory(store.directory)
            return found
    return None
