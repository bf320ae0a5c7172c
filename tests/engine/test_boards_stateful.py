"""Boards of every kind beside a plain model (`tests.engine.plain_boards`), driven by Hypothesis at moving times.

Three boards feed each other. Everything goes the way of a write: what is due is logged and applied first, then a batch
is decided, logged and applied. After each step the two are compared as a whole. At any moment the state may go through
a snapshot, and any prefix of the log may be replayed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import UNSET

from engine.batch import Batch
from engine.board import Board
from engine.board_events import EndedPeriod
from engine.board_rules import (
    BoardDefinition,
    BoardRules,
    Frozen,
    OrderMode,
    PastPeriod,
    Range,
    RankMode,
    Rules,
    ScoreMode,
    WatchRules,
)
from engine.calendar import period_at
from engine.commands import (
    BoardCommand,
    CloseBoard,
    EraseReceipt,
    FlagReceipt,
    FreezeBoard,
    ImportReceipt,
    Increment,
    PutBoard,
    PutUser,
    ResetBoard,
    RevealRows,
    ReversalReceipt,
    ReviewReceipt,
    UnfreezeBoard,
)
from engine.events import BoardEvent, ClockCorrected, EpochBegun, Event, ImportEvent, Incremented
from engine.filtered_frame import pack_filtered, unpack_filtered
from engine.periods import due_changes
from engine.ranking import Standing
from engine.record import HEADER_BYTES, Frame, Tail, events_of, frame_bytes, pack_frame, unpack_frame
from engine.schedule import Period, Schedule, Season
from engine.scoreboard import Scoreboard
from snapshots.digests import StateDigests, difference, digests_of
from snapshots.format import pack, unpack
from tests.engine.model import put, rows
from tests.engine.plain_boards import PlainBoard, PlainBoards, PlainRow, gap, told
from tests.engine.plain_notes import PlainPast
from tests.engine.plain_spans import Span
from tests.seeds import in_ci
from tests.snapshots.images import Bytes

BEGUN_MS = 1_795_388_400_000 - 90_000
"""A minute and a half before the end of a Sunday, in UTC 23:00: hours, days and weeks are all near their ends."""

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

LOG_ID = bytes(range(16))

BOARDS = st.sampled_from(["cup", "laps", "total"])
USERS = st.integers(0, 5).map(lambda number: f"user-{number}")
WORTHS: list[dict[str, int | Range]] = [
    {"WIN": 10, "LATE": -5, "LAP": Range(1, 30)},
    {"WIN": 10},
    {"WIN": 3, "LATE": -15, "LAP": 7},
    {"WIN": Range(0, 12), "LAP": Range(3, 25), "LATE": -1},
    {"WIN": 2**52, "LAP": Range(1, 30)},
]
SPANS = st.sampled_from([Schedule("hour"), Schedule("day"), Schedule("week"), "season", "season", None])
WATCHES: dict[OrderMode, list[WatchRules | None]] = {
    "descending": [None, WatchRules(25), WatchRules(None, 60, 1), WatchRules(30, 90, 2, 1.0), WatchRules(outlier_z=1)],
    "ascending": [None, WatchRules(callers_per_user=1, outlier_z=1.0)],
}
OFFSETS = st.sampled_from([-2 * DAY_MS, -HOUR_MS, MINUTE_MS, 2 * HOUR_MS, 3 * DAY_MS])
TIMES = st.sampled_from([0, 1, MINUTE_MS, 20 * MINUTE_MS, HOUR_MS, 5 * HOUR_MS, DAY_MS, 3 * DAY_MS, 8 * DAY_MS])


@st.composite
def board_rules(draw: st.DrawFn, now_ms: int) -> BoardRules:
    """Any rules, with a schedule, a season from or to a time near this one, or neither."""
    span, season = draw(SPANS), None
    if span == "season":
        begins, ends = sorted(draw(st.tuples(OFFSETS, OFFSETS)))
        season = Season(now_ms + begins, now_ms + ends) if begins < ends else Season(ends_ms=now_ms + ends)
    order: OrderMode = draw(st.sampled_from(["descending", "ascending"]))
    return BoardRules(
        draw(st.sampled_from(WORTHS)),
        score=draw(st.sampled_from(["sum", "best", "last", "count"])),
        order=order,
        ranks=draw(st.sampled_from(["unique", "shared", "dense"])),
        schedule=span if isinstance(span, Schedule) else None,
        season=season,
        keep_periods=draw(st.integers(1, 3)),
        watch=draw(st.sampled_from(WATCHES[order])),
    )


class BoardsMachine(RuleBasedStateMachine):
    """The real state and the plain one, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.scoreboard, self.plain = Scoreboard(Rules({})), PlainBoards()
        self.now_ms = BEGUN_MS
        self.events: list[tuple[Event, int]] = []
        self.frames: list[Frame] = []
        self.actions: list[Increment] = []
        self.ended: list[tuple[int, list[tuple[object, ...]]]] = []
        self.moments: dict[int, StateDigests] = {0: self._digests(self.scoreboard)}

    # The way of a write

    def _digests(self, scoreboard: Scoreboard) -> StateDigests:
        return digests_of(scoreboard.capture())

    def _log(self, events: Sequence[Event], epoch: int = 0) -> None:
        """Log a frame; what is read from it is what was written."""
        if not events:
            return
        epoch = epoch or self.scoreboard.epoch
        data = pack_frame(events, epoch=epoch, previous=7)
        frame = unpack_frame(data)
        assert events_of(frame) == list(events)
        assert frame_bytes(frame) == data
        assert len(data) == HEADER_BYTES + len(frame.body)
        self.frames.append(frame)
        self.events += [(event, epoch) for event in events]

    def _settled(self) -> None:
        for each in self.scoreboard.take_ended():
            self.ended.append((each.past.seq, final_rows(each)))
        self.moments[self.scoreboard.seq] = self._digests(self.scoreboard)

    def _change_periods(self) -> None:
        """Log and apply what is due, as the actor does."""
        scoreboard = self.scoreboard
        self.plain.pass_time(self.now_ms)
        now_ms = max(self.now_ms, scoreboard.time_ms)
        while scoreboard.due_ms is not None and scoreboard.due_ms <= now_ms:
            events = due_changes(scoreboard, now_ms, period_at)
            self._log(events)
            for event in events:
                scoreboard.apply(event, scoreboard.epoch)
            self._settled()

    def _write(self, *commands: Increment | PutUser | BoardCommand) -> None:
        self._change_periods()
        expected = [self.plain.perform(command, self.now_ms) for command in commands]
        batch = Batch(self.scoreboard, max(self.now_ms, self.scoreboard.time_ms), period_at)
        batch.decide(commands)
        self._log(batch.events)
        outcomes = batch.settle()
        self._settled()
        assert [
            told(outcome)
            for outcome in outcomes
            if not isinstance(outcome, ReversalReceipt | ReviewReceipt | ImportReceipt | EraseReceipt | FlagReceipt)
        ] == expected

    # Steps

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """Make three boards, each of which feeds those before it."""
        made: list[str] = []
        for board_id in ("total", "laps", "cup"):
            rules = data.draw(board_rules(self.now_ms))
            feeds = tuple(data.draw(st.lists(st.sampled_from(made), unique=True))) if made else ()
            self._write(PutBoard(board_id, msgspec.structs.replace(rules, feeds=feeds), "ops"))
            made.append(board_id)

    @rule(data=st.data(), board_id=BOARDS, same_ways=st.booleans(), same_span=st.booleans())
    def change_rules(self, data: st.DataObject, board_id: str, same_ways: bool, same_span: bool) -> None:
        """Put new rules, which may be refused because the board has scores."""
        rules = data.draw(board_rules(self.now_ms))
        others = ["cup", "laps", "total", "nowhere"] if data.draw(st.integers(0, 9)) == 9 else ["cup", "laps", "total"]
        others.remove(board_id)
        feeds = tuple(data.draw(st.lists(st.sampled_from(others), unique=True)))
        board = self.plain.boards.get(board_id)
        if same_ways and board is not None:
            rules = msgspec.structs.replace(rules, score=board.rules.score, order=board.rules.order)
        if same_span and board is not None:
            rules = msgspec.structs.replace(rules, schedule=board.rules.schedule, season=board.rules.season)
        self._write(PutBoard(board_id, msgspec.structs.replace(rules, feeds=feeds), "ops"))

    @rule(seed=st.integers(0, 2**32), count=st.integers(1, 12), board_id=BOARDS | st.none())
    def play(self, seed: int, count: int, board_id: str | None) -> None:
        """Count actions of one batch, on one board or on all. Few are refused by the rules."""
        chance, begun = random.Random(seed), len(self.actions)
        for number in range(begun, begun + count):
            on = board_id or chance.choice(["cup", "laps", "total"])
            board = self.plain.boards.get(on)  # its first rules may have been refused
            worths = {"WIN": 1} if board is None else board.rules.points
            reason = chance.choice([*worths])
            worth, value = worths[reason], None
            if isinstance(worth, Range):
                value = chance.randint(worth.min, worth.max)
            if chance.random() < 0.05:
                reason, value = chance.choice(["WIN", "LATE", "NEVER"]), chance.choice([None, 2, 25, 31])
            user = f"user-{chance.randrange(6)}"
            caller = chance.choice(["game", "game", "shop"])
            self.actions.append(Increment(user, f"action-{number}", reason, on, caller, value=value))
        self._write(*self.actions[begun:])

    @precondition(lambda self: self.actions)
    @rule(data=st.data(), user=USERS | st.none())
    def act_again(self, data: st.DataObject, user: str | None) -> None:
        """Send an action again, perhaps for another user."""
        before = data.draw(st.sampled_from(self.actions))
        self._write(before if user is None else msgspec.structs.replace(before, user_id=user))

    @rule(user=USERS, name=st.none() | st.sampled_from(["Ann", "Bob"]), active=st.sampled_from([True, True, False]))
    def change_user(self, user: str, name: str | None, active: bool) -> None:
        """Name a user, take a user off the boards, or put one back."""
        self._write(put(user, UNSET if name is None else name, active))

    @rule(data=st.data(), board_id=BOARDS, knows=st.sampled_from([None, None, "2026-11-22", "2026-W47"]))
    def operate(self, data: st.DataObject, board_id: str, knows: str | None) -> None:
        """Reset or unfreeze a board, or plan a freeze. What the caller knows of the period may be wrong."""
        at_ms = self.now_ms + data.draw(st.sampled_from([-1, 1, HOUR_MS - self.now_ms % HOUR_MS, DAY_MS]))
        commands: list[BoardCommand] = [
            ResetBoard(board_id, "ops", knows),
            ResetBoard(board_id, "ops"),
            FreezeBoard(board_id, "ops", at_ms),
            UnfreezeBoard(board_id, "ops"),
        ]
        self._write(data.draw(st.sampled_from(commands)))

    @rule(board_id=BOARDS)
    def freeze(self, board_id: str) -> None:
        """Freeze a board, which may be frozen already."""
        self._write(FreezeBoard(board_id, "ops"))

    @precondition(lambda self: any(board.shown is not None for board in self.plain.boards.values()))
    @rule(board_id=BOARDS, step=st.integers(1, 2))
    def reveal(self, board_id: str, step: int) -> None:
        """Reveal rows of a board; refused if it is not frozen."""
        self._write(RevealRows(board_id, step, "ops"))

    @precondition(lambda self: any(board.shown is not None for board in self.plain.boards.values()))
    @rule(steps=st.integers(1, 4))
    def reveal_on_stage(self, steps: int) -> None:
        """Reveal a frozen board row by row."""
        for board_id in [board_id for board_id, board in self.plain.boards.items() if board.shown is not None]:
            for _ in range(steps):
                self._write(RevealRows(board_id, 1, "ops"))
                self.is_as_the_model_says()

    @precondition(lambda self: len(self.events) > 40)
    @rule(board_id=BOARDS)
    def close(self, board_id: str) -> None:
        """Close a board, for good."""
        self._write(CloseBoard(board_id, "ops"))

    @rule(ms=TIMES)
    def wait(self, ms: int) -> None:
        """Let time pass, with nobody playing."""
        self.now_ms += ms
        self._change_periods()

    @rule(ms=TIMES, ticks=st.booleans())
    def correct(self, ms: int, ticks: bool) -> None:
        """Put the clock back, by a correction in the log; or forward without one."""
        self._change_periods()
        if ticks:
            self.now_ms += ms
            return
        self.now_ms = max(0, self.scoreboard.time_ms - ms)
        event = ClockCorrected(self.scoreboard.seq + 1, self.now_ms, self.scoreboard.seq + 1, ms, "test")
        self.plain.correct(event.time_ms)
        self._apply_alone(event, self.scoreboard.epoch)

    @rule()
    def elect(self) -> None:
        """Begin an epoch."""
        scoreboard = self.scoreboard
        event = EpochBegun(scoreboard.seq + 1, scoreboard.time_ms, scoreboard.epoch + 1, "test", bytes(range(16)))
        self.plain.seq += 1
        self._apply_alone(event, event.epoch)

    def _apply_alone(self, event: Event, epoch: int) -> None:
        self._log([event], epoch)
        self.scoreboard.apply(event, epoch)
        self._settled()

    # Restarts

    @rule()
    def restart(self) -> None:
        """Go through a snapshot."""
        tail = Tail(LOG_ID, self.scoreboard.epoch, self.scoreboard.seq, 3)
        image, read = unpack(Bytes(b"".join(pack(self.scoreboard.capture(), tail))), "a snapshot")
        assert read == tail
        self.scoreboard = Scoreboard.from_image(Rules({}), image)
        self.scoreboard.end_replay()
        assert self._digests(self.scoreboard) == self.moments[self.scoreboard.seq]

    @precondition(lambda self: len(self.events) > 10)
    @rule(data=st.data())
    def replay_a_prefix(self, data: st.DataObject) -> None:
        """Replay the log up to any event, as a start, as a replica, and as both: the states and the files agree."""
        seq = data.draw(st.integers(0, len(self.events)), label="seq")
        half = data.draw(st.integers(0, seq), label="half")
        states = []
        for follows_from in (0, half, seq):
            scoreboard = Scoreboard(Rules({}))
            scoreboard.begin_replay()
            ended: list[EndedPeriod] = []
            for event, epoch in self.events[:seq]:
                if event.seq == follows_from + 1:
                    scoreboard.end_replay()
                scoreboard.apply(event, epoch)
                ended += scoreboard.take_ended()
            scoreboard.end_replay()
            scoreboard._check()
            states.append(self._digests(scoreboard))
            assert [(each.past.seq, final_rows(each)) for each in ended] == [e for e in self.ended if e[0] <= seq]
        assert states[0] == states[1] == states[2]
        assert self.moments.get(seq, states[0]) == states[0]

    @precondition(lambda self: self.frames)
    @rule(held=st.sets(BOARDS, min_size=1))
    def follow_as_a_shard(self, held: set[str]) -> None:
        """Follow filtered frames with only some boards: these are the same there, and so are the users."""

        def wanted(event: Event) -> bool:
            if isinstance(event, Incremented):
                return bool(held & {event.board_id, *(fed.board_id for fed in event.fed)})
            return not isinstance(event, BoardEvent | ImportEvent) or event.board_id in held

        scoreboard, link = Scoreboard(Rules({})), 5
        for frame in self.frames:
            data, sent = pack_filtered(frame, wanted, link)
            filtered = unpack_filtered(data, link)
            assert filtered.link == sent
            for event in filtered.events:
                scoreboard.follow(event, filtered.header.epoch, held.__contains__)
            scoreboard.advance(filtered.header.last_seq, filtered.header.time_ms)
            link = sent
        scoreboard._check()
        digests = self._digests(scoreboard)
        assert difference(digests, self.moments[self.scoreboard.seq], held.__contains__) is None

    # What must hold

    @invariant()
    def is_as_the_model_says(self) -> None:
        """Rows, ranks, gaps, the public's view, definitions, and what ended."""
        scoreboard, plain = self.scoreboard, self.plain
        scoreboard._check()
        assert (scoreboard.seq, scoreboard.time_ms) == (plain.seq, plain.time_ms)
        assert scoreboard.served() == sorted(plain.boards)
        assert scoreboard.due_ms == plain.due_ms()
        for board_id, board in plain.boards.items():
            real = scoreboard.boards[board_id]
            assert real.definition == definition_of(board)
            check_rows(real, board.rules, plain.rows(board_id), board.past_ranks)
            public = real.public
            assert public.definition is not None
            shown = board.shown
            rules = board.rules if shown is None else shown.rules
            check_rows(public, rules, plain.public_rows(board_id), plain.public_past(board_id))
            for user in plain.inactive() | set(board.done):
                assert real.score(user) == board.score(user)
            for user, place in board.places().items():
                assert real.updated_ms(user) == place.ms
            for user, place in ({} if shown is None else shown.places).items():
                assert (public.score(user), public.updated_ms(user)) == (place.score, place.ms)
        assert [seq for seq, _ in self.ended] == [past.seq for _, past, _ in plain.ended]
        for (_, rows_found), (board_id, past, rows_expected) in zip(self.ended, plain.ended, strict=True):
            assert rows_found == [(board_id, *past.span, past.users), *rows_expected]


