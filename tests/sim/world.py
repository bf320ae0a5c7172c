"""One simulated run: a leader, replicas, backends, readers and viewers in virtual time, everything from one seed.

    seed ──► profile ──► chaos for some seconds ──► calm: all clients finish their work ──► the nodes stop
                                                                                             └► a last look at the disks

Some of the runs have replicas, which follow the leader or one another; clients read and watch them like the leader.

All chance comes from generators named after the seed and their purpose, and Trio's order of tasks is seeded too
(`tests.sim.runs`). Nothing depends on the hash seed: no code iterates over a set of strings or objects. So a seed gives
the same run each time, and `Report.digest`, over everything that happened, proves it.
"""

from __future__ import annotations

import random
import traceback
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from unittest import mock

import trio

from engine.disk import Disk
from engine.errors import LogDamaged
from server.node import parts
from snapshots.digests import state_digest
from snapshots.opening import Opened, open_directory
from snapshots.state import read_state
from tests.sim.boards import RULES, period_at, short_days
from tests.sim.books import Books, Broken
from tests.sim.clients import Backend, Reader
from tests.sim.clocks import CLOCKS, STEADY, STEPPING, WallClock, WrongTime, draw_clocks
from tests.sim.cluster import Cluster
from tests.sim.disk import Machine
from tests.sim.erasures import Auditor
from tests.sim.hardware import Hardware
from tests.sim.indexes import INDEX, Indexing, draw_indexing, lacks_runs
from tests.sim.live_officers import LiveOfficer, with_privacy
from tests.sim.mishaps import MISHAPS, PERIODS, Mishaps, draw_mishaps, with_periods
from tests.sim.network import DELAY_S_MAX, Network
from tests.sim.node import Node
from tests.sim.officers import OFFICER, Officer
from tests.sim.period_files import check_all_files
from tests.sim.process import DATA
from tests.sim.profile import CLOCKS_CHAOS_S, Profile, draw, draw_following, with_age
from tests.sim.replays import REPLAYS, check_replays
from tests.sim.restores import check_restore
from tests.sim.runs import run_seeded
from tests.sim.screens import Viewer
from tests.sim.stage import Stage
from tests.sim.storage import Nothing
from tests.sim.trace import Trace
from tests.sim.variant import SOUND, Variant

ALL_DONE_S = 120.0
"""Virtual time after the chaos; a client that has not finished by then never will."""

FOLLOWING = "followers"
"""The name of the generator for replicas. Seeds that once failed don't use it, so they stay the same runs."""

LAST_SHOWN_S = 3.0
"""Time after the last event for a viewer to connect again and get the board."""


@dataclass
class Report:
    """How a run went. `fault` is the promise that was broken, None if all were kept."""

    seed: int
    digest: str = ""
    fault: str | None = None
    starts: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)


RESTORED = 0.2
"""The part of the runs whose leader's directory is restored at the end."""

NOTED_SEEDS = 2
"""Seeds that are this modulo 4 have short days, in which ranks are noted. Many periods end, some without room."""

DISPUTED_SEEDS = 5
"""Seeds that are this modulo 8 have a referee, who reverses actions."""

SWITCHED_SEEDS = 6
"""Seeds that are this modulo 8 have somebody who switches the live channel off and on."""

ERASING_SEEDS = 11
"""Seeds that are this modulo 16 have the same, but the officer has users erased while nodes run."""

AMENDED_SEEDS = 7
"""Seeds that are this modulo 8 have a referee, a judge, an importer, who brings scores of another system, and an
officer, who has users erased."""


def simulate(seed: int, *, variant: Variant = SOUND, keep_all: bool = False) -> Report:
    """Do one run."""
    report = Report(seed)
    indexing = draw_indexing(dice_for(seed, INDEX))

    async def main() -> None:
        trace = Trace(keep_all=keep_all)
        books = Books(trace)
        try:
            report.starts = await _run(seed, indexing, variant, books, trace)
        except* Exception as group:
            # A broken promise, or an unhandled error, which is as bad.
            report.fault = fault_of(group)
            trace.note("broken", report.fault)
        finally:
            report.digest, report.counts, report.lines = trace.digest, books.counts, list(trace.lines)

    days = short_days() if seed % 4 == NOTED_SEEDS else nullcontext()
    blocks = nullcontext() if indexing is None else indexing.patched()
    with blocks, variant.patched(), days, mock.patch.object(parts, "period_at", period_at):
        run_seeded(seed, main)
    return report


