"""Increments, one by one and in batches: from a body to commands, and from their outcomes to an answer.

    command = increments.admit(body, caller, now_s)       body → form → whose points → limits → command
    response = increments.render(outcome, caller)         receipt or rejection → answer, once the command is durable

Rules:
- Cheap checks come first. `server.api.pipeline` has verified the caller's token before.
- A request or a batch item that a limit refuses is not charged. One that goes to the actor is charged, whatever its
  outcome: a flood of conflicts costs as much as a flood of increments.
- Both limits are checked before either is charged: a refusal by one uses up nothing of the other. The refusal names the
  limit with the longer wait.
- A batch is one submission: all of it is durable before its answer. Its items are checked in order, as if each had been
  sent alone. An item that is refused leaves the others alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import astuple

from engine.commands import Increment, Outcome, Receipt, Rejection
from engine.limits import BATCH_COMMANDS_MAX
from server.access.auth import Principal
from server.access.rates import WriteLimits
from server.api.answers import BatchItemAnswer, IncrementAnswer
from server.api.decoding import check_content, decode_batch, decode_increment
from server.api.dependencies import Dependencies
from server.api.refusals import not_yours, refused
from server.http.messages import JSON, MSGPACK, NO_STORE, Refused, Request, Response

_encode = msgspec.json.Encoder().encode
_encode_packed = msgspec.msgpack.Encoder().encode


class AdmittedBatch(msgspec.Struct, frozen=True):
    """A batch that was admitted. `refusals` are by the index of their item; `kind` is the media type of the batch."""

    commands: list[Increment]
    refusals: dict[int, Refused]
    count: int
    kind: str


class Increments:
    """Admits and renders POST /scores/increment and POST /scores/increment/batch."""

    def __init__(self, dependencies: Dependencies, limits: WriteLimits) -> None:
        self._limits = limits
        self._clock_s = dependencies.clock_s
        self._metrics = dependencies.metrics
        self._audit = dependencies.audit

    def admit(self, body: bytes, caller: Principal, now_s: float) -> Increment:
        """Make the command of one increment, and charge it to caller and user. Raises `Refused`."""
        increment = decode_increment(body)
        if not caller.may_act_for(increment.user_id):
            raise not_yours()
        self._limits.pass_both(caller.sub, increment.user_id, now_s)
        return Increment(increment.user_id, increment.action_id, increment.reason, increment.board_id, caller.sub)

    def render(self, outcome: Outcome, caller: Principal) -> Response:
        """Answer one increment. Raises `Refused`."""
        if isinstance(outcome, Rejection):
            raise refused(outcome)
        assert isinstance(outcome, Receipt)
        if self._audit.tells_increments:
            self._audit.applied(outcome, caller.sub)
        return Response(200, _encode(increment_answer(outcome)), JSON, NO_STORE)

    def admit_batch(self, request: Request, caller: Principal) -> AdmittedBatch:
        """Make the commands of a batch, and charge them. Raises `Refused` for the batch as a whole."""
        kind = check_content(request, may_be_packed=True)
        items = decode_batch(request.body, BATCH_COMMANDS_MAX, kind)
        now_s, sub, limits = self._clock_s(), caller.sub, self._limits
        take = limits.users.take
        room = limits.callers.room(sub, now_s)
        commands: list[Increment] = []
        refusals: dict[int, Refused] = {}
        for index, item in enumerate(items):
            if isinstance(item, Refused):
                refusals[index] = item
            elif not caller.may_act_for(item.user_id):
                refusals[index] = not_yours()
            elif len(commands) >= room:
                wait_s = limits.users.wait_s(item.user_id, now_s)
                refusals[index] = limits.over(sub, len(commands), item.user_id, wait_s, now_s)
            elif (wait_s := take(item.user_id, now_s)) > 0:
                refusals[index] = limits.over(sub, len(commands), item.user_id, wait_s, now_s)
            else:
                commands.append(Increment(item.user_id, item.action_id, item.reason, item.board_id, sub))
        if commands:
            limits.callers.charge(sub, now_s, len(commands))
        return AdmittedBatch(commands, refusals, len(items), kind)

    def render_batch(
        self, admitted: AdmittedBatch, outcomes: Sequence[Outcome], request: Request, caller: Principal
    ) -> Response:
        """Answer each item of a batch, in the media type of the batch."""
        answers: list[Any] = [batch_item_answer(outcome) for outcome in outcomes if isinstance(outcome, Receipt)]
        if len(answers) < admitted.count:
            refusals = dict(admitted.refusals)
            answers = _mixed(admitted.count, outcomes, refusals)
            in_order = [refusals[index] for index in sorted(refusals)]
            for code, count in Counter(refusal.code for refusal in in_order).items():
                self._metrics.failed(code, count)
            self._audit.items_refused(request, in_order, caller.sub)
        if self._audit.tells_increments:
            for outcome in outcomes:
                self._audit.applied(outcome, caller.sub)
        encode = _encode_packed if admitted.kind == MSGPACK else _encode
        return Response(200, encode(answers), admitted.kind, NO_STORE)


assert IncrementAnswer.__struct_fields__ == BatchItemAnswer.__struct_fields__ == Receipt.__struct_fields__


def increment_answer(receipt: Receipt) -> IncrementAnswer:
    """Make the wire's form of a receipt."""
    return IncrementAnswer(*astuple(receipt))


def batch_item_answer(receipt: Receipt) -> BatchItemAnswer:
    """Make the wire's form of the receipt of a batch item."""
    return BatchItemAnswer(*astuple(receipt))


def _mixed(count: int, outcomes: Sequence[Outcome], refusals: dict[int, Refused]) -> list[Any]:
    """Answer a batch of which some items were refused. Rejections are added to `refusals`."""
    rest = iter(outcomes)
    answers: list[Any] = []
    for index in range(count):
        if index not in refusals:
            outcome = next(rest)
            if isinstance(outcome, Receipt):
                answers.append(batch_item_answer(outcome))
                continue
            assert isinstance(outcome, Rejection)
            refusals[index] = refused(outcome)
        answers.append(refusals[index].item())
    return answers
