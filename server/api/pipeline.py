"""From a `Request` to a `Response`, whichever lane it came in by. The one place where a request is let in, and where
whatever goes wrong with it becomes an answer.

    find the route → who is it, may they → the route's handler → headers that every answer has → count, tell

Rules:
- `answer` never raises, but for cancellation. A refusal is an answer; so is a fault of our own, which tells the client
  nothing but the request id under which the log has the stack.
- What a client may do hangs on the scopes of its token and on the route, both looked at here; whom it may do it for is
  the handler's business, which alone knows the user.
- Reads are public unless the configuration says otherwise; then a token is needed, and one that may write may read.
- Pages of other sites (CORS) may read what is public, if their origin is on the live channel's list. They can never
  write: tokens for writing have no place in a browser, so no preflight ever allows a POST or a PUT.
- It knows nothing of any HTTP server: bytes in, bytes out.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import msgspec

from engine.errors import LeaderDeposed, OutcomeUnknown, Overloaded
from server import bounds
from server.access.auth import Principal, require
from server.api.dependencies import ANYBODY, Parts
from server.api.operations import Operations
from server.api.reads import Reads
from server.api.routes import READS, WRITES, Route, allowed, find
from server.api.writes import Writes
from server.http.messages import Details, Headers, Refused, Request, Response, error

Handler = Callable[[Request, Principal], Awaitable[Response]]

UNMATCHED = "unmatched"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,64}")
_TOLD_WHERE_CAUGHT = ("INTERNAL_ERROR", "OUTCOME_UNKNOWN")
_RETRY_AFTER = str(bounds.RETRY_AFTER_SECONDS)


class _Visit:
    """One request on its way: what was found out about it so far."""

    __slots__ = ("caller", "details", "request", "route")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.route: Route | None = None
        self.caller: Principal = ANYBODY
        self.details: Details = {}


class Service:
    """Answers requests. One for the whole process; `answer` runs concurrently with itself."""

    def __init__(self, parts: Parts) -> None:
        self._authenticator = parts.authenticator
        self._public_reads = parts.public_reads
        self._origins = parts.origins
        self._standing = parts.standing
        self._scoreboard = parts.writer.scoreboard
        self._metrics = parts.metrics
        self._audit = parts.audit
        self._clock_s = parts.clock_s
        self._new_request_id = parts.new_request_id
        self.writes, self.reads = writes, reads = Writes(parts), Reads(parts)
        operations = Operations(parts)
        self._handlers: dict[str, Handler] = {
            "increment": writes.increment,
            "increment_batch": writes.increment_batch,
            "put_user": writes.put_user,
            "top": reads.top,
            "score": reads.score,
            "around": reads.around,
            "action": reads.action,
            "live": operations.live,
            "promote": operations.promote,
            "healthz": operations.healthz,
            "readyz": operations.readyz,
            "metrics": operations.metrics,
            "openapi": operations.openapi,
            "docs": operations.docs,
            "index": operations.index,
        }

    async def answer(self, request: Request, lane: str) -> Response:
        """Answer one request. `lane` says how it came in, for the metrics."""
        began_s = self._clock_s()
        visit = self._begin(request)
        response = await self._guarded(visit)
        path = visit.route.path if visit.route is not None else UNMATCHED
        self._metrics.request(path, lane, self._clock_s() - began_s)
        return self._finish(visit, response)

    def refuse(self, request: Request, refused: Refused) -> Response:
        """Answer a request that its lane could not take in as a whole, such as one with too long a body."""
        visit = self._begin(request)
        visit.details = refused.details
        return self._finish(visit, refused.response())

    def fault(self, request: Request, route: Route, caller: Principal, error: Exception) -> Response:
        """Answer a request of which a part was done elsewhere, and failed there."""
        visit = self._begin(request)
        visit.route, visit.caller = route, caller
        return self._finish(visit, self._answer_to(visit, error))

    def _begin(self, request: Request) -> _Visit:
        return _Visit(msgspec.structs.replace(request, request_id=self.request_id(request)))

    def request_id(self, request: Request) -> str:
        """Give the id that the request came with, or a new one."""
        request_id = request.headers.get("x-request-id", "")
        return request_id if _REQUEST_ID.fullmatch(request_id) else self._new_request_id()

    def _finish(self, visit: _Visit, response: Response) -> Response:
        """Add the headers that every answer has; count an error, and tell of one that is the caller's."""
        if response.code is not None:
            self._metrics.failed(response.code)
            if response.code not in _TOLD_WHERE_CAUGHT:
                self._audit.refused(visit.request, response, visit.details, visit.caller.sub or None)
        request_id = ("x-request-id", visit.request.request_id)
        lag = self._standing.lag_headers() if _is_read(visit) else ()
        headers = (*response.headers, *lag, request_id, *self._cross_origin(visit))
        return msgspec.structs.replace(response, headers=headers, omit_body=visit.request.method == "HEAD")

    async def _guarded(self, visit: _Visit) -> Response:
        """Handle a request; whatever it raises becomes an answer here."""
        try:
            return await self._handle(visit)
        except Exception as error:  # the last line of defence: a bug must cost one answer, not the process
            return self._answer_to(visit, error)

    def _answer_to(self, visit: _Visit, fault: Exception) -> Response:
        """Make an answer of what went wrong."""
        if isinstance(fault, LeaderDeposed):
            fault = self._standing.deposed()
        if isinstance(fault, Refused):
            visit.details = fault.details
            return fault.response()
        if isinstance(fault, Overloaded):
            message = f"Nothing was done, because {fault}. Try again later."
            return error(503, "OVERLOADED", message, headers=(("retry-after", str(fault.retry_after)),))
        if isinstance(fault, OutcomeUnknown):
            self._audit.outcome_unknown(visit.request, visit.caller.sub or None)
            message = "It is not known whether this was applied. Send it again as it is, with the same actionId."
            return error(503, "OUTCOME_UNKNOWN", message, headers=(("retry-after", _RETRY_AFTER),))
        self._audit.fault(visit.request, fault)
        details = {"requestId": visit.request.request_id}
        return error(500, "INTERNAL_ERROR", "Something went wrong on our side.", details)

    async def _handle(self, visit: _Visit) -> Response:
        request = visit.request
        methods, path_params = find(request.path)
        if request.method == "OPTIONS":
            return self._options(request, methods)
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            headers = (("allow", allowed(methods)),)
            raise Refused(405, "METHOD_NOT_ALLOWED", f"Allowed here: {allowed(methods)}.", headers=headers)
        visit.route = route
        if path_params:
            request = visit.request = msgspec.structs.replace(request, path_params=path_params)
        if route.scopes and not (route.public_read and self._public_reads):
            caller = await self._authenticator.authenticate(request.headers.get("authorization"))
            if isinstance(caller, Response):
                return caller
            visit.caller = caller
            lacking = require(caller, route.scopes)
            if lacking is not None:
                return lacking.response()
        if route.handler in WRITES:
            self._standing.check_write(request)
        elif route.handler in READS:
            self._standing.check_read()
            await self._standing.wait_position(request, self._scoreboard)
        return await self._handlers[route.handler](request, visit.caller)

    def _options(self, request: Request, methods: dict[str, Route]) -> Response:
        """Say what is allowed; to a browser also what a page of another site may send."""
        headers: Headers = (("allow", allowed(methods)),)
        get = methods.get("GET")
        wanted = request.headers.get("access-control-request-method")
        if wanted in ("GET", "HEAD") and get is not None and get.public_read:
            headers += (
                ("access-control-allow-methods", "GET, HEAD"),
                ("access-control-allow-headers", "authorization, if-none-match, x-request-id"),
                ("access-control-max-age", str(bounds.PREFLIGHT_SECONDS)),
                *self._origin_headers(request),
            )
        return Response(204, headers=headers)

    def _cross_origin(self, visit: _Visit) -> Headers:
        return () if visit.route is None else self.cross_origin(visit.route, visit.request)

    def cross_origin(self, route: Route, request: Request) -> Headers:
        """Let pages of allowed origins read the answer, if it is one to a public read."""
        if not route.public_read:
            return ()
        exposed = (
            "access-control-expose-headers",
            "etag, retry-after, x-request-id, x-scoreboard-lag-ms, x-scoreboard-lag-records",
        )
        return (*self._origin_headers(request), exposed)

    def _origin_headers(self, request: Request) -> Headers:
        if self._origins is None:
            return (("access-control-allow-origin", "*"),)
        origin = request.headers.get("origin", "")
        if origin.lower() in self._origins:
            return (("access-control-allow-origin", origin), ("vary", "Origin"))
        return (("vary", "Origin"),)


def _is_read(visit: _Visit) -> bool:
    """Tell whether the answer to a request is to tell the lag.

    One that was refused before its route was found counts as a read if it reads anything: nobody knows what it wanted.
    """
    return visit.request.method in ("GET", "HEAD") if visit.route is None else visit.route.handler in READS
