"""A storm over a cluster: kills, stops, restarts, cut and stalled wires, promotions; one seed draws all of it.

    python -m tests.cluster.storm [--rounds 20] [--seed N] [--directory DIR]
    python -m tests.cluster.storm --quorum …                `tests.cluster.takeovers`: a quorum on servers of NATS

In each round backends write while blows hit two to four of the seven nodes and wires, each at a time of its own and for
a time of its own. Then the backends stop, all nodes must become equal, and the books must balance. Every third round
ends with a promotion. Readers read from each replica all the time.

The seed decides which blow hits which node and when. It does not decide how processes take turns: the same seed gives
the same storm, but not the same run.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from tests.cluster import checks, promotions, takeovers
from tests.cluster.cluster import REPLICAS, SLOTS, WIRES, Cluster, boards_of
from tests.cluster.readers import Reader, Seen
from tests.cluster.takeovers import draw_seed, say
from tests.e2e import leader
from tests.e2e.backends import Backend, Books, work_until_gone

BACKENDS = 4
BEGIN_SECONDS_MAX = 1.0
LAST_SECONDS_MAX = 1.2
STALL_LONG_SECONDS = 12.0
"""Longer than a link may be silent: both ends must find out by themselves that it is dead."""

STALLS_LONG = 0.1
KILLED_WHILE_STARTING = 0.25
PROMOTION_EVERY = 3


@dataclass(frozen=True)
class Blow:
    """Something that happens to a node or a wire, after a time and for a time."""

    what: str
    whom: str
    after_seconds: float
    seconds: float


@dataclass
class Storm:
    """A storm over one cluster, and its counts."""

    cluster: Cluster
    seed: int
    long_stalls: bool = True
    books: Books = field(default_factory=Books)
    seen: Seen = field(default_factory=Seen)
    blows: Counter[str] = field(default_factory=Counter)
    promotions: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        bearer = leader.token("scores:write", "scores:read", "users:write", seconds=24 * 3600)
        self.backends = [Backend(f"backend-{number}", self.seed, self.books, bearer) for number in range(BACKENDS)]

    async def run(self, rounds: int) -> None:
        """Start all nodes, run the rounds, end all nodes."""
        async with trio.open_nursery() as nursery:
            try:
                for wire in self.cluster.wires.values():
                    await nursery.start(wire.run)
                await self.cluster.start("leader")
                async with trio.open_nursery() as starting:
                    for slot in REPLICAS:
                        starting.start_soon(self.cluster.start, slot)
                for slot in REPLICAS:
                    for carrying in (True, False):
                        reader = Reader(self.cluster, slot, boards_of(slot)[0], self.seen, carrying=carrying)
                        nursery.start_soon(reader.read)
                for number in range(1, rounds + 1):
                    await self.round(number)
            finally:
                await self.cluster.end()
            nursery.cancel_scope.cancel()

    async def round(self, number: int) -> None:
        """Run one round of blows under load; then all nodes must be equal, and the books must balance."""
        plan = self.draw()
        began = time.monotonic()
        say(f"round {number}: " + ", ".join(f"{blow.what} {blow.whom}" for blow in plan))
        async with trio.open_nursery() as writing:
            writing.start_soon(self.write)
            async with trio.open_nursery() as falling:
                for blow in plan:
                    falling.start_soon(self.fall, blow)
            writing.cancel_scope.cancel()
        if number % PROMOTION_EVERY == 2:
            running = self.promotions.total() % 2 == 0
            await promotions.promote(self.cluster, self.books, self.dice, running=running)
            self.promotions["running" if running else "stopped"] += 1
        seq = await checks.settle(self.cluster, self.books)
        await checks.check_replicas(self.cluster, seq)
        await checks.check_books(self.cluster, self.books)
        say(f"         equal at seq {seq}, {time.monotonic() - began:.1f} s")

    def draw(self) -> list[Blow]:
        """Draw the blows of a round: never two for the same node or wire."""
        dice = self.dice
        targets = [("node", slot) for slot in SLOTS] + [("wire", name) for name in WIRES]
        plan = []
        for kind, whom in dice.sample(targets, dice.randint(2, 4)):
            what = dice.choice(("kill -9", "SIGTERM") if kind == "node" else ("cut", "stall", "refuse"))
            after, lasts = dice.uniform(0.0, BEGIN_SECONDS_MAX), dice.uniform(0.05, LAST_SECONDS_MAX)
            if what == "stall" and self.long_stalls and dice.random() < STALLS_LONG:
                lasts = STALL_LONG_SECONDS
            plan.append(Blow(what, whom, after, lasts))
        return plan

    async def write(self) -> None:
        """Let the backends write to the present leader until cancelled."""
        while True:
            node = await self.cluster.up("leader")
            await work_until_gone(self.backends, node.host, node.port)
            await trio.sleep(checks.AGAIN_SECONDS)

    async def fall(self, blow: Blow) -> None:
        """Let one blow fall, and mend what it broke."""
        again = random.Random(f"{self.seed} {blow}")
        await trio.sleep(blow.after_seconds)
        self.blows[blow.what] += 1
        if blow.what in ("kill -9", "SIGTERM"):
            number = signal.SIGKILL if blow.what == "kill -9" else signal.SIGTERM
            await self.cluster.stop(blow.whom, number)
            await trio.sleep(blow.seconds)
            if again.random() < KILLED_WHILE_STARTING:
                self.blows["kill -9 while it starts"] += 1
                await self.kill_while_starting(blow.whom, again.uniform(0.0, 1.5))
            await self.cluster.start(blow.whom)
            return
        wire = self.cluster.wires[blow.whom]
        {"cut": wire.cut, "stall": wire.stall, "refuse": wire.refuse}[blow.what]()
        await trio.sleep(blow.seconds)
        wire.mend()

    async def kill_while_starting(self, slot: str, seconds: float) -> None:
        """Kill a node somewhere between its start and its first answers."""
        node = await self.cluster.begin(slot)
        try:
            with trio.move_on_after(seconds):
                await node.wait_ready()
        finally:
            await node.kill()

    def report(self) -> str:
        """What the storm was, in a few lines."""
        books, seen = self.books, self.seen
        carried = {name: wire.carried for name, wire in self.cluster.wires.items()}
        lines = [f"blows: {dict(self.blows)}; process starts: {self.cluster.starts}"]
        lines.append(f"promotions: {dict(self.promotions)}")
        lines.append(f"actions: {len(books.acknowledged)} acknowledged, {books.retried} sent again")
        lines.append(f"         {books.duplicates} repeated, {books.conflicts} contradicted")
        lines.append(f"reads: {dict(seen.answers)}, {seen.stale} stale, refused {dict(seen.refusals)}")
        lines.append(f"wires: {carried} bytes carried")
        return "\n".join(lines)


async def run_storm(root: Path, rounds: int, seed: int, *, long_stalls: bool) -> Storm:
    """Run a storm in a directory."""
    storm = Storm(Cluster(root), seed, long_stalls)
    await storm.run(rounds)
    return storm


def main() -> int:
    """Run a storm from the command line."""
    if "--quorum" in sys.argv:
        return takeovers.main([argument for argument in sys.argv[1:] if argument != "--quorum"])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", type=Path, help="where to keep the directories of the nodes afterwards")
    options = parser.parse_args()
    seed = options.seed or draw_seed()
    say(f"seed {seed}: run again with make storm ARGS='--rounds {options.rounds} --seed {seed}'")
    with tempfile.TemporaryDirectory() as temporary:
        root = options.directory or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        storm = trio.run(partial(run_storm, root, options.rounds, seed, long_stalls=True))
    say(storm.report())
    return 0


if __name__ == "__main__":
    sys.exit(main())
