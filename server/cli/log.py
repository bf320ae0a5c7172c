"""`scoreboard log dump|verify|stat`: read a log, also beside a running leader, without a lock and without writing.

Rules:
- Memory does not grow with the log. On a live log they end at the last event that was durable when they got there.
- All output was proved first: the checksum of each frame, the chain of frames, and the joins of segments.
- `dump --user` finds the user's frames by the indexes of sealed segments. It proves these frames by their checksums,
  and reads as a whole only segments without an index. Whether all of a log is sound says `verify`.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from engine.corrections import TrueTimes
from engine.disk import RealDisk
from engine.erased import unpack_seqs
from engine.errors import DiskFault, LogDamaged
from engine.events import (
    BoardClosed,
    BoardEvent,
    BoardFrozen,
    BoardPut,
    BoardUnfrozen,
    ClockCorrected,
    EpochBegun,
    Event,
    FlagPut,
    ImportBegun,
    Incremented,
    PeriodChanged,
    RanksNoted,
    Rescored,
    Reversed,
    ReviewDecided,
    RowsRevealed,
    ScoreImported,
    UserErased,
    UserPut,
)
from engine.holds import boards_that_hold
from engine.log_reader import scan
from engine.record import Frame, FrameFault, events_of
from engine.schedule import Period
from engine.segment import SegmentFile, list_segments
from engine.user_frames import scan_of
from server.cli.log_filter import Wanted
from server.cli.support import BadUsage, Moment, directory_option, json_option, print_json, print_table, progress_bar
from server.live.encoding import iso_ms
from snapshots.opening import log_directory
from snapshots.state import corrections_in

TYPES: dict[type[Event], str] = {
    Incremented: "incremented",
    UserPut: "user_put",
    EpochBegun: "epoch_begun",
    ClockCorrected: "clock_corrected",
    BoardPut: "board_put",
    BoardClosed: "board_closed",
    PeriodChanged: "period_changed",
    BoardFrozen: "board_frozen",
    BoardUnfrozen: "board_unfrozen",
    RowsRevealed: "rows_revealed",
    RanksNoted: "ranks_noted",
    Reversed: "reversed",
    ReviewDecided: "review_decided",
    UserErased: "user_erased",
    ImportBegun: "import_begun",
    FlagPut: "flag_put",
    ScoreImported: "score_imported",
}
"""The names of events in the output. They never change, because programs read them."""


class Summary(msgspec.Struct, rename="camel"):
    """What is in a whole log. Seqs and times are None without events."""

    segments: int
    compressed: int
    bytes: int
    frames: int = 0
    records: int = 0
    first_seq: int | None = None
    last_seq: int | None = None
    first_time: str | None = None
    last_time: str | None = None
    epochs: list[int] = []
    events: Counter[str] = msgspec.field(default_factory=Counter)

    def add(self, frame: Frame, events: list[Event]) -> None:
        self.frames += 1
        self.records += frame.count
        if self.first_seq is None:
            self.first_seq, self.first_time = frame.first_seq, iso_ms(frame.time_ms)
        self.last_seq, self.last_time = frame.last_seq, iso_ms(frame.time_ms)
        if not self.epochs or self.epochs[-1] != frame.epoch:
            self.epochs.append(frame.epoch)
        self.events.update(TYPES[type(event)] for event in events)


@click.group()
def log() -> None:
    """Read the log: what happened, and whether all of it is sound."""


@log.command()
@directory_option
@click.option("--from-seq", type=click.IntRange(min=1), help="Begin at this seq (default: the oldest one kept).")
@click.option("--until-seq", type=click.IntRange(min=1), help="End with this seq (default: the last one).")
@click.option("--user", help="Only actions of this userId, and changes of this user.")
@click.option("--caller", help="Only what this caller sent: the `sub` of its token.")
@click.option("--reason", help="Only actions with this reason.")
@click.option("--board", help="Only what happened on this boardId, also by a feed.")
@click.option("--since", "since_ms", type=Moment(), help="Only from this time on: ISO 8601, or ms since 1970.")
@click.option("--until", "until_ms", type=Moment(), help="Only up to this time, which counts too.")
def dump(data_directory: str, from_seq: int | None, until_seq: int | None, **filters: Any) -> None:
    """Print every event as a line of JSON, oldest first. Safe while the leader writes.

    An event must match each filter. Times are those after corrections of the clock.
    """
    if from_seq and until_seq and from_seq > until_seq:
        raise BadUsage(f"nothing lies between --from-seq {from_seq} and --until-seq {until_seq}")
    wanted, directory = Wanted(**filters), log_directory(data_directory)
    if wanted.since_ms is not None and wanted.until_ms is not None and wanted.since_ms > wanted.until_ms:
        raise BadUsage("nothing lies between --since and --until: --until is earlier")
    corrections = corrections_in(RealDisk(), directory, segment_files(directory)) if wanted.by_time else []
    times = TrueTimes(corrections)
    out = sys.stdout.buffer
    for frame, events in read(directory, from_seq, until_seq, wanted.user):
        if not wanted.of_time(times.of(frame.first_seq, frame.time_ms)):
            continue
        for event in events:
            if (from_seq or 0) <= event.seq <= (until_seq or event.seq) and wanted.of(event):
                out.write(msgspec.json.encode(line_of(event, frame.epoch)) + b"\n")
    out.flush()


@log.command()
@directory_option
@json_option
def verify(data_directory: str, as_json: bool) -> None:
    """Prove the whole log: checksums, chain, joins, compressed segments too. Exit code 1 at the first damage."""
    try:
        summary = summarize(log_directory(data_directory), "verifying the log")
    except DiskFault as fault:
        if as_json:
            print_json({"ok": False, **fault_of(fault)})
        raise
    if as_json:
        print_json({"ok": True, **msgspec.to_builtins(summary)})
    elif summary.last_seq is None:
        click.echo("the log is sound: no events yet")
    else:
        click.echo(
            f"the log is sound: seq {summary.first_seq} to {summary.last_seq}, "
            f"{summary.frames} frames, segments: {summary.segments}"
        )
        corrections = summary.events[TYPES[ClockCorrected]]
        if corrections:
            click.echo(f"corrections of the clock: {corrections}; `scoreboard log dump` shows them")


@log.command()
@directory_option
@json_option
def stat(data_directory: str, as_json: bool) -> None:
    """Say what the log holds: segments, bytes, seqs, epochs, events by type."""
    directory = log_directory(data_directory)
    summary = summarize(directory, "reading the log")
    if as_json:
        files = [
            {"path": file.path, "firstSeq": file.first_seq, "compressed": file.compressed, "bytes": file.bytes}
            for file in segment_files(directory)
        ]
        print_json({**msgspec.to_builtins(summary), "files": files})
        return
    rows: list[tuple[str, object]] = [
        ("segments", summary.segments),
        ("of these compressed", summary.compressed),
        ("bytes on disk", summary.bytes),
        ("frames", summary.frames),
        ("events", summary.records),
        *((f"events: {name}", count) for name, count in sorted(summary.events.items())),
        ("first seq", summary.first_seq if summary.first_seq is not None else "-"),
        ("last seq", summary.last_seq if summary.last_seq is not None else "-"),
        ("first time", summary.first_time or "-"),
        ("last time", summary.last_time or "-"),
        ("epochs", ", ".join(map(str, summary.epochs)) or "-"),
    ]
    print_table(("of the log", "value"), rows)


def segment_files(directory: str) -> list[SegmentFile]:
    return list_segments(RealDisk(), directory).segments


def read(
    directory: str, from_seq: int | None = None, until_seq: int | None = None, user: str | None = None
) -> Iterator[tuple[Frame, list[Event]]]:
    """Read the log, or with `user` at least the frames that concern this user."""
    if user is None:
        frames = scan(RealDisk(), directory, from_seq=from_seq, until_seq=until_seq)
    else:
        frames = scan_of(RealDisk(), directory, {user}, from_seq=from_seq, until_seq=until_seq)
    for frame in frames:
        try:
            yield frame, events_of(frame)
        except FrameFault as fault:
            remedy = "Read it with the version that wrote it, or a later one."
            raise LogDamaged(fault.reason, path=directory, seq=frame.first_seq, remedy=remedy) from fault


def summarize(directory: str, label: str) -> Summary:
    """Read a whole log, with a bar that moves from segment to segment."""
    files = segment_files(directory)
    first_seqs = [file.first_seq for file in files]
    summary = Summary(len(files), sum(file.compressed for file in files), sum(file.bytes for file in files))
    with progress_bar(label) as move:
        for frame, events in read(directory):
            summary.add(frame, events)
            move(bisect_right(first_seqs, frame.first_seq) - 1, len(files))
    return summary


def fault_of(fault: DiskFault) -> dict[str, Any]:
    return {"what": fault.what, "path": fault.path, "offset": fault.offset, "seq": fault.seq, "remedy": fault.remedy}


def line_of(event: Event, epoch: int) -> dict[str, Any]:
    """Give every field of an event, for auditors."""
    common = {
        "seq": event.seq,
        "epoch": epoch,
        "time": iso_ms(event.time_ms),
        "timeMs": event.time_ms,
        "type": TYPES[type(event)],
    }
    if isinstance(event, Incremented):
        return (
            common
            | {
                "boardId": event.board_id,
                "userId": event.user_id,
                "actionId": event.action_id,
                "delta": event.delta,
                "newScore": event.new_score,
                "reason": event.reason,
                "caller": event.caller,
            }
            | _more_fields(event)
        )
    if isinstance(event, UserPut):
        return common | {
            "userId": event.user_id,
            "displayName": event.display_name,
            "active": event.active,
            "caller": event.caller,
        }
    if isinstance(event, ClockCorrected):
        return common | {"fromSeq": event.from_seq, "aheadMs": event.ahead_ms, "note": event.note}
    if isinstance(event, EpochBegun):
        return common | {"note": event.note}
    if isinstance(event, RanksNoted):
        return common | {"asOfMs": event.as_of_ms}
    if isinstance(event, Reversed):
        return common | _reversal_fields(event)
    if isinstance(event, UserErased):
        seqs = unpack_seqs(event.actions)
        return common | {
            "userId": event.user_id, "pseudonym": event.pseudonym, "caller": event.caller, "actions": seqs,
        }  # fmt: skip
    if isinstance(event, FlagPut):
        return common | {"flag": event.flag, "enabled": event.enabled, "caller": event.caller}
    if isinstance(event, ImportBegun):
        of_import = {"rows": event.rows, "digest": event.digest, "merge": event.merge}
        return common | {"boardId": event.board_id, "importId": event.import_id, **of_import, "caller": event.caller}
    if isinstance(event, ScoreImported):
        return common | {
            "boardId": event.board_id,
            "userId": event.user_id,
            "value": event.value,
            "newScore": event.new_score,
            "reachedMs": event.reached_ms,
            "importId": event.import_id,
            "row": event.row,
            "caller": event.caller,
        }
    return common | {"boardId": event.board_id, "caller": event.caller} | _board_fields(event)


def _reversal_fields(event: Reversed) -> dict[str, Any]:
    return {
        "reversalId": event.reversal_id,
        "reason": event.reason,
        "caller": event.caller,
        "again": event.again,
        "actions": list(event.actions),
        **_correction_fields(event),
    }


def _correction_fields(event: Reversed | ReviewDecided) -> dict[str, Any]:
    """Give the scores that a correction made."""

    def rows(rescored: tuple[Rescored, ...]) -> list[dict[str, Any]]:
        return [
            {
                "userId": row.user_id,
                "newScore": row.new_score,
                "reachedSeq": row.reached_seq,
                "updatedMs": row.updated_ms,
            }
            for row in rescored
        ]

    return {
        "scores": [{"boardId": part.board_id, "users": rows(part.rows)} for part in event.scores],
        "periods": [
            {"boardId": part.board_id, "endedSeq": part.ended_seq, "count": part.count, "users": rows(part.rows)}
            for part in event.periods
        ],
    }


def _more_fields(event: Incremented) -> dict[str, Any]:
    """Give what only increments by special rules have."""
    more: dict[str, Any] = {} if event.value is None else {"value": event.value, "chosen": event.chosen}
    if event.fed:
        more["fed"] = [
            {"boardId": fed.board_id, "delta": fed.delta, "newScore": fed.new_score, "value": fed.value}
            for fed in event.fed
        ]
    if event.held:
        more["held"] = boards_that_hold(event)
    return more


def _board_fields(event: BoardEvent | ReviewDecided) -> dict[str, Any]:
    if isinstance(event, ReviewDecided):
        return {
            "reviewId": event.review_id,
            "decision": event.decision,
            "reversalId": event.reversal_id,
            "note": event.note,
        } | (_correction_fields(event) if event.scores or event.periods else {})
    if isinstance(event, BoardPut):
        return {"rules": msgspec.to_builtins(event.rules), "period": _period(event.period)}
    if isinstance(event, PeriodChanged):
        passed = [_period(period) for period in event.passed]
        return {
            "ended": _period(event.ended), "following": _period(event.following), "over": event.over, "passed": passed
        }  # fmt: skip
    if isinstance(event, BoardFrozen):
        return {"atMs": event.at_ms}
    return {"step": event.step} if isinstance(event, RowsRevealed) else {}


def _period(period: Period | None) -> dict[str, Any] | None:
    return None if period is None else {"id": period.id, "beginsMs": period.begins_ms, "endsMs": period.ends_ms}
