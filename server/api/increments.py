"""Increments, one by one and in batches: from a body to commands, and from their outcomes to an answer.

    command = increments.admit(body, caller, now_s)       body → form → whose points → limits → command
    response = increments.render(outcome, caller)         receipt or rejection → answer, once the command is durable

Rules:
- Cheap checks come first. `server.api.pipeline` has verified the caller's token before.
- A request or a batch item that a limit refuses is not charged. One that goes to the actor is charged, whatever its
  outcome: a flood of conflicts costs as much as a flood of increments.
- A repeated action costs its user nothing, and its caller nothing of what new actions have. It has a limit of its own
  (`server.api.repeats`). So a client may send everything again after an outage, and is told what was counted.
- Both limits are checked before either is charged: a refusal by one uses up nothing of the other. The refusal names the
  limit with the longer wait.
- A batch is one submission: all of it is durable before its answer. Its items are checked in order, as if each had been
  sent alone. An item that is refused leaves the others alone. Headers of the answer count the refused items. Where a
  limit refused any, `Retry-After` has the longest of their waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import astuple

from engine.actions import key_of
from engine.commands import Command, Increment, Outcome, Receipt, Rejection
from engine.limits import BATCH_COMMANDS_MAX
from server.access.auth import Principal
from server.access.rates import WriteLimits
from server.api.answers import BatchItemAnswer, IncrementAnswer
from server.api.decoding import check_content, decode_batch, decode_increment
from server.api.dependencies import Dependencies
from server.api.refusals import not_yours, refused
from server.api.repeats import Repeats
from server.http.messages import JSON, MSGPACK, NO_STORE, Headers, Refused, Request, Response

_encode = msgspec.json.Encoder().encode
_encode_packed = msgspec.msgpack.Encoder().encode

REFUSED, RATE_LIMITED = "x-scoreboard-refused", "x-scoreboard-rate-limited"
"""Headers of the answer to a batch: how many items were refused, and how many of these by a limit."""


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
        self._repeats = Repeats(dependencies.scoreboard)
        self._clock_s = dependencies.clock_s
        self._metrics = dependencies.metrics
        self._audit = dependencies.audit

    def admit(self, body: bytes, caller: Principal, now_s: float) -> Increment:
        """Make the command of one increment, and charge it. Raises `Refused`. After its outcome comes `end`."""
        increment = decode_increment(body)
        if not caller.may_act_for(increment.user_id):
            raise not_yours()
        user_id, action_id, sub = increment.user_id, increment.action_id, caller.sub
        command = Increment(user_id, action_id, increment.reason, increment.board_id, sub, key_of(action_id))
        try:
            if self._repeats.is_again(command):
                self._limits.pass_repeat(sub, now_s)
            else:
                self._limits.pass_both(sub, user_id, now_s)
        except Refused:
            self._repeats.end((command,))
            raise
        return command

    def end(self, commands: Sequence[Command]) -> None:
        """Note that the outcome of admitted commands is known, or that they were not submitted."""
        self._repeats.end(commands)

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
        sub = caller.sub
        asked: list[Increment] = []
        places: list[int] = []
        refusals: dict[int, Refused] = {}
        for index, item in enumerate(items):
            if isinstance(item, Refused):
                refusals[index] = item
            elif not caller.may_act_for(item.user_id):
                refusals[index] = not_yours()
            else:
                action_id = item.action_id
                asked.append(Increment(item.user_id, action_id, item.reason, item.board_id, sub, key_of(action_id)))
                places.append(index)
        return AdmittedBatch(self._charge(asked, places, refusals), refusals, len(items), kind)

    def _charge(self, asked: list[Increment], places: list[int], refusals: dict[int, Refused]) -> list[Increment]:
        """Charge commands of one caller, and give those that the limits let in. The others go to `refusals`.

        `places` are the places of the commands in their batch.
        """
        if not asked:
            return []
        now_s, sub, limits, repeats = self._clock_s(), asked[0].caller, self._limits, self._repeats
        take = limits.users.take
        room, room_again = limits.callers.room(sub, now_s), limits.repeats.room(sub, now_s)
        commands: list[Increment] = []
        new = again = 0
        for command, is_again, place in zip(asked, repeats.are_again(asked), places, strict=True):
            if is_again and again < room_again:
                again += 1
                commands.append(command)
            elif not is_again and new < room and take(command.user_id, now_s) == 0:
                new += 1
                commands.append(command)
            else:
                repeats.end((command,))
                if is_again:
                    refusals[place] = limits.over_repeats(sub, again, now_s)
                else:
                    wait_s = limits.users.wait_s(command.user_id, now_s)
                    refusals[place] = limits.over(sub, new, command.user_id, wait_s, now_s)
        if new:
            limits.callers.charge(sub, now_s, new)
        if again:
            limits.repeats.charge(sub, now_s, again)
        return commands

    def render_batch(
        self, admitted: AdmittedBatch, outcomes: Sequence[Outcome], request: Request, caller: Principal
    ) -> Response:
        """Answer each item of a batch, in the media type of the batch."""
        headers = NO_STORE
        answers: list[Any] = [batch_item_answer(outcome) for outcome in outcomes if isinstance(outcome, Receipt)]
        if len(answers) < admitted.count:
            refusals = dict(admitted.refusals)
            answers = _mixed(admitted.count, outcomes, refusals)
            in_order = [refusals[index] for index in sorted(refusals)]
            for code, count in Counter(refusal.code for refusal in in_order).items():
                self._metrics.failed(code, count)
            self._audit.items_refused(request, in_order, caller.sub)
            headers += _refusal_headers(in_order)
        if self._audit.tells_increments:
            for outcome in outcomes:
                self._audit.applied(outcome, caller.sub)
        encode = _encode_packed if admitted.kind == MSGPACK else _encode
        return Response(200, encode(answers), admitted.kind, headers)


def _refusal_headers(refusals: list[Refused]) -> Headers:
    """Count the refused items of a batch, and say when to send those again that a limit refused."""
    waits = [refusal.details["retryAfterSeconds"] for refusal in refusals if refusal.code == "RATE_LIMITED"]
    counts: Headers = ((REFUSED, str(len(refusals))), (RATE_LIMITED, str(len(waits))))
    return (("retry-after", str(max(waits))), *counts) if waits else counts


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
