"""Reads that wait for a position (`minSeq`, `minEpoch`): read your own write, on a replica too.

    await positions.wait(request.query)      returns when the position is here; raises `Refused` when the time is over
    positions.advanced()                     a frame was applied, or the role changed: the waiting reads check again

A read waits for a bounded time, and a bounded number of reads wait. Beyond either bound the answer is the node's
position.
"""

from __future__ import annotations

import trio

from engine.scoreboard import Scoreboard
from server import bounds
from server.api.role_checks import RoleChecks, wanted_position


class Positions:
    def __init__(self, scoreboard: Scoreboard, checks: RoleChecks, wait_seconds: float) -> None:
        self._scoreboard = scoreboard
        self._checks = checks
        self._wait_seconds = wait_seconds
        self._waiting = trio.lowlevel.ParkingLot()

    def advanced(self) -> None:
        self._waiting.unpark_all()

    async def wait(self, query: str) -> None:
        wanted = wanted_position(query)
        if wanted is None:
            return
        epoch, seq = wanted
        if not self._is_here(epoch, seq) and len(self._waiting) < bounds.POSITION_WAITERS_MAX:
            with trio.move_on_after(self._wait_seconds):
                while not self._is_here(epoch, seq):
                    await self._waiting.park()
        if not self._is_here(epoch, seq):
            scoreboard = self._scoreboard
            details = {"minSeq": seq, "epoch": scoreboard.epoch, "seq": scoreboard.seq}
            if epoch is not None:
                details["minEpoch"] = epoch
            raise self._checks.behind("this node has not come as far yet", **details)

    def _is_here(self, epoch: int | None, seq: int) -> bool:
        scoreboard = self._scoreboard
        if epoch is None or scoreboard.epoch == epoch:
            return scoreboard.seq >= seq
        return scoreboard.epoch > epoch
