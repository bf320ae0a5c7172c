"""The pure parts of webhooks: addresses, retries, who overtook whom, ids and cursors."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.webhooks.addresses import is_public
from server.webhooks.cursor import (
    PLACE_AFTER_ALL,
    Cursor,
    CursorDamaged,
    Due,
    Mark,
    OvertakenPending,
    Passed,
    TopPending,
    pack,
    settled,
    unpack,
)
from server.webhooks.limits import RETRY_SECONDS_MAX
from server.webhooks.overtaking import overtaken
from server.webhooks.payloads import id_of
from server.webhooks.retries import Attempt, after

LOG = "ab" * 16
DAY_S = 86_400


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::8.8.8.8"])
def test_the_internet_is_public(address: str) -> None:
    """Also behind a mapping and behind NAT64."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1",
        "fe80::1%eth0", "fc00::1", "fd00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::127.0.0.1",
        "64:ff9b::169.254.169.254", "2002:7f00:1::", "2002:a00:1::1", "::127.0.0.1", "2001:db8::1", "localhost", "",
        "127.1", "0x7f000001",
    ],
)  # fmt: skip
def test_what_leads_into_the_machine_or_its_network_is_not(address: str) -> None:
    """Private, loopback, link-local, shared, reserved, multicast, and what only stands for one of these."""
    assert not is_public(address)


def most(_low: float, high: float) -> float:
    return high


def test_waits_double_from_a_second_to_an_hour() -> None:
    """And never end for a receiver that answers now and then."""
    failed = Attempt(500, "no")
    waits = [after(failed, failures=n, failing_s=5, disable_after_s=DAY_S, uniform=most).wait_s for n in range(1, 40)]
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == RETRY_SECONDS_MAX
    assert all(later >= earlier for earlier, later in pairwise(waits))
    least = after(failed, failures=4, failing_s=5, disable_after_s=DAY_S, uniform=lambda low, _high: low)
    assert least.wait_s == 4, "a wait is random, at least half of its bound"


@pytest.mark.parametrize(("status", "waits"), [(429, 90), (503, 90), (500, 1), (302, 1)])
def test_a_receiver_may_ask_for_time(status: int, waits: float) -> None:
    """With 429 and 503, up to an hour."""
    attempt = Attempt(status, "later", retry_after_s=90)
    plan = after(attempt, failures=1, failing_s=0, disable_after_s=DAY_S, uniform=most)
    assert (plan.wait_s, plan.disabled) == (waits, "")
    greedy = Attempt(429, "later", retry_after_s=1e8)
    assert after(greedy, failures=1, failing_s=0, disable_after_s=DAY_S, uniform=most).wait_s == RETRY_SECONDS_MAX


def test_a_hook_is_disabled_by_410_or_by_days_of_failures() -> None:
    """Not before, however many failures there are."""
    gone = after(Attempt(410, "gone"), failures=1, failing_s=0, disable_after_s=DAY_S, uniform=most)
    assert "410" in gone.disabled
    refused = Attempt(None, "refused")
    assert not after(refused, failures=999, failing_s=DAY_S - 1, disable_after_s=DAY_S, uniform=most).disabled
    dead = after(refused, failures=2, failing_s=DAY_S, disable_after_s=DAY_S, uniform=most)
    assert "refused" in dead.disabled


@pytest.mark.parametrize(
    ("before", "now", "behind", "found"),
    [
        ("abc", "bda", "c", [(0, ["a"]), (1, ["a", "c"])]),
        ("abc", "abc", "", []),
        ("", "abc", "", []),
        ("abc", "", "abc", []),
        ("abc", "bc", "", []),
        ("abc", "bc", "a", [(0, ["a"]), (1, ["a"])]),
        ("abc", "cba", "", [(0, ["a", "b"]), (1, ["a"])]),
        ("ab", "xab", "", [(0, ["a", "b"])]),
        ("ab", "abx", "", []),
    ],
)
def test_who_overtook_whom(before: str, now: str, behind: str, found: list[tuple[int, list[str]]]) -> None:
    """Who left the board was overtaken by nobody, and nobody overtakes who was behind already."""
    assert overtaken(list(before), list(now), set(behind)) == found


