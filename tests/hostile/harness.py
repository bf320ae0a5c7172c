"""The one way in which every attack is run and judged.

    the honest client is served ─► attack ─► the server runs and answers ─► memory and files are back
                └──────────────── and is served all along, each answer right, to its last one ──────┘

Memory and files are compared with what they were before the first attack, not before this one, because leftovers add
up. The bounds are far above what was measured, and far below what an attack would cost if the server kept it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.hostile.attack import Attack, head
from tests.hostile.honest import Honest
from tests.hostile.target import LONG, Target, wait_until
from tests.measuring import MIB, reset_peak

FILES_SLACK = 8
"""The log's next segment, a snapshot that is being written, a thread's files."""

RSS_SLACK_BYTES = 80 * MIB
"""Memory that may stay: remembered tokens, heads and rates, and what the allocator does not give back. That is up to
the peak of an attack, some 72 MiB with `new heads`; a server that kept these heads would have 100 MiB more."""

PEAK_SLACK_BYTES = 320 * MIB
"""Memory for a moment: the bodies of all connections (`BODIES_BYTES_MAX`), and the reading of one."""

BACK_SECONDS_MAX = 90.0 if LONG else 45.0
"""Until everything is freed: the longest deadline of the listener is a minute."""


@dataclass
class Range:
    """A server, the honest client beside it, and the server's memory and files before the first attack."""

    target: Target
    honest: Honest
    files: int
    rss_bytes: int


@contextmanager
def beginning(target: Target, bearer: str) -> Iterator[Range]:
    """Start the honest client, warm the server up in every lane, measure it; at the end check the honest client."""
    honest = Honest(target, bearer)
    honest.start()
    try:
        yield _warm_up(target, honest)
    finally:
        honest.stop()
    honest.check()


def _warm_up(target: Target, honest: Honest) -> Range:
    for path in ("/", "/docs", "/openapi.json", "/metrics", "/scoreboard/top", "/nowhere"):
        target.ask(head(f"GET {path} HTTP/1.1"))
    honest.wait_served(50)
    return Range(target, honest, target.open_files(), target.rss_bytes())


def attack(place: Range, kind: Attack) -> str:
    """Run an attack and judge it; the figures as a line of text."""
    target, honest = place.target, place.honest
    reset_peak(target.pid)
    answered, began = honest.answered, time.monotonic()
    honest.slowest_seconds = 0.0
    kind.run(target)
    seconds = time.monotonic() - began
    assert target.is_running(), f"the server has ended:\n{target.stderr()[-2000:]}"
    peak_bytes = target.peak_rss_bytes()
    assert peak_bytes <= place.rss_bytes + PEAK_SLACK_BYTES, f"{peak_bytes // MIB} MiB at the peak"
    honest.wait_served(5)
    assert [reply.status for reply in target.ask(head("GET /healthz HTTP/1.1"))] == [200]
    wait_until(
        lambda: target.open_files() <= place.files + FILES_SLACK,
        f"no more than {place.files} + {FILES_SLACK} files",
        BACK_SECONDS_MAX,
    )
    wait_until(
        lambda: target.rss_bytes() <= place.rss_bytes + RSS_SLACK_BYTES,
        f"no more than {(place.rss_bytes + RSS_SLACK_BYTES) // MIB} MiB of memory",
        BACK_SECONDS_MAX,
    )
    assert "INTERNAL_ERROR" not in target.stderr()
    return (
        f"{kind.name}: {seconds:.1f} s, peak +{(peak_bytes - place.rss_bytes) / MIB:.1f} MiB, after it "
        f"{(target.rss_bytes() - place.rss_bytes) / MIB:+.1f} MiB and {target.open_files() - place.files:+d} files, "
        f"the honest client: {honest.answered - answered} answers, the slowest {honest.slowest_seconds * 1000:.0f} ms"
    )
