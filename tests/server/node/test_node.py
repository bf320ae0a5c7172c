"""The end of a node: what is stopped, in which order, and what each kind of node leaves out."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio

from server.node.node import Node
from server.role import CurrentRole, Role, State


class Steps:
    """Stands in for every part of a node that has something to do at its end."""

    def __init__(self, state: State = State.FOLLOWING) -> None:
        self.taken: list[str] = []
        self.role = CurrentRole(Role(state), trio.current_time)

    async def stop(self) -> None:
        """See `Following`."""
        self.taken.append("following stops")

    async def drain(self) -> None:
        """See `Actor`."""
        self.taken.append("actor drains")

    async def checkpoint(self) -> None:
        """See `LogService`."""
        self.taken.append("checkpoint")

    def close_links(self) -> None:
        """See `LogService`."""
        self.taken.append(f"links end, draining {self.role.now.draining}")

    def close(self) -> None:
        """See `Log`."""
        self.taken.append("log closes")

    def lanes(self) -> tuple[str, ...]:
        """See `LogService`."""
        return ("snapshots",)

    def websocket_lanes(self) -> tuple[str, ...]:
        """See `LogService`."""
        return ("links",)

    def node(self, *parts: str, keeps: bool = True) -> Node:
        """A node with these parts."""
        stand_in = cast(Any, self)
        return Node(
            role=self.role,
            scoreboard=stand_in,
            pipeline=stand_in,
            live=stand_in,
            tasks=(),
            promote=stand_in,
            keeps=keeps,
            **dict.fromkeys(parts, stand_in),
        )


LEADER = ("actor", "log", "log_service")
REPLICA = (*LEADER, "following")
SHARD = ("following",)


@pytest.mark.parametrize(
    ("parts", "keeps", "steps"),
    [
        (LEADER, True, ["links end, draining True", "actor drains", "checkpoint", "log closes"]),
        (REPLICA, True, ["links end, draining True", "following stops", "actor drains", "checkpoint", "log closes"]),
        (REPLICA, False, ["links end, draining True", "following stops", "actor drains", "log closes"]),
        (SHARD, False, ["following stops"]),
    ],
    ids=["leader", "replica", "replica that keeps nothing", "shard"],
)
async def test_a_node_ends_step_by_step(parts: tuple[str, ...], keeps: bool, steps: list[str]) -> None:
    """Nothing is applied and nothing written any more when the snapshot is taken, and the log is let go last."""
    stand_in = Steps()
    node = stand_in.node(*parts, keeps=keeps)
    node.begin_end()
    await node.end()
    node.close()
    assert stand_in.taken == steps


@pytest.mark.parametrize("state", State)
def test_every_node_can_begin_to_drain(state: State) -> None:
    """In every state, and the state stays."""
    stand_in = Steps(state)
    stand_in.node().begin_end()
    assert (stand_in.role.now.state, stand_in.role.now.draining) == (state, True)


def test_a_node_with_a_log_has_lanes_for_it() -> None:
    """A shard has none: nobody can follow it."""
    leader, shard = Steps().node(*LEADER), Steps().node(*SHARD)
    assert [str(lane) for lane in (*leader.lanes(), *leader.websocket_lanes())] == ["snapshots", "links"]
    assert (*shard.lanes(), *shard.websocket_lanes()) == ()
