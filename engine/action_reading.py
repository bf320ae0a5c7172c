"""Reading sealed actions before they are looked up: in a worker thread, so that no read of the disk blocks the loop.

    await read_in(scoreboard, [key_of(action_id)], blocks=log.blocks, on_damage=...)
    scoreboard.action_seq(action_id)                                       is right now, until the next await

For the writer, which decides many submissions at once:

    taken = reader.part(taken)                   those that are ready; the others wait for the disk
    await reader.run()                           its task; it gives back those that waited

Rules:
- Right before a decision every key of it is known: it is in memory, no filter knows it, or it was read. A submission
  that waited is looked at again then, because more may have been sealed meanwhile.
- Only the submissions that need a read wait for it, and of one with a sender for each command only these commands.
  All that wait at one time are read together.
- A damaged file fails those that need it, with nothing done. `on_damage` is told, so that the file is made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import trio

from engine.actions import Key, key_of
from engine.commands import Command, DecideReview, Increment, Reverse
from engine.errors import ActionsUnreadable, DiskFault
from engine.review_decisions import reversal_of
from engine.scoreboard import Scoreboard
from engine.sealed_actions import SealedActions, Want, read_wants
from engine.threads import ONE_AT_A_TIME, run

OnDamage = Callable[[DiskFault], None]
"""Is told of a damaged file. It must be quick and must not raise."""


class Waiting(Protocol):
    """A submission, as far as it matters here."""

    commands: Sequence[Command]
    senders: Sequence[Any]
    weight: int

    def fail(self, error: Exception) -> None: ...


W = TypeVar("W", bound=Waiting)


def keys_of(commands: Sequence[Command]) -> Iterator[Key]:
    """Yield the keys that deciding these commands looks up."""
    for command in commands:
        if type(command) is Increment:
            yield command.key or key_of(command.action_id)
        elif isinstance(command, Reverse):
            yield key_of(command.reversal_id)
        elif isinstance(command, DecideReview):
            yield key_of(command.reversal_id or reversal_of(command.review_id))


def part_of(submission: W, places: Sequence[int]) -> W:
    """Give a submission of some of its senders alone. Each sent one increment."""
    part = copy(submission)
    part.commands = [submission.commands[at] for at in places]
    part.senders = [submission.senders[at] for at in places]
    part.weight = len(places)
    return part


async def read_in(scoreboard: Scoreboard, keys: Sequence[Key], *, blocks: bool, on_damage: OnDamage) -> None:
    """Read what is needed to look these actions up. Raises `ActionsUnreadable`."""
    while wants := scoreboard.actions.unread(keys):
        sealed = scoreboard.actions.sealed
        try:
            sealed.note(await run(partial(read_wants, wants), blocks=blocks))
        except DiskFault as fault:
            on_damage(fault)
            raise ActionsUnreadable() from fault


class ActionReader(Generic[W]):
    """Reads for the submissions that the writer has taken. `give_back` gets one that is ready to be decided.

    `weight` counts the commands that wait for the disk.
    """

    def __init__(
        self, scoreboard: Scoreboard, *, blocks: bool, give_back: Callable[[W], None], on_damage: OnDamage
    ) -> None:
        self._scoreboard = scoreboard
        self._blocks = blocks
        self._give_back = give_back
        self._on_damage = on_damage
        self._waiting: list[tuple[W, SealedActions, list[Want]]] = []
        self._reading: list[W] = []
        self._wake = trio.Event()
        self.weight = 0  # of the submissions that wait for the disk

    def part(self, taken: list[W]) -> list[W]:
        """Keep the submissions that need a read, and give the others."""
        actions = self._scoreboard.actions
        by_key: dict[Key, list[Want]] = {}
        for want in actions.unread([key for submission in taken for key in keys_of(submission.commands)]):
            by_key.setdefault(want.key, []).append(want)
        if not by_key:
            return taken
        ready: list[W] = []
        for submission in taken:
            keys = list(keys_of(submission.commands))
            wants = [want for key in keys for want in by_key.get(key, ())]
            if not wants:
                ready.append(submission)
                continue
            waits = submission
            if submission.senders and (others := [at for at, key in enumerate(keys) if key not in by_key]):
                ready.append(part_of(submission, others))
                waits = part_of(submission, [at for at, key in enumerate(keys) if key in by_key])
            self._waiting.append((waits, actions.sealed, wants))
            self.weight += waits.weight
        self._wake.set()
        return ready

    def fail_waiting(self, error: Callable[[], Exception]) -> None:
        """Fail all that wait, each with its own error."""
        waiting, self._waiting = self._waiting, []
        for submission, _, _ in waiting:
            self.weight -= submission.weight
            submission.fail(error())
        for submission in self._reading:
            submission.fail(error())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read for those that wait, until cancelled."""
        task_status.started()
        while True:
            if not self._waiting:
                self._wake = trio.Event()
                await self._wake.wait()
            waiting, self._waiting = self._waiting, []
            self._reading = [submission for submission, _, _ in waiting]
            # More may be sealed while one waits. What was not found says something of the files of then only.
            groups: dict[int, list[tuple[W, SealedActions, list[Want]]]] = {}
            for each in waiting:
                groups.setdefault(id(each[1]), []).append(each)
            for group in groups.values():
                sealed, wants = group[0][1], [want for _, _, wants in group for want in wants]
                if await self._read(sealed, wants) is None:
                    self._end([submission for submission, _, _ in group])
                    continue
                for submission, _, its_wants in group:
                    await self._read_apart(submission, sealed, its_wants)

    async def _read_apart(self, submission: W, sealed: SealedActions, wants: list[Want]) -> None:
        """Read for each sender alone, after a fault: it fails only those that need the damaged file."""
        parts = [part_of(submission, [at]) for at in range(len(submission.senders))] or [submission]
        self._reading.remove(submission)
        self._reading += parts
        for part in parts:
            keys = set(keys_of(part.commands))
            fault = await self._read(sealed, [want for want in wants if want.key in keys])
            self._end([part], fault)

    async def _read(self, sealed: SealedActions, wants: list[Want]) -> DiskFault | None:
        try:
            sealed.note(await run(partial(read_wants, wants), blocks=self._blocks, limiter=ONE_AT_A_TIME))
        except DiskFault as fault:
            return fault
        return None

    def _end(self, submissions: list[W], fault: DiskFault | None = None) -> None:
        for submission in submissions:
            self._reading.remove(submission)
            self.weight -= submission.weight
            if fault is None:
                self._give_back(submission)
            else:
                self._on_damage(fault)
                submission.fail(ActionsUnreadable())
