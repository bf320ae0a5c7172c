"""The recovery table: what opening a log does about each situation, and the functions that find the row. Pure.

    situation = judge_end(data, offset, seq=…, checksum=…, epoch=…, sealed=…)
    raise refusal(situation, directory=…, path=…, good=seq)            a row with REFUSE
    tell(finding(situation, path=…))                                   a row with CUT or TIDY

`engine.log_reader` and `engine.replay` find facts. This file alone decides what they mean and what is done:

    GO_ON    all is well
    CUT      keep the bytes in a side file, zero them in the log, tell, go on
    TIDY     remove what interrupted work left behind, tell, go on
    REFUSE   raise `LogDamaged` with path, offset, seq and the remedy; change nothing

Theory: one frame at a time is in flight, into space that held zeros. So a crash can leave only one fault: the last
frame of the last segment lacks sectors, and nothing valid follows it. That frame was never acknowledged and may be cut.
Any other fault (a bad frame before a valid one, in a sealed segment, or complete but wrong) is in bytes that were
synced, so in events that may have been acknowledged. Cutting them would lose them silently, so an operator must decide.
"Protocol-aware recovery for consensus-based storage" (FAST 2018) shows what happened to systems that cut at the first
wrong checksum.

The `seq` of an error is the first event that is missing or wrong. Everything before it is good.
"""

from __future__ import annotations

import enum

import msgspec

from engine.errors import HistoriesDiffer, LogDamaged
from engine.limits import FRAME_BYTES_MAX
from engine.record import (
    FRAME_MAGIC,
    HEADER_BYTES,
    LENGTH_OFFSET,
    Frame,
    FrameFault,
    Header,
    impossible_fields,
    unpack_frame,
    unpack_header,
)

SECTOR_BYTES = 512
"""The least that a disk writes as a whole. Disks with sectors of 4096 bytes write eight of these as a whole."""

TRAILING_ZEROS_MAX = 8
"""The most zeros at the end of a whole frame: those of an integer as its last field."""


class Action(enum.Enum):
    """What recovery does; the legend is at the top of this file."""

    GO_ON = enum.auto()
    CUT = enum.auto()
    TIDY = enum.auto()
    REFUSE = enum.auto()


class Situation(enum.Enum):
    """What recovery found. The table has a row for each."""

    CLEAN_END = enum.auto()
    TORN_TAIL = enum.auto()
    UNFINISHED_FILE = enum.auto()
    SEGMENT_TWICE = enum.auto()
    LAST_FRAME_DAMAGED = enum.auto()
    DAMAGE_BEFORE_FRAMES = enum.auto()
    SEALED_DAMAGED = enum.auto()
    HEADER_DAMAGED = enum.auto()
    FRAME_DOUBLED = enum.auto()
    FRAMES_MISSING = enum.auto()
    FRAME_FOREIGN = enum.auto()
    SEGMENT_MISSING = enum.auto()
    COVERED_MISSING = enum.auto()
    SEGMENT_STRAY = enum.auto()
    SEGMENT_RENAMED = enum.auto()
    SEGMENT_COPIED = enum.auto()
    SEGMENT_FOREIGN = enum.auto()
    SEGMENT_NOT_JOINED = enum.auto()
    NEWER_VERSION = enum.auto()
    BEGINS_LATE = enum.auto()
    ENDS_EARLY = enum.auto()
    SNAPSHOT_DIFFERS = enum.auto()
    SNAPSHOT_FOREIGN = enum.auto()
    LOG_GONE = enum.auto()


class Row(msgspec.Struct, frozen=True):
    """One row: what is done, what was found, and what an operator can do.

    In a remedy {data} is the data directory, {next} the first seq after a gap, {name} the right name of the file, and
    {snapshot} the seq of the snapshot. {restore} is a sentence with the command that restores what is good, or empty if
    nothing is good.
    """

    action: Action
    sentence: str
    remedy: str


