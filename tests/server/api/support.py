"""A pipeline on a real actor and scoreboard, with a log in memory; to be asked directly or through the Quart app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Container, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec
import pytest
import structlog
import trio
from quart_trio import QuartTrio
from structlog.typing import EventDict, WrappedLogger

from engine.actor import Actor
from engine.board_events import EndedPeriod
from engine.board_rules import Rules, rules_of_points
from engine.calendar import period_at
from engine.clock import GivenClock
from engine.commands import PutBoard
from engine.concerned import users_of
from engine.errors import DiskFull, NoLongerKept, WriteFailed
from engine.events import Event, Incremented, UserErased
from engine.ledger import Ledger
from engine.local_log import LocalLog
from engine.log import Log, Synced
from engine.machine import Applied, StateMachine
from engine.record import Frame, Tail, events_of, pack_frame, unpack_frame
from engine.scoreboard import Scoreboard
from engine.unsettled import Unsettled
from server.access.auth import MISSING, Principal
from server.access.rates import Rates, WriteLimits
from server.api.audit import Audit
from server.api.dependencies import Authenticator, Dependencies, Past, StorageState
from server.api.pages import html_page, module
from server.api.periods import NoPeriods
from server.api.pipeline import Pipeline
from server.api.positions import Positions
from server.api.role_checks import RoleChecks
from server.http.client_address import TrustedProxies
from server.http.messages import Request, Response, Stream, path_of, wire_headers
from server.lanes.quart_app import create_app
from server.live.clics import Version
from server.live.names import NameForm
from server.metrics import Metrics
from server.node.promotion import refuse_promotion
from server.replication.followers import FollowerInfo
from server.replication.freshness import Freshness, LagFigures
from server.role import CurrentRole, Role, State
from snapshots.corrected_period import Correction
from snapshots.past_ranking import PastRanking
from snapshots.period_store import PeriodStore
from snapshots.periods import write_ended
from tests.server.api.hooks_asked import OneHook
from tests.server.api.quorum_asked import OneMember
from tests.snapshots.directories import InlineDisk

RULES = rules_of_points({"main": {"ACTION_COMPLETED": 10, "WON": 100}, "weekly": {"ACTION_COMPLETED": 1}})
START_MS = 1_765_802_096_000  # 2025-12-15T12:34:56.000Z
INDEX = html_page(b"<html><style>p{}</style><script>1</script></html>")
DOCS = html_page(b"<html>docs</html>")
CONSOLE = html_page(b"<html>console</html>", private=True)
ELEMENT = module(b"export const one = 1;")
PAGES = {**dict.fromkeys(("index", "embed", "wall"), INDEX), "docs": DOCS, "console": CONSOLE, "element": ELEMENT}

both_ways = pytest.mark.parametrize("through_quart", [False, True], ids=["direct", "quart"])
"""Runs a test twice: with requests given to the pipeline directly, and sent through the Quart app."""

WRITER = "Bearer backend scores:write"
READER = "Bearer viewer scores:read"
REGISTRAR = "Bearer registry users:write"
KEEPER = "Bearer keeper boards:write"
REFEREE = "Bearer ref scores:correct"
JUDGE = "Bearer judge scores:review"
ERASER = "Bearer dpo users:erase"
ADMIN = "Bearer root admin"


class MemoryLog:
    """A log that keeps its events in memory, fails when told to, and can forget the first ones."""

    def __init__(self) -> None:
        self.blocks = False
        self.full: DiskFull | None = None
        self.events: list[Event] = []
        self.tail = Tail(log_id=bytes(16), epoch=1, seq=0, checksum=0)
        self.broken = False
        self.first_seq = 1

    def make_room(self) -> None:
        """It has room, or a test makes it."""

    def append_frame(self, expected_seq: int, data: bytes) -> Synced:
        assert expected_seq == self.tail.seq
        frame = unpack_frame(data)
        events = events_of(frame)
        if self.broken:
            raise WriteFailed("the disk is broken", path="log/1.log", seq=events[0].seq)
        self.events += events
        self.tail = Tail(self.tail.log_id, frame.epoch, frame.last_seq, frame.checksum)
        return Synced(bytes=1, seconds=0.0)

    def event_at(self, seq: int) -> tuple[Frame, Event]:
        if seq < self.first_seq:
            raise NoLongerKept(seq, self.first_seq)
        event = self.events[seq - 1]
        frame = Frame(epoch=1, first_seq=seq, time_ms=event.time_ms, count=1, previous=0, checksum=0, body=b"")
        return frame, event

    def read_from(self, seq: int) -> Iterator[Frame]:
        """Read what was appended, an event a frame."""
        if seq < self.first_seq:
            raise NoLongerKept(seq, self.first_seq)
        for event in self.events[seq - 1 :]:
            yield unpack_frame(pack_frame([event], epoch=1, previous=0))


class MemoryLedger:
    """Reads a memory log as the ledger reads a log on disk."""

    def __init__(self, log: MemoryLog, unsettled: Unsettled) -> None:
        self._log = log
        self._unsettled = unsettled

    @property
    def oldest_seq(self) -> int:
        return self._log.first_seq

    def events_of(self, user_id: str, *, before_seq: int | None = None) -> Iterator[tuple[int, Event]]:
        for event in reversed(self._log.events[max(self._log.first_seq - 1, self._unsettled.gone(user_id)) :]):
            if user_id in users_of(event) and (before_seq is None or event.seq < before_seq):
                yield 1, event

    def frames_of(self, users: Collection[str], *, from_seq: int, until_seq: int) -> Iterator[Frame]:
        """See `engine.ledger`."""
        for event, frame in zip(self._log.events[from_seq - 1 :], self._log.read_from(from_seq), strict=False):
            if event.seq <= until_seq and users_of(event) & set(users):
                yield frame


class MemoryErasing:
    """Keeps who was erased, and says when somebody waited for past periods."""

    def __init__(self) -> None:
        self.unsettled = Unsettled()
        self.within_ms = 86_400_000
        self.waited = 0

    async def known(self) -> None:
        """See `Erasing`."""

    async def hidden(self) -> None:
        self.waited += 1


T = TypeVar("T")


class Kept:
    """Past periods whose files are written at once, and read with the scoreboard's own code."""

    def __init__(self, directory: Path, log_id: bytes) -> None:
        self.store = PeriodStore(InlineDisk(), str(directory))
        self.busy: Exception | None = None
        self._log_id = log_id

    def take(self, ended: EndedPeriod) -> None:
        if ended.past.count:
            write_ended(self.store, ended, self._log_id)

    async def read(self, seq: int, work: Callable[[PastRanking], T], /, correction: Correction | None = None) -> T:
        """See `PeriodReader`."""
        if self.busy is not None:
            raise self.busy
        if correction is not None:
            return work(self.store.open_corrected(seq, correction))
        return work(self.store.open(seq))

    def file(self, seq: int) -> Path:
        return Path(self.store.path(seq))


