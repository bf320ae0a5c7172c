"""The shape of the answer to GET /viewers. Pure."""

from __future__ import annotations

from typing import Annotated

import msgspec

from server.http.messages import Id


class ViewersAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """GET /viewers. `viewers` have this board open at this node, over a WebSocket or a stream of events."""

    board_id: Id
    viewers: Annotated[int, msgspec.Meta(ge=0)]
