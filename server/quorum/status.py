"""How a quorum is, as somebody outside of it sees it: its servers, its stream, its nodes, and what is wrong.

    status = await look(options, listen_s=1.5)
    status.faults                               sentences: nothing can be written now, or no node would start
    status.warnings                             sentences: it goes on, and one more fault could end that

Rules:
- Whether a majority answers is tried: an empty beat is sent, which no node takes for a leader's. What JetStream says of
  itself proves nothing, because it answers without a quorum too, with the old leader's name.
- The nodes are those that say a word in the time of listening. Each says one in every beat.
- A fault is told and the look goes on: the first fault is seldom the cause.
"""

from __future__ import annotations

import random
from contextlib import suppress

import msgspec
import trio

from server.quorum import nats_api as api
from server.quorum.nats_api import Placed, StreamInfo, read_answer
from server.quorum.nats_client import NatsClient, opened
from server.quorum.nats_connection import ConnectionLost, NatsOptions, connect
from server.quorum.nats_protocol import Message
from server.quorum.nats_setup import ask_info, check_info, check_server, origin_of
from server.quorum.stream import StreamRefused, Unanswered
from server.quorum.words import Word, decode

NAME = "scoreboard quorum"
"""What the servers show of this client."""

BEAT_TRIES = 3
"""A stream whose leader has just died answers after some seconds."""

EMPTY_BEAT = b"{}"


class ServerStatus(msgspec.Struct, frozen=True, rename="camel"):
    """A server of the list. `fault`: it does not answer, or is not as it must be."""

    url: str
    version: str = ""
    fault: str = ""


class CopyStatus(msgspec.Struct, frozen=True, rename="camel"):
    """A server that holds the stream. `lag`: entries that it is behind. `heard_ms`: since its leader heard it."""

    name: str
    leads: bool
    current: bool
    lag: int = 0
    heard_ms: int = 0


class StreamStatus(msgspec.Struct, frozen=True, rename="camel"):
    """The stream: the id of its log, the seq that it goes on after, its places from `first` to `last`, its servers."""

    name: str
    log_id: str
    after_seq: int
    first: int
    last: int
    bytes: int
    copies: list[CopyStatus]


class NodeStatus(msgspec.Struct, frozen=True, rename="camel"):
    """A node that was heard. `lag`: places that its disk is behind. `confirmed_ms`: since a majority answered it."""

    name: str
    url: str
    public_url: str | None
    role: str
    leads: bool
    epoch: int
    seq: int
    place: int
    lag: int
    confirmed_ms: int


class QuorumStatus(msgspec.Struct, frozen=True, rename="camel"):
    """See above. `good`: without a fault. `majority`: a majority of the servers has just taken something.

    `stream` is None if nobody tells it.
    """

    good: bool
    majority: bool
    servers: list[ServerStatus]
    stream: StreamStatus | None
    nodes: list[NodeStatus]
    faults: list[str]
    warnings: list[str]


async def look(options: NatsOptions, listen_s: float) -> QuorumStatus:
    """Look at a quorum, and listen to its nodes for so many seconds. Raises nothing that a person could mend."""
    servers = [await _look_at_server(options, number) for number in range(len(options.addresses))]
    faults, warnings = list[str](), [f"{server.url}: {server.fault}" for server in servers if server.fault]
    if not any(server.version for server in servers):
        return QuorumStatus(False, False, servers, None, [], ["no server answers"], warnings)
    words: dict[str, Word] = {}
    majority, info = False, None
    try:
        async with opened(options, name=NAME, uniform=random.uniform) as client:
            _listen(client, options.stream, words)
            deadline = trio.current_time() + listen_s
            try:
                info = await ask_info(client, options.stream)
                majority = await _majority(client, options)
                for each in (info, await ask_info(client, api.beat_stream(options.stream))):
                    check_info(each, options)
            except (StreamRefused, Unanswered) as fault:
                faults.append(str(fault))
            await trio.sleep_until(deadline)
            if info is not None:  # the ends of now: the nodes have told theirs meanwhile
                with suppress(StreamRefused, Unanswered):
                    info = await ask_info(client, options.stream)
    except (StreamRefused, Unanswered) as fault:
        faults.append(str(fault))
    stream = None
    if info is not None:
        try:
            stream = _stream_status(info)
            warnings += [f"the copy on {copy.name} is not current" for copy in stream.copies if not copy.current]
            if not any(copy.leads for copy in stream.copies):
                faults.append(f"the stream {stream.name} has no leader now")
        except StreamRefused as fault:
            faults.append(str(fault))
        if not majority:
            faults.append("no majority of the servers answers: nothing can be written now")
    nodes = _nodes(words, stream)
    if not any(node.leads for node in nodes):
        faults.append("no node leads now" if nodes else "no node was heard: start one with scoreboard serve --quorum")
    warnings += _warnings_of(nodes)
    return QuorumStatus(not faults, majority, servers, stream, nodes, faults, warnings)


