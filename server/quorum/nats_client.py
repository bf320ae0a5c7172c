"""A client of NATS: one connection at a time to one of the servers, requests with their answers, and subscriptions.

    async with opened(options, name="node-1", uniform=random.uniform) as client:
        client.subscribe("words", take)
        answer = await client.request("$JS.API.INFO", timeout_s=2.0)

Rules:
- After a fault the client connects to the next server, at once the first time, then after waits that grow. Its
  subscriptions are made anew.
- A request waits for a connection if there is none, and is sent once. It ends at its time, in every case.
- A request ends as `Unanswered` when its time is over, when its connection is lost, or when the server says that nobody
  listens (no responders). After two in a row the next server is asked: this one may be cut off from the others. Its
  answers prove nothing: a server that was cut off tells what it knew, and refuses at once. So whoever understands the
  answers says which of them show that a majority is there (`note_majority`), and which are none (`note_silence`).
- `StreamRefused` is what a person must mend: a subject that we may not use, or servers of which none lets us in. The
  client goes on trying, because a password may be mended under it; the log says so.
- `opened` fails if no server can be had: with the refusal if one refused, or else with `Unanswered`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import structlog
import trio

from server import bounds
from server.logs import Bounded
from server.quorum import nats_limits as limits
from server.quorum import nats_protocol as protocol
from server.quorum.nats_connection import Connection, ConnectionLost, NatsOptions, connect
from server.quorum.nats_protocol import Error, Info, Message
from server.quorum.stream import StreamRefused, Unanswered
from server.settings.quorum import ServerAddress

log = structlog.get_logger()

Uniform = Callable[[float, float], float]
Headers = Sequence[tuple[str, str]]
Check = Callable[[ServerAddress, Info], None]
"""Looks at what a server says of itself, and raises `StreamRefused` for one that is not to be used."""

_PERMISSION = re.compile(r"permissions violation for (publish|subscription) to \"([^\"]+)\"", re.IGNORECASE)


class Question:
    """A request that was sent. `wait` gives its answer."""

    def __init__(self, client: NatsClient, connection: Connection, number: int, subject: str) -> None:
        self.subject = subject
        self.number = number
        self.connection = connection
        self._client = client
        self.asked_at = trio.current_time()
        self._ended = trio.Event()
        self._outcome: Message | Exception | None = None

    def end(self, outcome: Message | Exception) -> None:
        """Give the answer, or what stands in its place."""
        self._outcome = outcome
        self._ended.set()

    async def wait(self, deadline: float) -> Message:
        """Wait for the answer until a time (`trio.current_time`). Raises `Unanswered` and `StreamRefused`."""
        try:
            with trio.move_on_at(deadline):
                await self._ended.wait()
        finally:
            self._client.forget(self)
        outcome = self._outcome
        if isinstance(outcome, Message) and outcome.status == protocol.NO_RESPONDERS:
            outcome = Unanswered(f"{self.connection.address} says that nobody answers {self.subject} now")
        if isinstance(outcome, Message):
            return outcome
        if isinstance(outcome, StreamRefused):
            raise outcome
        self._client.note_silence(self.asked_at)
        raise outcome or Unanswered(f"{self.connection.address} did not answer {self.subject} in time")


class NatsClient:
    """See above. `opened` makes one."""

    def __init__(self, options: NatsOptions, *, name: str, uniform: Uniform, check: Check | None = None) -> None:
        self.options = options
        self._check = check
        self._addresses = options.addresses
        self.name = name
        self._uniform = uniform
        self._connection: Connection | None = None
        self._changed = trio.Event()
        self._questions: dict[int, Question] = {}
        self._asked = 0
        self._connected_at = self._silent_since = trio.current_time()
        self._silences = 0
        self._inbox = f"_INBOX.{secrets.token_hex(12)}"
        self._subscriptions: list[tuple[str, Callable[[Message], None]]] = [(f"{self._inbox}.*", self._answer)]
        self._refusals: dict[int, StreamRefused] = {}
        """The servers that do not let us in, or that we may not use, by their place in the list."""
        self._forbidden: StreamRefused | None = None
        """Why no answer can come on this connection."""
        self._told: dict[int, str] = {}
        """What the log says of a server that does not answer: once, until one does."""
        self._tell = Bounded(log, bounds.LOG_LINES_PER_SECOND)

    @property
    def info(self) -> Info | None:
        """What the server says of itself; None while there is no connection."""
        return self._connection.info if self._connection else None

    @property
    def addresses(self) -> Sequence[ServerAddress]:
        """The servers of the list."""
        return self._addresses

    @property
    def server(self) -> str:
        """The address of the server that we are connected to, empty without one."""
        return str(self._connection.address) if self._connection else ""

    def subscribe(self, subject: str, take: Callable[[Message], None]) -> None:
        """Have each message of a subject given to `take`, from now on and on each later connection."""
        self._subscriptions.append((subject, take))
        if self._connection:
            self._connection.send_nowait(protocol.subscribe(subject, len(self._subscriptions)))

    def publish_nowait(self, subject: str, payload: bytes) -> None:
        """Send a message that may get lost. It is dropped without a connection, or if too much waits already."""
        if self._connection and self._connection.waiting_bytes <= limits.SAY_BYTES_MAX:
            self._connection.send_nowait(protocol.publish(subject, payload))

    async def request(
        self, subject: str, payload: bytes = b"", *, headers: Headers = (), timeout_s: float = limits.API_SECONDS
    ) -> Message:
        """Ask, and wait for the answer. Raises `Unanswered` and `StreamRefused`."""
        deadline = trio.current_time() + timeout_s
        question = await self.ask(subject, payload, headers=headers, deadline=deadline)
        return await question.wait(deadline)

    async def ask(self, subject: str, payload: bytes = b"", *, headers: Headers = (), deadline: float) -> Question:
        """Send a request, once there is a connection. Raises `Unanswered` and `StreamRefused`."""
        connection = await self._connected(subject, deadline)
        if self._forbidden is not None:
            raise self._forbidden
        length = len(payload) + (len(protocol.head_of(headers)) if headers else 0)
        if length > connection.info.max_payload:
            what = f"{connection.address} takes messages of at most {connection.info.max_payload} bytes (max_payload)"
            remedy = f"Write max_payload: {limits.FRAME_WANTED_BYTES // 2**20}MB or more into nats-server.conf."
            raise StreamRefused(f"{what}, and one of {length} has to be sent.", key="max_payload", remedy=remedy)
        self._asked += 1
        question = self._questions[self._asked] = Question(self, connection, self._asked, subject)
        reply = f"{self._inbox}.{self._asked}"
        connection.send_nowait(protocol.publish(subject, payload, reply=reply, headers=headers))
        return question

    def forget(self, question: Question) -> None:
        """Expect no answer to a question any more."""
        self._questions.pop(question.number, None)

    def note_majority(self) -> None:
        """Note an answer that only a majority of the servers can give."""
        self._silences = 0

    def note_silence(self, asked_at: float) -> None:
        """Note that a request of this time has no answer, or one that is none. Leave the server if that goes on."""
        connection = self._connection
        if connection is None or asked_at < self._connected_at:
            return
        if not self._silences or asked_at > self._silent_since + limits.UNANSWERED_FORGOTTEN_SECONDS:
            self._silences, self._silent_since = 0, asked_at
        self._silences += 1
        lasts_s = trio.current_time() - self._silent_since
        if self._silences >= limits.UNANSWERED_MAX and lasts_s >= limits.UNANSWERED_SECONDS:
            connection.cut(f"it left {self._silences} requests without an answer in {lasts_s:.1f} s")

    async def wait_connected(self) -> None:
        """Wait for the first connection. Raises `StreamRefused` and `Unanswered`."""
        try:
            await self._connected("a start", trio.current_time() + limits.OPEN_SECONDS)
        except Unanswered:
            if self._refusals:
                raise next(iter(self._refusals.values())) from None
            raise

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a connection, until cancelled."""
        task_status.started()
        # Nodes with the same list should not all burden the same server.
        place, attempts = int(self._uniform(0, len(self._addresses))) % len(self._addresses), 0
        while True:
            lived_s = await self._try(place)
            place = (place + 1) % len(self._addresses)
            attempts = 1 if lived_s >= limits.UNANSWERED_SECONDS else attempts + 1
            rounds = attempts // len(self._addresses)
            bound = min(limits.RETRY_SECONDS_MAX, limits.RETRY_SECONDS * 2.0 ** min(rounds, 32)) if rounds else 0.0
            await trio.sleep(self._uniform(0.0, bound))

    async def _try(self, place: int) -> float:
        """Connect to a server, and use it until it is lost. Give the seconds that it was used."""
        address = self._addresses[place]
        try:
            connection = await connect(address, self.options, name=self.name, check=self._check)
        except (StreamRefused, ConnectionLost) as error:
            if self._told.get(place) != str(error):
                self._told[place] = str(error)
                self._tell.warning("quorum_server_unreachable", server=str(address), why=str(error))
            self._refusals.pop(place, None)
            if isinstance(error, StreamRefused):
                self._refusals[place] = error
            self._tell_changed()
            return 0.0
        self._told.clear()
        self._refusals.clear()
        self._forbidden, self._silences = None, 0
        for sid, (subject, _) in enumerate(self._subscriptions, 1):
            connection.send_nowait(protocol.subscribe(subject, sid))
        self._connection, self._connected_at = connection, trio.current_time()
        self._tell.info("quorum_server_connected", server=str(address), version=connection.info.version)
        self._tell_changed()
        try:
            await connection.run(self._take)
        except ConnectionLost as lost:
            self._tell.warning("quorum_server_lost", server=str(address), why=str(lost))
            self._lose(connection, str(lost))
        return trio.current_time() - self._connected_at

    def _lose(self, connection: Connection, why: str) -> None:
        """End all questions of a connection."""
        self._connection = None
        for question in list(self._questions.values()):
            if question.connection is connection:
                question.end(Unanswered(f"the connection to {connection.address} was lost: {why}"))
        self._tell_changed()

    async def _connected(self, subject: str, deadline: float) -> Connection:
        """Wait for a connection until a time."""
        with trio.move_on_at(deadline):
            while (self._connection is None or self._connection.is_cut) and not self._is_refused:
                await self._changed.wait()
        if self._connection is not None and not self._connection.is_cut:
            return self._connection
        if self._is_refused:
            raise next(iter(self._refusals.values()))
        why = "; ".join(f"{self._addresses[place]}: {told}" for place, told in sorted(self._told.items()))
        raise Unanswered(f"no server of NATS can be reached for {subject} ({why or 'none has answered yet'})")

    @property
    def _is_refused(self) -> bool:
        """Whether no server at all lets us in."""
        return len(self._refusals) == len(self._addresses)

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _take(self, event: Message | Error) -> None:
        """Take what came: a message to whoever has subscribed to it, or what we may not do."""
        if isinstance(event, Message):
            if 0 < event.sid <= len(self._subscriptions):
                self._subscriptions[event.sid - 1][1](event)
            return
        refused = self._refusal(event.text)
        self._tell.error("quorum_permission_missing", server=self.server, why=str(refused))
        violated = _PERMISSION.search(event.text)
        if violated and violated[1].casefold() == "publish":
            for question in list(self._questions.values()):
                if question.subject == violated[2]:
                    question.end(refused)
            return
        # Whether it is the answers that we may not hear or the words: without either a node can't do its work.
        self._forbidden = refused
        for question in list(self._questions.values()):
            question.end(refused)

    def _refusal(self, text: str) -> StreamRefused:
        remedy = "Permit it to our user in nats-server.conf."
        return StreamRefused(f"{self.server} says: {text}.", key="permissions", remedy=remedy)

    def _answer(self, message: Message) -> None:
        """Take an answer from the inbox. One that nobody waits for any more is dropped."""
        with suppress(ValueError, KeyError):
            self._questions[int(message.subject.removeprefix(f"{self._inbox}."))].end(message)


@asynccontextmanager
async def opened(
    options: NatsOptions, *, name: str, uniform: Uniform, check: Check | None = None
) -> AsyncIterator[NatsClient]:
    """Run a client as long as the context lasts. Servers that `check` refuses are not used.

    Raises `StreamRefused` and `Unanswered`; see above.
    """
    client = NatsClient(options, name=name, uniform=uniform, check=check)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        try:
            await client.wait_connected()
            yield client
        except Exception as error:  # it leaves as it is, not in the nursery's group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
