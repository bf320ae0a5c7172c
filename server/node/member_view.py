"""What a member tells of its quorum: for GET /quorum, and for who has it step down."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import trio

from server.api.quorum_forms import QuorumAnswer, QuorumLeader, QuorumNode, QuorumStream
from server.node.member import Member
from server.node.stream_retention import StreamRetention
from server.node.surroundings import Surroundings
from server.quorum.peers import Peer, Peers
from server.replication.replicas import WholeReplica
from server.role import CurrentRole, State


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """See above. It asks nobody: everything is known here already."""

    world: Surroundings
    member: Member
    role: CurrentRole
    peers: Peers
    replica: WholeReplica
    retention: StreamRetention

    def view(self) -> QuorumAnswer:
        """Say what this node knows of the quorum."""
        role, tail, counted = self.role.now, self.replica.tail, self.member.statistics()
        place, leads = max(0, counted.place), role.state is State.LEADING
        own = QuorumNode(
            self.world.node.name, self.world.config.replication.public_url or self.world.url, role.state.label, leads,
            tail.epoch, tail.seq, place, 0, 0, True,
        )  # fmt: skip
        now_s = trio.current_time()
        others = [_node_of(peer, tail.seq, now_s) for peer in self.peers.all()]
        bounds = self.retention.bounds if leads else None  # those of an earlier lead are long past
        stream = QuorumStream(self.world.config.quorum.stream)
        if bounds is not None:
            stream = msgspec.structs.replace(stream, first=bounds.first, last=bounds.last, bytes=bounds.bytes)
        return QuorumAnswer(
            role.state.label, tail.epoch, tail.seq, place, self._leader(own, others), leads and not role.unconfirmed,
            [own, *others], stream, counted.takeovers, counted.depositions, counted.doubts,
        )  # fmt: skip

    async def step_down(self) -> tuple[int, int]:
        """Let another node lead; give the epoch that ends and its last seq. Raises `Refused`."""
        return await self.member.step_down()

    def _leader(self, own: QuorumNode, others: list[QuorumNode]) -> QuorumLeader | None:
        """Give this node if it leads, or the one that it follows."""
        if own.leads:
            return QuorumLeader(own.name, own.url)
        followed = self.role.latest.leader
        if not followed:
            return None
        return QuorumLeader(next((node.name for node in others if node.url == followed), ""), followed)


def _node_of(peer: Peer, seq: int, now_s: float) -> QuorumNode:
    word = peer.word
    return QuorumNode(
        word.name, word.public_url or word.url, word.role, word.leads, max(1, word.epoch), word.seq, word.place,
        max(0, seq - word.seq), max(0, round(1000 * (now_s - peer.heard_s))), False,
    )  # fmt: skip
