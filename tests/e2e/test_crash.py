"""`kill -9` at random moments under load, again and again, on one directory: nothing acknowledged is lost or doubled.

The judge is a plain model made from `scoreboard log dump`: sums, and a sort by score, then by who reached it first.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import trio

from tests.e2e import leader
from tests.e2e.backends import BOARDS, CONFIG, USERS, Backend, Books, Row, check_log, work_until_gone
from tests.e2e.client import Client
from tests.seeds import first_seed, in_ci

ROUNDS = in_ci(12, 20)
BACKENDS = 6
LOAD_SECONDS_MAX = 0.8
KILLED_WHILE_STARTING = 0.25
SEGMENT_BYTES = 32 * 1024
ASKED_FOR_NEWEST = 150
ASKED_FOR_ANY = 20


async def test_nothing_acknowledged_is_lost_or_doubled_over_many_kills(tmp_path: Path) -> None:
    """Six backends increment, repeat and contradict; it dies at random moments, ROUNDS times; the books balance."""
    seed = first_seed("CRASH_SEED")
    dice = random.Random(seed)
    data, config = tmp_path / "data", tmp_path / "scoreboard.toml"
    config.write_text(CONFIG.format(every_events=150))
    books = Books()
    bearer = leader.token("scores:write", "scores:read", "users:write", seconds=24 * 3600)
    backends = [Backend(f"backend-{number}", seed, books, bearer) for number in range(BACKENDS)]
    for _ in range(ROUNDS):
        if dice.random() < KILLED_WHILE_STARTING:
            await _kill_while_starting(data, config, dice)
        async with leader.serving(data, config=config, segment_bytes=SEGMENT_BYTES) as node:
            await _check(node, data, books, bearer, dice)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work_until_gone, backends, node.host, node.port)
                await trio.sleep(dice.uniform(0.02, LOAD_SECONDS_MAX))
                await node.kill()
    async with leader.serving(data, config=config, segment_bytes=SEGMENT_BYTES) as node:
        await _check(node, data, books, bearer, dice)
    # The rounds prove something only if each kind of trouble came up.
    assert books.duplicates
    assert books.conflicts
    assert books.retried
    assert books.names
    assert len(list((data / "snapshots").glob("*.snapshot"))) >= 2
    assert len(list((data / "log").glob("*.log.gz"))) >= 2
    assert len(list((data / "log").glob("*.log"))) >= 1


async def _kill_while_starting(data: Path, config: Path, dice: random.Random) -> None:
    """Kill a leader somewhere between its start and its first seconds: recovery itself may be cut short too."""
    node = await leader.start(data, config=config, segment_bytes=SEGMENT_BYTES)
    try:
        with trio.move_on_after(dice.uniform(0.0, 1.5)):
            await node.wait_ready()
    finally:
        await node.kill()


async def _check(node: leader.Leader, data: Path, books: Books, bearer: str, dice: random.Random) -> None:
    """Compare a leader that has just recovered with the books and with a plain model of its own log.

    It looks up every action in the log. HTTP is slower, so there it asks for the newest, which a crash endangers most,
    and for some of the others.
    """
    done = await leader.run("log", "dump", "--data-dir", str(data))
    assert done.returncode == 0, done.stderr.decode()
    rows: list[Row] = [json.loads(line) for line in done.stdout.splitlines()]
    check_log(rows, books)
    known = list(books.acknowledged)
    asked = known[-ASKED_FOR_NEWEST:] + dice.sample(known, min(ASKED_FOR_ANY, len(known)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_check_actions, node, bearer, asked, books)
        nursery.start_soon(_check_boards, node, bearer, rows)


async def _check_actions(node: leader.Leader, bearer: str, action_ids: list[str], books: Books) -> None:
    """Each acknowledged action can be asked for, and its receipt is the one that was given."""
    async with Client(node.host, node.port, bearer) as client:
        for action_id in action_ids:
            answer = await client.get(f"/actions/{action_id}")
            assert answer.status == 200, answer.body
            told, known = answer.json(), books.acknowledged[action_id]
            assert (told["actionId"], told["applied"], told["seq"]) == (action_id, True, known["seq"])


async def _check_boards(node: leader.Leader, bearer: str, rows: list[Row]) -> None:
    """Scores are the sums of the log's events, ranks and the top those of a plain sort."""
    names = {row["userId"]: row["displayName"] for row in rows if row["type"] == "user_put"}
    async with Client(node.host, node.port, bearer) as client:
        for board_id in BOARDS:
            scores: dict[str, tuple[int, int]] = {}
            for row in rows:
                if row["type"] == "incremented" and row["boardId"] == board_id:
                    scores[row["userId"]] = (row["newScore"], row["seq"])
            order = sorted(scores, key=lambda user_id: (-scores[user_id][0], scores[user_id][1]))
            top = (await client.get(f"/scoreboard/top?limit=50&boardId={board_id}")).json()
            expected: list[dict[str, Any]] = [
                {"userId": user_id, "score": scores[user_id][0], "rank": rank}
                | ({"displayName": names[user_id]} if user_id in names else {})
                for rank, user_id in enumerate(order, start=1)
            ]
            assert top["entries"] == expected
            for user_id in USERS:
                answer = await client.get(f"/scores/{user_id}?boardId={board_id}")
                if user_id not in scores:
                    assert answer.status == 404
                    continue
                told = answer.json()
                assert (told["score"], told["rank"]) == (scores[user_id][0], order.index(user_id) + 1)