class Tokens:
    """Believes a token that says who it is: `Bearer NAME SCOPE,SCOPE [USER]`."""

    def __init__(self) -> None:
        self.generation = 1

    async def authenticate(self, authorization: str | None) -> Principal | Response:
        return self.recall(authorization) or MISSING.response()

    def recall(self, authorization: str | None) -> Principal | None:
        if authorization is None:
            return None
        _, name, scopes, *user = authorization.split(" ")
        return Principal(name, frozenset(scopes.split(",")), user[0] if user else None, 0.0)

    def is_current(self, principal: Principal, generation: int) -> bool:
        return generation == self.generation

    def lets_stay(self, principal: Principal, *, looked: bool) -> bool:
        return looked


class Reply(msgspec.Struct):
    """What came back. Of headers that came more than once, all values."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        assert set(self.json) == {"error"}
        assert set(self.json["error"]) == {"code", "message", "details"}
        assert self.json["error"]["message"]
        code = self.json["error"]["code"]
        assert isinstance(code, str)
        return code

    @property
    def details(self) -> dict[str, Any]:
        details = self.json["error"]["details"]
        assert isinstance(details, dict)
        return details


class Sent:
    """What an ASGI application sends."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def take(self, message: Any) -> None:
        self.messages.append(message)

    @staticmethod
    async def never() -> Any:
        await trio.sleep_forever()

    @property
    def status(self) -> int:
        status = self.messages[0]["status"]
        assert isinstance(status, int)
        return status

    @property
    def reply(self) -> Reply:
        start, *parts = self.messages
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]}
        assert len(headers) == len(start["headers"])
        return Reply(self.status, headers, b"".join(part["body"] for part in parts))


