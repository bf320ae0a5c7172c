"""What do server-sent events cost, beside WebSockets? `python -m bench.streams [--events 10000] [--sockets 9000]`.

One leader, on processor 0; all viewers, on processor 1. First only the WebSockets are there, then the streams of events
too. In each round a backend increments once. A round ends when every viewer has the message.

    last viewer      from the POST to the last viewer of a kind, beside the others
    µs/message       processor time of the leader, divided by the messages that arrived. That of an event is what the
                     rounds with streams cost more than those without, divided by the events
    KB/idle viewer   growth of the leader's resident memory, for each viewer of a kind
    load CPU         how busy the process with the viewers was; both processes share one processor, so their sum counts
"""

from __future__ import annotations

import argparse
import statistics
import time

import msgspec

from bench import tables
from bench.history import record
from bench.servers import leader
from bench.viewers import ViewerLoad, allow_files, processor_seconds, resident_bytes
from bench.viewers_peers import LIVE_CONFIG, USERS, Poster
from bench.wanted import Wanted, show_wanted

SERVER_PROCESSOR, LOAD_PROCESSOR = 0, 1
LAST_MS, MORE_THAN_SOCKETS = 250.0, 1.2
APART_SECONDS, SETTLE_SECONDS, QUIET_SECONDS = 0.4, 0.02, 2.0


class Turn(msgspec.Struct, frozen=True):
    """A round: the leader's processor time, ms to the last viewer of each kind, and how busy their processes were."""

    processor_s: float
    last_ms: list[float]
    load_share: float


class Row(msgspec.Struct, frozen=True):
    """Medians of the rounds, for one kind of viewer."""

    viewers: int
    kind: str
    us_per_message: float
    ms_to_last: float
    bytes_per_viewer: float
    load_cpu_share: float


def take_turn(pid: int, poster: Poster, loads: list[ViewerLoad]) -> Turn:
    """Increment once; wait until every viewer has it."""
    for load in loads:
        load.forget_versions()
    before = [load.statistics()["messages"] for load in loads]
    spent, busy = processor_seconds(pid), sum(processor_seconds(load.pid) for load in loads)
    began = time.monotonic()
    version = poster.post()
    last = [load.wait_version(version) for load in loads]
    busy = sum(processor_seconds(load.pid) for load in loads) - busy
    time.sleep(SETTLE_SECONDS)
    spent = processor_seconds(pid) - spent
    for load, messages in zip(loads, before, strict=True):
        counts = load.statistics()
        assert (counts["messages"] - messages, counts["closed"]) == (counts["viewers"], 0), "not one message for each"
    time.sleep(APART_SECONDS)
    return Turn(spent, [(at - began) * 1e3 for at in last], busy / (max(last) - began))


def measure(events: int, sockets: int, rounds: int) -> list[Row]:
    """Give a row for WebSockets alone, for them beside streams, and for the streams."""
    with (
        leader(SERVER_PROCESSOR, LIVE_CONFIG) as server,
        ViewerLoad(server.port, LOAD_PROCESSOR) as sockets_load,
        ViewerLoad(server.port, LOAD_PROCESSOR, "events") as events_load,
    ):
        pid, poster = server.pids[0], Poster(server)
        for _ in range(USERS):
            poster.post()
        weights, turns = [], []
        for load, count, loads in (
            (sockets_load, sockets, [sockets_load]),
            (events_load, events, [sockets_load, events_load]),
        ):
            load.connect(1)
            take_turn(pid, poster, loads)
            time.sleep(QUIET_SECONDS)
            resident = resident_bytes(pid)
            load.connect(count)
            time.sleep(QUIET_SECONDS)
            weights.append((resident_bytes(pid) - resident) / (count - 1))
            turns.append([take_turn(pid, poster, loads) for _ in range(rounds + 1)][1:])

    alone, both = turns
    cost, cost_of_both = (statistics.median(turn.processor_s for turn in each) for each in turns)
    shares = [statistics.median(turn.load_share for turn in each) for each in turns]
    alone_ms, beside_ms, events_ms = (
        statistics.median(each)
        for each in ([t.last_ms[0] for t in alone], *zip(*(t.last_ms for t in both), strict=True))
    )
    return [
        Row(sockets, "WebSockets alone", cost / sockets * 1e6, alone_ms, weights[0], shares[0]),
        Row(
            sockets,
            "WebSockets beside streams",
            cost_of_both / (sockets + events) * 1e6,
            beside_ms,
            weights[0],
            shares[1],
        ),
        Row(events, "server-sent events", (cost_of_both - cost) / events * 1e6, events_ms, weights[1], shares[1]),
    ]


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--sockets", type=int, default=9_000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    allow_files()
    rows = measure(options.events, options.sockets, options.rounds)
    columns = ("viewers", "µs/message", "last viewer ms", "KB/idle viewer", "load CPU")
    table = tables.table("one leader, viewers of both kinds", ("kind",), columns)
    for row in rows:
        table.add_row(
            row.kind, f"{row.viewers:,}", f"{row.us_per_message:.2f}", f"{row.ms_to_last:.1f}",
            f"{row.bytes_per_viewer / 1000:.1f}", f"{row.load_cpu_share:.0%}",
        )  # fmt: skip
    tables.show(table)
    sockets, beside, events = rows
    of = f"{options.events:,} streams beside {options.sockets:,} WebSockets"
    figures = [
        Wanted("last of all viewers", max(beside.ms_to_last, events.ms_to_last), LAST_MS, False, "ms", of),
        Wanted("an event, times a WebSocket's message", events.us_per_message / sockets.us_per_message,
               MORE_THAN_SOCKETS, False, "×", of),
    ]  # fmt: skip
    show_wanted(figures)
    record("streams", {"rows": [msgspec.to_builtins(row) for row in rows], "wanted": msgspec.to_builtins(figures)})


if __name__ == "__main__":
    main()
