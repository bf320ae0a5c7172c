"""Between an erasure and its settling: who is still named, and what readers of the log are shown meanwhile."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from engine.concerned import users_of
from engine.disk import RealDisk
from engine.erased import pack_seqs
from engine.errors import NoLongerKept
from engine.events import Event, UserErased
from engine.forgetful_log import ForgetfulLedger, ForgetfulLog
from engine.ledger import Ledger
from engine.log import Log
from engine.record import events_of
from engine.unsettled import Unsettled, unsettled_in
from tests.engine.logs import LOG_ID, SEGMENT_BYTES, append
from tests.engine.test_ledger import USERS

ANN = "user-3"


def erase(log: Log, user: str, pseudonym: str) -> UserErased:
    """Log an erasure."""
    seq = log.tail.seq + 1
    event = UserErased(seq, 1_700_000_000_000 + seq, user, pseudonym, "dpo", pack_seqs([1]))
    log.append([event], 1)
    return event


def played(directory: Path) -> tuple[Log, list[UserErased]]:
    """A log in which one user was erased, came back, and was erased again, and another one was erased."""
    log, erased = Log.create(RealDisk(), str(directory), log_id=LOG_ID, segment_bytes=SEGMENT_BYTES), []
    for number, user in enumerate((ANN, "user-5", ANN), 1):
        append(log, 9)
        erased.append(erase(log, user, f"\x00{number}"))
    append(log, 9)
    return log, erased


def found(log: Log, last_seq: int) -> list[UserErased]:
    return unsettled_in(log.event_at, lambda: log.read_from(1), last_seq)


def test_readers_are_shown_what_the_log_will_be(tmp_path: Path) -> None:
    """Frame by frame and event by event, of any user; the checksums stay. What came later is a new user's."""
    log, erased = played(tmp_path)
    unsettled = Unsettled(erased)
    shown, plain = ForgetfulLog(log, unsettled), list(log.read_from(1))
    frames = list(shown.read_from(1))
    assert [frame.checksum for frame in frames] == [frame.checksum for frame in plain]
    change = unsettled.change
    assert change is not None
    expected = [change.event(event) for frame in plain for event in events_of(frame)]
    assert [event for frame in frames for event in events_of(frame)] == expected
    assert [shown.event_at(event.seq)[1] for event in expected] == expected
    assert all(ANN not in users_of(event) for event in expected if event.seq <= erased[-1].seq)
    assert any(ANN in users_of(event) for event in expected if event.seq > erased[-1].seq)
    ledger = ForgetfulLedger(Ledger(RealDisk(), log), unsettled)
    for user in USERS:
        theirs = [event for event in reversed(expected) if user in users_of(event)]
        assert [event for _, event in ledger.events_of(user)] == theirs
        middle = random.Random(user).randrange(1, log.tail.seq)
        assert [event for _, event in ledger.events_of(user, before_seq=middle)] == [
            event for event in theirs if event.seq < middle
        ]
    of_users = list(ledger.frames_of({"user-1", ANN}, from_seq=1, until_seq=log.tail.seq))
    assert of_users
    assert all(frame in frames for frame in of_users)
    assert ledger.oldest_seq == 1


def test_without_erasures_they_are_shown_the_log(tmp_path: Path) -> None:
    """Also after the last one was settled: whoever holds the object sees it."""
    log, erased = played(tmp_path)
    unsettled = Unsettled(erased)
    shown = ForgetfulLog(log, unsettled)
    assert (unsettled.gone(ANN), unsettled.gone("user-5"), unsettled.gone("user-1")) == (
        erased[2].seq,
        erased[1].seq,
        0,
    )
    assert unsettled.find(ANN) == erased[2]
    assert unsettled.oldest_ms == erased[0].time_ms
    unsettled.settle(erased[1].seq)
    assert (unsettled.seqs, unsettled.gone("user-5")) == ([erased[2].seq], 0)
    unsettled.settle(erased[2].seq)
    assert unsettled.change is None
    assert unsettled.oldest_ms is None
    assert unsettled.erasures == {}
    assert list(shown.read_from(1)) == list(log.read_from(1))


def test_erasures_that_are_found_late_come_before_the_others(tmp_path: Path) -> None:
    """Those that came meanwhile were found, too: each is there once, in order."""
    _, erased = played(tmp_path)
    late = Unsettled(erased[2:])
    late.begin_with(erased)
    assert late.erasures == Unsettled(erased).erasures
    assert late.seqs == [event.seq for event in erased]
    alone = Unsettled()
    alone.begin_with(erased)
    assert alone.seqs == late.seqs


def test_a_log_says_which_erasures_are_unsettled(tmp_path: Path) -> None:
    """By the last one, which is rewritten last: if it names nobody, none does, and nothing else is read."""
    log, erased = played(tmp_path)
    assert found(log, erased[-1].seq) == erased
    assert found(log, 0) == []
    settled = UserErased(log.tail.seq + 1, erased[-1].time_ms, "\x004", "\x004", "dpo", b"")
    log.append([settled], 1)

    def nothing_else() -> list[Event]:
        pytest.fail("it reads the whole log")

    assert unsettled_in(log.event_at, nothing_else, settled.seq) == []  # type: ignore[arg-type]  # it is not called
    assert found(log, erased[-1].seq) == erased


def test_a_log_that_no_longer_goes_back_to_the_last_erasure_is_settled() -> None:
    """A segment goes for its age only after it was rewritten."""

    def gone(seq: int) -> tuple[object, object]:
        raise NoLongerKept(seq, seq + 1)

    assert unsettled_in(gone, list, 5) == []  # type: ignore[arg-type]  # neither gives anything


def test_an_erasure_that_names_nobody_is_not_added() -> None:
    """A replica that reads a rewritten log from its beginning applies such events."""
    unsettled = Unsettled([UserErased(4, 1, "\x001", "\x001", "dpo", b"")])
    assert (len(unsettled), unsettled.change) == (0, None)
