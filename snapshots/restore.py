"""Restoring: making a new data directory from another one, as that was after one event.

    report = restore(disk, source, target, until_seq=seq, clock_ms=clock_ms, tell=tell)

    source    |-- log ------------------------------|     snapshots a, b, c     signing.key
                                    ^ until
    target    |-- log -------------|e|                    snapshots b, new      signing.key

The event `e` begins a new epoch. In the source the seqs after the bound name other events. Because of the new epoch a
position (epoch, seq) still names one event only. A client with a position of one of the source's later events can tell
the difference. The new epoch is one above the highest in the source, not above the epoch at the bound.

Rules:
- The source is only read. Another process may serve from it, it may be a copy, or damaged after the bound.
- The target appears whole or not at all: it is built in a directory beside it, read back, and renamed at the end. The
  next restore to this target clears what an interrupted one left.
- The last step makes the target's name durable. If only that fails, the target is whole, and the error says so. It is
  not removed: it was proved, and the disk that failed to sync would have to sync the removal too.
- The snapshot that was used is copied, so the target has two snapshots from the beginning.
- A bound of time goes by the corrected times (`engine.corrections`), also where the correction lies after the bound.
- The cursors of webhooks go along. One beyond the bound is cut by the node that reads it (`server.webhooks.cursor`).
- Two restores of one source make two histories with the same epoch. Serve from one of them only; their epochs have
  different identities (`engine.history`), so nodes and caches of one are told apart from those of the other.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from pathlib import PurePath

import msgspec

from engine.board_rules import Rules
from engine.disk import Disk
from engine.errors import DiskFault, LogDamaged, ScoreboardError, WriteFailed
from engine.events import EpochBegun
from engine.history import HISTORY_BYTES
from engine.image import StateImage
from engine.limits import SEGMENT_BYTES
from engine.log import Log
from engine.log_reader import LogReader
from engine.record import Tail
from engine.scoreboard import Scoreboard
from engine.segment import SegmentFile
from snapshots.action_store import DIRECTORY as ACTIONS
from snapshots.copying import Copied, copy_actions, copy_log
from snapshots.digests import state_digest
from snapshots.opening import (
    LOG_DIRECTORY,
    Base,
    Progress,
    ShowProgress,
    Tell,
    begin_from,
    list_log,
    log_directory,
    no_progress,
)
from snapshots.period_store import DIRECTORY as PERIODS
from snapshots.period_store import PeriodStore
from snapshots.periods import carry_over, log_id_of, write_ended
from snapshots.state import Until, corrected, find_base, read_state
from snapshots.store import DIRECTORY as SNAPSHOTS
from snapshots.store import Store

UNFINISHED = ".unfinished"
KEY_FILES = ("signing.key", "leader.key")
"""The own key, which signs and verifies tokens, and the public half of the key of a leader that was followed."""
LOCK_FILE = "lock"
HOOKS = "webhooks"
"""The directory of the cursors of webhooks (`server.webhooks.cursor_store`)."""
HOOK_BYTES_MAX = 64 * 2**20
"""A cursor is smaller: 10,000 boards with ten users each take some 5 MB. A longer file is none."""
KEY_BYTES_MAX = 64 * 2**10
"""A key has some hundred bytes; only this much of a file is copied."""

NO_RULES = Rules({})


class RestoreRefused(ScoreboardError):
    """The request can't be met. Nothing was made, and the source is unchanged."""


class RestoreReport(msgspec.Struct, frozen=True):
    """The result of a restore. `seq` is the last event of the source in it; `epoch` begins after that.

    The new log has `events` events of the source, from `first_seq` on (None if it has none). `left_behind` says, one
    item each, what was not copied.
    """

    target: str
    seq: int
    epoch: int
    time_ms: int
    events: int
    first_seq: int | None
    boards: int
    users: int
    actions: int
    signing_key: bool
    left_behind: list[str]


