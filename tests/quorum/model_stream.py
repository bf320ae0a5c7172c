"""A stream in memory that several nodes share, with what a real one does to them: no answer, and done all the same.

cloud = Cloud(log_id=bytes(16))
stream = cloud.stream("a")                one for each node
cloud.cut("a")                            its calls are Unanswered, and what it sends is placed at `mend` (late)
stream.loses_answers = 1                  the next call is done, and its answer is lost
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import trio

from engine.record import Tail, chain_start
from server.quorum.stream import Bounds, Origin, PlacePurged, StreamServer, Unanswered

HEARD_MAX = 1_000


class Cloud:
    """The places, and who can reach them."""

    def __init__(self, origin: Tail | None = None) -> None:
        log_id = b"quorum of models"
        self.origin = Origin(origin or Tail(log_id, 1, 0, chain_start(log_id)))
        self.first = 1
        self.frames: list[bytes] = []
        self.streams: dict[str, ModelStream] = {}
        self.late: list[tuple[int, bytes]] = []
        self._cut: set[str] = set()

    def stream(self, name: str) -> ModelStream:
        """Give a node its stream, a new one for each start."""
        self.streams[name] = ModelStream(self, name)
        return self.streams[name]

    def cut(self, *names: str) -> None:
        """Let no call of these nodes be answered."""
        self._cut.update(names)

    def mend(self, *names: str) -> None:
        """Let them through again. What they sent meanwhile comes first, in its order."""
        self._cut.difference_update(names)
        late, self.late = self.late, []
        for after, frame in late:
            self.put(after, frame)

    def is_cut(self, name: str) -> bool:
        return name in self._cut

    @property
    def last(self) -> int:
        return self.first + len(self.frames) - 1

    def put(self, after: int, frame: bytes) -> bool:
        """Place a frame if it is the next one."""
        if after != self.last:
            return False
        self.frames.append(frame)
        return True

    def purge(self, first: int) -> None:
        """Remove the places before `first`."""
        del self.frames[: max(0, first - self.first)]
        self.first = max(first, self.first)

    def tell(self, word: bytes, by: str) -> None:
        """Tell all nodes that can be reached by this one."""
        for name, stream in self.streams.items():
            if not self.is_cut(by) and not self.is_cut(name):
                stream.told(word)


class ModelStream:
    """The stream as one node sees it. `on_place` is called before each frame is placed, with its place."""

    def __init__(self, cloud: Cloud, name: str) -> None:
        self.loses_answers = 0
        self.on_place: Callable[[int], None] = lambda _place: None
        self._cloud = cloud
        self._name = name
        self._send, self._receive = trio.open_memory_channel[bytes](HEARD_MAX)

    @property
    def origin(self) -> Origin:
        return self._cloud.origin

    async def _answer(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._cloud.is_cut(self._name):
            await trio.sleep(1.0)
            raise Unanswered("no server answers")

    def _lose(self) -> None:
        if self.loses_answers:
            self.loses_answers -= 1
            raise Unanswered("the answer was lost")

    async def place(self, after: int, frame: bytes) -> bool:
        """Place a frame, now or late."""
        self.on_place(after + 1)
        if self._cloud.is_cut(self._name):
            self._cloud.late.append((after, frame))
        await self._answer()
        done = self._cloud.put(after, frame)
        self._lose()
        return done

    async def read(self, place: int, at_most: int) -> Sequence[bytes]:
        """Read what is there."""
        await self._answer()
        if place < self._cloud.first:
            raise PlacePurged(place, self._cloud.first)
        at = place - self._cloud.first
        return self._cloud.frames[at : at + at_most]

    async def bounds(self) -> Bounds:
        """Give the ends."""
        await self._answer()
        servers = (StreamServer("n2", True, 0), StreamServer("n3", False, 7))
        return Bounds(self._cloud.first, self._cloud.last, sum(map(len, self._cloud.frames)), servers)

    async def beat(self, word: bytes) -> None:
        """Tell all, with an answer."""
        await self._answer()
        self._cloud.tell(word, self._name)

    def say(self, word: bytes) -> None:
        """Tell all."""
        self._cloud.tell(word, self._name)

    def told(self, word: bytes) -> None:
        """Take a word."""
        with suppress(trio.WouldBlock):
            self._send.send_nowait(word)

    async def hear(self) -> bytes:
        """Give the next word."""
        return await self._receive.receive()

    async def purge(self, first: int) -> None:
        """Purge."""
        await self._answer()
        self._cloud.purge(first)