_BACKUP_OR_RESTORE = "Put the undamaged file back from a backup.{restore}"
_PUT_BACK_OR_RESTORE = "Put what is missing back from a backup.{restore}"
_TAKE_AWAY = "Move what was put there by mistake out of the directory.{restore}"
_WHICH_IS_RIGHT = (
    "If the log is the right one, move the snapshot of seq {snapshot} out of the directory: the one before it and the "
    "log give the state. If the snapshot is, put its log back from a backup."
)

TABLE: dict[Situation, Row] = {
    Situation.CLEAN_END: Row(Action.GO_ON, "the log ends cleanly", ""),
    Situation.TORN_TAIL: Row(
        Action.CUT,
        "the last frame was only partly written when the process or the machine stopped; it was never acknowledged",
        "Nothing has to be done. The bytes that were cut are kept in the side file.",
    ),
    Situation.UNFINISHED_FILE: Row(
        Action.TIDY, "an unfinished file of interrupted work is removed; it was never in use", "Nothing has to be done."
    ),
    Situation.SEGMENT_TWICE: Row(
        Action.TIDY,
        "a segment is here plain and compressed, because its compression was interrupted; the plain one stays",
        "Nothing has to be done.",
    ),
    Situation.LAST_FRAME_DAMAGED: Row(
        Action.REFUSE,
        "the last frame is all there but its head or its checksum is wrong: it was damaged after it was written, and "
        "may hold acknowledged events",
        _BACKUP_OR_RESTORE,
    ),
    Situation.DAMAGE_BEFORE_FRAMES: Row(
        Action.REFUSE, "a frame is damaged, and frames with acknowledged events follow it", _BACKUP_OR_RESTORE
    ),
    Situation.SEALED_DAMAGED: Row(
        Action.REFUSE, "a segment that was complete is damaged, and other segments follow it", _BACKUP_OR_RESTORE
    ),
    Situation.HEADER_DAMAGED: Row(Action.REFUSE, "the head of a segment is damaged", _BACKUP_OR_RESTORE),
    Situation.FRAME_DOUBLED: Row(
        Action.REFUSE, "a whole frame stands here whose events came before: it was doubled or moved", _BACKUP_OR_RESTORE
    ),
    Situation.FRAMES_MISSING: Row(
        Action.REFUSE, "what stands here belongs further on: frames are missing before it", _PUT_BACK_OR_RESTORE
    ),
    Situation.FRAME_FOREIGN: Row(
        Action.REFUSE,
        "a whole frame stands here that does not continue the one before: it is from another log or another history",
        _BACKUP_OR_RESTORE,
    ),
    Situation.SEGMENT_MISSING: Row(Action.REFUSE, "a segment is missing before this one", _PUT_BACK_OR_RESTORE),
    Situation.COVERED_MISSING: Row(
        Action.REFUSE,
        "a segment is missing before this one; the snapshot covers its events, but their record is gone",
        "Put the missing segment back from a backup. If it is lost for good, move the segments before the gap out of "
        "the directory as well: the state is whole without them, and the log then begins at seq {next}.",
    ),
    Situation.SEGMENT_STRAY: Row(Action.REFUSE, "two segments overlap: one of them does not belong here", _TAKE_AWAY),
    Situation.SEGMENT_RENAMED: Row(
        Action.REFUSE,
        "the name of a segment is not the first seq in it: the file was renamed",
        "Rename it back to {name}.{restore}",
    ),
    # A row of its own: a copy may be taken away, but a renamed segment is the only one.
    Situation.SEGMENT_COPIED: Row(
        Action.REFUSE,
        "the name of a segment is not the first seq in it: it is a copy of another segment here",
        _TAKE_AWAY,
    ),
    Situation.SEGMENT_FOREIGN: Row(
        Action.REFUSE, "a segment is of another log than the snapshot or the segments before it", _TAKE_AWAY
    ),
    Situation.SEGMENT_NOT_JOINED: Row(
        Action.REFUSE,
        "a segment does not continue the end of the one before: they are of different histories of this log",
        _BACKUP_OR_RESTORE,
    ),
    Situation.NEWER_VERSION: Row(
        Action.REFUSE, "this was written by a newer version of scoreboard", "Start it with that version or a later one."
    ),
    Situation.BEGINS_LATE: Row(
        Action.REFUSE,
        "the log begins after the state that it is to be applied to: the events between are missing",
        "Put the missing segments, or a later snapshot, back from a backup of {data}.",
    ),
    Situation.ENDS_EARLY: Row(
        Action.REFUSE,
        "the log ends before the snapshot does: acknowledged events after it may be missing",
        "Put the missing segments back from a backup.{restore}",
    ),
    Situation.SNAPSHOT_DIFFERS: Row(
        Action.REFUSE,
        "the log and the snapshot are of different histories: at the snapshot's seq their checksums differ",
        _WHICH_IS_RIGHT,
    ),
    Situation.SNAPSHOT_FOREIGN: Row(Action.REFUSE, "the snapshot is of another log than the one here", _WHICH_IS_RIGHT),
    Situation.LOG_GONE: Row(
        Action.REFUSE, "there is no segment of the log here", "Put the log back from a backup of {data}.{restore}"
    ),
}


