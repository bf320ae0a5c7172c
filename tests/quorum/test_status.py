"""How a quorum is: each fault is told, whatever else is wrong; a majority is tried and not believed."""

from __future__ import annotations

from itertools import count

import pytest
import trio

from server.node.moving import make_stream
from server.quorum import status as of_status
from server.quorum.nats_connection import NatsOptions
from server.quorum.nats_stream import NatsStream
from server.quorum.status import QuorumStatus, look
from server.quorum.words import Word, encode
from tests.quorum.servers import Cluster

_numbers = count(1)


def options_for(cluster: Cluster, **more: object) -> NatsOptions:
    """Name a stream of its own."""
    stream = f"status-{next(_numbers)}"
    return NatsOptions(servers=cluster.urls, stream=stream, publish_timeout_s=0.5, **more)  # type: ignore[arg-type]


def word(name: str, *, leads: bool, epoch: int = 2, place: int = 0) -> Word:
    """Make a node's word."""
    role = "leading" if leads else "following"
    return Word(
        node_id=f"id-of-{name}", name=name, url=f"http://{name}:8080", public_url=None, role=role, leads=leads,
        epoch=epoch, seq=place, place=place, confirmed_ms=7 if leads else 0,
    )  # fmt: skip


async def seen_with(options: NatsOptions, *words: Word) -> QuorumStatus:
    """Look while nodes say these words again and again."""
    async with NatsStream.open(options, name="node") as stream, trio.open_nursery() as nursery:

        async def speak() -> None:
            while True:
                for each in words:
                    stream.say(encode(each))
                await trio.sleep(0.05)

        nursery.start_soon(speak)
        seen = await look(options, 0.5)
        nursery.cancel_scope.cancel()
    return seen


async def test_a_quorum_that_is_well(cluster: Cluster) -> None:
    """Servers, copies, nodes, and how far each is."""
    options = options_for(cluster)
    await make_stream(options, None)
    async with NatsStream.open(options, name="leader") as stream:
        for after in range(3):
            assert await stream.place(after, b"frame")
    seen = await seen_with(options, word("b", leads=False, place=1), word("a", leads=True, place=3))
    assert (seen.faults, seen.warnings) == ([], [])
    assert seen.good
    assert seen.majority
    assert [(server.url, server.fault) for server in seen.servers] == [(url, "") for url in cluster.urls]
    assert seen.stream is not None
    assert (seen.stream.name, seen.stream.first, seen.stream.last, seen.stream.after_seq) == (options.stream, 1, 3, 0)
    assert {copy.name for copy in seen.stream.copies} == set(cluster.servers)
    assert [copy.leads for copy in seen.stream.copies] == [True, False, False]
    assert [(node.name, node.leads, node.place, node.lag, node.confirmed_ms) for node in seen.nodes] == [
        ("a", True, 3, 0, 7), ("b", False, 1, 2, 0)
    ]  # fmt: skip


async def test_the_ends_of_the_stream_are_those_after_listening(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node tells its place while the look goes on; beside it an older end would look as if it were ahead."""
    options = options_for(cluster)
    await make_stream(options, None)
    async with NatsStream.open(options, name="leader") as stream:

        async def placed_meanwhile(*_: object) -> bool:
            return await stream.place(0, b"frame")

        monkeypatch.setattr(of_status, "_majority", placed_meanwhile)
        seen = await seen_with(options, word("a", leads=True, place=1), word("b", leads=False))
    assert seen.stream is not None
    assert seen.stream.last == 1
    assert [(node.name, node.lag) for node in seen.nodes] == [("a", 0), ("b", 1)]


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        ([word("a", leads=True)], "only one node was heard: if it dies, nobody can take over"),
        (
            [word("a", leads=True, epoch=2), word("b", leads=True, epoch=3)],
            "several nodes take themselves for the leader",
        ),
    ],
)
def test_what_is_odd_about_the_nodes(words: list[Word], warning: str) -> None:
    """One sentence for each."""
    nodes = of_status._nodes({each.url: each for each in words}, None)
    [told] = of_status._warnings_of(nodes)
    assert told.startswith(warning)


async def test_without_a_leader_that_is_told(cluster: Cluster) -> None:
    """Nodes that only follow, and no node at all."""
    options = options_for(cluster)
    await make_stream(options, None)
    following = await seen_with(options, word("a", leads=False), word("b", leads=False))
    assert (following.faults, following.good) == (["no node leads now"], False)
    nobody = await look(options, 0.1)
    assert nobody.faults == ["no node was heard: start one with scoreboard serve --quorum"]


async def test_a_stream_that_is_missing_is_told_with_the_rest(cluster: Cluster) -> None:
    """Its servers are well."""
    seen = await look(options_for(cluster), 0.1)
    assert not seen.good
    assert (seen.stream, seen.majority) == (None, False)
    assert any("scoreboard quorum init" in fault for fault in seen.faults)
    assert all(server.version for server in seen.servers)


async def test_a_setting_that_is_wrong_is_told_by_its_name(cluster: Cluster) -> None:
    """Here: five copies are configured, and the stream has three."""
    options = options_for(cluster)
    await make_stream(options, None)
    wanted = NatsOptions(servers=options.servers, stream=options.stream, replicas=5)
    seen = await look(wanted, 0.1)
    assert any("num_replicas 3; wanted is 5" in fault for fault in seen.faults)
    assert seen.majority
    assert seen.stream is not None


async def test_without_a_majority_that_is_told(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """JetStream still names a leader; the beat that nobody takes is believed."""
    monkeypatch.setattr(of_status, "BEAT_TRIES", 1)
    options = options_for(cluster)
    await make_stream(options, None)
    first, second, _ = cluster.servers.values()
    first.kill()
    second.kill()
    seen = await look(options, 0.1)
    assert not seen.majority
    assert not seen.good
    assert [server.version != "" for server in seen.servers] == [False, False, True]
    assert sum(server.fault != "" for server in seen.servers) == 2
    assert len([warning for warning in seen.warnings if warning.startswith("nats://")]) == 2


async def test_servers_that_are_not_there_end_the_look_at_once() -> None:
    """Nobody waits for what can't come. No fault has the password."""
    seen = await look(NatsOptions(servers=["nats://u:hush@127.0.0.1:1"]), 5.0)
    assert [server.url for server in seen.servers] == ["nats://127.0.0.1:1"]
    assert seen.faults == ["no server answers"]
    assert seen.warnings[0].startswith("nats://127.0.0.1:1: ")
    assert "hush" not in str(seen)
