"""The metrics of the process, for Prometheus. Methods are named for what happened.

    metrics.failed("CONFLICT")                   an event: counted at once
    metrics.observe(state); metrics.render()     a scrape

Rules:
- Label values come from our code, never from a client (a path, a user). A label has at most LABEL_VALUES_MAX values;
  further ones count as `other`.
- Gauges of a state (seq, users, inbox) are set from a `State` at each scrape. So they cost nothing between scrapes, and
  can't drift.
- Buckets are finest around the expected times: an fsync takes 0.1 to 0.2 ms on a good disk, an increment 0.6 ms, and
  150 ms is the promise for reading the board.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from itertools import accumulate
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
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
from server.live.editions import DELTA, SNAPSHOT, UPDATE, USER
from server.live.switch import COUNTED_AS
from server.state_gauges import STATE_GAUGES, State

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
OTHER = "other"

RESULTS = ("applied", "duplicate", "unchanged", "refused", "unknown")
"""The outcomes of an increment, or of a change of a user or a board. `unknown`: the disk failed, or the leader was
deposed meanwhile; the caller was told to send it again."""

CODES = (*get_args(Code), COUNTED_AS)
LIMITS = ("caller", "user", "repeats")
MESSAGES = (SNAPSHOT, UPDATE, DELTA, USER)
DROPS = ("slow", "silent", "protocol", "expired", "shutdown", "switched_off")

REQUEST_SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 5.0)
FSYNC_SECONDS = (0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
BATCH_RECORDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
LONG_READS = ("export", "as_of")
LONG_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Exports over HTTP, and reads of the past. A board of a few rows takes milliseconds, a million rows to a slow client
minutes. The bounds of both are the last of these."""
TICK_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0)

_NO_VALUE = float("nan")

# For each counter the library would add a series with the time of its creation, which nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library left its types out here


class _Labelled:
    """A counter with labels. Finds the child of label values fast, and bounds the number of children."""

    __slots__ = ("_children", "_counter")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._children: dict[tuple[str, ...], Counter] = {}

    def __call__(self, *values: str) -> Counter:
        child = self._children.get(values)
        if child is None:
            if len(self._children) >= bounds.LABEL_VALUES_MAX:
                values = tuple(OTHER for _ in values)
            child = self._counter.labels(*values)
            self._children[values] = child
        return child


class Histogram(Collector):
    """A histogram that takes many equal observations at once. An observation costs a bisection; the library's takes
    locks and walks over all buckets, for every request. Without labels it is shown before the first observation.
    """

    def __init__(self, name: str, about: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()) -> None:
        self._name = name
        self._about = about
        self._bounds = buckets
        self._labels = labels
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        if not labels:
            self.observe((), 0.0, 0)

    def observe(self, values: tuple[str, ...], value: float, count: int = 1) -> None:
        counts = self._counts.get(values)
        if counts is None:
            if len(self._counts) >= bounds.LABEL_VALUES_MAX:
                values = tuple(OTHER for _ in values)
            counts = self._counts.setdefault(values, [0] * (len(self._bounds) + 1))
            self._sums.setdefault(values, 0.0)
        counts[bisect_left(self._bounds, value)] += count
        self._sums[values] += value * count

    def collect(self) -> Iterator[MetricFamily]:
        family = HistogramMetricFamily(self._name, self._about, labels=self._labels)
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        for values, counts in self._counts.items():
            family.add_metric(values, list(zip(names, accumulate(counts), strict=True)), self._sums[values])
        yield family


@cache
def _build() -> dict[str, str]:
    """Give the versions of what runs."""
    packages = {name: metadata.version(name) for name in ("trio", "hypercorn", "quart")}
    python = {"python": platform.python_version(), "implementation": platform.python_implementation()}
    return {"version": metadata.version("scoreboard"), **python, "machine": platform.machine(), **packages}