async def asgi(
    app: QuartTrio,
    method: str,
    path: str,
    query: bytes = b"",
    headers: Sequence[tuple[bytes, bytes]] = (),
    body: bytes | None = b"",
) -> Sent:
    """Send a request the way an ASGI server does; without a body the client keeps it waiting.

    (Quart's own test client makes answers anew, and decodes paths.)
    """
    scope: Any = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("ascii"),
        "query_string": query,
        "root_path": "",
        "headers": list(headers),
        "client": ("192.0.2.7", 50_000),
        "server": ("127.0.0.1", 80),
        "extensions": {},
    }
    incoming: list[Any] = [] if body is None else [{"type": "http.request", "body": body, "more_body": False}]
    sent = Sent()

    async def receive() -> Any:
        return incoming.pop(0) if incoming else await Sent.never()

    await app(scope, receive, sent.take)
    return sent


class SetFreshness(Freshness):
    """Says of the lag, and of readiness, what a test sets."""

    figures: LagFigures | None = None
    reason: str | None = None

    def lag(self) -> LagFigures | None:
        """See `Freshness`."""
        return self.figures

    def not_ready(self) -> str | None:
        """See `Freshness`."""
        return self.reason or super().not_ready()


class Bench:
    """Everything around a pipeline; `ask` goes by the way that `through_quart` says."""

    def __init__(
        self,
        *,
        through_quart: bool = False,
        rules: Rules = RULES,
        public_reads: bool = True,
        names: NameForm = "shown",
        clics_version: Version = "2023-06",
        origins: Container[str] | None = None,
        per_minute: tuple[int, int] = (60_000, 600),
        real_log: Log | None = None,
        authenticator: Authenticator | None = None,
        periods: Path | None = None,
        past: Past | None = None,
        of_quorum: bool = True,
    ) -> None:
        """Keep past periods in the directory `periods`, if one is given."""
        self.applied: list[Applied] = []
        self.lines: list[dict[str, Any]] = []
        self.now_s, self.log = 100.0, MemoryLog()
        self.scoreboard = Scoreboard(rules)
        self.scoreboard.belongs_to(self.log.tail.log_id)
        log = real_log or self.log
        self.erasing, self.followers = MemoryErasing(), list[FollowerInfo]()
        self.machine = StateMachine(self.scoreboard, LocalLog(log), self._applied, self._ended)
        self.kept = None if periods is None else Kept(periods, self.log.tail.log_id)
        self.actor = Actor(self.machine, clock=GivenClock(self.clock_ms), period_at=period_at)
        self.role = CurrentRole(Role(State.LEADING), trio.current_time)
        self.freshness = SetFreshness(self.role, self.scoreboard, self.clock_ms)
        self.checks = RoleChecks(self.role, self.freshness)
        self.positions = Positions(self.scoreboard, self.checks, 5.0)
        self.metrics = Metrics()
        self.storage = StorageState(log_bytes=4096, log_segments=1, snapshot_seq=None, snapshot_ms=None)
        self.dependencies = Dependencies(
            scoreboard=self.scoreboard,
            writer=self.actor,
            log=log,
            role=self.role,
            freshness=self.freshness,
            checks=self.checks,
            positions=self.positions,
            authenticator=authenticator or Tokens(),
            limits=WriteLimits(
                Rates(per_minute[0], 1_000),
                Rates(per_minute[1], 1_000),
                Rates(per_minute[0], 1_000),
                self.metrics.rate_limited,
            ),
            metrics=self.metrics,
            audit=Audit(self._logger(), lambda: self.now_s),
            pages=dict(PAGES),
            storage=lambda: self.storage,
            public_reads=public_reads,
            names=names,
            clics_version=clics_version,
            origins=origins,
            clock_ms=self.clock_ms,
            clock_s=lambda: self.now_s,
            request_ids=map("request-{}".format, count(1)),
            followers=lambda: self.followers,
            promote=partial(refuse_promotion, self.role),
            periods=self.kept or NoPeriods(),
            past=past,
            hooks=OneHook(),
            quorum=OneMember() if of_quorum else None,
            ledger=Ledger(InlineDisk(), real_log) if real_log else MemoryLedger(self.log, self.erasing.unsettled),
            erasing=self.erasing,
        )
        self.pipeline = Pipeline(self.dependencies)
        self._quart = create_app(self.pipeline, TrustedProxies()) if through_quart else None

    def _ended(self, ended: EndedPeriod) -> None:
        if self.kept is not None:
            self.kept.take(ended)

    def _applied(self, applied: Applied) -> None:
        self.applied.append(applied)
        for event in applied.events:
            if isinstance(event, UserErased):
                self.erasing.unsettled.add(event)

    def clock_ms(self) -> int:
        return START_MS + round((self.now_s - 100.0) * 1000)

    def _logger(self) -> Any:
        def keep(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
            self.lines.append(dict(event))
            raise structlog.DropEvent

        level = structlog.make_filtering_bound_logger("debug")
        return structlog.wrap_logger(None, processors=[structlog.processors.add_log_level, keep], wrapper_class=level)

    async def ask(
        self,
        method: str,
        target: str,
        body: object = None,
        *,
        token: str | None = None,
        raw: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """Send one request; `body` is sent as JSON, `raw` as it is."""
        data = raw if body is None else msgspec.json.encode(body)
        sent = {**({"authorization": token} if token else {}), **(headers or {})}
        if self._quart is not None:
            return await self._ask_quart(method, target, data, sent)
        request = Request(method, path_of(target), target.partition("?")[2], sent, data, "192.0.2.7")
        response = await self.pipeline.answer(request, "direct")
        found = dict(wire_headers(response))
        assert len(found) == len(wire_headers(response))
        body = response.body if response.stream is None else await whole(response.stream)
        return Reply(response.status, found, b"" if response.omit_body else body)

    async def _ask_quart(self, method: str, target: str, data: bytes, headers: dict[str, str]) -> Reply:
        assert self._quart is not None
        path, _, query = target.partition("?")
        raw_headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        return (await asgi(self._quart, method, path, query.encode("ascii"), raw_headers, data)).reply

    async def log_boards(self) -> None:
        """Write the boards of the file into the log, as a start does."""
        await self.actor.submit([PutBoard(board_id, rules, "file") for board_id, rules in RULES.boards.items()])

    async def increment(self, user_id: str, action_id: str, **more: object) -> Reply:
        """Count one action, as a backend that may."""
        body = {"userId": user_id, "actionId": action_id, **more}
        return await self.ask("POST", "/scores/increment", body, token=WRITER)

    def told(self, event: str) -> list[dict[str, Any]]:
        """The lines of one kind."""
        return [line for line in self.lines if line["event"] == event]

    def logged(self) -> list[tuple[str, str, int]]:
        """What increments the log holds: action, user, points."""
        return [(one.action_id, one.user_id, one.delta) for one in self.log.events if isinstance(one, Incremented)]


async def whole(stream: Stream) -> bytes:
    """Read a stream to its end, and close it."""
    parts = []
    try:
        while part := await stream.part():
            parts.append(part)
    finally:
        stream.close()
    return b"".join(parts)


@asynccontextmanager
async def open_bench(**options: Any) -> AsyncIterator[Bench]:
    """A bench whose actor runs."""
    bench = Bench(**options)
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.actor.run)
        yield bench
        nursery.cancel_scope.cancel()
