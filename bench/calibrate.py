"""What the load generators can do, and what they cost: `python -m bench.calibrate [--seconds 1]`.

They send single increments over 256 connections. The responder reads nothing of a request and answers each with 200 and
a body as long as ours. At the wanted rate of 20,000 requests a second a generator must leave most of its processor
idle; otherwise a bench would measure its own load. The responder is on processor 0, the generator on processor 1.
"""

from __future__ import annotations

import argparse
import subprocess

from bench import tables
from bench.history import record
from bench.load import Load, Workload, c_generator, python_generator, run_load

CONNECTIONS = 256
ANSWER_BYTES = 190
WANTED_PER_SECOND = 20_000
TOKEN = "x" * 200


def measure(generator: list[str], responder: list[str], seconds: float) -> Load:
    """Run a generator against the responder."""
    command = ["taskset", "-c", "0", *responder, "respond", str(ANSWER_BYTES)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        workload = Workload(port=port, connections=CONNECTIONS, seconds=seconds, token=TOKEN)
        return run_load(workload, 1, generator)
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each generator")
    options = parser.parse_args()
    compiled = c_generator()
    if compiled is None:
        print("The generators are not calibrated: the responder is in C, and there is no compiler. apt-get install gcc")
        return
    title = f"load generators against a trivial responder, {CONNECTIONS} connections"
    columns = ("requests/s", "µs of CPU a request", f"CPU at {WANTED_PER_SECOND:,}/s")
    table = tables.table(title, ("generator",), columns)
    figures = {}
    for name, command in (("C", compiled), ("Python", python_generator())):
        load = measure(command, compiled, options.seconds)
        cpu_us = load.cpu_share / load.per_second * 1e6
        share = cpu_us * WANTED_PER_SECOND / 1e6
        table.add_row(name, f"{load.per_second:,.0f}", f"{cpu_us:.1f}", f"{share:.0%}")
        figures[name] = {"per_second": load.per_second, "cpu_us": cpu_us, "cpu_share_at_wanted": share}
    tables.show(table)
    record("calibrate", figures)


if __name__ == "__main__":
    main()
