"""A file that is downloaded from another node, through cuts: a snapshot, a file of older actions, a past period.

    downloads = Downloads(leader, disk, token=token, uniform=uniform, tell=tell, refusal=refusal)
    if await downloads.fill(SNAPSHOT_PATH, "data/fetched.snapshot.tmp", "snapshot"): …     False: the node has none

Rules:
- A cut download is resumed while the node still has the same content (ETag). Otherwise it begins anew.
- A node that can't be reached is tried again without end, with full jitter. Each reason is told. A download that is
  not `patient` ends with the first attempt that brings nothing more.
- What does not fit on the disk is removed, because others need the room, and it is tried again.
- Nothing is proved here. What came is on disk when `fill` returns.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import httpx
import msgspec

from engine.disk import Disk, File
from engine.errors import NoSpace
from engine.threads import run
from server import bounds
from server.replication.link import Endpoint, LinkEnded, reason_of
from server.replication.retry import Backoff

ShowBytes = Callable[[int, int], None]
"""Takes bytes done and bytes in all."""

Refusal = Callable[[httpx.Response], Awaitable[LinkEnded]]
"""Says why an answer has no file. Its body is not read yet."""

_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)")
T = TypeVar("T")


class _Download(msgspec.Struct):
    """A file that is being filled: `done` bytes of `total` are there, of the content that `etag` names."""

    path: str
    file: File | None = None
    etag: str = ""
    done: int = 0
    total: int = 0


def http_client(timeout: httpx.Timeout) -> httpx.AsyncClient:
    """Make a client that connects as the link does: without a proxy, with the certificates that this machine trusts."""
    return httpx.AsyncClient(timeout=timeout, verify=ssl.create_default_context(), trust_env=False)


def no_bytes(_done: int, _total: int) -> None:
    """Show nothing."""


def headers_with(token: str) -> dict[str, str]:
    """Give the headers of a request to another node."""
    headers = {"accept-encoding": "identity"}
    return headers | {"authorization": f"Bearer {token}"} if token else headers


class Downloads:
    """Downloads files from one node."""

    def __init__(
        self,
        node: Endpoint,
        disk: Disk,
        *,
        token: Callable[[], str],
        uniform: Callable[[float, float], float],
        tell: Callable[[str], None],
        refusal: Refusal,
        read_seconds_max: float = bounds.SNAPSHOT_READ_SECONDS_MAX,
    ) -> None:
        """`tell` takes the reason of each attempt that failed."""
        self._node = node
        self._disk = disk
        self._token = token
        self._uniform = uniform
        self._tell = tell
        self._refusal = refusal
        self._timeout = httpx.Timeout(read_seconds_max)

    async def fill(
        self, target: str, path: str, what: str, progress: ShowBytes = no_bytes, *, patient: bool = True
    ) -> bool:
        """Fill the file `path` with what the node has at `target`, in any number of attempts; False if it has nothing.

        A file of that path is replaced. `what` is its name for people. If not `patient`, False also means: not now.
        """
        download = _Download(path)
        backoff = Backoff(self._uniform)
        try:
            async with http_client(self._timeout) as client:
                while True:
                    done = download.done
                    try:
                        return await self._attempt(client, target, download, progress)
                    except (httpx.HTTPError, LinkEnded) as error:
                        failed = "the download was cut" if download.done else f"no {what} came"
                        self._tell(f"{failed}: {reason_of(error)}")
                    except NoSpace as fault:
                        self._tell(f"the download does not fit on the disk: {fault.what}")
                        await self._in_thread(partial(self._drop, download))
                        backoff.to_cap()
                    if download.done > done:
                        backoff.reset()
                    elif not patient:
                        return False
                    await backoff.wait()
        finally:
            if download.file is not None:
                download.file.close()

    async def _attempt(
        self, client: httpx.AsyncClient, target: str, download: _Download, progress: ShowBytes
    ) -> bool:  # fmt: skip
        """Ask for the rest, and sync it; False if there is nothing. Raises `LinkEnded`, or errors of httpx."""
        headers = headers_with(self._token())
        if download.done:
            headers |= {"range": f"bytes={download.done}-", "if-range": download.etag}
        async with client.stream("GET", self._node.url(target), headers=headers) as response:
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

    async def _begin(self, response: httpx.Response, download: _Download) -> None:
        if download.file is not None:
            download.file.close()
        download.file = await self._in_thread(partial(self._create, download.path))
        download.done, download.total = 0, int(response.headers.get("content-length", "0"))
        download.etag = response.headers.get("etag", "")

    def _drop(self, download: _Download) -> None:
        """Remove what came so far: it takes the room that others need, and the next attempt begins anew."""
        if download.file is not None:
            download.file.close()
        download.file, download.done, download.etag = None, 0, ""
        if self._disk.exists(download.path):
            self._disk.remove(download.path)

    def _create(self, path: str) -> File:
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

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await run(work, blocks=self._disk.blocks)