def final_rows(ended: EndedPeriod) -> list[tuple[object, ...]]:
    """List what the file of a period will have: its head, then its rows. After a replay the order is built first."""
    ranking, past = ended.ranking, ended.past
    if not ranking.is_ordered:
        ranking.end_replay()
    head = (ranking.board_id, past.period.id, past.period.begins_ms, past.period.ends_ms, past.count)
    return [head, *((row.rank, row.user_id, row.score, row.updated_ms, row.reached_seq) for row in ranking.all_rows())]


def check_rows(board: Board, rules: BoardRules, expected: list[PlainRow], past: PlainPast) -> None:
    """Check all that a board says of its rows."""
    assert rows(board) == expected
    assert [row.change for row in board.top(len(expected))] == past.changes(expected)
    found, _ = board.rows_for([user for _, user, _ in expected])
    assert found == board.top(len(expected))
    assert [(row.rank, row.user_id, row.score) for row in board.top(2)] == expected[:2]
    assert board.ranked == board.users_shown == len(expected)
    for at, (rank, user, score) in enumerate(expected):
        assert (board.rank(user), board.score(user)) == (rank, score)
        assert board.standing(user) == Standing(rank, gap(rules, expected, user))
        first = max(0, min(at - 1, len(expected) - 3))
        around = [(row.rank, row.user_id, row.score) for row in board.around(user, 1)]
        assert around == expected[first : first + 3]


