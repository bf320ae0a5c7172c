"""A plain model of the scoreboard, obviously right: dictionaries and one sort. Tests hold the real one against it."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import UNSET, UnsetType

from engine.batch import Batch
from engine.board import Board
from engine.commands import BoardReceipt, Command, Increment, Outcome, PutUser, Receipt, Rejection, UserReceipt
from engine.scoreboard import Scoreboard


@dataclass
class Model:
    """Scores as (score, seq at which it was reached), by board and user."""

    points: dict[str, dict[str, int]]
    require_registered: bool = False
    seq: int = 0
    scores: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    users: dict[str, tuple[str | None, bool]] = field(default_factory=dict)
    actions: dict[str, tuple[int, str, str, str]] = field(default_factory=dict)

    def ranking(self, board_id: str) -> list[tuple[int, str, int]]:
        """List (rank, user, score): a sort by score, then by who reached it first, of those who are active."""
        scores = self.scores.get(board_id, {})
        shown = [user for user in scores if self.users.get(user, (None, True))[1]]
        shown.sort(key=lambda user: (-scores[user][0], scores[user][1]))
        return [(rank, user, scores[user][0]) for rank, user in enumerate(shown, 1)]

    def rank(self, board_id: str, user_id: str) -> int | None:
        """Look a rank up in the sorted list."""
        return next((rank for rank, user, _ in self.ranking(board_id) if user == user_id), None)

    def perform(self, command: Command) -> tuple[str, int | None, int | None]:
        """Perform a command: what became of it, the seq and the score."""
        if isinstance(command, PutUser):
            return self._put(command)
        assert isinstance(command, Increment)
        applied = self.actions.get(command.action_id)
        what = (command.user_id, command.board_id, command.reason)
        if applied is not None:
            if applied[1:] != what:
                return "CONFLICT", None, None
            return "duplicate", applied[0], self.scores[command.board_id][command.user_id][0]
        delta = self.points.get(command.board_id, {}).get(command.reason)
        name_active = self.users.get(command.user_id)
        if delta is None or (name_active is None and self.require_registered) or (name_active and not name_active[1]):
            return "INVALID_REQUEST", None, None
        board = self.scores.setdefault(command.board_id, {})
        score = board.get(command.user_id, (0, 0))[0] + delta
        self.seq += 1
        board[command.user_id] = (score, self.seq)
        self.actions[command.action_id] = (self.seq, *what)
        return "applied", self.seq, score

    def _put(self, command: PutUser) -> tuple[str, int | None, int | None]:
        before = self.users.get(command.user_id)
        name, active = before or (None, True)
        after = (
            name if command.display_name is UNSET else command.display_name,
            active if command.active is UNSET else command.active,
        )
        if before == after:
            return "unchanged", None, None
        self.users[command.user_id] = after
        self.seq += 1
        return "put", self.seq, None


def told(outcome: Outcome) -> tuple[str, int | None, int | None]:
    """Bring a real outcome into the model's terms."""
    if isinstance(outcome, Rejection):
        return outcome.code, None, None
    assert not isinstance(outcome, BoardReceipt)
    if isinstance(outcome, UserReceipt):
        return ("put", outcome.seq, None) if outcome.applied else ("unchanged", None, None)
    assert isinstance(outcome, Receipt)
    return "applied" if outcome.applied else "duplicate", outcome.seq, outcome.new_score


def perform(scoreboard: Scoreboard, commands: list[Command], now_ms: int = 0) -> list[Outcome]:
    """Decide and settle commands as one batch, as the actor does, with a disk that never fails."""
    batch = Batch(scoreboard, now_ms)
    batch.decide(commands)
    return batch.settle()


def increment(user: str, action: str, reason: str = "ACTION_COMPLETED", board: str = "main") -> Increment:
    """Make an increment by the caller `tests`."""
    return Increment(user_id=user, action_id=action, reason=reason, board_id=board, caller="tests")


def put(user: str, name: str | UnsetType | None = UNSET, active: bool | UnsetType = UNSET) -> PutUser:
    """Make a change of a user by the caller `tests`."""
    return PutUser(user_id=user, display_name=name, active=active, caller="tests")


def rows(board: Board, count: int = 1_000_000) -> list[tuple[int, str, int]]:
    """List a board's rows as plain tuples."""
    return [(row.rank, row.user_id, row.score) for row in board.top(count)]
