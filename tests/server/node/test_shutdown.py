"""How a node is told to end: signals, the first fault, and work that the end cuts short."""

from __future__ import annotations

import signal
from functools import partial

import pytest
import trio
import trio.testing
from structlog.typing import EventDict

from engine.errors import DiskFault, WriteFailed
from engine.recovery import Finding, Situation
from server.node.shutdown import Guard, Shutdown, tell, unless


async def sleep_until_cancelled(steps: list[str]) -> None:
    """Note the beginning and the end."""
    steps.append("begun")
    try:
        await trio.sleep_forever()
    finally:
        steps.append("ended")


async def test_work_that_is_done_first_is_done() -> None:
    """The event may come afterwards, and does no harm then."""
    event, steps = trio.Event(), ["work"]

    async def work() -> None:
        await trio.lowlevel.checkpoint()
        steps.append("done")

    assert await unless(event, work)
    event.set()
    await trio.testing.wait_all_tasks_blocked()
    assert steps == ["work", "done"]


async def test_an_event_that_comes_first_cancels_the_work() -> None:
    """The call returns when the work has ended, and says that it was not done."""
    event, steps = trio.Event(), list[str]()
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            assert not await unless(event, partial(sleep_until_cancelled, steps))
            assert steps == ["begun", "ended"]

        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        assert steps == ["begun"]
        event.set()


async def test_an_event_that_has_come_already_cancels_the_work_at_once() -> None:
    """Whatever waits in it does not wait."""
    event = trio.Event()
    event.set()
    assert not await unless(event, trio.sleep_forever)


async def test_the_error_of_the_work_comes_out_as_it_is() -> None:
    """Not as a group of one."""

    async def fail() -> None:
        raise WriteFailed("can't write", path="log/1.log")

    with pytest.raises(WriteFailed):
        await unless(trio.Event(), fail)


async def test_cancelling_the_caller_cancels_the_work() -> None:
    """And nothing is returned then."""
    steps: list[str] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await unless(trio.Event(), partial(sleep_until_cancelled, steps))
        raise AssertionError("it was cancelled")
    assert steps == ["begun", "ended"]


async def test_the_first_signal_asks_for_the_end_and_the_second_for_haste(logged: list[EventDict]) -> None:
    """Either of the two signals, in either order."""
    shutdown = Shutdown()
    async with trio.open_nursery() as nursery:
        await nursery.start(shutdown.listen)
        signal.raise_signal(signal.SIGTERM)
        await shutdown.wanted.wait()
        assert not shutdown.hurried.is_set()
        signal.raise_signal(signal.SIGINT)
        await shutdown.hurried.wait()
        nursery.cancel_scope.cancel()
    assert shutdown.fault is None
    assert [(line["signal"], line["again"]) for line in logged] == [("SIGTERM", False), ("SIGINT", True)]


def test_the_first_fault_counts() -> None:
    """What fails after it most likely fails because of it."""
    shutdown, first = Shutdown(), WriteFailed("can't write", path="log/1.log")
    shutdown.fail(first)
    shutdown.fail(ValueError())
    assert shutdown.wanted.is_set()
    assert shutdown.fault is first


async def test_a_part_that_fails_ends_the_process_and_cancels_nobody(logged: list[EventDict]) -> None:
    """The others go on, so that their last answers leave."""
    shutdown, steps = Shutdown(), list[str]()
    fault = ValueError("a bug")

    async def fails(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.lowlevel.checkpoint()
        raise fault

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleep_until_cancelled, steps)
        await nursery.start(Guard(shutdown).watched, fails)
        await shutdown.wanted.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert (shutdown.fault, steps) == (fault, ["begun"])
        nursery.cancel_scope.cancel()
    assert [(line["event"], line["log_level"]) for line in logged] == [("part_failed", "critical")]


async def test_a_disk_that_fails_is_told_with_its_place(logged: list[EventDict]) -> None:
    """Path, offset and seq, and what an operator can do."""
    shutdown = Shutdown()
    fault = WriteFailed("can't sync", path="log/1.log", offset=64, seq=7, remedy="Look at the disk.")

    async def fails(*, task_status: trio.TaskStatus[None]) -> None:
        raise fault

    await Guard(shutdown).watched(fails)
    assert shutdown.fault is fault
    [line] = logged
    place = {"path": "log/1.log", "offset": 64, "seq": 7, "remedy": "Look at the disk."}
    assert line == {"event": "disk_failed", "log_level": "critical", "message": "can't sync", **place}


async def test_a_part_that_ends_by_itself_ends_nothing_else() -> None:
    """Nor does one that is cancelled."""
    shutdown = Shutdown()

    async def ends(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()

    async def waits(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        await nursery.start(Guard(shutdown).watched, ends)
        await nursery.start(Guard(shutdown).watched, waits)
        nursery.cancel_scope.cancel()
    assert not shutdown.wanted.is_set()


def test_a_finding_is_a_warning_and_a_fault_an_error(logged: list[EventDict]) -> None:
    """Both with their place."""
    situation = next(iter(Situation))
    tell(Finding(situation, "the end was torn", path="log/1.log", offset=9, seq=3, remedy="Nothing to do."))
    tell(DiskFault("the snapshot is damaged", path="snapshots/1.snapshot"))
    found, fault = logged
    assert (found["event"], found["log_level"], found["situation"]) == ("recovery", "warning", situation.name)
    assert (found["path"], found["offset"], found["seq"]) == ("log/1.log", 9, 3)
    assert (fault["event"], fault["log_level"], fault["path"]) == ("disk_fault", "error", "snapshots/1.snapshot")
