"""The assembly of a member of a quorum. Like `server.node.assembly`, nothing here waits.

member      surface ─ quorum log ─ machine ─ actor ─ storage watch ─ log service ─ replica ─ following ─ member
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from engine.errors import LostPlace
from server.node.file_boards import FileBoards
from server.node.following import Following, first_role
from server.node.hooks import make_hooks
from server.node.log_service import LogService
from server.node.member import Member, MemberParts
from server.node.member_metrics import MemberMetrics
from server.node.member_view import MemberView
from server.node.newcomer import MakeBootstrap, Newcomer, bootstrap_of
from server.node.node import Node
from server.node.parts import QuorumSeam, make_eraser, make_log_users, make_pipeline, make_surface, tasks_of
from server.node.period_keeper import PeriodKeeper
from server.node.promotion import refuse_promotion
from server.node.stream_cover import StreamCover
from server.node.stream_retention import StreamRetention
from server.node.surroundings import Surroundings
from server.quorum.peers import Peers
from server.quorum.quorum_log import QuorumLog
from server.quorum.stream import Stream
from server.replication.link import Endpoint, parse_leader
from server.replication.messages import Hello
from server.replication.period_fetch import PeriodFetch
from server.replication.progress import Progress
from server.replication.replicas import WholeReplica
from server.role import CurrentRole
from snapshots.opening import Opened
from snapshots.promotion import Successor

THE_STREAM_DECIDES = "This node is of a quorum: the stream decides who leads. To have another lead: step down."


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberPlan:
    """How a member is built. `token` gives the token for the other nodes, anew for each request.

    `is_new`: the directory was just filled from another node's snapshot. It may be older than what this node showed
    before it lost its disk, so nothing of it is shown until the node has caught up.
    """

    stream: Stream
    token: Callable[[], str]
    is_new: bool = False


def assemble_member(world: Surroundings, opened: Opened, plan: MemberPlan) -> Node:
    """Build a member of a quorum on an opened directory. It follows first."""
    config, scoreboard = world.config, opened.scoreboard
    progress = Progress(scoreboard, world.clock.now_ms)
    surface = make_surface(world, scoreboard, first_role("", vouched=scoreboard.seq > 0 and not plan.is_new), progress)
    role = surface.role
    peers = Peers(world.node_id)
    leader = partial(_leader_of, role)
    fetch = PeriodFetch(leader, world.disk, config.data_dir, token=plan.token, uniform=world.uniform).fetch
    keeper = PeriodKeeper(world, scoreboard, opened.log.tail.log_id, fetch, opened.ended)
    erasures = make_eraser(world, opened, keeper)
    hooks = make_hooks(world, opened, role, keeper, erasures)
    log = QuorumLog(opened.log, plan.stream, patience_s=float(config.quorum.publish_timeout_seconds))

    def lost(why: LostPlace) -> None:
        member.lose(str(why))

    def outranked(successor: Successor) -> None:
        member.outranked(successor)

    feed, machine, actor, watch, service = make_log_users(
        world, opened, surface, progress, keeper, erasures, hooks, _ignore, QuorumSeam(log, lost, outranked)
    )  # fmt: skip
    replica = WholeReplica(
        world.disk, config.data_dir, machine, opened.log, feed, forget_periods=keeper.forget_before)  # fmt: skip
    following = Following(world, role, progress, surface.live, lambda: list(scoreboard.boards), durable=False)
    retention = StreamRetention(world, plan.stream, log, peers, erasures)
    member = Member(
        MemberParts(
            world=world,
            stream=plan.stream,
            log=log,
            role=role,
            progress=progress,
            replica=replica,
            following=following,
            actor=actor,
            peers=peers,
            put_file_boards=FileBoards(world, actor, scoreboard).run,
            retain=retention.run,
            fetch_snapshot=Newcomer(peers, replica, _bootstraps(world, plan)).fetch,
            on_heard=service.leader_heard,
        )
    )
    view = MemberView(world=world, member=member, role=role, peers=peers, replica=replica, retention=retention)
    world.metrics.register(MemberMetrics(view, log))
    promote = partial(refuse_promotion, role, THE_STREAM_DECIDES)
    return Node(
        role=role,
        scoreboard=scoreboard,
        pipeline=make_pipeline(world, surface, actor, opened.log, service, promote, keeper, erasures, hooks, view),
        live=surface.live,
        tasks=(
            *service.tasks,
            keeper.run,
            member.hear,
            member.tell,
            member.run,
            _cover(plan.stream, replica, service).run,
            following.watch,
            watch.run,
            *tasks_of(hooks),
        ),
        promote=promote,
        actor=actor,
        log=opened.log,
        log_service=service,
        watch=watch,
        member=member,
    )


def _cover(stream: Stream, replica: WholeReplica, service: LogService) -> StreamCover:
    return StreamCover(stream, lambda: replica.tail, lambda: service.storage().snapshot_seq, service.checkpoint)


def _leader_of(role: CurrentRole) -> Endpoint | None:
    """Give the node that is followed now."""
    return parse_leader(role.latest.leader) if role.latest.is_replica and role.latest.leader else None


def _bootstraps(world: Surroundings, plan: MemberPlan) -> MakeBootstrap:
    return partial(
        bootstrap_of, disk=world.disk, data_directory=world.config.data_dir, token=plan.token, uniform=world.uniform,
        node_id=world.node_id,
    )  # fmt: skip


def _ignore(_hello: Hello) -> None:
    """Do nothing: what a follower has seen of a higher epoch is on the stream."""
