"""The numbers that an operator watches, for Prometheus. Methods are named for what happened.

Rules:
- The values of a label come from our code, and there are at most LABEL_VALUES_MAX of them per label: whatever a client
  can choose (a path, a user, a board) never becomes a label, and should a value slip through it counts as `other`.
- What is a state, not an event (seq, users, inbox), is set from a `State` just before it is read: it costs nothing
  between two scrapes and can't drift.
- Buckets fit what was measured: an fsync takes 0.1 to 0.2 ms on a good disk, an increment 0.6 ms, and 150 ms is the
  promise for reading the board.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Generic, TypeVar, get_args

import msgspec
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from server import bounds
from server.http.messages import Code
from server.live.editions import DELTA, SNAPSHOT, UPDATE
from server.replication.freshness import LagFigures

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
OTHER = "other"

RESULTS = ("applied", "duplicate", "unchanged", "refused", "unknown")
"""What comes of an increment or a user change. `unknown`: the disk failed, or the leader was deposed
meanwhile; the caller was told to ask again."""

LIMITS = ("caller", "user")
MESSAGES = (SNAPSHOT, UPDATE, DELTA)
DROPS = ("slow", "silent", "protocol", "shutdown")

REQUEST_SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 5.0)
FSYNC_SECONDS = (0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
BATCH_RECORDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
TICK_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0)


# Beside each counter the library would tell when it was made: as many series again, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library left its types out here


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What holds at the moment of a scrape. `snapshot_age_s` is None before the first snapshot."""

    epoch: int
    seq: int
    users: dict[str, int]
    registered_users: int
    actions: int
    action_index_bytes: int
    inbox_commands: int
    log_bytes: int
    log_segments: int
    snapshot_seq: int | None = None
    snapshot_age_s: float | None = None
    snapshots_failed: int = 0
    ready: bool = True
    followers: int = 0
    lag: LagFigures | None = None


Metric = TypeVar("Metric", Counter, Histogram)


class _Labelled(Generic[Metric]):
    """A metric with labels: finds the child of some label values, quickly, and bounds how many there are."""

    __slots__ = ("_children", "_metric")

    def __init__(self, metric: Metric) -> None:
        self._metric: Metric = metric
        self._children: dict[tuple[str, ...], Metric] = {}

    def __call__(self, *values: str) -> Metric:
        child = self._children.get(values)
        if child is None:
            if len(self._children) >= bounds.LABEL_VALUES_MAX:
                values = tuple(OTHER for _ in values)
            child = self._metric.labels(*values)
            self._children[values] = child
        return child


class _Latencies(Collector):
    """A histogram by labels that takes many equal observations at once, and costs a bisection where the library's takes
    a lock and a walk over all buckets: it is told of every request.
    """

    def __init__(self, name: str, about: str, buckets: tuple[float, ...], labels: tuple[str, ...]) -> None:
        self._name = name
        self._about = about
        self._bounds = buckets
        self._labels = labels
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, values: tuple[str, ...], seconds: float, count: int) -> None:
        counts = self._counts.get(values)
        if counts is None:
            if len(self._counts) >= bounds.LABEL_VALUES_MAX:
                values = tuple(OTHER for _ in values)
            counts = self._counts.setdefault(values, [0] * (len(self._bounds) + 1))
            self._sums.setdefault(values, 0.0)
        counts[bisect_left(self._bounds, seconds)] += count
        self._sums[values] += seconds * count

    def collect(self) -> Iterator[MetricFamily]:
        family = HistogramMetricFamily(self._name, self._about, labels=self._labels)
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        for values, counts in self._counts.items():
            family.add_metric(values, list(zip(names, accumulate(counts), strict=True)), self._sums[values])
        yield family


