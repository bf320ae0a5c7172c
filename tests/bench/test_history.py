"""The history of the benches: its lines are whole, and the newest figures of a bench can be read."""

from __future__ import annotations

import json

from bench.history import HISTORY, described, newest


def test_the_last_run_of_a_bench_is_its_newest() -> None:
    """Lines are only appended, so the order of the file is the order of the runs."""
    lines = [json.dumps({"bench": bench, "commit": commit}) for bench, commit in [("a", "1"), ("b", "2"), ("a", "3")]]
    assert {name: run["commit"] for name, run in newest(lines).items()} == {"a": "3", "b": "2"}


def test_figures_stand_in_groups_behind_their_texts() -> None:
    """A row is a line; its texts label it. Figures of another depth have lines of their own."""
    figures = {
        "users": 10,
        "rows": [{"system": "express lane", "per_second": 5.0, "generator": ""}],
        "log": {"events": 3, "during": {"ms": 0.5}},
    }
    assert list(described("", figures)) == [
        "  users 10",
        "  express lane: per_second 5.0",
        "  log: events 3",
        "  during: ms 0.5",
    ]


def test_every_line_says_when_and_where_it_was_measured() -> None:
    """A run without a time carries a note instead."""
    for run in map(json.loads, HISTORY.read_text(encoding="utf-8").splitlines()):
        assert run["commit"]
        assert run["machine"].keys() == {"cores", "cpu", "python"}
        assert run["time"] or run["note"]
        assert list(described("", run["figures"]))