def definition_of(board: PlainBoard) -> BoardDefinition:
    """Say what the model knows of a board as the state does."""
    shown = board.shown
    return BoardDefinition(
        board.rules,
        board.begun_ms,
        None if board.period is None else period_of(board.period),
        tuple(PastPeriod(period_of(past.span), past.seq, past.users) for past in board.past),
        board.over,
        board.closed,
        board.freeze_at_ms,
        None if shown is None else Frozen(shown.seq, shown.ms, len(shown.revealed)),
        board.ever[-len(board.past) - 1].seq if len(board.past) < len(board.ever) else 0,
    )


def period_of(span: Span) -> Period:
    """Say a period as the state does."""
    return Period(span.id, span.begins_ms, span.ends_ms)


@settings(max_examples=in_ci(100, 300))
@given(
    seed=st.integers(0, 2**32),
    ways=st.tuples(st.sampled_from(["sum", "last"]), st.sampled_from(["descending", "ascending"])),
    ranks=st.sampled_from(["unique", "shared", "dense"]),
)
def test_a_reveal_shows_one_row_after_the_other(seed: int, ways: tuple[ScoreMode, OrderMode], ranks: RankMode) -> None:
    """Also while users score, come, go and come back, and over restarts in the middle of it."""
    chance, machine = random.Random(seed), BoardsMachine()
    points: dict[str, int | Range] = {"WIN": 10, "LATE": -5, "LAP": Range(1, 12)}
    machine._write(PutBoard("cup", BoardRules(points, score=ways[0], order=ways[1], ranks=ranks), "ops"))
    machine.play(chance.getrandbits(32), chance.randint(0, 12), "cup")
    machine._write(FreezeBoard("cup", "ops"))
    while machine.plain.boards["cup"].shown is not None and machine.scoreboard.seq < 80:
        step = chance.random()
        if step < 0.3:
            machine.play(chance.getrandbits(32), 2, "cup")
        elif step < 0.5:
            machine.change_user(f"user-{chance.randrange(6)}", None, chance.random() < 0.6)
        elif step < 0.6:
            machine.restart()
        else:
            machine.reveal("cup", 1)
        machine.is_as_the_model_says()
    machine.restart()
    machine.is_as_the_model_says()


TestBoards = BoardsMachine.TestCase
TestBoards.settings = settings(max_examples=in_ci(40, 100), stateful_step_count=40)
