"""The routes that change something: increments, one by one and in batches, and users.

Order of checks, each before the next may cost anything: who is it (done by the service), is the body well formed, may
this caller act for this user, are caller and user under their limits. Only then does the actor hear of it.

Rules:
- A request, or an item of a batch, that a limit refuses is not charged; one that goes to the actor is, whatever the
  actor then says of it: a flood of conflicts costs as much as a flood of increments.
- Both limits are looked at before either is charged, so being refused by one never uses up the other; the one that
  takes longer is told. A change of a user counts for its caller only.
- A batch is one submission: all of it is durable before its answer. Its items are checked in order, as if they had been
  sent one after another; what is refused leaves its neighbours alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from engine.commands import Command, Increment, Outcome, PutUser, Receipt, Rejection, UserReceipt
from engine.errors import OutcomeUnknown
from engine.limits import BATCH_COMMANDS_MAX
from server.access.auth import Principal
from server.protocol import JSON, Headers, Refused, Request, Response
from server.service.answers import batch_item_answer, increment_answer, user_answer
from server.service.decoding import IncrementBody, check_content, decode_batch, decode_increment, decode_user
from server.service.parts import Parts, Rates

_HEADERS: Headers = (("cache-control", "no-store"), ("x-content-type-options", "nosniff"))

_encode = msgspec.json.Encoder().encode


class Writes:
    """Answers to POST /scores/increment, POST /scores/increment/batch and PUT /users/{userId}."""

    def __init__(self, parts: Parts) -> None:
        self._writer = parts.writer
        self._caller_rates = parts.caller_rates
        self._user_rates = parts.user_rates
        self._clock_s = parts.clock_s
        self._metrics = parts.metrics
        self._audit = parts.audit

    async def increment(self, request: Request, caller: Principal) -> Response:
        """Count one action for one user."""
        check_content(request)
        body = decode_increment(request.body)
        _check_user(caller, body.user_id)
        self._pass_limits(caller, body.user_id, self._clock_s())
        [outcome] = await self._submit([_command(body, caller)])
        if isinstance(outcome, Rejection):
            raise _refused(outcome)
        assert isinstance(outcome, Receipt)
        self._audit.applied(outcome, caller.sub)
        return Response(200, _encode(increment_answer(outcome)), JSON, _HEADERS)

    async def increment_batch(self, request: Request, caller: Principal) -> Response:
        """Count up to BATCH_COMMANDS_MAX actions; every item has its own answer."""
        check_content(request)
        items = decode_batch(request.body, BATCH_COMMANDS_MAX)
        now_s = self._clock_s()
        checked = [self._check_item(item, caller, now_s) for item in items]
        commands: list[Command] = [item for item in checked if isinstance(item, Increment)]
        outcomes = iter(await self._submit(commands) if commands else ())
        answers: list[Any] = []
        refusals: list[Refused] = []
        for item in checked:
            answer = item if isinstance(item, Refused) else _settled(next(outcomes))
            if isinstance(answer, Refused):
                refusals.append(answer)
                answers.append(answer.item())
            else:
                self._audit.applied(answer, caller.sub)
                answers.append(batch_item_answer(answer))
        if refusals:
            self._tell_items_refused(request, refusals, caller.sub)
        return Response(200, _encode(answers), JSON, _HEADERS)

    async def put_user(self, request: Request, caller: Principal) -> Response:
        """Register a user, or change the name or whether active."""
        check_content(request)
        body = decode_user(request.body)
        user_id = request.path_params["userId"]
        _check_user(caller, user_id)
        self._pass_caller_limit(caller, self._clock_s())
        name = None if body.display_name is msgspec.UNSET else body.display_name
        active = None if body.active is msgspec.UNSET else body.active
        [outcome] = await self._submit([PutUser(user_id, name, active, caller.sub)])
        if isinstance(outcome, Rejection):
            raise _refused(outcome)
        assert isinstance(outcome, UserReceipt)
        return Response(200, _encode(user_answer(outcome)), JSON, _HEADERS)

    async def _submit(self, commands: Sequence[Command]) -> list[Outcome]:
        """Have the actor decide commands, and count what comes of each."""
        try:
            outcomes = await self._writer.submit(commands)
        except OutcomeUnknown:
            self._metrics.update("unknown", len(commands))
            raise
        if len(outcomes) == 1:  # nearly always, and several times as quick
            self._metrics.update(_result(outcomes[0]))
        else:
            for result, count in Counter(map(_result, outcomes)).items():
                self._metrics.update(result, count)
        return outcomes

    def _check_item(self, item: IncrementBody | Refused, caller: Principal, now_s: float) -> Increment | Refused:
        if isinstance(item, Refused):
            return item
        try:
            _check_user(caller, item.user_id)
            self._pass_limits(caller, item.user_id, now_s)
        except Refused as refused:
            return refused
        return _command(item, caller)

    def _pass_limits(self, caller: Principal, user_id: str, now_s: float) -> None:
        """Charge both limits, or refuse and charge none."""
        caller_wait_s = self._caller_rates.wait_s(caller.sub, now_s)
        user_wait_s = self._user_rates.wait_s(user_id, now_s)
        if caller_wait_s > 0 or user_wait_s > 0:
            if user_wait_s > caller_wait_s:
                raise self._limited("user", self._user_rates, user_wait_s, userId=user_id)
            raise self._limited("caller", self._caller_rates, caller_wait_s)
        self._caller_rates.charge(caller.sub, now_s)
        self._user_rates.charge(user_id, now_s)

    def _pass_caller_limit(self, caller: Principal, now_s: float) -> None:
        wait_s = self._caller_rates.wait_s(caller.sub, now_s)
        if wait_s > 0:
            raise self._limited("caller", self._caller_rates, wait_s)
        self._caller_rates.charge(caller.sub, now_s)

    def _limited(self, limit: str, rates: Rates, wait_s: float, **details: str) -> Refused:
        self._metrics.rate_limited(limit)
        retry_after = max(1, math.ceil(wait_s))
        return Refused(
            429,
            "RATE_LIMITED",
            f"Too many requests for this {limit}: at most {rates.per_minute} a minute.",
            {"limit": limit, "limitPerMinute": rates.per_minute, "retryAfterSeconds": retry_after, **details},
            (("retry-after", str(retry_after)),),
        )

    def _tell_items_refused(self, request: Request, refusals: list[Refused], caller: str) -> None:
        for code, count in Counter(refused.code for refused in refusals).items():
            self._metrics.failed(code, count)
        self._audit.items_refused(request, refusals, caller)


def _command(body: IncrementBody, caller: Principal) -> Increment:
    return Increment(body.user_id, body.action_id, body.reason, body.board_id, caller.sub)


def _check_user(caller: Principal, user_id: str) -> None:
    if not caller.may_act_for(user_id):
        raise Refused(403, "UNAUTHORIZED", "This token may only act for its own user.", {"field": "userId"})


def _settled(outcome: Outcome) -> Receipt | Refused:
    if isinstance(outcome, Rejection):
        return _refused(outcome)
    assert isinstance(outcome, Receipt)
    return outcome


def _refused(rejection: Rejection) -> Refused:
    status = 409 if rejection.code == "CONFLICT" else 400
    return Refused(status, rejection.code, rejection.message, rejection.details)


def _result(outcome: Outcome) -> str:
    """What came of a command, for the metric."""
    if isinstance(outcome, Rejection):
        return "refused"
    if outcome.applied:
        return "applied"
    return "duplicate" if isinstance(outcome, Receipt) else "unchanged"