@given(st.permutations("abcdef"), st.permutations("abcdefgh"), st.integers(0, 8))
def test_overtaking_is_what_a_look_at_each_pair_says(before: list[str], after_all: list[str], count: int) -> None:
    """Each pair: ahead before, behind now."""
    now, rest = after_all[:count], set(after_all[count:])
    found = {(now[place], other) for place, others in overtaken(before, now, rest) for other in others}
    place_of = {each: place for place, each in enumerate(before)}
    expected = {
        (who, whom)
        for who in now
        for whom in before
        if who != whom and place_of[whom] < place_of.get(who, 99) and after_all.index(whom) > after_all.index(who)
    }
    assert found == expected


def test_ids_have_the_position_and_no_full_stop() -> None:
    """A board's name may be anything; what is signed is the id, a full stop, the time, a full stop and the body."""
    assert id_of(1, 42, "top.changed", "main") == "1-42-top_changed-main"
    assert id_of(2, 7, "period.ended") == "2-7-period_ended"
    odd = id_of(1, 1, "top.changed", "a.b/ü c")
    assert odd.isascii()
    assert "." not in odd
    assert " " not in odd
    assert odd != id_of(1, 1, "top.changed", "a_b/ü c")


def make_cursor(epoch: int = 2, seq: int = 10) -> Cursor:
    return Cursor(
        version=1, log_id=LOG, key="00" * 16, epoch=epoch, seq=seq, marks={"main": Mark(0, "r", ("x",))},
        pending=[
            TopPending("main", 2, 9, 1, "r"),
            OvertakenPending("main", 2, 9, 1, (Passed("x", 1, 10, ("y",)),)),
        ],
        held=[Due(8, 1, "review.flagged", "cup")],
    )  # fmt: skip


def test_a_cursor_comes_back_as_it_was() -> None:
    """And has no user in it."""
    cursor = make_cursor()
    assert unpack(pack(cursor)) == cursor
    assert cursor.digest("ann") != "ann"
    assert cursor.digest("ann") == unpack(pack(cursor)).digest("ann")
    assert cursor.first_seq == 8, "what is held back is not delivered"


@pytest.mark.parametrize(
    "data", [b"", b"{", b"{}", pack(make_cursor()).replace(b'"version":1', b'"version":2'), b"\x00" * 100]
)
def test_a_damaged_cursor_is_told(data: bytes) -> None:
    """Half of a file, another version, zeros."""
    with pytest.raises(CursorDamaged):
        unpack(data)


def test_a_cursor_moves_through_an_event_and_past_it() -> None:
    """An event may call for a delivery on each of its boards."""
    cursor = make_cursor()
    first, second = Due(11, 0, "review.flagged", "a"), Due(11, 1, "review.flagged", "b")
    assert not cursor.takes(Due(10, 3, "review.flagged", "a"))
    cursor.delivered(first)
    assert not cursor.takes(first)
    assert cursor.takes(second)
    cursor.delivered(second)
    cursor.reached(11)
    assert (cursor.seq, cursor.place) == (11, PLACE_AFTER_ALL)
    cursor.reached(5)
    assert cursor.seq == 11, "a cursor never goes back"


@pytest.mark.parametrize(
    ("epoch", "seq", "epochs", "last", "counts"),
    [
        (2, 10, [(1, 1), (5, 2)], 12, 10),  # a restart
        (1, 10, [(1, 1), (5, 2)], 12, 4),  # of the leader before, which wrote on after the end of its epoch
        (1, 3, [(1, 1), (5, 2)], 12, 3),  # of the leader before
        (1, 3, [(1, 1), (5, 2), (8, 3)], 12, None),  # of an earlier life as a leader
        (2, 13, [(1, 1), (5, 2)], 12, None),  # of a log that was longer
        (3, 10, [(1, 1), (5, 2)], 12, None),  # of a later epoch
    ],
)
def test_which_cursor_counts_for_a_leader(
    epoch: int, seq: int, epochs: list[tuple[int, int]], last: int, counts: int | None
) -> None:
    """One of its epoch, or of the epoch whose place it took."""
    found = settled(make_cursor(epoch, seq), LOG, epochs, last)
    assert (None if found is None else found.seq) == counts
    if found is not None:
        assert found.epoch == epochs[-1][1]
        assert bool(found.pending) == (counts == 10), "what is of no moment of this log is not sent again"
        assert found.marks["main"].rows == ("r" if counts == 10 else ""), "but the newest rows are"
    assert settled(make_cursor(epoch, seq), "cd" * 16, epochs, last) is None
