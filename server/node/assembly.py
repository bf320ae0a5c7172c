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

from engine.scoreboard import Scoreboard
from server.access.key_exchange import SharedKey
from server.access.lease import authorize
from server.node.applied import on_applied
from server.node.file_boards import FileBoards
from server.node.following import Following, first_role
from server.node.hooks import make_hooks
from server.node.node import Node
from server.node.parts import Surface, make_eraser, make_log_users, make_pipeline, make_surface, tasks_of
from server.node.period_keeper import PeriodKeeper
from server.node.promotion import NOTHING_KEPT, NOTHING_YET, ONLY_A_SHARD, Promote, Promotion, refuse_promotion
from server.node.shard import NoLog, NoWriter
from server.node.shutdown import Task
from server.node.surroundings import Surroundings
from server.node.waiting import Waiting, WaitingNode
from server.replication.bootstrap import Bootstrap
from server.replication.download import ShowBytes, no_bytes
from server.replication.epoch_notifier import EpochNotifier
from server.replication.follower import Follower
from server.replication.link import Endpoint
from server.replication.messages import SCOPE, Hello
from server.replication.period_fetch import PeriodFetch
from server.replication.progress import FollowingState, Progress
from server.replication.replicas import Replica, ShardReplica, WholeReplica
from server.replication.sharding import Shard
from server.role import Role, State
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


def assemble_leader(world: Surroundings, opened: Opened) -> Node:
    """Build a leader on an opened directory."""
    surface = make_surface(world, opened.scoreboard, Role(State.LEADING))
    keeper = PeriodKeeper(world, opened.scoreboard, opened.log.tail.log_id, ended=opened.ended)
    erasures = make_eraser(world, opened, keeper)
    hooks = make_hooks(world, opened, surface.role, keeper, erasures)
    _, _, actor, watch, service = make_log_users(
        world, opened, surface, None, keeper, erasures, hooks, _nobody_to_tell
    )  # fmt: skip
    promote = partial(refuse_promotion, surface.role)
    return Node(
        role=surface.role,
        scoreboard=opened.scoreboard,
        pipeline=make_pipeline(world, surface, actor, opened.log, service, promote, keeper, erasures, hooks),
        live=surface.live,
        tasks=(
            *service.tasks,
            keeper.run,
            actor.run,
            actor.run_alarm,
            actor.reader.run,
            FileBoards(world, actor, opened.scoreboard).run,
            watch.run,
            *tasks_of(hooks),
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
    surface = make_surface(world, opened.scoreboard, first, progress)
    role = surface.role
    notifier = EpochNotifier(plan.leader, token=plan.token, timing=world.link_timing, uniform=world.uniform)

    def pass_on(hello: Hello) -> None:
        progress.heard_of(hello.successor)  # a promotion here must begin a higher epoch
        notifier.tell(hello, world.tasks, on_outranked=progress.heard_of)

    fetch = PeriodFetch(
        lambda: plan.leader, world.disk, world.config.data_dir, token=plan.token, uniform=world.uniform
    ).fetch
    keeper = PeriodKeeper(world, opened.scoreboard, opened.log.tail.log_id, fetch, opened.ended)
    erasures = make_eraser(world, opened, keeper)
    hooks = make_hooks(world, opened, role, keeper, erasures)
    feed, machine, actor, watch, service = make_log_users(
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
        pipeline=make_pipeline(world, surface, actor, opened.log, service, promote, keeper, erasures, hooks),
        live=surface.live,
        tasks=(*service.tasks, keeper.run, *tasks, watch.run, *tasks_of(hooks)),
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
    surface = make_surface(world, scoreboard, first_role(waiting.leader_url, vouched=False), progress)
    node = WaitingNode(world, surface.role, progress, bootstrap, partial(authorize, world.authenticator, (SCOPE,)))
    waiting.on_reason(node.show)
    promote = partial(refuse_promotion, surface.role, NOTHING_YET)
    return Node(
        role=surface.role,
        scoreboard=scoreboard,
        pipeline=make_pipeline(world, surface, NoWriter(), NoLog(), None, promote),
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
    surface = make_surface(world, scoreboard, first, progress, shard)
    took = on_applied(world, scoreboard, surface.freshness, surface.applied)
    replica = ShardReplica(world.disk, scoreboard, shard, on_applied=took)
    following, tasks = _make_following(world, surface, progress, replica, plan, _nobody_to_wake)
    promote = partial(refuse_promotion, surface.role, ONLY_A_SHARD)
    return Node(
        role=surface.role,
        scoreboard=scoreboard,
        pipeline=make_pipeline(world, surface, NoWriter(), NoLog(), None, promote),
        live=surface.live,
        tasks=tasks,
        promote=promote,
        following=following,
        keeps=False,
    )


def _make_following(
    world: Surroundings, surface: Surface, progress: Progress, replica: Replica, plan: FollowPlan,
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


def _nobody_to_wake() -> None:
    """Do nothing: a shard has no followers."""


def _nobody_to_tell(hello: Hello) -> None:
    raise AssertionError(f"a leader that hears of epoch {hello.epoch} is deposed; it passes no word on")
