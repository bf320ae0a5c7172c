"""Opening a data directory to serve from it: state = the newest valid snapshot + the log after it.

    opened = open_directory(disk, data_directory, rules, tell=tell)
    opened.scoreboard, opened.log                                  ready to serve, at the same seq

    what is there                                  what is done
    --------------------------------------------   ------------------------------------------------------------------
    neither a log nor snapshots                    a new directory: make a log, begin empty
    a log, no snapshots                            replay the whole log, which must begin at seq 1
    a log and snapshots, the newest valid          load it, replay what follows
    …, some of the newest damaged                  tell each of them, load the newest that is valid, replay more
    …, all of them damaged                         tell each, replay the whole log if it begins at seq 1, else refuse
    snapshots, no log                              refuse: acknowledged events after the snapshot would be missing

Rules:
- The caller holds the lock of the directory.
- A snapshot is valid if it proves itself (`snapshots.format`). Then the log must have the checksum of its footer at its
  seq, which proves one history. Otherwise the start is refused (`engine.recovery` has the rows): using either of the
  two could lose acknowledged events.
- Only a damaged snapshot is skipped, and that is told. The snapshot before it and the log give the same state.
- The order of each board is built once, after all events are applied. Keeping order event by event takes several times
  as long.
- The file of a past period is made of a frame that is durable. A power cut could take back the last frame of a process
  that ended while it wrote: then another event gets its seq, and the file would be under a name that is not its own.
- Opening changes nothing but these files until it is certain that it can serve. Only then the log repairs its end.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Literal

import msgspec

from engine.board_events import EndedPeriod
from engine.board_rules import Rules
from engine.disk import Disk
from engine.errors import DiskFault, LogDamaged, NoSpace, SnapshotDamaged
from engine.events import UserErased
from engine.image import StateImage
from engine.limits import SEGMENT_BYTES
from engine.log import Log
from engine.record import LOG_ID_BYTES, Frame, Tail, events_of
from engine.recovery import Finding, Situation, refusal
from engine.scoreboard import Scoreboard
from engine.sealed_actions import SealedActions, manifest_in
from engine.segment import SegmentFile, list_segments
from engine.unsettled import unsettled_in
from snapshots.action_store import ActionStore
from snapshots.mending import open_or_mend
from snapshots.period_store import PeriodStore
from snapshots.periods import log_id_of, write_ended
from snapshots.store import SnapshotInfo, Store

LOG_DIRECTORY = "log"

Tell = Callable[[Finding | DiskFault], None]
"""Takes what an operator should see: a finding of recovery, or a fault that did not stop the work."""


class Progress(msgspec.Struct, frozen=True):
    """The progress of a long operation. Bytes are those of files, 0 if unknown.

    Each stage is told when it begins: read a snapshot, replay the log, build the order, verify the result.
    """

    stage: Literal["snapshot", "log", "order", "verify", "ready"]
    events: int
    bytes_done: int
    bytes_total: int


ShowProgress = Callable[[Progress], None]


class Opened(msgspec.Struct, frozen=True):
    """A directory to serve from. `snapshot` is the one that was loaded, `snapshot_time_ms` the time of its state.

    `ended` are past periods whose files did not fit on the disk; they are written when there is room. `unsettled` are
    erasures whose users the files still name. They are not `erasures_known` if the log is damaged (`read_unsettled`).
    """

    scoreboard: Scoreboard
    log: Log
    snapshot: SnapshotInfo | None
    snapshot_time_ms: int | None
    ended: tuple[EndedPeriod, ...] = ()
    unsettled: tuple[UserErased, ...] = ()
    erasures_known: bool = True

    @property
    def snapshot_seq(self) -> int | None:
        return None if self.snapshot is None else self.snapshot.seq


class Base(msgspec.Struct, frozen=True):
    """A snapshot that was loaded. A replay begins there."""

    image: StateImage
    tail: Tail
    info: SnapshotInfo


def no_progress(_: Progress) -> None:
    """Show nothing."""


def log_directory(data_directory: str) -> str:
    return f"{data_directory}/{LOG_DIRECTORY}"


def open_directory(
    disk: Disk,
    data_directory: str,
    rules: Rules,
    *,
    tell: Tell,
    progress: ShowProgress = no_progress,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    segment_bytes: int = SEGMENT_BYTES,
) -> Opened:
    """Open a data directory, or make a new one. The scoreboard is then ready to serve.

    Raises `LogDamaged` if the log is damaged, or missing although there are snapshots.
    """
    store = Store(disk, data_directory)
    directory = log_directory(data_directory)
    snapshots = store.list()
    if not snapshots and not list_log(disk, directory):
        log = Log.create(disk, directory, log_id=random_bytes(LOG_ID_BYTES), segment_bytes=segment_bytes)
        empty = Scoreboard(rules)
        empty.belongs_to(log.tail.log_id)
        return Opened(empty, log, None, None)
    periods = PeriodStore(disk, data_directory)
    base = newest_valid(store, snapshots, tell=tell, progress=progress)
    _check_log(disk, directory, base, len(snapshots))
    scoreboard = begin_from(base, rules, _open_sealed(disk, data_directory, base, tell))
    tail, info, time_ms = (base.tail, base.info, base.image.time_ms) if base is not None else (None, None, None)
    del base  # the state has what was in its image, and may let go of it
    events, waiting = 0, list[EndedPeriod]()

    def keep_ended() -> None:
        for ended in scoreboard.take_ended():
            try:
                # With a snapshot the first segment is not read: it may be damaged, and is not needed.
                write_ended(periods, ended, log_id_of(disk, directory) if tail is None else tail.log_id)
            except NoSpace as full:
                tell(full)
                waiting.append(ended)

    def apply(frame: Frame) -> None:
        nonlocal events
        keep_ended()  # of the frames before, which were synced when this one was written
        for event in events_of(frame):
            scoreboard.apply(event, frame.epoch)
        events += frame.count

    def show(bytes_done: int, bytes_total: int) -> None:
        progress(Progress("log", events, bytes_done, bytes_total))

    show(0, 0)
    log = Log.open(disk, directory, after=tail, apply=apply, tell=tell, progress=show, segment_bytes=segment_bytes)
    keep_ended()  # of the last frame, which is durable only now
    progress(Progress("order", events, 0, 0))
    scoreboard.end_replay()
    scoreboard.belongs_to(log.tail.log_id)
    assert (scoreboard.epoch, scoreboard.seq) == (log.tail.epoch, log.tail.seq)
    store.tidy()
    progress(Progress("ready", events, 0, 0))
    unsettled = _unsettled(log, scoreboard, tell)
    known = unsettled is not None
    return Opened(scoreboard, log, info, time_ms, tuple(waiting), unsettled or (), known)


def _unsettled(log: Log, scoreboard: Scoreboard, tell: Tell) -> tuple[UserErased, ...] | None:
    try:
        return tuple(read_unsettled(log, scoreboard.erasures.last_seq))
    except LogDamaged as damage:
        tell(damage)
        return None


def read_unsettled(log: Log, last_seq: int) -> list[UserErased]:
    """Find the erasures that another process left unsettled. It reads the log only if there are any.

    `last_seq` is that of the last erasure of the state. Raises `LogDamaged`, and `NoLongerKept` if a segment goes
    meanwhile.
    """
    return unsettled_in(log.event_at, lambda: log.read_from(log.segments()[0].first_seq), last_seq)


def newest_valid(
    store: Store,
    snapshots: list[SnapshotInfo],
    *,
    tell: Tell,
    progress: ShowProgress = no_progress,
    until_ms: int | None = None,
) -> Base | None:
    """Load the first of these snapshots (newest first) that is valid and not later than `until_ms`; None if none is."""
    for info in snapshots:
        progress(Progress("snapshot", 0, 0, info.bytes))
        try:
            image, tail = store.load(info)
        except SnapshotDamaged as damage:
            tell(damage)
        else:
            if until_ms is None or image.time_ms <= until_ms:
                return Base(image, tail, info)
    return None


def _open_sealed(disk: Disk, data_directory: str, base: Base | None, tell: Tell) -> SealedActions | None:
    """Open the files of older actions that belong to a snapshot, and make those anew that can't be used."""
    manifest = None if base is None else manifest_in(base.image.parts)
    if base is None or manifest is None:
        return None
    store, directory = ActionStore(disk, data_directory), log_directory(data_directory)
    return SealedActions.of(manifest, open_or_mend(store, directory, manifest, base.tail.log_id, tell=tell))