class _Source(msgspec.Struct, frozen=True):
    """What a restore can use. The log is readable up to `last_seq` in `epoch`. `end` says why not further, empty if
    the log just ends there.
    """

    path: str
    segments: list[SegmentFile]
    snapshot_seqs: list[int]
    epoch: int
    last_seq: int
    end: str


def restore(
    disk: Disk,
    source: str,
    target: str,
    *,
    until_seq: int | None = None,
    until_ms: int | None = None,
    clock_ms: Callable[[], int],
    tell: Tell,
    progress: ShowProgress = no_progress,
    segment_bytes: int = SEGMENT_BYTES,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    change: Callable[[str], None] = lambda _directory: None,
) -> RestoreReport:
    """Make the directory `target` from the events of `source` within the bounds. `target` must be missing or empty.

    `change` is called with the directory while it has another name: what it does is done before anybody can use it.

    Raises `RestoreRefused` for an impossible request, `LogDamaged` for damage before the bound. After a `WriteFailed`
    there is no target, unless its message says that the target is whole.
    """
    _check_target(disk, source, target)
    asked = Until(until_seq, until_ms)
    facts = _survey(disk, source)
    until = corrected(disk, source, asked)
    if until_ms is not None and until.seq == 0:
        raise _nothing_before(facts, until_ms)
    base = find_base(Store(disk, source), until, tell, progress)
    _check_bound(facts, base, asked)
    building = target.rstrip("/") + UNFINISHED
    disk.make_directory(building)
    lock = disk.lock(f"{building}/{LOCK_FILE}")
    try:
        clear_unfinished(disk, building)
        scoreboard, copied = _carry_over(disk, facts, building, base, until, tell, progress)
        lost_periods = carry_over(disk, source, building, scoreboard)
        begun_ms = max(clock_ms(), scoreboard.time_ms)
        history = random_bytes(HISTORY_BYTES)
        tail = _begin_epoch(disk, building, facts, scoreboard, copied, begun_ms, history, segment_bytes)
        image = scoreboard.capture()
        copy_actions(disk, source, building, image, tail.log_id, tell)
        Store(disk, building).save(image, tail)
        has_key = copy_key(disk, source, building)
        _copy_hooks(disk, source, building)
        progress(Progress("verify", copied.events, 0, 0))
        verify_built(disk, building, image, tail)
        change(building)
        disk.rename(building, target)
    except BaseException:
        with contextlib.suppress(DiskFault):  # what matters is why it failed
            clear_unfinished(disk, building)
        raise
    finally:
        lock.release()
    _make_name_durable(disk, building, target, tail.seq)
    return RestoreReport(
        target=target,
        seq=tail.seq - 1,
        epoch=tail.epoch,
        time_ms=image.time_ms,
        events=copied.events,
        first_seq=copied.first_seq,
        boards=len(image.boards),
        users=_count_users(image),
        actions=len(scoreboard.actions),
        signing_key=has_key,
        left_behind=_left_behind(facts, copied, base, tail.seq - 1, lost_periods),
    )


def _make_name_durable(disk: Disk, building: str, target: str, seq: int) -> None:
    parent = str(PurePath(target).parent)
    try:
        disk.sync_directory(parent)
    except DiskFault as fault:
        what = (
            f"{target} was restored, is whole and was read back; but its name could not be made durable: {fault.what}"
        )
        remedy = (
            f"Look for errors of this disk in the kernel's log before you rely on it. If the machine stops before the "
            f"name is on disk by itself, the same directory is found as {building}: then rename it to {target}."
        )
        raise WriteFailed(what, path=parent, seq=seq, remedy=remedy) from fault


def _check_target(disk: Disk, source: str, target: str) -> None:
    if not disk.exists(source):
        raise RestoreRefused(f"{source} does not exist")
    if PurePath(target).is_relative_to(PurePath(source)):
        raise RestoreRefused(f"{target} is within {source}, which a restore must not change")
    if disk.exists(target) and disk.list_directory(target):
        raise RestoreRefused(f"{target} is not empty; a restore makes a new directory")


