"""The assembly: the only place that builds a node. Nothing here waits, and nothing is assigned into an object later.

    leader      surface ─ machine ─ actor ─ deposition ─ storage watch ─ log service ─ pipeline
    replica     the same, and before the pipeline: replica ─ following ─ follower ─ promotion
    shard       surface ─ replica ─ following ─ follower ─ pipeline

    node = assemble_leader(world, opened)

The surface is what readers use: role, freshness, checks, waiting reads, live channel. A replica has an actor too, which
runs after a promotion. Whatever depends on the role asks it (`server.role`). Observers of the role are registered here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from engine.actor import Actor
from engine.calendar import period_at
from engine.events import BoardEvent, ClockCorrected, FlagPut, ImportEvent, Incremented
from engine.forgetful_log import ForgetfulLog
from engine.local_log import LocalLog
from engine.log import Log
from engine.machine import Applied, StateMachine
from engine.scoreboard import Scoreboard
from server import bounds
from server.access.key_exchange import SharedKey
from server.access.lease import authorize
from server.access.rates import Rates, WriteLimits
from server.api.dependencies import Dependencies, StorageState, Writer
from server.api.periods import NoPeriods, PeriodReader
from server.api.pipeline import Pipeline
from server.api.positions import Positions
from server.api.role_checks import RoleChecks
from server.node.applied import on_applied
from server.node.clock import tell_correction
from server.node.erasure_keeper import ErasureKeeper
from server.node.file_boards import FileBoards
from server.node.following import Following, first_role
from server.node.hooks import make_hooks
from server.node.leader import Deposition
from server.node.log_service import LogService
from server.node.node import Node
from server.node.period_keeper import PeriodKeeper
from server.node.promotion import NOTHING_KEPT, NOTHING_YET, ONLY_A_SHARD, Promote, Promotion, refuse_promotion
from server.node.shard import NoLog, NoWriter, no_storage
from server.node.shutdown import Task
from server.node.storage_watch import StorageWatch
from server.node.surroundings import LiveChannel, Surroundings
from server.node.waiting import Waiting, WaitingNode
from server.replication.bootstrap import Bootstrap, ShowBytes, no_bytes
from server.replication.epoch_notifier import EpochNotifier
from server.replication.feed import FrameFeed
from server.replication.follower import Follower
from server.replication.freshness import Freshness
from server.replication.link import Endpoint
from server.replication.messages import SCOPE, Hello
from server.replication.period_fetch import PeriodFetch
from server.replication.progress import FollowingState, Progress
from server.replication.replicas import Replica, ShardReplica, WholeReplica
from server.replication.sharding import Shard
from server.role import CurrentRole, Role, State
from server.webhooks.webhooks import Webhooks
from snapshots.opening import Opened


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowPlan:
    """How a replica follows. `token` gives the token for the leader, anew for each link.

    `durable`: its directory is kept, so it can be promoted. `vouched`: the directory's marker says that the replica
    caught up. `on_progress` gets the bytes of a download, `on_state` each state of the follower and its reason.
    """

    leader: Endpoint
    bootstrap: Bootstrap
    token: Callable[[], str]
    durable: bool = False
    vouched: bool = False
    on_progress: ShowBytes = no_bytes
    on_state: Callable[[FollowingState, str], None] = lambda _state, _reason: None


@dataclass(frozen=True, slots=True)
class _Surface:
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


def assemble_leader(world: Surroundings, opened: Opened) -> Node:
    """Build a leader on an opened directory."""
    surface = _make_surface(world, opened.scoreboard, Role(State.LEADING))
    keeper = PeriodKeeper(world, opened.scoreboard, opened.log.tail.log_id, ended=opened.ended)
    erasures = _make_eraser(world, opened, keeper)
    hooks = make_hooks(world, opened, surface.role, keeper, erasures)
    _, _, actor, watch, service = _make_log_users(
        world, opened, surface, None, keeper, erasures, hooks, _nobody_to_tell
    )  # fmt: skip
    promote = partial(refuse_promotion, surface.role)
    return Node(
        role=surface.role,
        scoreboard=opened.scoreboard,
        pipeline=_make_pipeline(world, surface, actor, opened.log, service, promote, keeper, erasures, hooks),
        live=surface.live,
        tasks=(
            service.run_checkpointer,
            service.run_erasures,
            keeper.run,
            actor.run,
            actor.run_alarm,
            FileBoards(world, actor, opened.scoreboard).run,
            watch.run,
            *_tasks_of(hooks),
        ),
        promote=promote,
        actor=actor,
        log=opened.log,
        log_service=service,
        watch=watch,
    )


def assemble_replica(world: Surroundings, opened: Opened, plan: FollowPlan) -> Node:
    """Build a replica with every board on an opened directory."""
    progress = Progress(opened.scoreboard, world.clock.now_ms)
    first = first_role(plan.leader.url(""), vouched=plan.vouched)
    surface = _make_surface(world, opened.scoreboard, first, progress)
    role = surface.role
    notifier = EpochNotifier(plan.leader, token=plan.token, timing=world.link_timing, uniform=world.uniform)

    def pass_on(hello: Hello) -> None:
        progress.heard_of(hello.successor)  # a promotion here must begin a higher epoch
        notifier.tell(hello, world.tasks, on_outranked=progress.heard_of)

    fetch = PeriodFetch(plan.leader, world.disk, world.config.data_dir, token=plan.token).fetch
    keeper = PeriodKeeper(world, opened.scoreboard, opened.log.tail.log_id, fetch, opened.ended)
    erasures = _make_eraser(world, opened, keeper)
    hooks = make_hooks(world, opened, role, keeper, erasures)
    feed, machine, actor, watch, service = _make_log_users(
        world, opened, surface, progress, keeper, erasures, hooks, pass_on
    )  # fmt: skip
    replica = WholeReplica(
        world.disk, world.config.data_dir, machine, opened.log, feed, durable=plan.durable,
        forget_periods=keeper.forget_before,
    )  # fmt: skip
    following, tasks = _make_following(world, surface, progress, replica, plan, service.leader_heard)
    promote: Promote = partial(refuse_promotion, role, NOTHING_KEPT)
    if plan.durable:
        promote = Promotion(
            world, role, following, progress, replica, actor, notifier, service.depose,
            FileBoards(world, actor, opened.scoreboard).run,
        ).promote  # fmt: skip
    return Node(
        role=role,
        scoreboard=opened.scoreboard,
        pipeline=_make_pipeline(world, surface, actor, opened.log, service, promote, keeper, erasures, hooks),
        live=surface.live,
        tasks=(service.run_checkpointer, service.run_erasures, keeper.run, *tasks, watch.run, *_tasks_of(hooks)),
        promote=promote,
        actor=actor,
        log=opened.log,
        log_service=service,
        watch=watch,
        following=following,
        keeps=plan.durable,
    )


def assemble_waiting(world: Surroundings, waiting: Waiting, bootstrap: Bootstrap) -> Node:
    """Build what stands in for a replica before it has a log. The bootstrap tells `waiting`."""
    scoreboard = Scoreboard(world.config.rules)
    progress = Progress(scoreboard, world.clock.now_ms)
    surface = _make_surface(world, scoreboard, first_role(waiting.leader_url, vouched=False), progress)
    node = WaitingNode(world, surface.role, progress, bootstrap, partial(authorize, world.authenticator, (SCOPE,)))
    waiting.on_reason(node.show)
    promote = partial(refuse_promotion, surface.role, NOTHING_YET)
    return Node(
        role=surface.role,
        scoreboard=scoreboard,
        pipeline=_make_pipeline(world, surface, NoWriter(), NoLog(), None, promote),
        live=surface.live,
        tasks=(),
        promote=promote,
        keeps=False,
        more_lanes=(node.lane(),),
    )


def assemble_shard(world: Surroundings, scoreboard: Scoreboard, shard: Shard, plan: FollowPlan) -> Node:
    """Build a replica of the boards of one shard, in memory. The scoreboard is empty."""
    progress = Progress(scoreboard, world.clock.now_ms)
    first = first_role(plan.leader.url(""), vouched=False)
    surface = _make_surface(world, scoreboard, first, progress, shard)
    took = on_applied(world, scoreboard, surface.freshness, surface.applied)
    replica = ShardReplica(world.disk, scoreboard, shard, on_applied=took)
    following, tasks = _make_following(world, surface, progress, replica, plan, _nobody_to_wake)
    promote = partial(refuse_promotion, surface.role, ONLY_A_SHARD)
    return Node(
        role=surface.role,
        scoreboard=scoreboard,
        pipeline=_make_pipeline(world, surface, NoWriter(), NoLog(), None, promote),
        live=surface.live,
        tasks=tasks,
        promote=promote,
        following=following,
        keeps=False,
    )


def _make_surface(
    world: Surroundings, scoreboard: Scoreboard, first: Role, progress: Progress | None = None,
    shard: Shard | None = None,
) -> _Surface:  # fmt: skip
    replication = world.config.replication
    role = CurrentRole(first, trio.current_time)
    ready_age_s = float(replication.ready_age_seconds)
    freshness = Freshness(role, scoreboard, world.clock.now_ms, progress=progress, ready_age_s=ready_age_s)
    checks = RoleChecks(role, freshness, shard)
    positions = Positions(scoreboard, checks, float(replication.behind_wait_seconds))
    live = world.make_live(scoreboard, freshness, checks)
    surface = _Surface(scoreboard, role, freshness, checks, positions, live)
    role.on_change(surface.role_changed)
    return surface


def _make_eraser(world: Surroundings, opened: Opened, keeper: PeriodKeeper) -> ErasureKeeper:
    return ErasureKeeper(
        world, opened.scoreboard, opened.log, keeper, opened.unsettled, opened.snapshot_seq,
        erasures_known=opened.erasures_known,
    )  # fmt: skip


def _make_log_users(
    world: Surroundings,
    opened: Opened,
    surface: _Surface,
    progress: Progress | None,
    keeper: PeriodKeeper,
    erasures: ErasureKeeper,
    hooks: Webhooks | None,
    on_newer: Callable[[Hello], None],
) -> tuple[FrameFeed, StateMachine, Actor, StorageWatch, LogService]:
    """Build what a node with a log has: the feed, the state machine, the actor, the watch, and the log service."""
    feed = FrameFeed(opened.log.tail.seq)
    took = on_applied(world, opened.scoreboard, surface.freshness, surface.applied, feed, erasures, hooks)
    machine = StateMachine(opened.scoreboard, LocalLog(opened.log), took, keeper.take)
    actor = Actor(machine, clock=world.clock, on_correction=tell_correction, period_at=period_at)
    deposition = Deposition(world, surface.role, actor, opened.scoreboard)
    watch = StorageWatch(world, opened.log, surface.role)
    may_follow = partial(authorize, world.authenticator, (SCOPE,))
    service = LogService(
        world, opened, machine, feed, surface.role, surface.checks, watch, progress, keeper, erasures,
        authorize=may_follow, on_deposed=deposition.begin, on_newer=on_newer,
    )  # fmt: skip
    return feed, machine, actor, watch, service


def _make_following(
    world: Surroundings, surface: _Surface, progress: Progress, replica: Replica, plan: FollowPlan,
    on_heard: Callable[[], None],
) -> tuple[Following, Sequence[Task]]:  # fmt: skip
    following = Following(
        world, surface.role, progress, surface.live, lambda: list(surface.scoreboard.boards), durable=plan.durable
    )

    def told(state: FollowingState, reason: str) -> None:
        plan.on_state(state, reason)
        following.told(state, reason)

    def heard() -> None:
        following.heard()
        on_heard()

    follower = Follower(
        replica,
        plan.leader,
        plan.bootstrap,
        token=plan.token,
        clock_ms=world.clock.now_ms,
        uniform=world.uniform,
        blocks=world.disk.blocks,
        timing=world.link_timing,
        progress=progress,
        node_id=world.node_id,
        on_progress=plan.on_progress,
        on_state=told,
        on_heard=heard,
        on_welcome=lambda welcome: world.key_exchange.told(SharedKey(welcome.token_key, welcome.token_key_id)),
    )
    return following, (partial(following.run, follower), following.watch)


def _make_pipeline(
    world: Surroundings, surface: _Surface, writer: Writer, log: Log | NoLog, service: LogService | None,
    promote: Promote, periods: PeriodReader | None = None, erasures: ErasureKeeper | None = None,
    hooks: Webhooks | None = None,
) -> Pipeline:  # fmt: skip
    config = world.config
    storage: Callable[[], StorageState] = no_storage if service is None else service.storage
    return Pipeline(
        Dependencies(
            scoreboard=surface.scoreboard,
            writer=writer,
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
            warnings=partial(_warnings, world, surface.role, erasures, hooks),
        )
    )


def _tasks_of(hooks: Webhooks | None) -> Sequence[Task]:
    return () if hooks is None else (hooks.run,)


def _warnings(
    world: Surroundings, role: CurrentRole, erasures: ErasureKeeper | None, hooks: Webhooks | None
) -> list[str]:
    """Give what an operator should know of a node that is ready all the same."""
    fault = world.key_exchange.fault() if role.now.is_replica else None
    leaders = [] if fault is None else [f"tokens of the leader cannot be verified here: {fault}"]
    late = None if erasures is None else erasures.warning()
    told = [] if hooks is None else hooks.warnings()
    return leaders + ([] if late is None else [late]) + told + world.key_warnings()


def _nobody_to_wake() -> None:
    """Do nothing: a shard has no followers."""


def _nobody_to_tell(hello: Hello) -> None:
    raise AssertionError(f"a leader that hears of epoch {hello.epoch} is deposed; it passes no word on")