def simulate_all(seeds: Iterable[int]) -> list[Report]:
    """Do some runs, in a process of their own."""
    return [simulate(seed) for seed in seeds]


def fault_of(group: ExceptionGroup[Exception]) -> str:
    """Tell the promise that was broken; of another error, where it came from."""
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, Broken | WrongTime):
        return str(error)
    return "".join(traceback.format_exception(error)).strip()


def dice_for(seed: int, what: str) -> random.Random:
    """Make a generator for each purpose, so a change to one leaves the others as they were."""
    return random.Random(f"{seed} {what}")


def _clock(seed: int, name: str) -> WallClock:
    """Make the wall clock of a node: one that steps, in some of the runs."""
    if dice_for(seed, CLOCKS).random() >= STEPPING:
        return WallClock()
    return WallClock(draw_clocks(dice_for(seed, f"{CLOCKS} {name}"), CLOCKS_CHAOS_S), STEADY)


async def _run(seed: int, indexing: Indexing | None, variant: Variant, books: Books, trace: Trace) -> int:
    following = draw_following(dice_for(seed, FOLLOWING), draw(dice_for(seed, "profile")))
    clock = partial(_clock, seed)
    if clock("leader").steps:
        machines = tuple(with_age(machine) for machine in following.machines)
        following = replace(following, leader=with_age(following.leader), machines=machines)
    if erases_live := seed % 16 == ERASING_SEEDS:
        following = with_privacy(following, dice_for(seed, f"{OFFICER} times"))
    if indexing is not None:
        following = indexing.spread(following)
    profile = following.leader
    trace.note("profile", profile)
    hardware = Hardware(profile, dice_for(seed, "hardware"), books, trace, _mishaps(seed, profile.chaos_s))
    leader = Node(
        "leader", hardware, books, trace, dice_for(seed, "leader"), dice_for(seed, "leader lots"),
        clock=clock("leader"), wrap=variant.wrap_disk, opened=variant.after_opening,
    )  # fmt: skip
    cluster = Cluster(leader, hardware, following, partial(dice_for, seed), variant.wrap_replica, books, trace, clock)
    with cluster.reaching():
        async with trio.open_nursery() as world:
            network = Network(profile, dice_for(seed, "network"), world, lambda: cluster.leader.process, books, trace)
            world.start_soon(network.cut_now_and_then)
            world.start_soon(leader.live)
            viewers = [
                Viewer(f"viewer-{number}", "main", deltas=number % 2 == seed % 2, books=books, trace=trace)
                for number in range(profile.viewers)
            ]
            for viewer in viewers:
                world.start_soon(viewer.watch, network, dice_for(seed, viewer.name))
            reader = Reader("reader", network, dice_for(seed, "reader"), books, trace)
            world.start_soon(reader.read, lambda: cluster.machines[cluster.leader.name].spoils_receipts)
            cluster.begin(world)
            stage = Stage(
                profile, partial(dice_for, seed), world, lambda: cluster.leader.process, books, trace,
                disputed=seed % 8 == DISPUTED_SEEDS, amended=seed % 8 == AMENDED_SEEDS or erases_live,
                switched=seed % 8 == SWITCHED_SEEDS,
            )  # fmt: skip
            officer, live_officer = None, None
            if erases_live:
                dice = dice_for(seed, f"{OFFICER} network")
                network_of = Network(profile, dice, world, lambda: cluster.leader.process, books, trace)
                live_officer = LiveOfficer(cluster, network_of, dice_for(seed, OFFICER), books, trace)
                world.start_soon(live_officer.work, profile.chaos_s)
                world.start_soon(live_officer.watch)
            if seed % 8 == AMENDED_SEEDS:
                officer = Officer(cluster, dice_for(seed, OFFICER), books, trace)
                world.start_soon(officer.work, profile.chaos_s)
            await _let_work(seed, profile, network, books, trace)
            await stage.rest()
            if officer is not None:
                await officer.rest_leader()
            await cluster.caught_up()
            if officer is not None:
                await officer.rest_others()
                await cluster.caught_up()
            if live_officer is not None:
                await live_officer.rest()
            await trio.sleep(LAST_SHOWN_S + 4 * DELAY_S_MAX)
            for viewer in [*viewers, *cluster.viewers, *stage.viewers]:
                viewer.check_last()
            await cluster.aftermath()
            await cluster.close()
            world.cancel_scope.cancel()
    erasures: Auditor | None = live_officer if officer is None else officer.erasures
    leading = cluster.machines[cluster.leader.name]
    _look_at_the_disk(leading, books, dice_for(seed, "end"), erasures, steps=clock("leader").steps)
    cluster.look_at_the_disks(erasures)
    check_replays(books, dice_for(seed, REPLAYS))
    return sum(node.starts for node in cluster.nodes)