def _survey(disk: Disk, source: str) -> _Source:
    """Find the segments, the snapshots, and the readable end of the log. Damage is judged later, if it matters."""
    directory = log_directory(source)
    segments = list_log(disk, directory)
    snapshot_seqs = [info.seq for info in Store(disk, source).list()]
    if not segments and not snapshot_seqs:
        raise RestoreRefused(f"{source} holds no log and no snapshots")
    end = ""
    for segment in reversed(segments):
        reader = LogReader(disk, directory, [segment], growing=True)
        try:
            for _ in reader.frames(segment.first_seq):
                pass
        except LogDamaged as damage:
            end = end or damage.what
        if reader.cursor is not None:
            return _Source(source, segments, snapshot_seqs, reader.cursor.epoch, reader.cursor.seq, end)
    return _Source(source, segments, snapshot_seqs, 0, 0, end)


def _check_bound(facts: _Source, base: Base | None, until: Until) -> None:
    """Refuse a bound that can't be met, if that is known before the log is read."""
    if until.seq is not None and until.time_ms is not None:
        raise RestoreRefused("a restore goes up to a seq or up to a time, not both")
    if until.seq is not None and until.seq < 1:
        raise RestoreRefused(f"there is no seq {until.seq}; the first event has seq 1")
    last_seq = max([facts.last_seq, *facts.snapshot_seqs])
    if until.seq is not None and until.seq > last_seq and not facts.end:
        raise RestoreRefused(f"{facts.path} has no event with seq {until.seq}: its last one has seq {last_seq}")
    first = facts.segments[0].first_seq if facts.segments else None
    if base is None and first != 1:
        log = "there is no log" if first is None else f"the log begins at seq {first}"
        raise RestoreRefused(
            f"{facts.path} can't be restored to a state that old: no valid snapshot (of seqs "
            f"{sorted(facts.snapshot_seqs)}) is from before it, and {log}"
        )


def _carry_over(
    disk: Disk, facts: _Source, building: str, base: Base | None, until: Until, tell: Tell, progress: ShowProgress
) -> tuple[Scoreboard, Copied]:
    """Copy the snapshot and the log up to the bound; give the state there."""
    if base is not None:
        Store(disk, building).save(base.image, base.tail)
    scoreboard, periods = begin_from(base, NO_RULES), PeriodStore(disk, building)
    copied = copy_log(
        disk,
        log_directory(facts.path),
        log_directory(building),
        segments=facts.segments,
        scoreboard=scoreboard,
        after=None if base is None else base.tail,
        until=until,
        tell=tell,
        progress=progress,
        on_ended=lambda ended: write_ended(
            periods, ended, log_id_of(disk, log_directory(facts.path)) if base is None else base.tail.log_id
        ),
    )
    _check_reached(facts, scoreboard, until)
    return scoreboard, copied


def _nothing_before(facts: _Source, time_ms: int | None) -> RestoreRefused:
    when = "" if time_ms is None else f" at or before {time_ms} ms"
    return RestoreRefused(f"{facts.path} has no event{when}, so there is nothing to restore")


def _check_reached(facts: _Source, scoreboard: Scoreboard, until: Until) -> None:
    if scoreboard.seq == 0:
        raise _nothing_before(facts, until.time_ms)
    if until.seq is not None and scoreboard.seq < until.seq:
        raise RestoreRefused(f"{facts.path} has no event with seq {until.seq}: its last one has seq {scoreboard.seq}")


def _begin_epoch(
    disk: Disk, building: str, facts: _Source, scoreboard: Scoreboard, copied: Copied, time_ms: int, history: bytes,
    segment_bytes: int,
) -> Tail:  # fmt: skip
    """Log and apply the event that begins the new epoch; give the tail after it."""
    directory, cut = log_directory(building), copied.tail
    assert cut is not None
    assert cut.seq == scoreboard.seq
    if copied.first_seq is None:
        log = Log.create(disk, directory, log_id=cut.log_id, tail=cut, segment_bytes=segment_bytes)
    else:
        log = Log.open(disk, directory, after=cut, apply=_unexpected, tell=_unexpected, segment_bytes=segment_bytes)
    try:
        epoch = max(facts.epoch, scoreboard.epoch) + 1
        note = f"restored up to seq {cut.seq} of epoch {cut.epoch}"
        event = EpochBegun(seq=cut.seq + 1, time_ms=time_ms, epoch=epoch, note=note, history=history)
        log.append([event], epoch)
        scoreboard.apply(event, epoch)
        return log.tail
    finally:
        log.close()


