"""What a variant of the system is, and the sound one. `tests.sim.variants` has those that are broken on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

from engine.disk import Disk
from snapshots.opening import Opened
from tests.sim.disk import SimulatedDisk


def _as_it_is(given: Any) -> Any:
    return given


def _nothing(_: Opened) -> None:
    pass


@dataclass(frozen=True)
class Variant:
    """`wrap_disk` may put a layer between the leader and its disk; `after_opening` may spoil what was recovered.

    `wrap_replica` does for replicas what `wrap_disk` does for the leader.
    """

    name: str
    wrap_disk: Callable[[SimulatedDisk], Disk] = _as_it_is
    after_opening: Callable[[Opened], None] = _nothing
    wrap_replica: Callable[[SimulatedDisk], Disk] = _as_it_is
    patched: Callable[[], AbstractContextManager[None]] = nullcontext


SOUND = Variant("sound")


def patching(target: object, name: str, new: object) -> Callable[[], AbstractContextManager[None]]:
    """Give what replaces one name while a run lasts."""

    @contextmanager
    def patched() -> Iterator[None]:
        with mock.patch.object(target, name, new):
            yield

    return patched
