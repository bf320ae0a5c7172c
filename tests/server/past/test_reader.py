"""The process that reads the past: bounded, ended when it is idle, slow or not wanted, and replaced when it died."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from engine.disk import RealDisk
from engine.errors import Overloaded
from server import bounds
from server.past.questions import Question, Reply, Start, Top
from server.past.reader import COMMAND, PastReader
from server.past.reading import read_top
from tests.server.cli.directories import RULES, increments, make
from tests.server.lanes.support import PATIENCE_SECONDS

SLOW = (sys.executable, "-c", "import sys, time; sys.stdin.readline(); sys.stdin.readline(); time.sleep(600)")
LIAR = (sys.executable, "-c", "import sys; sys.stdin.readline(); sys.stdin.readline(); print('nonsense', flush=True)")


@asynccontextmanager
async def reading(path: Path, **options: object) -> AsyncIterator[PastReader]:
    """A reader that runs."""
    reader = PastReader(Start(str(path), RULES), **options)  # type: ignore[arg-type]
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(reader.run)
            yield reader
            nursery.cancel_scope.cancel()
        assert reader.process is None


def question(seq: int) -> Question:
    return Question("main", 10, seq=seq)


def is_alive(process: trio.Process) -> bool:
    return process.poll() is None


async def test_one_process_answers_one_question_after_the_other(tmp_path: Path) -> None:
    """As the reading does in this process. It has the lowest priority and none of our settings, and ends with us."""
    path = make(tmp_path / "data", increments(4))
    start = Start(str(path), RULES)
    async with reading(path) as reader:
        assert reader.process is None
        for seq in (1, 4, 2):
            assert await reader.ask(question(seq)) == read_top(RealDisk(), start, question(seq))
        process = reader.process
        assert process is not None
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()  # noqa: ASYNC240  # no disk
        assert b"SCOREBOARD_" not in environment
    assert not is_alive(process)


async def test_the_process_ends_when_its_standard_input_does(tmp_path: Path) -> None:
    """So it does not outlive a server that was killed."""
    async with reading(make(tmp_path / "data", increments(1))) as reader:
        await reader.ask(question(1))
        process = reader.process
        assert process is not None
        assert process.stdin is not None
        await process.stdin.aclose()
        assert await process.wait() == 0


async def test_an_idle_process_is_ended_and_started_again(tmp_path: Path) -> None:
    """It holds no memory while nobody asks."""
    async with reading(make(tmp_path / "data", increments(1)), idle_seconds=0.05) as reader:
        await reader.ask(question(1))
        while reader.process is not None:  # noqa: ASYNC110  # the end of a process is no event of ours
            await trio.sleep(0.01)
        assert isinstance(await reader.ask(question(1)), Top)


@pytest.mark.parametrize(("command", "why"), [(SLOW, "took too long"), (LIAR, "the reader of the past ended")])
async def test_a_process_that_is_slow_or_wrong_is_replaced(command: tuple[str, ...], why: str, tmp_path: Path) -> None:
    """The one who asked is told to come again."""
    with capture_logs() as lines:
        async with reading(make(tmp_path / "data", increments(1)), command=command, seconds_max=0.5) as reader:
            with pytest.raises(Overloaded, match=why):
                await reader.ask(question(1))
            assert reader.process is None
    assert [line["event"] for line in lines] == ([] if command is SLOW else ["past_reader_failed"])


async def test_a_process_that_was_killed_is_replaced(tmp_path: Path) -> None:
    """By the kernel, for want of memory: the next question starts another."""
    async with reading(make(tmp_path / "data", increments(1))) as reader:
        await reader.ask(question(1))
        assert reader.process is not None
        reader.process.kill()
        await reader.process.wait()
        with capture_logs(), pytest.raises(Overloaded):
            await reader.ask(question(1))
        assert isinstance(await reader.ask(question(1)), Top)


async def test_too_many_are_refused_and_one_who_leaves_frees_the_place(tmp_path: Path) -> None:
    """Those who wait are asked about in turn; the work for one who left is killed."""
    async with reading(make(tmp_path / "data", increments(1)), command=SLOW) as reader:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.ask, question(1))
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(bounds.PAST_WAITERS_MAX):
                nursery.start_soon(reader.ask, question(1))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Overloaded, match="too many ask"):
                await reader.ask(question(1))
            working = reader.process
            nursery.cancel_scope.cancel()
        assert len(reader._jobs) == 0
        while working is not None and is_alive(working):  # noqa: ASYNC110  # as above
            await trio.sleep(0.01)
        reader._command = COMMAND
        assert isinstance(await reader.ask(question(1)), Top)


async def test_those_who_wait_for_the_same_get_the_same_answer(tmp_path: Path) -> None:
    """A wall of screens that asks at once costs one reading."""
    path = make(tmp_path / "data", increments(1))
    replies: list[Reply] = []
    code = (
        "import sys; sys.stdin.readline()\n"
        'for n, _ in enumerate(sys.stdin): print(\'{"kind":"noBoard","seq":%d}\' % n, flush=True)'
    )
    counting = (sys.executable, "-c", code)

    async def ask(seq: int) -> None:
        replies.append(await reader.ask(question(seq)))

    async with reading(path, command=counting) as reader:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask, 1)
        assert len({str(reply) for reply in replies}) == 1
        assert await reader.ask(question(1)) != replies[0], "only those who waited: another state may be there now"
