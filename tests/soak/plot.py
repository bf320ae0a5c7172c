"""The samples as an SVG: a panel for each row of the judgement, restarts as vertical lines. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from tests.soak.samples import FLAT, WARM_UP, Sample

WIDTH, PANEL_HEIGHT, LEFT, RIGHT, TOP, GAP = 1000, 120, 70, 20, 30, 34


def svg(samples: Sequence[Sample], title: str) -> str:
    """Draw them."""
    panels = [_panel(samples, name, number) for number, name in enumerate(FLAT)]
    height = TOP + len(FLAT) * (PANEL_HEIGHT + GAP) + 10
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}">',
            '<style>text {font: 12px sans-serif}</style><rect width="100%" height="100%" fill="white"/>',
            f'<text x="{LEFT}" y="18">{escape(title)}</text>',
            *panels,
            "</svg>",
        ]
    )


def _panel(samples: Sequence[Sample], name: str, number: int) -> str:
    begin, end = samples[0].at_seconds, samples[-1].at_seconds
    values = [(sample.at_seconds, value) for sample in samples if (value := sample.value(name)) is not None]
    largest = max((value for _, value in values), default=0.0) or 1.0
    top = TOP + number * (PANEL_HEIGHT + GAP) + 16
    bottom = top + PANEL_HEIGHT

    def x(at_seconds: float) -> float:
        return LEFT + (at_seconds - begin) / max(end - begin, 1e-9) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return bottom - value / (largest * 1.05) * PANEL_HEIGHT

    restarts = [now.at_seconds for before, now in pairwise(samples) if now.leader != before.leader]
    points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in values)
    warm = x(begin + (end - begin) * WARM_UP)
    return "\n".join(
        [
            f'<text x="{LEFT}" y="{top - 4}">{escape(FLAT[name].about)}</text>',
            f'<rect x="{LEFT}" y="{top}" width="{warm - LEFT:.1f}" height="{PANEL_HEIGHT}" fill="#eee"/>',
            *(f'<path d="M{x(at):.1f} {top}V{bottom}" stroke="#bbb" stroke-dasharray="3"/>' for at in restarts),
            f'<path d="M{LEFT} {top}V{bottom}H{WIDTH - RIGHT}" stroke="black" fill="none"/>',
            f'<text x="{LEFT - 6}" y="{y(largest):.1f}" text-anchor="end">{largest:.4g}</text>',
            f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">0</text>',
            f'<polyline points="{points}" fill="none" stroke="#06c"/>',
            f'<text x="{WIDTH - RIGHT}" y="{bottom + 13}" text-anchor="end">{end:.0f} s</text>',
        ]
    )
