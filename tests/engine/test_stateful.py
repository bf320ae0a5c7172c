"""Board, actions and log, driven by Hypothesis in any order of what can be done to them; `_check()` after each step."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.actions import Actions, key_of, mark_of
from engine.board import Board
from engine.errors import NoLongerKept
from engine.events import Event
from engine.limits import SCORE_MAX
from engine.log import Log
from engine.pinned import PinnedOrder
from engine.ranking import TOP_WATCHED, Standing
from engine.record import Tail, events_of
from tests.engine.logs import LOG_ID, SEGMENT_BYTES, increments
from tests.engine.model import rows
from tests.sim.disk import Machine
from tests.sim.runs import cheap_starts
from tests.sim.storage import Chance, Nothing

STEPS = settings(max_examples=80, stateful_step_count=50)

USERS = st.integers(0, 14).map(lambda number: f"user-{number}")


class BoardMachine(RuleBasedStateMachine):
    """A board beside a dictionary and a sort."""

    def __init__(self) -> None:
        super().__init__()
        self.board = Board("main")
        self.scores: dict[str, tuple[int, int]] = {}
        self.hidden: set[str] = set()
        self.names: dict[str, int] = {}
        self.seq = 0
        self.top_before: list[tuple[int, str, int, int]] = []
        self.pinned: list[tuple[PinnedOrder, list[tuple[int, str, int]]]] = []

    def _next(self) -> int:
        self.seq += 1
        return self.seq

    @rule(user=USERS, delta=st.integers(1, 3) | st.just(2**40))
    def score(self, user: str, delta: int) -> None:
        """Add points, at least one as the rules have it; also to a user who is not shown."""
        before = self.scores.get(user, (0, 0))[0]
        if before + delta <= SCORE_MAX:
            seq = self._next()
            self.scores[user] = (before + delta, seq)
            self.board.record(user, before + delta, seq, seq * 10)

    @rule(user=USERS)
    def hide(self, user: str) -> None:
        """Take a user off the board, who may not be on it."""
        self.board.hide(user, self._next())
        self.hidden |= {user} & set(self.scores)

    @rule(user=USERS)
    def show(self, user: str) -> None:
        """Put a user back, who may be there."""
        self.board.show(user, self._next())
        self.hidden.discard(user)

    @rule(user=USERS)
    def rename(self, user: str) -> None:
        """Change a name, which only those see who look at it."""
        self.board.touch(user, self._next())
        self.names[user] = self.seq

    @rule()
    def pin(self) -> None:
        """Keep the order of now, beside at most one other."""
        for pinned, _ in self.pinned[:-1]:
            self.board.unpin(pinned)
        self.pinned = [*self.pinned[-1:], (self.board.pin(), rows(self.board))]

    @rule()
    def replay(self) -> None:
        """Go through an image, as a restart does."""
        self.pinned = []
        image = self.board.capture()
        self.board = Board.from_image(image, sorted(self.hidden))
        self.board.end_replay()

    @invariant()
    def shows_what_a_sort_gives(self) -> None:
        """Rows, ranks, neighbours, and whether the first ten rows changed."""
        self.board._check()
        shown = sorted(self.scores.keys() - self.hidden, key=lambda user: (-self.scores[user][0], self.scores[user][1]))
        expected = [(rank, user, self.scores[user][0]) for rank, user in enumerate(shown, 1)]
        assert rows(self.board) == expected
        for rank, user in enumerate(shown, 1):
            assert self.board.rank(user) == rank
            around = [(row.rank, row.user_id) for row in self.board.around(user, 2)]
            first = max(0, min(rank - 3, len(expected) - 5))
            assert around == [(at, who) for at, who, _ in expected[first : first + 5]]
            lead = None if rank == 1 else expected[rank - 2][2] - self.scores[user][0]
            assert self.board.standing(user) == Standing(rank, lead)
        for pinned, before in self.pinned:
            walked = self.board.rows_of(pinned.keys_after(None, 100))
            assert [(row.rank, row.user_id, row.score) for row in walked] == before
        for user in self.hidden:
            assert (self.board.rank(user), self.board.score(user)) == (None, self.scores[user][0])
        top = [(rank, user, score, self.names.get(user, 0)) for rank, user, score in expected[:TOP_WATCHED]]
        if top != self.top_before and self.seq:
            assert self.board.top10_seq >= self.board.seq, "a change that viewers should see was not noticed"
        self.top_before = top


class ActionsMachine(RuleBasedStateMachine):
    """The index of actions beside a dictionary; in a small table, so that it grows."""

    def __init__(self) -> None:
        super().__init__()
        self._cheap = cheap_starts()
        self._cheap.__enter__()
        self.actions = Actions()
        self.known: dict[str, tuple[int, int]] = {}
        self.seq = 0

    def teardown(self) -> None:
        """Give the table back."""
        self._cheap.__exit__(None, None, None)

    @rule(number=st.integers(0, 300), gap=st.integers(1, 5))
    def apply(self, number: int, gap: int) -> None:
        """Apply an action, unless it was."""
        action_id = f"action-{number}"
        if action_id not in self.known:
            self.seq += gap
            mark = mark_of(f"user-{number}", "main", "WON")
            self.actions.add([key_of(action_id)], self.seq, [mark])
            self.known[action_id] = (self.seq, mark)

    @rule(first=st.integers(0, 300), count=st.integers(20, 120))
    def apply_many(self, first: int, count: int) -> None:
        """Apply so many that the table grows."""
        for number in range(first, first + count):
            self.apply(number, 1)

    @rule(more=st.integers(0, 40))
    def restart(self, more: int) -> None:
        """Go through an image, which does not see what is added after it was taken."""
        image = self.actions.capture()
        self.actions.add([key_of(f"later-{number}") for number in range(more)], self.seq + 1, [0] * more)
        self.actions = Actions.from_image(image)

    @invariant()
    def knows_what_was_applied(self) -> None:
        """All of it, with its seq and its mark, and nothing else."""
        self.actions._check()
        assert len(self.actions) == len(self.known)
        for action_id, (seq, mark) in self.known.items():
            position = self.actions.find(key_of(action_id))
            assert (self.actions.seq_at(position), self.actions.mark_at(position)) == (seq, mark)
        assert self.actions.find(key_of("never applied")) == -1


class LogMachine(RuleBasedStateMachine):
    """A log on a simulated disk beside a list of events; processes and power come and go."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        """Make a log in a new directory."""
        self.fate = Chance(random.Random(seed))
        self.machine = Machine(self.fate)
        self.events: list[Event] = []
        self.first_seq = 1
        disk = self.machine.boot()
        self.log = Log.create(disk, "/data/log", log_id=LOG_ID, segment_bytes=SEGMENT_BYTES)

    @rule(count=st.integers(1, 30))
    def append(self, count: int) -> None:
        """Append a frame."""
        seq = self.log.tail.seq + 1
        events = increments(seq, count, 1_700_000_000_000 + seq)
        self.log.append(events, 1)
        self.events += events

    @rule(data=st.data())
    def compress(self, data: st.DataObject) -> None:
        """Compress a sealed segment, again perhaps."""
        sealed = self.log.segments()[:-1]
        if sealed:
            info = data.draw(st.sampled_from(sealed))
            assert self.log.compress(info).compressed

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """Remove the oldest segments."""
        keep = data.draw(st.integers(self.first_seq, self.log.tail.seq + 1))
        self.log.remove_before(keep)
        self.first_seq = self.log.segments()[0].first_seq
        assert self.first_seq <= keep

    @rule(cut=st.booleans(), clean=st.booleans())
    def restart(self, cut: bool, clean: bool) -> None:
        """End the process, perhaps with the machine, and open the log again."""
        tail, after = self.log.tail, self._tail_before(self.first_seq)
        if clean:
            self.log.close()
        if cut:
            self.machine.cut_power(self.fate)
        else:
            self.machine.kill()
        replayed: list[Event] = []
        self.log = Log.open(
            self.machine.boot(),
            "/data/log",
            after=after,
            apply=lambda frame: replayed.extend(events_of(frame)),
            tell=lambda what: None,
            segment_bytes=SEGMENT_BYTES,
        )
        assert replayed == self.events[self.first_seq - 1 :]
        assert self.log.tail == tail

    def _tail_before(self, seq: int) -> Tail | None:
        """Give the place before the first event that is kept, as a snapshot has it."""
        if seq == 1:
            return None
        frame = next(self.log.read_from(seq))
        return Tail(log_id=LOG_ID, epoch=1, seq=seq - 1, checksum=frame.previous)

    @precondition(lambda self: self.events)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        """Read from anywhere: what is kept comes back, what is not is told."""
        seq = data.draw(st.integers(1, len(self.events)))
        if seq < self.first_seq:
            with pytest.raises(NoLongerKept) as gone:
                self.log.event_at(seq)
            assert gone.value.first_seq == self.first_seq
        else:
            frame, event = self.log.event_at(seq)
            assert event == self.events[seq - 1]
            assert frame.first_seq <= seq <= frame.last_seq

    @invariant()
    def has_every_event_that_is_kept(self) -> None:
        """In order, without a gap, over all segments; and the segments say what they hold."""
        if not hasattr(self, "log"):
            return
        assert self.log.tail.seq == len(self.events)
        infos = self.log.segments()
        assert infos[0].first_seq == self.first_seq
        for info, following in pairwise(infos):
            assert info.sealed
            assert following.first_seq == info.last_seq + 1
        assert not infos[-1].sealed
        read = [event for frame in self.log.read_from(self.first_seq) for event in events_of(frame)]
        assert read == self.events[self.first_seq - 1 :]
        # And it would all be there after a power cut at this moment, at the worst.
        machine = self.machine.fork(Nothing())
        machine.cut_power()
        on_disk = machine.files("/data/log")
        assert {info.path for info in infos} <= set(on_disk)


TestBoard = BoardMachine.TestCase
TestActions = ActionsMachine.TestCase
TestLog = LogMachine.TestCase
TestBoard.settings = TestActions.settings = TestLog.settings = STEPS
