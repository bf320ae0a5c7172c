"""The start of a replica: download the leader's newest snapshot, prove it, and put it in place.

    await prepare_directory(disk, data_directory, Bootstrap(leader, disk, directory, …), tell=tell)

    fetched.snapshot.tmp ──(cut? resumed at its length)──► whole ──proved──► fetched.snapshot ──► snapshots/SEQ.snapshot

Rules:
- A cut download is resumed while the leader still has the same snapshot (ETag). Otherwise it begins anew.
- A snapshot is used only after all of it is proved. A damaged one is removed and fetched again, a few times.
- A leader that can't be reached is tried again without end, with full jitter. Each reason is told.
- Only a directory without a log is prepared. If it has snapshots, a preparation or a restart of the log was cut short.
  The replica then goes on from the newest one and removes the others. Nothing is lost: the leader has what follows.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import TypeVar

import httpx
import msgspec

from engine.disk import TMP, Disk, File
from engine.errors import DiskFault, NoSpace, SnapshotDamaged
from engine.history import EpochMark
from engine.limits import SEGMENT_BYTES
from engine.log import Log
from engine.log_reader import holds_log
from engine.record import Tail
from engine.threads import run
from server import bounds
from server.replication.failure import FollowingFailed
from server.replication.link import Endpoint, LinkEnded, reason_of
from server.replication.messages import FORK_PATH, SNAPSHOT_PATH, Fork, ForkQuestion, Path
from server.replication.paths import Nodes, cut
from server.replication.replicas import place
from server.replication.retry import Backoff
from snapshots import format as snapshot_format
from snapshots.opening import log_directory
from snapshots.store import Store

FETCHED = "fetched.snapshot"

ShowBytes = Callable[[int, int], None]
"""Takes bytes done and bytes in all."""

_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)")
T = TypeVar("T")


class Fetched(msgspec.Struct, frozen=True):
    """A snapshot that was fetched and proved. Its file belongs to the caller."""

    path: str
    tail: Tail


class _Details(msgspec.Struct):
    path: Path = ()


class _Error(msgspec.Struct):
    details: _Details


class _Refusal(msgspec.Struct):
    """The error answer of a node that has no snapshot yet (`server.node.waiting`)."""

    error: _Error


class _Download(msgspec.Struct):
    """A file that is being filled: `done` bytes of `total` are there, of the content that `etag` names."""

    file: File | None = None
    etag: str = ""
    done: int = 0
    total: int = 0


def http_client(timeout: httpx.Timeout) -> httpx.AsyncClient:
    """Make a client that connects as the link does: without a proxy, with the certificates that this machine trusts."""
    return httpx.AsyncClient(timeout=timeout, verify=ssl.create_default_context(), trust_env=False)


def no_bytes(_done: int, _total: int) -> None:
    """Show nothing."""


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

    async def fetch(self, progress: ShowBytes = no_bytes) -> Fetched | None:
        """Download the leader's newest snapshot and prove it; None if the leader has none.

        Raises `FollowingFailed` after DAMAGED_DOWNLOADS_MAX damaged downloads.
        """
        for _ in range(bounds.DAMAGED_DOWNLOADS_MAX):
            if not await self._download(progress):
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
                response = await client.get(url, headers=self._headers())
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

    async def _download(self, progress: ShowBytes) -> bool:
        """Fill the unfinished file, in any number of attempts; False if the leader has no snapshot."""
        await self._in_thread(lambda: self._disk.make_directory(self._directory))
        download = _Download()
        backoff = Backoff(self._uniform)
        try:
            async with http_client(self._timeout) as client:
                while True:
                    done = download.done
                    try:
                        return await self._attempt(client, download, progress)
                    except (httpx.HTTPError, LinkEnded) as error:
                        what = "the download was cut" if download.done else "no snapshot came"
                        self._tell(f"{what}: {reason_of(error)}")
                    except NoSpace as fault:
                        self._tell(f"the download does not fit on the disk: {fault.what}")
                        await self._in_thread(partial(self._drop, download))
                        backoff.to_cap()
                    if download.done > done:
                        backoff.reset()
                    await backoff.wait()
        finally:
            if download.file is not None:
                download.file.close()

    async def _attempt(self, client: httpx.AsyncClient, download: _Download, progress: ShowBytes) -> bool:
        """Ask for the rest, and sync it; False if there is no snapshot. Raises `LinkEnded`, or errors of httpx."""
        headers = self._headers()
        if download.done:
            headers |= {"range": f"bytes={download.done}-", "if-range": download.etag}
        async with client.stream("GET", self._leader.url(SNAPSHOT_PATH), headers=headers) as response:
            if response.status_code == httpx.codes.NOT_FOUND:
                return False
            if response.status_code == httpx.codes.PARTIAL_CONTENT:
                self._check_resumed(response, download)
            elif response.status_code == httpx.codes.OK:
                await self._begin(response, download)
            else:
                download.done = 0  # the next attempt asks for the whole
                raise await self._refusal(response)
            assert download.file is not None
            async for piece in response.aiter_raw():
                await self._in_thread(partial(download.file.write_at, download.done, piece))
                download.done += len(piece)
                progress(download.done, download.total)
        if download.done != download.total:
            raise LinkEnded(f"{download.done} bytes came instead of {download.total}")
        await self._in_thread(download.file.sync)
        return True

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

    async def _begin(self, response: httpx.Response, download: _Download) -> None:
        if download.file is not None:
            download.file.close()
        download.file = await self._in_thread(self._create)
        download.done, download.total = 0, int(response.headers.get("content-length", "0"))
        download.etag = response.headers.get("etag", "")

    def _drop(self, download: _Download) -> None:
        """Remove what came so far: it takes the room that others need, and the next attempt begins anew."""
        if download.file is not None:
            download.file.close()
        download.file, download.done, download.etag = None, 0, ""
        path = f"{self._directory}/{FETCHED}{TMP}"
        if self._disk.exists(path):
            self._disk.remove(path)

    def _create(self) -> File:
        path = f"{self._directory}/{FETCHED}{TMP}"
        if self._disk.exists(path):
            self._disk.remove(path)
        return self._disk.create(path)

    @staticmethod
    def _check_resumed(response: httpx.Response, download: _Download) -> None:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        expected = (download.done, download.total)
        if match is None or (int(match[1]), int(match[3])) != expected or response.headers.get("etag") != download.etag:
            download.done = 0
            raise LinkEnded("the leader went on with another part than was asked for")

    def _prove(self) -> Fetched:
        """Prove the whole file and rename it, in the worker thread."""
        unfinished, path = f"{self._directory}/{FETCHED}{TMP}", f"{self._directory}/{FETCHED}"
        with closing(self._disk.open(unfinished)) as file:
            try:
                tail = snapshot_format.verify(file, unfinished)
            except SnapshotDamaged:
                self._disk.remove(unfinished)
                raise
        self._disk.rename(unfinished, path)
        self._disk.sync_directory(self._directory)
        return Fetched(path, tail)

    def _headers(self) -> dict[str, str]:
        token = self._token()
        headers = {"accept-encoding": "identity"}
        return headers | {"authorization": f"Bearer {token}"} if token else headers

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
    tail = await run(partial(_newest_tail, disk, data_directory, tell), blocks=disk.blocks)
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


def _newest_tail(disk: Disk, data_directory: str, tell: Callable[[DiskFault], None]) -> Tail | None:
    """Give the tail of the newest valid snapshot here, and make its name durable; None without one."""
    store = Store(disk, data_directory)
    for info in store.list():
        try:
            tail = store.verify(info)
        except SnapshotDamaged as damage:
            tell(damage)
        else:
            # The process that renamed it may have ended before the sync. A log is about to begin after it.
            disk.sync_directory(store.directory)
            return tail
    return None
