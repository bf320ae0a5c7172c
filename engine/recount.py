"""What the score of a user is without some actions: counted again from those that count. Pure.

    recount = Recount(actions, again=False)            the actions that shall count no more, or again
    for event in log: recount.take(event)              all events, or at least all of `recount.users`, in order
    rescored = recount.of(rules, board_id, user_id, span, counts)

Theory. A score is no plain sum: it may stop at 0, and `best` and `last` keep one action of many. So a score without an
action is found by counting the others again, in their order, by the rules of the board. It is reached by the last of
them that changed it. So ties are those that would have been without the actions.

The recount also gives the score that the user has now, counted the same way. Whoever uses it compares that with the
score that the board shows. If they differ, the log does not explain the score, and nothing may be changed by it.

Rules:
- An action counts on its own board and on those that it fed, by what it was worth there. One that a board held counts
  there once the board holds it no more: who asks for a score says what counts.
- `adds` takes in actions that come while the log is read.
- A row of an import always counts, in its place. No reversal takes it back.
- What the log no longer has is not needed if a score is known where the log begins. The event that reached it is not
  known then. If the score goes back to it, the recount fails.
- A score of 0 where the log begins looks like none there. `needs_beginning` says whether that matters.
- `seq` is that of the last event taken.
- Actions of a user who was erased are left out: nobody has their scores any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from engine.board_rules import BoardRules, next_score, score_after_row
from engine.erased import is_erased
from engine.events import Event, Incremented, Rescored, ScoreImported
from engine.holds import boards_that_hold


class Counted(msgspec.Struct, frozen=True, gc=False):
    """What an action was worth on a board, and the score of the user before and after it, as they were logged."""

    seq: int
    time_ms: int
    worth: int
    before: int
    after: int
    row: Row | None = None
    was_held: bool = False


class Adds(msgspec.Struct, frozen=True, gc=False):
    """Which actions of a user on a board are added to those of a recount: those that the board held.

    With `since_ms` also those that counted there, from this time on.
    """

    board_id: str
    user_id: str
    since_ms: int | None = None

    def wants(self, event: Incremented) -> bool:
        """Tell whether an action is one of them."""
        if event.user_id != self.user_id or self.board_id not in boards_of(event):
            return False
        is_late = self.since_ms is not None and event.time_ms >= self.since_ms
        return is_late or self.board_id in boards_that_hold(event)


class Row(msgspec.Struct, frozen=True, gc=False):
    """What a row of an import left: the user's score after it, and the time when it was reached."""

    new_score: int
    reached_ms: int


class Span(msgspec.Struct, frozen=True, gc=False):
    """The events of a period: those after the seq `after`, up to `until`."""

    after: int
    until: int

    def holds(self, seq: int) -> bool:
        """Tell whether an event is in the period."""
        return self.after < seq <= self.until


class Unknown(Exception):
    """The log does not say what a score would be."""


