"""How a node of a simulated run follows another one: what a start of a replica does, and an operator before it.

an empty directory        gets its marker, and a snapshot or an empty log
an old leader's           is demoted: cut back to what the new leader has too; if it can't be, it is emptied
a replica's               is as it is
"""

from __future__ import annotations

import random
from functools import partial
from typing import Protocol

import trio

from engine.disk import Disk
from engine.errors import DiskFault
from engine.log_reader import holds_log
from engine.recovery import Finding
from server.node.assembly import FollowPlan
from server.node.directories import is_vouched
from server.replication.bootstrap import Bootstrap, prepare_directory
from server.replication.link import Endpoint, LinkEnded
from server.replication.progress import FollowingState
from server.replication.retry import retry_seconds
from snapshots.demotion import demote_directory
from snapshots.opening import log_directory
from snapshots.promotion import NO_RULES, Marker, read_marker, write_marker
from snapshots.restore import RestoreRefused
from snapshots.state import read_state
from tests.sim.books import Books, Broken
from tests.sim.disk import SimulatedDisk
from tests.sim.process import DATA
from tests.sim.profile import Profile


class Follows(Protocol):
    """The node that follows."""

    name: str

    def clock_ms(self) -> int:
        """Give the time of the wall."""

    def tell(self, what: Finding | DiskFault) -> None:
        """Take what recovery came upon."""

    def note(self, what: str, *details: object) -> None:
        """Note what happened."""


class Followership:
    """See above. `leader` is the name of the node that is followed."""

    def __init__(self, node: Follows, leader: str, profile: Profile, dice: random.Random, books: Books) -> None:
        self.leader = leader
        self._node = node
        self._profile = profile
        self._dice = dice
        self._books = books
        self._endpoint = Endpoint(f"{leader}.{node.name}", 80, False, "")

    async def prepare(self, disk: Disk) -> None:
        """Do what a start does before it opens the log. Waits for the leader where it needs something of it."""
        if read_marker(disk, DATA) is None:
            write_marker(disk, DATA, Marker(self._endpoint.url("")))
        if not holds_log(disk, log_directory(DATA)) and _has_log_aside(disk):
            # It was killed while it began anew. It goes on from the snapshot that is there, which may be the older one.
            self._books.counts["restarts of a log that were cut short"] += 1
            self._books.emptied(self._node.name)
        await prepare_directory(
            disk,
            DATA,
            self._bootstrap(disk),
            tell=self._node.tell,
            progress=self._fetched,
            segment_bytes=self._profile.segment_bytes,
        )

    async def demote(self, disk: Disk) -> None:
        """Make an old leader's directory a replica's, if it is one. Raises `RestoreRefused` if it can't be done."""
        if read_marker(disk, DATA) is not None or not holds_log(disk, log_directory(DATA)):
            return
        scoreboard, last = read_state(disk, DATA, NO_RULES, tell=lambda _: None)
        common = None
        for attempt in range(100):
            try:
                common = await self._bootstrap(disk).common(scoreboard.marks())
                break
            except LinkEnded as ended:
                self._node.note("can't ask for the fork", ended.reason)
                if ended.status in (404, 409):
                    raise RestoreRefused(ended.reason) from ended
            await trio.sleep(retry_seconds(attempt, self._dice.uniform))
        if common is None:
            raise RestoreRefused("the new leader does not say where its epoch began")
        report = demote_directory(
            disk,
            DATA,
            common,
            leader=self._endpoint.url(""),
            tell=self._node.tell,
            segment_bytes=self._profile.segment_bytes,
        )
        self._node.note("demoted", report.common_seq, report.last_seq)
        self._books.demoted[self._node.name] = report.actions
        if not holds_log(disk, log_directory(DATA)):
            self._node.note("nothing carried over")
            self._books.counts["demotions with nothing carried over"] += 1
            self._books.emptied(self._node.name)
        for action in report.actions:
            if self._books.acknowledged.get(action.action_id) == (last.epoch, action.seq):
                raise Broken(f"{action} was acknowledged, and set aside by the demotion of {self._node.name}")
        self._books.counts["demotions"] += 1
        self._books.counts["events set aside"] += report.events

    def plan(self, disk: SimulatedDisk) -> FollowPlan:
        """Say how the replica follows."""
        return FollowPlan(
            leader=self._endpoint,
            bootstrap=self._bootstrap(disk),
            token=str,
            durable=True,
            vouched=is_vouched(disk, DATA),
            on_progress=self._fetched,
            on_state=self._is,
        )

    def _is(self, state: FollowingState, reason: str) -> None:
        self._node.note("is", state, reason)
        self._books.counts[f"replica {state}"] += 1
        if state == "failed":
            raise Broken(f"{self._node.name} can follow no more: {reason}")

    def _bootstrap(self, disk: Disk) -> Bootstrap:
        return Bootstrap(
            self._endpoint,
            disk,
            DATA,
            token=str,
            uniform=self._dice.uniform,
            tell=partial(self._node.note, "bootstrap"),
        )

    def _fetched(self, done: int, total: int) -> None:
        if done == total:
            self._node.note("fetched a snapshot", total)
            self._books.counts["snapshots fetched"] += 1


def _has_log_aside(disk: Disk) -> bool:
    names = [name for name in disk.list_directory(DATA) if name.startswith("aside-")]
    return any(disk.exists(log_directory(f"{DATA}/{name}")) for name in names)
