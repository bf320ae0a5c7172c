"""The soak: rounds of steady load on one data directory, each with a leader of its own, and what they add up to.

    round:  start ─► load and a sample each second ─► SIGTERM, or kill -9, in turn ─► the next
    end:    start ─► the leader is compared with the books ─► log and snapshots are verified ─► judgement

Segments are short and the log is kept for a minute, so sealing, compressing, checkpoints and retention happen all the
time; the number of files is flat only if they balance. The index of actions only grows, and the server tells its size:
memory is judged without it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isnan
from pathlib import Path

import trio

from tests.e2e import leader
from tests.e2e.client import Client, ConnectionLost
from tests.measuring import open_files, rss_bytes
from tests.soak.load import BATCH_ITEMS, Backend, Measures, check_books, read, watch
from tests.soak.samples import Sample

SEGMENT_BYTES = 256 * 1024
TRUSTED = {"engine.limits.CLOCK_TRUSTED_S": 0.0}
"""A leader here does not live for the hour until it removes segments by their age."""
SAMPLE_SECONDS = 1.0
SAMPLES_MIN = 2
SETTLE_SECONDS = 2.0
"""After a start, before the first sample: clients connect, and send unanswered requests again."""

CONFIG = """
[limits]
caller_per_minute = 1000000000
user_per_minute = 1000000000
[snapshots]
every_events = 10000
[log]
keep = "60s"
"""


@dataclass(frozen=True)
class Load:
    """The number of each client; together some 525 increments and 60 reads a second."""

    posters: int = 5
    posts_per_second: float = 25.0
    batchers: int = 2
    batches_per_second: float = 2.0
    readers: int = 3
    viewers: int = 50


@dataclass
class Outcome:
    """The samples and the sums of a soak."""

    samples: list[Sample] = field(default_factory=list)
    measures: Measures = field(default_factory=Measures)
    restarts: dict[str, int] = field(default_factory=lambda: {"SIGTERM": 0, "kill -9": 0})
    counted: int = 0

    @property
    def checkpoints(self) -> int:
        """How many different snapshots the samples saw."""
        return len({sample.snapshot_seq for sample in self.samples} - {0})


async def soak(data: Path, config: Path, rounds: int, round_seconds: float, load: Load) -> Outcome:
    """Run it; `config` is a file with CONFIG. AssertionError: an action is lost, or a score is not the sum."""
    outcome = Outcome()
    bearer = leader.token("admin", seconds=30 * 24 * 3600)
    backends = [Backend(f"poster-{n}", n, 1, load.posts_per_second) for n in range(load.posters)]
    backends += [Backend(f"batcher-{n}", n, BATCH_ITEMS, load.batches_per_second) for n in range(load.batchers)]
    began = trio.current_time()
    for number in range(rounds):
        serving = leader.serving(data, config=config, segment_bytes=SEGMENT_BYTES, constants=TRUSTED)
        async with serving as node, trio.open_nursery() as nursery:
            for backend in backends:
                nursery.start_soon(backend.work, node.host, node.port, bearer, outcome.measures)
            for _ in range(load.readers):
                nursery.start_soon(read, node.host, node.port, bearer, backends[0], outcome.measures)
            for _ in range(load.viewers):
                nursery.start_soon(watch, node.host, node.port, outcome.measures)
            await _sample(node, data, number, began, trio.current_time() + round_seconds, outcome)
            if number % 2:
                await node.kill()
                outcome.restarts["kill -9"] += 1
            else:
                assert await node.terminate() == 0, node.stderr()[-2000:]
                outcome.restarts["SIGTERM"] += 1
    async with leader.serving(data, config=config, segment_bytes=SEGMENT_BYTES) as node:
        outcome.counted = await check_books(node.host, node.port, bearer, backends, outcome.measures)
        assert await node.terminate() == 0
    for verb in ("log", "snapshot"):
        done = await leader.run(verb, "verify", "--data-dir", str(data))
        assert done.returncode == 0, done.stderr.decode()
    assert not outcome.measures.faults, outcome.measures.faults[0]
    return outcome


async def _sample(node: leader.Leader, data: Path, number: int, began: float, until: float, outcome: Outcome) -> None:
    """Take a sample each second, at least SAMPLES_MIN; a leader that ended by itself is a fault."""
    taken = 0
    async with Client(node.host, node.port) as client:
        await trio.sleep(SETTLE_SECONDS)
        outcome.measures.take()
        while taken < SAMPLES_MIN or trio.current_time() < until:
            await trio.sleep(SAMPLE_SECONDS)
            taken += 1
            try:
                metrics = (await client.get("/metrics")).body.decode()
            except ConnectionLost:
                raise AssertionError(f"the leader ended by itself:\n{node.stderr()[-2000:]}") from None
            sample = Sample(
                at_seconds=trio.current_time() - began,
                leader=number,
                rss_bytes=rss_bytes(node.process.pid),
                index_bytes=_metric(metrics, "scoreboard_action_index_bytes"),
                snapshot_seq=_metric(metrics, "scoreboard_snapshot_seq"),
                open_files=open_files(node.process.pid),
                disk_files=_files_in(data),
                latencies_ms=outcome.measures.take(),
            )
            outcome.samples.append(sample)


def _files_in(data: Path) -> int:
    return sum(path.is_file() for path in data.rglob("*"))


def _metric(text: str, name: str) -> int:
    """A whole number of the metrics; 0 where there is none yet, which is NaN there."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return 0 if isnan(float(value)) else int(float(value))
    raise AssertionError(f"there is no metric {name}")
