"""A request that is on its way when its node ends, is deposed, or loses its disk: every lane gives the same answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from engine.errors import WriteFailed
from engine.log import Log, Synced
from tests.server.lanes.support import PATIENCE_SECONDS
from tests.server.node.nodes import Gate, Served
from tests.server.node.questions import INCREMENT_PATH, Comparable, bearer, comparable, increment, question
from tests.server.node.roles import STAGES
from tests.server.node.test_deposed import log_id_of, tell_of_epoch
from tests.server.node.ways import WAYS, connect


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


Play = Callable[[str, Served], Awaitable[list[Comparable]]]


async def play(scenario: Play, directory: Path) -> list[Comparable]:
    """Play a scenario with a leader of its own for each way. Give the answers, which are the same in each."""
    answers = []
    for way in WAYS:
        with trio.fail_after(PATIENCE_SECONDS):
            async with STAGES["leader"].enter(directory / way) as (served, _):
                answers.append(await scenario(way, served))
    assert answers[0] == answers[1] == answers[2]
    return answers[0]


def code_of(answer: Comparable) -> tuple[int, str]:
    """The status of a refusal and its code."""
    status, _, body = answer
    return status, msgspec.json.decode(body)["error"]["code"]


def writes(count: int) -> list[bytes]:
    """Increments that are sent on a connection each."""
    token = bearer("scores:write")
    return [question("", "POST", INCREMENT_PATH, increment("ann", f"late {n}"), token=token).data for n in range(count)]


ASKED = question("", "POST", INCREMENT_PATH)


async def test_what_has_begun_is_answered_while_the_process_ends(tmp_path: Path) -> None:
    """Its write is durable, and its answer is the last of its connection. An idle connection ends without a word."""

    async def scenario(way: str, served: Served) -> list[Comparable]:
        idle, busy = [await connect(way, served) for _ in range(2)]
        gate = Gate(served)
        await busy.send(writes(1)[0])
        await gate.reached.wait()
        served.shutdown.wanted.set()
        assert await idle.ended()
        assert served.node.role.now.draining
        gate.open()
        answer = comparable(ASKED, await busy.answer())
        assert await busy.ended()
        for client in (idle, busy):
            await client.stream.aclose()
        return [answer]

    [(status, headers, body)] = await play(scenario, tmp_path)
    assert (status, dict(headers)["connection"]) == (200, "close")
    assert msgspec.json.decode(body)["applied"]


async def test_what_a_deposition_meets_is_answered_by_how_far_it_has_come(tmp_path: Path) -> None:
    """421 to what waits for the actor: nothing was done. 503 to what the disk has: the outcome is not known."""

    async def scenario(way: str, served: Served) -> list[Comparable]:
        written, waiting = [await connect(way, served) for _ in range(2)]
        actor, gate = served.node.actor, Gate(served)
        assert actor is not None
        first, second = writes(2)
        await written.send(first)
        await gate.reached.wait()
        await waiting.send(second)
        while not actor.statistics().waiting:
            await trio.lowlevel.checkpoint()
        log_id = await log_id_of(served.url)
        await tell_of_epoch(served.url, log_id, 2)
        answers = [comparable(ASKED, await waiting.answer())]
        gate.open()
        answers.append(comparable(ASKED, await written.answer()))
        for client in (written, waiting):
            await client.stream.aclose()
        return answers

    assert [code_of(answer) for answer in await play(scenario, tmp_path)] == [
        (421, "NOT_LEADER"), (503, "OUTCOME_UNKNOWN")
    ]  # fmt: skip


async def test_what_meets_a_broken_disk_is_told_that_its_outcome_is_not_known(tmp_path: Path) -> None:
    """And when to come back. The process ends, so this may be the last answer of the connection, or not yet."""

    def fail(_log: Log, *_: object) -> Synced:
        raise WriteFailed("can't sync: Input/output error", path="log/1.log")

    async def scenario(way: str, served: Served) -> list[Comparable]:
        client = await connect(way, served)
        with patch.object(Log, "append_frame", fail):
            await client.send(writes(1)[0])
            status, headers, body = comparable(ASKED, await client.answer())
            await served.shutdown.wanted.wait()
        await client.stream.aclose()
        return [(status, [pair for pair in headers if pair[0] != "connection"], body)]

    [answer] = await play(scenario, tmp_path)
    assert code_of(answer) == (503, "OUTCOME_UNKNOWN")
    assert dict(answer[1])["retry-after"] == "1"
