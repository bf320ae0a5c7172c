"""The Grafana dashboard, made from the tables of metrics: `server/metrics.py`, `server/node/member_metrics.py`.

    python -m deploy.dashboard > deploy/grafana/dashboards/scoreboard.json

Rules:
- A panel names metrics, never a query. The type of a metric decides what is asked: of a counter its rate, of a gauge
  its value, of a histogram two quantiles, and its rate where the panel says so. Its help text is the description.
- A metric that does not exist is an error here, so no panel asks for one. A test compares the committed file with what
  this makes, and with what a running server shows.
- The dashboard works with any data source, job and set of instances: all three are variables at its top.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from server.metrics import Metrics
from server.node import member_metrics
from server.node.member_metrics import Figures, append_seconds

COLUMNS = 24
"""Of Grafana's grid."""
HEIGHT = 7
STAT_HEIGHT = 4
QUANTILES = (0.5, 0.99)
SELECTOR = '{job=~"$job", instance=~"$instance"}'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """One panel. `metrics` are names without `scoreboard_`, or whole ones of the process.

    `by` are the labels to keep. Without any each instance has its own line, unless `together` adds them up.
    """

    title: str
    metrics: tuple[str, ...]
    unit: str = "short"
    by: tuple[str, ...] = ()
    together: bool = False
    same: bool = False
    """Each node has all of it, so the greatest of the nodes counts, and not their sum."""
    count: bool = False
    """Of a histogram: how many observations a second, instead of quantiles."""
    stat: bool = False
    """One number instead of a line over time."""


def panel(title: str, *metrics: str, **more: Any) -> Panel:
    """Write a panel short."""
    return Panel(title, metrics, **more)


ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        panel("Ready", "ready", stat=True),
        panel("Last event", "seq", stat=True),
        panel("Viewers", "viewers", stat=True, together=True),
        panel("Increments", "updates", unit="ops", by=("result",), stat=True),
        panel("Slowest answers (99 %)", "request_seconds", unit="s", together=True, stat=True),
        panel("Versions", "build_info", by=("version", "python"), stat=True),
    ),
    "Requests": (
        panel("Requests by route", "request_seconds", unit="reqps", by=("route",), count=True),
        panel("Time to an answer by route", "request_seconds", unit="s", by=("route",)),
        panel("Increments by outcome", "updates", unit="ops", by=("result",)),
        panel("Errors by code", "failures", unit="ops", by=("code",)),
        panel("Refused by a limit", "rate_limit_hits", unit="ops", by=("limit",)),
        panel("Refused by the listener", "refused", unit="ops", by=("code",)),
        panel("Connections", "connections"),
        panel("Connections that failed", "connections_failed", unit="ops", by=("kind",)),
    ),
    "Log and disk": (
        panel("Write and sync of a frame", "fsync_seconds", unit="s"),
        panel("Events in a frame", "batch_records"),
        panel("Commands that wait", "inbox_commands"),
        panel("Written to the log", "log_written_bytes", unit="Bps"),
        panel("Free on the disk", "disk_free_bytes", unit="bytes"),
        panel("Size of the log", "log_bytes", unit="bytes"),
        panel("Segments", "log_segments"),
        panel("Age of the newest snapshot", "snapshot_age_seconds", unit="s"),
        panel("Last event, and that of the newest snapshot", "seq", "snapshot_seq"),
        panel("Snapshots that failed", "snapshots_failed"),
    ),
    "Live": (
        panel("Viewers by node", "viewers"),
        panel("Users that viewers follow", "live_subscriptions"),
        panel("Messages to viewers", "live_messages", unit="ops", by=("kind",)),
        panel("Channel is on", "live_enabled"),
        panel("Viewers dropped", "viewers_dropped", unit="ops", by=("reason",)),
        panel("Time to write an update to all", "live_tick_seconds", unit="s"),
        panel("Time between updates", "live_interval_seconds", unit="s"),
    ),
    "Replication": (
        panel("Replicas with a link", "followers"),
        panel("Link to the leader", "replica_connected"),
        panel("Lag in time", "replica_lag_seconds", unit="s"),
        panel("Lag in records", "replica_lag_records"),
        panel("Since the leader was heard", "replica_leader_age_seconds", unit="s"),
        panel("Epoch", "epoch"),
    ),
    "Quorum": (
        panel("Role", "quorum_role", by=("instance", "role")),
        panel("Epoch that is applied", "quorum_epoch"),
        panel("Takeovers", "quorum_takeovers", "quorum_depositions", unit="ops"),
        panel("Time until a majority has a frame", "quorum_append_seconds", unit="s"),
        panel("Frames in a second", "quorum_append_seconds", unit="ops", count=True),
        panel("Writes in doubt", "quorum_unknown_outcomes", unit="ops"),
        panel("Lag of the other nodes", "quorum_peer_lag_records", by=("instance", "node")),
        panel("Silence of the other nodes", "quorum_peer_heard_seconds", unit="s", by=("instance", "node")),
        panel("Size of the stream", "quorum_stream_bytes", unit="bytes"),
        panel("Places of the stream", "quorum_stream_first", "quorum_stream_last"),
        panel("Copies of the stream that lag", "quorum_server_lag", by=("instance", "server")),
        panel("Copies of the stream that are current", "quorum_server_current", by=("instance", "server")),
    ),
    "Boards and people": (
        panel("Users by board", "users", by=("board",), same=True),
        panel("Registered users", "registered_users"),
        panel("Actions, ever", "actions"),
        panel("Flags by rule", "review_flags", by=("rule",), same=True),
        panel("Reviews that wait", "open_reviews", "reviews_passed_over"),
        panel("Actions on hold", "held_actions"),
        panel("Actions reversed", "reversed_actions", unit="ops", by=("way",)),
        panel("Rows imported", "imported_rows", unit="ops"),
        panel("Erasures that wait", "erasures_pending"),
        panel("Age of the oldest erasure", "erasure_age_seconds", unit="s"),
    ),
    "Long reads": (
        panel("Running", "long_reads_running", by=("kind",)),
        panel("Refused", "long_reads_refused", unit="ops", by=("kind",)),
        panel("Time", "long_read_seconds", unit="s", by=("kind",)),
    ),
    "Webhooks": (
        panel("Deliveries", "webhook_deliveries", unit="ops", by=("webhook",)),
        panel("Attempts that failed", "webhook_failures", unit="ops", by=("webhook",)),
        panel("Events that wait, and hooks that are off", "webhook_lag_records", "webhook_disabled", by=("webhook",)),
    ),
    "Process": (
        panel("Processor", "process_cpu_seconds", unit="percentunit"),
        panel("Memory", "process_resident_memory_bytes", "action_index_bytes", unit="bytes"),
        panel("Actions in the index, and older ones in files", "actions", "actions_sealed"),
        panel("Older actions read, and the files of them", "action_reads", "action_files"),
        panel("Open files", "process_open_fds", "process_max_fds"),
        panel("Steps of the clock", "clock_steps"),
        panel("Clock less the time of events", "clock_offset_seconds", unit="s"),
    ),
}


