"""Fetching the file of a past period from the leader, or from the relay that this replica follows.

    done = await PeriodFetch(lambda: leader, disk, data_directory, token=token, uniform=uniform).fetch(seq, store)

A replica that began with a snapshot does not have the log that made its past periods, so it fetches their files.

Rules:
- A file is used only after all of it is proved, and if it is that of the period that was asked for.
- A cut download goes on as long as each attempt brings more (`server.replication.download`).
- A file that can't be had is no failure of following: the keeper tells it, and tries again later. Nothing is waited for
  here, because the keeper has periods to write meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial

import httpx

from engine.disk import TMP, Disk
from engine.errors import NoSpace, SnapshotDamaged
from engine.threads import run
from server.replication.download import Downloads
from server.replication.link import Endpoint, LinkEnded
from server.replication.messages import PERIOD_PATH
from snapshots.period_file import verify
from snapshots.period_store import PeriodStore

FETCHED = "fetched.period"


class PeriodFetch:
    """Asks a leader for the files of past periods. A download is kept in the data directory until it is whole."""

    def __init__(
        self, leader: Callable[[], Endpoint | None], disk: Disk, data_directory: str, *, token: Callable[[], str],
        uniform: Callable[[float, float], float],
    ) -> None:  # fmt: skip
        """`leader` gives the node to ask, None while none is known."""
        self._leader = leader
        self._disk = disk
        self._path = f"{data_directory}/{FETCHED}{TMP}"
        self._token = token
        self._uniform = uniform

    async def fetch(self, seq: int, store: PeriodStore) -> bool:
        """Fetch the file of a period into a store; False if that is not possible now. Raises `DiskFault`."""
        leader = self._leader()
        if leader is None:
            return False
        downloads = Downloads(
            leader, self._disk, token=self._token, uniform=self._uniform, tell=_say_nothing, refusal=_refusal
        )
        if not await downloads.fill(f"{PERIOD_PATH}?seq={seq}", self._path, "past period", patient=False):
            return False
        try:
            return await run(partial(self._place, seq, store), blocks=self._disk.blocks)
        except (NoSpace, SnapshotDamaged):
            return False

    def _place(self, seq: int, store: PeriodStore) -> bool:
        with closing(self._disk.open(self._path)) as file:
            head = verify(file, self._path)
        if head.seq == seq:
            store.adopt(seq, self._path)
        return head.seq == seq


def _say_nothing(_reason: str) -> None:
    """Leave it to the keeper, which tells each file that is missing once."""


async def _refusal(response: httpx.Response) -> LinkEnded:
    return LinkEnded(f"the node answered with status {response.status_code}", response.status_code)
