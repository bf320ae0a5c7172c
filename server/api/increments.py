"""Increments, one by one and in batches: from a body to commands, and from what came of them to an answer.

    admit       body → form → whose points → limits → command        before the actor hears of it
    render      receipt or rejection → answer                         after the command is durable

    command = increments.admit(body, caller, now_s)
    response = increments.render(outcome, caller)

Rules:
- Each check comes before the next may cost anything. Who the caller is was checked before (`server.api.pipeline`).
- A request, or an item of a batch, that a limit refuses is not charged. One that goes to the actor is charged, whatever
  comes of it: a flood of conflicts costs as much as a flood of increments.
- Both limits are looked at before either is charged, so being refused by one never uses up the other. The refusal tells
  the limit that takes longer.
- A batch is one submission: all of it is durable before its answer. Its items are checked in order, as if they had been
  sent one after another. An item that is refused leaves its neighbours alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from engine.commands import Increment, Outcome, Receipt, Rejection
from engine.limits import BATCH_COMMANDS_MAX
from server.access.auth import Principal
from server.api.answers import BatchItemAnswer, IncrementAnswer
from server.api.decoding import IncrementBody, check_content, decode_batch, decode_increment
from server.api.dependencies import Dependencies
from server.api.limits import Limits
from server.api.refusals import not_yours, refused
from server.http.messages import JSON, MSGPACK, Headers, Refused, Request, Response

HEADERS: Headers = (("cache-control", "no-store"), ("x-content-type-options", "nosniff"))

_encode = msgspec.json.Encoder().encode
_encode_packed = msgspec.msgpack.Encoder().encode


class AdmittedBatch(msgspec.Struct, frozen=True):
    """A batch on its way. `refusals` are by the place of their item; `kind` is how the batch was written."""

    commands: list[Increment]
    refusals: dict[int, Refused]
    count: int
    kind: str


class Increments:
    """Admits and renders POST /scores/increment and POST /scores/increment/batch."""

    def __init__(self, dependencies: Dependencies, limits: Limits) -> None:
        self._limits = limits
        self._clock_s = dependencies.clock_s
        self._metrics = dependencies.metrics
        self._audit = dependencies.audit

    def admit(self, body: bytes, caller: Principal, now_s: float) -> Increment:
        """Make a command of the body of an increment, and charge it to caller and user. Raises `Refused`."""
        increment = decode_increment(body)
        if not caller.may_act_for(increment.user_id):
            raise not_yours()
        self._limits.pass_both(caller.sub, increment.user_id, now_s)
        return Increment(increment.user_id, increment.action_id, increment.reason, increment.board_id, caller.sub)

    def render(self, outcome: Outcome, caller: Principal) -> Response:
        """Answer an increment by what came of it. Raises `Refused`."""
        if isinstance(outcome, Rejection):
            raise refused(outcome)
        assert isinstance(outcome, Receipt)
        if self._audit.tells_increments:
            self._audit.applied(outcome, caller.sub)
        return Response(200, _encode(increment_answer(outcome)), JSON, HEADERS)

    def admit_batch(self, request: Request, caller: Principal) -> AdmittedBatch:
        """Make commands of a batch's items, and charge them. Raises `Refused` for the batch as a whole."""
        kind = check_content(request, may_be_packed=True)
        items = decode_batch(request.body, BATCH_COMMANDS_MAX, kind)
        commands, refusals = self._admit_all(items, caller)
        return AdmittedBatch(commands, refusals, len(items), kind)

    def render_batch(
        self, admitted: AdmittedBatch, outcomes: Sequence[Outcome], request: Request, caller: Principal
    ) -> Response:
        """Answer each item of a batch, written as the batch was."""
        answers: list[Any] = [batch_item_answer(outcome) for outcome in outcomes if isinstance(outcome, Receipt)]
        if len(answers) < admitted.count:
            refusals = dict(admitted.refusals)
            answers = _mixed(admitted.count, outcomes, refusals)
            self._tell_items_refused(request, [refusals[place] for place in sorted(refusals)], caller.sub)
        if self._audit.tells_increments:
            for outcome in outcomes:
                self._audit.applied(outcome, caller.sub)
        encode = _encode_packed if admitted.kind == MSGPACK else _encode
        return Response(200, encode(answers), admitted.kind, HEADERS)

    def _admit_all(
        self, items: list[IncrementBody | Refused], caller: Principal
    ) -> tuple[list[Increment], dict[int, Refused]]:
        """Make commands of a batch's items, and charge them; give the refusals by the place of their item."""
        now_s, sub, limits = self._clock_s(), caller.sub, self._limits
        take = limits.users.take
        room = limits.callers.room(sub, now_s)
        commands: list[Increment] = []
        refusals: dict[int, Refused] = {}
        for place, item in enumerate(items):
            if isinstance(item, Refused):
                refusals[place] = item
            elif not caller.may_act_for(item.user_id):
                refusals[place] = not_yours()
            elif len(commands) >= room:
                wait_s = limits.users.wait_s(item.user_id, now_s)
                refusals[place] = limits.over(sub, len(commands), item.user_id, wait_s, now_s)
            elif (wait_s := take(item.user_id, now_s)) > 0:
                refusals[place] = limits.over(sub, len(commands), item.user_id, wait_s, now_s)
            else:
                commands.append(Increment(item.user_id, item.action_id, item.reason, item.board_id, sub))
        if commands:
            limits.callers.charge(sub, now_s, len(commands))
        return commands, refusals

    def _tell_items_refused(self, request: Request, refusals: list[Refused], caller: str) -> None:
        for code, count in Counter(refusal.code for refusal in refusals).items():
            self._metrics.failed(code, count)
        self._audit.items_refused(request, refusals, caller)


def increment_answer(receipt: Receipt) -> IncrementAnswer:
    """Put a receipt in the wire's terms."""
    return IncrementAnswer(
        receipt.user_id,
        receipt.new_score,
        receipt.delta,
        receipt.applied,
        receipt.action_id,
        receipt.board_id,
        receipt.epoch,
        receipt.seq,
        receipt.rank,
        receipt.previous_rank,
    )


def batch_item_answer(receipt: Receipt) -> BatchItemAnswer:
    """Put the receipt of a batch's item in the wire's terms."""
    return BatchItemAnswer(
        200,
        receipt.user_id,
        receipt.new_score,
        receipt.delta,
        receipt.applied,
        receipt.action_id,
        receipt.board_id,
        receipt.epoch,
        receipt.seq,
        receipt.rank,
        receipt.previous_rank,
    )


def _mixed(count: int, outcomes: Sequence[Outcome], refusals: dict[int, Refused]) -> list[Any]:
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
            refusals[place] = refused(outcome)
        answers.append(refusals[place].item())
    return answers
