"""Increments, one by one and in batches: from a body to commands, and from their outcomes to an answer.

    [command] = increments.admit([(caller, body)], now_s)    body → form → whose points → limits → command
    response = increments.render(outcome, caller)            receipt or rejection → answer, once the command is durable
    increments.end([command])                                its outcome is known, or it was not submitted

Rules:
- Cheap checks come first. `server.api.pipeline` has verified the caller's token before.
- A request or a batch item that a limit refuses is not charged. One that goes to the actor is charged, whatever its
  outcome: a flood of conflicts costs as much as a flood of increments.
- A repeated action costs its user nothing, and its caller nothing of what new actions have. It has a limit of its own.
  So a client may send everything again after an outage, and is told what was counted.
- An older action that was not read from the disk yet (`engine.sealed_actions`) costs what a new one costs. Where the
  limits of new ones refuse it, it is charged as a repeat: its filter says that it was applied, and is seldom wrong.
- Only a token with the scope `scores:value` may send a value. Others never choose a number.
- A repeat names the same user, board, reason and value. Any other use of a known actionId is a conflict. It is charged
  as a new action: so nobody learns of an action for nothing.
- An action that is in flight counts as known, too: a client that gives up early sends it again before it is applied.
  What is a repeat decides only what is charged. Whether an action counts is decided by the actor alone
  (`engine.batch`).
- Both limits are checked before either is charged: a refusal by one uses up nothing of the other. The refusal names the
  limit with the longer wait.
- Many are admitted in order, as if each had been admitted alone. They are looked up together, which costs less.
- A batch is one submission: all of it is durable before its answer. An item that is refused leaves the others alone.
  Headers of the answer count the refused items. Where a limit refused any, `Retry-After` has the longest of their
  waits.

Invariant: `_in_flight` has the commands that were admitted and did not end. The inbox of the actor bounds it: a command
is submitted without a pause after it was admitted, or ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import astuple

from engine.actions import Key, key_of
from engine.commands import Command, Increment, Outcome, Receipt, Rejection
from engine.limits import BATCH_COMMANDS_MAX
from server.access.auth import Principal
from server.access.rates import WriteLimits
from server.api.answers import BatchItemAnswer, IncrementAnswer
from server.api.decoding import IncrementBody, check_content, decode_batch, decode_increment
from server.api.dependencies import Dependencies
from server.api.refusals import no_value, not_yours, refused
from server.api.routes import VALUE
from server.http.messages import JSON, MSGPACK, NO_STORE, Headers, Refused, Request, Response

MANY = 16
"""From this number of commands on, they are charged together."""

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
        self._scoreboard = dependencies.scoreboard
        self._in_flight: dict[Key, Increment] = {}
        self._clock_s = dependencies.clock_s
        self._metrics = dependencies.metrics
        self._audit = dependencies.audit

    def admit(self, asked: Sequence[tuple[Principal, bytes]], now_s: float) -> list[Increment | Exception]:
        """Make the commands of increments, by caller and body, and charge them. A refusal takes the place of a command.

        Each command must `end`.
        """
        admitted = [_admitted(caller, body) for caller, body in asked]
        commands = [command for command in admitted if type(command) is Increment]
        if refusals := self._charge(commands, now_s):
            return [refusals.get(id(command), command) for command in admitted]
        return admitted

    def end(self, commands: Sequence[Command]) -> None:
        """Note that the outcome of admitted commands is known, or that they were not submitted."""
        in_flight = self._in_flight
        for command in commands:
            if type(command) is Increment and in_flight.get(command.key) is command:
                del in_flight[command.key]

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
        asked = [item if isinstance(item, Refused) else _command(caller, item) for item in items]
        commands = [command for command in asked if type(command) is Increment]
        over = self._charge(commands, self._clock_s())
        refusals: dict[int, Refused] = {}
        if not over and len(commands) == len(asked):
            return AdmittedBatch(commands, refusals, len(items), kind)
        commands = []
        for index, item in enumerate(asked):
            if isinstance(item, Refused):
                refusals[index] = item
            elif id(item) in over:
                refusals[index] = over[id(item)]
            else:
                commands.append(item)
        return AdmittedBatch(commands, refusals, len(items), kind)

    def _charge(self, commands: Sequence[Increment], now_s: float) -> dict[int, Refused]:
        """Charge commands. Those that the limits let in are in flight from now on. Refusals are by the `id` of theirs.

        The limits of a caller are asked and charged once for all that it sent in a row.
        """
        limits, users, note = self._limits, self._limits.users, self._in_flight.setdefault
        keys = [command.key for command in commands]
        positions = self._scoreboard.actions.find_all(keys)
        refusals: dict[int, Refused] = {}
        sub, again, room_again = "", 0, None
        new, room = self._charge_first(commands, keys, positions, now_s) if len(commands) >= MANY else (0, 0)
        if new:
            sub, commands, positions = commands[0].caller, commands[new:], positions[new:]
        for command, position in zip(commands, positions, strict=True):
            if command.caller != sub:
                self._charge_caller(sub, new, again, now_s)
                sub, new, again, room_again = command.caller, 0, 0, None
                room = limits.callers.room(sub, now_s)
            first = note(command.key, command)
            is_repeat = (position >= 0 or first is not command) and self._is_repeat(command, position, first)
            if not is_repeat:
                # The caller comes first: a caller over its limit must not fill the table of users.
                if new < room and users.take(command.user_id, now_s) == 0:
                    new += 1
                    continue
                is_repeat = position < 0 and bool(self._scoreboard.actions.unread((command.key,)))
            if is_repeat:
                if room_again is None:
                    room_again = limits.repeats.room(sub, now_s)
                if again < room_again:
                    again += 1
                    continue
                refusal = limits.over_repeats(sub, again, now_s)
            else:
                refusal = limits.over(sub, new, command.user_id, users.wait_s(command.user_id, now_s), now_s)
            self.end((command,))
            refusals[id(command)] = refusal
        self._charge_caller(sub, new, again, now_s)
        return refusals

    def _charge_first(
        self, commands: Sequence[Increment], keys: Sequence[Key], positions: Sequence[int], now_s: float
    ) -> tuple[int, int]:
        """Charge the first of many commands to their users, if all are new, and one caller has room for all of them.

        Give how many were charged, and the caller's room. The others, most often none, are charged one by one.
        """
        caller, in_flight = commands[0].caller, self._in_flight
        if max(positions) >= 0 or len(set(keys)) < len(keys) or not in_flight.keys().isdisjoint(keys):
            return 0, 0
        room = self._limits.callers.room(caller, now_s)
        if len(commands) > room or any(command.caller != caller for command in commands):
            return 0, 0
        count = self._limits.users.take_all([command.user_id for command in commands], now_s)
        in_flight.update(zip(keys[:count], commands, strict=False))
        return count, room

    def _charge_caller(self, sub: str, new: int, again: int, now_s: float) -> None:
        if new:
            self._limits.callers.charge(sub, now_s, new)
        if again:
            self._limits.repeats.charge(sub, now_s, again)

    def _is_repeat(self, command: Increment, position: int, first: Increment) -> bool:
        """Whether an action is the one at this position of the index or, if that is -1, the one in flight."""
        if position >= 0:
            return self._scoreboard.repeats(position, command)
        return _is_same(command, first)

    def render_batch(
        self, admitted: AdmittedBatch, outcomes: Sequence[Outcome], request: Request, caller: Principal
    ) -> Response:
        """Answer each item of a batch, in the media type of the batch."""
        headers = NO_STORE
        answers: list[Any] = [BatchItemAnswer(*astuple(each)) for each in outcomes if type(each) is Receipt]
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


def _admitted(caller: Principal, body: bytes) -> Increment | Exception:
    """Make a command, or give what is wrong. The error keeps this frame alive, so this is all that the frame holds."""
    try:
        return _command(caller, decode_increment(body))
    except Exception as error:
        return error


def _command(caller: Principal, body: IncrementBody) -> Increment | Refused:
    user_id, action_id, value = body.user_id, body.action_id, body.value
    if caller.user is not None and not caller.may_act_for(user_id):
        return not_yours()
    if value is not None and not caller.may(VALUE):
        return no_value()
    return Increment(user_id, action_id, body.reason, body.board_id, caller.sub, key_of(action_id), value)


def _is_same(one: Increment, other: Increment) -> bool:
    return (one.user_id, one.board_id, one.reason, one.value) == (
        other.user_id, other.board_id, other.reason, other.value,
    )  # fmt: skip


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
