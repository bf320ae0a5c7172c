"""The file of an export, in any format: written under another name, and renamed when it is whole.

    with open_export(path, "parquet", BOARD, about) as export:
        export.write(cells)                rows, a part after the other

Formats: `csv` and `ndjson` (`server.export.texts`); `sqlite`, a table of the rows and a table `about`; `parquet`, with
`about` in its metadata. Parquet needs the package pyarrow.

Rules:
- FILE appears whole, durable, and at once. After a failure nothing of it is left.
- Memory does not grow with the rows: at most ROW_GROUP of them wait to be written.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec

from server.export.columns import About, Cells, Column
from server.export.texts import FORMATS as TEXTS

FORMATS = ("csv", "parquet", "sqlite", "ndjson")

ROW_GROUP = 65_536
"""Rows in a group of a Parquet file. Readers skip whole groups; a group of events takes some 30 MB to make."""

_json = msgspec.json.Encoder().encode


class FormatMissing(Exception):
    """A package is not installed that the format needs."""


class Export(Protocol):
    """An export that is being written."""

    def write(self, rows: Sequence[Cells]) -> None: ...

    def finish(self, about: About) -> None:
        """Write what is left."""


@contextmanager
def open_export(path: Path, form: str, columns: Sequence[Column]) -> Iterator[Export]:
    """Make the file of an export. `finish` must be the last call. Raises `FormatMissing`, OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        export = _open(part, form, columns)
        yield export
        descriptor = os.open(part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(part, path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def text_export(out: BinaryIO, form: str, columns: Sequence[Column]) -> Export:
    """Write an export to a stream."""
    return _TextExport(out, form, columns, closes=False)


def _open(part: Path, form: str, columns: Sequence[Column]) -> Export:
    if form == "parquet":
        return _ParquetExport(part, columns)
    if form == "sqlite":
        return _SqliteExport(part, columns)
    return _TextExport(part.open("xb"), form, columns, closes=True)


class _TextExport:
    def __init__(self, out: BinaryIO, form: str, columns: Sequence[Column], *, closes: bool) -> None:
        self._out = out
        self._closes = closes
        self._text = TEXTS[form](columns)
        out.write(self._text.head())

    def write(self, rows: Sequence[Cells]) -> None:
        self._out.write(self._text.rows(rows))

    def finish(self, about: About) -> None:  # noqa: ARG002  # text has no place for it
        self._out.flush()
        if self._closes:
            self._out.close()


class _SqliteExport:
    """A new file, so nothing needs a journal: if it is not whole it never gets its name."""

    _TYPES = {"integer": "INTEGER", "text": "TEXT", "truth": "INTEGER", "json": "TEXT"}  # noqa: RUF012  # constant

    def __init__(self, part: Path, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._table = "events" if columns[0].name == "seq" else "scores"
        self._json = [number for number, column in enumerate(columns) if column.kind == "json"]
        self._database = sqlite3.connect(part, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("BEGIN")
        self._database.execute(f"CREATE TABLE {self._table} ({', '.join(map(self._definition, columns))})")
        marks = ", ".join("?" * len(columns))
        self._insert = f"INSERT INTO {self._table} VALUES ({marks})"  # noqa: S608  # names of ours

    def _definition(self, column: Column) -> str:
        more = " PRIMARY KEY" if column.name == "seq" else " NOT NULL" if column.required else ""
        return f'"{column.name}" {self._TYPES[column.kind]}{more}'

    def write(self, rows: Sequence[Cells]) -> None:
        self._database.executemany(self._insert, map(self._values, rows) if self._json else rows)

    def _values(self, cells: Cells) -> Sequence[Any]:
        values = list(cells)
        for number in self._json:
            if values[number] is not None:
                values[number] = _json(values[number]).decode()
        return values

    def finish(self, about: About) -> None:
        self._database.execute("CREATE TABLE about (name TEXT PRIMARY KEY, value)")
        self._database.executemany("INSERT INTO about VALUES (?, ?)", msgspec.to_builtins(about).items())
        self._database.execute("COMMIT")
        self._database.close()


class _ParquetExport:
    def __init__(self, part: Path, columns: Sequence[Column]) -> None:
        try:
            import pyarrow as arrow  # noqa: PLC0415  # an extra that most do not have
            from pyarrow import parquet  # noqa: PLC0415  # as above
        except ImportError:
            raise FormatMissing("Parquet needs the package pyarrow: pip install 'scoreboard[parquet]'") from None
        kinds = {"integer": arrow.int64(), "text": arrow.string(), "truth": arrow.bool_(), "json": arrow.string()}
        fields = [arrow.field(each.name, kinds[each.kind], nullable=not each.required) for each in columns]
        self._arrow = arrow
        self._columns = columns
        self._schema = arrow.schema(fields)
        self._writer = parquet.ParquetWriter(part, self._schema, compression="zstd")
        self._waiting: list[Cells] = []

    def write(self, rows: Sequence[Cells]) -> None:
        self._waiting += rows
        while len(self._waiting) >= ROW_GROUP:
            group, self._waiting = self._waiting[:ROW_GROUP], self._waiting[ROW_GROUP:]
            self._write_group(group)

    def _write_group(self, rows: Sequence[Cells]) -> None:
        cells = list(zip(*rows, strict=True))
        arrays = [self._array(*each) for each in zip(self._columns, cells, self._schema, strict=True)]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))

    def _array(self, column: Column, cells: Sequence[Any], field: Any) -> Any:
        if column.kind == "json":
            cells = [None if each is None else _json(each).decode() for each in cells]
        return self._arrow.array(cells, field.type)

    def finish(self, about: About) -> None:
        if self._waiting:
            self._write_group(self._waiting)
        self._writer.add_key_value_metadata({"scoreboard": _json(about).decode()})
        self._writer.close()
