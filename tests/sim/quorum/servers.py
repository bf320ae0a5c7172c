"""A model of the three servers that keep a replicated stream: Raft in virtual time, with what real servers do to it.

    leader    entries ──copies──► two followers ──acks──► committed when two of three have them ──► answers
    entry     a frame, a purge, or nothing (the first entry of each term)

    servers.elect(server); servers.propose(leader, Entry(...), on_commit)

Rules:
- An entry that two servers have, in the log of a leader of its term, stays for ever (`settled`). A server that has
  another entry there breaks the model itself, not the nodes: `_settle` asserts it.
- A leader that is cut off goes on for a while: it takes entries, and answers reads with what it had. Its entries are
  overwritten later, or committed by the next leader: nobody knows.
- A new leader knows less than is committed until the first entry of its term is.
- An election takes 0.2 to 6 s, and nobody answers meanwhile.
- Logs are on disk: a server that was killed comes back with all that it had said to have.
- `passable` holds for servers, and for nodes and servers: a cut has two ends.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import trio

from tests.sim.trace import Trace

TICK_S = 0.25
ELECTION_S = (0.2, 6.0)
CALM_ELECTION_S = (0.2, 1.0)
STALE_S = (0.5, 20.0)
"""How long a leader without a majority takes itself for one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is in a log. `purge`: the place that becomes the first one."""

    term: int
    frame: bytes = b""
    purge: int = 0


class Server:
    """One server. `entries` is its log, the first `commit` of which it knows to be committed, and has applied."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.up, self.stopped = True, False
        self.term = self.commit = 0
        self.entries: list[Entry] = []
        self.first, self.frames = 1, list[bytes]()
        self.leads = False
        self.waiting: dict[int, Callable[[], None]] = {}
        self.matches: dict[str, int] = {}
        self.silent_since_s: float | None = None
        self.patience_s = 0.0

    @property
    def runs(self) -> bool:
        return self.up and not self.stopped

    @property
    def last(self) -> int:
        """The newest place that it has applied."""
        return self.first + len(self.frames) - 1

    @property
    def last_proposed(self) -> int:
        """The newest place, with those that are under way."""
        return self.last + sum(bool(entry.frame) for entry in self.entries[self.commit :])

    def is_behind(self, other: Server) -> bool:
        """Whether the other's log is the newer one, as Raft compares them."""
        return self._newness < other._newness

    @property
    def _newness(self) -> tuple[int, int]:
        return (self.entries[-1].term if self.entries else 0, len(self.entries))

    def step_down(self) -> None:
        """Lead no more. Nobody who waits gets an answer."""
        self.leads = False
        self.waiting.clear()

    def merge(self, entries: tuple[Entry, ...]) -> None:
        """Take what a leader has; what contradicts it goes."""
        for number, entry in enumerate(entries):
            if number < len(self.entries) and self.entries[number] is entry:
                continue
            assert number >= self.commit, "a committed entry would be overwritten"
            self.entries[number:] = entries[number:]
            return

    def apply(self, commit: int) -> None:
        """Apply the entries up to `commit`."""
        for entry in self.entries[self.commit : commit]:
            if entry.frame:
                self.frames.append(entry.frame)
            elif entry.purge > self.first:
                first = min(entry.purge, self.last + 1)
                del self.frames[: first - self.first]
                self.first = first
        self.commit = max(self.commit, commit)


