"""The stream of a simulated quorum as its nodes see it: requests, words and answers that are late, or get lost.

    cloud.stream("a", "a 3")                    the stream of node a, in its third life: `server.quorum.stream.Stream`

What real servers do, and so does this (`server.quorum.nats_stream` has the rules):
- A node is connected to one server, which passes requests on to the leader that it knows. After requests without an
  answer the node goes to another server.
- A request may be held up anywhere and arrive much later: after its sender gave up, was deposed, or was killed. In
  which order is open.
- An answer may get lost, though all was done.
- A leader refuses a place as soon as a frame is on its way there. So a refusal counts only if a frame can be read.
- A server that was cut off answers reads with what it had. It invents nothing.
- Words go from server to server, without any majority. A beat is answered if a majority has it, of another stream than
  the log's: it may be alive while the log has no leader.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import trio

from server.quorum.stream import Bounds, Origin, PlacePurged, Unanswered
from tests.sim.quorum.profile import Weather
from tests.sim.quorum.servers import Entry, Server, Servers
from tests.sim.trace import Trace

HEARD_MAX = 256
PUBLISH_S = 1.0
API_S = 2.0
HELD_S = 40.0
"""How long a request that can't go on waits, at most."""

HELD = 0.6
"""So often it waits, and does not get lost."""

Act = Callable[[Server, Callable[[Any], None]], None]
"""What a server does with a request. It answers by a call, at once, later or never."""


class Cloud:
    """What all nodes share: the servers, and the ways to them. `senders` has who sent each frame first."""

    def __init__(
        self, servers: Servers, origin: Origin, weather: Weather, dice: random.Random, tasks: trio.Nursery,
        trace: Trace, counts: Counter[str],
    ) -> None:  # fmt: skip
        self.servers = servers
        self.origin = origin
        self.senders: dict[bytes, str] = {}
        self.beats_stop_until_s = 0.0
        self._weather = weather
        self._dice = dice
        self._tasks = tasks
        self._trace = trace
        self._counts = counts
        self._streams: dict[str, CloudStream] = {}

    def stream(self, node: str, life: str) -> CloudStream:
        """Give a node its stream, a new one for each life."""
        self._streams[node] = CloudStream(self, node, life, self._dice.choice(self.servers.all))
        return self._streams[node]

    def leave(self, node: str) -> None:
        """Note that a node's process has ended. What it sent goes on its way."""
        self._streams.pop(node, None)

    def carry(self, node: str, server: Server, question: Question, act: Act, *, to_leader: bool = True) -> None:
        """Bring a request to a server, and on to the leader. The sender may have ended meanwhile."""
        self._tasks.start_soon(self._carry, node, server, question, act, to_leader)

    async def _carry(self, node: str, server: Server, question: Question, act: Act, to_leader: bool) -> None:
        if not await self._arrives(node, server):
            return
        target: Server | None = server
        if to_leader:
            target = self.servers.leader_for(server)
            if target is not None and target is not server:
                await trio.sleep(self._weather.delay_s())
                if not target.runs or not target.leads or not self.servers.passable(server.name, target.name):
                    return

        def answer(what: Any) -> None:
            self._tasks.start_soon(self._bring_back, node, server, question, what)

        if target is not None:
            act(target, answer)
        elif self._dice.random() < 0.5:
            answer(Unanswered("no responders"))

    async def _arrives(self, node: str, server: Server) -> bool:
        delay_s = self._weather.delay_s()
        if self._weather.is_late():
            self._counts["requests that came late"] += 1
            delay_s += self._dice.expovariate(1 / 4.0)
        await trio.sleep(delay_s)
        deadline_s = trio.current_time() + HELD_S
        while server.stopped or not self.servers.passable(node, server.name):
            if self._dice.random() >= HELD or trio.current_time() >= deadline_s:
                return False
            with trio.move_on_at(deadline_s):
                await self.servers.changed.park()
            await trio.sleep(self._weather.delay_s() * self._dice.randint(1, 40))
            self._counts["requests held up"] += 1
        return server.up

    async def _bring_back(self, node: str, server: Server, question: Question, what: Any) -> None:
        await trio.sleep(self._weather.delay_s())
        if self._weather.loses():
            self._counts["answers of the stream lost"] += 1
            self._trace.note("answer lost", node, question.what)
        elif server.runs and self.servers.passable(node, server.name) and not question.over.is_set():
            question.answer = what
            question.over.set()

    def tell(self, node: str, server: Server, word: bytes) -> None:
        """Tell a word to all nodes that it reaches, the sender too."""
        self._tasks.start_soon(self._tell, node, server, word)

    async def _tell(self, node: str, server: Server, word: bytes) -> None:
        await trio.sleep(self._weather.delay_s())
        if server.runs and self.servers.passable(node, server.name):
            for stream in self._streams.values():
                other = stream.server
                open_way = self.servers.reaches(server, other) and self.servers.passable(stream.node, other.name)
                if open_way and not self._weather.loses():
                    stream.told(word)

    def beats(self, server: Server) -> bool:
        """Whether a majority takes a beat from a server."""
        return self.servers.has_majority(server) and trio.current_time() >= self.beats_stop_until_s


