"""The hot routes in steps, for a lane that serves many connections in one task: increments, and the top of a board.

    prepare(head) → Prepared | None        once for each head that callers send: route, token, scope, query
    begin(prepared, body) → command        form, whose points, limits; raises what went wrong
    submit(commands, when_done)            many callers' commands as one message to the actor
    end(prepared, outcome) → answer        also for what was raised: `failed`
    top(prepared) → answer                 nothing to wait for

The steps are the ones that `Service.answer` takes, by the same functions; so an answer is the same, whoever called.

Rules:
- What depends on the head alone is found out once and kept by the caller. Callers send the same head again and again,
  and most of what a request costs is in its head.
- `prepare` only says yes. Whatever is amiss, or has to be waited for (a token that is not remembered), gives None, and
  the request goes the ordinary way, which says what is wrong.
- A `Prepared` holds no more than the token that it was made with: not past its `exp`, not beyond a withdrawn key.
- An answer is a head without its end, and a body: what is said of the connection is the lane's to add.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from engine.actor import Submission
from engine.commands import Command, Increment, Outcome
from server.access.auth import Principal
from server.api.decoding import check_content
from server.api.dependencies import ANYBODY, Parts
from server.api.pipeline import Service
from server.api.reads import KeptTop
from server.api.routes import Route, find
from server.api.writes import HEADERS
from server.http.messages import JSON, Refused, Request, Response, etag_matches, http_head

Answer = tuple[bytes, bytes]
"""The head of an answer as far as the service makes it (`protocol.http_head`), and its body."""

_INCREMENT, _TOP = "/scores/increment", "/scoreboard/top"
_REQUEST_ID = "x-request-id"


class Prepared(msgspec.Struct, frozen=True):
    """What the head of a request says. `request` has no body and no address; `top` is None for an increment.

    `head_rest`: header lines that every answer to this head has, the request's own id among them if it came with one.
    """

    route: Route
    request: Request
    caller: Principal
    generation: int
    head_rest: bytes
    has_id: bool
    top: tuple[str, int] | None


class Hot:
    """One for the whole process. All of it is synchronous."""

    def __init__(self, service: Service, parts: Parts) -> None:
        self._service = service
        self._authenticator = parts.authenticator
        self._public_reads = parts.public_reads
        self._writer = parts.writer
        self._standing = parts.standing
        self._metrics = parts.metrics
        self._clock_s = parts.clock_s
        self._new_request_id = parts.new_request_id
        before, after = http_head(Response(200, b"", JSON, HEADERS)).split(b"content-length: 0")
        self._increment_head = (before + b"content-length: ", after)

    def prepare(self, request: Request) -> Prepared | None:
        """Find out all that a head says; None for one that is not hot, or not simply good."""
        hot = (request.method, request.path) in (("POST", _INCREMENT), ("GET", _TOP))
        route = find(request.path)[0].get(request.method) if hot else None
        if route is None or not self._takes(request):
            return None
        caller, generation = ANYBODY, self._authenticator.generation
        if not (route.public_read and self._public_reads):
            recalled = self._authenticator.recall(request.headers.get("authorization"))
            if recalled is None or not recalled.may(route.scopes):
                return None
            caller = recalled
        top = None
        try:
            if route.path == _TOP:
                top = self._service.reads.top_of(request)
            else:
                check_content(request)
        except Refused:
            return None
        # The token is not kept: a digest stands for it wherever it is remembered.
        headers = {name: value for name, value in request.headers.items() if name != "authorization"}
        kept = msgspec.structs.replace(request, headers=headers, body=b"", address="")
        sent_id = self._service.request_id(request)
        has_id = request.headers.get(_REQUEST_ID) == sent_id
        rest = [(_REQUEST_ID, sent_id)] if has_id else []
        rest += self._service.cross_origin(route, request)
        head_rest = "".join(f"{name}: {value}\r\n" for name, value in rest).encode("latin-1")
        return Prepared(route, kept, caller, generation, head_rest, has_id, top)

    def is_current(self, prepared: Prepared) -> bool:
        """Whether the token of a head still holds."""
        return prepared.caller is ANYBODY or self._authenticator.is_current(prepared.caller, prepared.generation)

    def now_s(self) -> float:
        """The time for `begin` and `took`; never goes back."""
        return self._clock_s()

    def begin(self, prepared: Prepared, body: bytes, now_s: float) -> Increment:
        """Check the body of an increment and charge the limits. Raises `Refused`."""
        return self._service.writes.admit(body, prepared.caller, now_s)

    def submit(self, commands: Sequence[Command], when_done: Callable[[Submission], None]) -> None:
        """Hand commands to the actor. Raises `Overloaded`."""
        self._writer.submit_nowait(commands, when_done)

    def end(self, prepared: Prepared, outcome: Outcome) -> Answer:
        """Answer an increment by what came of it. Raises `Refused`."""
        body = self._service.writes.receipt(outcome, prepared.caller.sub)
        before, after = self._increment_head
        return b"%b%d%b%b" % (before, len(body), after, self._rest(prepared)), body

    def top(self, prepared: Prepared) -> Answer:
        """Answer with the first rows of a board, or that they have not changed."""
        assert prepared.top is not None
        kept = self._service.reads.kept_top(*prepared.top)
        if not self._standing.takes_writes:
            return self._followed_top(prepared, kept)
        if etag_matches(prepared.request.headers.get("if-none-match"), kept.etag):
            return kept.not_modified_head + self._rest(prepared), b""
        return kept.full_head + self._rest(prepared), kept.full.body

    def _takes(self, request: Request) -> bool:
        """Whether a request may be hot at all: writes are a leader's, and who asks for a position may have to wait."""
        if request.path == _INCREMENT:
            return self._standing.takes_writes
        return "minSeq" not in request.query and "minEpoch" not in request.query

    def _followed_top(self, prepared: Prepared, kept: KeptTop) -> Answer:
        """The same of who does not lead: with the lag, with its age where it is stale. Raises `Refused` as a read."""
        self._standing.check_read()
        lag = "".join(f"{name}: {value}\r\n" for name, value in self._standing.lag_headers()).encode()
        age_ms = self._standing.stale_ms()
        if age_ms is not None:
            stale = self._service.reads.stale_top(kept, age_ms, prepared.request)
            return http_head(stale) + lag + self._rest(prepared), stale.body
        if etag_matches(prepared.request.headers.get("if-none-match"), kept.etag):
            return kept.not_modified_head + lag + self._rest(prepared), b""
        return kept.full_head + lag + self._rest(prepared), kept.full.body

    def failed(self, prepared: Prepared, error: Exception, address: str) -> Answer:
        """Answer a request that met an error on its way."""
        request = msgspec.structs.replace(prepared.request, address=address)
        response = self._service.fault(request, prepared.route, prepared.caller, error)
        return http_head(response), response.body

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """Count what came of increments."""
        self._service.writes.count(outcomes)

    def count_unknown(self, count: int) -> None:
        """Count increments under which the disk failed."""
        self._metrics.update("unknown", count)

    def took(self, route: str, lane: str, since_s: float, count: int) -> None:
        """Count so many requests that took as long."""
        self._metrics.request(route, lane, self._clock_s() - since_s, count)

    def _rest(self, prepared: Prepared) -> bytes:
        if prepared.has_id:
            return prepared.head_rest
        return b"%b: %b\r\n%b" % (b"x-request-id", self._new_request_id().encode(), prepared.head_rest)