class Servers:
    """The three of them. `delay_s` gives how long a message takes, `sync_s` a write; `calm`: nothing goes wrong."""

    def __init__(
        self, dice: random.Random, tasks: trio.Nursery, trace: Trace, counts: Counter[str], *,
        delay_s: Callable[[], float], sync_s: Callable[[], float], calm: Callable[[], bool],
        on_frame: Callable[[int, bytes], None],
    ) -> None:  # fmt: skip
        """`on_frame` gets each frame when it is settled, with its place."""
        self.all = [Server(name) for name in ("s1", "s2", "s3")]
        self.settled: list[Entry] = []
        self.places = 0
        self.changed = trio.lowlevel.ParkingLot()
        self._cuts: set[frozenset[str]] = set()
        self._dice = dice
        self._tasks = tasks
        self._trace = trace
        self._counts = counts
        self._delay_s, self._sync_s, self._calm = delay_s, sync_s, calm
        self._on_frame = on_frame

    # What befalls them

    def passable(self, one: str, other: str) -> bool:
        """Whether a message gets from one to the other."""
        return one == other or frozenset((one, other)) not in self._cuts

    def cut(self, one: str, other: str) -> None:
        self._cuts.add(frozenset((one, other)))

    def mend(self, one: str, other: str) -> None:
        self._cuts.discard(frozenset((one, other)))
        self.changed.unpark_all()

    def kill(self, server: Server) -> None:
        server.up = False
        server.step_down()

    def revive(self, server: Server) -> None:
        server.up, server.silent_since_s = True, None
        self.changed.unpark_all()

    def stop(self, server: Server) -> None:
        server.stopped = True

    def go_on(self, server: Server) -> None:
        server.stopped = False
        self.changed.unpark_all()

    def heal(self) -> None:
        """Put everything right."""
        self._cuts.clear()
        for server in self.all:
            server.stopped = False
            if not server.up:
                self.revive(server)
        self.changed.unpark_all()

    # What they do

    def reaches(self, one: Server, other: Server) -> bool:
        return one is other or (other.runs and self.passable(one.name, other.name))

    def leader_for(self, server: Server) -> Server | None:
        """Give the leader to whom a server passes requests on, or one of two that take themselves for it."""
        leaders = [each for each in self.all if each.leads and each.runs and self.reaches(server, each)]
        return self._dice.choice(leaders) if leaders else None

    def has_majority(self, server: Server) -> bool:
        return sum(self.reaches(server, each) for each in self.all) >= 2

    def propose(self, leader: Server, entry: Entry, on_commit: Callable[[], None]) -> None:
        """Put an entry into a leader's log. `on_commit` is called when the leader knows that two have it."""
        assert leader.leads
        leader.entries.append(entry)
        leader.waiting[len(leader.entries)] = on_commit
        self._copy(leader)

    async def run(self) -> None:
        """Elect leaders, and let them copy what others lack, until cancelled."""
        alone_until_s: dict[str, float] = {}
        while True:
            for server in self.all:
                if not server.runs:
                    continue
                if server.leads:
                    self._lead(server, alone_until_s)
                else:
                    self._listen(server)
            await trio.sleep(TICK_S)

    def _lead(self, server: Server, alone_until_s: dict[str, float]) -> None:
        if any(each.term > server.term and self.reaches(server, each) for each in self.all):
            server.step_down()
            return
        now_s = trio.current_time()
        if self.has_majority(server):
            alone_until_s.pop(server.name, None)
            if any(self._lacks(server, each) for each in self.all):
                self._copy(server)
        elif now_s >= alone_until_s.setdefault(server.name, now_s + self._dice.uniform(*STALE_S)):
            alone_until_s.pop(server.name)
            self._counts["stale leaders of the stream that gave up"] += 1
            server.step_down()

    def _lacks(self, leader: Server, other: Server) -> bool:
        behind = len(other.entries) < len(leader.entries) or other.commit < leader.commit or other.term < leader.term
        return other is not leader and (behind or leader.matches.get(other.name, 0) < len(leader.entries))

    def _listen(self, server: Server) -> None:
        now_s = trio.current_time()
        leaders = [each for each in self.all if each.leads and each.runs and each.term >= server.term]
        if any(self.reaches(server, each) for each in leaders):
            server.silent_since_s = None
        elif server.silent_since_s is None:
            server.silent_since_s = now_s
            server.patience_s = self._dice.uniform(*(CALM_ELECTION_S if self._calm() else ELECTION_S))
        elif now_s - server.silent_since_s >= server.patience_s:
            server.silent_since_s = None
            self.elect(server)

    def elect(self, server: Server) -> None:
        """Make a server the leader if a majority votes for it: nobody votes for a log that is behind its own."""
        if not server.runs:
            return
        reached = [each for each in self.all if each is not server and self.reaches(server, each)]
        voters = [each for each in reached if not server.is_behind(each)]
        if not voters:
            return
        term = max(each.term for each in [server, *reached]) + 1
        for each in [server, *voters]:
            each.term = term
            each.step_down()
        server.leads = True
        server.matches = {}
        server.entries.append(Entry(term))
        self._counts["leaders of the stream"] += 1
        self._trace.note("leads the stream", server.name, term, server.last, server.last_proposed)
        self._copy(server)

    def _copy(self, leader: Server) -> None:
        entries = tuple(leader.entries)
        for other in self.all:
            if other is not leader:
                self._tasks.start_soon(self._carry, leader, other, leader.term, entries, leader.commit)

    async def _carry(self, leader: Server, other: Server, term: int, entries: tuple[Entry, ...], commit: int) -> None:
        """Bring a copy of a leader's log to another server, and its acknowledgement back."""
        await trio.sleep(self._delay_s() + self._sync_s())
        if not other.up or other.stopped or not self.passable(leader.name, other.name) or other.term > term:
            return
        if other.leads:
            assert other.term < term, "two leaders in one term"
            other.step_down()
        other.term, other.silent_since_s = term, None
        other.merge(entries)
        self._apply(other, min(commit, len(entries)))
        await trio.sleep(self._delay_s())
        if leader.runs and leader.leads and leader.term == term and self.passable(leader.name, other.name):
            leader.matches[other.name] = max(leader.matches.get(other.name, 0), len(entries))
            self._commit(leader)

    def _commit(self, leader: Server) -> None:
        """Commit what two servers have, if it is of the leader's term; what is before it is then committed, too."""
        had = max(leader.matches.values(), default=0)
        if had > leader.commit and leader.entries[had - 1].term == leader.term:
            self._apply(leader, had)
            for number in [number for number in leader.waiting if number <= had]:
                leader.waiting.pop(number)()
            self._copy(leader)

    def _apply(self, server: Server, commit: int) -> None:
        for number in range(server.commit, commit):
            entry = server.entries[number]
            if number < len(self.settled):
                assert self.settled[number] is entry, "two servers have applied different entries"
                continue
            self.settled.append(entry)
            if entry.frame:
                self.places += 1
                self._on_frame(self.places, entry.frame)
        server.apply(commit)
