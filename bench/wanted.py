"""The table at the end of a bench: the figures that the project wants, beside what was measured.

    show_wanted([Wanted("single POST, 256 connections", 19_000, 15_000, at_least=True, unit="/s")])

The table drops no figure. One that was not reached stands in it like the others; one that was not measured says so.
"""

from __future__ import annotations

import msgspec

from bench import tables


class Wanted(msgspec.Struct, frozen=True):
    """A figure with its bound. `measured` None: it could not be measured, for the reason in `note`."""

    what: str
    measured: float | None
    bound: float
    at_least: bool
    unit: str = ""
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the figure is on the right side of its bound; None if it was not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


def show_wanted(wanted: list[Wanted]) -> None:
    """Print the table."""
    table = tables.table("wanted and measured", ("figure",), ("wanted", "measured", ""))
    for figure in wanted:
        sign = "≥" if figure.at_least else "≤"
        verdict = {True: "reached", False: "NOT reached", None: "not measured"}[figure.reached]
        measured = "–" if figure.measured is None else amount(figure.measured, figure.unit)
        notes = " ".join(part for part in (verdict, figure.note) if part)
        table.add_row(figure.what, f"{sign} {amount(figure.bound, figure.unit)}", measured, notes)
    tables.show(table)


def amount(value: float, unit: str) -> str:
    """A value with its unit: two decimals below 10, one below 1,000, none above."""
    if value >= 1_000:
        text = f"{value:,.0f}"
    elif value >= 10:
        text = f"{value:.1f}".removesuffix(".0")
    else:
        text = f"{value:.2f}".rstrip("0").rstrip(".")
    return f"{text}{unit}"
