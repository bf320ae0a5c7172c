"""The slice of the soak that `make test` runs, and its judge: it must be able to say no."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.e2e import leader
from tests.measuring import MIB, raise_file_limit
from tests.soak.__main__ import report
from tests.soak.load import Backend, Measures, check_books
from tests.soak.plot import svg
from tests.soak.samples import FLAT, KINDS, Sample, judge
from tests.soak.soak import CONFIG, Load, soak

ROUND_SECONDS = 4.0
LIGHT = Load(posters=2, posts_per_second=20.0, batchers=1, batches_per_second=5.0, readers=1, viewers=5)
FLAT_SAMPLE = Sample(0.0, 0, 100 * MIB, 10 * MIB, 60, 20, 0, {kind: [1.0, 2.0, 3.0] for kind in KINDS})
STEADY = [replace(FLAT_SAMPLE, at_seconds=float(second)) for second in range(100)]


async def test_a_short_soak_loses_nothing(tmp_path: Path) -> None:
    """Two rounds, one ended by SIGTERM and one by kill -9: every acknowledged action counts, and there are samples.

    Such a short time can't show whether it is flat; that is for `make soak`.
    """
    raise_file_limit()
    config = tmp_path / "scoreboard.toml"
    config.write_text(CONFIG, encoding="utf-8")
    outcome = await soak(tmp_path / "data", config, 2, ROUND_SECONDS, LIGHT)
    assert outcome.counted > 0
    assert outcome.restarts == {"SIGTERM": 1, "kill -9": 1}
    assert outcome.checkpoints >= 1
    assert {sample.leader for sample in outcome.samples} == {0, 1}
    assert all(outcome.measures.counts[kind] for kind in (*KINDS, "message"))
    assert f"All {outcome.counted:,} acknowledged actions" in report(outcome, judge(STEADY), 2, ROUND_SECONDS)
    panels = ElementTree.fromstring(svg(outcome.samples, "a < b")).findall("{*}polyline")
    assert len(panels) == len(FLAT)


def test_what_does_not_grow_is_flat() -> None:
    """Memory is judged without the index, which grows by design."""
    growing = [
        replace(sample, rss_bytes=sample.rss_bytes + second * MIB, index_bytes=sample.index_bytes + second * MIB)
        for second, sample in enumerate(STEADY)
    ]
    for samples in (STEADY, growing):
        assert all(verdict.flat for verdict in judge(samples))


@pytest.mark.parametrize("name", FLAT)
def test_what_grows_is_found(name: str) -> None:
    """Each row of the judgement says no when its value grows."""

    def grown(sample: Sample, factor: float) -> Sample:
        match name:
            case "memory_mib":
                return replace(sample, rss_bytes=int(sample.rss_bytes * factor))
            case "open_files":
                return replace(sample, open_files=int(sample.open_files * factor))
            case "disk_files":
                return replace(sample, disk_files=int(sample.disk_files * factor))
        kind, _, rank = name.partition("_ms_p")
        spans = [20.0] * 100 if rank == "50" else [1.0] * 95 + [50.0] * 5
        spans = [span * factor if rank == "50" or span > 1 else span for span in spans]
        return replace(sample, latencies_ms={**sample.latencies_ms, kind: spans})

    samples = [grown(sample, 1 + (second / 25) ** 2) for second, sample in enumerate(STEADY)]
    assert name in [verdict.name for verdict in judge(samples) if not verdict.flat]


async def test_a_lost_action_is_found(tmp_path: Path) -> None:
    """The books say that three are acknowledged, the leader has counted none."""
    backend = Backend("liar", 0, 1, 1.0)
    backend.acknowledged = 3
    async with leader.serving(tmp_path / "data") as node:
        with pytest.raises(AssertionError, match="liar: acknowledged and not counted"):
            await check_books(node.host, node.port, leader.token("admin"), [backend], Measures())
