"""What must hold after each round of takeovers, when all is healed and no caller acts.

All nodes come to the same event, and show the same boards. The digests of their states are equal. The log holds what
the callers were told, each action once. One process led in each epoch.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import trio

from engine.errors import NoLongerKept
from server.cli import log as cli
from snapshots.opening import log_directory
from tests.cluster.callers import Acknowledged, Caller
from tests.cluster.checks import check_digests
from tests.cluster.quorum_cluster import QuorumCluster, QuorumNode
from tests.e2e.backends import BOARDS, USERS, Row, check_log
from tests.e2e.client import Client, ConnectionLost

to_thread = trio.to_thread.run_sync

SETTLE_SECONDS_MAX = 90.0
SETTLINGS_MAX = 20
AGAIN_SECONDS = 0.05
EXCUSED = ("outcome_unknown", "start_failed")
"""Errors that a blow may cause: a caller was told that nothing is known, or a start found no quorum."""


async def settle(cluster: QuorumCluster, caller: Caller, told: Acknowledged) -> int:
    """Wait until all nodes have everything, and nobody takes over any more; give the seq."""
    for number in range(SETTLINGS_MAX):
        row = {"userId": USERS[0], "actionId": f"last-{len(told.books.submitted)}-{number}"}
        await caller.act([{**row, "boardId": "main", "reason": "BONUS"}])
        seq = int(told.books.acknowledged[row["actionId"]]["seq"])
        async with trio.open_nursery() as nursery:
            for node in cluster.nodes.values():
                nursery.start_soon(wait_for_seq, node, seq)
        tops = [await tops_of(node) for node in cluster.nodes.values()]
        if all(top == tops[0] for top in tops) and max(board["seq"] for board in tops[0].values()) == seq:
            return seq
    raise AssertionError(
        f"after {SETTLINGS_MAX} looks the nodes differ, or somebody takes over again and again: {tops}"
    )


async def wait_for_seq(node: QuorumNode, seq: int) -> None:
    """Wait until a node shows everything up to a seq, fresh, and is ready."""
    said = ""
    with trio.move_on_after(SETTLE_SECONDS_MAX):
        async with Client("127.0.0.1", node.port) as client:
            while True:
                try:
                    answer = await client.get(f"/scoreboard/top?boardId=main&minSeq={seq}")
                    ready = await client.get("/readyz")
                except ConnectionLost as lost:
                    raise AssertionError(f"node {node.name} is gone: {lost}\n{node.last_words()}") from lost
                if answer.status == ready.status == 200 and not answer.json().get("stale"):
                    return
                said = f"{answer.body!r} {ready.body!r}"
                await trio.sleep(AGAIN_SECONDS)
    raise AssertionError(f"node {node.name} does not reach seq {seq}: {said}\n{node.last_words()}")


async def tops_of(node: QuorumNode) -> dict[str, Any]:
    """Ask a node for its boards: position and rows."""
    tops = {}
    async with Client("127.0.0.1", node.port) as client:
        for board_id in BOARDS:
            answer = await client.get(f"/scoreboard/top?limit=50&boardId={board_id}")
            assert answer.status == 200, (node.name, answer.body)
            tops[board_id] = {key: answer.json()[key] for key in ("entries", "epoch", "seq", "history")}
    return tops


class Archive:
    """All events of the log, gathered while the storm goes on. A node's own log may begin later, after a snapshot."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    async def extend(self, cluster: QuorumCluster, seq: int, *, whole: bool) -> None:
        """Take what is new up to a seq. All nodes must have the same; `whole`: the same from their begin."""
        begin = 1 if whole else len(self.rows) + 1
        self.take(
            {node.name: await to_thread(dump_from, node.directory, begin) for node in cluster.nodes.values()}, seq
        )

    def take(self, dumped: Mapping[str, Sequence[Row]], seq: int) -> None:
        """Take what the nodes' logs have up to a seq; each was read a moment after the one before.

        What is behind it may be in some of them only: on a busy machine a node may take over between two reads.
        """
        known = len(self.rows)
        logs = {name: [row for row in rows if row["seq"] <= seq] for name, rows in dumped.items()}
        fullest = min(filter(None, logs.values()), key=lambda rows: rows[0]["seq"])
        assert fullest[0]["seq"] <= known + 1, f"no node has the events from {known + 1} on"
        self.rows.extend(fullest[known + 1 - fullest[0]["seq"] :])
        assert len(self.rows) == seq, f"the log ends at {len(self.rows)}, before {seq}"
        for name, rows in logs.items():
            same = rows == self.rows[rows[0]["seq"] - 1 :] if rows else True  # none: it began anew, from a snapshot
            assert same, f"the log of node {name} is not that of the others"


def dump_from(directory: Path, seq: int) -> list[Row]:
    """Give the events of a directory's log from a seq on, or all that it keeps, as `scoreboard log dump` has them."""
    try:
        read = list(cli.read(log_directory(str(directory)), seq, None, None))
    except NoLongerKept:  # it began anew, later, from a snapshot
        read = list(cli.read(log_directory(str(directory)), None, None, None))
    lines = [cli.line_of(event, frame.epoch) for frame, events in read for event in events if event.seq >= seq]
    return [json.loads(msgspec.json.encode(line)) for line in lines]


async def check(cluster: QuorumCluster, told: Acknowledged, archive: Archive, seq: int, *, whole: bool) -> None:
    """Check what must hold at a seq to which `settle` came. `whole`: compare the nodes' logs from their begin."""
    cluster.check_alive()
    check_leaders(cluster)
    directories = {node.name: node.directory for node in cluster.nodes.values()}
    await to_thread(check_digests, directories, seq)
    await archive.extend(cluster, seq, whole=whole)
    check_log(archive.rows, told.books)


def check_leaders(cluster: QuorumCluster) -> None:
    """Read what the nodes wrote: each epoch has one leader, and nothing went wrong that must never happen."""
    leaders: defaultdict[int, list[str]] = defaultdict(list)
    for node in cluster.nodes.values():
        for line in node.stderr.read_text(errors="replace").splitlines():
            said: dict[str, Any] = json.loads(line) if line.startswith("{") else {"event": line, "level": "critical"}
            if said["event"] == "leads":
                leaders[said["epoch"]].append(node.name)
            evil = said["level"] in ("critical", "error") and said["event"] not in EXCUSED
            assert not evil, f"node {node.name} wrote {line}"
    twice = {epoch: names for epoch, names in leaders.items() if len(names) != 1}
    assert not twice, f"epochs with two leaders: {twice}"
