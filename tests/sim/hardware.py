"""What goes wrong with the machine of a simulated run: power cuts, kills, a disk that fails, fills up, rots or is slow.

The profile gives the chances at each step of the disk during the chaos; after it all is `calm`. The machine remembers
what went wrong, so the judge can tell whether a fault was due to it: `ailing` since the disk last failed, `flipped`
while a bit is wrong or a file of actions is taken away, `was_cut` if the power cut ended the process, `lacks_room`
since the disk was last full. A disk without room is no failure: what leads must go on. While a user is being erased no
snapshot rots (`erases`): there is one, and the log is half rewritten, so it is what a start needs.
"""

from __future__ import annotations

import random

import trio
from trio.testing import MockClock

from engine.record import FRAME_MAGIC, LENGTH_OFFSET
from tests.sim.books import Books
from tests.sim.disk import PLENTY_BYTES, Machine, Moment, SimulatedDisk, Trouble
from tests.sim.indexes import DATA, lacks_runs
from tests.sim.mishaps import NONE, NOTICED_S, Mishaps
from tests.sim.profile import Profile
from tests.sim.storage import Chance, DirectoryNode, FileNode
from tests.sim.trace import Trace

FULL_S = 2.0
"""How long a full disk stays full."""

ANSWER_S = 2.0
"""Longer than a client waits for an answer."""

ASIDE = "aside"
"""The name of what an operator took away, in the root."""

RUN = ".run"
"""How the name of a file of actions ends."""

AT_LENGTH = 0.2
"""So often a bit of a log flips in the length of one of the last two frames: such a frame seems to be torn."""

REMOVES_FAIL = 15
"""How much likelier a removal fails than another step: there are few removals."""


