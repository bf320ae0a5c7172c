"""The shape of the answer to DELETE /users/{userId}. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from server.api.answers import Epoch, Seq, Time
from server.http.messages import Id


class ErasedAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """A user is off all boards. `applied` is false if an earlier request did it; the position is that of the event.

    So many `actions` stay used. By `filesBy` no file of the data directory names the user.
    """

    user_id: Id
    erased: Literal[True]
    applied: bool
    epoch: Epoch
    seq: Seq
    actions: Annotated[int, msgspec.Meta(ge=0)]
    files_by: Time
