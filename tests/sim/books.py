"""The judge of a simulated run: it knows what was submitted, acknowledged, shown and recovered, and what must hold.

These promises must hold:
- acknowledged ⊆ recovered ⊆ submitted: `recovered`, after every start;
- each action counts at most once, and sums and ranks are those of a plain sort: `Plain` gets every applied event;
- log before reply: no receipt, row or message to a viewer names an event that is not on disk;
- rows that a client sees are those of a plain sort at that position: `shown`;
- seq never goes back, for each reader and viewer, over all restarts;
- a replica has the leader's events up to some event, and after a start no fewer than it had shown.

The task that finds a fault raises `Broken`, which ends the run.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from engine.errors import LogDamaged
from engine.events import BoardPut, EpochBegun, Event, Incremented, UserPut
from engine.machine import Applied
from snapshots.demotion import ActionBeyond
from snapshots.opening import Opened
from tests.sim.clocks import Times
from tests.sim.plain import RULES, Plain, read_events
from tests.sim.trace import Trace

TOP_ROWS = 10

Content = tuple[str, str, str]
"""User, board, reason."""

Shown = tuple[int, str, int, str | None]
"""Rank, user, score, display name."""


class Broken(AssertionError):
    """A promise was broken."""


class Books:
    """The judge; see above. `counts` says how often each thing happened.

    `audience_gone`: what clients see is judged no more. `demoted` has the actions that each demotion listed last.
    """

    def __init__(self, trace: Trace) -> None:
        self.plain = Plain()
        self.submitted: dict[str, set[Content]] = {}
        self.submitted_users: set[tuple[str, str | None, bool | None]] = set()
        self.acknowledged: dict[str, tuple[int, int]] = {}
        self.counts: Counter[str] = Counter()
        self.audience_gone = False
        self.demoted: dict[str, list[ActionBeyond]] = {}
        self._followed: dict[str, int] = {}
        self._tops: dict[tuple[str, int], list[Shown]] = {(board_id, 0): [] for board_id in RULES.boards}
        self.times = Times(self.counts)
        self._trace = trace

    # Backends

    def submit(self, action_id: str, content: Content) -> None:
        """Note that a request with this content is about to be sent."""
        self.submitted.setdefault(action_id, set()).add(content)

    def acknowledge(self, receipt: dict[str, Any], content: Content) -> None:
        """Take a receipt: its event must be on disk, and must be what the backend asked for."""
        action_id, seq = receipt["actionId"], receipt["seq"]
        position = (receipt["epoch"], seq)
        self._check(seq <= self.plain.seq, f"{action_id} was acknowledged as seq {seq} before it was on disk")
        event = self.plain.events[seq - 1]
        self._check(isinstance(event, Incremented), f"{action_id} was acknowledged as seq {seq}, which is {event}")
        assert isinstance(event, Incremented)
        found = (event.action_id, event.user_id, event.board_id, event.reason)
        self._check(found == (action_id, *content), f"{action_id} {content} was acknowledged as seq {seq}: {event}")
        if receipt["applied"]:
            same = (receipt["newScore"], receipt["delta"]) == (event.new_score, event.delta)
            self._check(same, f"the receipt {receipt} is not the event {event}")
            self.counts["applied"] += 1
        else:
            self._check(receipt["delta"] == 0, f"a duplicate tells points: {receipt}")
            self.counts["duplicates"] += 1
        before = self.acknowledged.setdefault(action_id, position)
        self._check(before == position, f"{action_id} was acknowledged as {before}, and then as {position}")

    def refuse(self, action_id: str, content: Content, code: str) -> None:
        """Take a refusal. An acknowledged action is never refused; a conflict needs another content of the action."""
        self.counts[code] += 1
        known = action_id in self.acknowledged
        if known:
            seq = self.acknowledged[action_id][1]
            event = self.plain.events[seq - 1]
            assert isinstance(event, Incremented)
            same = (event.user_id, event.board_id, event.reason) == content
            self._check(not same, f"{action_id} {content} was acknowledged as seq {seq}, and then refused: {code}")
            self._check(code == "CONFLICT", f"{action_id} conflicts with seq {seq}, but was refused as {code}")
        elif code == "CONFLICT":
            others = self.submitted[action_id] - {content}
            self._check(bool(others), f"{action_id} {content} conflicts with nothing that was ever submitted")

    # What the leader does

    def applied(self, applied: Applied) -> None:
        """Take events that the leader has on disk, as it says, and has applied."""
        for event in applied.events:
            self._take(event)

    def recovered(self, opened: Opened, *, may_be_damaged: bool) -> None:
        """Compare what a start recovered with what must be there."""
        seq = opened.scoreboard.seq
        self._check(seq >= self.plain.seq, f"{self.plain.seq} events were applied, {seq} recovered")
        if seq > self.plain.seq:
            frames = [frame for frame in opened.log.read_from(self.plain.seq + 1) if frame.last_seq > self.plain.seq]
            begun = all(isinstance(event, EpochBegun) for event in read_events(opened.log, self.plain.seq + 1))
            # Each attempt of a promotion may have begun an epoch.
            self._check(len(frames) == 1 or begun, f"{len(frames)} frames were in flight, not one")
            self._check(frames[0].first_seq == self.plain.seq + 1, "a part of a frame in flight was known before")
            for event in read_events(opened.log, self.plain.seq + 1):
                self._take(event)
            self.counts["recovered in flight"] += 1
        self._holds(lambda: self.plain.check_scoreboard(opened.scoreboard))
        try:
            self._holds(lambda: self.plain.check_log(opened.log))
        except LogDamaged as damage:
            self._check(may_be_damaged, f"the log that was just opened can't be read: {damage}")
        self._trace.note("recovered", seq)

    # What replicas do

    def followed(self, name: str, applied: Applied) -> None:
        """Take events that a replica has on disk, as it says, and has applied: they must be the leader's."""
        events = applied.events
        theirs = self.plain.events[events[0].seq - 1 : events[-1].seq]
        self._check(events == theirs, f"{name} applied {events}, the leader had {theirs}")
        self._followed[name] = events[-1].seq
        self.counts["events followed"] += len(events)

    def recovered_replica(self, name: str, opened: Opened, *, may_be_damaged: bool) -> None:
        """Compare what a start of a replica recovered with the leader's events up to there."""
        seq, least = opened.scoreboard.seq, self._followed.get(name, 0)
        self._check(seq >= least, f"{name} had applied {least} events, {seq} were recovered")
        self._check(seq <= self.plain.seq, f"{name} recovered {seq} events, the leader has {self.plain.seq}")
        then = Plain()
        for event in self.plain.events[:seq]:
            then.take(event)
        self._holds(lambda: then.check_scoreboard(opened.scoreboard))
        try:
            self._holds(lambda: then.check_log(opened.log))
        except LogDamaged as damage:
            self._check(may_be_damaged, f"the log of {name} that was just opened can't be read: {damage}")
        self.counts["replicas started"] += 1
        self._trace.note(name, "recovered", seq)

    def emptied(self, name: str) -> None:
        """Note that a replica's directory was emptied."""
        self._followed.pop(name, None)

    def settle(self, event: Event, content: Content) -> None:
        """Take an event of the one of two leaders that remained."""
        if isinstance(event, Incremented):
            found = (event.user_id, event.board_id, event.reason)
            self._check(found == content, f"{event} is not what was asked for")
        self._take(event)

    def _take(self, event: Event) -> None:
        self._holds(lambda: self.plain.take(event))
        if isinstance(event, Incremented):
            content = (event.user_id, event.board_id, event.reason)
            self._check(content in self.submitted.get(event.action_id, ()), f"{event} was never submitted")
            boards = [event.board_id]
        elif isinstance(event, BoardPut):
            boards = [event.board_id]
        else:
            boards = list(RULES.boards)
        if isinstance(event, UserPut):
            known = any(
                user == event.user_id and name in {None, event.display_name} and active in {None, event.active}
                for user, name, active in self.submitted_users
            )
            self._check(known, f"{event} was never submitted")
        for board_id in boards:
            self._tops[board_id, event.seq] = self.top(board_id)

    # Rows that clients see

    def top(self, board_id: str) -> list[Shown]:
        """Give the first rows as a plain sort has them now."""
        rows = self.plain.ranking(board_id)[:TOP_ROWS]
        return [(rank, user, score, self.plain.users.get(user, (None, True))[0]) for rank, user, score in rows]

    def shown(self, board_id: str, seq: int, entries: list[dict[str, Any]]) -> None:
        """Take the rows that a client saw for a position."""
        if self.audience_gone:
            return
        rows = [(row["rank"], row["userId"], row["score"], row.get("displayName")) for row in entries]
        expected = self._tops.get((board_id, seq))
        self._check(expected is not None, f"{board_id} was shown at seq {seq}, where it did not change, or not yet")
        self._check(rows == expected, f"{board_id} at seq {seq} was shown as {rows}, a plain sort gives {expected}")
        self.counts["boards shown"] += 1

    def forward(self, who: str, before: tuple[int, int], position: tuple[int, int]) -> tuple[int, int]:
        """Check that a position did not go back; give it."""
        if self.audience_gone:
            return position
        self._check(position >= before, f"{who} saw {before}, and then {position}")
        self._check(position[1] <= self.plain.seq, f"{who} saw seq {position[1]} before it was on disk")
        return position

    def _holds(self, check: Any) -> None:
        """Turn a failed assertion into the fault that it is."""
        try:
            check()
        except AssertionError as error:
            raise Broken(str(error)) from error

    def _check(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise Broken(otherwise)
