"""A change of leaders in a simulated run: an operator ends the leader, and promotes a replica that has everything.

    wait until the replica has all ─► end the leader, hold it down ─► has it still? ──no──► let the leader start again
                                                                            │ yes
                                                                            ▼
    promote it, running or stopped, again and again until it leads ─► the old leader comes back as its replica

Nothing that was acknowledged may be lost by it, so the books go on as they are: the successor's log is what they are
held against from the moment when it was chosen. What the old leader had in flight may be in no other log; it is set
aside when its directory is demoted, and it was never acknowledged.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import trio

from engine.errors import DiskFault
from server.http.messages import Refused
from tests.sim.books import Books, Broken
from tests.sim.hardware import Hardware
from tests.sim.node import Node
from tests.sim.period_files import lacks_files
from tests.sim.process import DATA, Process
from tests.sim.trace import Trace

LOOK_S = 0.1
CLOSED_S = 60.0
PATIENCE_S = 5.0
"""For a replica to turn out to have everything, and for a promotion to come to its end."""


class Succession:
    """One change, from `old` to `new`. `others` follow the old one; `leads` is told of the new one."""

    def __init__(
        self,
        old: Node,
        hardware: Hardware,
        new: Node,
        others: list[Node],
        dice: random.Random,
        books: Books,
        trace: Trace,
        leads: Callable[[Node], None],
    ) -> None:
        self._old = old
        self._hardware = hardware
        self._new = new
        self._others = others
        self._dice = dice
        self._books = books
        self._trace = trace
        self._leads = leads

    async def change(self, at_s: float) -> None:
        """Do it at some time."""
        await trio.sleep_until(at_s)
        await self._has_all()
        self._old.hold()
        await self._end_old()
        if not await self._has_all():
            self._trace.note("no successor")
            self._books.counts["no successor"] += 1
            self._old.release()
            return
        self._trace.note("successor", self._new.name)
        self._new.succeeds = True
        while self._new.succeeds:
            await self._promote()
        self._trace.note("promoted", self._new.name)
        self._books.counts["promotions"] += 1
        self._leads(self._new)
        for node in [self._old, *self._others]:
            node.follow(self._new.name)
            if node.process is not None:
                node.process.ending.set()
        self._old.release()

    async def _end_old(self) -> None:
        process = self._old.process
        kind = self._dice.choice(["cut", "kill", "stop"])
        self._trace.note("the leader's end", kind)
        if kind == "cut":
            self._hardware.cut_power()
        elif kind == "kill":
            self._hardware.machine.kill()
        if process is not None:
            process.ending.set()
        for _ in range(int(CLOSED_S / LOOK_S)):
            if not self._old.is_alive() and self._old.process is None:
                return
            await trio.sleep(LOOK_S)
        raise Broken("the leader was stopped, and did not end")

    async def _has_all(self) -> bool:
        for _ in range(int(PATIENCE_S / LOOK_S)):
            process = self._new.process
            has_log = process is not None and process.alive and process.scoreboard.seq == self._books.plain.seq
            if has_log and process is not None and not lacks_files(process.disk, DATA, process.scoreboard):
                return True
            await trio.sleep(LOOK_S)
        return False

    async def _promote(self) -> None:
        """Try once: as it runs, or stopped if it can't be, or if the dice say so."""
        process = self._new.process
        if process is not None and process.alive and process.tasks is not None and not self._new.promotes_stopped:
            done = trio.Event()
            process.tasks.start_soon(self._promote_running, process, done)
            with trio.move_on_after(PATIENCE_S):
                await done.wait()
            if self._new.succeeds and self._dice.random() < 0.3:
                self._new.promotes_stopped = True
        elif process is not None and self._new.promotes_stopped:
            process.ending.set()
        await trio.sleep(LOOK_S)

    async def _promote_running(self, process: Process, done: trio.Event) -> None:
        try:
            await process.node.promote()
        except Refused as refusal:
            self._trace.note("not promoted", refusal.message)
            self._new.promotes_stopped = True
        except DiskFault as fault:
            self._trace.note("not promoted", fault)  # the process ends of it
        else:
            self._new.lead()
        done.set()