def begin_from(base: Base | None, rules: Rules, sealed: SealedActions | None = None) -> Scoreboard:
    """Make the scoreboard of a snapshot, or an empty one, in the middle of a replay. It takes the snapshot's image.

    Without its opened `sealed` actions it can be told events, and not be asked for actions that are sealed.
    """
    if base is not None:
        return Scoreboard.from_image(rules, base.image, sealed, owned=True)
    scoreboard = Scoreboard(rules)
    scoreboard.begin_replay()
    return scoreboard


def list_log(disk: Disk, directory: str) -> list[SegmentFile]:
    """List the segments of a log; none if its directory does not exist."""
    return list_segments(disk, directory).segments if disk.exists(directory) else []


def _check_log(disk: Disk, directory: str, base: Base | None, snapshots: int) -> None:
    """Check that there is a log and, if no snapshot is valid, that it begins at seq 1."""
    segments = list_log(disk, directory)
    if not segments:
        good = 0 if base is None else base.tail.seq
        raise refusal(Situation.LOG_GONE, directory=directory, path=directory, good=good)
    first = segments[0]
    if base is None and snapshots and first.first_seq > 1:
        raise LogDamaged(
            f"no snapshot is valid ({snapshots} damaged), and the log alone does not give the state: "
            f"it begins at seq {first.first_seq}",
            path=first.path,
            seq=1,
            remedy="Put back from a backup: the segments before this one, or a snapshot of seq "
            f"{first.first_seq - 1} or later.",
        )
