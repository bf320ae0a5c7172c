"""The log lines about what boards did by themselves: a period ended, or a planned freeze began.

    tell_board_events(applied.events, scoreboard)            right after the frame was applied

What a caller did to a board is told where its request was answered (`server.api.audit`).
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from engine.events import BoardFrozen, Event, PeriodChanged
from engine.scoreboard import Scoreboard

log = structlog.get_logger()


def tell_board_events(events: Sequence[Event], scoreboard: Scoreboard) -> None:
    """Tell the events among these that the clock made."""
    if not events or type(events[0]) not in (PeriodChanged, BoardFrozen):
        return  # what the clock makes comes in frames of its own
    for event in events:
        if type(event) is PeriodChanged and not event.caller:
            _tell_period(event, scoreboard)
        elif type(event) is BoardFrozen and not event.caller:
            log.info("board_frozen", board_id=event.board_id, seq=event.seq)


def _tell_period(event: PeriodChanged, scoreboard: Scoreboard) -> None:
    following = None if event.following is None else event.following.id
    log.info(
        "period_ended", board_id=event.board_id, period=event.ended.id, following=following, seq=event.seq,
        passed=len(event.passed),
    )  # fmt: skip
    definition = scoreboard.boards[event.board_id].definition
    if event.over and definition is not None and definition.rules.schedule is not None:
        log.error(
            "period_unknown",
            board_id=event.board_id,
            reason="the calendar knows no next period, so the board is over",
            zone=definition.rules.schedule.zone,
            remedy=f"PUT /boards/{event.board_id} with a period that this machine's tz database knows",
        )
