"""Variants of the system that the simulation is run on: the sound one, and broken ones that it must find out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from engine.disk import Disk
from snapshots.opening import Opened
from tests.sim.disk import SimulatedDisk


@contextmanager
def _unpatched() -> Iterator[None]:
    yield


def _as_it_is(disk: SimulatedDisk) -> Disk:
    return disk


def _nothing(_: Opened) -> None:
    pass


@dataclass(frozen=True)
class Variant:
    """`wrap_disk` may put something between the leader and its disk, `after_opening` spoil what was recovered."""

    name: str
    wrap_disk: Callable[[SimulatedDisk], Disk] = _as_it_is
    after_opening: Callable[[Opened], None] = _nothing
    patched: Callable[[], AbstractContextManager[None]] = _unpatched


SOUND = Variant("sound")
