"""The judge of a simulated run: it knows what was submitted, acknowledged, shown and recovered, and what must hold.

These promises must hold:
- acknowledged ⊆ recovered ⊆ submitted: `recovered`, after every start;
- each action counts at most once, and sums and ranks are those of a plain sort: `Plain` gets every applied event;
- log before reply: no receipt, row or message to a viewer names an event that is not on disk;
- rows that a client sees are those of a plain sort at that position: `shown`;
- while a board is frozen the public sees nothing that came later, but for what was revealed: it has positions of its
  own, and a later one is none of them;
- a past period is as it ended, and the public knows of it only if it ended before the freeze: `shown_past`;
- seq never goes back, for each reader and viewer, over all restarts;
- a replica has the leader's events up to some event, and after a start no fewer than it had shown.

The task that finds a fault raises `Broken`, which ends the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec import to_builtins
from msgspec.structs import replace

from engine.board_rules import BoardRules
from engine.commands import ImportRow
from engine.erased import is_erased
from engine.errors import LogDamaged
from engine.events import (
    BoardClosed,
    BoardEvent,
    BoardFrozen,
    BoardPut,
    BoardUnfrozen,
    EpochBegun,
    Event,
    FlagPut,
    ImportBegun,
    Incremented,
    PeriodChanged,
    RanksNoted,
    Reversed,
    ReviewDecided,
    RowsRevealed,
    ScoreImported,
    UserErased,
    UserPut,
)
from engine.machine import Applied
from snapshots.demotion import ActionBeyond
from snapshots.opening import Opened
from tests.sim.boards import RULES
from tests.sim.clocks import Times
from tests.sim.plain import CONFIGURATION, Plain, check_read, plain_of, read_events
from tests.sim.plain_board import Face
from tests.sim.trace import Trace

TOP_ROWS = 10

Content = tuple[str, str, str, int | None]
"""User, board, reason, and the value where the request carries one."""

Shown = tuple[int, str, int, str | None, Any]
"""Rank, user, score, display name."""

Order = tuple[str, str, object]
"""What an operator asked for: the verb, the board, and what the body said."""

_VERBS: dict[type[BoardEvent], str] = {
    BoardClosed: "close", BoardFrozen: "freeze", BoardUnfrozen: "unfreeze", RowsRevealed: "reveal",
}  # fmt: skip


class Edition(NamedTuple):
    """What a board shows at a position: its first rows, and the fields beside them."""

    rows: list[Shown]
    period: str | None = None
    frozen: bool = False
    revealed: int = 0
    over: bool = False
    ended_seq: int = 0
    """The last event that ended a period."""


def content_of(event: Incremented) -> Content:
    """Give what was asked for."""
    return event.user_id, event.board_id, event.reason, event.chosen_value


class Broken(AssertionError):
    """A promise was broken."""


class Books:
    """The judge; see above. `counts` says how often each thing happened.

    `erasing` is the user whom an operator is erasing, or erased last.
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
        self.orders: list[Order] = []
        self.sources: dict[str, Sequence[ImportRow]] = {}
        self.erasing = ""
        self._editions: dict[tuple[str, bool, int], Edition] = {
            (board_id, live, 0): Edition([]) for board_id in RULES.boards for live in (False, True)
        }
        self._public_past: dict[str, set[int]] = {}
        self._shut: set[str] = set()
        self.times = Times(self.counts)
        self._trace = trace

    # Backends

    def submit(self, action_id: str, content: Content) -> None:
        """Note that a request with this content is about to be sent."""
        self.submitted.setdefault(action_id, set()).add(content)

    def is_erased(self, action_id: str) -> bool:
        """Whether an action is one of a user who was erased since, as far as the log told the erasure."""
        event = self.plain.actions.get(action_id)
        return event is not None and event.seq in self.plain.erasures.actions

    def acknowledge(self, receipt: dict[str, Any], content: Content, *, was_erased: bool = False) -> None:
        """Take a receipt: its event must be on disk, and must be what the backend asked for.

        `was_erased`: the action was one of an erased user before it was sent.
        """
        self._check(not was_erased, f"the user of this action is erased, and it was acknowledged: {receipt}")
        action_id, seq = receipt["actionId"], receipt["seq"]
        position = (receipt["epoch"], seq)
        self._check(seq <= self.plain.seq, f"{action_id} was acknowledged as seq {seq} before it was on disk")
        event = self.plain.events[seq - 1]
        self._check(isinstance(event, Incremented), f"{action_id} was acknowledged as seq {seq}, which is {event}")
        assert isinstance(event, Incremented)
        found = (event.action_id, *content_of(event))
        self._check(found == (action_id, *content), f"{action_id} {content} was acknowledged as seq {seq}: {event}")
        if receipt["applied"]:
            same = (receipt["newScore"], receipt["delta"]) == (event.new_score, event.delta)
            self._check(same, f"the receipt {receipt} is not the event {event}")
            self._check(receipt.get("held", False) == (0 in event.held), f"the receipt {receipt} of {event}")
            self.counts["applied"] += 1
        else:
            self._check(receipt["delta"] == 0, f"a duplicate tells points: {receipt}")
            self.counts["duplicates"] += 1
        before = self.acknowledged.setdefault(action_id, position)
        self._check(before == position, f"{action_id} was acknowledged as {before}, and then as {position}")

    def refuse(self, action_id: str, content: Content, code: str, *, was_erased: bool = False) -> None:
        """Take a refusal. An acknowledged action is never refused, unless its user is erased.

        A conflict needs another content of the action.
        """
        self.counts[code] += 1
        if was_erased or code == "ERASED":
            told = f"{action_id} was refused as {code}"
            self._check(code == "ERASED", f"{told}, and its user was erased before")
            self._check(self.is_erased(action_id), f"{told}, and its user was not erased")
            return
        known = action_id in self.acknowledged
        if known:
            seq = self.acknowledged[action_id][1]
            event = self.plain.events[seq - 1]
            assert isinstance(event, Incremented)
            same = content_of(event) == content
            self._check(not same, f"{action_id} {content} was acknowledged as seq {seq}, and then refused: {code}")
            self._check(code == "CONFLICT", f"{action_id} conflicts with seq {seq}, but was refused as {code}")
        elif code == "CONFLICT":
            others = self.submitted[action_id] - {content}
            self._check(bool(others), f"{action_id} {content} conflicts with nothing that was ever submitted")
        elif code == "BOARD_CLOSED":
            self._check(content[1] in self._shut, f"{action_id} {content} was refused, and its board was never closed")

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
            events = read_events(opened.log, self.plain.seq + 1)
            begun = all(isinstance(event, EpochBegun) for event in events)
            erased = {event.seq for event in events if isinstance(event, UserErased)}  # each in a frame of its own
            frames = [frame for frame in frames if frame.last_seq not in erased]
            # Each attempt of a promotion may have begun an epoch.
            self._check(
                len(frames) == 1 or begun or bool(erased and not frames), f"{len(frames)} frames were in flight"
            )
            known = f"a part of a frame in flight was known before: {self.plain.seq}"
            self._check(all(frame.first_seq > self.plain.seq for frame in frames), known)
            for event in events:
                self._take(event)
            self.counts["recovered in flight"] += bool(frames)
        self._holds(lambda: self.plain.check_scoreboard(opened.scoreboard, may_be_damaged=may_be_damaged))
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
        self._check(self.plain.erasures.are_same(events, theirs), f"{name} applied {events}, the leader had {theirs}")
        self._followed[name] = events[-1].seq
        self.counts["events followed"] += len(events)

    def recovered_replica(self, name: str, opened: Opened, *, may_be_damaged: bool) -> None:
        """Compare what a start of a replica recovered with the leader's events up to there."""
        seq, least = opened.scoreboard.seq, self._followed.get(name, 0)
        self._check(seq >= least, f"{name} had applied {least} events, {seq} were recovered")
        self._check(seq <= self.plain.seq, f"{name} recovered {seq} events, the leader has {self.plain.seq}")
        then = plain_of(self.plain.events[:seq])
        self._holds(lambda: check_read(self.plain, then, opened.scoreboard, may_be_damaged=may_be_damaged))
        try:
            self._holds(lambda: then.check_log(opened.log, self.plain.erasures))
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
            self._check(content_of(event) == content, f"{event} is not what was asked for")
        self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, UserErased):
            event = self._erased(event)
        self._holds(lambda: self.plain.take(event))
        boards = set(self.plain.boards)
        if isinstance(event, Incremented):
            content = content_of(event)
            self._check(content in self.submitted.get(event.action_id, ()), f"{event} was never submitted")
            boards = {event.board_id, *(fed.board_id for fed in event.fed)}
            self.counts["actions held"] += len(event.held)
        elif isinstance(event, ReviewDecided):
            self.counts["held actions that count again"] += bool(event.scores or event.periods)
        elif isinstance(event, BoardEvent):
            boards = {event.board_id}
            self._take_order(event)
        elif isinstance(event, Reversed):
            boards = {part.board_id for part in event.scores}
            asked = any(one[:2] == ("reverse", event.reversal_id) for one in self.orders)
            self._check(asked, f"nobody asked for {event}")
            self.counts["reversals again" if event.again else "reversals"] += 1
            self._count_reversal(event)
        elif isinstance(event, ImportBegun | ScoreImported):
            boards = {event.board_id}
            self._take_row(event)
        elif isinstance(event, RanksNoted):
            self.counts["RanksNoted"] += 1
        elif isinstance(event, FlagPut):
            boards = set()
            self._check(("flag", "live", event.enabled) in self.orders, f"nobody asked for {event}")
        elif isinstance(event, UserPut):
            known = any(
                user == event.user_id and name in {None, event.display_name} and active in {None, event.active}
                for user, name, active in self.submitted_users
            )
            self._check(known, f"{event} was never submitted")
        for board_id in sorted(boards):
            self._note_editions(board_id, event)

    def _erased(self, event: UserErased) -> UserErased:
        """Check that an operator erases this user, and count what it meets. The log may have the pseudonym already."""
        is_live = ("erase", event.user_id, None) in self.orders  # of a running leader, whose log has the id then
        user = event.user_id if is_live else self.erasing
        asked = event.user_id == user or (is_erased(event.user_id) and event.user_id == event.pseudonym)
        self._check(asked, f"nobody asked for {event}")
        boards = [board for board in self.plain.boards.values() if user in board.scores]
        rows = [
            each
            for each in self.plain.boards.values()
            if any(row.user_id == user for part in each.finals.values() for row in part)
        ]
        reversed_ = [each for each in self.plain.held if self.plain.events[each - 1].user_id == user]  # type: ignore[union-attr]
        met = {
            "": True,
            " from a frozen board": any(board.frozen_face is not None for board in boards),
            " from a revealed row": any(
                board.frozen_face is not None and user in board.frozen_face.revealed for board in boards
            ),
            " with a past period": bool(rows),
            " with a reversed action": bool(reversed_),
            " with held actions": any(self.plain.events[seq - 1].user_id == user for _, seq in self.plain.on_hold),  # type: ignore[union-attr]
            " with a review": any(each[1] == user for each in self.plain.reviews.told().values()),
            " a second time": bool(self.plain.erasures.erased_at(user)),
        }
        for what, is_met in met.items():
            self.counts[f"users erased{what}"] += is_met
        return replace(event, user_id=user)

    def _count_reversal(self, event: Reversed) -> None:
        """Count what a reversal met: how boards count, what is frozen, what has ended."""
        self.counts["past periods corrected"] += len(event.periods)
        corrected = {part.board_id for part in event.periods}
        for board_id in sorted(corrected.union(part.board_id for part in event.scores)):
            board = self.plain.boards[board_id]
            assert board.definition is not None
            imported = any(each.begun.board_id == board_id for each in self.plain.imports.known.values())
            met = {
                board.definition.rules.score: True,
                "a frozen board": board.frozen_face is not None,
                "a revealed board": board.frozen_face is not None and bool(board.frozen_face.revealed),
                "a board with imports": imported,
                "a past period while frozen": board.frozen_face is not None and board_id in corrected,
            }
            for what, is_met in met.items():
                self.counts[f"reversals on {what}"] += is_met

    def _take_row(self, event: ImportBegun | ScoreImported) -> None:
        """Check that a row is one of its source."""
        rows = self.sources[event.import_id]
        if isinstance(event, ImportBegun):
            self._check(event.rows == len(rows), f"{event} is of an import of {len(rows)} rows")
            self.counts["merged imports" if event.merge else "fresh imports"] += 1
            return
        row = rows[event.row]
        told, said = (event.user_id, event.value, event.reached_ms), (row.user_id, row.score, row.reached_ms)
        self._check(told == said, f"{event} should be the row {row}")
        self.counts["rows imported"] += 1
        self.counts["rows imported while frozen"] += self.plain.boards[event.board_id].frozen_face is not None

    def was_shut(self, board_id: str) -> bool:
        """Whether a board was ever closed, or over."""
        return board_id in self._shut

    def _take_order(self, event: BoardEvent) -> None:
        """Check that an operator asked for what happens to a board, or that it happens by itself."""
        self.counts[type(event).__name__] += 1
        if isinstance(event, PeriodChanged) and event.passed:
            self.counts["periods that passed"] += len(event.passed)
        if isinstance(event, BoardClosed) or (isinstance(event, PeriodChanged) and event.over):
            self._shut.add(event.board_id)
        if not event.caller:
            by_itself = isinstance(event, PeriodChanged) or (isinstance(event, BoardFrozen) and event.at_ms is None)
            self._check(by_itself, f"nobody asked for {event}")
            return
        if event.caller == CONFIGURATION:
            return
        if isinstance(event, BoardPut):
            orders: list[Order] = [("put", event.board_id, event.rules)]
        elif isinstance(event, PeriodChanged):
            orders = [("reset", event.board_id, None), ("reset", event.board_id, event.ended.id)]
            orders += [one for one in self.orders if one[:2] == ("put", event.board_id)]
        else:
            body = event.at_ms if isinstance(event, BoardFrozen) else getattr(event, "step", None)
            orders = [(_VERBS[type(event)], event.board_id, body)]
        self._check(any(one in self.orders for one in orders), f"nobody asked for {event}")

    def _note_editions(self, board_id: str, event: Event) -> None:
        """Note what a board shows after an event. What the public sees of a frozen board has hardly any events."""
        board = self.plain.boards[board_id]
        if board.definition is None:
            return
        self._editions[board_id, True, event.seq] = self._edition(board)
        if board.frozen_face is None or isinstance(event, UserPut | UserErased | RowsRevealed | BoardFrozen):
            self._editions[board_id, False, event.seq] = self._edition(board.face)
        known = board.face.definition
        assert known is not None
        self._public_past.setdefault(board_id, set()).update(past.seq for past in known.past)

    def _edition(self, face: Face) -> Edition:
        assert face.definition is not None
        ranks, names = face.ranks(self.plain.is_hidden)[:TOP_ROWS], self.plain.users
        rows = [
            (rank, user, score, names.get(user, (None, True))[0], None if moved is None else to_builtins(moved))
            for (rank, user, score), moved in zip(ranks, face.past_ranks.changes(ranks), strict=True)
        ]
        known = face.definition
        frozen = known.frozen
        return Edition(
            rows, None if known.period is None else known.period.id, frozen is not None,
            0 if frozen is None else frozen.revealed, known.over, face.ended_seq,
        )  # fmt: skip

    # What an operator asks for

    def order(self, verb: str, board_id: str, body: object | BoardRules) -> None:
        """Note that a request of an operator is about to be sent."""
        self.orders.append((verb, board_id, body))

    # Rows that clients see

    def top(self, board_id: str, *, live: bool = False) -> list[Shown]:
        """Give the first rows as a plain sort has them now."""
        board = self.plain.boards[board_id]
        return self._edition(board if live else board.face).rows

    def shown(
        self, board_id: str, told: dict[str, Any], entries: list[dict[str, Any]] | None = None, *, live: bool = False
    ) -> Edition | None:
        """Take the rows that a client saw for a position, and what it was told beside them; give what they should be.

        `entries` are the rows where `told` does not have them all.
        """
        if self.audience_gone:
            return None
        seq = told["seq"]
        rows = shown_rows(told["entries"] if entries is None else entries)
        expected = self._editions.get((board_id, live, seq))
        where = f"{board_id}{' (live)' * live} at seq {seq}"
        self._check(expected is not None, f"{where} was shown, where it did not change, or not yet")
        assert expected is not None
        self._check(rows == expected.rows, f"{where} was shown as {rows}, a plain sort gives {expected.rows}")
        beside = (told.get("period"), "frozenAt" in told, told.get("revealed", 0), told.get("over", False))
        self._check(beside == expected[1:5], f"{where} was told to be {beside}, and is {expected[1:5]}")
        self.counts["boards shown"] += 1
        self.counts["rows that moved"] += any(moved and (moved.get("day") or moved.get("period")) for *_, moved in rows)
        self.counts["frozen boards shown"] += expected.frozen and not live
        return expected

    def shown_past(self, board_id: str, told: dict[str, Any], *, live: bool = False, whole: bool = True) -> None:
        """Take the first rows of a past period. Without `whole`, users who are hidden now may be left out."""
        if self.audience_gone:
            return
        seq, finals = told["seq"], self.plain.boards[board_id].finals
        self._check(seq in finals, f"{board_id} was told to have ended a period with seq {seq}")
        if not live and not told.get("type"):
            known = seq in self._public_past[board_id]
            self._check(known, f"the public was told of the period of {board_id} that ended with seq {seq}")
        event = self.plain.events[seq - 1]
        assert isinstance(event, PeriodChanged)
        ids = [event.ended.id, *(period.id for period in event.passed)]
        self._check(told["period"] in ids, f"seq {seq} ended {ids}, and not {told['period']}")
        ended = finals[seq] if told["period"] == ids[0] else []
        erased = self.plain.erasures.users  # a node that does not know of it yet shows them
        expected = [(row.rank, row.user_id, row.score) for row in ended[:TOP_ROWS] if row.user_id not in erased]
        rows = [(rank, user, score) for rank, user, score, _, _ in shown_rows(told["entries"]) if user not in erased]
        if not whole:
            there = {user for _, user, _ in rows}
            was_hidden = {user for user, _, active in self.submitted_users if active is False}
            expected = [row for row in expected if row[1] in there or row[1] not in was_hidden]
        versions = [] if told["period"] != ids[0] else self.plain.boards[board_id].corrected.get(seq, [])
        if "correctedAt" in told and told["period"] == ids[0]:
            pairs = [(user, score) for _, user, score in rows]
            gone = {user for user, _, active in self.submitted_users if active is False} - {user for user, _ in pairs}
            gone.update(erased)
            fits = [[pair for pair in version[:TOP_ROWS] if pair[0] not in gone] for version in versions]
            self._check(pairs in fits, f"the period of {board_id} until {seq} is told as {rows}, it is {versions}")
            self.counts["corrected periods shown"] += 1
            return
        self._check(rows == expected, f"the period of {board_id} until {seq} is told as {rows}, it ended as {expected}")
        self.counts["past periods shown"] += 1

    def frozen_since(self, event: Incremented) -> list[int]:
        """List the seqs of the freezes of now that hide what an action did."""
        boards = (event.board_id, *(fed.board_id for fed in event.fed))
        known = [self.plain.boards[board_id].definition for board_id in boards]
        frozen = [each.frozen.seq for each in known if each is not None and each.frozen is not None]
        return [seq for seq in frozen if seq < event.seq]

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


def shown_rows(entries: list[dict[str, Any]]) -> list[Shown]:
    return [(row["rank"], row["userId"], row["score"], row.get("displayName"), row.get("change")) for row in entries]
