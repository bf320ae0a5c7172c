"""GET and PUT /flags/live: an operator switches the live channel off, or on again, on every node at once.

    body → command → the actor → an event, which every replica follows → the answer

Rules:
- It is for tokens with `admin`. A token that names a user may not: this concerns all users.
- The answer comes when the change is on the leader's disk. Each node obeys when it applies the event (`server.live`).
- A change stands in the log of the process, with its caller.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from engine.commands import Command, FlagReceipt, Outcome, PutFlag
from server.access.auth import Principal
from server.access.rates import WriteLimits
from server.api.decoding import check_content
from server.api.dependencies import Dependencies
from server.api.flag_forms import FlagAnswer, decode_flag, put_answer
from server.api.reads import stale_fields
from server.http.messages import JSON, NO_STORE, Refused, Request, Response
from server.live.encoding import iso_or_none

Submit = Callable[[Sequence[Command]], Awaitable[list[Outcome]]]


class FlagRoutes:
    """Answers the routes of flags. `submit` has commands decided and made durable."""

    def __init__(self, dependencies: Dependencies, limits: WriteLimits, submit: Submit) -> None:
        self._scoreboard = dependencies.scoreboard
        self._freshness = dependencies.freshness
        self._clock_s = dependencies.clock_s
        self._audit = dependencies.audit
        self._limits = limits
        self._submit = submit

    def handlers(self) -> dict[str, Callable[[Request, Principal], Awaitable[Response]]]:
        """Give the handler of each route."""
        return {"live_flag": self.read, "put_live_flag": self.put}

    async def read(self, _request: Request, _caller: Principal) -> Response:
        """Answer with the flag as this node knows it."""
        scoreboard = self._scoreboard
        since_ms = scoreboard.flags.since_ms("live")
        answer = FlagAnswer(
            flag="live", enabled=since_ms is None, since=iso_or_none(since_ms), epoch=scoreboard.epoch,
            seq=scoreboard.seq, **stale_fields(self._freshness),
        )  # fmt: skip
        return Response(200, msgspec.json.encode(answer), JSON, NO_STORE)

    async def put(self, request: Request, caller: Principal) -> Response:
        """Have the flag logged. Raises `Refused`, `Overloaded`."""
        check_content(request)
        if caller.user is not None:
            raise Refused(403, "UNAUTHORIZED", "A token that names a user may not change this.", {"field": "userId"})
        enabled = decode_flag(request.body)
        self._limits.pass_caller(caller.sub, self._clock_s())
        [outcome] = await self._submit([PutFlag("live", enabled, caller.sub)])
        assert isinstance(outcome, FlagReceipt)
        if outcome.applied:
            self._audit.flag_put(outcome, caller.sub)
        return Response(200, msgspec.json.encode(put_answer(self._scoreboard.flags, outcome)), JSON, NO_STORE)