class Recount:
    """See above. `actions` are the events by seq. They need not be in the log any more.

    `is_short`: an action was added on a board that was not looked at from the beginning. Then it must be done again.
    """

    def __init__(
        self, actions: Mapping[int, Incremented], *, again: bool, seq: int = 0, log_begins: int = 1,
        adds: Adds | None = None,
    ) -> None:  # fmt: skip
        """`seq`: events up to this one are not taken, none of these users is in them. `log_begins`: the first kept.

        Of actions that are only released, with `adds` that has no `since_ms`, no other board is concerned.
        """
        self.actions = {each: event for each, event in actions.items() if not is_erased(event.user_id)}
        self.again = again
        self.seq = seq
        self.log_begins = log_begins
        self.adds = adds
        self.users = {event.user_id for event in self.actions.values()}
        self.places = {(board_id, event.user_id) for event in self.actions.values() for board_id in boards_of(event)}
        if adds is not None:
            place = (adds.board_id, adds.user_id)
            self.users, self.places = {adds.user_id}, {place} if adds.since_ms is None else self.places | {place}
        self._counted: dict[tuple[str, str], list[Counted]] = {place: [] for place in self.places}
        self._chosen: dict[tuple[str, str], list[int]] = {place: [] for place in self.places}
        self.is_short = False
        for _, event in sorted(self.actions.items()):
            self._choose(event)

    def take(self, event: Event) -> None:
        """Take the next event."""
        assert event.seq > self.seq
        self.seq = event.seq
        if isinstance(event, ScoreImported) and event.user_id in self.users:
            counts = self._counted.get((event.board_id, event.user_id))
            if counts is not None:
                reached_ms = event.time_ms if event.reached_ms is None else event.reached_ms
                row = Row(event.new_score, reached_ms)
                counts.append(Counted(event.seq, event.time_ms, event.value, 0, event.new_score, row))
        if isinstance(event, Incremented) and event.user_id in self.users:
            if self.adds is not None and self.adds.wants(event) and event.seq not in self.actions:
                self.actions[event.seq] = event
                self._choose(event)
            for board_id, counted in _counted_of(event):
                found = self._counted.get((board_id, event.user_id))
                if found is not None:
                    found.append(counted)

    def _choose(self, event: Incremented) -> None:
        """Note on which boards an action is to change. `is_short`: one came whose board was not looked at."""
        for board_id in boards_of(event):
            seqs = self._chosen.get((board_id, event.user_id))
            if seqs is not None:
                seqs.append(event.seq)
            elif self.adds is None or self.adds.since_ms is not None:
                self.is_short = True

    def of(
        self, rules: BoardRules, board_id: str, user_id: str, span: Span, counts: Callable[[int], bool],
        base: int | None = None,
    ) -> Rescored:  # fmt: skip
        """Give a user's score by the actions of a span that count. Raises `Unknown`.

        `base`: what the score was where the log begins if the log says 0, None or 0.
        """
        counted = [each for each in self._counted[board_id, user_id] if span.holds(each.seq)]
        score: int | None = None
        reached, updated_ms = 0, 0
        is_cut = self.log_begins > span.after + 1
        if is_cut and counted:
            score = counted[0].before or base
        for each in counted:
            if not counts(each.seq):
                continue
            time_ms = each.time_ms
            if each.row is None:
                new_score = next_score(rules, score, each.worth)
            else:
                # Nothing before the log can be taken back: the first row there has what came before it, too.
                is_base = is_cut and each is counted[0]
                new_score = each.row.new_score if is_base else score_after_row(rules, score, each.worth)
                time_ms = each.row.reached_ms
            if new_score != score:
                score, reached, updated_ms = new_score, each.seq, time_ms
        if score is not None and not reached:
            raise Unknown("the event that reached this score is no longer in the log")
        return Rescored(user_id, score, reached, updated_ms)

    def needs_beginning(
        self, rules: BoardRules, board_id: str, user_id: str, span: Span,
        now: Callable[[int], bool], then: Callable[[int], bool],
    ) -> bool:  # fmt: skip
        """Tell whether what a user has with the actions `then` depends on the score where the log begins: 0 or none.

        With the actions `now` the user has the score that `of` gives for none.
        """
        try:
            if self.of(rules, board_id, user_id, span, now, 0) != self.of(rules, board_id, user_id, span, now):
                return False
        except Unknown:
            return False  # a score of 0 would still be there, reached by an event before the log
        try:
            return self.of(rules, board_id, user_id, span, then, 0) != self.of(rules, board_id, user_id, span, then)
        except Unknown:
            return True

    def fits(self, rules: BoardRules, board_id: str, user_id: str, span: Span) -> bool:
        """Tell whether a user's actions of a span were counted by these rules, as far as the log shows."""
        counted = [each for each in self._counted[board_id, user_id] if span.holds(each.seq)]
        return all(each.row is not None or each.after in _afters(rules, each) for each in counted)

    def was_held(self, board_id: str, user_id: str, span: Span) -> bool:
        """Tell whether the board held any of a user's actions of a span when they came."""
        counted = self._counted[board_id, user_id]
        return any(each.was_held and span.holds(each.seq) for each in counted)

    def chosen(self, board_id: str, user_id: str, span: Span) -> list[int]:
        """List those of `actions` that counted for a user on a board within a span."""
        seqs = self._chosen[board_id, user_id]
        return [seq for seq in seqs if span.holds(seq)]


def _afters(rules: BoardRules, each: Counted) -> set[int]:
    """Give what an action makes of the score before it. 0 may be no score yet. What is held changes nothing."""
    if each.was_held:
        return {each.before}
    afters = {next_score(rules, each.before, each.worth)}
    return afters if each.before else afters | {next_score(rules, None, each.worth)}


def boards_of(event: Incremented) -> Iterator[str]:
    """Yield the boards on which an action counted."""
    yield event.board_id
    for fed in event.fed:
        yield fed.board_id


def _counted_of(event: Incremented) -> Iterator[tuple[str, Counted]]:
    worth = event.delta if event.value is None else event.value
    parts = [(event.board_id, worth, event.new_score - event.delta, event.new_score)]
    parts += [(fed.board_id, fed.value, fed.new_score - fed.delta, fed.new_score) for fed in event.fed]
    for at, (board_id, value, before, after) in enumerate(parts):
        was_held = bool(event.held) and at in event.held
        yield board_id, Counted(event.seq, event.time_ms, value, before, after, None, was_held)
