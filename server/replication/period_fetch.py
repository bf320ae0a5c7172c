"""Fetching the file of a past period from the leader, or from the relay that this replica follows.

    done = await PeriodFetch(lambda: leader, disk, data_directory, token=token).fetch(seq, store)

A replica that began with a snapshot does not have the log that made its past periods, so it fetches their files.

Rules:
- A file is used only after all of it is proved, and if it is that of the period that was asked for.
- A file that can't be had is no failure of following: the keeper tells it, and tries again later.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import TypeVar

import httpx

from engine.disk import TMP, Disk, File, FileMissing
from engine.errors import NoSpace, SnapshotDamaged
from engine.threads import run
from server import bounds
from server.replication.download import headers_with, http_client
from server.replication.link import Endpoint
from server.replication.messages import PERIOD_PATH
from snapshots.period_file import verify
from snapshots.period_store import PeriodStore

FETCHED = "fetched.period"

T = TypeVar("T")


class PeriodFetch:
    """Asks a leader for the files of past periods. A download is kept in the data directory until it is whole."""

    def __init__(
        self, leader: Callable[[], Endpoint | None], disk: Disk, data_directory: str, *, token: Callable[[], str]
    ) -> None:
        """`leader` gives the node to ask, None while none is known."""
        self._leader = leader
        self._disk = disk
        self._path = f"{data_directory}/{FETCHED}{TMP}"
        self._token = token
        self._timeout = httpx.Timeout(bounds.SNAPSHOT_READ_SECONDS_MAX)

    async def fetch(self, seq: int, store: PeriodStore) -> bool:
        """Fetch the file of a period into a store; False if that is not possible now. Raises `DiskFault`."""
        leader, token = self._leader(), self._token()
        if leader is None:
            return False
        target = leader.url(f"{PERIOD_PATH}?seq={seq}")
        try:
            async with (
                http_client(self._timeout) as client,
                client.stream("GET", target, headers=headers_with(token)) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    return False
                await self._receive(response)
            return await self._in_thread(partial(self._place, seq, store))
        except (httpx.HTTPError, NoSpace, SnapshotDamaged):
            return False

    async def _receive(self, response: httpx.Response) -> None:
        file = await self._in_thread(self._create)
        with closing(file):
            done = 0
            async for piece in response.aiter_raw():
                await self._in_thread(partial(file.write_at, done, piece))
                done += len(piece)
            await self._in_thread(file.sync)

    def _create(self) -> File:
        with suppress(FileMissing):
            self._disk.remove(self._path)
        return self._disk.create(self._path)

    def _place(self, seq: int, store: PeriodStore) -> bool:
        with closing(self._disk.open(self._path)) as file:
            head = verify(file, self._path)
        if head.seq == seq:
            store.adopt(seq, self._path)
        return head.seq == seq

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await run(work, blocks=self._disk.blocks)
