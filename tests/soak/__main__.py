"""`python -m tests.soak --minutes N`: run it, judge it, write the report. Exit code 1 if anything was not flat."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from tests.measuring import raise_file_limit
from tests.soak.plot import svg
from tests.soak.samples import FLAT, Verdict, judge
from tests.soak.soak import CONFIG, Load, Outcome, soak

WORK = Path(__file__).parent / "work"
ROUNDS_MIN, ROUNDS_MAX = 6, 12
ROUND_SECONDS = 60.0
"""Of a short run. In a long run each leader lives longer, because a restart hides what grows in a process."""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of load, all rounds together")
    parser.add_argument("--rounds", type=int, help=f"leaders; by default {ROUNDS_MIN} to {ROUNDS_MAX}")
    parser.add_argument("--work", type=Path, default=WORK, help="where data and report go; emptied first")
    options = parser.parse_args(arguments)
    raise_file_limit()
    rounds = options.rounds or min(ROUNDS_MAX, max(ROUNDS_MIN, round(options.minutes * 60 / ROUND_SECONDS)))
    round_seconds = options.minutes * 60 / rounds
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    sys.stdout.write(f"{rounds} rounds of {round_seconds:.0f} s, report in {options.work}\n")
    sys.stdout.flush()
    (options.work / "scoreboard.toml").write_text(CONFIG, encoding="utf-8")
    outcome = trio.run(soak, options.work / "data", options.work / "scoreboard.toml", rounds, round_seconds, Load())
    verdicts = judge(outcome.samples)
    text = report(outcome, verdicts, rounds, round_seconds)
    (options.work / "report.md").write_text(text, encoding="utf-8")
    plot = svg(outcome.samples, f"{rounds} rounds of {round_seconds:.0f} s; dashed: a restart; grey: not judged")
    (options.work / "soak.svg").write_text(plot, encoding="utf-8")
    with (options.work / "samples.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(sample.summary()) + "\n" for sample in outcome.samples)
    sys.stdout.write(text)
    return 0 if all(verdict.flat for verdict in verdicts) else 1


def report(outcome: Outcome, verdicts: Sequence[Verdict], rounds: int, round_seconds: float) -> str:
    """The report, as Markdown."""
    counts, restarts = outcome.measures.counts, outcome.restarts
    ends = " and ".join(f"{count} × {way}" for way, count in restarts.items())
    lines = [
        "# Soak",
        "",
        f"{rounds} rounds of {round_seconds:.0f} s, ended by {ends}; {outcome.checkpoints} checkpoints.",
        f"{counts['post']:,} posts, {counts['batch']:,} batches, {counts['top'] + counts['read']:,} reads,",
        f"{counts['message']:,} messages to viewers.",
        f"All {outcome.counted:,} acknowledged actions are counted once, and every score is their sum.",
        "",
        "| | first third | last third | at most | |",
        "|---|---|---|---|---|",
    ]
    for verdict in verdicts:
        mark = "flat" if verdict.flat else "**not flat**"
        figures = f"{verdict.first:.2f} | {verdict.last:.2f} | {verdict.limit:.2f}"
        lines.append(f"| {FLAT[verdict.name].about} | {figures} | {mark} |")
    return "\n".join([*lines, "", "![samples](soak.svg)", ""])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
