"""A replay of any part of a run gives the same state: event by event, at once, and from an image in the middle.

    live       e1 ─ e2 ─ … ─ en                      each board in order all the time, as on a leader
    replay     e1 … em │ image │ em+1 … en │         the order is built at the end, as after a start

The replay is of a log that was rewritten for all erasures among these events, if such a log could go so far back.

Both must have one digest, and both must show what the plain model shows after these events.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from engine.events import EpochBegun, Event
from engine.scoreboard import Scoreboard
from snapshots.digests import state_digest
from tests.sim.boards import RULES
from tests.sim.books import Books, Broken
from tests.sim.plain import Plain

REPLAYS = "replays"
"""The name of the generator."""


def check_replays(books: Books, dice: random.Random) -> None:
    """Replay some first part of all events in two ways."""
    events = books.plain.events
    end = dice.randint(0, len(events))
    middle = dice.randint(0, end)
    plain, live = Plain(), Scoreboard(RULES)
    for event in events[:end]:
        plain.take(event)
    apply_all(live, events[:end])
    logged = [*map(plain.erasures.forgotten, events[:end])]
    if any(plain.erasures.left_out.values()):
        logged = events[:end]  # no log had them all when it was rewritten
    begun = Scoreboard(RULES)
    begun.begin_replay()
    apply_all(begun, logged[:middle])
    replayed = Scoreboard.from_image(RULES, begun.capture())
    apply_all(replayed, logged[middle:])
    replayed.end_replay()
    for scoreboard in (live, replayed):
        plain.check_scoreboard(scoreboard)
    if state_digest(live.capture()) != state_digest(replayed.capture()):
        raise Broken(f"the first {end} events give another state if {middle} of them come in an image")
    books.counts["replays compared"] += 1


def apply_all(scoreboard: Scoreboard, events: Iterable[Event]) -> None:
    """Apply events one by one."""
    for event in events:
        scoreboard.apply(event, event.epoch if isinstance(event, EpochBegun) else scoreboard.epoch)
    scoreboard.take_ended()
