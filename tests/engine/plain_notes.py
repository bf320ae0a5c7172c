"""The earlier ranks of the plain model (`tests.engine.plain_boards`): what was shown, by user."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from msgspec import UNSET

from engine.past_ranks import Change

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

Ranks = dict[str, int]


@dataclass
class PlainPast:
    """What ranks of now are compared with: the notes of the period, the one of a day ago, the last period's end."""

    notes: list[tuple[int, Ranks]] = field(default_factory=list)
    day: Ranks | None = None
    start: Ranks | None = None

    def copy(self) -> PlainPast:
        """Give what stays as it is while a board is frozen."""
        return PlainPast(list(self.notes), self.day, self.start)

    @property
    def is_settled(self) -> bool:
        """Whether all that a day shows is that nobody moved."""
        return self.day is not None and len(self.notes) == 1

    def note(self, as_of_ms: int, now_ms: int, rows: Sequence[tuple[int, str, int]], day_ms: int = DAY_MS) -> None:
        """Note what is shown, if it is new. Before the newest note that is a day old, all are dropped for good.

        Users who share a rank and have changed places are something new, too.
        """
        ranks = {user: rank for rank, user, _ in rows[:100]}
        if not self.notes or list(self.notes[-1][1].items()) != list(ranks.items()):
            self.notes.append((as_of_ms, ranks))
        old = [at for at, (ms, _) in enumerate(self.notes) if ms <= now_ms - day_ms]
        self.notes = self.notes[old[-1] if old else 0 :]
        self.day = self.notes[0][1] if old else None

    def forget(self, user: str) -> None:
        """Forget a user who left the board. What the period before says stays."""
        self.notes = [(ms, {other: rank for other, rank in ranks.items() if other != user}) for ms, ranks in self.notes]
        self.day = None if self.day is None else self.notes[0][1]

    def correct(self, now_ms: int) -> None:
        """Put the clock back."""
        self.notes = [(min(ms, now_ms), ranks) for ms, ranks in self.notes]

    def changes(self, rows: Iterable[tuple[int, str, int]]) -> list[Change | None]:
        """List what the rows say of their moves."""
        changes: list[Change | None] = []
        for at, (rank, user, _) in enumerate(rows):
            day, start = self.day, self.start
            if at >= 100 or (day is None and start is None):
                changes.append(None)
                continue
            changes.append(
                Change(
                    UNSET if day is None else day[user] - rank if user in day else None,
                    UNSET if start is None else start[user] - rank if user in start else None,
                )
            )
        return changes
