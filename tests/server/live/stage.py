"""Boards with periods on a live channel: a scoreboard with a calendar, and a clock that a test sets.

stage = Stage({"main": WEEKLY})
stage.score("ann", "ben")
stage.pass_to(NEXT_MONDAY_MS)                the changes that are due then, as the leader writes them
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from engine.batch import Batch
from engine.board_rules import BoardRules, Rules
from engine.calendar import period_at
from engine.commands import Command, PutBoard, Rejection
from engine.events import BoardEvent, Event, Incremented, RanksNoted
from engine.periods import due_changes
from engine.schedule import Schedule, Season
from engine.scoreboard import Scoreboard
from server.http.websocket import TEXT
from server.live.board_view import BoardView
from server.live.editions import Channel, Shown
from server.live.live import Live
from tests.engine.model import increment
from tests.server.live.client_frames import take_server_frame
from tests.server.live.watching import BareViewer, Site, handshake_bytes

DAY_MS = 86_400_000
MONDAY_MS = 1_765_756_800_000
"""15 December 2025, midnight UTC: the first day of 2025-W51."""
NOW_MS = MONDAY_MS + DAY_MS
NEXT_MONDAY_MS = MONDAY_MS + 7 * DAY_MS
INTERVAL_S = 1.0
"""More than an interval between two ticks."""
POINTS = {"ACTION_COMPLETED": 10, "BIG": 1000}
WEEKLY = BoardRules({**POINTS}, "The cup", schedule=Schedule("week"))
SEASON = BoardRules({**POINTS}, season=Season(None, NEXT_MONDAY_MS))
PLAIN = BoardRules({**POINTS})


class Stage:
    """A scoreboard. `live` is told of each change as the node tells it."""

    def __init__(self, boards: dict[str, BoardRules]) -> None:
        self.scoreboard = Scoreboard(Rules({}))
        self.now_ms = NOW_MS
        self.live: Live | None = None
        self.actions = 0
        self.do(*(PutBoard(board_id, rules, "ops") for board_id, rules in boards.items()))

    def do(self, *commands: Command) -> None:
        """Perform commands as one submission; none is refused."""
        batch = Batch(self.scoreboard, self.now_ms, period_at)
        batch.decide(commands)
        outcomes = batch.settle()
        assert not [outcome for outcome in outcomes if isinstance(outcome, Rejection)], outcomes
        self._tell(batch.events)

    def pass_to(self, now_ms: int) -> None:
        """Let time pass, and apply what is due then."""
        self.now_ms = now_ms
        while self.scoreboard.due_ms is not None and self.scoreboard.due_ms <= now_ms:
            events = due_changes(self.scoreboard, now_ms, period_at)
            for event in events:
                self.scoreboard.apply(event, self.scoreboard.epoch)
            self._tell(events)

    def score(self, *users: str, board: str = "main", reason: str = "ACTION_COMPLETED") -> None:
        """Give each user points, all in one submission."""
        self.actions += 1
        self.do(*(increment(user, f"{self.actions}-{n}", reason, board) for n, user in enumerate(users)))

    def channel(self, board_id: str = "main", *, live: bool = False) -> Channel:
        """Open a channel of a view of a board."""
        return Channel(BoardView(board_id, live=live), self.scoreboard, lambda: self.now_ms)

    def _tell(self, events: Sequence[Event | BoardEvent]) -> None:
        self.scoreboard._check()
        if self.live is not None:
            boards = {event.board_id for event in events if isinstance(event, Incremented | BoardEvent)}
            if any(isinstance(event, RanksNoted) for event in events):
                boards.update(self.scoreboard.boards)
            self.live.board_changed(boards)


def messages_of(shown: Shown) -> list[dict[str, Any]]:
    """Decode the messages in the frames of one write."""
    data = bytearray(shown.frame)
    messages = []
    while frame := take_server_frame(data):
        assert frame[0] == TEXT
        messages.append(msgspec.json.decode(frame[1]))
    assert not data
    return messages


def types_of(messages: Iterable[dict[str, Any]]) -> list[str]:
    """The types of messages, without what all of them begin with."""
    return [message["type"].removeprefix("scoreboard_") for message in messages]


def rows_of(message: dict[str, Any]) -> list[tuple[str, int]]:
    """The users of a message and their scores."""
    return [(row["userId"], row["score"]) for row in message["entries"]]


def told(channel: Channel, has: int, *, deltas: bool = False) -> list[dict[str, Any]]:
    """Publish, and decode what a viewer with the edition `has` is told."""
    return messages_of(channel.publish().for_viewer(has, deltas=deltas))


async def enter(site: Site, target: str = "/ws/scoreboard", *headers: tuple[str, str]) -> BareViewer:
    """Connect to a target, and read the first message."""
    viewer = await BareViewer.connect(site)
    await viewer.stream.send_all(handshake_bytes(*headers, target=target))
    status, _, body = await viewer.answer()
    assert status == 101, body
    assert types_of([await viewer.message()]) == ["snapshot"]
    return viewer
