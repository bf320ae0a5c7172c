"""The log of a quorum on NATS JetStream: `server.quorum.stream.Stream`, on two streams and a subject.

    async with NatsStream.open(options, name="node-1") as stream:
        await stream.place(5, frame)

    NAME          file, on three servers      the frames; the sequence of a message is its place
    NAME_BEAT     memory, on three servers    the last beat; it shows that a majority answers
    scoreboard.NAME.word                      what nodes say of themselves; kept nowhere

Rules:
- A frame is placed by its place alone (`Nats-Expected-Last-Sequence`), never by an id: the servers answer a repeated id
  with success whatever place was expected, and forget ids.
- **False is proved.** A server refuses a place as soon as another frame is on its way there, and one that was cut off
  refuses by what it last knew. So a refusal counts only if a frame is there to be read. Otherwise it is no answer.
- A place that was acknowledged with another number than the one that was asked for is another stream: `StreamRefused`.
- `read` asks for each place by its number, several at once, from the stream's leader. It has no state on the servers.
- A stream that was removed and made again is noticed by the time of its making.
- A server with a setting that would lose something is not used; at the start it is refused.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import structlog
import trio

from server import bounds
from server.logs import Bounded
from server.quorum import nats_api as api
from server.quorum import nats_limits as limits
from server.quorum.nats_api import Answer, ApiFault, Placed, Purged, StoredAnswer, StreamInfo, read_answer
from server.quorum.nats_client import NatsClient, Question, Uniform, opened
from server.quorum.nats_connection import NatsOptions
from server.quorum.nats_protocol import Message
from server.quorum.nats_setup import ask_info, check_server, check_servers, origin_of, wait_info
from server.quorum.stream import Bounds, Origin, PlacePurged, StreamRefused, StreamServer, Unanswered

log = structlog.get_logger()

_HOLE_TRIES = 3
_HOLE_PAUSE_SECONDS = 0.2
"""Looks until a hole is believed: the answers of two servers, of which one is behind, may look like one."""

_LOOK_SECONDS = 5.0
"""How long frames are without an answer until we look whether the stream is still there: one that is gone is silent."""


class NatsStream:
    """See above. `open` makes one."""

    def __init__(self, client: NatsClient, options: NatsOptions, info: StreamInfo) -> None:
        self._client = client
        self._name = options.stream
        self._timeout_s = options.publish_timeout_s
        self._origin = origin_of(info)
        self._created = info.created
        self._words: deque[bytes] = deque(maxlen=limits.WORDS_MAX)
        self._word_came = trio.Event()
        self._looked_at: float | None = None
        """Since when frames have had no answer, or when we last looked why. None: the last frame had one."""
        self._frame_bytes = limits.READ_AHEAD_BYTES
        self._tell = Bounded(log, bounds.LOG_LINES_PER_SECOND)
        for subject in (api.word_subject(self._name), api.beat_subject(self._name)):
            client.subscribe(subject, self._take_word)

    @staticmethod
    @asynccontextmanager
    async def open(options: NatsOptions, *, name: str, uniform: Uniform = random.uniform) -> AsyncIterator[NatsStream]:
        """Connect, and open the stream that is there. `name` is what the servers show of us.

        Raises `StreamRefused`, and `Unanswered` if the servers or the stream do not answer within `OPEN_SECONDS`.
        """
        async with opened(options, name=name, uniform=uniform, check=check_server) as client:
            await check_servers(client)
            yield NatsStream(client, options, await wait_info(client, options))

    @property
    def origin(self) -> Origin:
        """What the stream's first frame follows."""
        return self._origin

    async def place(self, after: int, frame: bytes) -> bool:
        """Put a frame at place `after + 1`. False: another frame is there, or this one already."""
        headers = ((api.EXPECTED_LAST, str(after)), (api.EXPECTED_STREAM, self._name))
        asked_at = trio.current_time()
        try:
            placed = await self._publish(api.log_subject(self._name), frame, headers)
        except ApiFault as fault:
            try:
                await self._find_taken(after, fault)
            except Unanswered:
                self._client.note_silence(asked_at)
                raise
            self._looked_at = None
            return False
        except Unanswered:
            await self._look_now_and_then(asked_at)
            raise
        self._looked_at = None
        if placed.stream != self._name or placed.seq != after + 1 or placed.duplicate:
            what = f"a frame for place {after + 1} of {self._name} came to {placed.seq} of {placed.stream}"
            raise StreamRefused(f"{what}: this is not the stream that we know.", key="quorum.stream")
        return True

    async def beat(self, word: bytes) -> None:
        """Have a majority take a word, which all nodes hear. Returns when a majority has it."""
        name = api.beat_stream(self._name)
        placed = await self._publish(api.beat_subject(self._name), word, ((api.EXPECTED_STREAM, name),))
        if placed.stream != name:
            raise StreamRefused(f"a beat came to the stream {placed.stream}, not to {name}.", key="quorum.stream")

    def say(self, word: bytes) -> None:
        """Tell all nodes a word, without an answer."""
        self._client.publish_nowait(api.word_subject(self._name), word)

    async def hear(self) -> bytes:
        """Wait for the next word of any node, our own ones too."""
        while not self._words:
            await self._word_came.wait()
        return self._words.popleft()

    async def bounds(self) -> Bounds:
        """Give the ends of the stream, as its leading server knows them."""
        return await self._bounds(limits.API_SECONDS)

    async def _bounds(self, timeout_s: float) -> Bounds:
        info = await self.info(timeout_s)
        state = info.state
        servers = tuple(StreamServer(peer.name, peer.current, peer.lag) for peer in info.cluster.replicas)
        return Bounds(max(state.first_seq, 1), state.last_seq, state.bytes, servers)

    async def info(self, timeout_s: float = limits.API_SECONDS) -> StreamInfo:
        """Give all about the stream. Raises `StreamRefused` if it is not the one that was opened."""
        info = await ask_info(self._client, self._name, timeout_s=timeout_s)
        if info.created != self._created:
            what = f"the stream {self._name} was made anew at {info.created}; the one that we knew is gone."
            raise StreamRefused(what, key="quorum.stream", remedy="Start this node anew.")
        return info

    async def purge(self, first: int) -> None:
        """Remove the frames before place `first`."""
        subject, asked_at = f"$JS.API.STREAM.PURGE.{self._name}", trio.current_time()
        answer = await self._client.request(subject, api.sequence_request(first))
        if not self._read_answer(answer, Purged, asked_at).success:
            raise Unanswered(f"the stream {self._name} did not purge what is before place {first}")

    async def read(self, place: int, at_most: int) -> Sequence[bytes]:
        """Give at most `at_most` frames from `place` on; none if the stream ends before. Raises `PlacePurged`.

        About `READ_BYTES_MAX` at once: fewer frames than asked for do not mean that the stream ends.
        """
        return await self._read(place, at_most, limits.READ_SECONDS)

    async def _read(self, place: int, at_most: int, timeout_s: float) -> Sequence[bytes]:
        frames: list[bytes] = []
        read_bytes = 0
        asked: deque[Question] = deque()
        deadline = trio.current_time() + timeout_s
        subject = f"$JS.API.STREAM.MSG.GET.{self._name}"
        try:
            while len(frames) < at_most and read_bytes < limits.READ_BYTES_MAX:
                while len(asked) < self._ahead and len(frames) + len(asked) < at_most:
                    request = api.sequence_request(place + len(frames) + len(asked))
                    asked.append(await self._client.ask(subject, request, deadline=deadline))
                question = asked.popleft()
                frame = self._frame(await question.wait(deadline), place + len(frames), question.asked_at)
                if frame is None:
                    break
                frames.append(frame)
                read_bytes += len(frame)
                self._frame_bytes = max(len(frame), 1)
                deadline = trio.current_time() + timeout_s
        except Unanswered:
            if not frames:
                raise
        finally:
            for question in asked:
                self._client.forget(question)
        return frames or await self._nothing_at(place, timeout_s)

    @property
    def _ahead(self) -> int:
        """How many places to ask for at once: many short frames, or few long ones."""
        return max(min(limits.READ_AHEAD_BYTES // self._frame_bytes, limits.READ_REQUESTS_MAX), 1)

    def _frame(self, answer: Message, place: int, asked_at: float) -> bytes | None:
        """Read the answer to a question for a place. None: no frame is there."""
        try:
            stored = self._read_answer(answer, StoredAnswer, asked_at, told=frozenset({api.NO_MESSAGE})).message
        except ApiFault:
            return None
        if stored.seq != place or stored.subject != api.log_subject(self._name):
            what = f"the stream {self._name} gave {stored.subject} {stored.seq} for place {place}."
            raise StreamRefused(what, key="quorum.stream")
        return stored.data

    async def _nothing_at(self, place: int, timeout_s: float) -> Sequence[bytes]:
        """Find out why there is no frame at a place: the stream ends before, or begins after. Else it has a hole."""
        for _ in range(_HOLE_TRIES):
            ends = await self._bounds(timeout_s)
            if place > ends.last:
                return ()
            if place < ends.first:
                raise PlacePurged(place, ends.first)
            await trio.sleep(_HOLE_PAUSE_SECONDS)
            request, asked_at = api.sequence_request(place), trio.current_time()
            answer = await self._client.request(f"$JS.API.STREAM.MSG.GET.{self._name}", request, timeout_s=timeout_s)
            frame = self._frame(answer, place, asked_at)
            if frame is not None:
                return (frame,)
        what = f"the stream {self._name} has places {ends.first} to {ends.last}, and nothing at {place}."
        raise StreamRefused(what, key="quorum.stream", remedy="A message was deleted: nobody may do that.")

    async def _publish(self, subject: str, payload: bytes, headers: Sequence[tuple[str, str]]) -> Placed:
        """Publish to a stream. Raises `ApiFault` for a wrong place, `Unanswered` and `StreamRefused`."""
        asked_at = trio.current_time()
        answer = await self._client.request(subject, payload, headers=headers, timeout_s=self._timeout_s)
        try:
            placed = self._read_answer(answer, Placed, asked_at, told=api.WRONG_LAST)
        except Unanswered as unanswered:
            self._tell.warning("quorum_stream_unable", stream=self._name, why=str(unanswered))
            raise
        self._client.note_majority()
        return placed

    def _read_answer(
        self, answer: Message, kind: type[Answer], asked_at: float, *, told: frozenset[int] = frozenset()
    ) -> Answer:
        """Read what the servers say to a request of a time. That they cannot answer now is silence, too."""
        try:
            return read_answer(answer.payload, kind, stream=self._name, told=told)
        except Unanswered:
            self._client.note_silence(asked_at)
            raise

    async def _find_taken(self, after: int, fault: ApiFault) -> None:
        """Find the frame at a place that was refused. Raises `Unanswered` if there is none to be seen."""
        last = fault.error.wrong_last
        if last is not None and last < after:
            await self.info(self._timeout_s)  # raises if it is another stream
            raise Unanswered(f"a server that knows the stream {self._name} up to {last} refused place {after + 1}")
        with suppress(PlacePurged):
            if not await self._read(after + 1, 1, self._timeout_s):
                raise Unanswered(f"another frame is on its way to place {after + 1} of {self._name}, or ours is")

    async def _look_now_and_then(self, asked_at: float) -> None:
        """While frames have no answer: look every few seconds whether the stream is still there, and still ours."""
        if self._looked_at is None:
            self._looked_at = asked_at
        if trio.current_time() - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = trio.current_time()
            with suppress(Unanswered):
                await self.info(self._timeout_s)

    def _take_word(self, message: Message) -> None:
        self._words.append(message.payload)
        self._word_came.set()
        self._word_came = trio.Event()
