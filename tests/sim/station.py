"""A leader without tasks, driven step by step. It knows what it acknowledged and what is in flight.

`indexed`: it seals older actions, and keeps its log, so files of actions can be made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from engine.action_reading import keys_of
from engine.batch import Batch
from engine.clock import GivenClock
from engine.commands import Command, EraseUser, Increment, PutBoard
from engine.errors import DiskFault
from engine.events import Event
from engine.image import StateImage
from engine.ledger import Ledger
from engine.periods import due_changes
from engine.record import Tail
from engine.recovery import Finding
from engine.sealed_actions import read_wants
from engine.traces import newest_first
from snapshots.checkpoint import Checkpointer
from snapshots.opening import Opened, open_directory
from snapshots.period_store import PeriodStore
from snapshots.periods import write_ended
from snapshots.sealing import IndexRules, Sealer
from snapshots.store import SnapshotInfo, Store
from tests.sim.boards import RULES, period_at
from tests.sim.disk import SimulatedDisk
from tests.sim.plain import CONFIGURATION, Plain

DATA = "/data"
LOG_ID = bytes(range(1, 17))
SEGMENT_BYTES = 1024
LOG_KEEP_SECONDS = 70.0
"""In a workload of 200 events, a second each: some segments are compressed, and some go."""
BEGUN_MS = 1_765_000_000_000
DAY_MS, NOTE_EVERY_MS = 20_000, 3_000
"""Days, and the time between notes of ranks, of a life in which an event takes a second."""


def _random_bytes(count: int) -> bytes:
    return LOG_ID[:count]


class Station:
    """A leader without tasks: it writes as the actor does. `plain` has what it acknowledged and submitted."""

    def __init__(self, disk: SimulatedDisk, plain: Plain, *, indexed: bool = False) -> None:
        self.plain = plain
        self.flying: Sequence[Event] = ()
        self.told: list[Finding | DiskFault] = []
        self.disk = disk
        self._refused = 1_000_000 * disk.machine.process
        opened = open_at(disk, DATA, self.told.append)
        self.scoreboard = opened.scoreboard
        self.log = opened.log
        self.tail = opened.log.tail
        self._checkpointer = Checkpointer(
            self,
            Store(disk, DATA),
            opened,
            every_events=1,
            keep=2,
            log_keep_seconds=None if indexed else LOG_KEEP_SECONDS,
            clock=GivenClock(self.clock_ms),
            tell=self.told.append,
            before_capture=self._seal,
            settle=self._settle,
        )
        rules = IndexRules("disk" if indexed else "memory")
        self._sealer = Sealer(self.scoreboard, disk, DATA, self.log, rules, tell=self.told.append)

    async def _seal(self) -> None:
        await self._sealer.seal()

    async def _settle(self, _: SnapshotInfo) -> None:
        try:
            await self._sealer.forget()
            await self._sealer.tidy()
        except DiskFault as fault:
            self.told.append(fault)

    def capture(self) -> tuple[StateImage, Tail]:
        """See `Captured`."""
        return self.scoreboard.capture(), self.tail

    def clock_ms(self) -> int:
        """A second for each event."""
        return BEGUN_MS + 1000 * (self.scoreboard.seq + 1)

    def write(self, *commands: Command) -> None:
        """Decide, log, apply, acknowledge."""
        actions = self.scoreboard.actions
        actions.sealed.note(read_wants(actions.unread([*keys_of(commands)])))
        batch = Batch(self.scoreboard, self.clock_ms(), period_at)
        batch.decide(commands)
        if batch.events:
            self._append(batch.events)
        batch.settle()
        self._acknowledge()

    def put_boards(self) -> None:
        """Make all boards by events: until then the file said what they are."""
        self.write(*(PutBoard(board_id, rules, CONFIGURATION) for board_id, rules in RULES.boards.items()))

    def change_periods(self) -> None:
        """Do what is due for boards next, at its time, and what has become due meanwhile."""
        definitions = [board.definition for board in self.scoreboard.boards.values()]
        dues = [each.due_ms for each in definitions if each is not None and each.due_ms is not None]
        now_ms = min(dues, default=None)
        while now_ms is not None:
            now_ms = max(now_ms, self.clock_ms(), self.scoreboard.time_ms)
            events: list[Event] = [*due_changes(self.scoreboard, now_ms, period_at)]
            self._append(events)
            for event in events:
                self.scoreboard.apply(event, self.scoreboard.epoch)
            self._acknowledge()
            due_ms = self.scoreboard.due_ms
            now_ms = due_ms if due_ms is not None and due_ms <= self.clock_ms() else None

    def play_in_a_minute(self) -> None:
        """Write an action in a period that ends soon."""
        self.change_periods()
        self.write(Increment("user-1", "minute", "ACTION_COMPLETED", "minutes", "tests"))

    def _append(self, events: list[Event]) -> None:
        self.flying = list(events)
        self.log.append(events, self.scoreboard.epoch)
        self.tail = self.log.tail

    def _acknowledge(self) -> None:
        """Let the others know, and make the files of the periods that ended."""
        for event in self.flying:
            self.plain.take(event)
        self.flying = ()
        for ended in self.scoreboard.take_ended():
            write_ended(PeriodStore(self.disk, DATA), ended, self.tail.log_id)

    def play(self, frames: int) -> None:
        """Write a number of frames of three events each."""
        for _ in range(frames):
            self.write(*self.increments(3))

    def increments(self, count: int) -> list[Command]:
        """Make increments of actions that were never submitted before."""
        first = len(self.scoreboard.actions) + self._refused
        made = [_increment(number) for number in range(first, first + count)]
        self._refused += sum(not self.plain.users.get(one.user_id, (None, True))[1] for one in made)
        return list(made)

    def repeat(self, count: int) -> None:
        """Write some actions again, the first ones and the last, as they were and otherwise: nothing may be applied."""
        seq, events = self.scoreboard.seq, [*self.plain.actions.values()]
        for event in (*events[:count], *events[-count:]):
            again = Increment(event.user_id, event.action_id, event.reason, event.board_id, "tests")
            self.write(again, replace(again, user_id=f"not {event.user_id}"))
        assert self.scoreboard.seq == seq

    def erase(self, user: str) -> None:
        """Erase a user."""
        events = [event for _, event in Ledger(self.disk, self.log).events_of(user)]
        self.write(EraseUser(user, "tests", newest_first(user, self.scoreboard.seq, events)))

    async def checkpoint(self) -> None:
        """Take a snapshot, and remove what retention allows."""
        await self._checkpointer.take()


def _increment(number: int) -> Increment:
    board = "weekly" if number % 5 == 0 else "main"
    reason = "BONUS" if number % 7 == 0 and board == "main" else "ACTION_COMPLETED"
    return Increment(f"user-{number % 6}", f"action-{number}", reason, board, "tests")


def open_at(disk: SimulatedDisk, directory: str, tell: Callable[[Finding | DiskFault], None]) -> Opened:
    return open_directory(disk, directory, RULES, tell=tell, random_bytes=_random_bytes, segment_bytes=SEGMENT_BYTES)
