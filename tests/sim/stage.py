"""Those of a simulated run who have to do with boards: an operator, a reader of past periods, viewers, and in some runs
a judge, a referee and an importer, or an operator who switches the live channel off.

They have a network and generators of their own, so the dice of all others fall as they would without them.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import trio

from tests.sim.books import Books
from tests.sim.importers import IMPORTER, Importer
from tests.sim.judges import JUDGE, WORKS, Judge
from tests.sim.network import Network
from tests.sim.operators import OPERATOR, BoardReader, Operator
from tests.sim.process import Process
from tests.sim.profile import Profile
from tests.sim.referees import Referee
from tests.sim.screens import Viewer
from tests.sim.switchers import SWITCHER, Switcher
from tests.sim.trace import Trace

JUDGES = 0.7
"""The part of a run in which reviews are decided: at the end nothing may be on its way."""


class Stage:
    """See above. `dice` makes a generator for each purpose. All but `rest` goes on by itself.

    `disputed`: there is a referee. `amended`: there is an importer too, and a judge. `switched`: the live channel is
    switched off and on.
    """

    def __init__(
        self,
        profile: Profile,
        dice: Callable[[str], random.Random],
        world: trio.Nursery,
        process: Callable[[], Process | None],
        books: Books,
        trace: Trace,
        *,
        disputed: bool,
        amended: bool,
        switched: bool,
    ) -> None:
        network = Network(profile, dice(f"{OPERATOR} network"), world, process, books, trace)
        self.operator = Operator(OPERATOR, network, dice(OPERATOR), books, trace, busy=amended)
        self.viewers = [
            Viewer("viewer of minutes", "minutes", deltas=bool(profile.backends % 2), books=books, trace=trace),
            Viewer("viewer of the present", "main", deltas=True, books=books, trace=trace, live=True),
        ]
        world.start_soon(network.cut_now_and_then)
        world.start_soon(self.operator.work, profile.chaos_s)
        reader = BoardReader("reader of periods", network, dice("reader of periods"), books, trace)
        world.start_soon(reader.read)
        if disputed or amended:
            referee = Referee("referee", network, dice("referee"), books, trace)
            world.start_soon(referee.work, profile.chaos_s)
        if amended:
            importer = Importer(IMPORTER, network, dice(IMPORTER), books, trace)
            world.start_soon(importer.work, profile.chaos_s)
        self._switcher: Switcher | None = None
        if switched:
            network = Network(profile, dice(f"{SWITCHER} network"), world, process, books, trace)
            self._switcher = Switcher(SWITCHER, network, dice(SWITCHER), books, trace)
            world.start_soon(self._switcher.work, profile.chaos_s)
        chance = dice(JUDGE)
        if chance.random() < WORKS or amended:
            network = Network(profile, dice(f"{JUDGE} network"), world, process, books, trace)
            world.start_soon(Judge(JUDGE, network, chance, books, trace, holds=amended).work, JUDGES * profile.chaos_s)
        for viewer in self.viewers:
            world.start_soon(viewer.watch, network, dice(f"{OPERATOR} {viewer.name}"))

    async def rest(self) -> None:
        """Let nothing happen by itself any more, and let viewers in."""
        if self._switcher is not None:
            await self._switcher.rest()
        await self.operator.rest()
