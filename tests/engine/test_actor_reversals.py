"""A reversal at the actor: it counts what was logged since its sender looked, and shares no frame."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from engine.commands import Receipt, ReversalReceipt, Reverse
from engine.errors import LogDamaged
from engine.events import Incremented
from engine.record import Frame
from engine.recount import Recount
from tests.engine.model import increment
from tests.engine.test_actor import Bench


async def test_the_writer_completes_a_reversal() -> None:
    """The sender saw the first action only. The second one was waiting before the reversal, the third one behind it."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.actor.run)
        await bench.actor.submit([increment("ann", "one")])
        [event] = bench.log.frames[0]
        assert isinstance(event, Incremented)
        recount = Recount({event.seq: event}, again=False)
        recount.take(event)
        waiting = bench.actor.submit_nowait([increment("ann", "two")], lambda _: None)
        reversal = bench.actor.submit_nowait([Reverse("undo", "cheated", "ref", 1, recount)], lambda _: None)
        behind = await bench.actor.submit([increment("ann", "three")])
        await bench.actor.drain()
    assert [len(frame) for frame in bench.log.frames] == [1, 1, 1, 1]
    [two], [undone], [three] = waiting.outcomes, reversal.outcomes, behind
    assert isinstance(two, Receipt)
    assert isinstance(undone, ReversalReceipt)
    assert isinstance(three, Receipt)
    points = two.delta
    assert [change.new_score for each in undone.changes for change in each.users] == [points]
    assert (two.new_score, three.new_score) == (2 * points, 2 * points)
    assert recount.seq == undone.seq - 1


async def test_a_log_that_cannot_be_read_fails_the_reversal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was decided by it, and the actor goes on."""
    bench = Bench()

    def damaged(_seq: int) -> Iterator[Frame]:
        raise LogDamaged("a frame is damaged", path="log/1.log", seq=1)

    async with trio.open_nursery() as nursery:
        await nursery.start(bench.actor.run)
        await bench.actor.submit([increment("ann", "one")])
        [event] = bench.log.frames[0]
        assert isinstance(event, Incremented)
        monkeypatch.setattr(bench.log, "read_from", damaged)
        with pytest.raises(LogDamaged, match="a frame is damaged"):
            await bench.actor.submit([Reverse("undo", "cheated", "ref", 1, Recount({1: event}, again=False))])
        [two] = await bench.actor.submit([increment("ann", "two")])
        await bench.actor.drain()
    assert isinstance(two, Receipt)
    assert (two.applied, two.seq, len(bench.log.frames)) == (True, 2, 2)
