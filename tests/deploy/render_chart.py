"""Renders the chart with Helm: `python -m tests.deploy.render_chart`, after each change of it.

What it writes is committed, so that the chart can be tested where Helm is not: tests read it, and compare the digest at
its top with the files of the chart.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from tests.deploy.files import DEPLOY

CHART = DEPLOY / "helm" / "scoreboard"
VALUES = Path(__file__).with_name("golden") / "chart-values.yaml"
RENDERED = Path(__file__).with_name("golden") / "chart.yaml"
RELEASE = ("board", "--namespace", "games")
HEAD = "# Written by `python -m tests.deploy.render_chart`. Digest of the chart and the values: "


def head() -> str:
    """The first line of what is rendered from the chart as it is now."""
    digest = hashlib.sha256()
    for path in [*sorted(path for path in CHART.rglob("*") if path.is_file()), VALUES]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{HEAD}{digest.hexdigest()}\n"


def render(*arguments: str) -> str:
    """Run `helm template`. Raises CalledProcessError with what Helm says."""
    name, *namespace = RELEASE
    command = ["helm", "template", name, str(CHART), *namespace, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Write the file."""
    RENDERED.write_text(head() + render("--values", str(VALUES)))


if __name__ == "__main__":
    main()
