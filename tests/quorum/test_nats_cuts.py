"""Cuts between real servers of NATS: who is with the minority goes over to the majority."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from engine.record import Tail, chain_start
from server.quorum.nats_client import opened
from server.quorum.nats_connection import NatsOptions
from server.quorum.nats_setup import create
from server.quorum.nats_stream import NatsStream
from server.quorum.stream import Origin
from tests.cluster.wires import Wire
from tests.quorum.patience import got_all, put
from tests.quorum.servers import Cluster

ORIGIN = Origin(Tail(bytes(16), 1, 0, chain_start(bytes(16))))
PAIRS = [(one, other) for one in ("n1", "n2", "n3") for other in ("n1", "n2", "n3") if one != other]


@asynccontextmanager
async def wired(directory: Path) -> AsyncIterator[tuple[Cluster, dict[tuple[str, str], Wire]]]:
    """Three servers that reach each other through wires alone."""
    wires = {pair: Wire("-".join(pair)) for pair in PAIRS}
    async with trio.open_nursery() as nursery:
        for wire in wires.values():
            await nursery.start(wire.run)
        cluster = Cluster(directory, route=lambda one, other: f"nats://127.0.0.1:{wires[one.name, other.name].port}")
        for (_, other), wire in wires.items():
            wire.lead_to(cluster[other].route_port)
        async with cluster:
            await cluster.wait_ready()
            yield cluster, wires
        nursery.cancel_scope.cancel()


async def test_a_node_at_a_server_that_is_cut_off_goes_over_to_the_others(tmp_path: Path) -> None:
    """The stream's leader refuses at once what it cannot do any more. These are no answers: the node leaves it."""
    async with wired(tmp_path) as (cluster, wires):
        options = NatsOptions(servers=cluster.urls, publish_timeout_s=0.5)
        async with opened(options, name="init", uniform=random.uniform) as client:
            await create(client, options, ORIGIN)
        leader = await cluster.stream_leader(options.stream)
        place = float(list(cluster.servers.values()).index(leader))
        # The first random number is the place of the server that is taken first; the others are no waits.
        numbers = iter([place])
        async with NatsStream.open(options, name="node", uniform=lambda low, _high: next(numbers, low)) as stream:
            assert stream._client.server == leader.url
            await put(stream, 0, b"first")
            for pair, wire in wires.items():
                if leader.name in pair:
                    wire.refuse()
            await put(stream, 1, b"ours")
            assert stream._client.server != leader.url
            for wire in wires.values():
                wire.mend()
            await cluster.wait_ready()
            assert await got_all(stream, 1, 2) == [b"first", b"ours"]
