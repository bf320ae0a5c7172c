"""What does a message to every viewer cost, beside the servers that people use instead?

    python -m bench.fanout [--viewers 1000 8000 19000] [--rounds 15]

All systems run at once, each with the same number of viewers of its own, and take turns. In each round every system
sends to its viewers once, and no system does anything in the turn of another. The first of a round is the second of
the next. Servers are on processor 0; the viewers and the backend that posts are on processor 1. A turn of the leader
begins with a POST, so it holds everything that a tick does: token, log and fsync, receipt, top 10, encoding. nchan gets
the same message by a POST. The other peers read a word from a pipe and send the message; they do nothing else.

The leader has another turn in each round: a POST to a board that nobody watches. The row `without its POST` is the
first turn less this one, to stand beside the peers that only send.

    µs/message       processor time of all processes of a server, user and kernel, and of the kernel's own thread for
                     networking on processor 0, divided by the messages that arrived
    last viewer      from the POST, or from the word on the pipe, to the last viewer's message
    KB/idle viewer   growth of the server's resident memory since its first viewer, for each viewer that came later
    load CPU         how busy the viewers' process was; at 100 % the bench would measure the viewers
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from bench import viewers_nchan as nchan
from bench import viewers_peers as peers
from bench.history import record
from bench.servers import Missing, leader
from bench.viewers import ViewerLoad, allow_files, processor_seconds, resident_bytes
from bench.viewers_peers import LIVE_CONFIG, MESSAGE, Poster, System
from bench.wanted import Wanted, show_wanted

SERVER_PROCESSOR, LOAD_PROCESSOR = 0, 1
OURS, PEER, FLOOR = "this project", "websockets.broadcast", peers.SEND_LOOP
POST, WITHOUT_POST = "its POST", "without its POST"

WANTED_FEW, WANTED_MANY = 1_000, 8_000
"""The numbers of viewers for which the project wants figures: see `wanted`."""

APART_SECONDS = 0.4
"""From the beginning of a round of the leader to the next: longer than its interval, so that it begins with a tick."""

SETTLE_SECONDS = 0.02
"""From the last message to the reading of the server's time: what the server does after it has sent counts too."""

QUIET_SECONDS = 2.0
"""From the arrival of the viewers to the reading of memory."""


class Turn(msgspec.Struct, frozen=True):
    """One round of one system."""

    messages: int
    processor_s: float
    last_s: float
    load_share: float

    @property
    def us(self) -> float:
        """Processor time of a message, in us."""
        return self.processor_s / self.messages * 1e6


class Row(msgspec.Struct):
    """A system with a number of viewers: medians of the rounds."""

    viewers: int
    system: str
    us_per_message: float
    ms_to_last: float
    bytes_per_viewer: float
    load_cpu_share: float
    dropped: int
    ratio_to_peer: float | None = None
    ratio_to_floor: float | None = None
    ratio_to_nchan: float | None = None


@cache
def softirq_pids(processor: int) -> tuple[int, ...]:
    """Find the kernel's thread for networking on a processor; none where its threads are hidden.

    What the kernel does there is the server's work. And Linux books some of the time of a long call on the thread that
    is next, often this one. A slice of viewers is one long call.
    """
    names = {path: path.read_text(encoding="ascii", errors="replace") for path in Path("/proc").glob("[0-9]*/comm")}
    return tuple(int(path.parent.name) for path, name in names.items() if name == f"ksoftirqd/{processor}\n")


def take_turn(system: System) -> Turn:
    """Let a system send to all its viewers once."""
    load = system.viewers
    load.forget_versions()
    messages = load.statistics()["messages"]
    pids = (*system.pids, *softirq_pids(SERVER_PROCESSOR))
    spent, load_spent = processor_seconds(*pids), processor_seconds(load.pid)
    began = time.monotonic()
    version = system.tell_all()
    last = time.monotonic() if system.is_silent else load.wait_version(version)
    load_spent = processor_seconds(load.pid) - load_spent
    time.sleep(SETTLE_SECONDS)
    spent = processor_seconds(*pids) - spent
    messages = load.statistics()["messages"] - messages
    return Turn(messages, spent, last - began, load_spent / (last - began))


