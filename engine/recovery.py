"""What recovery does about what it finds: the table, and the functions that say which row applies. Pure.

`engine.log` and `engine.log_reader` find facts. This file names the situation and looks its row up. Nothing else
decides.

The actions:

    GO_ON    all is well
    CUT      keep the bytes in a side file, zero them in the log, tell, go on
    TIDY     remove what interrupted work left behind, tell, go on
    REFUSE   raise `LogDamaged` with path, offset, seq and the remedy; change nothing

Theory: one frame at a time is in flight, into space that held zeros. So the only thing a crash may leave is a last
frame of the last segment of which some sectors are missing, with nothing valid after it; it was never acknowledged and
may be cut. Everything else that is wrong (a frame before a valid one, or in a segment that was sealed, or one that is
all there but does not verify) happened to bytes that had been synced, and so to events that may have been acknowledged.
Cutting there would lose them in silence; an operator must decide. "Protocol-aware recovery for consensus-based storage"
(FAST 2018) shows what became of systems that cut at the first wrong checksum.

`seq` in an error is that of the first event that is not there as it should be; everything before it is good.
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
"""What a disk writes as a whole at the least; disks with 4096 also write eight of these as a whole."""

TRAILING_ZEROS_MAX = 8
"""Zeros with which a whole frame may end: those of the integer that is its last field."""


class Action(enum.Enum):
    """What recovery does; the legend is above."""

    GO_ON = enum.auto()
    CUT = enum.auto()
    TIDY = enum.auto()
    REFUSE = enum.auto()


class Situation(enum.Enum):
    """What recovery found. One row of the table for each."""

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
    """One row: what is done, the sentence that says what was found, and what an operator can do.

    In a remedy {data} is the data directory, {next} the seq with which the log goes on after a gap, {name} what the
    file should be called, {snapshot} the seq of the snapshot, and {restore} a sentence with the command that makes a
    directory of what is good; it is empty where nothing is.
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
        Action.TIDY,
        "a file whose making was interrupted was left behind, and is removed; nothing of it was in use",
        "Nothing has to be done.",
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
        Action.REFUSE,
        "a frame is damaged, and frames with acknowledged events follow it",
        _BACKUP_OR_RESTORE,
    ),
    Situation.SEALED_DAMAGED: Row(
        Action.REFUSE,
        "a segment that was complete is damaged, and other segments follow it",
        _BACKUP_OR_RESTORE,
    ),
    Situation.HEADER_DAMAGED: Row(
        Action.REFUSE,
        "the head of a segment is damaged",
        _BACKUP_OR_RESTORE,
    ),
    Situation.FRAME_DOUBLED: Row(
        Action.REFUSE,
        "a whole frame stands here whose events came before: it was doubled or moved",
        _BACKUP_OR_RESTORE,
    ),
    Situation.FRAMES_MISSING: Row(
        Action.REFUSE,
        "what stands here belongs further on: frames are missing before it",
        _PUT_BACK_OR_RESTORE,
    ),
    Situation.FRAME_FOREIGN: Row(
        Action.REFUSE,
        "a whole frame stands here that does not continue the one before: it is from another log or another history",
        _BACKUP_OR_RESTORE,
    ),
    Situation.SEGMENT_MISSING: Row(
        Action.REFUSE,
        "a segment is missing before this one",
        _PUT_BACK_OR_RESTORE,
    ),
    Situation.COVERED_MISSING: Row(
        Action.REFUSE,
        "a segment is missing before this one; the snapshot covers its events, but their record is gone",
        "Put the missing segment back from a backup. If it is lost for good, move the segments before the gap out of "
        "the directory as well: the state is whole without them, and the log then begins at seq {next}.",
    ),
    Situation.SEGMENT_STRAY: Row(
        Action.REFUSE,
        "two segments overlap: one of them does not belong here",
        _TAKE_AWAY,
    ),
    Situation.SEGMENT_RENAMED: Row(
        Action.REFUSE,
        "the name of a segment is not that of the first seq in it: the file was renamed",
        "Rename it back to {name}.{restore}",
    ),
    # Not the same row: to take away a renamed segment would take away what is nowhere else.
    Situation.SEGMENT_COPIED: Row(
        Action.REFUSE,
        "the name of a segment is not that of the first seq in it: it is a copy of one that is here as well",
        _TAKE_AWAY,
    ),
    Situation.SEGMENT_FOREIGN: Row(
        Action.REFUSE,
        "a segment is of another log than the snapshot or the segments before it",
        _TAKE_AWAY,
    ),
    Situation.SEGMENT_NOT_JOINED: Row(
        Action.REFUSE,
        "a segment does not continue the end of the one before: they are of different histories of this log",
        _BACKUP_OR_RESTORE,
    ),
    Situation.NEWER_VERSION: Row(
        Action.REFUSE,
        "this was written by a newer version of scoreboard",
        "Start it with that version or a later one.",
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
    Situation.SNAPSHOT_FOREIGN: Row(
        Action.REFUSE,
        "the snapshot is of another log than the one here",
        _WHICH_IS_RIGHT,
    ),
    Situation.LOG_GONE: Row(
        Action.REFUSE,
        "there is no segment of the log here",
        "Put the log back from a backup of {data}.{restore}",
    ),
}


