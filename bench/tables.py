"""How the benches print their tables: for a terminal, or with MARKDOWN=1 in the environment for the page about them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

WIDTH_CHARACTERS = 150


def table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    """A table with columns of text, then columns of figures."""
    markdown = bool(os.environ.get("MARKDOWN"))
    made = Table(title=title, title_justify="left", box=box.MARKDOWN if markdown else box.HEAVY_HEAD)
    for column in left:
        made.add_column(column, no_wrap=markdown)
    for column in right:
        made.add_column(column, justify="right", no_wrap=markdown)
    return made


def show(made: Table) -> None:
    """Print a table."""
    console = Console(width=WIDTH_CHARACTERS)
    if made.box is box.MARKDOWN:
        console.print()
    console.print(made)
