"""What do replicas cost a leader, and how far behind it are they?

    python -m bench.replication [--viewers 38000] [--rounds 7] [--seconds 3] [--events 300000] [--users 1000000]

    viewers      two replicas with half of the viewers each: from a POST at the leader to the message at the last
                 viewer, on a quiet board and while a backend increments 5,000 times a second
    writes       how many increments the leader takes with two replicas and their viewers, beside another leader
                 without; they take turns, and the load has priority over replicas and viewers
    lag          at 5,000 increments a second: from a receipt to an answer of a replica that has it
    catching up  a new replica: how many events a second from the log, how many MB a second from a snapshot

The leaders are on processor 0. The replicas, the viewers and the load are on processor 1. The replicas with viewers
keep nothing on disk: in production they have disks of their own, and here their syncs would wait with the leader's.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec

from bench import restart, tables
from bench.end_to_end import percentile
from bench.following import Lateness, SteadyWriter, measure_lateness, wait_for
from bench.history import record
from bench.load import Load, Workload, run_load
from bench.servers import Server, leader, replica, token, wait_ready
from bench.turns import median, per_second, ratio, server_us, take_turns
from bench.viewers import ViewerLoad
from bench.viewers_peers import USERS, Poster
from bench.wanted import Wanted, show_wanted

LEADER_PROCESSOR, OTHERS_PROCESSOR = 0, 1
REPLICAS = 2
CONFIG = """
[live]
max_viewers = 19500
max_viewers_per_address = 19500
[snapshots]
every_events = 1000000000
"""
QUIET_SECONDS = 1.0
"""Between two probes: by then 38,000 viewers have the message, and the next one goes out at once."""

WRITERS = 32
LAG_PER_SECOND, LAG_SECONDS = 5_000, 15.0
BUSY_PER_SECOND = 5_000
SPARE_FILES = 600
LAST = 19
"""The lowest priority of a process (nice)."""
CATCH_UP_ROUNDS = 3
PROBES = 15


class Watched(msgspec.Struct, frozen=True):
    """From a POST to the last viewer of all replicas, in ms: the median and the worst of the probes."""

    viewers: int
    quiet_ms_p50: float
    quiet_ms_max: float
    busy_ms_p50: float
    busy_ms_max: float
    closed: int


class CatchUp(msgspec.Struct, frozen=True):
    """A new replica: `seconds` until it answers with the last event, without `start_seconds`.

    `start_seconds` is what a replica takes whose leader has a single event.
    """

    what: str
    seconds: float
    start_seconds: float
    events: int = 0
    megabytes: float = 0.0


def open_files(viewers: int) -> int:
    """Raise the limit of open files as far as it goes; give how many viewers each replica can have with it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    each = min(viewers // REPLICAS, hard - SPARE_FILES)
    if each < viewers // REPLICAS:
        print(f"a process may open {hard:,} files here, so each replica has {each:,} viewers; raise `ulimit -Hn`")
    return each


# ---- viewers and writes ----------------------------------------------------------------------------------------------


class Audience(msgspec.Struct, frozen=True):
    """The replicas of a leader, and the viewers of each."""

    replicas: list[Server]
    loads: list[ViewerLoad]

    def step_aside(self) -> None:
        """Give replicas and viewers the lowest priority, so that the load can reach the leader's limit.

        They share a processor with the load: it would get a fifth of it, and the bench would measure the load.
        """
        for pid in [pid for server in self.replicas for pid in server.pids] + [load.pid for load in self.loads]:
            os.setpriority(os.PRIO_PROCESS, pid, LAST)


@contextmanager
def audience(of: Server, viewers_each: int) -> Iterator[Audience]:
    """Two replicas with `viewers_each` viewers each, all connected."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(replica(of, OTHERS_PROCESSOR, f"replica-{number}", CONFIG, durable=False))
            for number in range(REPLICAS)
        ]
        for server in servers:
            wait_ready(server.port)
        loads = [stack.enter_context(ViewerLoad(server.port, OTHERS_PROCESSOR)) for server in servers]
        for load in loads:
            load.connect(viewers_each)
        yield Audience(servers, loads)


def last_viewer_ms(poster: Poster, loads: list[ViewerLoad]) -> float:
    """Post once; give the time until every viewer of every replica has it."""
    for load in loads:
        load.forget_versions()
    began = time.monotonic()
    seq = poster.post()
    return (max(load.wait_version(seq) for load in loads) - began) * 1000


def watch(of: Server, loads: list[ViewerLoad], probes: int) -> Watched:
    """Time probes on a quiet board, then while a backend writes."""
    poster = Poster(of)
    for _ in range(USERS):
        last_viewer_ms(poster, loads)
    quiet = []
    for _ in range(probes):
        time.sleep(QUIET_SECONDS)
        quiet.append(last_viewer_ms(poster, loads))
    busy = busily(of, poster, loads, probes)
    statistics_of = [load.statistics() for load in loads]
    return Watched(
        sum(told["viewers"] for told in statistics_of),
        statistics.median(quiet),
        max(quiet),
        statistics.median(busy),
        max(busy),
        sum(told["closed"] for told in statistics_of),
    )


def busily(of: Server, poster: Poster, loads: list[ViewerLoad], probes: int) -> list[float]:
    """Time probes while a backend writes at a steady pace.

    The pace is below the leader's limit: replicas that share a processor with their viewers can't follow that, and a
    viewer would be as late as the load is long.
    """
    chance = random.Random(1)
    found = []
    with SteadyWriter(of, BUSY_PER_SECOND, USERS):
        for _ in range(probes):
            time.sleep(chance.uniform(0.0, QUIET_SECONDS))
            found.append(last_viewer_ms(poster, loads))
    return found


def writes(of: Server, seconds: float) -> Workload:
    """Single increments of ten users, so each one changes what viewers see."""
    return Workload(port=of.port, connections=WRITERS, seconds=seconds, token=of.token, users=USERS)


def measured(of: Server, seconds: float) -> Load:
    """Load a leader."""
    load = run_load(writes(of, seconds), OTHERS_PROCESSOR, server_pids=of.pids)
    assert load.errors == 0, f"{load.errors} answers were errors"
    return load


# ---- catching up -----------------------------------------------------------------------------------------------------


def start_new(of: Server, seq: int) -> float:
    """Start an empty replica; give the time until it answers with the last event."""
    began = time.monotonic()
    with replica(of, OTHERS_PROCESSOR, "new", CONFIG) as new:
        return wait_for(new, seq) - began


def new_replicas(of: Server, empty: Server, seq: int, rounds: int) -> tuple[float, float]:
    """Start new replicas of a leader, and of one that has a single event, in turns; give the medians in seconds."""
    runs = take_turns({"full": lambda: start_new(of, seq), "empty": lambda: start_new(empty, 1)}, rounds)
    return statistics.median(runs["full"]), statistics.median(runs["empty"])


def catch_up_from_log(empty: Server, events: int, rounds: int) -> CatchUp:
    """Let new replicas catch up from a log that no snapshot covers."""

    def fill(directory: str) -> None:
        opened = restart.opened(directory)
        opened.scoreboard.begin_replay()
        restart.write(opened, random.Random(restart.SEED), 10_000, range(events))
        opened.log.close()

    with leader(LEADER_PROCESSOR, CONFIG, name="long-log", fill=fill) as full:
        seconds, start = new_replicas(full, empty, events, rounds)
    return CatchUp("log", seconds - start, start, events=events)


def catch_up_from_snapshot(empty: Server, users: int, rounds: int) -> tuple[CatchUp, float]:
    """Let new replicas begin with a snapshot; also give the MB/s of the download alone."""

    def fill(directory: str) -> None:
        restart.build(directory, users, users, 0)

    with leader(LEADER_PROCESSOR, CONFIG, name="large", fill=fill) as full:
        downloads = [download(full) for _ in range(rounds)]
        seconds, start = new_replicas(full, empty, users, rounds)
    megabytes = downloads[0][0] / 1e6
    alone = statistics.median(size / 1e6 / took for size, took in downloads)
    return CatchUp("snapshot", seconds - start, start, megabytes=megabytes), alone


def download(of: Server) -> tuple[int, float]:
    """Download a leader's snapshot and throw it away; give its bytes and the seconds."""
    headers = {"Authorization": f"Bearer {token(of.secret, 'log:read')}"}
    request = urllib.request.Request(f"http://127.0.0.1:{of.port}/replication/snapshot", headers=headers)
    began, size = time.monotonic(), 0
    with urllib.request.urlopen(request) as answer:
        while piece := answer.read(2**18):
            size += len(piece)
    return size, time.monotonic() - began


# ---- all of it -------------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything; the figures by name."""
    each = open_files(options.viewers)
    figures: dict[str, Any] = {}
    with leader(LEADER_PROCESSOR, CONFIG, name="alone") as alone:
        with leader(LEADER_PROCESSOR, CONFIG) as followed, audience(followed, each) as viewers:
            figures["watched"] = watch(followed, viewers.loads, PROBES)
            viewers.step_aside()
            runs = {"alone": lambda: measured(alone, options.seconds)}
            runs["followed"] = lambda: measured(followed, options.seconds)
            turns = take_turns(runs, options.rounds)
            figures["writes"] = compared(turns["followed"], turns["alone"])
            figures["writes"]["viewers_lost"] = sum(load.statistics()["closed"] for load in viewers.loads)
        with leader(LEADER_PROCESSOR, CONFIG, name="single") as single:
            Poster(single).post()
            with replica(single, OTHERS_PROCESSOR, "near", CONFIG) as near:
                wait_for(near, 1)
                figures["lag"] = measure_lateness(single, near, LAG_PER_SECOND, LAG_SECONDS)
    with leader(LEADER_PROCESSOR, CONFIG, name="empty") as empty:
        Poster(empty).post()
        figures["log"] = catch_up_from_log(empty, options.events, CATCH_UP_ROUNDS)
        figures["snapshot"], figures["download_mb_per_second"] = catch_up_from_snapshot(
            empty, options.users, CATCH_UP_ROUNDS
        )
    return figures


def compared(followed: list[Load], alone: list[Load]) -> dict[str, float]:
    """Compare a leader with replicas to one without."""
    return {
        "followed_per_second": median(per_second, followed),
        "alone_per_second": median(per_second, alone),
        "ratio": ratio(per_second, followed, alone),
        "followed_server_us": median(server_us, followed),
        "alone_server_us": median(server_us, alone),
        "server_us_ratio": ratio(server_us, followed, alone),
    }


def lag_figures(lag: Lateness) -> dict[str, float]:
    """The percentiles of how late a replica was."""
    figures = {"reads": float(len(lag.ms)), "writes_per_second": lag.per_second}
    for name, values in (("ms", lag.ms), ("header_ms", lag.header_ms)):
        figures |= {f"{name}_p50": statistics.median(values), f"{name}_p99": percentile(values, 0.99)}
    return figures | {"ms_max": lag.ms[-1]}


def show(figures: dict[str, Any], lag: dict[str, float]) -> None:
    """Print the table."""
    watched, wrote = figures["watched"], figures["writes"]
    log, snapshot = figures["log"], figures["snapshot"]
    table = tables.table("replicas", ("figure",), ("p50", "p99 or longest"))
    count = f"{watched.viewers:,} viewers on {REPLICAS} replicas, from POST to the last one"
    table.add_row(f"{count}, quiet", f"{watched.quiet_ms_p50:.0f} ms", f"{watched.quiet_ms_max:.0f} ms")
    table.add_row(
        f"{count}, {BUSY_PER_SECOND:,} increments a second",
        f"{watched.busy_ms_p50:.0f} ms",
        f"{watched.busy_ms_max:.0f} ms",
    )
    table.add_row("increments a second, with them", f"{wrote['followed_per_second']:,.0f}", "")
    table.add_row("increments a second, without", f"{wrote['alone_per_second']:,.0f}", "")
    table.add_row("  with : without, median of the rounds", f"{wrote['ratio']:.2f}×", "")
    table.add_row("  the same of the leader's processor time", f"{wrote['server_us_ratio']:.2f}×", "")
    rate = f"{lag['writes_per_second']:,.0f} increments a second"
    table.add_row(f"lag at {rate}, receipt to read", f"{lag['ms_p50']:.1f} ms", f"{lag['ms_p99']:.1f} ms")
    told = (f"{lag['header_ms_p50']:.0f} ms", f"{lag['header_ms_p99']:.0f} ms")
    table.add_row("  as the replica's header tells it", *told)
    table.add_row(f"catching up from a log of {log.events:,}", f"{log.events / log.seconds:,.0f} events/s", "")
    mb = f"{snapshot.megabytes:.1f} MB"
    table.add_row(f"beginning with a snapshot of {mb}", f"{snapshot.megabytes / snapshot.seconds:.1f} MB/s", "")
    table.add_row("  its download alone", f"{figures['download_mb_per_second']:.0f} MB/s", "")
    tables.show(table)


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=38_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    figures = measure(parser.parse_args())
    lag = lag_figures(figures["lag"])
    show(figures, lag)
    wrote = figures["writes"]
    note = f"{wrote['server_us_ratio']:.2f}× its processor time"
    what = "leader's writes with two replicas and their viewers, against without"
    wanted = [Wanted(what, wrote["ratio"], 0.9, True, "×", note)]
    show_wanted(wanted)
    told: dict[str, Any] = msgspec.to_builtins(figures | {"lag": lag, "wanted": wanted})
    record("replication", told)


if __name__ == "__main__":
    main()
