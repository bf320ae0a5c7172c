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
from server.api.answers import batch_item_answer, increment_answer, user_answer
from server.api.decoding import IncrementBody, check_content, decode_batch, decode_increment, decode_user
from server.api.dependencies import Parts, Rates
from server.http.messages import JSON, MSGPACK, Headers, Refused, Request, Response

HEADERS: Headers = (("cache-control", "no-store"), ("x-content-type-options", "nosniff"))

_encode = msgspec.json.Encoder().encode
_encode_packed = msgspec.msgpack.Encoder().encode


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
        command = self.admit(request.body, caller, self._clock_s())
        [outcome] = await self._submit([command])
        return Response(200, self.receipt(outcome, caller.sub), JSON, HEADERS)

    def admit(self, body: bytes, caller: Principal, now_s: float) -> Increment:
        """Make a command of the body of an increment, and charge it to caller and user. Raises `Refused`."""
        increment = decode_increment(body)
        _check_user(caller, increment.user_id)
        self._pass_limits(caller, increment.user_id, now_s)
        return _command(increment, caller.sub)

    def receipt(self, outcome: Outcome, caller: str) -> bytes:
        """Write what came of an increment as its answer. Raises `Refused`."""
        if isinstance(outcome, Rejection):
            raise _refused(outcome)
        assert isinstance(outcome, Receipt)
        if self._audit.tells_increments:
            self._audit.applied(outcome, caller)
        return _encode(increment_answer(outcome))

    async def increment_batch(self, request: Request, caller: Principal) -> Response:
        """Count up to BATCH_COMMANDS_MAX actions; every item has its own answer, written as the batch was."""
        kind = check_content(request, may_be_packed=True)
        items = decode_batch(request.body, BATCH_COMMANDS_MAX, kind)
        commands, refusals = self._admit_all(items, caller)
        outcomes = await self._submit(commands) if commands else []
        answers: list[Any] = [batch_item_answer(outcome) for outcome in outcomes if isinstance(outcome, Receipt)]
        if len(answers) < len(items):
            answers = self._mixed(len(items), outcomes, refusals)
            self._tell_items_refused(request, [refusals[place] for place in sorted(refusals)], caller.sub)
        if self._audit.tells_increments:
            for outcome in outcomes:
                self._audit.applied(outcome, caller.sub)
        return Response(200, (_encode_packed if kind == MSGPACK else _encode)(answers), kind, HEADERS)

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
        return Response(200, _encode(user_answer(outcome)), JSON, HEADERS)

    async def _submit(self, commands: Sequence[Command]) -> list[Outcome]:
        """Have the actor decide commands, and count what comes of each."""
        try:
            outcomes = await self._writer.submit(commands)
        except OutcomeUnknown:
            self._metrics.update("unknown", len(commands))
            raise
        self.count(outcomes)
        return outcomes

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """Count what came of commands."""
        applied = sum(1 for outcome in outcomes if type(outcome) is Receipt and outcome.applied)
        if applied:
            self._metrics.update("applied", applied)
        if applied < len(outcomes):
            others = (outcome for outcome in outcomes if type(outcome) is not Receipt or not outcome.applied)
            for result, count in Counter(map(_result, others)).items():
                self._metrics.update(result, count)

    def _admit_all(
        self, items: list[IncrementBody | Refused], caller: Principal
    ) -> tuple[list[Increment], dict[int, Refused]]:
        """Make commands of a batch's items, and charge them; give the refusals by the place of their item."""
        now_s, sub = self._clock_s(), caller.sub
        take = self._user_rates.take
        room = self._caller_rates.room(sub, now_s)
        commands: list[Increment] = []
        refusals: dict[int, Refused] = {}
        for place, item in enumerate(items):
            if isinstance(item, Refused):
                refusals[place] = item
            elif not caller.may_act_for(item.user_id):
                refusals[place] = _not_yours()
            elif len(commands) >= room:
                wait_s = self._user_rates.wait_s(item.user_id, now_s)
                refusals[place] = self._over(caller, len(commands), item.user_id, wait_s, now_s)
            elif (wait_s := take(item.user_id, now_s)) > 0:
                refusals[place] = self._over(caller, len(commands), item.user_id, wait_s, now_s)
            else:
                commands.append(Increment(item.user_id, item.action_id, item.reason, item.board_id, sub))
        if commands:
            self._caller_rates.charge(sub, now_s, len(commands))
        return commands, refusals

    def _mixed(self, count: int, outcomes: Sequence[Outcome], refusals: dict[int, Refused]) -> list[Any]:
        """Give the answer to each item of a batch of which some were refused; rejections are added to `refusals`."""
        rest = iter(outcomes)
        answers: list[Any] = []
        for place in range(count):
            if place not in refusals:
                outcome = next(rest)
                if isinstance(outcome, Receipt):
                    answers.append(batch_item_answer(outcome))
                    continue
                assert isinstance(outcome, Rejection)
                refusals[place] = _refused(outcome)
            answers.append(refusals[place].item())
        return answers

    def _pass_limits(self, caller: Principal, user_id: str, now_s: float) -> None:
        """Charge both limits, or refuse and charge none."""
        if self._caller_rates.wait_s(caller.sub, now_s) > 0:
            raise self._over(caller, 0, user_id, self._user_rates.wait_s(user_id, now_s), now_s)
        user_wait_s = self._user_rates.take(user_id, now_s)
        if user_wait_s > 0:
            raise self._over(caller, 0, user_id, user_wait_s, now_s)
        self._caller_rates.charge(caller.sub, now_s)

    def _over(self, caller: Principal, pending: int, user_id: str, user_wait_s: float, now_s: float) -> Refused:
        """Refuse by the limit that takes longer; `pending` are this caller's and not charged yet."""
        caller_wait_s = self._caller_rates.wait_s(caller.sub, now_s, pending)
        if user_wait_s > caller_wait_s:
            return self._limited("user", self._user_rates, user_wait_s, userId=user_id)
        return self._limited("caller", self._caller_rates, caller_wait_s)

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


def _command(body: IncrementBody, caller: str) -> Increment:
    return Increment(body.user_id, body.action_id, body.reason, body.board_id, caller)


def _check_user(caller: Principal, user_id: str) -> None:
    if not caller.may_act_for(user_id):
        raise _not_yours()


def _not_yours() -> Refused:
    return Refused(403, "UNAUTHORIZED", "This token may only act for its own user.", {"field": "userId"})


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
