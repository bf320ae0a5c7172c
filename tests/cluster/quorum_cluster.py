"""Three servers of NATS, three nodes whose log is a stream on them, and a wire between every two that talk.

    node a ══► n1, n2, n3      node b ══► n1, n2, n3      node c ══► n1, n2, n3        nine wires to the servers
    n1 ══► n2, n3              n2 ══► n1, n3              n3 ══► n1, n2                six between the servers

Clients of the nodes, and the monitoring of the servers, use no wire.

Rules:
- A node keeps its name, port and directory from one process to the next. What its processes say goes to one file.
- A node that ends by itself is a fault, unless it was starting and found no quorum: then it is started again, as an
  init system would.
- With libfaketime a node's clock is what a file says, and can be stepped while the node runs. The clocks of the servers
  stay: Go asks the kernel past every library.
- A slow disk is strace, which holds up each fsync of a process. It slows all its other calls, too.
- `end` ends every process that was started here.
"""

from __future__ import annotations

import random
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from itertools import permutations
from pathlib import Path
from typing import Any

import trio

from engine.record import Tail, chain_start
from server.quorum.nats_client import opened
from server.quorum.nats_connection import NatsOptions
from server.quorum.nats_setup import create
from server.quorum.stream import Origin, Unanswered
from tests.cluster.wires import Wire
from tests.e2e import leader
from tests.e2e.backends import CONFIG
from tests.quorum.servers import Cluster, Server, free_port

NODES = ("a", "b", "c")
SERVERS = ("n1", "n2", "n3")
STREAM = "scoreboard"
SEGMENT_BYTES = 256 * 1024
HASTY = {"tests.cluster.hasty.IS_HASTY": 1}
SMALL_STREAM = {"tests.cluster.small_stream.KEEP_BYTES": 2**16}
STARTS_MAX = 20
SLOW_SECONDS = 0.5
"""How long a slow disk takes for each sync."""

HEAL_SECONDS_MAX = 120.0
AGAIN_SECONDS = 0.05

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
STRACE = shutil.which("strace")

_SETTINGS = """
bind = "127.0.0.1:{port}"
data_dir = "{data}"
[replication]
node_name = "{name}"
public_url = "http://127.0.0.1:{port}"
[quorum]
servers = [{servers}]
silence_seconds = {silence}
"""


class QuorumNode:
    """One node: a name, a port, a directory, and the process that serves it while it lives."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.port = free_port()
        self.directory = root / name
        self.stderr = root / f"{name}.stderr"
        self.config = root / f"{name}.toml"
        self.clock = root / f"{name}.clock"
        self.process: leader.Leader | None = None
        self.paused = False

    @property
    def pid(self) -> int:
        """The process, 0 without one."""
        return self.process.process.pid if self.process is not None else 0

    def signal(self, number: signal.Signals) -> None:
        """Send a signal and wait for nothing."""
        assert self.process is not None
        self.process.signal(number)

    def pause(self) -> None:
        """SIGSTOP."""
        self.paused = True
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT, if it was paused."""
        if self.paused and self.process is not None:
            self.signal(signal.SIGCONT)
        self.paused = False

    async def kill(self) -> None:
        """`kill -9`, also if it is paused; wait until it is gone."""
        process, self.process, self.paused = self.process, None, False
        if process is not None:
            await process.kill()

    def set_clock(self, seconds: int) -> None:
        """Set its clock so far from the true time; its process sees that within a second."""
        self.clock.write_text(f"{seconds:+d}\n")

    def last_words(self, characters: int = 6_000) -> str:
        """The end of what it wrote to standard error."""
        return self.stderr.read_text(errors="replace")[-characters:] if self.stderr.exists() else ""


