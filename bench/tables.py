"""How the benches print their tables: for a terminal, or as Markdown with MARKDOWN=1 in the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

MARKDOWN = bool(os.environ.get("MARKDOWN"))
WIDTH_CHARACTERS = 400 if MARKDOWN else 180


def table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    """A table with columns of text, then columns of figures."""
    made = Table(title=title, title_justify="left", box=box.MARKDOWN if MARKDOWN else box.HEAVY_HEAD)
    for column in left:
        made.add_column(column, no_wrap=MARKDOWN)
    for column in right:
        made.add_column(column, justify="right", no_wrap=MARKDOWN)
    return made


def show(made: Table) -> None:
    """Print a table."""
    console = Console(width=WIDTH_CHARACTERS)
    if not MARKDOWN:
        console.print(made)
        return
    title, made.title = made.title, None
    with console.capture() as captured:
        console.print(made)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    print(f"\n**{title}**\n\n" + "\n".join(line for line in lines if line), flush=True)
