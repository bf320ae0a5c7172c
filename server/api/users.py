"""PUT /users/{userId}: registers a user, or changes the name or whether active. The steps are those of an increment."""

from __future__ import annotations

import msgspec

from engine.commands import Outcome, PutUser, Rejection, UserReceipt
from server.access.auth import Principal
from server.access.rates import WriteLimits
from server.api.answers import UserAnswer
from server.api.decoding import check_content, decode_user
from server.api.dependencies import Dependencies
from server.api.refusals import not_yours, refused
from server.http.messages import JSON, NO_STORE, Request, Response

_encode = msgspec.json.Encoder().encode


class Users:
    def __init__(self, dependencies: Dependencies, limits: WriteLimits) -> None:
        self._limits = limits
        self._clock_s = dependencies.clock_s

    def admit(self, request: Request, caller: Principal) -> PutUser:
        """Make the command of a request, and charge it to the caller. Raises `Refused`."""
        check_content(request)
        body = decode_user(request.body)
        user_id = request.path_params["userId"]
        if not caller.may_act_for(user_id):
            raise not_yours()
        self._limits.pass_caller(caller.sub, self._clock_s())
        active = msgspec.UNSET if body.active is None else body.active
        return PutUser(user_id, body.display_name, active, caller.sub)

    def render(self, outcome: Outcome) -> Response:
        """Answer with the outcome. Raises `Refused`."""
        if isinstance(outcome, Rejection):
            raise refused(outcome)
        assert isinstance(outcome, UserReceipt)
        answer = UserAnswer(
            outcome.user_id, outcome.display_name, outcome.active, outcome.applied, outcome.epoch, outcome.seq
        )
        return Response(200, _encode(answer), JSON, NO_STORE)
