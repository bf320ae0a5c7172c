"""A leader and three replicas, each a whole process, and the wires between them.

    leader ══ wire "durable" ══► durable ══ wire "relay" ══► relay
       └═════ wire "shard" ════► shard

A slot is a part that a node plays; its process and its directory may change. `durable` and `relay` keep the log in
directories of their own; `shard` keeps half of the boards in memory. A promotion exchanges the directories of `leader`
and `durable`.

Rules:
- `nodes` has a node from the moment it is ready until just before it is ended. So `up` gives a node that answers.
- `end` ends every process that was started here.
"""

from __future__ import annotations

import signal
from pathlib import Path

import google_crc32c
import trio

from tests.cluster.wires import Wire
from tests.e2e import leader
from tests.e2e.backends import BOARDS, CONFIG

SLOTS = ("leader", "durable", "shard", "relay")
REPLICAS = ("durable", "shard", "relay")
WIRES = ("durable", "shard", "relay")
SEGMENT_BYTES = 32 * 1024


def shard_of(board_id: str, count: int) -> int:
    """The shard that holds a board, as the documentation of shards defines it."""
    return int(google_crc32c.value(board_id.encode())) % count + 1


SHARDS = next(count for count in range(2, 100) if shard_of("main", count) != shard_of("weekly", count))
SHARD = shard_of("main", SHARDS)
"""The shard that `shard` follows has the board `main`; `weekly` is in another one."""


def boards_of(slot: str) -> list[str]:
    """The boards that a node has."""
    return ["main"] if slot == "shard" else list(BOARDS)


class Cluster:
    """All nodes and wires. `nodes` are those that are ready."""

    def __init__(self, root: Path) -> None:
        self.directories = {"leader": root / "first", "durable": root / "second", "relay": root / "third"}
        self.wires = {name: Wire(name) for name in WIRES}
        self.nodes: dict[str, leader.Leader] = {}
        self.starts = 0
        self._root = root
        self._config = root / "scoreboard.toml"
        self._config.write_text(CONFIG.format(every_events=400))
        self.token_file = root / "token"
        self.token_file.write_text(leader.token("admin", sub="cluster", seconds=24 * 3600))
        self.token_file.chmod(0o600)
        self._all: list[leader.Leader] = []
        self._changed = trio.Event()

    def bearer(self) -> str:
        """A token with every right."""
        return self.token_file.read_text()

    async def up(self, slot: str) -> leader.Leader:
        """Wait until the node of a slot is ready."""
        while slot not in self.nodes:
            await self._changed.wait()
        return self.nodes[slot]

    async def begin(self, slot: str) -> leader.Leader:
        """Start the process of a slot; it is not ready yet and not in `nodes`."""
        assert slot not in self.nodes
        self.starts += 1
        node = await leader.launch(self._arguments(slot), self._root / f"{slot}.stderr", segment_bytes=SEGMENT_BYTES)
        self._all.append(node)
        return node

    async def start(self, slot: str) -> None:
        """Start the node of a slot, wait until it listens, and point the wires to it."""
        node = await self.begin(slot)
        await node.wait_ready()
        self.take_place(slot, node)

    def take_place(self, slot: str, node: leader.Leader) -> None:
        """Put a node that listens into a slot, and point the wires of the slot to it."""
        self.nodes[slot] = node
        if slot == "leader":
            self.wires["durable"].lead_to(node.port)
            self.wires["shard"].lead_to(node.port)
        elif slot == "durable":
            self.wires["relay"].lead_to(node.port)
        self._tell()

    def leave_place(self, slot: str) -> leader.Leader:
        """Take a node out of its slot; it runs on."""
        node = self.nodes.pop(slot)
        self._tell()
        return node

    async def stop(self, slot: str, number: signal.Signals) -> None:
        """End the node of a slot. After a SIGTERM its exit code must be 0."""
        node = self.leave_place(slot)
        node.signal(number)
        code = await node.wait()
        assert code == (0 if number == signal.SIGTERM else -number), (slot, code, node.stderr()[-4_000:])

    async def end(self) -> None:
        """Kill all processes that were ever started here."""
        with trio.CancelScope(shield=True):
            for node in self._all:
                await node.kill()

    def stderr(self, slot: str, characters: int = 6_000) -> str:
        """The end of what the nodes of a slot wrote to standard error."""
        path = self._root / f"{slot}.stderr"
        return path.read_text(encoding="utf-8", errors="replace")[-characters:] if path.exists() else ""

    def _arguments(self, slot: str) -> list[str]:
        common = ["--bind", "127.0.0.1:0", "--config", str(self._config)]
        if slot in self.directories:
            common += ["--data-dir", str(self.directories[slot])]
        if slot == "leader":
            return ["serve", *common]
        common += ["--leader", self.wires[slot].url, "--token-file", str(self.token_file)]
        if slot == "shard":
            common += ["--shard", f"{SHARD}/{SHARDS}"]
        return ["replica", *common]

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
