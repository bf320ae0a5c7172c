"""What a scoreboard must show, from its events alone: dictionaries and one sort, obviously right.

A `Plain` is told each event that is known to be on disk, in order. It refuses what must never be in a log (a gap, an
action twice, a sum that is wrong), and says of a real scoreboard whether it shows anything else than the sort does.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.board_rules import rules_of_points
from engine.events import BoardPut, ClockCorrected, EpochBegun, Event, Incremented, UserPut
from engine.log import Log
from engine.record import events_of
from engine.scoreboard import Scoreboard

RULES = rules_of_points({"main": {"ACTION_COMPLETED": 10, "BONUS": 128}, "weekly": {"ACTION_COMPLETED": 1}})

Row = tuple[int, str, int]
"""Rank, user, score."""


class Plain:
    """The state after some events. `events[n]` has the seq n + 1."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.scores: dict[str, dict[str, tuple[int, int]]] = {}
        self.users: dict[str, tuple[str | None, bool]] = {}
        self.actions: dict[str, Incremented] = {}
        self.epoch = 1

    @property
    def seq(self) -> int:
        """The seq of the last event."""
        return len(self.events)

    def take(self, event: Event) -> None:
        """Take in the next event."""
        assert event.seq == self.seq + 1, f"seq {event.seq} after {self.seq}"
        back = bool(self.events) and event.time_ms < self.events[-1].time_ms
        assert not back or isinstance(event, ClockCorrected), f"the time goes back at seq {event.seq}"
        if isinstance(event, Incremented):
            assert event.action_id not in self.actions, f"{event.action_id} is counted twice, at seq {event.seq}"
            assert event.delta == RULES.boards[event.board_id].points[event.reason], f"wrong points at seq {event.seq}"
            assert self.users.get(event.user_id, (None, True))[1], f"an inactive user scored at seq {event.seq}"
            board = self.scores.setdefault(event.board_id, {})
            score = board.get(event.user_id, (0, 0))[0] + event.delta
            assert event.new_score == score, f"seq {event.seq} has the score {event.new_score}, not {score}"
            board[event.user_id] = (score, event.seq)
            self.actions[event.action_id] = event
        elif isinstance(event, UserPut):
            self.users[event.user_id] = (event.display_name, event.active)
        elif isinstance(event, BoardPut):
            assert event.rules == RULES.boards[event.board_id], f"wrong rules at seq {event.seq}"
        elif isinstance(event, EpochBegun):
            assert event.epoch > self.epoch, f"the epoch does not grow at seq {event.seq}"
            self.epoch = event.epoch
        self.events.append(event)

    def ranking(self, board_id: str) -> list[Row]:
        """Sort those who are active by score, then by who reached it first."""
        scores = self.scores.get(board_id, {})
        shown = [user for user in scores if self.users.get(user, (None, True))[1]]
        shown.sort(key=lambda user: (-scores[user][0], scores[user][1]))
        return [(rank, user, scores[user][0]) for rank, user in enumerate(shown, 1)]

    def check_scoreboard(self, scoreboard: Scoreboard) -> None:
        """Compare all that a scoreboard shows: order, ranks, scores, names, actions."""
        assert (scoreboard.epoch, scoreboard.seq) == (self.epoch, self.seq)
        for board_id in RULES.boards:
            board, ranking = scoreboard.boards[board_id], self.ranking(board_id)
            rows = [(row.rank, row.user_id, row.score) for row in board.top(len(ranking) + 1)]
            assert rows == ranking, f"{board_id} shows {rows}, a sort gives {ranking}"
            for rank, user, score in ranking:
                assert (board.rank(user), board.score(user)) == (rank, score)
        for user, (name, active) in self.users.items():
            found = scoreboard.users.get(user)
            assert found is not None
            assert (found.display_name, found.active) == (name, active)
        for action_id, event in self.actions.items():
            assert scoreboard.action_seq(action_id) == event.seq, f"{action_id} is not known by its seq {event.seq}"
        assert len(scoreboard.actions) == len(self.actions)
        scoreboard._check()

    def check_log(self, log: Log) -> None:
        """Compare everything that a log still has; `Log` itself proves that it has no gap."""
        first = log.segments()[0].first_seq
        assert read_events(log, first) == self.events[first - 1 :]


def read_events(log: Log, from_seq: int) -> Sequence[Event]:
    """Read a log from some seq on, to its end."""
    return [event for frame in log.read_from(from_seq) for event in events_of(frame) if event.seq >= from_seq]
