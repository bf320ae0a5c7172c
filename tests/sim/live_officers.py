"""An officer of privacy in a simulated run, who has users erased by DELETE /users/{userId} while the leader runs.

    DELETE ──► the event ──► each node's own keeper: past periods, then all files, at a checkpoint or when it is due

Nobody stops a node for it. The keepers of the nodes have different times, some none at all. Kills at any step of the
disk, promotions and replicas that were away come in between as in every run.

Judged:
- What is answered: an erasure that is acknowledged is on disk, and nobody who plays is said to be unknown.
- The history of the user has nothing of before.
- While nodes run: a node whose keeper says that it is done has no file that names the user. What recovery cut off from
  the log before that time is gone, too.
- At the end: so it is with every node, whatever its power did.

All else that must hold of an erasure is judged as in every run: scores and ranks of others, the log from its first
byte, retries of the user's actions, and that replicas come to the leader's state.

A node that could not read its log when it began does not know who is to be erased. It finds out when the log is mended.

A user who plays again is named again, so the files are not searched for this user until the next erasure. What recovery
cut off from the log later may name a user whose new action nobody acknowledged.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from urllib.parse import quote

import trio

from engine.events import UserErased
from tests.sim.books import Books, Broken
from tests.sim.clients import Client
from tests.sim.cluster import Cluster
from tests.sim.disk import Machine
from tests.sim.erasures import places, remove_asides
from tests.sim.indexes import marked
from tests.sim.network import Network
from tests.sim.node import Node
from tests.sim.officers import OFFICER, PATIENCE_S, played
from tests.sim.profile import Following, Profile
from tests.sim.trace import Trace

LOOK_S = 1.0
TORN = ".torn-"
HOURS = (0, 0, 24)
"""What nodes allow an erasure. With 24 it is done by the next checkpoint, and by a stop."""


def with_privacy(following: Following, dice: random.Random) -> Following:
    """Give each machine its own time for erasures."""

    def timed(machine: Profile) -> Profile:
        return replace(machine, erase_within_hours=dice.choice(HOURS))

    return replace(following, leader=timed(following.leader), machines=tuple(map(timed, following.machines)))


class LiveOfficer(Client):
    """See above."""

    def __init__(self, cluster: Cluster, network: Network, dice: random.Random, books: Books, trace: Trace) -> None:
        super().__init__(OFFICER, network, dice, books, trace)
        self._cluster = cluster
        self._torn: dict[tuple[str, str], dict[str, bytes]] = {}

    async def work(self, until_s: float) -> None:
        """Have users erased until a time."""
        pause_s = self._dice.choice([0.5, 2.0, 4.0])
        while True:
            await trio.sleep(self._dice.expovariate(1 / pause_s))
            if trio.current_time() > until_s:
                return
            if users := played(self._books, self._dice):
                await self._erase(self._dice.choice(users))

    async def _erase(self, user: str) -> None:
        for hardware in self._cluster.machines.values():
            hardware.erases = True  # a keeper may be at work at any time from now on
        self._books.order("erase", user, None)
        erased_at, is_known = self._books.plain.erasures.erased_at(user), self._is_known(user)
        answer = await self._once("DELETE", f"/users/{quote(user)}")
        if answer is None or answer.status == 503:
            return
        if answer.status == 404:
            if is_known and self._is_known(user) and self._books.plain.erasures.erased_at(user) == erased_at:
                raise Broken(f"{user} plays, and could not be erased: {answer.body!r}")
            self._books.counts["erasures of nobody"] += 1
            return
        if answer.status == 409 and any(each.spoils_receipts for each in self._cluster.machines.values()):
            self._books.counts["erasures that a damaged log refused"] += 1
            return
        if answer.status != 200:
            raise Broken(f"the erasure of {user} was answered with {answer.status}: {answer.body!r}")
        told = json.loads(answer.body)
        self._see(told)
        event = self._books.plain.events[told["seq"] - 1]
        if not isinstance(event, UserErased) or event.user_id != user:
            raise Broken(f"the erasure of {user} was acknowledged as seq {told['seq']}: {event}")
        self._books.counts["users erased while serving" if told["applied"] else "users erased before"] += 1
        await self._look_back(user, told["seq"])

    def _is_known(self, user: str) -> bool:
        plain = self._books.plain
        return user in plain.users or any(user in board.scores for board in plain.boards.values())

    async def _look_back(self, user: str, seq: int) -> None:
        """Read what is told of a user who was erased."""
        answer = await self._once("GET", f"/scores/{quote(user)}/history?limit=100")
        if answer is None or answer.status != 200:
            return
        before = [entry for entry in json.loads(answer.body)["entries"] if entry["seq"] <= seq]
        if before:
            raise Broken(f"{user} was erased by seq {seq}, and the history still has {before}")
        self._books.counts["histories of erased users"] += 1

    # The files

    async def watch(self) -> None:
        """Look at the files of nodes that run, until cancelled."""
        while True:
            await trio.sleep(LOOK_S)
            for node in self._cluster.nodes:
                self._look_at(node)

    def _look_at(self, node: Node) -> None:
        process, plain = node.process, self._books.plain
        if process is None or not node.is_serving():
            return
        if process.log.tail.seq != process.scoreboard.seq:
            return  # what is on its way to the log may name a user who has just come back
        machine = self._cluster.machines[node.name].machine
        assert process.node.log_service is not None
        keeper = process.node.log_service._erasures
        if not keeper._knows:
            return
        unsettled = keeper.unsettled
        for user in plain.erasures.users:
            if plain.erasures.erased_at(user) > process.scoreboard.seq:
                continue
            if unsettled.find(user) is None:
                self._search(node.name, machine, user, "is served")
            else:
                self._torn[node.name, user] = {path: _bytes(machine, path) for path in places(machine, user)
                                               if TORN in path}  # fmt: skip

    def _search(self, name: str, machine: Machine, user: str, when: str) -> None:
        torn = self._torn.get((name, user), {})
        found = [path for path in places(machine, user) if TORN not in path or torn.get(path) == _bytes(machine, path)]
        plain = self._books.plain
        theirs = [seq for seq in plain.erasures.actions if getattr(plain.events[seq - 1], "user_id", None) == user]
        found += marked(machine, theirs)
        if found and user not in plain.erasures.back(plain.events):
            raise Broken(f"{user} was erased, {name} {when} and has settled it, and {user} is named in {found}")
        self._books.counts["disks searched while serving" if when == "is served" else "disks searched"] += 1

    async def rest(self) -> None:
        """Wait until the nodes that allow no time have done all. What rotted is put back: nobody could rewrite it."""
        for hardware in self._cluster.machines.values():
            hardware.mend()
        for _ in range(int(PATIENCE_S / LOOK_S)):
            late = [node for node in self._cluster.nodes if self._is_late(node)]
            if not late:
                return
            await trio.sleep(LOOK_S)
        raise Broken(f"nothing was wrong any more, and yet users are not erased from {[node.name for node in late]}")

    def _is_late(self, node: Node) -> bool:
        process, profile = node.process, self._cluster.machines[node.name].profile
        if process is None or process.node.log_service is None:
            return True
        keeper = process.node.log_service._erasures
        return not profile.erase_within_hours and (bool(keeper.unsettled) or not keeper._knows)

    def audit(self, name: str, machine: Machine) -> None:
        """Look at the disk of a node that has ended. The old directory of a demotion is for an operator to remove."""
        remove_asides(machine, ["/"])
        for user in self._books.plain.erasures.users:
            self._search(name, machine, user, "has ended")


def _bytes(machine: Machine, path: str) -> bytes:
    return bytes(machine.files("/")[path].cached)
