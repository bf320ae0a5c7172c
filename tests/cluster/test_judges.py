"""The storm's own parts: a wire does what it says, and the judges say no when they should."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from engine.commands import Command
from tests.cluster import checks
from tests.cluster.cluster import SHARD, SHARDS, Cluster, shard_of
from tests.cluster.readers import LAG_HEADERS, Reader, Seen
from tests.cluster.storm import Storm
from tests.cluster.wires import Wire
from tests.e2e.backends import Books, check_log
from tests.e2e.client import Answer
from tests.server.cli.directories import increment, make, put_user

PATIENCE_SECONDS = 30.0


async def echo(stream: trio.SocketStream) -> None:
    async with stream:
        async for data in stream:
            await stream.send_all(data)


async def wired(nursery: trio.Nursery) -> Wire:
    """Start a wire whose far end gives back what it gets."""
    listeners = await nursery.start(trio.serve_tcp, echo, 0)
    wire = Wire("test")
    await nursery.start(wire.run)
    wire.lead_to(listeners[0].socket.getsockname()[1])
    return wire


async def is_closed(stream: trio.SocketStream) -> bool:
    try:
        return await stream.receive_some(10) == b""
    except trio.BrokenResourceError:
        return True


async def test_a_wire_carries_stalls_cuts_and_refuses() -> None:
    """Stalled, nothing comes until it is mended, and nothing is lost; cut, it ends; refusing, none begins."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            wire = await wired(nursery)
            stream = await trio.open_tcp_stream("127.0.0.1", wire.port)
            await stream.send_all(b"one")
            assert await stream.receive_some(10) == b"one"
            wire.stall()
            await stream.send_all(b"two")
            carried = wire.carried
            await trio.testing.wait_all_tasks_blocked()
            assert wire.carried == carried
            wire.mend()
            assert await stream.receive_some(10) == b"two"
            wire.cut()
            assert await is_closed(stream)
            wire.refuse()
            assert await is_closed(await trio.open_tcp_stream("127.0.0.1", wire.port))
            wire.mend()
            again = await trio.open_tcp_stream("127.0.0.1", wire.port)
            await again.send_all(b"three")
            assert await again.receive_some(10) == b"three"
            nursery.cancel_scope.cancel()


def told(seq: int, *, lag: str | None = "0", status: int = 200, **more: Any) -> Answer:
    headers = {} if lag is None else dict.fromkeys(LAG_HEADERS, lag)
    return Answer(status, headers, json.dumps({"seq": seq, **more}).encode())


@pytest.mark.parametrize("carrying", [True, False])
def test_a_reader_minds_an_answer_that_is_older_than_one_before(tmp_path: Path, carrying: bool) -> None:
    """The same seq again is no step back; an older one is."""
    reader = Reader(Cluster(tmp_path), "relay", "main", Seen(), carrying=carrying)
    for seq in (3, 5, 5):
        reader._take(told(seq))
    with pytest.raises(AssertionError, match="went back from seq 5 to 4"):
        reader._take(told(4))


@pytest.mark.parametrize("status", [200, 503])
def test_a_reader_minds_a_lag_that_is_not_told(tmp_path: Path, status: int) -> None:
    """Every answer must tell a number, or that the lag is unknown."""
    reader = Reader(Cluster(tmp_path), "relay", "main", Seen(), carrying=True)
    for lag in ("17", "unknown"):
        reader._take(told(1, lag=lag, status=status, error={"code": "REPLICA_BEHIND"}))
    for untold in (None, "", "-1", "NaN"):
        with pytest.raises(AssertionError):
            reader._take(told(1, lag=untold, status=status, error={"code": "REPLICA_BEHIND"}))


ROW = {"userId": "user-1", "actionId": "a-1", "boardId": "weekly", "reason": "ACTION_COMPLETED"}
LOGGED = ROW | {"seq": 1, "epoch": 1, "type": "incremented", "caller": "backend", "delta": 1, "newScore": 1}
RECEIPT = ROW | {"seq": 1, "epoch": 1, "applied": True, "delta": 1, "newScore": 1}


def books(receipt: dict[str, Any]) -> Books:
    return Books(submitted={"a-1": ROW}, acknowledged={"a-1": receipt})


def test_the_books_balance() -> None:
    """What was acknowledged is in the log as it was told."""
    check_log([LOGGED], books(RECEIPT))


@pytest.mark.parametrize(
    ("rows", "receipt"),
    [
        ([], RECEIPT),
        ([LOGGED, LOGGED | {"seq": 2, "newScore": 2}], RECEIPT),
        ([LOGGED], RECEIPT | {"epoch": 2}),
        ([LOGGED | {"seq": 2}], RECEIPT),
        ([LOGGED | {"newScore": 2}], RECEIPT),
        ([LOGGED | {"actionId": "a-2"}], RECEIPT),
    ],
    ids=["lost", "counted twice", "another epoch", "a gap", "a wrong sum", "never submitted"],
)
def test_the_books_say_what_is_wrong(rows: list[dict[str, Any]], receipt: dict[str, Any]) -> None:
    """The books find each way in which log and receipts can differ."""
    with pytest.raises(AssertionError):
        check_log(rows, books(receipt))


