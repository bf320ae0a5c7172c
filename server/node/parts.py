"""The parts that nodes of several kinds are built of. `server.node.assembly` puts them together; nothing here waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from engine.actor import Actor
from engine.calendar import period_at
from engine.errors import DiskFault, LostPlace
from engine.events import BoardEvent, ClockCorrected, FlagPut, ImportEvent, Incremented
from engine.forgetful_log import ForgetfulLog
from engine.local_log import LocalLog
from engine.log import Log
from engine.machine import Applied, StateMachine, WriteLog
from engine.scoreboard import Scoreboard
from server import bounds
from server.access.lease import authorize
from server.access.rates import Rates, WriteLimits
from server.api.dependencies import Dependencies, QuorumMember, StorageState, Writer
from server.api.periods import NoPeriods, PeriodReader
from server.api.pipeline import Pipeline
from server.api.positions import Positions
from server.api.role_checks import RoleChecks
from server.node.applied import on_applied
from server.node.clock import tell_correction
from server.node.erasure_keeper import ErasureKeeper
from server.node.leader import Deposition
from server.node.log_service import LogService
from server.node.period_keeper import PeriodKeeper
from server.node.promotion import Promote
from server.node.shard import NoLog, no_storage
from server.node.shutdown import Task
from server.node.storage_watch import StorageWatch
from server.node.surroundings import LiveChannel, Surroundings
from server.replication.feed import FrameFeed
from server.replication.freshness import Freshness
from server.replication.messages import SCOPE, Hello
from server.replication.progress import Progress
from server.replication.sharding import Shard
from server.role import CurrentRole, Role, State
from server.webhooks.webhooks import Webhooks
from snapshots.opening import Opened
from snapshots.promotion import Successor
from snapshots.sealing import Sealer


@dataclass(frozen=True, slots=True)
class Surface:
    """What readers of a node use."""

    scoreboard: Scoreboard
    role: CurrentRole
    freshness: Freshness
    checks: RoleChecks
    positions: Positions
    live: LiveChannel

    def role_changed(self, before: Role, now: Role) -> None:
        """Wake the waiting reads, and tell viewers of a change that they can see."""
        self.positions.advanced()
        if now.is_aged != before.is_aged or (now.state is not before.state and now.state is State.LEADING):
            self.live.board_changed(self.scoreboard.boards)

    def applied(self, applied: Applied) -> set[str]:
        """Wake the waiting reads, and tell the viewers of the boards that a frame touched, which it gives."""
        boards: set[str] = set()
        for event in applied.events:
            if type(event) is Incremented:
                boards.add(event.board_id)
                if event.fed:
                    boards.update(fed.board_id for fed in event.fed)
            elif isinstance(event, BoardEvent | ImportEvent):
                boards.add(event.board_id)
            elif not isinstance(event, ClockCorrected | FlagPut):
                boards.update(self.scoreboard.boards)  # a user's name or presence shows on every board
        self.live.board_changed(boards)
        self.positions.advanced()
        return boards


@dataclass(frozen=True, slots=True)
class QuorumSeam:
    """What is different in a member of a quorum: the log that its actor writes, and who is told that it lost."""

    log: WriteLog
    on_lost: Callable[[LostPlace], None]
    on_outranked: Callable[[Successor], None]


def make_surface(
    world: Surroundings, scoreboard: Scoreboard, first: Role, progress: Progress | None = None,
    shard: Shard | None = None,
) -> Surface:  # fmt: skip
    replication = world.config.replication
    role = CurrentRole(first, trio.current_time)
    ready_age_s = float(replication.ready_age_seconds)
    freshness = Freshness(role, scoreboard, world.clock.now_ms, progress=progress, ready_age_s=ready_age_s)
    checks = RoleChecks(role, freshness, shard)
    positions = Positions(scoreboard, checks, float(replication.behind_wait_seconds))
    live = world.make_live(scoreboard, freshness, checks)
    surface = Surface(scoreboard, role, freshness, checks, positions, live)
    role.on_change(surface.role_changed)
    return surface


def make_eraser(world: Surroundings, opened: Opened, keeper: PeriodKeeper) -> ErasureKeeper:
    return ErasureKeeper(
        world, opened.scoreboard, opened.log, keeper, opened.unsettled, opened.snapshot_seq,
        erasures_known=opened.erasures_known,
    )  # fmt: skip


def make_log_users(
    world: Surroundings,
    opened: Opened,
    surface: Surface,
    progress: Progress | None,
    keeper: PeriodKeeper,
    erasures: ErasureKeeper,
    hooks: Webhooks | None,
    on_newer: Callable[[Hello], None],
    quorum: QuorumSeam | None = None,
) -> tuple[FrameFeed, StateMachine, Actor, StorageWatch, LogService]:
    """Build what a node with a log has: the feed, the state machine, the actor, the watch, and the log service.

    `quorum` is for a member of one.
    """
    feed = FrameFeed(opened.log.tail.seq)
    took = on_applied(world, opened.scoreboard, surface.freshness, surface.applied, feed, erasures, hooks)
    written: WriteLog = LocalLog(opened.log) if quorum is None else quorum.log
    machine = StateMachine(opened.scoreboard, written, took, keeper.take)
    sealer = Sealer(
        opened.scoreboard, world.disk, world.config.data_dir, opened.log, world.config.actions.rules, tell=world.tell
    )
    on_lost = _nobody_else_writes if quorum is None else quorum.on_lost
    actor = Actor(
        machine, clock=world.clock, on_correction=tell_correction, on_lost=on_lost,
        on_damage=sealer.damaged, period_at=period_at,
    )  # fmt: skip
    deposition = Deposition(world, surface.role, actor, opened.scoreboard)
    on_deposed = deposition.begin if quorum is None else quorum.on_outranked
    watch = StorageWatch(world, opened.log, surface.role)
    may_follow = partial(authorize, world.authenticator, (SCOPE,))
    service = LogService(
        world, opened, machine, feed, surface.role, surface.checks, watch, progress, keeper, erasures, sealer,
        authorize=may_follow, on_deposed=on_deposed, on_newer=on_newer,
    )  # fmt: skip
    return feed, machine, actor, watch, service


def make_pipeline(
    world: Surroundings, surface: Surface, writer: Writer, log: Log | NoLog, service: LogService | None,
    promote: Promote, periods: PeriodReader | None = None, erasures: ErasureKeeper | None = None,
    hooks: Webhooks | None = None, quorum: QuorumMember | None = None,
) -> Pipeline:  # fmt: skip
    config = world.config
    storage: Callable[[], StorageState] = no_storage if service is None else service.storage
    return Pipeline(
        Dependencies(
            scoreboard=surface.scoreboard,
            writer=writer,
            on_damage=_not_damaged if service is None else service.damaged,
            log=ForgetfulLog(log, erasures.unsettled) if erasures is not None and isinstance(log, Log) else log,
            role=surface.role,
            freshness=surface.freshness,
            checks=surface.checks,
            positions=surface.positions,
            authenticator=world.authenticator,
            limits=WriteLimits(
                Rates(config.limits.caller_per_minute, bounds.RATE_KEYS_MAX),
                Rates(config.limits.user_per_minute, bounds.RATE_KEYS_MAX),
                Rates(config.limits.caller_per_minute, bounds.RATE_KEYS_MAX),
                world.metrics.rate_limited,
            ),
            metrics=world.metrics,
            audit=world.audit,
            pages=world.pages,
            storage=storage,
            public_reads=config.auth.public_reads,
            names=config.privacy.names,
            clics_version=config.feeds.clics_version,
            origins=config.live.origins,
            frame_ancestors=config.live.frame_ancestors,
            viewers=surface.live.watching,
            clock_ms=world.clock.now_ms,
            clock_s=world.clock_s,
            request_ids=world.request_ids,
            followers=list if service is None else service.followers.statistics,
            promote=promote,
            periods=NoPeriods() if periods is None else periods,
            past=None if service is None else world.past,
            ledger=None if service is None else service.ledger,
            erasing=erasures,
            hooks=hooks,
            quorum=quorum,
            warnings=partial(_warnings, world, surface, erasures, hooks),
        )
    )


def tasks_of(hooks: Webhooks | None) -> Sequence[Task]:
    return () if hooks is None else (hooks.run,)


def _warnings(
    world: Surroundings, surface: Surface, erasures: ErasureKeeper | None, hooks: Webhooks | None
) -> list[str]:
    """Give what an operator should know of a node that is ready all the same."""
    fault = world.key_exchange.fault() if surface.role.now.is_replica else None
    leaders = [] if fault is None else [f"tokens of the leader cannot be verified here: {fault}"]
    late = None if erasures is None else erasures.warning()
    told = [] if hooks is None else hooks.warnings()
    others = [each for each in (late, _index_warning(world, surface.scoreboard)) if each is not None]
    return leaders + others + told + world.key_warnings()


def _index_warning(world: Surroundings, scoreboard: Scoreboard) -> str | None:
    """Say that the index of actions takes more memory than it should, if it does and no checkpoint will mend it."""
    actions, config = scoreboard.actions, world.config.actions
    taken = actions.bytes if config.index == "memory" else actions.sealed.memory_bytes
    most = config.memory_bytes
    if taken <= most:
        return None
    what = "the index of actions takes" if config.index == "memory" else "the filters of older actions take"
    return (
        f"{what} {taken} bytes of memory, more than [actions] memory_bytes = {most}; raise the bound if there is more"
    )


def _nobody_else_writes(lost: LostPlace) -> None:
    raise AssertionError(f"the log of this node is written by this node alone: {lost}")


def _not_damaged(_fault: DiskFault) -> None:
    raise AssertionError("a shard has no files of actions")