def _mishaps(seed: int, chaos_s: float) -> Mishaps:
    """Draw what happens to the leader's machine."""
    mishaps = draw_mishaps(dice_for(seed, f"{MISHAPS} leader"), chaos_s)
    return with_periods(mishaps, dice_for(seed, PERIODS), chaos_s) if seed % 4 == NOTED_SEEDS else mishaps


async def _let_work(seed: int, profile: Profile, network: Network, books: Books, trace: Trace) -> None:
    """Let the backends work until they have finished and the chaos is over."""
    backends = [
        Backend(f"backend-{number}", network, dice_for(seed, f"backend {number}"), books, trace)
        for number in range(profile.backends)
    ]
    with trio.move_on_after(profile.chaos_s + ALL_DONE_S) as patience:
        async with trio.open_nursery() as working:
            for backend in backends:
                working.start_soon(backend.work, profile)
        await trio.sleep_until(profile.chaos_s)
    if patience.cancelled_caught:
        raise Broken("nothing was wrong any more, and yet a backend got no answer")


def _look_at_the_disk(
    hardware: Hardware, books: Books, dice: random.Random, erasures: Auditor | None, *, steps: bool
) -> None:
    """Open the directory at the end, let the tools read it, restore it elsewhere, and compare."""
    hardware.machine.kill()
    if hardware.flipped:
        hardware.mend()
    machine = hardware.machine.fork(Nothing())
    if dice.random() < 0.5:
        machine.cut_power()
    try:
        _compare(machine, books, dice, hardware.profile, steps=steps)
        if erasures is not None:
            erasures.audit("the leader", machine)
    except LogDamaged as damage:
        raise Broken(f"nothing was wrong any more, and yet: {damage}") from damage


def _compare_times(disk: Disk, books: Books, opened: Opened, dice: random.Random) -> None:
    """Judge all times, and read the state at a time: it has what happened until then, by the corrected times."""
    times = books.times.judge(books.plain.events)
    first = max(opened.snapshot_seq or 0, 1)
    if len(times) < first:
        return
    until_ms = times[dice.randint(first, len(times)) - 1]
    seq = next((seq for seq, time_ms in enumerate(times) if time_ms > until_ms), len(times))
    state, _ = read_state(disk, DATA, RULES, until_ms=until_ms, tell=lambda what: None)
    if state.seq != seq:
        raise Broken(f"the state until {until_ms} has {state.seq} events, {seq} happened until then: {times}")
    books.counts["states read at a time"] += 1


def _compare(machine: Machine, books: Books, dice: random.Random, profile: Profile, *, steps: bool) -> None:
    segment_bytes, keep = profile.segment_bytes, profile.keep
    disk = machine.boot()
    if lacking := lacks_runs(disk, DATA, keep):
        raise Broken(f"the leader's snapshots name files of actions that are missing: {lacking}")
    opened = open_directory(disk, DATA, RULES, tell=lambda what: None, segment_bytes=segment_bytes)
    books.recovered(opened, may_be_damaged=False)
    check_all_files(disk, DATA, opened.scoreboard, books.plain)
    digest = state_digest(opened.scoreboard.capture())
    state, tail = read_state(disk, DATA, RULES, tell=lambda what: None)
    if tail != opened.log.tail or state_digest(state.capture()) != digest:
        raise Broken("the tools read another state than the leader")
    if steps:
        _compare_times(disk, books, opened, dice)
    if books.plain.seq and dice.random() < RESTORED:
        check_restore(disk, opened, books, dice, segment_bytes)