POSITION = {"boardId": "main", "epoch": 2, "seq": 9}
ENTRIES = [{"userId": "user-1", "score": 35, "rank": 1}, {"userId": "user-2", "score": 10, "rank": 2}]


def told_of(board_id: str) -> dict[str, dict[str, Any]]:
    """What a node tells of a board."""
    alone = {"score": 10, "rank": 2, "updatedAt": "2026-01-01T00:00:00.000Z", "epoch": 2, "seq": 9}
    users = {f"{board_id} user-2": (200, ENTRIES, 9), f"{board_id} user-2 alone": (200, alone)}
    return {"tops": {board_id: POSITION | {"boardId": board_id, "entries": ENTRIES}}, "users": users}


def all_told() -> dict[str, dict[str, Any]]:
    """What a node with both boards tells; new each time."""
    main, weekly = told_of("main"), told_of("weekly")
    return {part: copy.deepcopy(main[part] | weekly[part]) for part in main}


def test_replicas_that_are_equal_pass() -> None:
    """A replica with a shard tells of its boards, and the judge asks for no others."""
    for slot in ("durable", "relay"):
        checks.check_told(slot, all_told(), all_told())
    checks.check_told("shard", told_of("main"), all_told())


def without_a_row(told: dict[str, dict[str, Any]]) -> None:
    told["tops"]["main"]["entries"].pop()


def other_score(told: dict[str, dict[str, Any]]) -> None:
    told["tops"]["main"]["entries"][1]["score"] = 11


def other_order(told: dict[str, dict[str, Any]]) -> None:
    told["tops"]["main"]["entries"].reverse()


def other_seq(told: dict[str, dict[str, Any]]) -> None:
    told["tops"]["main"]["seq"] = 8


def other_epoch(told: dict[str, dict[str, Any]]) -> None:
    told["tops"]["main"]["epoch"] = 1


def other_neighbours(told: dict[str, dict[str, Any]]) -> None:
    told["users"]["main user-2"] = (200, ENTRIES[1:], 9)


def other_time(told: dict[str, dict[str, Any]]) -> None:
    told["users"]["main user-2 alone"][1]["updatedAt"] = "2026-01-01T00:00:00.001Z"


def unknown_user(told: dict[str, dict[str, Any]]) -> None:
    told["users"]["main user-2 alone"] = (404, dict.fromkeys(("score", "rank", "updatedAt", "epoch", "seq")))


def not_asked(told: dict[str, dict[str, Any]]) -> None:
    del told["users"]["main user-2"]


@pytest.mark.parametrize("slot", ["durable", "relay", "shard"])
@pytest.mark.parametrize(
    "change",
    [
        without_a_row, other_score, other_order, other_seq, other_epoch,
        other_neighbours, other_time, unknown_user, not_asked,
    ],
)  # fmt: skip
def test_a_replica_that_differs_in_one_thing_is_found(
    slot: str, change: Callable[[dict[str, dict[str, Any]]], None]
) -> None:
    """Any figure that differs is found, and a missing one too."""
    told = copy.deepcopy(told_of("main") if slot == "shard" else all_told())
    change(told)
    with pytest.raises(AssertionError, match=f"{slot} (differs|tells)"):
        checks.check_told(slot, told, all_told())


BEGINNING = [[increment("ann", "a-1")], [increment("bob", "b-1")], [increment("ann", "a-2")]]


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([*BEGINNING[:2], [increment("ann", "a-3")]], "differ"),
        ([*BEGINNING[:2], [increment("bob", "a-2")]], "differ"),
        ([*BEGINNING[:2], [put_user("ann", "Ann")]], "differ"),
        (BEGINNING[:2], "ends at seq 2"),
    ],
    ids=["another action", "another user", "no action but a name", "one event less"],
)
def test_a_directory_that_holds_another_state_is_found(
    tmp_path: Path, frames: Sequence[Sequence[Command]], why: str
) -> None:
    """Equal boards are not enough: an action that only one node knows would count again on the other."""
    directories = {"leader": make(tmp_path / "leader", BEGINNING), "relay": make(tmp_path / "relay", BEGINNING)}
    checks.check_digests(directories, 3)
    directories["durable"] = make(tmp_path / "durable", frames)
    with pytest.raises(AssertionError, match=why):
        checks.check_digests(directories, 3)


def test_a_seed_is_a_storm(tmp_path: Path) -> None:
    """The same seed draws the same blows, another seed draws others; no round hits a node or wire twice."""
    plans = []
    for number, seed in enumerate((1, 1, 2)):
        root = tmp_path / str(number)
        root.mkdir()
        storm = Storm(Cluster(root), seed)
        plans.append([storm.draw() for _ in range(20)])
    assert plans[0] == plans[1] != plans[2]
    for plan in plans[0]:
        kinds = [(blow.what in ("kill -9", "SIGTERM"), blow.whom) for blow in plan]
        assert len(set(kinds)) == len(kinds) >= 2


def test_the_followed_shard_has_one_board_and_not_the_other() -> None:
    """Otherwise the storm would not test shards."""
    assert shard_of("main", SHARDS) == SHARD != shard_of("weekly", SHARDS)
