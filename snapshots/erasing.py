"""Erasing users from a data directory that no process serves: from its state, its log, its snapshots, its periods.

    report = erase_users(disk, data_directory, ["ann"], caller="dpo", clock_ms=clock_ms, tell=tell)

    gather ──► log: UserErased ──► snapshot, proved ──► older snapshots go ──► actions, periods ──► segments
    A replica has no event of its own. It begins anew from a snapshot of its leader, which no longer has the user. Here
    only files of past periods go, which it fetches from its leader when it follows again.

Theory: an erasure is an event first, so it is in the history, and no restart, replica or snapshot brings the user back
to a board. Then the files are made to forget. The event names the user as long as any file does, because the segment
that holds it is rewritten last of all. So a run that was cut short is finished by the next one, which finds the
pseudonym there.

Rules:
- The caller's process holds the lock of the directory for all of it.
- A snapshot of the state after the erasure is durable and proved before an older one goes.
- The files of older actions keep the digests of actionIds, and a zero in the place of what they were applied to.
- Each file is replaced as a whole: written beside, synced, renamed, read back.
- A snapshot may name a user whom nothing newer has: the period is over and no longer kept, and so is the log of it.
  Then there is no event, and all snapshots but that of the end go.
- The seqs of the user's actions are read from the log. Actions in segments that are no longer kept stay used too, but
  a retry is answered as a duplicate, and not as one of a user who was erased.
- Erasures whose files a server had not rewritten when it ended are finished in the same run.
- What recovery cut off and kept beside the log (`.torn-…`) goes if it names a user. A set-aside directory is not
  touched: `snapshots.finding` finds what is left anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial

import msgspec

from engine.action_blocks import run_name
from engine.board_rules import Rules
from engine.disk import Disk
from engine.erased import pack_seqs, pseudonym_of
from engine.erasure_decisions import PACKED_BYTES_MAX, is_known
from engine.errors import DiskFull, ScoreboardError, SnapshotDamaged
from engine.events import UserErased
from engine.limits import SEGMENT_BYTES
from engine.log import Log
from engine.record import Tail, events_of
from engine.rewriting import ErasedBy, Forgetting, users_in
from engine.scoreboard import Scoreboard
from engine.segment import list_segments, replace_segment
from engine.traces import Traces
from engine.unsettled import Unsettled
from snapshots.action_store import ActionStore
from snapshots.forgetting_files import is_named_in, pseudonym_at, remove_torn, rewrite_periods, rewritten
from snapshots.membership import write_refusal
from snapshots.opening import ShowProgress, Tell, log_directory, no_progress, open_directory, read_unsettled
from snapshots.period_store import PeriodStore
from snapshots.promotion import read_deposed, read_marker
from snapshots.sealing import forget_in_runs
from snapshots.store import Store

NO_RULES = Rules({})


class ErasureRefused(ScoreboardError):
    """The request can't be met. Nothing was changed."""


class ErasedUser(msgspec.Struct, frozen=True, rename="camel"):
    """A user who was erased. `applied`: by this run, with an event; otherwise an earlier event has done it.

    `actions` counts those of the event, `seq` is that of it.
    """

    user_id: str
    pseudonym: str
    seq: int
    actions: int
    applied: bool


class ErasureReport(msgspec.Struct, frozen=True, rename="camel"):
    """What was done to which files. `unknown` are users that neither state nor log nor past periods have.

    Nobody had them, or they are gone. `actions` are rewritten files of older actions.
    """

    erased: list[ErasedUser]
    unknown: list[str]
    segments: list[str]
    periods: list[str]
    removed: list[str]
    actions: list[str]