def in_round(systems: Sequence[System], number: int) -> list[System]:
    """Put the systems in the order of a round: each is the first in its turn, so none has the best place."""
    first = number % len(systems)
    return [*systems[first:], *systems[:first]]


class Stage:
    """All systems that could be started, and the memory that each had with one viewer."""

    def __init__(self, systems: list[System]) -> None:
        self.systems = systems
        self._resident: dict[str, int] = {}
        for system in systems:
            system.viewers.connect(1)
            take_turn(system)
        time.sleep(QUIET_SECONDS)
        for system in systems:
            self._resident[system.name] = resident_bytes(*system.pids)

    def measure(self, viewers: int, rounds: int) -> list[Row]:
        """Connect viewers until each system has `viewers`, and let the systems take turns."""
        for system in self.systems:
            system.viewers.connect(viewers)
        time.sleep(QUIET_SECONDS)
        weights = {
            system.name: (resident_bytes(*system.pids) - self._resident[system.name]) / (viewers - 1)
            for system in self.systems
        }
        turns: dict[str, list[Turn]] = {system.name: [] for system in self.systems}
        for number in range(rounds + 1):
            began = time.monotonic()
            for system in in_round(self.systems, number):
                turns[system.name].append(take_turn(system))
            time.sleep(max(0.0, began + APART_SECONDS - time.monotonic()))
        counted = {name: taken[1:] for name, taken in turns.items()}
        rows = [
            self._row(system, viewers, weights[system.name], counted[system.name])
            for system in self.systems
            if not system.is_silent
        ]
        rows[1:1] = without_post(rows[0], counted)
        compare(rows, counted)
        return rows

    def _row(self, system: System, viewers: int, weight: float, turns: list[Turn]) -> Row:
        assert all(turn.messages == viewers for turn in turns), f"{system.name}: not one message for each viewer"
        return Row(
            viewers,
            system.name,
            statistics.median(turn.us for turn in turns),
            statistics.median(turn.last_s for turn in turns) * 1e3,
            weight,
            statistics.median(turn.load_share for turn in turns),
            system.viewers.statistics()["closed"],
        )


def without_post(row: Row, turns: dict[str, list[Turn]]) -> list[Row]:
    """Take the POST out of our turns: put what is left among the turns, and give its row, made of that of our turns."""
    turns[WITHOUT_POST] = left = [
        msgspec.structs.replace(turn, processor_s=turn.processor_s - post.processor_s)
        for turn, post in zip(turns[OURS], turns.pop(POST), strict=True)
    ]
    us = statistics.median(turn.us for turn in left)
    return [msgspec.structs.replace(row, system=WITHOUT_POST, us_per_message=us)]


def compare(rows: list[Row], turns: Mapping[str, Sequence[Turn]]) -> None:
    """Compare each row with peers and with the floor: the median of the rounds' ratios."""
    for row in rows:
        row.ratio_to_peer, row.ratio_to_floor, row.ratio_to_nchan = (
            statistics.median(ours.us / theirs.us for ours, theirs in zip(turns[row.system], turns[other], strict=True))
            if other in turns
            else None
            for other in (PEER, FLOOR, nchan.NAME)
        )


def wanted(rows: list[Row]) -> list[Wanted]:
    """The figures of the project, as far as these numbers of viewers and these peers were measured."""
    ours = {row.viewers: row for row in rows if row.system == OURS}
    few, many = ours.get(WANTED_FEW), ours.get(WANTED_MANY)
    theirs = next((row for row in rows if (row.viewers, row.system) == (WANTED_MANY, nchan.NAME)), None)
    alone = [row for row in rows if row.viewers == WANTED_FEW and row.system in (WITHOUT_POST, peers.RING_LOOP)]
    note = ", ".join(f"{row.system} {row.ratio_to_peer:.2f}×" for row in alone if row.ratio_to_peer is not None)
    weight = None if many is None or theirs is None else many.bytes_per_viewer / theirs.bytes_per_viewer
    to_peer = None if few is None else few.ratio_to_peer
    to_nchan = None if many is None else many.ratio_to_nchan
    figures = (
        (f"CPU of a message, {WANTED_FEW:,} viewers, against {PEER}", to_peer, 0.6, note and f"({note})"),
        (f"CPU of a message, {WANTED_MANY:,} viewers, against nchan", to_nchan, 0.8, ""),
        (f"memory of an idle viewer, {WANTED_MANY:,} viewers, against nchan", weight, 0.4, ""),
        *(
            (f"CPU of a message, {each:,} viewers, against the floor", ours[each].ratio_to_floor, 1.5, "")
            for each in ours
        ),
    )
    return [Wanted(what, measured, bound, False, "×", note) for what, measured, bound, note in figures]


