"""The client and a real leader that is killed and comes back: for threads, on asyncio and on Trio."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.lowlevel
import httpx
import pytest
from board_server import BACKENDS, Server, free_port

from scoreboard_client import (
    AsyncScoreboard,
    Conflict,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    Receipt,
    Scoreboard,
    Unauthenticated,
    Unauthorized,
)
from tests.e2e.leader import ALARM_SECONDS

TASKS = 2
KILLS = 1
EACH = 60
"""Increments of each thread and task."""


def test_a_day_with_a_board(server: Server, board_id: str) -> None:
    """Receipts, repeats, a conflict, and every read, each of which sees the write before it."""
    with Scoreboard(server.url, token=server.bearer()) as scoreboard:
        board = scoreboard.board(board_id)
        first = board.increment("bob", action_id="day-1")
        assert (first.new_score, first.delta, first.applied, first.rank, first.held) == (10, 10, True, 1, False)
        again = board.increment("bob", action_id="day-1")
        assert (again.applied, again.delta, again.position) == (False, 0, first.position)
        with pytest.raises(Conflict):
            board.increment("ann", action_id="day-1")
        with pytest.raises(InvalidRequest) as refused:
            board.increment("ann", action_id="day-3", reason="NO_SUCH")
        assert refused.value.details["field"] == "reason"
        with pytest.raises(Unauthorized):
            board.increment("ann", action_id="day-3", value=3)
        last = board.increment("a/b", action_id="day-2", reason="BONUS")
        assert last.position > first.position

        top = board.top(min_position=last.position)
        assert [(row.rank, row.name, row.score) for row in top.entries] == [(1, "a/b", 25), (2, "bob", 10)]
        assert top.position >= last.position
        assert len(board.top(1).entries) == 1
        score = board.score("a/b", min_position=last.position)
        assert (score.score, score.rank, score.count, score.percentile, score.gap_to_next) == (25, 1, 2, 100.0, None)
        around = board.around("bob", 1)
        assert [row.user_id for row in around.entries] == ["a/b", "bob"]
        ranks = board.query(["bob", "nobody"])
        assert [(row.user_id, row.rank, row.rank_among) for row in ranks.entries] == [("bob", 2, 1)]
        assert ranks.unranked == ("nobody",)
        with pytest.raises(NotFound):
            board.score("nobody")
        with pytest.raises(InvalidRequest, match="no such board"):
            scoreboard.board("no-such-board").top()


def test_a_token_may_come_from_a_callable(server: Server, board_id: str) -> None:
    """It is asked for each request; what it raises reaches the caller; a bad one is refused once it stays bad."""
    tokens = [server.bearer(), "bad"]
    with Scoreboard(server.url, token=tokens.pop) as scoreboard:
        assert scoreboard.board(board_id).increment("bob", action_id="token-1").applied
        with pytest.raises(IndexError, match="empty list"):
            scoreboard.board(board_id).top()
    with Scoreboard(server.url, token=lambda: "bad") as scoreboard, pytest.raises(Unauthenticated):
        scoreboard.board(board_id).increment("bob", action_id="token-2")

    async def main(action_id: str) -> None:
        async def fetch() -> str:
            await anyio.lowlevel.checkpoint()
            return server.bearer()

        async with AsyncScoreboard(server.url, token=fetch) as scoreboard:
            assert (await scoreboard.board(board_id).increment("bob", action_id=action_id)).applied

    for backend in BACKENDS:
        anyio.run(main, backend, backend=backend)


def test_a_client_of_one_s_own_is_used_and_not_closed(server: Server) -> None:
    """For certificates and proxies."""
    with httpx.Client(headers={"user-agent": "shop/1"}) as http:
        with Scoreboard(server.url, http=http) as scoreboard:
            scoreboard.board().top()
        assert not http.is_closed


def test_nobody_there_is_told_after_the_deadline() -> None:
    """The last fault is named."""
    with Scoreboard(f"http://127.0.0.1:{free_port()}", deadline_s=0.5) as scoreboard:
        with pytest.raises(DeadlineExceeded, match="refused") as raised:
            scoreboard.board().increment("bob", action_id="a1")
        assert raised.value.may_have_counted is False


def check(server: Server, board_id: str, receipts: list[Receipt]) -> None:
    """Each action that was acknowledged is in the log once, at its position; the scores are their sum."""
    rows = [row for row in server.counted() if row["boardId"] == board_id]
    by_id = {row["actionId"]: row for row in rows}
    assert len(rows) == len(by_id), "counted twice"
    assert len({receipt.action_id for receipt in receipts}) == len(receipts) == len(rows)
    for receipt in receipts:
        row = by_id[receipt.action_id]
        assert (receipt.position.epoch, receipt.position.seq) == (row["epoch"], row["seq"])
    sums: Counter[str] = Counter()
    for row in rows:
        sums[row["userId"]] += row["delta"]
        assert row["newScore"] == sums[row["userId"]]


def test_nobody_loses_anything_when_the_leader_is_killed(server: Server, board_id: str) -> None:
    """Threads, tasks on asyncio and tasks on Trio write at once. Every increment returns, and each counts once."""
    receipts: list[Receipt] = []
    some = threading.Semaphore(0)
    ids = itertools.count()

    def next_action() -> tuple[str, str]:
        number = next(ids)
        return f"user-{number % 5}", f"killed-{number}"

    def note(receipt: Receipt) -> None:
        receipts.append(receipt)
        some.release()

    def work() -> None:
        with Scoreboard(server.url, token=server.bearer(), deadline_s=60.0) as scoreboard:
            for _ in range(EACH):
                user_id, action_id = next_action()
                note(scoreboard.board(board_id).increment(user_id, action_id=action_id))

    def run(backend: str) -> None:
        anyio.run(main, backend=backend)

    async def main() -> None:
        async with AsyncScoreboard(server.url, token=server.bearer(), deadline_s=60.0) as scoreboard:

            async def work() -> None:
                for _ in range(EACH):
                    user_id, action_id = next_action()
                    note(await scoreboard.board(board_id).increment(user_id, action_id=action_id))

            async with anyio.create_task_group() as tasks:
                for _ in range(TASKS):
                    tasks.start_soon(work)

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work) for _ in range(TASKS)]
        working += [pool.submit(run, backend) for backend in BACKENDS]
        for _ in range(KILLS):
            for _ in range(EACH):
                assert some.acquire(timeout=ALARM_SECONDS)
            server.kill()
            server.start()
        for done in working:
            done.result(timeout=ALARM_SECONDS)
    check(server, board_id, receipts)
    assert len(receipts) == TASKS * EACH * 3
