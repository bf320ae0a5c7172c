"""A restore of what a run left, up to some event: it has the state after this event, to the last bit.

    events   e1 ─ … ─ eU ─ … ─ en           restore --until-seq U ──► e1 ─ … ─ eU ─ a new epoch

The state is compared with a replay of the first U events, without any snapshot. If a user was erased after eU the log
was rewritten for it, so the replay is of the rewritten events: a pseudonym has the user's points.
"""

from __future__ import annotations

import random

from engine.disk import Disk
from engine.events import EpochBegun
from engine.scoreboard import Scoreboard
from snapshots.digests import state_digest
from snapshots.opening import Opened, open_directory
from snapshots.restore import restore
from tests.sim.boards import RULES
from tests.sim.books import Books, Broken
from tests.sim.period_files import check_all_files, check_files
from tests.sim.plain import read_events
from tests.sim.process import DATA
from tests.sim.replays import apply_all

TARGET = "/restored"
FROM_THE_BEGINNING = 0.5
"""So often the event may be any of the log, and not only one after the last snapshot."""


def check_restore(disk: Disk, opened: Opened, books: Books, dice: random.Random, segment_bytes: int) -> None:
    """Restore the directory of a node that has stopped up to an event that the dice choose, and compare."""
    plain = books.plain
    after_snapshot = first = opened.snapshot_seq or 1
    if opened.log.segments()[0].first_seq == 1 and dice.random() < FROM_THE_BEGINNING:
        first = 1
    until = dice.randint(first, plain.seq)
    report = restore(
        disk, DATA, TARGET, until_seq=until, clock_ms=lambda: 0, tell=lambda what: None,
        segment_bytes=segment_bytes, random_bytes=bytes,
    )  # fmt: skip
    restored = open_directory(disk, TARGET, RULES, tell=lambda what: None, segment_bytes=segment_bytes)
    found = (restored.scoreboard.seq, restored.scoreboard.epoch, report.seq)
    if found != (until + 1, plain.epoch + 1, until):
        raise Broken(f"a restore up to seq {until} gave {found}")
    # A period that only an earlier state calls for may have no file any more. The report says so.
    (check_all_files if until >= after_snapshot else check_files)(disk, TARGET, restored.scoreboard, plain)
    books.counts["restored"] += 1
    events = plain.events[:until]
    if until < plain.erasures.last_seq:
        if any(plain.erasures.left_out.values()):
            return  # no log had them all when it was rewritten
        events = [*map(plain.erasures.forgotten, events)]
    replayed = Scoreboard(RULES)
    replayed.begin_replay()
    replayed.belongs_to(restored.log.tail.log_id)
    [begun] = read_events(restored.log, until + 1)
    assert isinstance(begun, EpochBegun), begun
    apply_all(replayed, [*events, begun])
    replayed.end_replay()
    if state_digest(restored.scoreboard.capture()) != state_digest(replayed.capture()):
        raise Broken(f"a restore up to seq {until} has another state than the first {until} events give")
    books.counts["restored to before an erasure" if until < plain.erasures.last_seq else "restores compared"] += 1
