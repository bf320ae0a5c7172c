"""Limits of connections and bodies: each count goes back to 0, and the bounds hold in between."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import bounds
from server.http.admission import BodyMemory, ConnectionLimits
from server.http.messages import Refused


def test_a_group_is_bounded_and_the_empty_one_is_not() -> None:
    """Trusted proxies stand for many clients; but all together are bounded too."""
    occupancy = ConnectionLimits(5, 2)
    for group in ("a", "a", "", "", ""):
        assert occupancy.fault(group) is None or group == ""
        occupancy.enter(group)
    for group in ("a", "b", ""):
        fault = occupancy.fault(group)
        assert fault is not None
        assert (fault.status, fault.code, dict(fault.headers)) == (503, "OVERLOADED", {"retry-after": "1"})
    occupancy.leave("")
    assert occupancy.fault("b") is None
    assert occupancy.fault("a") is not None
    occupancy.leave("a")
    assert occupancy.fault("a") is None


def test_a_viewer_counts_in_all_but_not_as_one_of_its_address() -> None:
    """The live channel has a bound of its own for that."""
    occupancy = ConnectionLimits(3, 1)
    for _ in range(3):
        assert occupancy.fault("a") is None
        occupancy.enter("a")
        occupancy.count_out("a")
    assert occupancy.in_all == 3
    assert occupancy.fault("b") is not None
    occupancy.count_in("a")
    occupancy.leave("a")
    assert occupancy.fault("a") is None


@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "view"]), st.sampled_from(["", "a", "b"]))))
def test_the_counts_hold_whoever_comes_and_goes(steps: list[tuple[str, str]]) -> None:
    """No order of coming, watching and going breaks the account."""
    occupancy = ConnectionLimits(6, 2)
    here: list[str] = []
    for step, group in steps:
        if step == "enter" and occupancy.fault(group) is None:
            occupancy.enter(group)
            here.append(group)
        elif step == "leave" and group in here:
            occupancy.leave(group)
            here.remove(group)
        elif step == "view" and group in here:
            occupancy.count_out(group)
            occupancy.count_in(group)
        occupancy._check()
        assert occupancy.in_all == len(here)
        assert here.count("a") <= 2


def test_bodies_share_their_room() -> None:
    """A body grows, another is refused, the first is done, and another is taken; small ones are never refused."""
    memory = BodyMemory(100_000, 100_000)
    first = memory.change("a", 0, 60_000)
    first = memory.change("a", first, 90_000)
    with pytest.raises(Refused) as refused:
        memory.change("a", 0, 20_000)
    assert (refused.value.status, refused.value.code) == (503, "OVERLOADED")
    assert memory.change("a", 0, bounds.SMALL_BODY_BYTES_MAX) == 0
    assert memory.used == 90_000
    assert memory.change("a", first, 0) == 0
    assert memory.used == 0
    assert memory.change("a", 0, 20_000) == 20_000


def test_a_body_may_shrink_in_a_room_that_is_full() -> None:
    """What is kept while it comes in chunks is more than what it is in the end."""
    memory = BodyMemory(50_000, 50_000)
    had = memory.change("a", 0, 50_000)
    assert memory.change("a", had, 40_000) == 40_000
    assert memory.used == 40_000


def test_no_client_gets_the_whole_room_for_its_bodies() -> None:
    """One that fills its part does not keep the others out; a proxy stands for many and may have all of it."""
    memory = BodyMemory(100_000, 40_000)
    had = memory.change("a", 0, 40_000)
    with pytest.raises(Refused) as refused:
        memory.change("a", 0, 20_000)
    assert (refused.value.status, refused.value.code) == (503, "OVERLOADED")
    assert dict(refused.value.headers)["retry-after"]
    assert memory.change("b", 0, 20_000) == 20_000
    assert memory.change("a", had, 30_000) == 30_000, "shrinking is always allowed"
    memory.change("a", 30_000, 0)
    memory.change("b", 20_000, 0)
    assert memory.change("", 0, 100_000) == 100_000
    memory._check()


@given(st.lists(st.tuples(st.sampled_from(["a", "b", ""]), st.integers(0, 60_000)), max_size=40))
def test_the_room_for_bodies_adds_up(steps: list[tuple[str, int]]) -> None:
    """Whatever grows, shrinks or is refused."""
    memory = BodyMemory(100_000, 40_000)
    had = {"a": 0, "b": 0, "": 0}
    for group, wanted in steps:
        with suppress(Refused):
            had[group] = memory.change(group, had[group], wanted)
        memory._check()
        assert memory.used == sum(had.values())
        assert max(had["a"], had["b"]) <= 40_000
