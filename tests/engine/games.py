"""A game with boards that have periods, at times that a test sets: `Game` goes the way of a write, with no disk."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from engine.batch import Batch
from engine.board import Board
from engine.board_events import EndedPeriod
from engine.board_rules import BoardDefinition, BoardRules, Rules
from engine.calendar import period_at
from engine.commands import Command, Increment, Outcome, PutBoard, Receipt, Rejection
from engine.events import Event
from engine.periods import PeriodAt, due_changes
from engine.scoreboard import Scoreboard

Answer = int | str


def ms(text: str) -> int:
    """Give a time of UTC, such as "2026-11-27 12:00", in ms since 1970."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000


class Game:
    """A state, the events that made it, and the periods that ended."""

    def __init__(self, at: str, period_at: PeriodAt = period_at) -> None:
        self.scoreboard = Scoreboard(Rules({}))
        self.period_at = period_at
        self.frames: list[Sequence[Event]] = []
        self.ended: list[EndedPeriod] = []
        self.now_ms = ms(at)
        self._actions = 0

    def reach(self, at: str) -> None:
        """Let the clock show this time; what is due happens with the next write, or by `alarm`."""
        self.now_ms = ms(at)

    def alarm(self) -> None:
        """Let happen what is due."""
        scoreboard = self.scoreboard
        now_ms = max(self.now_ms, scoreboard.time_ms)
        while scoreboard.due_ms is not None and scoreboard.due_ms <= now_ms:
            events = due_changes(scoreboard, now_ms, self.period_at)
            self.frames.append(events)
            for event in events:
                scoreboard.apply(event, scoreboard.epoch)
            self.ended += scoreboard.take_ended()

    def write(self, *commands: Command) -> list[Outcome]:
        """Decide and settle commands, after what is due."""
        self.alarm()
        batch = Batch(self.scoreboard, self.now_ms, self.period_at)
        batch.decide(commands)
        if batch.events:
            self.frames.append(batch.events)
        outcomes = batch.settle()
        self.ended += self.scoreboard.take_ended()
        self.scoreboard._check()
        return outcomes

    def put(self, rules: BoardRules, board_id: str = "cup") -> Outcome:
        """Make a board, or change its rules."""
        return self.write(PutBoard(board_id, rules, "ops"))[0]

    def win(self, user: str, reason: str = "WIN", board_id: str = "cup") -> Answer:
        """Count an action; give the new score, or the code of the refusal."""
        self._actions += 1
        [outcome] = self.write(Increment(user, f"action-{self._actions}", reason, board_id, "game"))
        if isinstance(outcome, Rejection):
            return outcome.code
        assert isinstance(outcome, Receipt)
        return outcome.new_score

    def board(self, board_id: str = "cup") -> Board:
        """Give a board."""
        return self.scoreboard.boards[board_id]

    def definition(self, board_id: str = "cup") -> BoardDefinition:
        """Give what events have said of a board."""
        definition = self.board(board_id).definition
        assert definition is not None
        return definition

    def running(self, board_id: str = "cup") -> tuple[str, int, int | None]:
        """Give the running period."""
        period = self.definition(board_id).period
        assert period is not None
        return period.id, period.begins_ms, period.ends_ms

    def past(self, board_id: str = "cup") -> list[tuple[str, int]]:
        """List the ids of the past periods, and how many users were on the board."""
        return [(past.period.id, past.count) for past in self.definition(board_id).past]

    def events(self) -> list[Event]:
        """List all events."""
        return [event for frame in self.frames for event in frame]
