"""Erasing users in a simulated run: what the operators still have to do on each node, and how it is judged.

    wanted     who must be erased by the node that leads next, in order
    left       who must be erased from the files of the other nodes, since they were erased at the leader

A leader is stopped, erases, and starts again; if it is killed meanwhile, the next start goes on before it serves. A
replica that had the user begins anew from the leader's snapshot. Then it is stopped, what it set aside is removed, and
its files forget the user too.

After each of it no file of the disk names the user. That others keep what they have, that the log verifies, and that
replicas come to the leader's state, is judged as after any start.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

from engine.disk import Disk
from engine.errors import DiskFault
from engine.recovery import Finding
from snapshots.erasing import ErasureRefused, ErasureReport, erase_users
from tests.sim.books import Books, Broken
from tests.sim.disk import Machine
from tests.sim.plain_erasures import names
from tests.sim.process import DATA
from tests.sim.storage import DirectoryNode
from tests.sim.trace import Trace

CALLER = "officer"
_GZIP_WINDOW = 31

Erase = Callable[[str], ErasureReport]
"""Erases a user on a disk."""


class Auditor(Protocol):
    """Looks for erased users on the disks at the end."""

    def audit(self, name: str, machine: Machine) -> None:
        """Look at the disk of a node that has ended."""


class Erasures:
    """See above."""

    def __init__(self, nodes: Sequence[str], books: Books, trace: Trace) -> None:
        self.wanted: list[str] = []
        self.left: dict[str, list[str]] = {}
        self._nodes = nodes
        self._books = books
        self._trace = trace

    def __str__(self) -> str:
        return f"at the leader {self.wanted}, elsewhere {self.left}"

    def want(self, user: str) -> None:
        """Note that a user must be erased."""
        if user not in self.wanted:
            self.wanted.append(user)

    def has_work(self, name: str, *, leads: bool) -> bool:
        """Whether a node must erase somebody before it serves."""
        self._forget_who_is_back()
        return bool(self.left.get(name) or (leads and self.wanted))

    def work(self, name: str, machine: Machine, erase: Erase, *, leads: bool) -> str | None:
        """Erase the next user on a node; give who it is if the leader's log must be looked at now."""
        if leads and self.wanted:
            [user, *_] = self.wanted
            self._books.erasing = user
            self._trace.note(name, "erases", user)
            if not erase(user).erased:
                # The leader has forgotten the user. A replica whose log goes further back would have to begin anew.
                self._books.counts["erasures of nobody"] += 1
                self.wanted.remove(user)
            remove_asides(machine)
            self._search(name, machine, user)
            return user
        [user, *others] = self.left[name]
        self._trace.note(name, "erases from its files", user)
        if leads:
            self._books.erasing = user
        try:
            erase(user)
        except ErasureRefused:
            self._books.counts["erasures that a replica waits for"] += 1
            self.left[name] = [*others, user]
            return None
        remove_asides(machine)
        self._search(name, machine, user)
        self._books.counts["users erased from other nodes"] += 1
        self.left[name] = others
        return user if leads else None

    def done(self, name: str, user: str) -> None:
        """Note that the leader has erased a user, and that its log says so. The files of the other nodes are next."""
        if user in self.wanted:
            self.wanted.remove(user)
            for other in self._nodes:
                if other != name and user not in self.left.setdefault(other, []):
                    self.left[other].append(user)

    def _forget_who_is_back(self) -> None:
        back = self._books.plain.erasures.back(self._books.plain.events) if any(self.left.values()) else []
        for name, users in self.left.items():
            self.left[name] = [user for user in users if user not in back]

    def _search(self, name: str, machine: Machine, user: str) -> None:
        if found := places(machine, user):
            raise Broken(f"{user} was erased on {name}, and is named in {found}")
        self._books.counts["disks searched"] += 1

    def audit(self, name: str, machine: Machine) -> None:
        """Look at the disk of a node that has ended: who was erased, and is not back, can be erased there for good."""
        plain = self._books.plain
        back = plain.erasures.back(plain.events)
        for user in [user for user in plain.erasures.users if user not in back]:
            try:
                report = erase_on(machine.boot(), user, lambda: 0, lambda _: None, 2**20)
            except ErasureRefused as refused:
                raise Broken(f"{user} is erased, and {name} has not begun anew: {refused}") from refused
            if any(each.applied for each in report.erased) and user in {each.user_id for each in report.erased}:
                self._books.counts["erased a second time from past periods"] += 1
            remove_asides(machine)
            self._search(name, machine, user)


def erase_on(
    disk: Disk, user: str, clock_ms: Callable[[], int], tell: Callable[[Finding | DiskFault], None], segment_bytes: int
) -> ErasureReport:
    """Erase as `scoreboard erase users` does."""
    return erase_users(
        disk, DATA, [user], caller=CALLER, clock_ms=clock_ms, tell=tell, segment_bytes=segment_bytes
    )  # fmt: skip


def remove_asides(machine: Machine, paths: Sequence[str] = ("/", DATA)) -> None:
    """Remove what a demotion left in the root, and what a replica set aside when it began anew, durably."""
    for path in paths:
        node = machine.node(path)
        if isinstance(node, DirectoryNode):
            gone = [name for name in node.names if name.startswith(("aside-", f"{DATA[1:]}.aside-"))]
            for name in gone:
                del node.names[name]
            node.sync()


def places(machine: Machine, user: str) -> list[str]:
    """List the files of a disk that name a user, as programs see them or as they are on the disk."""
    found = []
    for path, node in machine.files("/").items():
        if any(names(_unpacked(path, bytes(data)), user) for data in (node.cached, node.durable)):
            found.append(path)
    return found


def _unpacked(path: str, data: bytes) -> bytes:
    """Unpack a compressed segment; one that is no whole one is searched as it is."""
    if not path.endswith((".gz", ".gz.tmp")):
        return data
    try:
        return zlib.decompressobj(_GZIP_WINDOW).decompress(data)
    except zlib.error:
        return data
