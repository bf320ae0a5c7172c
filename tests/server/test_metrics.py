"""The numbers: what each method adds, what stays bounded, what a scrape looks like."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import get_args

from server import bounds
from server.http.messages import Code
from server.metrics import DROPS, LIMITS, LONG_READS, MESSAGES, RESULTS, Metrics
from server.state_gauges import State

STATE = State(
    epoch=2,
    seq=7,
    users={"main": 3, "weekly": 0},
    registered_users=1,
    actions=6,
    action_index_bytes=4096,
    inbox_commands=5,
    log_bytes=100,
    log_segments=2,
)


def test_each_event_is_counted_where_it_belongs() -> None:
    """One call, one number."""
    metrics = Metrics()
    metrics.update("applied", 3)
    metrics.failed("CONFLICT")
    metrics.rate_limited("user")
    metrics.request("/scoreboard/top", "http", 0.003)
    metrics.connections(9)
    metrics.connection_failed("ConnectionReset")
    metrics.refused("INVALID_REQUEST")
    metrics.frame_written(records=64, size_bytes=5000, seconds=0.00015)
    metrics.viewers(8_000)
    metrics.live_messages(8_000, "update")
    metrics.subscriptions(70)
    metrics.live_tick(0.09, 0.25)
    metrics.viewers_dropped("slow")
    seen = {
        name: metrics.value(f"scoreboard_{name}", **labels)
        for name, labels in {
            "updates_total": {"result": "applied"},
            "failures_total": {"code": "CONFLICT"},
            "rate_limit_hits_total": {"limit": "user"},
            "request_seconds_count": {"route": "/scoreboard/top", "lane": "http"},
            "connections": {},
            "connections_failed_total": {"kind": "ConnectionReset"},
            "refused_total": {"code": "INVALID_REQUEST"},
            "batch_records_sum": {},
            "log_written_bytes_total": {},
            "viewers": {},
            "live_subscriptions": {},
            "live_messages_total": {"kind": "update"},
            "live_interval_seconds": {},
            "viewers_dropped_total": {"reason": "slow"},
        }.items()
    }
    assert list(seen.values()) == [3, 1, 1, 1, 9, 1, 1, 64, 5000, 8000, 70, 8000, 0.25, 1]


def test_an_fsync_falls_in_the_middle_of_the_buckets() -> None:
    """A good disk's 150 µs and a bad one's 30 ms are told apart, and neither is at an end of the range."""
    metrics = Metrics()
    for seconds in (0.00015, 0.03):
        metrics.frame_written(1, 100, seconds)
    assert metrics.value("scoreboard_fsync_seconds_bucket", le="0.0001") == 0
    assert metrics.value("scoreboard_fsync_seconds_bucket", le="0.0002") == 1
    assert metrics.value("scoreboard_fsync_seconds_bucket", le="0.02") == 1
    assert metrics.value("scoreboard_fsync_seconds_bucket", le="0.05") == 2


def test_what_never_happened_is_zero_and_not_absent() -> None:
    """An alert on a rate needs the series to be there before the first event."""
    text = Metrics().render().decode()
    for code in get_args(Code):
        assert f'scoreboard_failures_total{{code="{code}"}} 0.0' in text
    for result in RESULTS:
        assert f'scoreboard_updates_total{{result="{result}"}} 0.0' in text
    for limit in LIMITS:
        assert f'scoreboard_rate_limit_hits_total{{limit="{limit}"}} 0.0' in text
    for kind in MESSAGES:
        assert f'scoreboard_live_messages_total{{kind="{kind}"}} 0.0' in text
    for kind in LONG_READS:
        assert f'scoreboard_long_reads_refused_total{{kind="{kind}"}} 0.0' in text
        assert f'scoreboard_long_reads_running{{kind="{kind}"}} 0.0' in text
    for reason in DROPS:
        assert f'scoreboard_viewers_dropped_total{{reason="{reason}"}} 0.0' in text


def test_what_the_door_refuses_is_a_failure_too() -> None:
    """A body that is too long never gets any further, and an alert on that code is on `failures`."""
    metrics = Metrics()
    metrics.refused("PAYLOAD_TOO_LARGE")
    assert metrics.value("scoreboard_refused_total", code="PAYLOAD_TOO_LARGE") == 1
    assert metrics.value("scoreboard_failures_total", code="PAYLOAD_TOO_LARGE") == 1


def test_labels_do_not_grow_without_end() -> None:
    """Should a value that clients can choose get into a label, it is `other` from some number on."""
    metrics = Metrics()
    for number in range(10 * bounds.LABEL_VALUES_MAX):
        metrics.connection_failed(f"kind{number}")
    lines = [line for line in metrics.render().decode().splitlines() if "connections_failed_total{" in line]
    assert len(lines) == bounds.LABEL_VALUES_MAX + 1
    assert metrics.value("scoreboard_connections_failed_total", kind="other") == 9 * bounds.LABEL_VALUES_MAX


def test_the_state_is_what_was_last_observed() -> None:
    """Before the first snapshot there is no age, which is not the same as an age of nothing."""
    metrics = Metrics()
    metrics.observe(STATE)
    text = metrics.render().decode()
    assert 'scoreboard_users{board="weekly"} 0.0' in text
    assert "scoreboard_inbox_commands 5.0" in text
    assert "scoreboard_snapshot_age_seconds NaN" in text
    assert "scoreboard_ready 1.0" in text


def test_a_scrape_is_text_with_help_and_the_process_among_it() -> None:
    """Memory and file descriptors come with it."""
    text = Metrics().render().decode()
    assert "# HELP scoreboard_updates_total" in text
    assert "process_resident_memory_bytes" in text
    assert "process_open_fds" in text
    assert "_created" not in text


def test_two_processes_worth_of_metrics_do_not_meet() -> None:
    """Each has a registry of its own."""
    one, other = Metrics(), Metrics()
    one.viewers(5)
    assert (one.value("scoreboard_viewers"), other.value("scoreboard_viewers")) == (5, 0)


def test_the_build_is_told() -> None:
    """One series with the value 1; its labels say what runs."""
    lines = [line for line in Metrics().render().decode().splitlines() if line.startswith("scoreboard_build_info{")]
    (line,) = lines
    labels, value = line.removeprefix("scoreboard_build_info{").split("} ")
    told = dict(pair.split("=") for pair in labels.split(","))
    assert float(value) == 1.0
    assert told["version"] == f'"{version("scoreboard")}"'
    assert told["python"] == f'"{platform.python_version()}"'
    assert {"implementation", "machine", "trio", "hypercorn", "quart"} <= set(told)
