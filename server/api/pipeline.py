"""The path of every request, in all lanes: admit → submit → render.

    answer(request, lane)        all steps, for a lane that takes one request after another

    recognise(request) → Head    what depends on the head alone: route, role, token, query. A lane may remember it
    holds(head)                  whether a remembered head is still true
    admit(callers and bodies)    form, whose points, limits: a command for each, or what is wrong
    submit(commands, when_done)  commands of many requests as one message to the actor
    render(head, outcome)        the answer to an increment
    top(head)                    the answer to a read, without waiting
    wire(head, response, end)    the answer as bytes

`answer` takes these steps too: both ways call `Increments.admit` and `Increments.render`, and ask the same checks.

Rules:
- `answer`, `refuse` and `failed` never raise, except for cancellation. A refusal is an answer. A bug is answered with
  the request id alone, under which the log has the stack.
- A `Head` has the generations of its token's keys, of the role and of the settings. It holds while all are unchanged:
  a change of the role makes every remembered head void.
- `recognise` gives None where something is wrong, or must be waited for. `answer` then says what is wrong.
- Scopes, route and role decide what a client may do. They are checked here. For which user it may act, the handlers
  check.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import msgspec
import trio

from engine.actor import Senders, Submission, WhenDone
from engine.commands import Command, Increment, Outcome, Receipt, Rejection
from engine.errors import DiskFull, FrameTooLong, LeaderDeposed, OutcomeUnknown, Overloaded
from server.access.auth import ANYBODY, Principal, require
from server.api.boards import Boards
from server.api.cross_origin import CrossOrigin
from server.api.decoding import check_content
from server.api.dependencies import Dependencies
from server.api.handlers import Handler, handlers_of
from server.api.increments import Increments
from server.api.reads import Reads, Top
from server.api.refusals import not_taken
from server.api.routes import BOARD_CHANGES, BY_QUERY, EXPRESS, FIXED, ROUTES, Route, allowed, find
from server.api.showing import Showing
from server.api.users import Users
from server.api.views import is_plain_top
from server.http.messages import RETRY_SOON, Details, Headers, Refused, Request, Response, disk_full, error
from server.http.response_head import http_bytes
from server.http.target import check_query, ids_of
from server.settings.config import Config

UNMATCHED = "unmatched"
_UNKNOWN = "It is not known whether this was applied. Send it again as it is, with the same actionId."
_UNKNOWN_BOARD = "It is not known whether this was applied. Send it again as it is, but name the period of a reset."
_ID = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,64}")
_TOLD_WHERE_CAUGHT = ("INTERNAL_ERROR", "OUTCOME_UNKNOWN")


class Head(msgspec.Struct, frozen=True):
    """What the head of a request says. `request` has no body, no address and no token.

    `top` is None for an increment. `lines` are header lines of every answer; `has_id`: the request's id is among them.
    """

    route: Route
    request: Request
    caller: Principal
    key_generation: int
    role_generation: int
    settings_generation: int
    top: Top | None
    lines: bytes
    has_id: bool


class _Visit(msgspec.Struct):
    """One request in progress."""

    request: Request
    route: Route | None = None
    caller: Principal = ANYBODY
    details: Details = {}


class Pipeline:
    """Answers requests. One for a node; `answer` runs concurrently with itself."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._authenticator = dependencies.authenticator
        self._public_reads = dependencies.public_reads
        self._cross_origin = CrossOrigin(dependencies.origins)
        self._role = dependencies.role
        self._checks = dependencies.checks
        self._positions, self._writer = dependencies.positions, dependencies.writer
        self._metrics = dependencies.metrics
        self._audit = dependencies.audit
        self._clock_s = dependencies.clock_s
        self._request_ids = dependencies.request_ids
        self._limits = dependencies.limits
        self._settings_generation = 0
        self._increments = Increments(dependencies, dependencies.limits)
        self._users = Users(dependencies, dependencies.limits)
        self._boards = Boards(dependencies, dependencies.limits)
        self._reads = Reads(dependencies)
        self._showing = Showing(dependencies)
        handlers: dict[str, Handler] = {
            "increment": self._increment,
            "increment_batch": self._increment_batch,
            "put_user": self._put_user,
            **handlers_of(dependencies, self._boards, self._reads, self._submit),
            **self._showing.handlers(),
            **dict.fromkeys(BOARD_CHANGES, self._change_board),
        }
        self._handlers = {route.handler: handlers[route.handler.removesuffix(BY_QUERY)] for route in ROUTES}

    # All steps

    async def answer(self, request: Request, lane: str) -> Response:
        """Answer one request. `lane` says how it came in, for the metrics."""
        began_s = self._clock_s()
        visit = self._begin(request)
        try:
            response = await self._pass(visit)
        except Exception as error:  # a bug must cost one answer, not the process
            response = self._answer_to(visit, error)
        path = visit.route.path if visit.route is not None else UNMATCHED
        self._metrics.request(path, lane, self._clock_s() - began_s)
        return self._finish(visit, response)

    def refuse(self, request: Request, refused: Refused) -> Response:
        """Answer a request that its lane could not read completely, such as one with too long a body."""
        visit = self._begin(request)
        visit.details = refused.details
        return self._finish(visit, refused.response())

    async def _pass(self, visit: _Visit) -> Response:
        request = visit.request
        fixed = FIXED.get(request.path)
        methods, path_params = (fixed, {}) if fixed is not None else find(request.path, request.query)
        if request.method == "OPTIONS":
            return self._cross_origin.options(request, methods)
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            headers = (("allow", allowed(methods)),)
            raise Refused(405, "METHOD_NOT_ALLOWED", f"Allowed here: {allowed(methods)}.", headers=headers)
        visit.route = route
        if self._needs_token(route):
            caller = await self._authenticator.authenticate(request.headers.get("authorization"))
            if isinstance(caller, Response):
                return caller
            visit.caller = caller
            lacking = require(caller, route.scopes)
            if lacking is not None:
                return lacking.response()
        _check_query(route, request)
        if route.ids:
            path_params = ids_of(request.query, route.ids)
        if path_params:
            request = visit.request = msgspec.structs.replace(request, path_params=path_params)
        self._check_role(route, request)
        if route.shows_state:
            await self._positions.wait(request.query)
        return await self._handlers[route.handler](request, visit.caller)

    async def _increment(self, request: Request, caller: Principal) -> Response:
        check_content(request)
        [command] = self._increments.admit([(caller, request.body)], self._clock_s())
        if isinstance(command, Exception):
            raise command
        [outcome] = await self._submit([command])
        return self._increments.render(outcome, caller)

    async def _increment_batch(self, request: Request, caller: Principal) -> Response:
        admitted = self._increments.admit_batch(request, caller)
        outcomes = await self._submit(admitted.commands) if admitted.commands else []
        return self._increments.render_batch(admitted, outcomes, request, caller)

    async def _put_user(self, request: Request, caller: Principal) -> Response:
        command = self._users.admit(request, caller)
        [outcome] = await self._submit([command])
        return self._users.render(outcome)

    async def _change_board(self, request: Request, caller: Principal) -> Response:
        admitted = self._boards.admit(request, caller)
        [outcome] = await self._submit([admitted.command])
        return self._boards.render(admitted, outcome, caller)

    async def _submit(self, commands: Sequence[Command]) -> list[Outcome]:
        done = trio.Event()
        submissions: list[Submission] = []

        def when_done(submission: Submission) -> None:
            submissions.append(submission)
            done.set()

        self.submit(commands, when_done)
        await done.wait()
        [submission] = submissions
        if submission.error is not None:
            if isinstance(submission.error, OutcomeUnknown):
                self.count_unknown(len(commands))
            raise submission.error
        self.count(submission.outcomes)
        return submission.outcomes

    # The steps, for a lane that serves many connections in one task. All are synchronous.

    def recognise(self, request: Request) -> Head | None:
        """Read a head of the express lane; None for a head that must take all steps."""
        route = EXPRESS.get((request.method, request.path))
        if route is None:
            return None
        caller, keys, role = ANYBODY, self._authenticator.generation, self._role.now.generation
        if self._needs_token(route):
            recalled = self._authenticator.recall(request.headers.get("authorization"))
            if recalled is None or not recalled.may(route.scopes):
                return None
            caller = recalled
        top = None
        try:
            _check_query(route, request)
            self._check_role(route, request)
            if route.handler == "top" and is_plain_top(request.query):
                top = self._reads.top_of(request, caller)
                if top is None:
                    return None
            elif route.handler == "increment":
                check_content(request)
            else:
                return None
        except Refused:
            return None
        # Without the token: whoever remembers a head knows the token by its digest.
        headers = {name: value for name, value in request.headers.items() if name != "authorization"}
        kept = msgspec.structs.replace(request, headers=headers, body=b"", address="")
        sent_id = self._request_id(request)
        has_id = request.headers.get(_ID) == sent_id
        lines: Headers = ((_ID, sent_id),) if has_id else ()
        if route.public_read:
            lines += self._cross_origin.headers(request)
        return Head(route, kept, caller, keys, role, self._settings_generation, top, _lines(lines), has_id)

    def holds(self, head: Head) -> bool:
        """Whether the token, the role and the settings of a head are unchanged."""
        if head.role_generation != self._role.latest.generation:
            return False
        if head.settings_generation != self._settings_generation:
            return False
        return head.caller is ANYBODY or self._authenticator.is_current(head.caller, head.key_generation)

    def reload(self, config: Config) -> None:
        """Take the limits and the origins of another configuration. Each remembered head is void."""
        self._limits.change(config.limits.caller_per_minute, config.limits.user_per_minute)
        self._cross_origin.change(config.live.origins)
        self._showing.reload(config.live.frame_ancestors)
        self._settings_generation += 1

    def now_s(self) -> float:
        """The time for `admit` and `took`. It never goes back."""
        return self._clock_s()

    def admit(self, asked: Sequence[tuple[Principal, bytes]], now_s: float) -> list[Increment | Exception]:
        """Make the commands of increments, by caller and body, and charge the limits.

        An error stands in the place of a command.
        """
        return self._increments.admit(asked, now_s)

    def submit(self, commands: Sequence[Command], when_done: WhenDone, senders: Senders = ()) -> None:
        """Hand admitted commands to the actor, as its `submit_nowait`. Raises `Overloaded`, `LeaderDeposed`."""

        def ended(submission: Submission) -> None:
            self._increments.end(submission.commands)
            when_done(submission)

        try:
            self._writer.submit_nowait(commands, ended, senders)
        except BaseException:
            self._increments.end(commands)
            raise

    def render(self, head: Head, outcome: Outcome) -> Response:
        """Answer an increment. Raises `Refused`."""
        return self._increments.render(outcome, head.caller)

    def top(self, head: Head) -> Response:
        """Answer with the first rows of a board, or 304."""
        assert head.top is not None
        return self._reads.render_top(head.top, head.request.headers.get("if-none-match"))

    def wire(self, head: Head, response: Response, end: bytes) -> bytes:
        """Give an answer as bytes. `end` is the end of its head (`server.http.response_head`)."""
        lag = b""
        if head.top is not None and self._role.latest.state.is_replica:
            lag = _lines(self._checks.lag_headers())
        if head.has_id:
            return http_bytes(response, end, lag, head.lines)
        return http_bytes(response, end, lag, b"x-request-id: ", next(self._request_ids).encode(), b"\r\n", head.lines)

    def failed(self, head: Head, error: Exception, address: str, end: bytes) -> bytes:
        """Answer a request that met an error. The result is as from `wire`."""
        visit = self._begin(msgspec.structs.replace(head.request, address=address))
        visit.route, visit.caller = head.route, head.caller
        return http_bytes(self._finish(visit, self._answer_to(visit, error)), end)

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """Count commands by outcome."""
        applied = sum(1 for outcome in outcomes if type(outcome) is Receipt and outcome.applied)
        if applied:
            self._metrics.update("applied", applied)
        if applied < len(outcomes):
            others = (outcome for outcome in outcomes if type(outcome) is not Receipt or not outcome.applied)
            for result, count in Counter(map(_result, others)).items():
                self._metrics.update(result, count)

    def count_unknown(self, count: int) -> None:
        """Count commands that may or may not be durable."""
        self._metrics.update("unknown", count)

    def took(self, route: Route, lane: str, since_s: float, count: int) -> None:
        """Count requests that took the same time."""
        self._metrics.request(route.path, lane, self._clock_s() - since_s, count)

    # What both share

    def _needs_token(self, route: Route) -> bool:
        return bool(route.scopes) and not (route.public_read and self._public_reads)

    def _check_role(self, route: Route, request: Request) -> None:
        state = self._role.latest.state
        if route.writes and not state.takes_writes:
            self._checks.check_write(request)
        elif route.shows_state and not state.vouches:
            self._checks.check_read()

    def _begin(self, request: Request) -> _Visit:
        return _Visit(msgspec.structs.replace(request, request_id=self._request_id(request)))

    def _request_id(self, request: Request) -> str:
        request_id = request.headers.get(_ID, "")
        return request_id if _REQUEST_ID.fullmatch(request_id) else next(self._request_ids)

    def _finish(self, visit: _Visit, response: Response) -> Response:
        """Add the headers that every answer has. Count an error; log it if it is the caller's."""
        if response.code is not None:
            self._metrics.failed(response.code)
            if response.code not in _TOLD_WHERE_CAUGHT:
                self._audit.refused(visit.request, response, visit.details, visit.caller.sub or None)
        lag = self._checks.lag_headers() if _shows_state(visit) else ()
        route = visit.route
        headers = (*response.headers, *lag, (_ID, visit.request.request_id))
        if route is not None and route.public_read:
            headers = self._cross_origin.add(headers, visit.request)
        return msgspec.structs.replace(response, headers=headers, omit_body=visit.request.method == "HEAD")

    def _answer_to(self, visit: _Visit, fault: Exception) -> Response:
        if isinstance(fault, LeaderDeposed):
            fault = self._checks.not_leader()
        if isinstance(fault, Overloaded | FrameTooLong):
            fault = not_taken(fault)
        if isinstance(fault, DiskFull):
            fault = disk_full()
        if isinstance(fault, Refused):
            visit.details = fault.details
            return fault.response()
        if isinstance(fault, OutcomeUnknown):
            self._audit.outcome_unknown(visit.request, visit.caller.sub or None)
            message = _UNKNOWN_BOARD if visit.request.path.startswith("/boards") else _UNKNOWN
            return error(503, "OUTCOME_UNKNOWN", message, headers=RETRY_SOON)
        self._audit.fault(visit.request, fault)
        details = {"requestId": visit.request.request_id}
        return error(500, "INTERNAL_ERROR", "Something went wrong on our side.", details)


def _check_query(route: Route, request: Request) -> None:
    if request.query and route.query is not None:
        check_query(request.query, route.query)


def _lines(headers: Headers) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")


def _result(outcome: Outcome) -> str:
    if isinstance(outcome, Rejection):
        return "refused"
    if outcome.applied:
        return "applied"
    return "duplicate" if isinstance(outcome, Receipt) else "unchanged"


def _shows_state(visit: _Visit) -> bool:
    """Whether the answer tells the lag. A request without a route counts as a read if its method is GET or HEAD."""
    return visit.request.method in ("GET", "HEAD") if visit.route is None else visit.route.shows_state