async def _look_at_server(options: NatsOptions, number: int) -> ServerStatus:
    address = options.addresses[number]
    version = ""
    try:
        connection = await connect(address, options, name=NAME)
        version = connection.info.version
        await connection.aclose()
        check_server(address, connection.info)
    except (ConnectionLost, StreamRefused) as fault:
        return ServerStatus(str(address), version, str(fault))
    return ServerStatus(str(address), version)


def _listen(client: NatsClient, stream: str, words: dict[str, Word]) -> None:
    """Take the last word of each node. A node that was started again at the same address is one node."""

    def take(message: Message) -> None:
        word = decode(message.payload)
        if word is not None:
            words[word.url] = word

    client.subscribe(api.word_subject(stream), take)
    client.subscribe(api.beat_subject(stream), take)


async def _majority(client: NatsClient, options: NatsOptions) -> bool:
    """Find out whether a majority takes a beat now. Raises `StreamRefused`."""
    name = api.beat_stream(options.stream)
    headers = ((api.EXPECTED_STREAM, name),)
    for _ in range(BEAT_TRIES):
        try:
            answer = await client.request(
                api.beat_subject(options.stream), EMPTY_BEAT, headers=headers, timeout_s=options.publish_timeout_s
            )
            read_answer(answer.payload, Placed, stream=name)
        except Unanswered:
            continue
        return True
    return False


def _stream_status(info: StreamInfo) -> StreamStatus:
    origin, state, group = origin_of(info).tail, info.state, info.cluster
    copies = [CopyStatus(group.leader, True, True)] if group.leader else []
    copies += [
        CopyStatus(peer.name, False, peer.current and not peer.offline, peer.lag, peer.active // 1_000_000)
        for peer in group.replicas
    ]
    first = max(state.first_seq, 1)
    return StreamStatus(
        str(info.config.get("name")), origin.log_id.hex(), origin.seq, first, state.last_seq, state.bytes, copies
    )


def _nodes(words: dict[str, Word], stream: StreamStatus | None) -> list[NodeStatus]:
    """Give the nodes, the leader first."""
    last = stream.last if stream else max((word.place for word in words.values()), default=0)
    nodes = [
        NodeStatus(
            word.name, word.url, word.public_url, word.role, word.leads, word.epoch, word.seq, word.place,
            max(0, last - word.place), word.confirmed_ms,
        )
        for word in words.values()
    ]  # fmt: skip
    return sorted(nodes, key=lambda node: (not node.leads, -node.epoch, node.name, node.url))


def _warnings_of(nodes: list[NodeStatus]) -> list[str]:
    warnings = []
    leaders = [node for node in nodes if node.leads]
    if len(leaders) > 1:
        named = ", ".join(f"{node.url} (epoch {node.epoch})" for node in leaders)
        warnings.append(f"several nodes take themselves for the leader: {named}; only the highest epoch can write")
    if len(nodes) == 1:
        warnings.append("only one node was heard: if it dies, nobody can take over")
    return warnings
