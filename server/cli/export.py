"""`scoreboard export`: a board, or the events of the log, as CSV, NDJSON, SQLite or Parquet.

The data directory is only read, also beside a running server. The state is the newest snapshot and the log after it, so
the memory is that of a start; the rows are written part by part.

Rules:
- The present is exported, as an operator sees it: a freeze hides nothing here, and names are whole.
- Inactive users have no rank, so they are left out, as on the board.
- A past period is as its file says. Names, and who is inactive, are those of the state that is exported.
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import click

from engine.board import Board
from engine.board_events import EndedPeriod
from engine.board_rules import PastPeriod
from engine.corrections import TrueTimes
from engine.disk import RealDisk
from engine.ranking import ROWS_AT_ONCE, FinalRow
from engine.ranking_copy import copy_of
from engine.scoreboard import Scoreboard
from server.cli.log import read, segment_files
from server.cli.log_filter import Wanted
from server.cli.support import (
    BadUsage,
    CommandRefused,
    Moment,
    config_options,
    existing_directory,
    progress_bar,
    read_config,
    say,
    state_bar,
    warn,
)
from server.export.columns import BOARD, EVENTS, About, Column, board_rows, event_cells
from server.export.files import FORMATS, Export, FormatMissing, open_export, text_export
from server.live.encoding import iso_ms
from server.settings.config import Config
from snapshots.corrected_period import Correction
from snapshots.opening import log_directory
from snapshots.past_ranking import PastRanking
from snapshots.period_store import PeriodStore
from snapshots.periods import correction_of
from snapshots.state import BeginsLate, Until, corrected, corrections_in, read_state

PREVIOUS = "previous"
TO_STDOUT = "-"
STREAMS = ("csv", "ndjson")


@click.command()
@config_options
@click.argument("file")
@click.option("--format", "form", type=click.Choice(FORMATS), required=True, help="The format of FILE.")
@click.option("--board", help="The board; with --events only what happened on it.")
@click.option("--events", is_flag=True, help="The events of the log instead of a board.")
@click.option("--period", help="A period of the board: its id, or `previous` for the last that ended.")
@click.option("--as-of-seq", type=click.IntRange(min=1), help="As it was after this event.")
@click.option("--as-of", "as_of_ms", type=Moment(), help="As it was at this time: ISO 8601, or ms since 1970.")
@click.option("--user", help="With --events: only those of this userId.")
@click.option("--caller", help="With --events: only what this caller sent.")
@click.option("--reason", help="With --events: only actions with this reason.")
@click.option("--since", "since_ms", type=Moment(), help="With --events: only from this time on.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def export(
    data_dir: Path | None, config_file: Path | None, file: str, form: str, board: str | None, events: bool,
    period: str | None, as_of_seq: int | None, as_of_ms: int | None, force: bool, **filters: Any,
) -> None:  # fmt: skip
    """Write a board, or the log's events, to FILE; `-` is standard output. Safe while the server runs."""
    config = read_config(config_file, data_dir)
    directory = existing_directory(config)
    check_file(file, form, directory, force=force)
    if as_of_seq is not None and as_of_ms is not None:
        raise BadUsage("give --as-of-seq or --as-of, not both")
    if as_of_ms is not None and as_of_ms > time.time_ns() // 1_000_000:
        raise BadUsage("--as-of is a time of the future")
    until = Until(as_of_seq, as_of_ms)
    if events:
        if period is not None:
            raise BadUsage("--period goes with a board, not with --events")
        with _target(file, form, EVENTS) as target:
            rows, about = export_events(target, directory, Wanted(board=board, **filters), until)
    else:
        if board is None:
            raise BadUsage("name a board with --board, or take the log with --events")
        if given := [f"--{name.removesuffix('_ms')}" for name, value in filters.items() if value is not None]:
            raise BadUsage(f"{given[0]} goes with --events, not with a board")
        with _target(file, form, BOARD) as target:
            rows, about = export_board(target, config, board, period, until)
    what = "events" if events else f"rows of {board}" + (f", period {about.period}" if about.period else "")
    up_to = f"up to seq {about.seq} of epoch {about.epoch} ({about.time})"
    say(f"{rows} {what}, {up_to if about.seq else 'because nothing had happened yet'}")