class Finding(msgspec.Struct, frozen=True):
    """What recovery found and repaired, for the server's log."""

    situation: Situation
    message: str
    path: str
    offset: int | None = None
    seq: int | None = None
    remedy: str = ""


def refusal(
    situation: Situation,
    *,
    directory: str,
    path: str,
    offset: int | None = None,
    good: int,
    until: int | None = None,
    covered: int = 0,
    next_seq: int = 0,
    name: str = "",
    detail: str = "",
) -> LogDamaged:
    """Make the error of a row.

    `directory` is the log's. `good` is the last good seq. `until` is the seq to restore up to if it is not `good`, 0 if
    nothing can be restored. `covered` is the seq of the snapshot, `next_seq` the first seq after a gap, `name` the
    right name of the file.
    """
    row = TABLE[situation]
    assert row.action is Action.REFUSE
    data = directory.rpartition("/")[0] or "."
    command = f"scoreboard restore --from {data} --to NEWDIR"
    if until is None and good < covered:
        # The snapshot covers the damage. A seq in the command would throw away events that are not damaged.
        restore = f" Or go on without the log up to there, which the snapshot of seq {covered} covers: `{command}`."
    else:
        until = good if until is None else until
        command = f"`{command} --until-seq {until}`"
        restore = f" Or go on without what comes after seq {until}: {command}." if until > 0 else ""
    histories = situation in {Situation.SNAPSHOT_DIFFERS, Situation.SNAPSHOT_FOREIGN}
    return (HistoriesDiffer if histories else LogDamaged)(
        f"{row.sentence}: {detail}" if detail else row.sentence,
        path=path,
        offset=offset,
        seq=good + 1,
        remedy=row.remedy.format(data=data, restore=restore, next=next_seq, name=name, snapshot=covered),
    )


def finding(
    situation: Situation, *, path: str, offset: int | None = None, seq: int | None = None, detail: str = ""
) -> Finding:
    """Make the finding of a row with CUT or TIDY."""
    row = TABLE[situation]
    assert row.action in {Action.CUT, Action.TIDY}
    message = f"{row.sentence}: {detail}" if detail else row.sentence
    return Finding(situation, message, path, offset, seq, row.remedy)


def misfit(frame: Frame | Header, seq: int, checksum: int, epoch: int) -> Situation | None:
    """Say why a whole frame does not follow the frame with these values; None if it does."""
    if frame.first_seq <= seq:
        return Situation.FRAME_DOUBLED
    if frame.first_seq > seq + 1:
        return Situation.FRAMES_MISSING
    if frame.previous != checksum or frame.epoch < epoch:
        return Situation.FRAME_FOREIGN
    return None


