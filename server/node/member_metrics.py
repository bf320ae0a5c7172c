"""The metrics of a member of a quorum. A node that is of none has no such series.

    world.metrics.register(MemberMetrics(view, log))
    families(Figures())                     the same without a node, for who needs their names and types

Rules:
- Everything but the times of appends is read at the scrape, so it can't drift.
- Each node is one series by its name. Of two nodes with one name, the second has the id of its process too: a series
  that comes twice would spoil the whole scrape. There are at most PEERS_MAX.
- Only the leader looks at the ends of the stream, so only its series have them.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import trio
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from server.metrics import Histogram
from server.node.member import MemberStatistics
from server.node.member_view import MemberView
from server.quorum.quorum_log import Observers, QuorumLog
from server.quorum.stream import Bounds
from server.role import State

PREFIX = "scoreboard_quorum_"

APPEND_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Three servers on disks of their own take 1.4 ms for 4 KB; an election of theirs takes seconds."""

SERVERS_MAX = 16
"""A stream has five copies at most."""

_NO_VALUE = float("nan")


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a scrape shows. `peers` has for each other node its label, its lag in records, and seconds since it spoke.

    `bounds` are those of the stream; None: they are not known here.
    """

    state: State = State.NOT_CAUGHT_UP
    epoch: int = 0
    counts: MemberStatistics = MemberStatistics(0, 0, 0, 0)
    peers: tuple[tuple[str, int, float], ...] = ()
    bounds: Bounds | None = None


def append_seconds() -> Histogram:
    """Make the histogram of appends."""
    return Histogram(
        f"{PREFIX}append_seconds", "From sending a frame to the answer that a majority has it.", APPEND_SECONDS
    )


def families(figures: Figures) -> Iterator[Metric]:
    """Give all families but the histogram."""
    role = GaugeMetricFamily(f"{PREFIX}role", "1 for the role that this node has now.", labels=("role",))
    for each in State:
        role.add_metric((each.label,), each is figures.state)
    yield role
    yield GaugeMetricFamily(f"{PREFIX}epoch", "The epoch that this node has applied.", figures.epoch)
    counts = figures.counts
    for name, about, count in (
        ("takeovers", "Epochs that this process won.", counts.takeovers),
        ("depositions", "Epochs of this process that ended.", counts.depositions),
        ("unknown_outcomes", "Frames whose outcome was not known for a while.", counts.doubts),
    ):
        yield CounterMetricFamily(f"{PREFIX}{name}", about, count)
    about = "Events that this node has, and another had not when it was heard last."
    lag = GaugeMetricFamily(f"{PREFIX}peer_lag_records", about, labels=("node",))
    heard = GaugeMetricFamily(f"{PREFIX}peer_heard_seconds", "Since another node was heard last.", labels=("node",))
    for label, records, seconds in figures.peers:
        lag.add_metric((label,), records)
        heard.add_metric((label,), seconds)
    yield lag
    yield heard
    bounds = figures.bounds
    first, last, size = (_NO_VALUE,) * 3 if bounds is None else (bounds.first, bounds.last, bounds.bytes)
    for name, about, value in (
        ("stream_bytes", "Bytes that the stream holds, as its leader saw lately; NaN on others.", size),
        ("stream_first", "The oldest place of the stream, likewise.", first),
        ("stream_last", "The newest place of the stream, likewise.", last),
    ):
        yield GaugeMetricFamily(f"{PREFIX}{name}", about, value)
    about = "Entries that a server's copy of the stream is behind, as the leader saw lately."
    behind = GaugeMetricFamily(f"{PREFIX}server_lag", about, labels=("server",))
    about = "1 if a server's copy of the stream is current, likewise."
    current = GaugeMetricFamily(f"{PREFIX}server_current", about, labels=("server",))
    for server in () if bounds is None else bounds.servers[:SERVERS_MAX]:
        behind.add_metric((server.name,), server.lag)
        current.add_metric((server.name,), server.current)
    yield behind
    yield current


class MemberMetrics(Collector):
    """See above."""

    def __init__(self, view: MemberView, log: QuorumLog) -> None:
        self._view = view
        self._append = append_seconds()
        log.observe(Observers(on_placed=lambda seconds: self._append.observe((), seconds)))

    def collect(self) -> Iterator[Metric]:
        """Give all families."""
        yield from families(self._figures())
        yield from self._append.collect()

    def _figures(self) -> Figures:
        view, state = self._view, self._view.role.now.state
        now_s, tail = trio.current_time(), view.replica.tail
        peers: dict[str, tuple[str, int, float]] = {}
        for peer in view.peers.all():
            word = peer.word
            label = f"{word.name} {word.node_id}" if word.name in peers else word.name
            peers[label] = (label, max(0, tail.seq - word.seq), max(0.0, now_s - peer.heard_s))
        bounds = view.retention.bounds if state is State.LEADING else None
        counts = view.member.statistics()
        return Figures(state=state, epoch=tail.epoch, counts=counts, peers=tuple(peers.values()), bounds=bounds)