class QuorumCluster:
    """See above. `run` starts everything; `servers` exists from then on. `broken` nodes lose what they acknowledge."""

    servers: Cluster

    def __init__(self, root: Path, *, silence_seconds: int = 3, broken: bool = False) -> None:
        self.nodes = {name: QuorumNode(name, root) for name in NODES}
        self.wires = {(name, server): Wire(f"{name} to {server}") for name in NODES for server in SERVERS}
        self.wires |= {pair: Wire(f"{pair[0]} to {pair[1]}") for pair in permutations(SERVERS, 2)}
        self.starts = 0
        self.failed_starts = 0
        self._root = root
        self._silence_s = silence_seconds
        self._constants = SMALL_STREAM | (HASTY if broken else {})
        self._tracers: list[subprocess.Popen[bytes]] = []

    async def run(self, nursery: trio.Nursery) -> None:
        """Start wires, servers and nodes, make the stream, and wait until all are ready."""
        for wire in self.wires.values():
            await nursery.start(wire.run)
        self.servers = Cluster(self._root, route=self._route)
        for (one, other), wire in self.wires.items():
            wire.lead_to(self.servers[other].port if one in NODES else self.servers[other].route_port)
        self.servers.start()
        await self.servers.wait_ready()
        await self._create_stream()
        for node in self.nodes.values():
            self._configure(node)
        await self.start_nodes()

    async def _create_stream(self) -> None:
        """Make the stream. Servers that have just started may leave a request without an answer."""
        options = NatsOptions(servers=self.servers.urls)
        log_id = secrets.token_bytes(16)
        origin = Origin(Tail(log_id, 1, 0, chain_start(log_id)))
        async with opened(options, name="init", uniform=random.uniform) as client:
            for _ in range(STARTS_MAX):
                with suppress(Unanswered):
                    return await create(client, options, origin)
        raise AssertionError("the servers do not make the stream")

    def _route(self, server: Server, other: Server) -> str:
        return f"nats://127.0.0.1:{self.wires[server.name, other.name].port}"

    def _configure(self, node: QuorumNode) -> None:
        servers = ", ".join(f'"nats://127.0.0.1:{self.wires[node.name, server].port}"' for server in SERVERS)
        text = _SETTINGS.format(
            port=node.port, data=node.directory, name=node.name, servers=servers, silence=self._silence_s
        )
        node.config.write_text(text + CONFIG.format(every_events=2_000))
        node.set_clock(0)

    async def start_nodes(self, *names: str) -> None:
        """Start these nodes, or all that do not run, and wait until they are ready."""
        async with trio.open_nursery() as starting:
            for node in self.nodes.values():
                if node.process is None and (not names or node.name in names):
                    starting.start_soon(self._start, node)

    async def _start(self, node: QuorumNode) -> None:
        extra = {}
        if FAKETIME is not None:
            extra = {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(node.clock),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }
        for _ in range(STARTS_MAX):
            self.starts += 1
            arguments = ["serve", "--quorum", "--config", str(node.config)]
            node.process = await leader.launch(
                arguments, node.stderr, extra=extra, segment_bytes=SEGMENT_BYTES, constants=self._constants
            )
            try:
                await node.process.wait_ready()
            except leader.LeaderEnded:
                self.failed_starts += 1
                await trio.sleep(AGAIN_SECONDS)
            else:
                return
        raise AssertionError(f"node {node.name} does not start:\n{node.last_words()}")

    def between(self, ours: set[str], theirs: set[str]) -> Iterator[Wire]:
        """Give all wires between two groups of nodes and servers."""
        for (one, other), wire in self.wires.items():
            if (one in ours and other in theirs) or (one in theirs and other in ours):
                yield wire

    def slow(self, pid: int) -> None:
        """Make each sync of a process take SLOW_SECONDS, until `heal`."""
        assert STRACE is not None
        delay = f"inject=fsync,fdatasync:delay_exit={round(SLOW_SECONDS * 1e6)}"
        command = [STRACE, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", delay, "-p", str(pid)]
        self._tracers.append(subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True))

    async def heal(self) -> None:
        """Mend all wires, clocks and disks; let everything run again, and wait until the servers hold it all."""
        self._end_tracers()
        for wire in self.wires.values():
            wire.change = wire.on_forth = None
            wire.mend()
        for server in self.servers.servers.values():
            if server.is_running:
                server.resume()
        self.servers.start()
        for node in self.nodes.values():
            node.set_clock(0)
            node.resume()
        await self.start_nodes()
        await self.servers.wait_ready()
        await self._wait_current()

    async def _wait_current(self) -> None:
        """Wait until each server has all frames of the stream."""
        said: Any = None
        with trio.move_on_after(HEAL_SECONDS_MAX):
            while True:
                said = [await self._place_of(server) for server in self.servers.servers.values()]
                if None not in said and len(set(said)) == 1:
                    return
                await trio.sleep(AGAIN_SECONDS)
        raise AssertionError(f"the servers do not come to the same place: {said}")

    async def _place_of(self, server: Server) -> int | None:
        answer = await server.ask("/jsz?streams=true") or {}
        for account in answer.get("account_details", []):
            for detail in account.get("stream_detail", []):
                if detail["name"] == STREAM:
                    return int(detail["state"]["last_seq"])
        return None

    async def stream_leader(self) -> Server:
        """Wait until a running server says that it leads the stream, and give it."""
        return await self.servers.stream_leader(STREAM)

    def check_alive(self) -> None:
        """Fail if a node or a server ended by itself."""
        for node in self.nodes.values():
            ended = node.process.process.poll() if node.process is not None else None
            assert ended is None, f"node {node.name} ended with {ended}:\n{node.last_words()}"
        for server in self.servers.servers.values():
            assert server.is_running, f"{server.name} ended:\n{server.log()}"

    def _end_tracers(self) -> None:
        for tracer in self._tracers:
            tracer.terminate()
            tracer.wait()
        self._tracers.clear()

    async def end(self) -> None:
        """Kill all processes that were ever started here."""
        with trio.CancelScope(shield=True):
            with suppress(OSError):
                self._end_tracers()
            for node in self.nodes.values():
                await node.kill()
            if hasattr(self, "servers"):
                self.servers.end()
