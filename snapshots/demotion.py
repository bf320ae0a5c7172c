"""Demotion: an old leader's directory becomes a directory of a replica of the new leader.

    finish_exchange(disk, data_directory)                        before any process opens a data directory
    report = demote_directory(disk, data_directory, common, leader=url, tell=tell)

    new leader     ────────────────────┤common├── EpochBegun ── …
    old leader     ────────────────────┤common├── x ── y ── z            x, y, z: written, perhaps answered, not shared
    directory      ────────────────────┤common│                          built beside the old one, then takes its place
    DIR.aside-E-S  ────────────────────┤common├── x ── y ── z            the whole old one: nothing is ever deleted

The common point is the place where the two histories part: just before the first epoch that only one of them has, by
its identity (`engine.history`, `/replication/fork`). Our own epoch may have the new leader's number. Our
log must have a frame that ends exactly there, with that checksum. Otherwise the two logs do not share this history, and
nothing is changed.

The exchange of the directories must survive a crash at any step, and two names can't change at once. The steps:

    DIR.unfinished      is being built: not to be trusted                                cleared by the next attempt
    DIR.ready-E-S       complete, read back, synced; from here on there is no way back   `finish_exchange` goes on
    DIR → DIR.aside-E-S, then DIR.ready-E-S → DIR                                        `finish_exchange` goes on

Rules:
- Before a process opens a data directory it calls `finish_exchange`: between the two renames there is no DIR.
- If the directory no longer has the state at the common point, because its checkpoints are later and the log before
  them is gone, nothing is carried over. The replica then begins with a snapshot of the new leader.
- Nothing is carried over either if a user was erased in what is set aside. The log before it may be rewritten: it has a
  number where the new leader has the user. The report says how many must be erased at the new leader, and names those
  whom the files here have not forgotten yet.
- Every action that was set aside is listed, so that an operator or its caller can send it again. Those of erased users
  are not.
- E and S are the epoch and the seq of the last event in the old directory.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import PurePath

import msgspec

from engine.disk import Disk, free_path
from engine.erased import is_erased
from engine.errors import DiskFault, NoLongerKept
from engine.events import Incremented, UserErased
from engine.limits import SEGMENT_BYTES
from engine.log import Log
from engine.log_reader import scan
from engine.record import Frame, Tail, events_of
from engine.scoreboard import Scoreboard
from snapshots.copying import Copied, copy_actions, copy_log
from snapshots.membership import write_refusal
from snapshots.opening import ShowProgress, Tell, begin_from, list_log, log_directory, no_progress
from snapshots.period_store import PeriodStore
from snapshots.periods import carry_over, write_ended
from snapshots.promotion import NO_RULES, Marker, read_marker, remove_deposed, write_marker
from snapshots.restore import LOCK_FILE, UNFINISHED, RestoreRefused, clear_unfinished, copy_key, verify_built
from snapshots.state import Until, find_base, read_state
from snapshots.store import Store

_READY = ".ready-"
_ASIDE = ".aside-"


class ActionBeyond(msgspec.Struct, frozen=True, rename="camel"):
    """An action beyond the common point: the new leader never had it."""

    action_id: str
    user_id: str
    board_id: str
    seq: int
    delta: int


class DemotionReport(msgspec.Struct, frozen=True, rename="camel"):
    """The result of a demotion. `aside` is the path of the old directory, None if nothing was beyond the common point.

    `events` counts the events beyond it; `actions` lists the actions among them. `erasures` counts the users who were
    erased there: the new leader still has them. `erased` names them, but for those whom the log has forgotten.
    """

    common_seq: int
    epoch: int
    last_seq: int
    aside: str | None
    events: int
    actions: list[ActionBeyond]
    erasures: int = 0
    erased: tuple[str, ...] = ()


def demote_directory(
    disk: Disk,
    data_directory: str,
    common: Tail,
    *,
    leader: str,
    tell: Tell,
    progress: ShowProgress = no_progress,
    segment_bytes: int = SEGMENT_BYTES,
) -> DemotionReport:
    """Make the directory of a stopped leader a replica's. It then ends at the common point, or at its end if earlier.

    Raises `RestoreRefused` if the histories differ or can't be compared, `DirectoryInUse`, `LogDamaged`.
    """
    data_directory = data_directory.rstrip("/")
    finish_exchange(disk, data_directory)
    if not disk.exists(data_directory) or not list_log(disk, log_directory(data_directory)):
        raise RestoreRefused(f"{data_directory} holds no log, so there is nothing to demote")
    if (why_not := write_refusal(disk, data_directory)) is not None:
        raise RestoreRefused(why_not)
    lock = disk.lock(f"{data_directory}/{LOCK_FILE}")
    try:
        last, beyond, actions, erased = _survey(disk, data_directory, common)
        if last.seq <= common.seq:
            # Nothing is cut back, so a leader's directory has all that it ever showed. A replica has a marker for that.
            before = read_marker(disk, data_directory)
            write_marker(disk, data_directory, Marker(leader, caught_up=before is None or before.caught_up))
            remove_deposed(disk, data_directory)
            return DemotionReport(common.seq, last.epoch, last.seq, None, 0, [])
        aside = free_path(disk, f"{data_directory}{_ASIDE}{last.epoch}-{last.seq}")
        ready = data_directory + _READY + aside.partition(_ASIDE)[2]
        building = data_directory + UNFINISHED
        disk.make_directory(building)
        new_lock = disk.lock(f"{building}/{LOCK_FILE}")
        try:
            try:
                if erased:
                    copy_key(disk, data_directory, building)
                    write_marker(disk, building, Marker(leader))
                else:
                    _build(disk, data_directory, building, common, leader, tell, progress, segment_bytes)
            except BaseException:
                with contextlib.suppress(DiskFault):  # what matters is why it failed
                    clear_unfinished(disk, building)
                raise
            disk.rename(building, ready)
            disk.sync_directory(str(PurePath(data_directory).parent))
            finish_exchange(disk, data_directory)
        finally:
            new_lock.release()
        named = tuple(sorted(user_id for user_id in erased if not is_erased(user_id)))
        return DemotionReport(common.seq, last.epoch, last.seq, aside, beyond, actions, len(erased), named)
    finally:
        lock.release()


def finish_exchange(disk: Disk, data_directory: str) -> str | None:
    """Finish an exchange of directories that was cut short; give the path of the old one, None if there was none."""
    data_directory = data_directory.rstrip("/")
    path = PurePath(data_directory)
    parent = str(path.parent)
    if not disk.exists(parent):
        return None
    ready = re.compile(re.escape(path.name + _READY) + r"(\d+-\d+(-\d+)?)")
    for name in disk.list_directory(parent):
        match = ready.fullmatch(name)
        if match is None:
            continue
        aside = data_directory + _ASIDE + match[1]
        if not disk.exists(aside):
            disk.rename(data_directory, aside)
            disk.sync_directory(parent)
        disk.rename(f"{parent}/{name}", data_directory)
        disk.sync_directory(parent)
        return aside
    return None


def _survey(disk: Disk, data_directory: str, common: Tail) -> tuple[Tail, int, list[ActionBeyond], dict[str, int]]:
    """Find the common point in our log; give our end, and beyond it events, actions, and who was erased at which seq.

    Whoever the log has forgotten has a pseudonym. Changes nothing.
    """
    _, last = read_state(disk, data_directory, NO_RULES, tell=lambda _: None)
    if last.log_id != common.log_id:
        raise RestoreRefused(f"{data_directory} is of another log than the new leader's: they never were one history")
    if last.seq < common.seq:
        return last, 0, [], {}  # when it is followed, the new leader checks whether our end is in its history
    if last.seq == common.seq:
        _check_common(last.checksum, common)
        return last, 0, [], {}
    actions: list[ActionBeyond] = []
    erased: dict[str, int] = {}
    directory = log_directory(data_directory)
    try:
        for frame in scan(disk, directory, from_seq=common.seq + 1):
            if frame.first_seq <= common.seq + 1:
                _check_common(frame.previous if frame.first_seq == common.seq + 1 else None, common)
            actions += _actions_of(frame)
            erased |= {event.user_id: event.seq for event in events_of(frame) if isinstance(event, UserErased)}
    except NoLongerKept as gone:
        raise RestoreRefused(f"the log of {data_directory} begins after the common point: {gone}") from gone
    actions = [action for action in actions if action.seq > erased.get(action.user_id, 0)]
    return last, last.seq - common.seq, actions, erased


def _check_common(checksum: int | None, common: Tail) -> None:
    if checksum != common.checksum:
        raise RestoreRefused(
            f"at seq {common.seq} the log here is not what the new leader had there: the histories differ before the "
            "point where its epoch began, so no part of this directory can be used as its replica's"
        )


def _actions_of(frame: Frame) -> list[ActionBeyond]:
    return [
        ActionBeyond(event.action_id, event.user_id, event.board_id, event.seq, event.delta)
        for event in events_of(frame)
        if isinstance(event, Incremented) and not is_erased(event.user_id)
    ]


def _build(
    disk: Disk,
    data_directory: str,
    building: str,
    common: Tail,
    leader: str,
    tell: Tell,
    progress: ShowProgress,
    segment_bytes: int,
) -> None:
    """Build the new directory up to the common point, and read it back."""
    clear_unfinished(disk, building)
    until = Until(seq=common.seq)
    base = find_base(Store(disk, data_directory), until, tell, progress)
    segments = list_log(disk, log_directory(data_directory))
    if base is None and segments[0].first_seq > 1:
        copy_key(disk, data_directory, building)
        write_marker(disk, building, Marker(leader))
        return
    if base is not None:
        Store(disk, building).save(base.image, base.tail)
    scoreboard = begin_from(base, NO_RULES)
    copied = Copied(None, None, 0)
    if common.seq > 0:
        copied = copy_log(
            disk,
            log_directory(data_directory),
            log_directory(building),
            segments=segments,
            scoreboard=scoreboard,
            after=None if base is None else base.tail,
            until=until,
            tell=tell,
            progress=progress,
            on_ended=lambda ended: write_ended(PeriodStore(disk, building), ended, common.log_id),
        )
    carry_over(disk, data_directory, building, scoreboard)
    if copied.first_seq is None:
        tail = common if scoreboard.seq else None
        Log.create(disk, log_directory(building), log_id=common.log_id, tail=tail, segment_bytes=segment_bytes).close()
    _check_built(scoreboard, common)
    image = scoreboard.capture()
    copy_actions(disk, data_directory, building, image, common.log_id, tell)
    copy_key(disk, data_directory, building)
    write_marker(disk, building, Marker(leader))
    verify_built(disk, building, image, common)


def _check_built(scoreboard: Scoreboard, common: Tail) -> None:
    if (scoreboard.seq, scoreboard.epoch) != (common.seq, common.epoch):
        raise RestoreRefused(
            f"what could be carried over ends at seq {scoreboard.seq} of epoch {scoreboard.epoch}, not at seq "
            f"{common.seq} of epoch {common.epoch}"
        )
