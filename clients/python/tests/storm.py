"""A storm over the client: a leader that is killed again and again, a replica that is promoted, wires that are cut.

    client ══ wire ══► place 1 ┐  one of the two leads, the other is its replica;
    client ══ wire ══► place 2 ┘  a promotion exchanges their parts

Backends write all the time: tasks one by one, tasks through a batcher, a thread, and an outbox whose sender is a
process that is killed too. In each round a wire is cut, stalls or refuses for a while, the sender is killed while it
sends, and the leader is killed. A new sender meets a board that is down before the leader comes back. Every third round
promotes the replica instead. At the end:

- every `increment` that returned is in the log of the last leader, once, at the position of its receipt;
- the log has no action that nobody sent: a retry has the actionId of the first attempt;
- everything that was put into the outbox is there once, too, and the outbox is empty;
- each score is the sum of what is in the log;
- who watched the board all the time never saw it go back, and sees its last state.

A promotion loses what the dead leader alone had: that is the price of asynchronous replication, and no client can pay
it. So before the leader is killed for one, backends rest until the replica has everything. They go on before anybody
is promoted, so their calls live through all of it.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
from board_server import CLIENT, log_of

from scoreboard_client import AsyncScoreboard, LiveState, Outbox, Position, Receipt, Scoreboard
from tests.cluster.wires import Wire
from tests.e2e import leader

CONFIG = """
[boards.main.points]
ACTION_COMPLETED = 10
[limits]
caller_per_minute = 10000000
user_per_minute = 10000000
"""
BETWEEN = 25
"""Receipts between two rounds."""

PROMOTION_EVERY = 3
DEADLINE_S = 300.0
"""Of each call. The machine may be busy, and no call may end before it has its receipt."""

BATCHED_TASKS = 6
PUT_SECONDS = 0.02


class Place:
    """A node's place: the wire that leads to it never changes, its process and its directory do."""

    def __init__(self, root: Path, name: str) -> None:
        self.wire = Wire(name)
        self.node: leader.Leader | None = None
        self.directory = root / name
        self._root = root
        self._name = name
        self._lives = 0

    def new_directory(self) -> None:
        """Begin anew, with nothing."""
        self._lives += 1
        self.directory = self._root / f"{self._name}-{self._lives}"

    async def start(self, *arguments: str) -> None:
        """Start a process here, and wait until it is ready."""
        bind = ["--bind", "127.0.0.1:0", "--config", str(self._root / "scoreboard.toml")]
        self.node = await leader.launch(
            [arguments[0], *bind, "--data-dir", str(self.directory), *arguments[1:]],
            self._root / f"{self._name}.stderr",
            extra={"SCOREBOARD_REPLICATION_PUBLIC_URL": self.wire.url},
            constants=leader.QUICK_RETRIES,
        )
        await self.node.wait_ready()
        self.wire.lead_to(self.node.port)

    async def kill(self) -> None:
        """`kill -9`."""
        node, self.node = self.node, None
        if node is not None:
            await node.kill()