def full_name(metric: str) -> str:
    """Give the name in the table of metrics."""
    return metric if metric.startswith("process_") else f"scoreboard_{metric}"


def queries(each: Panel, kinds: dict[str, str]) -> list[tuple[str, str]]:
    """Give (PromQL, legend) for everything that a panel draws. Raises KeyError for a metric that does not exist."""
    found = []
    for metric in each.metrics:
        name = full_name(metric)
        kind = kinds[name]
        by = each.by or (() if each.together else ("instance",))
        legend = " ".join(f"{{{{{label}}}}}" for label in by) or each.title
        if len(each.metrics) > 1:
            legend = f"{metric.removeprefix('process_')} {legend}"
        if kind == "histogram" and not each.count:
            group = ", ".join(("le", *by))
            quantiles = QUANTILES[-1:] if each.stat else QUANTILES
            for quantile in quantiles:
                inner = f"sum by ({group}) (rate({name}_bucket{SELECTOR}[$__rate_interval]))"
                found.append((f"histogram_quantile({quantile}, {inner})", f"{legend} {quantile * 100:g} %"))
            continue
        series = {"counter": f"{name}_total", "histogram": f"{name}_count"}.get(kind, name) + SELECTOR
        value = series if kind == "gauge" else f"rate({series}[$__rate_interval])"
        over = "max" if each.same else "sum"
        found.append((f"{over} by ({', '.join(by)}) ({value})" if by else f"{over}({value})", legend))
    return found


def drawn(each: Panel, number: int, place: tuple[int, int, int], kinds: dict[str, str], help_of: dict[str, str]) -> Any:
    """Make the JSON of a panel. `place` is column, line and width in the grid."""
    x, y, width = place
    targets = [
        {"datasource": SOURCE, "expr": expr, "legendFormat": legend, "refId": chr(ord("A") + count)}
        for count, (expr, legend) in enumerate(queries(each, kinds))
    ]
    if each.stat:
        options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "textMode": "value_and_name"}
    else:
        options = {"tooltip": {"mode": "multi", "sort": "desc"}, "legend": {"displayMode": "list"}}
    return {
        "id": number,
        "type": "stat" if each.stat else "timeseries",
        "title": each.title,
        "description": " ".join(help_of[full_name(metric)] for metric in each.metrics),
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": width, "h": STAT_HEIGHT if each.stat else HEIGHT},
        "fieldConfig": {"defaults": {"unit": each.unit}, "overrides": []},
        "options": options,
        "targets": targets,
    }


def variable(name: str, label: str, query: str) -> dict[str, Any]:
    """A variable whose values come from the metrics; all of them are chosen."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard() -> dict[str, Any]:
    """Make the dashboard."""
    families = [*Metrics().families(), *member_metrics.families(Figures()), *append_seconds().collect()]
    kinds = {family.name: family.type for family in families}
    help_of = {family.name: family.documentation for family in families}
    panels: list[Any] = []
    y = 0
    for title, row in ROWS.items():
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}})  # fmt: skip
        y += 1
        per_line = len(row) if row[0].stat else 3
        width = COLUMNS // per_line
        for begin in range(0, len(row), per_line):
            for column, each in enumerate(row[begin : begin + per_line]):
                panels.append(drawn(each, len(panels) + 1, (column * width, y, width), kinds, help_of))
            y += STAT_HEIGHT if row[begin].stat else HEIGHT
    return {
        "uid": "scoreboard",
        "title": "Scoreboard",
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                variable("job", "Job", "label_values(scoreboard_build_info, job)"),
                variable("instance", "Node", 'label_values(scoreboard_build_info{job=~"$job"}, instance)'),
            ]
        },
        "panels": panels,
    }


def text() -> str:
    """The dashboard as its file has it."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