def check_file(file: str, form: str, directory: str, *, force: bool) -> None:
    """Refuse a FILE that can't be, or must not be, written."""
    if file == TO_STDOUT:
        if form not in STREAMS:
            raise BadUsage(f"{form} can't go to standard output; {' and '.join(STREAMS)} can")
        return
    path = Path(file)
    if path.resolve().is_relative_to(Path(directory).resolve()):
        raise BadUsage(f"{file} is within the data directory {directory}, which belongs to the server")
    if path.is_dir() or not path.parent.is_dir():
        raise BadUsage(f"{file} is a directory" if path.is_dir() else f"there is no directory {path.parent}")
    if path.exists() and not force:
        raise BadUsage(f"{file} exists; --force replaces it")


@contextmanager
def _target(file: str, form: str, columns: tuple[Column, ...]) -> Iterator[Export]:
    if file == TO_STDOUT:
        yield text_export(sys.stdout.buffer, form, columns)
        return
    try:
        with open_export(Path(file), form, columns) as target:
            yield target
    except FormatMissing as missing:
        raise BadUsage(str(missing)) from missing


# A board


def export_board(target: Export, config: Config, board_id: str, period: str | None, until: Until) -> tuple[int, About]:
    """Write the rows of a board; give their number and what they are of."""
    ended: list[EndedPeriod] = []

    def note(each: EndedPeriod) -> None:
        # Its file may not be there yet. Only the newest of a name counts, so one ranking is held at most.
        if period is not None and each.ranking.board_id == board_id and period in (each.past.period.id, PREVIOUS):
            ended[:] = [each]

    with state_bar("reading the state") as show, _reaching_back(until):
        scoreboard, tail = read_state(
            RealDisk(), config.data_dir, config.rules, until_seq=until.seq, until_ms=until.time_ms, tell=warn,
            progress=show, on_ended=note,
        )  # fmt: skip
    if until.seq is not None and tail.seq < until.seq and until.time_ms is None:
        raise BadUsage(f"--as-of-seq {until.seq}: the log ends at seq {tail.seq}")
    board = scoreboard.board(board_id)
    if board is None:
        names = ", ".join(scoreboard.served()) or "none"
        raise BadUsage(f"there is no board {board_id!r} at seq {tail.seq}; there are: {names}")
    past = None if period is None else named(board, period)
    shown = None if board.definition is None or board.definition.period is None else board.definition.period.id
    if past is None:
        copied = copy_of(board)
        copied.sort()
        parts, count = copied.parts(ROWS_AT_ONCE), copied.count
    else:
        correction = correction_of(scoreboard, board_id, past)
        shown, count = past.period.id, past.count if correction is None else correction.corrected.count
        parts = past_parts(config.data_dir, past, ended, scoreboard, correction)
    rows = write_rows(target, scoreboard, parts, count)
    history = scoreboard.mark.history
    about = About("board", tail.seq, tail.epoch, iso_ms(scoreboard.time_ms), history, board_id, shown)
    target.finish(about)
    return rows, about


@contextmanager
def _reaching_back(until: Until) -> Iterator[None]:
    """Say in an operator's words that the files begin after what was asked for. Without a bound it is damage."""
    try:
        yield
    except BeginsLate as late:
        if until == Until():
            raise
        raise _too_early(until, late.first_seq, "with no snapshot of before that time") from late


def _too_early(until: Until, first_seq: int, more: str = "") -> BadUsage:
    asked = "--as-of" if until.seq is None else f"--as-of-seq {until.seq}"
    return BadUsage(
        f"{asked}: the log here begins with seq {first_seq}{', ' if more else ''}{more}. It is so where `[log] keep` "
        "removed old segments, and on a replica that began with its leader's snapshot. Export on a node that has more."
    )


