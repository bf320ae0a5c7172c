"""A storm over a quorum on real servers of NATS: kills, pauses, cuts, slow disks, wrong clocks, lost answers.

    make storm ARGS="--quorum --rounds 100 --seed 77"       python -m tests.cluster.takeovers [--directory DIR]

Each round is one blow of `tests.cluster.blows`, under load. Then all is healed, the callers stop, and
`tests.cluster.takeover_checks` holds. The readers of each node read all the time.

The blows come in turns: each kind once in each turn, in an order that the seed draws. Pauses take some seconds. In a
storm of 100 rounds the first pause of each kind takes LONG_SECONDS.

The gap of a round is the longest time without any acknowledgement, as the callers saw it.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from server.faults import first_of
from tests.cluster import takeover_checks as checks
from tests.cluster.blows import KINDS, PAUSES, Scene, missing
from tests.cluster.callers import Acknowledged, Caller, Gate, Shown, read
from tests.cluster.quorum_cluster import NODES, QuorumCluster

CALLERS = 4
SECONDS = (4.0, 8.0)
"""The shortest and the longest blow, but for the long pauses."""

LONG_SECONDS = 30.0
LONG_EVERY_ROUNDS = 100
WHOLE_EVERY = 10
"""In so many rounds the logs are compared from their begin once, else what is new in them."""

QUIET_SECONDS_MAX = 60.0
"""The longest wait for the first acknowledgement after all is healed."""


@dataclass
class Takeovers:
    """A storm over one cluster, and what it measured. `gaps` are in seconds, by kind."""

    cluster: QuorumCluster
    seed: int
    kinds: Sequence[str]
    seconds: tuple[float, float] = SECONDS
    told: Acknowledged = field(default_factory=Acknowledged)
    shown: Shown = field(default_factory=Shown)
    gaps: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.gate = Gate()
        self.archive = checks.Archive()

    async def run(self, rounds: int) -> None:
        """Start everything, run the rounds, end everything."""
        async with trio.open_nursery() as nursery:
            try:
                await self.cluster.run(nursery)
                callers = [Caller(f"caller-{n}", self.seed, self.cluster, self.told) for n in range(CALLERS)]
                checker = Caller("checker", self.seed, self.cluster, self.told)
                for caller in callers:
                    nursery.start_soon(caller.call, self.gate)
                for name in NODES:
                    nursery.start_soon(read, self.cluster, name, self.shown)
                await self._settle(checker, whole=True)
                for number, (kind, seconds) in enumerate(self.plan(rounds), 1):
                    await self._round(number, kind, seconds)
                    await self._settle(checker, whole=number % WHOLE_EVERY == 0 or number == rounds)
            finally:
                await self.cluster.end()
            nursery.cancel_scope.cancel()

    def plan(self, rounds: int) -> Iterator[tuple[str, float]]:
        """Draw the blows and their lengths."""
        turn: list[str] = []
        long: set[str] = set()
        for number in range(rounds):
            if number % LONG_EVERY_ROUNDS == 0:
                long = set(PAUSES) if rounds >= LONG_EVERY_ROUNDS else set()
            if not turn:
                turn = self.dice.sample(list(self.kinds), len(self.kinds))
            kind = turn.pop()
            yield kind, LONG_SECONDS if kind in long else self.dice.uniform(*self.seconds)
            long.discard(kind)

    async def _round(self, number: int, kind: str, seconds: float) -> None:
        began = time.monotonic()
        self.gate.open()
        acknowledged = len(self.told.books.acknowledged)
        await self.told.books.wait_acknowledged(acknowledged + 2 * CALLERS)
        self.told.begin()
        before = self.told.leader, max(self.told.leaders)
        whom = await KINDS[kind](Scene(self.cluster, self.told, random.Random(f"{self.seed} {number}"), seconds))
        await self.cluster.heal()
        with trio.fail_after(QUIET_SECONDS_MAX):
            await self.told.books.wait_acknowledged(len(self.told.books.acknowledged) + 2 * CALLERS)
        gap_s = self.told.longest_s
        self.gaps[kind].append(gap_s)
        epochs = f"{before[0]} led epoch {before[1]}, then {self.told.leader} {max(self.told.leaders)}"
        took_s = time.monotonic() - began
        say(f"{number:4} {kind} ({whom}), {seconds:.1f} s: gap {gap_s:.2f} s; {epochs}; {took_s:.1f} s")

    async def _settle(self, checker: Caller, *, whole: bool) -> None:
        """Stop the callers, and check."""
        await self.gate.close()
        seq = await checks.settle(self.cluster, checker, self.told)
        await checks.check(self.cluster, self.told, self.archive, seq, whole=whole)

    def report(self) -> str:
        """What was measured, in some lines."""
        books, shown, cluster = self.told.books, self.shown, self.cluster
        lines = [f"{'gap of writes in seconds':28} {'rounds':>6} {'p50':>6} {'p99':>6} {'max':>6}"]
        every = [gap for gaps in self.gaps.values() for gap in gaps]
        for name, gaps in [*sorted(self.gaps.items()), ("all", every)]:
            lines.append(
                f"{name:28} {len(gaps):6} {share(gaps, 0.5):6.2f} {share(gaps, 0.99):6.2f} {max(gaps, default=0):6.2f}"
            )
        lines.append(f"actions: {len(books.acknowledged)} acknowledged, {books.retried} sent again")
        lines.append(f"epochs: {max(self.told.leaders)}, one process each; {len(self.told.leaders)} took actions")
        lines.append(f"reads: {dict(shown.answers)}, stale {dict(shown.stale)}, refused {dict(shown.refusals)}")
        anew = sum(node.last_words(10**9).count('"fetches_snapshot"') for node in cluster.nodes.values())
        lines.append(f"snapshots fetched by nodes whose places were purged: {anew}")
        lines.append(f"process starts: {cluster.starts}, of which {cluster.failed_starts} found no quorum")
        return "\n".join(lines)


def say(line: str) -> None:
    """Print a line; pytest shows it on failure."""
    print(line, flush=True)  # noqa: T201  # what a storm has to say is for a person


def draw_seed() -> int:
    """A random seed."""
    return random.SystemRandom().randrange(1, 2**32)


def share(values: Sequence[float], part: float) -> float:
    """The value that this part of the values does not exceed (nearest rank); 0 without values."""
    return sorted(values)[math.ceil(part * len(values)) - 1] if values else 0.0


async def run_takeovers(
    root: Path, rounds: int, seed: int, *, kinds: Sequence[str], silence_seconds: int = 3,
    seconds: tuple[float, float] = SECONDS, broken: bool = False,
) -> Takeovers:  # fmt: skip
    """Run a storm in a directory."""
    storm = Takeovers(QuorumCluster(root, silence_seconds=silence_seconds, broken=broken), seed, kinds, seconds)
    try:
        await storm.run(rounds)
    finally:
        if storm.gaps:
            say(storm.report())
    return storm


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a storm from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", help="only these kinds of blows, with commas between")
    parser.add_argument("--directory", type=Path, help="where to keep the directories and logs afterwards")
    parser.add_argument("--broken", action="store_true", help="nodes as in tests.cluster.hasty: a loss must be found")
    options = parser.parse_args(arguments)
    seed = options.seed or draw_seed()
    say(f"seed {seed}: again with make storm ARGS='--quorum --rounds {options.rounds} --seed {seed}'")
    kinds = options.kinds.split(",") if options.kinds else [kind for kind in KINDS if kind not in missing()]
    for kind, reason in missing().items():
        say(f"left out: {kind} ({reason})")
    with tempfile.TemporaryDirectory() as temporary:
        root = options.directory or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        run = partial(run_takeovers, root, options.rounds, seed, kinds=kinds, broken=options.broken)
        if not options.broken:
            trio.run(run)
            say("after each round all that was acknowledged was found, once, and the nodes were equal")
            return 0
        found = ""
        try:
            trio.run(run)
        except* AssertionError as errors:
            found = str(first_of(errors))[:500]
    say(f"found: {found}" if found else "the broken nodes were not found out")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