def erase_users(
    disk: Disk,
    data_directory: str,
    user_ids: Sequence[str],
    *,
    caller: str,
    clock_ms: Callable[[], int],
    tell: Tell,
    progress: ShowProgress = no_progress,
    segment_bytes: int = SEGMENT_BYTES,
) -> ErasureReport:
    """Erase users; see above. Raises `ErasureRefused`, `LogDamaged`, `DiskFault`."""
    if read_deposed(disk, data_directory) is not None:
        raise ErasureRefused("this leader was replaced: demote the directory first, or remove it")
    if (why_not := write_refusal(disk, data_directory)) is not None:
        raise ErasureRefused(why_not)
    opened = open_directory(
        disk, data_directory, NO_RULES, tell=tell, progress=progress, segment_bytes=segment_bytes
    )  # fmt: skip
    scoreboard, log = opened.scoreboard, opened.log
    with closing(log):
        if opened.ended:
            raise DiskFull("a past period has no file yet, and does not fit", path=data_directory)
        gathered = {user_id: Traces(user_id) for user_id in user_ids}
        _gather(log, gathered)
        periods = PeriodStore(disk, data_directory)
        here = [user_id for user_id, found in gathered.items() if found.is_present or is_known(scoreboard, user_id)]
        erasures = scoreboard.erasures
        is_replica = read_marker(disk, data_directory) is not None
        if here and is_replica:
            raise ErasureRefused(
                f"{len(here)} of these users are in the log of this replica: erase them in the leader's directory, let "
                "the replica follow again, and stop it. What it set aside then must be removed by hand"
            )
        others = [] if is_replica else [user_id for user_id in user_ids if not gathered[user_id].erasures]
        new = here + [user_id for user_id in others if user_id not in here and _is_past(periods, user_id)]
        unsettled = read_unsettled(log, erasures.last_seq)
        if new:
            _write_events(log, scoreboard, gathered, new, caller, clock_ms())
        tail = log.tail
    sealed = scoreboard.actions.sealed
    erased = {user_id: found.erasures for user_id, found in gathered.items() if found.erasures}
    for user_id, before in Unsettled(unsettled).erasures.items():
        erased.setdefault(user_id, before)  # a server was stopped before it had rewritten its files
    removed: list[str] = []
    actions: list[str] = []
    if erased or any(is_named_in(disk, info.path, user_ids) for info in Store(disk, data_directory).list()):
        removed += _renew_snapshots(disk, data_directory, scoreboard, tail)
        store = ActionStore(disk, data_directory)
        removed += store.tidy({run_name(info) for info in sealed.infos})
        actions = forget_in_runs(store, sealed, sealed.forgotten)
    change, everybody = Forgetting(erased), {*user_ids, *erased}
    changed: list[str] = []
    if is_replica:
        removed += _remove_periods(periods, everybody)
    else:
        names_at = partial(_names_at, {user_id: erased.get(user_id, []) for user_id in everybody})
        changed += rewrite_periods(periods, names_at)
        periods.close()
    if disk.exists(periods.directory):
        disk.sync_directory(periods.directory)  # a power cut must bring no file back
    removed += remove_torn(disk, log_directory(data_directory), Forgetting(dict.fromkeys(everybody, ())))
    segments = _rewrite_log(disk, log_directory(data_directory), change)  # last: it has the event that names the user
    users = [
        ErasedUser(user_id, found.erasures[-1][1], found.erasures[-1][0], found.counts[-1], user_id in new)
        for user_id, found in gathered.items()
        if found.erasures
    ]
    unknown = [user_id for user_id, found in gathered.items() if not found.erasures]
    return ErasureReport(users, unknown, segments, changed, removed, actions)


def _gather(log: Log, gathered: dict[str, Traces]) -> None:
    change = Forgetting(dict.fromkeys(gathered, ()))
    for frame in log.read_from(log.segments()[0].first_seq):
        if change.may_touch(frame.body):
            for event in events_of(frame):
                for user_id in users_in(event) & gathered.keys():
                    gathered[user_id].take(event)


def _is_past(store: PeriodStore, user_id: str) -> bool:
    """Whether a past period has a user, whose log may be older than what is kept."""
    return any(store.open(seq).find(user_id) is not None for seq in store.list())


def _write_events(
    log: Log, scoreboard: Scoreboard, gathered: dict[str, Traces], new: Sequence[str], caller: str, now_ms: int
) -> None:
    """Log the erasures, each in a frame of its own, and apply them."""
    for user_id in new:
        found = gathered[user_id]
        seq, name = scoreboard.seq + 1, pseudonym_of(scoreboard.erasures.count + 1)
        packed = pack_seqs(found.actions)
        if len(packed) > PACKED_BYTES_MAX:
            raise ErasureRefused(f"one user has {len(found.actions)} actions: more than one event can name")
        event = UserErased(seq, max(now_ms, scoreboard.time_ms), user_id, name, caller, packed)
        log.append([event], scoreboard.epoch)
        scoreboard.apply(event, scoreboard.epoch)
        found.take(event)


def _renew_snapshots(disk: Disk, data_directory: str, scoreboard: Scoreboard, tail: Tail) -> list[str]:
    """Have a proved snapshot of this state, and no other; give the paths of those that went."""
    store = Store(disk, data_directory)
    newest = next((info for info in store.list() if info.seq == tail.seq), None)
    if newest is not None:
        try:
            store.verify(newest)
        except SnapshotDamaged:
            newest = None
    if newest is None:
        store.verify(store.save(scoreboard.capture(), tail))
    older = [info.path for info in store.list() if info.seq != tail.seq]
    for path in older:
        store.remove(path)
    disk.sync_directory(store.directory)
    return older


def _rewrite_log(disk: Disk, directory: str, change: Forgetting) -> list[str]:
    """Rewrite the segments that have the users, the oldest first; give their paths."""
    paths: list[str] = []
    for segment in list_segments(disk, directory).segments:
        content = rewritten(disk, segment, change)
        if content is not None:
            replace_segment(disk, segment, content)
            paths.append(segment.path)
    return paths


def _remove_periods(store: PeriodStore, user_ids: Iterable[str]) -> list[str]:
    """Remove the files of past periods that name the users, and what was made of corrections; give their paths."""
    named = [seq for seq in store.list() if any(store.open(seq).find(user_id) is not None for user_id in user_ids)]
    paths = [*store.remove_other(set(store.list()).difference(named))]
    store.close()
    return paths


def _names_at(erasures: dict[str, list[ErasedBy]], seq: int) -> dict[str, str]:
    """Give the pseudonyms of the first erasures after a period, or 0: corrections of it have the same ones."""
    return {user_id: pseudonym_at(seq, each) or pseudonym_of(0) for user_id, each in erasures.items()}