class Storm:
    """See above. `kills` counts the leaders that were killed, `receipts` has what returned."""

    def __init__(self, root: Path, seed: int) -> None:
        self.receipts: list[Receipt] = []
        self.sent: set[str] = set()
        self.put: list[str] = []
        self.kills = self.promotions = self.sender_kills = 0
        self._root = root
        self._dice = random.Random(seed)
        self._leader, self._replica = Place(root, "one"), Place(root, "two")
        self._link = Wire("link")
        self._outbox = Outbox(root / "outbox.db")
        self._sender: trio.Process | None = None
        self._token = leader.token("scores:write", "scores:read", seconds=24 * 3600)
        self._admin = root / "admin.token"
        self._admin.write_text(leader.token("admin", seconds=24 * 3600))
        self._admin.chmod(0o600)
        (root / "scoreboard.toml").write_text(CONFIG)
        self._open = trio.Event()
        self._open.set()
        self._under_way = 0
        self._changed = trio.Event()
        self._ending = False
        self._shown: LiveState | None = None

    @property
    def urls(self) -> list[str]:
        return sorted(place.wire.url for place in (self._leader, self._replica))

    async def run(self, rounds: int) -> None:
        """Start everything, let the rounds pass, and check."""
        async with trio.open_nursery() as nursery:
            try:
                for wire in (self._leader.wire, self._replica.wire, self._link):
                    await nursery.start(wire.run)
                await self._leader.start("serve")
                await self._follow()
                await self._start_sender()
                nursery.start_soon(self._watch)
                async with trio.open_nursery() as backends:
                    backends.start_soon(self._one_by_one)
                    backends.start_soon(self._through_a_batcher)
                    backends.start_soon(self._in_a_thread)
                    backends.start_soon(self._put)
                    for number in range(1, rounds + 1):
                        await self._round(number)
                    await self._wait_for_receipts()
                    self._ending = True
                await self._kill_sender()
                async with AsyncScoreboard(self.urls, token=self._token, deadline_s=DEADLINE_S) as scoreboard:
                    await scoreboard.sender(self._outbox).drain()
                    last = await scoreboard.board().top()
                while self._shown is None or self._shown.position < last.position:
                    await self._next_change()
                assert self._shown.entries == last.entries
            finally:
                with trio.CancelScope(shield=True):
                    await self._kill_sender()
                    await self._leader.kill()
                    await self._replica.kill()
            nursery.cancel_scope.cancel()
        self._check()

    async def _round(self, number: int) -> None:
        await self._wait_for_receipts()
        wire = self._dice.choice((self._leader.wire, self._replica.wire))
        self._dice.choice((wire.cut, wire.refuse, wire.stall))()
        await self._kill_sender()
        if number % PROMOTION_EVERY == 2:
            wire.mend()
            await self._promote()
            return
        await self._leader.kill()
        self.kills += 1
        await self._start_sender()
        wire.mend()
        await self._wait_until_held()
        await self._leader.start("serve")
        self._link.lead_to(self._port())

    async def _promote(self) -> None:
        """Kill the leader once its replica has everything, promote it while backends wait, and let another follow."""
        self._open = trio.Event()
        while self._under_way:
            await self._next_change()
        last = max((receipt.position for receipt in self.receipts), default=Position(1, 0))
        async with AsyncScoreboard(self._replica.wire.url, deadline_s=DEADLINE_S) as scoreboard:
            await scoreboard.board().top(min_position=last)
        await self._leader.kill()
        self.kills += 1
        self._open.set()
        await self._start_sender()
        await self._wait_until_held()
        assert self._replica.node is not None
        arguments = ("--url", self._replica.node.url, "--token-file", str(self._admin))
        done = await leader.run("promote", *arguments)
        assert done.returncode == 0, done.stderr
        self.promotions += 1
        self._leader, self._replica = self._replica, self._leader
        self._replica.new_directory()
        await self._follow()

    async def _follow(self) -> None:
        self._link.lead_to(self._port())
        self._link.cut()
        await self._replica.start("replica", "--leader", self._link.url, "--token-file", str(self._admin))

    def _port(self) -> int:
        assert self._leader.node is not None
        return self._leader.node.port

    async def _start_sender(self) -> None:
        script = [sys.executable, str(CLIENT / "tests" / "outbox_sender.py"), str(self._outbox.path), self._token]
        environment = leader.environment({"PYTHONPATH": str(CLIENT)})
        with (self._root / "sender.stderr").open("ab") as stderr:
            self._sender = await trio.lowlevel.open_process(
                [*script, *self.urls], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, env=environment
            )

    async def _wait_until_held(self) -> None:
        """Wait until an attempt of the sender has failed."""
        assert self._sender is not None
        assert self._sender.stdout is not None
        line = await self._sender.stdout.receive_some(64)
        assert line.startswith(b"Held"), line

    async def _kill_sender(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.kill()
            self.sender_kills += await sender.wait() == -signal.SIGKILL
            assert sender.stdout is not None
            await sender.stdout.aclose()

    async def _wait_for_receipts(self) -> None:
        enough = len(self.receipts) + BETWEEN
        while len(self.receipts) < enough:
            await self._next_change()

    async def _next_change(self) -> None:
        await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _one_action(self, name: str, increment: Callable[[], Awaitable[Receipt]]) -> None:
        """Wait while backends rest; then count one action, and note its receipt."""
        await self._open.wait()
        self.sent.add(name)
        self._under_way += 1
        self._tell()
        try:
            self.receipts.append(await increment())
        finally:
            self._under_way -= 1
            self._tell()

    async def _watch(self) -> None:
        """Watch the board, until cancelled."""
        async with AsyncScoreboard(self.urls) as scoreboard, scoreboard.board().watch() as states:
            async for state in states:
                assert self._shown is None or self._shown.position <= state.position, (self._shown, state)
                self._shown = state
                self._tell()

    async def _one_by_one(self) -> None:
        number = 0
        async with AsyncScoreboard(self.urls, token=self._token, deadline_s=DEADLINE_S, attempt_s=2.0) as scoreboard:
            while not self._ending:
                number += 1
                name = f"single-{number}"
                await self._one_action(name, lambda name=name: scoreboard.board().increment("ann", action_id=name))  # type: ignore[misc]

    async def _through_a_batcher(self) -> None:
        async with (
            AsyncScoreboard(self.urls, token=lambda: self._token, deadline_s=DEADLINE_S, attempt_s=2.0) as scoreboard,
            scoreboard.board().batcher(size=4) as batcher,
        ):

            async def work(task: int) -> None:
                number = 0
                while not self._ending:
                    number += 1
                    name = f"batch-{task}-{number}"
                    await self._one_action(name, lambda name=name: batcher.increment(f"user-{task}", action_id=name))  # type: ignore[misc]

            async with trio.open_nursery() as tasks:
                for task in range(BATCHED_TASKS):
                    tasks.start_soon(work, task)

    async def _in_a_thread(self) -> None:
        number = 0
        with Scoreboard(self.urls, token=self._token, deadline_s=DEADLINE_S, attempt_s=2.0) as scoreboard:
            board = scoreboard.board()
            while not self._ending:
                number += 1
                name = f"thread-{number}"

                def increment(name: str = name) -> Receipt:
                    return board.increment("ben", action_id=name)

                await self._one_action(name, lambda increment=increment: trio.to_thread.run_sync(increment))  # type: ignore[misc]

    async def _put(self) -> None:
        """Put actions into the outbox, whatever happens to the board."""
        while not self._ending:
            name = f"outbox-{len(self.put) + 1}"
            await trio.to_thread.run_sync(lambda name=name: self._outbox.put("cat", action_id=name))  # type: ignore[misc]
            self.put.append(name)
            await trio.sleep(PUT_SECONDS)  # a rate; nothing depends on it

    def _check(self) -> None:
        rows = log_of(self._leader.directory)
        by_id = {row["actionId"]: row for row in rows}
        assert len(by_id) == len(rows), "an action was counted twice"
        assert set(by_id) == self.sent | set(self.put), "an action that nobody sent, or one that is lost"
        for receipt in self.receipts:
            row = by_id.get(receipt.action_id)
            assert row is not None, f"it returned, and is lost: {receipt}"
            assert (row["epoch"], row["seq"]) == (receipt.position.epoch, receipt.position.seq)
        assert len({receipt.action_id for receipt in self.receipts}) == len(self.receipts)
        assert [row["actionId"] for row in rows if row["userId"] == "cat"] == self.put, (
            "the outbox's order was not kept"
        )
        assert (self._outbox.count(), self._outbox.set_aside()) == (0, [])
        sums: dict[str, int] = {}
        for row in rows:
            sums[row["userId"]] = sums.get(row["userId"], 0) + row["delta"]
            assert row["newScore"] == sums[row["userId"]]
