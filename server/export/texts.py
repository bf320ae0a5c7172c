"""Rows as text: CSV and NDJSON. Pure.

    text = FORMATS["csv"](BOARD)
    text.head() + text.rows(cells) + …

- `csv`: RFC 4180, UTF-8, a line with the names first. A null is an empty field; ids and names are never empty.
- `ndjson`: an object on each line. A null is left out.

A cell that begins with `=`, `+`, `-` or `@` stays as it is, though a spreadsheet may take it for a formula: a userId
with a character before it would be another userId. server/IMPORT_EXPORT.md says how to open such a file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from server.export.columns import Cells, Column

_json = msgspec.json.Encoder().encode


class Text(Protocol):
    """A format of text. The bytes of `head` and of all rows together are the export."""

    content_type: str

    def head(self) -> bytes: ...

    def rows(self, rows: Iterable[Cells]) -> bytes: ...


class Csv:
    """Comma-separated values."""

    content_type = "text/csv; charset=utf-8"

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._special = [number for number, column in enumerate(columns) if column.kind in ("truth", "json")]

    def head(self) -> bytes:
        """Give the line with the names of the columns."""
        return _csv_lines([[column.name for column in self._columns]])

    def rows(self, rows: Iterable[Cells]) -> bytes:
        return _csv_lines(map(self._texts, rows) if self._special else rows)

    def _texts(self, cells: Cells) -> Sequence[object]:
        texts = list(cells)
        for number in self._special:
            if texts[number] is not None:
                texts[number] = _json(texts[number]).decode()
        return texts


class NdJson:
    """Lines of JSON."""

    content_type = "application/x-ndjson"

    def __init__(self, columns: Sequence[Column]) -> None:
        self._names = [column.name for column in columns]

    def head(self) -> bytes:
        return b""

    def rows(self, rows: Iterable[Cells]) -> bytes:
        names = self._names
        objects = ({name: cell for name, cell in zip(names, cells, strict=True) if cell is not None} for cells in rows)
        return b"".join([_json(each) + b"\n" for each in objects])


FORMATS: dict[str, Callable[[Sequence[Column]], Text]] = {"csv": Csv, "ndjson": NdJson}


def _csv_lines(rows: Iterable[Iterable[object]]) -> bytes:
    lines = io.StringIO(newline="")
    csv.writer(lines).writerows(rows)
    return lines.getvalue().encode()
