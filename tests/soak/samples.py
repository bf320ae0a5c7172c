"""What is measured each second, and the judgement whether it is flat. Pure.

After a warm-up the samples are cut into thirds, and the median of the last third is compared with that of the first. It
may be larger by a factor, and by a fixed amount of noise, because the machine does other work as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles

from tests.measuring import MIB

WARM_UP = 0.2
"""The share of the samples that is not judged."""

KINDS = ("post", "batch", "top", "read")


@dataclass(frozen=True)
class Sample:
    """One second. `index_bytes`: the index of actions, which grows with every action, by design."""

    at_seconds: float
    leader: int
    rss_bytes: int
    index_bytes: int
    open_files: int
    disk_files: int
    snapshot_seq: int
    latencies_ms: dict[str, list[float]]

    def value(self, name: str) -> float | None:
        """The figure of a row of FLAT; None where there was nothing to measure."""
        if name == "memory_mib":
            return (self.rss_bytes - self.index_bytes) / MIB
        if name in ("open_files", "disk_files"):
            return float(getattr(self, name))
        kind, _, rank = name.partition("_ms_p")
        spans = self.latencies_ms.get(kind, [])
        if len(spans) < 2:
            return None
        return quantiles(spans, n=100, method="inclusive")[int(rank) - 1]

    def summary(self) -> dict[str, object]:
        """The sample for its file: figures instead of every single latency."""
        told = {name: round(value, 3) for name in FLAT if (value := self.value(name)) is not None}
        plain = {key: value for key, value in asdict(self).items() if key != "latencies_ms"}
        return {**plain, **told}


@dataclass(frozen=True)
class Allowed:
    """How much larger the last third may be than the first: last ≤ first · factor + noise."""

    about: str
    factor: float
    noise: float


FLAT: dict[str, Allowed] = {
    "memory_mib": Allowed("memory without the index of actions, MiB", 1.10, 8.0),
    "open_files": Allowed("open file descriptors", 1.0, 4.0),
    "disk_files": Allowed("files in the data directory", 1.10, 3.0),
    "post_ms_p50": Allowed("a post, ms, median", 1.5, 5.0),
    "post_ms_p99": Allowed("a post, ms, 99 of 100", 2.0, 25.0),
    "batch_ms_p50": Allowed("a batch of 100, ms, median", 1.5, 5.0),
    "top_ms_p50": Allowed("the top, ms, median", 1.5, 5.0),
    "read_ms_p50": Allowed("a score or a receipt, ms, median", 1.5, 10.0),
}


@dataclass(frozen=True)
class Verdict:
    """One row of the report."""

    name: str
    first: float
    last: float
    limit: float

    @property
    def flat(self) -> bool:
        """Whether the last third is within the bound."""
        return self.last <= self.limit


def judge(samples: Sequence[Sample]) -> list[Verdict]:
    """Compare the last third with the first, for each row of FLAT."""
    judged = samples[int(len(samples) * WARM_UP) :]
    third = max(1, len(judged) // 3)
    first, last = judged[:third], judged[-third:]
    return [_verdict(name, allowed, first, last) for name, allowed in FLAT.items()]


def _verdict(name: str, allowed: Allowed, first: Sequence[Sample], last: Sequence[Sample]) -> Verdict:
    medians = []
    for samples in (first, last):
        values = [value for sample in samples if (value := sample.value(name)) is not None]
        assert values, f"nothing was measured of {name}: it ran for too short a time"
        medians.append(median(values))
    return Verdict(name, medians[0], medians[1], medians[0] * allowed.factor + allowed.noise)
