"""What a simulated run is made of: how much of which fault, drawn from the seed.

Each run leaves some kinds of faults out (swarm testing: Groce and others, ISSTA 2012): where everything goes wrong all
the time nothing gets far enough for the rarer things to happen, and one fault hides another.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from server.settings.config import ActionsConfig
from server.settings.quorum import QuorumConfig

START_MS = 1_765_000_000_000

NO_QUORUM = QuorumConfig()
MOSTLY_IN_MEMORY = ActionsConfig()

CLOCKS_CHAOS_S = 24.0
"""In runs with clocks that step: long enough for some steps that last."""


@dataclass(frozen=True)
class Profile:
    """Chances are for each step, message or power cut; times are in virtual seconds."""

    backends: int
    works: int
    """How much work each backend does."""
    users: int
    viewers: int
    segment_bytes: int
    every_events: int
    keep: int
    log_keep_s: float | None
    chaos_s: float
    """After this time nothing goes wrong any more, and all clients must finish their work."""
    ends_every_s: float
    """How long a process lives on average, unless a step ends it first; then it is stopped, killed or cut off."""
    cut_at_step: float
    kill_at_step: float
    step_error: float
    disk_full: float
    flip: float
    slow_step_s: float
    delay_s: float
    lost: float
    doubled: float
    network_cut: float
    clock_jump_ms: int
    erase_within_hours: int = 24
    quorum: QuorumConfig = NO_QUORUM
    actions: ActionsConfig = MOSTLY_IN_MEMORY
    run_lost: float = 0.0
    """So often an operator takes a file of actions away between two lives."""


@dataclass(frozen=True)
class Following:
    """The replicas of a run. The chances of a line are for each piece that is sent."""

    leader: Profile
    """The profile of the run. A leader with followers drops its log more often, so followers fall too far behind."""
    machines: tuple[Profile, ...] = ()
    """The profile of each replica's machine."""
    chained: bool = False
    """The second replica follows the first, which is a relay."""
    line_cut: float = 0.0
    line_stalled: float = 0.0
    changes_leaders_s: float | None = None
    """When the first replica takes over, if it has everything then."""


def draw_following(dice: random.Random, profile: Profile) -> Following:
    """Say which replicas a run has; most have none, since they take much longer."""
    if dice.random() > 0.25:
        return Following(profile)
    machines = [draw(dice) for _ in range(dice.choice([1, 1, 2]))]
    return Following(
        leader=replace(
            profile, every_events=dice.choice([4, 8, 15, 40]), log_keep_s=dice.choice([None, 0.0, 0.0, 0.0, 2.0])
        ),
        machines=tuple(
            replace(machine, chaos_s=profile.chaos_s, delay_s=profile.delay_s, viewers=1) for machine in machines
        ),
        chained=dice.random() < 0.6,
        line_cut=dice.choice([0.0, 0.005, 0.03]),
        line_stalled=dice.choice([0.0, 0.003, 0.01]),
        changes_leaders_s=dice.choice([None, dice.uniform(0.1, 0.9) * profile.chaos_s]),
    )


def with_age(profile: Profile) -> Profile:
    """Give the profile for a run in which clocks step.

    An age of segments is set, no clock jumps between lives, and the chaos is long enough for steps that last.
    """
    return replace(profile, log_keep_s=profile.log_keep_s or 3.0, clock_jump_ms=0, chaos_s=CLOCKS_CHAOS_S)


def draw(dice: random.Random) -> Profile:
    """Make the profile of a run."""
    return Profile(
        backends=dice.randint(1, 4),
        works=dice.choice([5, 8, 12, 12, 30]),
        users=dice.randint(2, 14),
        viewers=dice.randint(1, 2),
        segment_bytes=dice.choice([700, 1024, 2048, 4096]),
        every_events=dice.choice([4, 8, 15, 40]),
        keep=dice.choice([2, 2, 3]),
        log_keep_s=dice.choice([None, 0.0, 2.0, 6.0]),
        chaos_s=dice.choice([6.0, 12.0, 20.0]),
        ends_every_s=dice.choice([1.0, 3.0, 10.0]),
        cut_at_step=dice.choice([0.0, 0.0, 0.005, 0.02, 0.06]),
        kill_at_step=dice.choice([0.0, 0.0, 0.005, 0.02]),
        step_error=dice.choice([0.0, 0.0, 0.004, 0.02]),
        disk_full=dice.choice([0.0, 0.0, 0.0, 0.01]),
        flip=dice.choice([0.0, 0.0, 0.0, 0.5]),
        slow_step_s=dice.choice([0.0, 0.0, 0.02, 0.3]),
        delay_s=dice.choice([0.001, 0.02, 0.3]),
        lost=dice.choice([0.0, 0.02, 0.15]),
        doubled=dice.choice([0.0, 0.05, 0.2]),
        network_cut=dice.choice([0.0, 0.0, 0.3]),
        clock_jump_ms=dice.choice([0, 0, 5_000]),
    )
