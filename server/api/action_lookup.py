"""Looking up applied actions for an answer: older ones lie on the disk, and a thread reads them.

    seq = await lookup.seq(action_id)                  None: no event applied this action
    seqs = await lookup.seqs(action_ids)

Raises `ActionsUnreadable` where a file of older actions is damaged: the caller may retry.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.action_reading import read_in
from engine.actions import key_of
from engine.scoreboard import Scoreboard
from server.api.dependencies import Dependencies


class ActionLookup:
    """The actions of one node."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._scoreboard: Scoreboard = dependencies.scoreboard
        self._blocks = dependencies.log.blocks
        self._on_damage = dependencies.on_damage

    async def seq(self, action_id: str) -> int | None:
        """Give the seq of the event that applied an action. Until the next await, the scoreboard knows it too."""
        return (await self.seqs([action_id]))[0]

    async def seqs(self, action_ids: Sequence[str]) -> list[int | None]:
        """Give the seqs of the events that applied these actions."""
        keys = [key_of(action_id) for action_id in action_ids]
        await read_in(self._scoreboard, keys, blocks=self._blocks, on_damage=self._on_damage)
        return [self._scoreboard.action_seq(action_id) for action_id in action_ids]
