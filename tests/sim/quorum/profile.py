"""What a simulated run of a quorum is made of, drawn from the seed. Each run leaves some kinds of trouble out."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import trio

from server.settings.quorum import QuorumConfig
from tests.sim.profile import Profile, draw

NODES = ("a", "b", "c")

DELAY_S_MAX = 2.0

QUIET_S = 5.0
"""The beginning of a run, in which nothing befalls anyone, so that somebody leads and there is something to lose."""

BLOWS = (
    "kill", "cut power", "stop", "pause", "empty", "isolate node", "cut some ways of a node", "kill server",
    "kill all servers", "pause server", "isolate server", "minority", "move the leader", "stop beats", "lose answers",
    "hold requests", "isolate until deposed", "pause until deposed", "pause leader and server",
)  # fmt: skip
"""Kinds of blows; `tests.sim.quorum.blows` has a method for each."""


@dataclass(frozen=True)
class QuorumProfile:
    """Times are in virtual seconds. `machine` is that of each node; its clients are those of the whole run.

    `late`, `lost`: the chance that a request to the stream is held up, and that an answer is lost. `sync_s`: how long
    a server takes to write. `withdraws`: how often a backend gives up an action that was surely not done.
    """

    machine: Profile
    chaos_s: float
    delay_s: float
    sync_s: float
    late: float
    lost: float
    blow_every_s: float
    blows: tuple[str, ...]
    withdraws: float
    clocks_step: bool


def draw_quorum(dice: random.Random) -> QuorumProfile:
    """Make the profile of a run."""
    chaos_s = dice.choice([14.0, 18.0, 30.0])
    machine = replace(
        draw(dice), backends=dice.randint(1, 3), works=dice.choice([10, 20, 40]), chaos_s=chaos_s, step_error=0.0,
        disk_full=0.0, flip=0.0, doubled=0.0, network_cut=0.0, delay_s=dice.choice([0.001, 0.02]),
        lost=dice.choice([0.0, 0.05]), cut_at_step=dice.choice([0.0, 0.0, 0.0, 0.001]),
        kill_at_step=dice.choice([0.0, 0.0, 0.001]), slow_step_s=dice.choice([0.0, 0.0, 0.02, 0.5]),
        clock_jump_ms=dice.choice([0, 5_000, 3_600_000]), every_events=dice.choice([8, 15, 40]),
        quorum=QuorumConfig(
            silence_seconds=dice.choice([1, 1, 3]), publish_timeout_seconds=1,
            stream_keep_bytes=dice.choice([1_000, 4_000, 2**30]),
        ),
    )  # fmt: skip
    return QuorumProfile(
        machine=machine,
        chaos_s=chaos_s,
        delay_s=dice.choice([0.0005, 0.005, 0.05]),
        sync_s=dice.choice([0.0, 0.0, 0.01, 0.5]),
        late=dice.choice([0.0, 0.02, 0.1]),
        lost=dice.choice([0.0, 0.02, 0.1]),
        blow_every_s=dice.choice([1.0, 2.5, 5.0]),
        blows=tuple(sorted(dice.sample(BLOWS, dice.randint(3, len(BLOWS))))),
        withdraws=dice.choice([0.0, 0.5, 1.0]),
        clocks_step=dice.random() < 0.2,
    )


class Weather:
    """How messages between nodes and servers fare. Before and after the chaos none is late or lost."""

    def __init__(self, profile: QuorumProfile, dice: random.Random) -> None:
        self.loses_until_s = self.holds_until_s = 0.0
        self._profile = profile
        self._dice = dice

    @property
    def calm(self) -> bool:
        return not QUIET_S <= trio.current_time() < self._profile.chaos_s

    def delay_s(self) -> float:
        return min(self._dice.expovariate(1 / self._profile.delay_s), DELAY_S_MAX)

    def sync_s(self) -> float:
        return self._profile.sync_s and self._dice.uniform(0.0, self._profile.sync_s)

    def is_late(self) -> bool:
        """Whether a request is held up on its way."""
        if self.calm:
            return False
        return trio.current_time() < self.holds_until_s or self._dice.random() < self._profile.late

    def loses(self) -> bool:
        """Whether an answer, or a word, is lost."""
        if self.calm:
            return False
        return trio.current_time() < self.loses_until_s or self._dice.random() < self._profile.lost


DiceFor = Callable[[str], random.Random]
"""Makes a generator for each purpose."""