class Metrics:
    """All metrics of one process, in a registry of their own, so that tests can have many."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests()
        self._engine()
        self._live()
        # What never happened is 0, not absent: a rate over an absent series is nothing, and so is an alert on it.
        for result in RESULTS:
            self._updates(result)
        for code in get_args(Code):
            self._failures(code)
        for limit in LIMITS:
            self._limited(limit)
        for kind in MESSAGES:
            self._messages(kind)
        for reason in DROPS:
            self._dropped(reason)

    def _requests(self) -> None:
        self._updates = self._counter("updates", "Increments and user changes, by what came of them.", "result")
        self._failures = self._counter("failures", "Error answers and failed batch items, by code.", "code")
        self._limited = self._counter("rate_limit_hits", "Increments refused by a rate limit, by limit.", "limit")
        about = "From a complete request to its answer."
        self._latency = _Latencies("scoreboard_request_seconds", about, REQUEST_SECONDS, ("route", "lane"))
        self._registry.register(self._latency)
        self._connections = self._gauge("connections", "Open connections, in all lanes.")
        self._connections_failed = self._counter(
            "connections_failed", "Connections that ended with a fault of their own, by kind.", "kind"
        )
        self._refused = self._counter("refused", "Connections and requests refused at the door, by code.", "code")

    def _engine(self) -> None:
        self._fsync = self._histogram("fsync_seconds", "Writing a frame to the log and syncing it.", FSYNC_SECONDS)
        self._batch = self._histogram("batch_records", "Events made durable by one fsync.", BATCH_RECORDS)
        self._log_written = Counter(
            "scoreboard_log_written_bytes", "Bytes appended to the log by this process.", registry=self._registry
        )
        self._inbox = self._gauge("inbox_commands", "Commands that wait for the actor.")
        self._users = self._gauge("users", "Users with a score, by board.", "board")
        self._registered = self._gauge("registered_users", "Users that were put.")
        self._actions = self._gauge("actions", "Actions applied, ever.")
        self._action_bytes = self._gauge("action_index_bytes", "Memory of the index of applied actions.")
        self._seq = self._gauge("seq", "The last applied event.")
        self._epoch = self._gauge("epoch", "The current epoch.")
        self._snapshot_seq = self._gauge("snapshot_seq", "The last event that the newest snapshot holds.")
        self._snapshot_age = self._gauge("snapshot_age_seconds", "Since the newest snapshot was taken.")
        self._snapshots_failed = self._gauge("snapshots_failed", "Snapshots that this process could not write.")
        self._log_bytes = self._gauge("log_bytes", "The log on disk.")
        self._log_segments = self._gauge("log_segments", "Files of the log.")
        self._ready = self._gauge("ready", "Whether /readyz says yes.")
        self._followers = self._gauge("followers", "Replicas with a link to this node.")
        self._lag_records = self._gauge("replica_lag_records", "Records not applied here; NaN: leader not heard.")
        self._lag_seconds = self._gauge("replica_lag_seconds", "Age of the oldest record that is not applied here.")
        self._leader_age = self._gauge("replica_leader_age_seconds", "Since the leader was heard.")
        self._connected = self._gauge("replica_connected", "Whether there is a link to the leader.")

    def _live(self) -> None:
        self._viewers = self._gauge("viewers", "Connected live viewers.")
        self._messages = self._counter("live_messages", "Messages written to viewers, by kind.", "kind")
        self._tick = self._histogram("live_tick_seconds", "Writing one update to all viewers.", TICK_SECONDS)
        self._interval = self._gauge("live_interval_seconds", "The time between the last two live updates.")
        self._dropped = self._counter("viewers_dropped", "Viewers that the server closed, by reason.", "reason")

    # Requests

    def update(self, result: str, count: int = 1) -> None:
        """Tell that so many increments or user changes had this result."""
        self._updates(result).inc(count)

    def failed(self, code: str, count: int = 1) -> None:
        """Tell that a request or an item of a batch was answered with an error."""
        self._failures(code).inc(count)

    def rate_limited(self, limit: str, count: int = 1) -> None:
        """Tell that increments were refused by the limit `caller` or `user`."""
        self._limited(limit).inc(count)

    def request(self, route: str, lane: str, seconds: float, count: int = 1) -> None:
        """Tell how long a request took, or so many of them each; `route` is the path's template."""
        self._latency.observe((route, lane), seconds, count)

    def connections(self, count: int) -> None:
        """Tell how many connections are open now."""
        self._connections.set(count)

    def connection_failed(self, kind: str) -> None:
        """Tell that a connection ended with a fault."""
        self._connections_failed(kind).inc()

    def refused(self, code: str) -> None:
        """Tell that the door refused a connection or a request, which is an error answer like any other."""
        self._refused(code).inc()
        self.failed(code)

    # The engine

    def frame_written(self, records: int, size_bytes: int, seconds: float) -> None:
        """Tell that a frame is durable."""
        self._batch.observe(records)
        self._log_written.inc(size_bytes)
        self._fsync.observe(seconds)

    def observe(self, state: State) -> None:
        """Take in what holds now; to be called just before `render`."""
        self._epoch.set(state.epoch)
        self._seq.set(state.seq)
        for board_id, count in state.users.items():
            # Boards are the operator's: their number is bounded by the configuration, not by LABEL_VALUES_MAX.
            self._users.labels(board_id).set(count)
        self._registered.set(state.registered_users)
        self._actions.set(state.actions)
        self._action_bytes.set(state.action_index_bytes)
        self._inbox.set(state.inbox_commands)
        self._snapshots_failed.set(state.snapshots_failed)
        self._log_bytes.set(state.log_bytes)
        self._log_segments.set(state.log_segments)
        self._ready.set(state.ready)
        self._followers.set(state.followers)
        self._observe_lag(state.lag)
        nothing = float("nan")  # what Prometheus has for "there is none"
        self._snapshot_seq.set(nothing if state.snapshot_seq is None else state.snapshot_seq)
        self._snapshot_age.set(nothing if state.snapshot_age_s is None else state.snapshot_age_s)

    def _observe_lag(self, lag: LagFigures | None) -> None:
        """A leader has none of this: NaN. So is what a replica does not know, where the lag headers say `unknown`."""
        unknown = float("nan")
        self._lag_records.set(unknown if lag is None or lag.records is None else lag.records)
        self._lag_seconds.set(unknown if lag is None or lag.ms is None else lag.ms / 1000)
        self._leader_age.set(unknown if lag is None else lag.age_ms / 1000)
        self._connected.set(unknown if lag is None else lag.connected)

    # Live

    def viewers(self, count: int) -> None:
        """Tell how many viewers are connected now."""
        self._viewers.set(count)

    def live_messages(self, count: int, kind: str) -> None:
        """Tell that a message was written to so many viewers."""
        self._messages(kind).inc(count)

    def live_tick(self, seconds: float, interval_seconds: float) -> None:
        """Tell how long it took to write an update to all viewers, and how long after the one before it came."""
        self._tick.observe(seconds)
        self._interval.set(interval_seconds)

    def viewers_dropped(self, reason: str) -> None:
        """Tell that the server closed a viewer."""
        self._dropped(reason).inc()

    # Reading

    def render(self) -> bytes:
        """Give everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def value(self, name: str, **labels: str) -> float:
        """Give one sample by its full name, 0 if it was never touched."""
        found = self._registry.get_sample_value(name, labels)
        return 0.0 if found is None else found

    def _counter(self, name: str, about: str, label: str) -> _Labelled[Counter]:
        return _Labelled(Counter(f"scoreboard_{name}", about, (label,), registry=self._registry))

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"scoreboard_{name}", about, labels, registry=self._registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"scoreboard_{name}", about, labels, registry=self._registry, buckets=buckets)
