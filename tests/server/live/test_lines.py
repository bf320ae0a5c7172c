"""What a line says, beside a plain sorted list: whatever happens between two ticks, and however slow the viewer is."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.board_rules import rules_of_points
from engine.commands import Command
from engine.scoreboard import Scoreboard
from server import bounds
from server.http.messages import Refused
from server.live import moves
from server.live.board_view import BoardView
from server.live.lines import Lines, ViewerLines
from tests.engine.model import Model, increment, perform, put
from tests.server.live.client_frames import take_server_frame

EXAMPLES = 300
POINTS = {"main": {"ONE": 1, "TWO": 2, "TEN": 10}, "weekly": {"ONE": 1}}
NOW_MS = 1_765_802_096_000
ALWAYS = "generatedAt", "type", "epoch"


def decoded(frame: bytes) -> dict[str, Any]:
    """Decode one whole frame."""
    data = bytearray(frame)
    taken = take_server_frame(data)
    assert taken is not None
    assert not data
    message: dict[str, Any] = msgspec.json.decode(taken[1])
    return message


class World:
    """A scoreboard, its plain model, and lines on it. `age_ms` is that of a stale state."""

    def __init__(self) -> None:
        self.scoreboard = Scoreboard(rules_of_points(POINTS))
        self.model = Model(POINTS)
        self.age_ms: int | None = None
        self.lines = Lines(self.scoreboard, lambda: NOW_MS, lambda: self.age_ms)
        self.actions = 0

    def do(self, *commands: Command) -> None:
        """Perform commands as one batch, and tell the lines."""
        for command in commands:
            self.model.perform(command)
        perform(self.scoreboard, list(commands))
        for board_id in POINTS:
            self.lines.board_changed(board_id)

    def score(self, *users: str, reason: str = "ONE", board: str = "main") -> None:
        """Give each user points."""
        self.actions += len(users)
        self.do(*(increment(user, f"{self.actions}-{n}", reason, board) for n, user in enumerate(users)))

    def tick(self) -> None:
        """Look at all lines of the boards that changed. Nothing is written."""
        for part in self.lines.take_due():
            for lines in part.begin():
                part.look(lines)
            part.finish()
        self.lines._check()

    def subscribe(self, user: str, board: str = "main") -> tuple[ViewerLines, dict[str, Any]]:
        """Subscribe a new viewer, and take its first message."""
        viewer = ViewerLines()
        self.lines.subscribe(viewer, BoardView(board), user)
        (message,) = written(viewer)
        return viewer, message


def written(viewer: ViewerLines) -> list[dict[str, Any]]:
    """Write all that a viewer is owed."""
    messages = []
    while (frame := viewer.first()) is not None:
        viewer.wrote()
        messages.append(decoded(frame))
    return messages


# Against the model


class Expected:
    """What one viewer must be told of one user: a snapshot of the model at its last message, and the last message."""

    def __init__(self, world: World, user: str) -> None:
        self.world = world
        self.user = user
        self.viewer = ViewerLines()
        self.behind: set[str] | None = None
        self.said: tuple[Any, ...] | None = None
        self.owed: tuple[dict[str, Any], set[str] | None, tuple[Any, ...]] | None = None

    def look(self) -> None:
        """Work out what is owed now, from a sorted list."""
        model = self.world.model
        ranking = model.ranking("main")
        place = next((n for n, (_, user, _) in enumerate(ranking) if user == self.user), None)
        unscored = set(USERS) - set(model.scores.get("main", {}))
        behind = None if place is None else {user for _, user, _ in ranking[place + 1 :]} | unscored
        name = model.users.get(self.user, (None, True))[0]
        if place is None:
            facts: tuple[Any, ...] = (None, None, None, None)
            overtaken = []
        else:
            rank, _, score = ranking[place]
            facts = (rank, score, ranking[place - 1][2] - score if place else None, name)
            ahead = reversed(ranking[:place])
            overtaken = [row for row in ahead if self.behind is not None and row[1] in self.behind]
        if facts == self.said and not overtaken:
            self.behind, self.owed = behind, None
            return
        rows = [self._row(row) for row in overtaken[: bounds.OVERTAKEN_MAX]]
        message: dict[str, Any] = {"boardId": "main", "userId": self.user, "rank": facts[0], "score": facts[1]}
        message |= {"gapToNext": facts[2], "count": len(ranking), "overtaken": rows}
        message |= {"seq": self.world.scoreboard.boards["main"].seq}
        if facts[3] is not None:
            message["displayName"] = facts[3]
        if len(overtaken) > bounds.OVERTAKEN_MAX:
            message["overtakenMore"] = True
        self.owed = message, behind, facts

    def _row(self, row: tuple[int, str, int]) -> dict[str, Any]:
        rank, user, score = row
        name = self.world.model.users.get(user, (None, True))[0]
        return {"userId": user, **({} if name is None else {"displayName": name}), "score": score, "rank": rank}

    def read(self) -> None:
        """Write what is owed, and compare it."""
        messages = written(self.viewer)
        if self.owed is None:
            assert messages == []
            return
        message, self.behind, self.said = self.owed
        self.owed = None
        assert [{name: value for name, value in one.items() if name not in ALWAYS} for one in messages] == [message]


USERS = [f"user-{number}" for number in range(7)]
VIEWERS = 4
users = st.sampled_from(USERS)
scores = st.tuples(st.just("score"), users, st.sampled_from(list(POINTS["main"])))
changes = st.one_of(scores, scores, scores, st.tuples(st.sampled_from(["hide", "show", "name"]), users, st.just("")))
full_sockets = st.sets(st.integers(0, VIEWERS - 1))
ticks = st.tuples(st.just("tick"), full_sockets, st.lists(changes, max_size=2))
steps = st.lists(
    st.one_of(
        changes,
        changes,
        ticks,
        st.tuples(st.sampled_from(["come", "come full"]), users, st.integers(0, VIEWERS - 1)),
        st.tuples(st.just("read"), st.integers(0, VIEWERS - 1), st.none()),
    ),
    min_size=15,
    max_size=60,
)


class Match:
    """A world and its viewers. Each viewer is of one user, and may be replaced by another."""

    def __init__(self) -> None:
        self.world = World()
        self.viewers: dict[int, Expected] = {}
        self.number = 0

    def change(self, what: str, user: str, reason: str) -> None:
        """Let one event happen."""
        self.number += 1
        if what == "score":
            self.world.score(user, reason=reason)
        elif what == "name":
            self.world.do(put(user, f"name {self.number}"))
        else:
            self.world.do(put(user, active=what == "show"))

    def subscribe(self, user: str, place: int, *, reads: bool = True) -> None:
        """Let a viewer come, in the place of another. Not `reads`: its socket takes not even the first message."""
        if place in self.viewers:
            self.world.lines.leave(self.viewers[place].viewer)
        expected = self.viewers[place] = Expected(self.world, user)
        self.world.lines.subscribe(expected.viewer, BoardView("main"), user)
        expected.look()
        if reads:
            expected.read()

    def tick(self, full: set[int], between: list[tuple[str, str, str]]) -> None:
        """Look at one line after the other. After each of them something may happen."""
        whose = {expected.viewer: (place, expected) for place, expected in self.viewers.items()}
        events = iter(between)
        for part in self.world.lines.take_due():
            for line in [line for lines in part.begin() for line in lines]:
                place, expected = whose[line.owner]
                owners = part.look([line])
                expected.look()
                assert owners == ([] if expected.owed is None else [line.owner])
                if place not in full:
                    expected.read()
                for event in [*events][:1]:
                    self.change(*event)
            part.finish()
        self.world.lines._check()


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(scores, min_size=4, max_size=12), users, steps)
def test_every_message_is_what_a_sorted_list_says(
    first: list[tuple[str, str, str]], user: str, chosen: list[tuple[str, Any, Any]]
) -> None:
    """Rank, score, gap and who passed, for viewers that read at each tick, and for viewers whose sockets are full."""
    match = Match()
    for event in first:
        match.change(*event)
    match.subscribe(user, 0)
    with patch.multiple(moves, BLOCK_SLOTS=2, RECENT_MAX=1, RECENT_SHARE=100):
        for what, who, more in chosen:
            if what.startswith("come"):
                match.subscribe(who, more, reads=what == "come")
            elif what == "tick":
                match.tick(who, more)
            elif what == "read":
                if who in match.viewers:
                    match.viewers[who].read()
            else:
                match.change(what, who, more)
    match.world.scoreboard._check()
    for expected in match.viewers.values():
        match.world.lines.leave(expected.viewer)
    assert (len(match.world.lines), match.world.scoreboard.boards["main"]._pinned) == (0, [])


# Single rules


def test_the_first_message_tells_the_place() -> None:
    """Of a user with a score, and of one without."""
    world = World()
    world.score("ann", "ben", "ben")
    world.do(put("ann", "Ann"))
    assert world.subscribe("ann")[1] == {
        "type": "scoreboard_user",
        "boardId": "main",
        "userId": "ann",
        "displayName": "Ann",
        "rank": 2,
        "score": 1,
        "count": 2,
        "gapToNext": 1,
        "overtaken": [],
        "epoch": 1,
        "seq": 4,
        "generatedAt": "2025-12-15T12:34:56.000Z",
    }
    nobody = world.subscribe("zoe")[1]
    assert (nobody["rank"], nobody["score"], nobody["gapToNext"], nobody["count"]) == (None, None, None, 2)


def test_an_inactive_user_looks_like_one_without_a_score() -> None:
    """The name is gone too; and who comes back has passed nobody."""
    world = World()
    world.score("ann", "ben", "ben")
    world.do(put("ben", "Ben"))
    ann, _ = world.subscribe("ann")
    ben, _ = world.subscribe("ben")
    world.do(put("ben", active=False))
    world.tick()
    (gone,), (alone,) = written(ben), written(ann)
    zoe = world.subscribe("zoe")[1]
    assert gone | {"userId": "zoe"} == zoe
    assert (alone["rank"], alone["gapToNext"]) == (1, None)
    world.do(put("ben", active=True))
    world.tick()
    (back,), (second,) = written(ben), written(ann)
    assert (back["rank"], back["displayName"], back["overtaken"]) == (1, "Ben", [])
    assert (second["rank"], second["overtaken"]) == (2, [])


def test_only_the_place_is_a_reason_for_a_message() -> None:
    """Not that there is another user behind, nor what happens on another board."""
    world = World()
    world.score("ann", "ann")
    ann, _ = world.subscribe("ann")
    world.score("ben")
    world.score("ann", board="weekly")
    world.tick()
    assert written(ann) == []


def test_ties_are_decided_by_who_was_first() -> None:
    """Who reaches the same score later has not passed."""
    world = World()
    world.score("ann", "ann", "ben")
    ann, _ = world.subscribe("ann")
    world.score("ben")
    world.tick()
    assert written(ann) == []
    world.score("ben")
    world.tick()
    (message,) = written(ann)
    assert (message["rank"], message["gapToNext"], message["overtaken"]) == (
        2, 1, [{"userId": "ben", "score": 3, "rank": 1}],
    )  # fmt: skip


def test_more_than_ten_passers_are_told_as_more() -> None:
    """The nearest ten are named."""
    world = World()
    world.score("ann")
    ann, _ = world.subscribe("ann")
    for number in range(11):
        world.score(*[f"passer-{number:02}"] * (number + 2))
    world.tick()
    (message,) = written(ann)
    assert [row["userId"] for row in message["overtaken"]] == [f"passer-{number:02}" for number in range(10)]
    assert [row["rank"] for row in message["overtaken"]] == list(range(11, 1, -1))
    assert message["overtakenMore"] is True


def test_a_state_that_becomes_stale_is_told_and_so_is_a_fresh_one() -> None:
    """With its age, as in all live messages."""
    world = World()
    world.score("ann")
    ann, _ = world.subscribe("ann")
    world.age_ms = 3000
    world.lines.board_changed("main")
    world.tick()
    (stale,) = written(ann)
    assert (stale["stale"], stale["ageMs"]) == (True, 3000)
    world.age_ms = None
    world.lines.board_changed("main")
    world.tick()
    (fresh,) = written(ann)
    assert {"stale", "ageMs"}.isdisjoint(fresh)


def test_a_slow_viewer_is_owed_one_message_and_knows_who_passed_since_its_last() -> None:
    """Who passed and fell behind again is not named; who passed three ticks ago is."""
    world = World()
    world.score("ann", "ann", "ann")
    ann, _ = world.subscribe("ann")
    world.score("ben", reason="TEN")
    world.tick()
    world.score("cyd", "cyd", "cyd", "cyd")
    world.tick()
    world.score("ann", reason="TWO")
    world.tick()
    (message,) = written(ann)
    assert (message["rank"], message["score"]) == (2, 5)
    assert [row["userId"] for row in message["overtaken"]] == ["ben"]


def test_what_happens_between_two_slices_of_a_tick_is_not_lost() -> None:
    """Somebody passes a user right after the look, while the viewer has not read even its first message."""
    world = World()
    world.score("ann", "ann", "ben")
    full = ViewerLines()
    world.lines.subscribe(full, BoardView("main"), "ann")
    cyd, _ = world.subscribe("cyd")
    world.score("zoe")
    for part in world.lines.take_due():
        ((first, second),) = part.begin()
        part.look([first])
        world.score("ben", "ben")
        part.look([second])
        part.finish()
    assert (written(full)[0]["rank"], written(cyd)) == (1, [])
    world.tick()
    (message,) = written(full)
    assert [row["userId"] for row in message["overtaken"]] == ["ben"]
    assert "overtakenMore" not in message


def test_a_board_that_is_replaced_makes_no_false_passers() -> None:
    """A replica fetched a snapshot: what happened in between is not known, and the message says so."""
    world, later = World(), World()
    for each in (world, later):
        each.score("ann", "ann", "ben")
    ann, _ = world.subscribe("ann")
    later.score("ben", "ben")
    world.scoreboard.take_over(later.scoreboard)
    world.lines.board_changed("main")
    world.tick()
    (message,) = written(ann)
    assert (message["rank"], message["overtaken"], message["overtakenMore"]) == (2, [], True)
    perform(world.scoreboard, [increment("cyd", "x", "TEN", "main")])
    world.lines.board_changed("main")
    world.tick()
    (message,) = written(ann)
    assert [row["userId"] for row in message["overtaken"]] == ["cyd"]
    assert "overtakenMore" not in message


def test_what_was_forgotten_is_told_with_the_next_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """More users moved than are remembered: those that are named passed, and there may be more."""
    monkeypatch.setattr("server.live.moves.Moves.__init__.__defaults__", (2,))
    world = World()
    world.score("ann", *(f"user-{number}" for number in range(5)))
    ann, _ = world.subscribe("ann")
    world.score(*(f"user-{number}" for number in range(5)))
    world.tick()
    (message,) = written(ann)
    assert [row["userId"] for row in message["overtaken"]] == ["user-1", "user-0"]
    assert (message["rank"], message["overtakenMore"]) == (6, True)
    world.score("ann", reason="TWO")
    world.tick()
    (message,) = written(ann)
    assert (message["rank"], message["overtaken"]) == (1, [])
    assert "overtakenMore" not in message


# Bounds


def test_subscriptions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one viewer, and those of all. To subscribe again costs no place, and to leave frees one."""
    monkeypatch.setattr(bounds, "SUBSCRIPTIONS_PER_VIEWER_MAX", 2)
    monkeypatch.setattr(bounds, "SUBSCRIPTIONS_MAX", 3)
    world = World()
    one, other = ViewerLines(), ViewerLines()
    for user in ("ann", "ben", "ann"):
        world.lines.subscribe(one, BoardView("main"), user)
    with pytest.raises(Refused) as refused:
        world.lines.subscribe(one, BoardView("main"), "cyd")
    assert (refused.value.code, refused.value.details) == ("INVALID_REQUEST", {"field": "userId", "maximum": 2})
    world.lines.subscribe(other, BoardView("main"), "ann")
    with pytest.raises(Refused) as refused:
        world.lines.subscribe(other, BoardView("main"), "ben")
    assert refused.value.code == "OVERLOADED"
    world.lines.unsubscribe(one, "main", "ben")
    world.lines.unsubscribe(one, "main", "never")
    world.lines.subscribe(other, BoardView("main"), "ben")
    world.lines._check()
    world.lines.leave(one)
    world.lines.leave(other)
    assert len(world.lines) == 0


def test_refusals_are_bounded() -> None:
    """A viewer that reads nothing is owed the first ones."""
    viewer = ViewerLines()
    for number in range(bounds.REPLIES_MAX + 5):
        viewer.refuse(b"%d" % number)
    assert viewer.refusals == [b"%d" % number for number in range(bounds.REPLIES_MAX)]
