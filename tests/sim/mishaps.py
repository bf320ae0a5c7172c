"""What befalls the directory of a node in a simulated run: its disk fills up and empties, or an operator takes it away.

Their generator is their own, so runs without mishaps stay the runs that they were.

    full        no step that needs space is done; what was laid out before can be written
    periods     the same for the files of past periods alone, as under a quota; the rest of the disk goes on
    lost        the lock, the live segment or the whole directory is moved aside under a process that serves from it

A process whose directory is lost must notice within NOTICED_S, end by itself, and until then change no name: it begins
no segment, writes no snapshot and removes nothing. Then the operator puts all back, and the next process starts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Protocol

import trio

from tests.sim.books import Books, Broken

MISHAPS = "accident"
"""The name of their generators, with that of the machine. With it no seed that once failed has a mishap."""

LOOK_S = 0.1
NOTICED_S = 3.0

PERIODS = "quota"
"""The name of the generator of `periods`."""

LOCK = "lock"
SEGMENT = "segment"
DIRECTORY = "directory"


@dataclass(frozen=True)
class Mishaps:
    """The mishaps of one machine. `full` and `periods` have times; `lost_s` is when `lost` is taken away."""

    full: tuple[tuple[float, float], ...] = ()
    periods: tuple[tuple[float, float], ...] = ()
    lost_s: float | None = None
    lost: str = LOCK

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self.full or self.periods) or self.lost_s is not None

    def is_full(self, now_s: float) -> bool:
        """Whether the disk is full."""
        return _is_within(self.full, now_s)

    def refuses_periods(self, now_s: float) -> bool:
        """Whether there is no room for files of past periods."""
        return _is_within(self.periods, now_s)


def _is_within(times: tuple[tuple[float, float], ...], now_s: float) -> bool:
    return any(begin <= now_s < end for begin, end in times)


NONE = Mishaps()


def draw_mishaps(dice: random.Random, chaos_s: float) -> Mishaps:
    """Draw the mishaps of a machine; most have none."""
    if dice.random() < 0.75:
        return NONE
    full = []
    if dice.random() < 0.7:
        for _ in range(dice.randint(1, 3)):
            begin = dice.uniform(0.0, chaos_s)
            full.append((begin, begin + dice.choice([0.5, 2.0, 5.0])))
    lost_s = dice.uniform(0.1, 0.8) * chaos_s if dice.random() < 0.6 else None
    return Mishaps(tuple(full), (), lost_s, dice.choice([LOCK, SEGMENT, DIRECTORY]))


def with_periods(mishaps: Mishaps, dice: random.Random, chaos_s: float) -> Mishaps:
    """Have no room for files of past periods, in half of the runs."""
    if dice.random() < 0.5:
        return mishaps
    begins = [dice.uniform(0.0, chaos_s) for _ in range(3)]
    return replace(mishaps, periods=tuple((begin, begin + dice.choice([0.5, 2.0, 5.0])) for begin in begins))


class Loses(Protocol):
    """The hardware."""

    mishaps: Mishaps

    def names(self) -> dict[str, list[str]]:
        """List the names in the data directory, and in those of log and snapshots."""

    def live_segment(self) -> str | None:
        """Give the path of the last segment."""

    def take_away(self, path: str, *, empty: bool = False) -> None:
        """Move something aside."""

    def put_back(self, path: str) -> None:
        """Put it back."""


class Serves(Protocol):
    """The node."""

    name: str

    def is_serving(self) -> bool:
        """Whether its process serves, and was not told to end."""

    def is_alive(self) -> bool:
        """Whether its process runs."""

    def hold(self) -> None:
        """Start no more until `release`."""

    def release(self) -> None:
        """Let it start again."""

    def note(self, what: str, *details: object) -> None:
        """Note what happened."""


async def lose(node: Serves, hardware: Loses, books: Books, data: str) -> None:
    """Take something away at its time, judge what the process does, and put it back."""
    mishaps = hardware.mishaps
    assert mishaps.lost_s is not None
    await trio.sleep_until(mishaps.lost_s)
    if not node.is_serving():
        return
    path = {LOCK: f"{data}/lock", SEGMENT: hardware.live_segment(), DIRECTORY: data}[mishaps.lost]
    if path is None:
        return
    node.hold()
    hardware.take_away(path, empty=mishaps.lost == DIRECTORY)
    node.note("lost", path)
    books.counts[f"{mishaps.lost} lost"] += 1
    before = _names(hardware)
    for _ in range(int(NOTICED_S / LOOK_S)):
        await trio.sleep(LOOK_S)
        if not node.is_alive():
            break
    else:
        raise Broken(f"{path} was taken away, and {node.name} still serves after {NOTICED_S} s")
    if (after := _names(hardware)) != before:
        raise Broken(f"{path} was taken away, and {node.name} changed {before} to {after}")
    hardware.put_back(path)
    node.note("put back", path)
    node.release()


def _names(hardware: Loses) -> list[tuple[str, list[str]]]:
    """List the names that must stay. With a segment lost, the data directory is still ours: a marker may be written."""
    segment_lost = hardware.mishaps.lost == SEGMENT
    return [(path, names) for path, names in hardware.names().items() if not (segment_lost and path.count("/") == 1)]
