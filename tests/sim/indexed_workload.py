"""The life of a leader that seals older actions, for crashes at each of its steps (`tests.sim.crashes`).

It seals, joins, repeats sealed actions, forgets an erased user, and comes upon files of actions that are damaged or
missing when it starts. Events are written while files are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from engine import action_blocks
from tests.sim.crashes import REPEATED, Workload
from tests.sim.station import DATA
from tests.sim.storage import DirectoryNode

BLOCK_ACTIONS = 4


@contextmanager
def small_blocks() -> Iterator[None]:
    """Have blocks of a few actions."""
    with mock.patch.object(action_blocks, "BLOCK_ACTIONS", BLOCK_ACTIONS):
        yield


class IndexedWorkload(Workload):
    """See above."""

    indexed = True
    written_every = 16

    async def run(self) -> None:
        """Live it."""
        self._start()
        self._write(lambda station: station.play(3))
        await self._checkpoint()  # seals 2 blocks
        self._write(lambda station: station.repeat(REPEATED))
        self._write(lambda station: station.play(2))
        await self._checkpoint()
        self._start()
        self._write(lambda station: station.erase("user-1"))
        self._write(lambda station: station.play(1))
        await self._checkpoint()  # the files forget
        self._write(lambda station: station.repeat(REPEATED))
        self._damage(remove=True)
        self._start()
        self._damaged = False
        self._write(lambda station: station.play(2))
        await self._checkpoint()  # joins
        self._damage(remove=False)
        self._start()
        self._damaged = False
        self._write(lambda station: station.repeat(REPEATED))
        self._write(lambda station: station.play(1))
        await self._checkpoint()

    def _damage(self, *, remove: bool) -> None:
        """Take the file of the first actions away from under the next start, or have a bit of it flip."""
        self.machine.kill()
        runs = self.machine.files(f"{DATA}/actions")
        path = max(path for path in runs if path.startswith(f"{DATA}/actions/{0:010}-"))
        self._damaged = True
        if remove:
            directory, _, name = path.rpartition("/")
            node = self.machine.node(directory)
            assert isinstance(node, DirectoryNode)
            del node.names[name]
            node.sync()
        else:
            runs[path].flip(len(runs[path].durable) - 20, 3)