class Finding(msgspec.Struct, frozen=True):
    """What recovery found and put right, to be told in the server's log."""

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

    `directory` is the log's, in the data directory; up to and with seq `good` all is well; `until` is the seq to
    restore up to if that is another one, 0 if none is; `covered` is the seq of the snapshot; `next_seq` is where the
    log goes on after a gap; `name` is what the file should be called.
    """
    row = TABLE[situation]
    assert row.action is Action.REFUSE
    data = directory.rpartition("/")[0] or "."
    command = f"scoreboard restore --from {data} --to NEWDIR"
    if until is None and good < covered:
        # The state has it all. To name a seq here would be to advise throwing away what is not damaged.
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
    """Make the finding of a row that lets recovery go on."""
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
    """Say what it means that the frames of a segment end at `offset`, `data` being the segment as a whole.

    `sealed`: other segments follow; whether this one should have gone on further is for the caller to say.
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
    """Tell whether another frame was begun after the one that does not verify; whether that one verifies is no matter.

    One frame at a time is in flight, so the one before it was synced then. The other head may be damaged as well, in
    one of its fields. No id can look like a head even so: most fields of a head have NULs, and no id has one.
    """
    place = data.find(FRAME_MAGIC, offset)
    while place >= 0:
        if impossible_fields(data, place) <= 1:
            return True
        place = data.find(FRAME_MAGIC, place + 1)
    return False


def _was_written(data: bytes, offset: int) -> bool:
    """Tell whether the frame that begins at `offset` was written to its end, although it does not verify.

    A frame is written into zeros. If a crash came between, some sector of it, or its end, still holds them. The same
    test keeps etcd's WAL from taking damage for a torn write. The head is a third of a short frame, so damage to it
    must not pass for a torn write either: a head that can't be read was written all the same if something stands behind
    it, in its own sector or in the next if its own ends there; and a wrong length is found out by what stands behind
    the end that it gives, or by the right one.
    """
    # A body may end with the zeros of its last integer (a score of 256 does), so one zero byte says nothing of the end.
    head_end = offset + HEADER_BYTES
    try:
        length = unpack_header(data, offset).length
    except FrameFault:
        begun = data[offset : min(_sector_end(offset), head_end)].strip(b"\0")
        # Where the sector ends with the head, the head is all in one: written as a whole, whatever stands behind it.
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
    """Give the end of the sector that holds the byte at `offset`."""
    return offset - offset % SECTOR_BYTES + SECTOR_BYTES


def _is_whole_with_another_length(data: bytes, offset: int, wrong: int) -> bool:
    """Tell whether all that is wrong with a frame is the length in its head.

    If it is the last frame, it ends where the zeros begin, or a few later. If another stands behind it whose head is
    past knowing, one bit of the length is wrong: more would be a third fault at once, and is not looked for.
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
