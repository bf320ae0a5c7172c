"""Every route and every refusal, in every lane, in each role: the answers are the same, byte by byte.

    express    each request on a new connection: the express lane takes it before anything is remembered of it
    loop       each request on a connection that is parked in the express loop, again and again: its head is remembered
    http       each request on a connection that Hypercorn serves

Each way has a node of its own with the same history. Connections are opened, and used, before the role changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from server.api.routes import ROUTES, Route, find
from server.http.messages import Refused
from tests.server.lanes.setting import OTHER
from tests.server.lanes.setting import get as top
from tests.server.lanes.support import PATIENCE_SECONDS
from tests.server.node.nodes import Gate, Served
from tests.server.node.questions import (
    INCREMENT_PATH,
    Asker,
    Comparable,
    Question,
    all_questions,
    bearer,
    comparable,
    increment,
    question,
)
from tests.server.node.roles import STAGES, Stage

WAYS = ("express", "loop", "http")

TIMES = 2
"""A request is sent this many times in the role under test. The second time its head is known."""

FLOOD = 100
"""More writes than the limits of these nodes allow for one user."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


async def connect(way: str, served: Served) -> Asker:
    """Open a connection that is served in one way from its next request on."""
    client = Asker(await trio.open_tcp_stream("127.0.0.1", served.port))
    first = {"express": None, "loop": top(), "http": OTHER}[way]
    if first is not None:
        assert (await client.ask(first)).status in (200, 503)
    return client


class Talk:
    """Asks in one way: on a new connection each time, or on one that is kept until an answer ends it."""

    def __init__(self, way: str, served: Served) -> None:
        self._way = way
        self._served = served
        self._clients: list[Asker] = []

    async def open(self, count: int) -> None:
        """Open as many connections as it takes to ask `count` times."""
        for _ in range(count if self._way == "express" else 1):
            self._clients.append(await connect(self._way, self._served))

    async def ask(self, asked: Question) -> Comparable:
        """Ask once."""
        client = self._clients.pop(0) if self._clients else await connect(self._way, self._served)
        await client.send(asked.data)
        answer = await client.answer(to_head=asked.method == "HEAD")
        if self._way == "express" or "connection" in answer.headers:
            await client.stream.aclose()
        else:
            self._clients.append(client)
        return comparable(asked, answer)

    async def close(self) -> None:
        """Close what is open."""
        for client in self._clients:
            await client.stream.aclose()


async def answers_of(way: str, stage: Stage, directory: Path, questions: list[Question]) -> list[list[Comparable]]:
    """Ask everything once before the role changes, and TIMES times after it, in one way."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with stage.enter(directory) as (served, change):
            other_lane = "express" if way == "http" else "http"
            by_other_lane, remembered = served.asked(INCREMENT_PATH, other_lane), served.loop.remembered
            remembers = way == "loop" and served.node.role.now.vouches
            talks = [(Talk(way, served), asked) for asked in questions]
            for talk, _ in talks:
                await talk.open(1 + TIMES)
            answers = [[await talk.ask(asked)] for talk, asked in talks]
            await change()
            answers += [[await talk.ask(asked) for _ in range(TIMES)] for talk, asked in talks]
            for talk, _ in talks:
                await talk.close()
            assert served.asked(INCREMENT_PATH, other_lane) == by_other_lane
            assert (served.loop.remembered > remembered) == remembers
            return answers


@pytest.mark.parametrize("role", STAGES)
async def test_every_lane_gives_the_same_answers(role: str, tmp_path: Path) -> None:
    """Status, headers but the date, and body, to each request before and after the role changed."""
    stage = STAGES[role]
    questions = all_questions(promotable=stage.promotable)
    express, loop, http = [await answers_of(way, stage, tmp_path / way, questions) for way in WAYS]
    for n, asked in enumerate([*questions, *questions]):
        assert loop[n] == express[n], asked.name
        assert http[n] == express[n], asked.name
    last = {asked.name: answers[-1][0] for asked, answers in zip(questions, express[len(questions) :], strict=True)}
    assert (last["good"], last["/scoreboard/top"]) == (stage.write_status, stage.read_status)


def test_every_route_is_asked() -> None:
    """A request finds each of them, so a new route can't be left out here."""
    asked = {(one.method, one.target.partition("?")[0]) for one in all_questions()}
    found = {route for method, path in asked for route in routes_at(path) if route.method == method}
    assert found == set(ROUTES)


def routes_at(path: str) -> list[Route]:
    """The operations of a path."""
    try:
        return list(find(path)[0].values())
    except Refused:
        return []


@pytest.mark.parametrize("way", WAYS)
async def test_after_a_deposition_every_write_is_told_that_this_is_not_the_leader(way: str, tmp_path: Path) -> None:
    """On a connection whose head was remembered: a bad body is not 400, and no flood of writes is ever 429."""
    body = increment("ann", "same")
    good = question("good", "POST", INCREMENT_PATH, body, token=bearer("scores:write"))
    bad = question("bad", "POST", INCREMENT_PATH, b"{".ljust(len(body)), token=bearer("scores:write"))
    assert good.data.partition(b"\r\n\r\n")[0] == bad.data.partition(b"\r\n\r\n")[0], "one head, remembered once"
    with trio.fail_after(PATIENCE_SECONDS):
        async with STAGES["deposed leader"].enter(tmp_path) as (served, depose):
            talk, remembered = Talk(way, served), served.loop.remembered
            statuses = [(await talk.ask(asked))[0] for asked in (good, good, good, bad)]
            assert statuses == [200, 200, 200, 400]
            assert (served.loop.remembered > remembered) == (way == "loop")
            seq = served.node.scoreboard.seq
            await depose()
            for asked in [bad, *[good] * FLOOD, bad]:
                status, _, answer = await talk.ask(asked)
                assert (status, msgspec.json.decode(answer)["error"]["code"]) == (421, "NOT_LEADER")
            await talk.close()
            assert served.node.scoreboard.seq == seq


async def test_what_has_begun_is_answered_alike_while_the_process_ends(tmp_path: Path) -> None:
    """Its write is durable, and its answer is the last of its connection. An idle connection ends without a word."""
    answers = [await answer_at_the_end(way, tmp_path / way) for way in WAYS]
    assert answers[0] == answers[1] == answers[2]
    status, headers, _ = answers[0]
    assert (status, dict(headers)["connection"]) == (200, "close")


async def answer_at_the_end(way: str, directory: Path) -> Comparable:
    """Give the answer to an increment that the actor holds while the process is told to end."""
    asked = question("good", "POST", INCREMENT_PATH, increment("ann", "late"), token=bearer("scores:write"))
    with trio.fail_after(PATIENCE_SECONDS):
        async with STAGES["leader"].enter(directory) as (served, _):
            idle, busy = [await connect(way, served) for _ in range(2)]
            gate = Gate(served)
            await busy.send(asked.data)
            await gate.reached.wait()
            served.shutdown.wanted.set()
            assert await idle.ended()
            assert served.node.role.now.draining
            gate.open()
            answer = comparable(asked, await busy.answer())
            assert await busy.ended()
            for client in (idle, busy):
                await client.stream.aclose()
            return answer