def named(board: Board, period: str) -> PastPeriod | None:
    """Find a period by its id; None for the running one."""
    definition = board.definition
    running = None if definition is None or definition.period is None else definition.period.id
    past = () if definition is None else definition.past
    for each in reversed(past):
        if period in (each.period.id, PREVIOUS):
            return each
    if period == running:
        return None
    kept = [each.period.id for each in past] + ([running] if running is not None else [])
    raise BadUsage(f"board {board.board_id!r} has no period {period!r}; it has: {', '.join(kept[-5:]) or 'none'}")


def past_parts(
    data_directory: str,
    past: PastPeriod,
    ended: list[EndedPeriod],
    scoreboard: Scoreboard,
    correction: Correction | None = None,
) -> Iterator[list[FinalRow]]:
    """Yield the rows of a past period: from its file, or if it has none yet from the replay that ended it."""
    if not past.count:
        return
    store = PeriodStore(RealDisk(), data_directory)
    if store.has(past.seq):
        reader = store.open(past.seq)
        if correction is not None:
            yield from corrected_parts(reader, past.count, correction, scoreboard)
            return
        for start in range(0, past.count, ROWS_AT_ONCE):
            yield [row for row in reader.rows(start, ROWS_AT_ONCE) if scoreboard.is_active(row.user_id)]
    elif ended and ended[0].past.seq == past.seq:
        copied = copy_of(ended[0].ranking)
        copied.sort()
        if correction is not None:
            raise CommandRefused(
                f"period {past.period.id} was corrected and has no file here yet: start the server once"
            )
        for part in copied.parts(ROWS_AT_ONCE):
            yield [row for row in part if scoreboard.is_active(row.user_id)]
    else:
        raise CommandRefused(f"period {past.period.id} has no file here: {store.path(past.seq)}")


def corrected_parts(
    reader: PastRanking, count: int, correction: Correction, scoreboard: Scoreboard
) -> Iterator[list[FinalRow]]:
    """Yield the rows of a past period as corrections left it."""
    rows = correction.rows(reader, count)
    while part := list(islice(rows, ROWS_AT_ONCE)):
        yield [row for row in part if scoreboard.is_active(row.user_id)]


def write_rows(target: Export, scoreboard: Scoreboard, parts: Iterator[list[FinalRow]], count: int) -> int:
    """Write rows with the names of their users; give their number."""
    name_of, rows = scoreboard.users.name, 0
    with progress_bar("writing rows") as move:
        for part in parts:
            cells = board_rows(part, name_of)
            target.write(cells)
            rows += len(cells)
            move(rows, count)
    return rows


# The log


def export_events(target: Export, data_directory: str, wanted: Wanted, until: Until) -> tuple[int, About]:
    """Write the events that match; give their number, and up to where the log was read."""
    directory = log_directory(data_directory)
    until = corrected(RealDisk(), data_directory, until)
    files = segment_files(directory)
    times = TrueTimes(corrections_in(RealDisk(), directory, files) if wanted.by_time else [])
    first_seqs = [file.first_seq for file in files]
    rows, last = 0, (0, 1, 0)
    with progress_bar("writing events") as move:
        for frame, events in read(directory, until_seq=until.seq):
            if not until.holds(frame.first_seq, frame.time_ms):
                break
            last = (min(frame.last_seq, until.seq or frame.last_seq), frame.epoch, frame.time_ms)
            move(bisect_right(first_seqs, frame.first_seq) - 1, len(files))
            if not wanted.of_time(times.of(frame.first_seq, frame.time_ms)):
                continue
            part = [event_cells(event, frame.epoch) for event in events if event.seq <= last[0] and wanted.of(event)]
            target.write(part)
            rows += len(part)
    seq, epoch, time_ms = last
    if not seq and until != Until() and first_seqs and first_seqs[0] > 1:
        raise _too_early(until, first_seqs[0])
    if until.seq is not None and seq < until.seq and until.time_ms is None:
        raise BadUsage(f"--as-of-seq {until.seq}: the log ends at seq {seq}")
    about = About("events", seq, epoch, iso_ms(time_ms), board_id=wanted.board)
    target.finish(about)
    return rows, about