def show(rows: list[Row], missing: dict[str, str]) -> None:
    """Print the table; the row of a missing peer says what to install."""
    table = Table(title="telling all viewers")
    columns = ("viewers", "system", "µs/message", "× websockets", "× nchan", "× floor", "last viewer ms")
    for column in (*columns, "KB/idle viewer", "load CPU", "dropped"):
        table.add_column(column, justify="left" if column == "system" else "right")
    for row in rows:
        measured = (row.ratio_to_peer, row.ratio_to_nchan, row.ratio_to_floor)
        ratios = ["–" if ratio is None else f"{ratio:.2f}" for ratio in measured]
        figures = (f"{row.ms_to_last:.1f}", f"{row.bytes_per_viewer / 1000:.1f}", f"{row.load_cpu_share:.0%}")
        cells = (f"{row.us_per_message:.2f}", *ratios, *figures, str(row.dropped))
        table.add_row(f"{row.viewers:,}", row.system, *cells)
    for name, remedy in missing.items():
        table.add_row("–", f"{name}: missing ({remedy})")
    Console(width=140).print(table)


def ours(stack: ExitStack) -> list[System]:
    """Start the leader with a first viewer; the peers send the message that this viewer got."""
    server = stack.enter_context(leader(SERVER_PROCESSOR, LIVE_CONFIG + peers.TWO_BOARDS))
    viewers = ViewerLoad(server.port, LOAD_PROCESSOR)
    poster, aside = Poster(server), Poster(server, peers.UNWATCHED)
    for _ in range(10):
        poster.post()
        aside.post()
    stack.enter_context(viewers)
    viewers.connect(1)
    viewers.wait_version(poster.post())
    MESSAGE.write_text(viewers.statistics()["sample"], encoding="utf-8")
    pids = (peers.leader_pid(),)
    return [System(OURS, pids, viewers, poster.post), System(POST, pids, viewers, aside.post, is_silent=True)]


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, nargs="+", default=[1_000, 8_000, 19_000])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    allow_files()
    rows: list[Row] = []
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        systems = ours(stack)
        candidates: dict[str, AbstractContextManager[list[System]]] = {
            PEER: peers.websockets_peer(SERVER_PROCESSOR, LOAD_PROCESSOR, "asyncio"),
            f"{PEER}, uvloop": peers.websockets_peer(SERVER_PROCESSOR, LOAD_PROCESSOR, "uvloop"),
            nchan.NAME: nchan.nchan_peer(SERVER_PROCESSOR, LOAD_PROCESSOR),
            "Node ws": peers.node_peer(SERVER_PROCESSOR, LOAD_PROCESSOR),
            FLOOR: peers.floor_peer(SERVER_PROCESSOR, LOAD_PROCESSOR),
        }
        for name, candidate in candidates.items():
            try:
                systems += stack.enter_context(candidate)
            except Missing as lacking:
                missing[name] = str(lacking)
        stage = Stage(systems)
        for viewers in sorted(options.viewers):
            rows += stage.measure(viewers, options.rounds)
    show(rows, missing)
    show_wanted(wanted(rows))
    message_bytes = MESSAGE.stat().st_size
    figures: dict[str, Any] = {"message_bytes": message_bytes, "rows": [msgspec.to_builtins(row) for row in rows]}
    record("fanout", figures | {"missing": missing})


if __name__ == "__main__":
    main()