class Metrics:
    """All metrics of one process, in their own registry, so that tests can have many."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        about = "Always 1; the labels tell what runs."
        self._gauge("build_info", about, *_build()).labels(**_build()).set(1)
        self._requests()
        self._engine()
        self._live()
        self._webhooks()

    def _requests(self) -> None:
        about = "Increments, and changes of users and boards, by outcome."
        self._updates = self._counter("updates", about, "result", RESULTS)
        self._failures = self._counter("failures", "Errors, by code; viewers while `live` is off apart.", "code", CODES)
        self._limited = self._counter("rate_limit_hits", "Increments refused by a rate limit.", "limit", LIMITS)
        about = "From a complete request to its answer."
        self._latency = self._histogram("request_seconds", about, REQUEST_SECONDS, "route", "lane")
        self._long = self._gauge("long_reads_running", "Exports and reads of the past that go on or wait.", "kind")
        about = "Exports and reads of the past that were answered 503."
        self._long_refused = self._counter("long_reads_refused", about, "kind", LONG_READS)
        about = "From the start of an export, or of the wait for a read of the past, to its end."
        self._long_latency = self._histogram("long_read_seconds", about, LONG_SECONDS, "kind")
        for kind in LONG_READS:
            self.long_reads_running(kind, 0)
        self._connections = self._gauge("connections", "Open connections, in all lanes.")
        self._connections_failed = self._counter(
            "connections_failed", "Connections that ended with a fault of their own, by kind.", "kind"
        )
        self._refused = self._counter("refused", "Connections and requests refused by the listener, by code.", "code")

    def _engine(self) -> None:
        self._fsync = self._histogram("fsync_seconds", "Writing a frame to the log and syncing it.", FSYNC_SECONDS)
        self._batch = self._histogram("batch_records", "Events made durable by one fsync.", BATCH_RECORDS)
        self._log_written = Counter(
            "scoreboard_log_written_bytes", "Bytes appended to the log by this process.", registry=self._registry
        )
        self._users = self._gauge("users", "Users with a score, by board.", "board")
        self._state = {name: self._gauge(name, about) for name, about in STATE_GAUGES.items()}
        self._flags = self._gauge("review_flags", "Reviews that were ever made, by rule.", "rule")
        self._lag_records = self._gauge("replica_lag_records", "Records not applied here; NaN: leader not heard.")
        self._lag_seconds = self._gauge("replica_lag_seconds", "Age of the oldest record that is not applied here.")
        self._leader_age = self._gauge("replica_leader_age_seconds", "Since the leader was heard.")
        self._connected = self._gauge("replica_connected", "Whether there is a link to the leader.")
        about = "Actions that reversals took back, or let count again, by which of the two."
        self._reversed = self._counter("reversed_actions", about, "way", ("back", "again"))
        about = "Rows of imports that were applied."
        self._imported = Counter("scoreboard_imported_rows", about, registry=self._registry)
        about = "Steps of the wall clock against the monotonic clock."
        self._clock_steps = Counter("scoreboard_clock_steps", about, registry=self._registry)
        self._clock_offset = self._gauge("clock_offset_seconds", "The wall clock's time less that of new events.")

    def _live(self) -> None:
        self._viewers = self._gauge("viewers", "Connected live viewers.")
        self._subscribed = self._gauge("live_subscriptions", "Users whose places viewers are told.")
        self._messages = self._counter("live_messages", "Messages written to viewers, by kind.", "kind", MESSAGES)
        self._tick = self._histogram("live_tick_seconds", "Writing one update to all viewers.", TICK_SECONDS)
        self._interval = self._gauge("live_interval_seconds", "The time between the last two live updates.")
        self._dropped = self._counter("viewers_dropped", "Viewers that the server closed, by reason.", "reason", DROPS)

    def _webhooks(self) -> None:
        self._delivered = self._counter("webhook_deliveries", "Acknowledged deliveries, by webhook.", "webhook")
        self._undelivered = self._counter("webhook_failures", "Attempts that were not acknowledged.", "webhook")
        self._hook_lag = self._gauge("webhook_lag_records", "Events after the cursor, by webhook.", "webhook")
        self._hook_disabled = self._gauge("webhook_disabled", "Whether a webhook delivers nothing.", "webhook")

    # Requests

    def update(self, result: str, count: int = 1) -> None:
        """Count increments and user changes with this result."""
        self._updates(result).inc(count)

    def failed(self, code: str, count: int = 1) -> None:
        """Count requests and batch items that were answered with this error."""
        self._failures(code).inc(count)

    def reversed(self, count: int, *, again: bool) -> None:
        """Count actions that were taken back, or count again."""
        self._reversed("again" if again else "back").inc(count)

    def imported(self, rows: int) -> None:
        """Count rows of an import that were applied."""
        self._imported.inc(rows)

    def rate_limited(self, limit: str, count: int = 1) -> None:
        """Count increments that the limit `caller`, `user` or `repeats` refused."""
        self._limited(limit).inc(count)

    def request(self, route: str, lane: str, seconds: float, count: int = 1) -> None:
        """Count requests that took this long each. `route` is the template of the path."""
        self._latency.observe((route, lane), seconds, count)

    def long_reads_running(self, kind: str, count: int) -> None:
        """Take how many reads of a kind of LONG_READS go on now."""
        self._long.labels(kind).set(count)

    def long_read_refused(self, kind: str) -> None:
        """Count a read that found no place, or took too long."""
        self._long_refused(kind).inc()

    def long_read(self, kind: str, seconds: float) -> None:
        """Count a read that ended, also before its time because the client left."""
        self._long_latency.observe((kind,), seconds)

    def connections(self, count: int) -> None:
        self._connections.set(count)

    def connection_failed(self, kind: str) -> None:
        self._connections_failed(kind).inc()

    def refused(self, code: str) -> None:
        """Count a connection or a request that the listener refused; it is a failure too."""
        self._refused(code).inc()
        self.failed(code)

    # The engine

    def frame_written(self, records: int, size_bytes: int, seconds: float) -> None:
        """Count a durable frame."""
        self._batch.observe((), records)
        self._log_written.inc(size_bytes)
        self._fsync.observe((), seconds)

    def clock(self, steps: int, offset_seconds: float) -> None:
        """Count further steps of the clock, and take how far it is from the time of new events."""
        self._clock_steps.inc(steps)
        self._clock_offset.set(offset_seconds)

    def observe(self, state: State) -> None:
        """Take the state of now; `render` shows it."""
        for name, gauge in self._state.items():
            value = getattr(state, name)
            gauge.set(_NO_VALUE if value is None else value)
        for board_id, count in state.users.items():
            # The configuration bounds the number of boards, not LABEL_VALUES_MAX.
            self._users.labels(board_id).set(count)
        for rule, count in state.review_flags.items():
            self._flags.labels(rule).set(count)
        lag = state.lag  # None on a leader; a number in it is None where the lag headers say `unknown`
        self._lag_records.set(_NO_VALUE if lag is None or lag.records is None else lag.records)
        self._lag_seconds.set(_NO_VALUE if lag is None or lag.ms is None else lag.ms / 1000)
        self._leader_age.set(_NO_VALUE if lag is None else lag.age_ms / 1000)
        self._connected.set(_NO_VALUE if lag is None else lag.connected)

    # Live

    def viewers(self, count: int) -> None:
        self._viewers.set(count)

    def subscriptions(self, count: int) -> None:
        self._subscribed.set(count)

    def live_messages(self, count: int, kind: str) -> None:
        """Count a message that was written to `count` viewers."""
        self._messages(kind).inc(count)

    def live_tick(self, seconds: float, interval_seconds: float) -> None:
        """Record the time of writing an update to all viewers, and the time since the update before."""
        self._tick.observe((), seconds)
        self._interval.set(interval_seconds)

    def viewers_dropped(self, reason: str) -> None:
        self._dropped(reason).inc()

    # Webhooks

    def webhook_delivered(self, name: str) -> None:
        """Count a delivery that its receiver acknowledged."""
        self._delivered(name).inc()

    def webhook_failed(self, name: str) -> None:
        """Count an attempt that was not acknowledged."""
        self._undelivered(name).inc()

    def webhook(self, name: str, lag: int, *, disabled: bool) -> None:
        """Take how far a hook is. All its series are there from then on."""
        self._delivered(name), self._undelivered(name)
        self._hook_lag.labels(name).set(lag)
        self._hook_disabled.labels(name).set(disabled)

    # Reading

    def register(self, collector: Collector) -> None:
        """Show what a part collects at each scrape, too."""
        self._registry.register(collector)

    def render(self) -> bytes:
        """Give all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def families(self) -> list[MetricFamily]:
        """Give every metric: its name without an ending such as `_total`, its type, and what it is about."""
        return list(self._registry.collect())

    def value(self, name: str, **labels: str) -> float:
        """Give one sample by its full name; 0 if it does not exist yet."""
        found = self._registry.get_sample_value(name, labels)
        return 0.0 if found is None else found

    def _counter(self, name: str, about: str, label: str, known: tuple[str, ...] = ()) -> _Labelled:
        counter = _Labelled(Counter(f"scoreboard_{name}", about, (label,), registry=self._registry))
        for value in known:
            counter(value)  # shown as 0 until it happens: an alert on the rate of an absent series never fires
        return counter

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"scoreboard_{name}", about, labels, registry=self._registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        histogram = Histogram(f"scoreboard_{name}", about, buckets, labels)
        self._registry.register(histogram)
        return histogram