def judge_end(data: bytes, offset: int, *, seq: int, checksum: int, epoch: int, sealed: bool) -> Situation:
    """Say what it means that the frames of a segment end at `offset`. `data` is the whole segment.

    `sealed`: other segments follow. Whether this one ends too early is for the caller to judge.
    """
    if not data[offset:].strip(b"\0"):
        return Situation.CLEAN_END
    try:
        situation = misfit(unpack_frame(data, offset), seq, checksum, epoch)
    except FrameFault:
        pass
    else:
        assert situation is not None, "a frame that follows on is not the end"
        return situation
    if sealed:
        return Situation.SEALED_DAMAGED
    if _has_head(data, offset + 1):
        return Situation.DAMAGE_BEFORE_FRAMES
    if _was_written(data, offset):
        return Situation.LAST_FRAME_DAMAGED
    return Situation.TORN_TAIL


def _has_head(data: bytes, offset: int) -> bool:
    """Tell whether a later frame begins at `offset` or after it, whole or not.

    One frame at a time is in flight, so the frames before a later one were synced. The later header may have one
    impossible field, because it may be damaged too. An id can't look like a header even so: most fields of a header
    contain NUL, and ids don't.
    """
    place = data.find(FRAME_MAGIC, offset)
    while place >= 0:
        if impossible_fields(data, place) <= 1:
            return True
        place = data.find(FRAME_MAGIC, place + 1)
    return False


def _was_written(data: bytes, offset: int) -> bool:
    """Tell whether the frame that begins at `offset` was written to its end, although it does not verify.

    A frame is written into zeros. After a crash in between, some sector of the frame or its end still holds zeros.
    etcd's WAL uses the same test to tell damage from a torn write. The header is a third of a short frame, so a damaged
    header must not pass for a torn write either. Two cases:

    - The header is unreadable. It was written if bytes follow it in its own sector, or in the next one if its sector
      ends with it.
    - The length is wrong. Then bytes follow the end that it gives, or the frame verifies with another length.
    """
    # A body may end with zeros of its last integer (a score of 256 does), so one zero byte is no missing end.
    head_end = offset + HEADER_BYTES
    try:
        length = unpack_header(data, offset).length
    except FrameFault:
        begun = data[offset : min(_sector_end(offset), head_end)].strip(b"\0")
        # If the sector ends with the header, the next sector shows whether the body was written.
        return bool(begun and data[head_end : _sector_end(head_end)].strip(b"\0"))
    end = head_end + length
    if data[end:].strip(b"\0"):
        return True
    if end <= len(data) and data[end - 1 - TRAILING_ZEROS_MAX : end].strip(b"\0"):
        starts = range(offset - offset % SECTOR_BYTES, end, SECTOR_BYTES)
        if all(data[max(start, offset) : min(start + SECTOR_BYTES, end)].strip(b"\0") for start in starts):
            return True
    return _is_whole_with_another_length(data, offset, length)


def _sector_end(offset: int) -> int:
    """Give the offset where the sector of the byte at `offset` ends."""
    return offset - offset % SECTOR_BYTES + SECTOR_BYTES


def _is_whole_with_another_length(data: bytes, offset: int, wrong: int) -> bool:
    """Tell whether the length in its header is all that is wrong with a frame.

    The last frame ends where the zeros begin, or a few bytes later. If a frame with an unreadable header follows,
    one flipped bit in the length is tried; more would be a third fault at once.
    """
    start = offset + HEADER_BYTES
    written = len(data[start : start + FRAME_BYTES_MAX].rstrip(b"\0"))
    lengths = set(range(written, written + TRAILING_ZEROS_MAX + 1)) | {wrong ^ 1 << bit for bit in range(32)}
    before = data[offset : offset + LENGTH_OFFSET]
    for length in lengths:
        after = data[offset + LENGTH_OFFSET + 4 : start + length]
        try:
            unpack_frame(before + length.to_bytes(4, "little") + after)
        except FrameFault:
            continue
        return True
    return False
