"""What viewers are told while the live channel is switched off (`engine.flags`), and when they come back.

    switched off ──► WebSockets 1013, streams end ──► new ones 503 ──► pages poll
    switched on  ──► each comes when its own time to wait is over: within BACK_SECONDS

Rules:
- Each client gets a time of its own to wait, drawn anew each time. So once the channel is on again, those who asked
  meanwhile come spread over BACK_SECONDS, and not all at once. A browser hides the headers of a refused WebSocket from
  its page; a page draws its time itself.
- The state of the board says whether the channel is on, never this file. So a replica obeys when it applies the event.
"""

from __future__ import annotations

import random

from server.http.messages import Refused
from server.live import events

BACK_SECONDS = 30
"""Within this time viewers are back after the channel was switched on again: 20,000 at once would be a storm."""

CLOSE_SECONDS = 2.0
"""The close frames are spread over this time, so that not all pages begin to poll in one moment."""

RETRY_MS = (events.RETRY_MS[0], BACK_SECONDS * 1000)
"""A stream that ends says a time within these bounds."""

REASON = "the live channel is switched off"


COUNTED_AS = "SWITCHED_OFF"
"""What counts refusals in place of their code: the node is not overloaded, and nobody need be alarmed."""


class SwitchedOff(Refused):
    """503 `OVERLOADED` for a viewer that comes while the channel is off, with a `Retry-After` of its own."""

    def __init__(self) -> None:
        seconds = random.randint(1, BACK_SECONDS)  # noqa: S311  # no secret depends on it
        message = "The live channel is switched off. Ask GET /scoreboard/top meanwhile."
        super().__init__(503, "OVERLOADED", message, {"flag": "live"}, (("retry-after", str(seconds)),))