class Hardware:
    """See above."""

    def __init__(
        self, profile: Profile, dice: random.Random, books: Books, trace: Trace, mishaps: Mishaps = NONE
    ) -> None:
        self.profile = profile
        self.mishaps = mishaps
        self.machine = Machine(Chance(dice), on_step=self._on_step, trouble=self._trouble)
        self.machine.free_bytes = lambda: 0 if self._is_full() else PLENTY_BYTES
        self.ailing = False
        self.lacks_room = False
        self.was_cut = False
        self.erases = False
        self.disks_lost = 0
        self._dice = dice
        self._books = books
        self._trace = trace
        self._full_until_s = 0.0
        self._spoiled_until_s = 0.0
        self._flips: list[tuple[str, FileNode, int, int]] = []
        self._lost: list[tuple[str, FileNode]] = []
        self._runs: dict[str, bytes] = {}

    @property
    def calm(self) -> bool:
        """Whether nothing goes wrong any more."""
        return trio.current_time() >= self.profile.chaos_s

    @property
    def flipped(self) -> bool:
        """Whether there is a bit that flipped, or a file of actions that was taken away, and was not mended."""
        return bool(self._flips or self._lost)

    @property
    def spoils_receipts(self) -> bool:
        """Whether a receipt may not be readable just now."""
        return self.flipped or self.ailing or trio.current_time() < self._spoiled_until_s

    def cut_power(self) -> None:
        """End the process and lose what was not durable; perhaps a bit flips, too."""
        self.was_cut = True
        self.machine.cut_power(Chance(self._dice))
        if not self.calm and self._dice.random() < self.profile.flip:
            self._flip()

    def _flip(self) -> None:
        """Flip a bit of a file on the disk."""
        files = {path: node for path, node in self.machine.files("/data").items() if path != "/data/lock"}
        if self.erases:
            files = {path: node for path, node in files.items() if "/snapshots/" not in path}
        path = self._dice.choice(sorted(files)) if files else ""
        if path:
            node = files[path]
            written = len(node.durable.rstrip(b"\0")) if self._dice.random() < 0.9 else len(node.durable)
            if written:
                # Near the end more often than elsewhere: the newest acknowledged events are there.
                near = self._dice.random() < 0.5
                offset = max(0, written - 1 - self._dice.randrange(200)) if near else self._dice.randrange(written)
                heads = _heads(node.durable) if path.endswith(".log") else []
                if heads and self._dice.random() < AT_LENGTH:
                    offset = self._dice.choice(heads[-2:]) + LENGTH_OFFSET + self._dice.randrange(2)
                bit = self._dice.randrange(8)
                if self._is_hit(node, offset):
                    return
                node.flip(offset, bit)
                self._flips.append((path, node, offset, bit))
                self._trace.note("flip", path, offset, bit)
                self._books.counts["bits flipped"] += 1

    def _is_hit(self, node: FileNode, offset: int) -> bool:
        """Whether a bit of the same frame of a log has flipped already.

        Two flipped bits in one frame look like a torn write if one of them is in the length (`engine/README.md`).
        """
        places = [there for _, hit, there, _ in self._flips if hit is node]
        between = [bytes(node.cached[min(there, offset) : max(there, offset)]) for there in places]
        return any(FRAME_MAGIC not in piece for piece in between)

    def mend(self) -> None:
        """Restore the flipped bits from a backup, and put the files of actions back that a snapshot still names."""
        for _, node, offset, bit in self._flips:
            node.flip(offset, bit)
        self._flips.clear()
        wanted = lacks_runs(SimulatedDisk(self.machine, self.machine.process), DATA) if self._lost else []
        for path, node in self._lost:
            directory = self.machine.node(path.rpartition("/")[0])
            if path.rpartition("/")[2] in wanted and isinstance(directory, DirectoryNode):
                directory.names[path.rpartition("/")[2]] = node
                directory.sync()
        self._lost.clear()

    def lose_run(self) -> None:
        """Take a file of actions away, perhaps, between two lives."""
        runs = [path for path in self.machine.files("/data/actions") if path.endswith(RUN)]
        if runs and not self.calm and self._dice.random() < self.profile.run_lost:
            path = self._dice.choice(runs)
            directory, name = self._place_of(path)
            node = directory.names.pop(name)
            assert isinstance(node, FileNode)
            directory.sync()
            self._lost.append((path, node))
            self._trace.note("run lost", path)
            self._books.counts["runs lost"] += 1

    def made_anew(self, path: str) -> None:
        """Note that a file of actions was made anew: what was wrong with it is gone."""
        self._books.counts["runs made anew"] += 1
        self._flips = [flip for flip in self._flips if flip[0] != path]
        self._lost = [lost for lost in self._lost if lost[0] != path]

    def mend_for_a_start(self) -> None:
        """Mend it between two lives. An answer from before may still be on its way to a reader."""
        self._spoiled_until_s = trio.current_time() + ANSWER_S
        self.mend()

    def opened(self) -> None:
        """Note that the log was opened. A flip in its last segment was outside all frames, and will be overwritten."""
        segments = [path for path in self.machine.files("/data/log") if path.endswith(".log")]
        self._flips = [flip for flip in self._flips if flip[0] not in segments[-1:]]

    def process_ended(self) -> None:
        """Note that the process has ended, for any reason."""
        self.machine.kill()
        self.ailing = self.was_cut = self.lacks_room = False

    def replace_disk(self) -> None:
        """Begin with an empty disk."""
        self.machine.kill()
        self.machine.root = DirectoryNode()
        self.disks_lost += 1
        self._flips.clear()
        self._lost.clear()

    def _on_step(self, moment: Moment, name: str, path: str) -> None:
        profile, dice = self.profile, self._dice
        if moment is Moment.AFTER and name == "rename" and path.endswith(RUN):
            self._written(path)
        if self.calm:
            return
        if moment is Moment.BEFORE and profile.slow_step_s and dice.random() < 0.2:
            clock = trio.lowlevel.current_clock()
            assert isinstance(clock, MockClock)
            clock.jump(dice.expovariate(1 / profile.slow_step_s))
            self._books.counts["slow steps"] += 1
        if dice.random() < profile.cut_at_step:
            self._trace.note("cut", moment.value, name, path)
            self._books.counts["power cuts at a step"] += 1
            self.cut_power()
        elif dice.random() < profile.kill_at_step:
            self._trace.note("kill", moment.value, name, path)
            self._books.counts["kills at a step"] += 1
            self.machine.kill()

    def _written(self, path: str) -> None:
        """Note a file of actions that appeared."""
        name = path.rpartition("/")[2]
        first, end = int(name[:10]), int(name[11:21])
        node = self.machine.node(path)
        assert isinstance(node, FileNode)
        changed = self._runs.get(name, node.cached) != node.cached
        self._books.counts["runs that forgot" if changed else "runs joined" if end - first > 1 else "runs written"] += 1
        self._runs[name] = bytes(node.cached)

    def _trouble(self, name: str, path: str) -> Trouble | None:
        profile, dice, now = self.profile, self._dice, trio.current_time()
        if self.calm:
            return None
        if dice.random() < profile.disk_full:
            self._full_until_s = now + FULL_S
        trouble = None
        if now < self._full_until_s:
            trouble = Trouble.FULL
        if dice.random() < profile.step_error * (REMOVES_FAIL if name == "remove" else 1):
            trouble = Trouble.ERROR
        laid_out = name == "write" and path.endswith(".log")  # only a tiny segment could be too short for a frame
        if trouble is None and ((self._is_full() and not laid_out) or self._refuses(path)):
            self.lacks_room = True
            self._trace.note("no room", name, path)
            self._books.counts[f"no room to {name}"] += name in {"create", "preallocate", "make_directory"}
            return Trouble.NO_ROOM
        if trouble is not None:
            self.ailing = True
            self._trace.note("trouble", trouble.value, name, path)
            self._books.counts[f"{trouble.value} of {name}"] += 1
        return trouble

    def _is_full(self) -> bool:
        return not self.calm and self.mishaps.is_full(trio.current_time())

    def _refuses(self, path: str) -> bool:
        return path.startswith("/data/periods/") and self.mishaps.refuses_periods(trio.current_time())

    def names(self) -> dict[str, list[str]]:
        """List the names in the data directory."""
        found = {}
        for path in ("/data", "/data/log", "/data/snapshots"):
            node = self.machine.node(path)
            if isinstance(node, DirectoryNode):
                found[path] = sorted(node.names)
        return found

    def live_segment(self) -> str | None:
        """Give the path of the last segment; None without one."""
        segments = [path for path in self.machine.files("/data/log") if path.endswith(".log")]
        return segments[-1] if segments else None

    # What an operator takes away by mistake, and puts back

    def take_away(self, path: str, *, empty: bool = False) -> None:
        """Move what is at a path aside, durably. `empty`: leave an empty directory in its place."""
        self.ailing = True
        self._spoiled_until_s = trio.current_time() + NOTICED_S + ANSWER_S
        for known in self.names():
            below = self.machine.node(known)
            assert isinstance(below, DirectoryNode)
            below.sync()  # no power cut brings a name back that was removed before
        directory, name = self._place_of(path)
        node = directory.names.pop(name)
        self.machine.root.names[ASIDE] = node
        if empty:
            directory.names[name] = DirectoryNode()
        directory.sync()
        self.machine.root.sync()

    def put_back(self, path: str) -> None:
        """Put back what was taken away. An answer from before may still be on its way to a reader."""
        self._spoiled_until_s = trio.current_time() + ANSWER_S
        directory, name = self._place_of(path)
        directory.names[name] = self.machine.root.names.pop(ASIDE)
        directory.sync()
        self.machine.root.sync()

    def _place_of(self, path: str) -> tuple[DirectoryNode, str]:
        above, _, name = path.rpartition("/")
        directory = self.machine.node(above or "/")
        assert isinstance(directory, DirectoryNode)
        return directory, name


def _heads(data: bytes | bytearray) -> list[int]:
    """List where the frames of a segment begin."""
    heads, place = [], data.find(FRAME_MAGIC)
    while place >= 0:
        heads.append(place)
        place = data.find(FRAME_MAGIC, place + 1)
    return heads
