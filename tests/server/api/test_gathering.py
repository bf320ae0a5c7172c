"""What a reversal gathers from the log is the same with indexes and without."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from engine.disk import RealDisk
from engine.events import Incremented
from engine.ledger import Ledger
from engine.log import Log
from engine.record import events_of
from engine.recount import Recount
from engine.segment import index_path
from engine.user_index import make_missing
from server.api.gathering import actions_at, actions_of_caller, actions_of_user, recount_of
from server.api.reversal_forms import Asked, Range
from server.http.messages import Refused
from tests.engine.logs import flip
from tests.engine.test_ledger import written

ASKED = Asked("r", "why", (), None, None, Range(), False, 0)
USERS = ("user-1", "user-4", "a", "nobody")


def incremented(log: Log) -> list[Incremented]:
    """Every action of a log, in order."""
    frames = log.read_from(log.segments()[0].first_seq)
    return [event for frame in frames for event in events_of(frame) if isinstance(event, Incremented)]


def plain_recount(log: Log, actions: dict[int, Incremented], until_seq: int) -> Recount:
    """A recount that takes every event of the log."""
    first = log.segments()[0].first_seq
    recount = Recount(actions, again=False, seq=first - 1, log_begins=first)
    for frame in log.read_from(first):
        for event in events_of(frame):
            if event.seq <= until_seq:
                recount.take(event)
    recount.seq = max(recount.seq, until_seq)
    return recount


def check(log: Log, seed: int) -> None:
    """All that a reversal may ask for."""
    rng, ledger, last, all_actions = random.Random(seed), Ledger(RealDisk(), log), log.tail.seq, incremented(log)
    for user in USERS:
        first, until = sorted((rng.randrange(1, last), rng.randrange(1, last)))
        for within in Range(), Range(first, until), Range(to_ms=1_700_000_000_000 + until):
            asked = msgspec.structs.replace(ASKED, user_id=user, within=within)
            expected = {
                event.seq: event
                for event in all_actions
                if event.user_id == user and within.holds(event.seq, event.time_ms) and event.seq not in {3, 5}
            }
            found = actions_of_user(ledger, asked, {3, 5}, last)
            assert found == expected
            assert list(found) == sorted(found)
            for until_seq in (last, first):
                recount = recount_of(ledger, found, again=False, from_seq=1, until_seq=until_seq)
                plain = plain_recount(log, found, until_seq)
                assert recount._counted == plain._counted
                assert (recount.seq, recount.log_begins) == (plain.seq, plain.log_begins)
    asked = msgspec.structs.replace(ASKED, caller="backend")
    assert actions_of_caller(log, asked, ()) == {event.seq: event for event in all_actions}
    seqs = [event.seq for event in all_actions[:5]]
    assert list(actions_at(log, seqs).values()) == all_actions[:5]


@pytest.mark.parametrize("seed", range(3))
def test_the_same_is_gathered_with_indexes_and_without(tmp_path: Path, seed: int) -> None:
    """Of plain and compressed segments, and where an index is missing or damaged."""
    log = written(tmp_path, seed)
    check(log, seed)
    log.compress(log.segments()[0])
    make_missing(RealDisk(), log)
    check(log, seed)
    paths = [Path(index_path(info.path)) for info in log.segments()[:-1]]
    paths[0].unlink()
    flip(paths[1], len(paths[1].read_bytes()) - 1)
    check(log, seed)
    log.close()


def test_a_range_that_begins_before_the_log_is_refused(tmp_path: Path) -> None:
    """From the beginning of the log on it is not: nobody knows of more."""
    log = written(tmp_path, 1)
    make_missing(RealDisk(), log)
    kept = log.segments()[1].first_seq
    log.remove_before(kept)
    ledger = Ledger(RealDisk(), log)
    for first in (2, kept - 1):
        asked = msgspec.structs.replace(ASKED, user_id="user-1", within=Range(first))
        with pytest.raises(Refused) as refused:
            actions_of_user(ledger, asked, (), log.tail.seq)
        assert (refused.value.status, refused.value.details) == (409, {"field": "from", "seq": kept})
    for first in (1, kept):
        asked = msgspec.structs.replace(ASKED, user_id="user-1", within=Range(first))
        mine = [event.seq for event in incremented(log) if event.user_id == "user-1"]
        assert list(actions_of_user(ledger, asked, (), log.tail.seq)) == mine
    recount = recount_of(ledger, actions_of_user(ledger, asked, (), 10**6), again=False, from_seq=1, until_seq=10**6)
    assert recount.log_begins == kept