def _unexpected(what: object) -> None:
    raise AssertionError(f"the log was just written, and yet there is {what}")


def copy_key(disk: Disk, source: str, building: str) -> bool:
    """Copy the keys of tokens, readable by their owner only; tell whether there is one."""
    names = [name for name in KEY_FILES if disk.exists(f"{source}/{name}")]
    for name in names:
        with contextlib.closing(disk.open(f"{source}/{name}")) as file:
            key = file.read_at(0, KEY_BYTES_MAX)
        disk.write_whole(f"{building}/{name}", [key], mode=0o600)
    return bool(names)


def _copy_hooks(disk: Disk, source: str, building: str) -> None:
    """Copy the cursors of webhooks."""
    names = disk.list_directory(f"{source}/{HOOKS}") if disk.exists(f"{source}/{HOOKS}") else []
    cursors = [name for name in names if name.endswith(".json")]
    if cursors and not disk.exists(f"{building}/{HOOKS}"):
        disk.make_directory(f"{building}/{HOOKS}")
    for name in cursors:
        with contextlib.closing(disk.open(f"{source}/{HOOKS}/{name}")) as file:
            data = file.read_at(0, HOOK_BYTES_MAX)
        disk.write_whole(f"{building}/{HOOKS}/{name}", [data])


def verify_built(disk: Disk, building: str, image: StateImage, tail: Tail) -> None:
    """Read the state of the new directory, and compare it with the state that it should have."""
    again, tail_again = read_state(disk, building, NO_RULES, tell=_unexpected)
    if tail_again != tail or state_digest(again.capture()) != state_digest(image):
        raise DiskFault("what was read back is not what was written", path=building, seq=tail.seq)


def _count_users(image: StateImage) -> int:
    """Count the users who are registered or have a score."""
    users = set(image.users.user_ids[: image.users.count])
    for board in image.boards:
        users.update(board.user_ids[: board.count])
    return len(users)


def _left_behind(facts: _Source, copied: Copied, base: Base | None, cut_seq: int, lost_periods: list[str]) -> list[str]:
    sentences = []
    if facts.last_seq > cut_seq:
        sentences.append(f"{facts.last_seq - cut_seq} events after seq {cut_seq}")
    if facts.end:
        sentences.append(f"what follows seq {facts.last_seq} in the log and can't be read: {facts.end}")
    if facts.segments and copied.first_seq != facts.segments[0].first_seq:
        upto = cut_seq if copied.first_seq is None else copied.first_seq - 1
        sentences.append(f"the log up to seq {upto}, because it is damaged; its events are in the state")
    if lost_periods:
        sentences.append(f"past periods that have no whole file: {', '.join(lost_periods)}")
    other = [str(seq) for seq in facts.snapshot_seqs if base is None or seq != base.tail.seq]
    if other:
        sentences.append(f"the snapshots of seq {', '.join(other)}")
    return sentences


def clear_unfinished(disk: Disk, building: str) -> None:
    """Remove the files that an interrupted restore left. The directories and the lock stay."""
    kept = {LOCK_FILE, LOG_DIRECTORY, SNAPSHOTS, PERIODS, HOOKS, ACTIONS}
    within = [f"{building}/{name}" for name in (SNAPSHOTS, PERIODS, HOOKS, ACTIONS)]
    for directory in (building, log_directory(building), *within):
        if disk.exists(directory):
            for name in disk.list_directory(directory):
                if directory != building or name not in kept:
                    disk.remove(f"{directory}/{name}")
