"""Every route and every refusal, in every lane, in each role: the answers are the same, byte by byte.

Each way (`tests.server.node.ways`) has a node of its own with the same history. Connections are opened before the role
changes, and used, unless they only read what no lane remembers.
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
from tests.seeds import in_ci
from tests.server.lanes.support import PATIENCE_SECONDS
from tests.server.node.questions import INCREMENT_PATH, Comparable, Question, all_questions, bearer, increment, question
from tests.server.node.roles import STAGES, Stage
from tests.server.node.ways import WAYS, Talk

TIMES = 2
"""Requests that write, or whose heads a lane may remember, are sent so often, before the role changes and after it.
Others are sent once, after it."""

REMEMBERED = ("/scores/increment", "/scoreboard/top")

FLOOD = 100
"""More writes than the limits of these nodes allow for one user."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


def times_of(asked: Question) -> int:
    return TIMES if asked.method != "GET" or asked.target.startswith(REMEMBERED) else 1


async def answers_of(way: str, stage: Stage, directory: Path, questions: list[Question]) -> list[list[Comparable]]:
    """Ask everything before the role changes, and again after it on connections that were open before."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with stage.enter(directory) as (served, change):
            other_lane = "express" if way == "http" else "http"
            by_other_lane, remembered = served.asked(INCREMENT_PATH, other_lane), served.loop.remembered
            talks = [(Talk(way, served), asked) for asked in questions]
            first = [(talk, asked, times_of(asked)) for talk, asked in talks]
            answers = [
                [await talk.ask(asked) for _ in range(times)] if times > 1 else [] for talk, asked, times in first
            ]
            for talk, asked in talks:
                await talk.open(times_of(asked))
            await change()
            answers += [[await talk.ask(asked) for _ in range(times_of(asked))] for talk, asked in talks]
            for talk, _ in talks:
                await talk.close()
            assert served.asked(INCREMENT_PATH, other_lane) == by_other_lane
            assert (served.loop.remembered > remembered) == (way == "loop" and stage.remembers)
            return answers


@pytest.mark.parametrize("role", list(STAGES)[:: in_ci(4, 1)])
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
    asked = {(one.method, one.target) for one in all_questions()}
    found = {route for method, target in asked for route in routes_at(target) if route.method == method}
    assert found == set(ROUTES)


def routes_at(target: str) -> list[Route]:
    """The operations of a target."""
    try:
        return list(find(*target.partition("?")[::2])[0].values())
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
