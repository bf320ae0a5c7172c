"""The dashboard and the alert rules ask only for what a running leader and a running replica show."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy import dashboard
from server.metrics import Metrics
from server.node import member_metrics
from server.node.member_metrics import Figures
from server.quorum.stream import Bounds, StreamServer
from tests.deploy.conftest import Pair
from tests.deploy.files import DEPLOY, ROOT, read_yaml

RULES = DEPLOY / "prometheus"
SCRAPED_BY_PROMETHEUS = {"up"}
"""Metrics that Prometheus itself makes of each target."""
TARGET_LABELS = {"job", "instance", "le", "severity"}
NAME = re.compile(r"\b((?:scoreboard|process)_[a-z_]+|up)\b(?=\{)")
ON_DEMAND = {
    "connections_failed": "kind",
    "refused": "code",
    "review_flags": "rule",
    "webhook_deliveries": "webhook",
    "webhook_failures": "webhook",
    "webhook_lag_records": "webhook",
    "webhook_disabled": "webhook",
}
"""Metrics that have no sample until it happens, or until something is configured."""

MEMBER = Figures(peers=(("node-2", 0, 0.0),), bounds=Bounds(1, 1, 100, (StreamServer("nats-2", True, 0),)))
"""What a node of a quorum shows is made by the same code there; `tests/quorum/test_member_metrics.py` scrapes some."""


def panels() -> list[Any]:
    """Every panel of the committed dashboard that draws something."""
    committed = json.loads((DEPLOY / "grafana" / "dashboards" / "scoreboard.json").read_text())
    return [panel for panel in committed["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    """Everything that the dashboard asks for."""
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def rules() -> list[Any]:
    """Every alert rule."""
    (group,) = read_yaml("prometheus/alerts.yml")["groups"]
    found: list[Any] = group["rules"]
    return found


def samples(pair: Pair) -> dict[str, set[str]]:
    """The labels of every sample that one of the two nodes shows, by the sample's name."""
    found: dict[str, set[str]] = {}
    for text in pair.scrapes.values():
        for shown in text_string_to_metric_families(text):
            for sample in shown.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    for each in (*member_metrics.families(MEMBER), *member_metrics.append_seconds().collect()):
        for made in each.samples:
            found.setdefault(made.name, set()).update(made.labels)
    families = {family.name: family for family in Metrics().families()}
    for name, label in ON_DEMAND.items():
        family = families[f"scoreboard_{name}"]
        ending = "_total" if family.type == "counter" else ""
        found.setdefault(f"{family.name}{ending}", set()).add(label)
    return found


def asked(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Give (metric, labels) for every metric in PromQL: the labels of its selector and of the `by` before it."""
    by = {label for group in re.findall(r"by \(([^)]*)\)", expression) for label in re.split(r",\s*", group)}
    for match in NAME.finditer(expression):
        selector = expression[match.end() + 1 : expression.index("}", match.end())]
        yield match[1], {*by, *re.findall(r"([a-z_]+)\s*=", selector)} - TARGET_LABELS


def test_the_dashboard_is_what_the_table_of_metrics_makes() -> None:
    """Nobody changes the file by hand: `python -m deploy.dashboard > deploy/grafana/dashboards/scoreboard.json`."""
    assert (DEPLOY / "grafana" / "dashboards" / "scoreboard.json").read_text() == dashboard.text()


def test_a_panel_of_an_unknown_metric_can_not_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script fails; a panel that stays empty is never written."""
    monkeypatch.setitem(dashboard.ROWS, "Now", (dashboard.panel("Wrong", "no_such_metric", stat=True),))
    with pytest.raises(KeyError, match="scoreboard_no_such_metric"):
        dashboard.dashboard()


@pytest.mark.parametrize("expression", [*expressions(), *(rule["expr"] for rule in rules())])
def test_every_query_finds_its_metric_on_a_running_node(expression: str, pair: Pair) -> None:
    """Names with their endings, and labels, are those of a scrape."""
    shown = samples(pair)
    found = list(asked(expression))
    assert found, f"{expression} asks for nothing"
    for metric, labels in found:
        if metric not in SCRAPED_BY_PROMETHEUS:
            assert metric in shown
            assert labels <= shown[metric], f"{metric} has the labels {sorted(shown[metric])}"


def test_every_panel_has_its_place() -> None:
    """Panels do not overlap, stay in the grid, and have ids of their own and a description."""
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < dashboard.COLUMNS
        taken |= cells
        assert panel["description"]
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_every_alert_has_its_paragraph_for_the_one_who_is_woken() -> None:
    """A link leads to a heading of OPERATIONS.md, and no heading there is about an alert that does not exist."""
    operations = (ROOT / "server" / "OPERATIONS.md").read_text()
    headings = re.findall(r"^### (Scoreboard\w+)$", operations, re.MULTILINE)
    assert headings == [rule["alert"] for rule in rules()]
    for rule in rules():
        assert rule["annotations"]["runbook_url"] == f"server/OPERATIONS.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]


def test_every_alert_is_seen_to_stay_quiet_and_to_fire() -> None:
    """`alerts_test.yml` has both cases of each."""
    quiet: set[str] = set()
    firing: set[str] = set()
    for test in read_yaml("prometheus/alerts_test.yml")["tests"]:
        for case in test["alert_rule_test"]:
            (firing if case["exp_alerts"] else quiet).add(case["alertname"])
    names = {rule["alert"] for rule in rules()}
    assert quiet == names
    assert firing == names


@pytest.fixture
def promtool() -> str:
    """Prometheus' own checker. `.ci/run` installs it; elsewhere `apt-get install prometheus` does."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool: the rules are read, and not run by Prometheus (Debian has it in `prometheus`)")
    return found


def run(*command: str, cwd: Path) -> None:
    """Run a command; show what it says if it fails."""
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_rules_fire_as_their_tests_say(promtool: str) -> None:
    """Prometheus runs the rules on made-up samples."""
    run(promtool, "test", "rules", "alerts_test.yml", cwd=RULES)


def test_prometheus_takes_its_configuration(promtool: str) -> None:
    """The configuration of the compose file, with the rules that it names."""
    run(promtool, "check", "config", "prometheus.yml", cwd=RULES)


def test_prometheus_understands_every_query_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    """Each query, as a rule that records it. Grafana's variables are replaced by values."""
    values = {"$job": "scoreboard", "$instance": ".*", "$__rate_interval": "1m"}
    recorded = []
    for number, expression in enumerate(expressions()):
        plain = re.sub(r"\$\w+", lambda variable: values[variable[0]], expression)
        recorded.append({"record": f"panel:{number}", "expr": plain})
    document = {"groups": [{"name": "dashboard", "rules": recorded}]}
    (tmp_path / "panels.yml").write_text(yaml.safe_dump(document))
    run(promtool, "check", "rules", os.fspath(tmp_path / "panels.yml"), cwd=tmp_path)


def test_prometheus_can_read_what_a_node_shows(promtool: str, pair: Pair) -> None:
    """Its parser takes each scrape. (Its advice about names is not asked for.)"""
    for text in pair.scrapes.values():
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert "error while linting" not in done.stderr, done.stderr