class Question:
    """A request that waits for its answer. An answer that is an exception is raised."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.over = trio.Event()
        self.answer: Any = None


class Refusal:
    """A server refused a place: it knows another newest one."""

    def __init__(self, last: int) -> None:
        self.last = last


class CloudStream:
    """The stream as one node sees it in one life; see `server.quorum.stream.Stream`."""

    def __init__(self, cloud: Cloud, node: str, life: str, server: Server) -> None:
        self.node = node
        self.server = server
        self._cloud = cloud
        self._life = life
        self._words: trio.MemorySendChannel[bytes]
        self._words, self._heard = trio.open_memory_channel[bytes](HEARD_MAX)

    @property
    def origin(self) -> Origin:
        return self._cloud.origin

    async def _ask(self, what: str, act: Act, seconds: float, *, to_leader: bool = True) -> Any:
        question = Question(what)
        self._cloud.carry(self.node, self.server, question, act, to_leader=to_leader)
        with trio.move_on_after(seconds):
            await question.over.wait()
        if question.answer is None:
            self.server = self._cloud._dice.choice(self._cloud.servers.all)
            raise Unanswered(f"no answer to {what}")
        if isinstance(question.answer, Exception):
            raise question.answer
        return question.answer

    async def place(self, after: int, frame: bytes) -> bool:
        """Put a frame at place `after + 1`. False: `after` is not the newest place, and the next can be read."""
        cloud = self._cloud
        cloud.senders.setdefault(frame, self._life)

        def propose(leader: Server, answer: Callable[[Any], None]) -> None:
            if leader.last_proposed != after:
                answer(Refusal(cloud._dice.choice([leader.last, leader.last_proposed])))
                return
            entry = Entry(leader.term, frame)
            cloud.servers.propose(leader, entry, lambda: answer(after + 1))

        answer = await self._ask(f"place {after + 1}", propose, PUBLISH_S)
        if not isinstance(answer, Refusal):
            assert answer == after + 1
            return True
        if answer.last < after:
            raise Unanswered(f"a server that knows places up to {answer.last} refused place {after + 1}")
        with suppress(PlacePurged):
            if not await self.read(after + 1, 1):
                raise Unanswered(f"another frame is on its way to place {after + 1}, or ours is")
        return False

    async def read(self, place: int, at_most: int) -> Sequence[bytes]:
        """Read what the leader has applied; sometimes fewer frames than there are."""

        def read(leader: Server, answer: Callable[[Any], None]) -> None:
            if place < leader.first:
                answer(PlacePurged(place, leader.first))
                return
            at = place - leader.first
            frames = leader.frames[at : at + at_most]
            keep = len(frames) if self._cloud._dice.random() < 0.7 else min(1, len(frames))
            answer(tuple(frames[:keep]))

        frames: Sequence[bytes] = await self._ask(f"read {place}", read, API_S)
        return frames

    async def bounds(self) -> Bounds:
        """Give the ends, as the leader has applied them."""

        def look(leader: Server, answer: Callable[[Any], None]) -> None:
            answer(Bounds(leader.first, leader.last, sum(map(len, leader.frames))))

        bounds: Bounds = await self._ask("bounds", look, API_S)
        return bounds

    async def beat(self, word: bytes) -> None:
        """Tell a word to all; returns when a majority has it."""

        def take(server: Server, answer: Callable[[Any], None]) -> None:
            self._cloud.tell(self.node, server, word)
            if self._cloud.beats(server):
                answer(True)

        await self._ask("a beat", take, PUBLISH_S, to_leader=False)

    def say(self, word: bytes) -> None:
        """Tell a word to all, perhaps."""
        self._cloud.tell(self.node, self.server, word)

    def told(self, word: bytes) -> None:
        """Take a word. The queue is bounded, and nobody may listen."""
        with suppress(trio.WouldBlock):
            self._words.send_nowait(word)

    async def hear(self) -> bytes:
        """Give the next word."""
        return await self._heard.receive()

    async def purge(self, first: int) -> None:
        """Remove what is before a place."""

        def remove(leader: Server, answer: Callable[[Any], None]) -> None:
            self._cloud._counts["purges"] += 1
            self._cloud.servers.propose(leader, Entry(leader.term, purge=first), lambda: answer(True))

        await self._ask(f"purge before {first}", remove, API_S)
