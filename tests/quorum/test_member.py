"""Members of a quorum, whole nodes on a stream in memory: who leads, what callers are told, who comes back and how."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from pathlib import Path

import trio

from engine.events import EpochBegun
from engine.history import HISTORY_BYTES
from engine.record import frame_bytes, pack_frame, unpack_header
from server.node.node import Node
from server.quorum.words import decode
from server.role import State
from snapshots.digests import state_digest
from tests.e2e import leader as outside
from tests.e2e.client import Answer, Client
from tests.quorum.members import ALARM_SECONDS, leads, member, step_down, until
from tests.quorum.model_stream import Cloud
from tests.server.node.nodes import Served
from tests.server.node.test_start import client_of


async def post(served: Served, action: str, user: str = "ann") -> Answer:
    """Post one action."""
    async with client_of(served.url) as client:
        return await client.post("/scores/increment", {"userId": user, "actionId": action})


def operator_of(url: str) -> Client:
    """Give an operator's connection."""
    host, port = url.removeprefix("http://").split(":")
    return Client(host, int(port), outside.token("admin"))


async def top(served: Served) -> Answer:
    """Read the board."""
    async with client_of(served.url) as client:
        return await client.get("/scoreboard/top")


async def has(node: Node, seq: int) -> None:
    """Wait until a node has applied this seq."""
    with trio.fail_after(ALARM_SECONDS):
        for pause in repeat(0.01):
            if node.scoreboard.seq >= seq:
                return
            await trio.sleep(pause)


async def test_a_node_alone_takes_over_and_writes_to_the_stream_first(tmp_path: Path) -> None:
    """Its first frame is the epoch; what it acknowledges is on the stream, byte for byte as on its disk."""
    cloud = Cloud()
    async with member(tmp_path, cloud, "a") as a:
        await leads(a)
        answer = await post(a, "one")
        assert (answer.status, answer.json()["epoch"]) == (200, 2)
        log = a.node.log
        assert log is not None
        assert b"".join(map(frame_bytes, log.read_from(1))) == b"".join(cloud.frames)
        assert unpack_header(cloud.frames[-1]).checksum == log.tail.checksum


async def test_a_standby_follows_serves_reads_and_sends_writers_to_the_leader(tmp_path: Path) -> None:
    """421 with the leader's address; the same state, digest and all."""
    cloud = Cloud()
    async with member(tmp_path, cloud, "a") as a:
        await leads(a)
        async with member(tmp_path, cloud, "b") as b:
            await post(a, "one")
            await has(b.node, a.node.scoreboard.seq)
            await until(b, State.FOLLOWING)
            refused = await post(b, "two")
            assert (refused.status, refused.json()["error"]["code"]) == (421, "NOT_LEADER")
            assert refused.json()["error"]["details"]["leader"] == a.url
            assert state_digest(b.node.scoreboard.capture()) == state_digest(a.node.scoreboard.capture())


async def test_a_member_tells_its_view_and_steps_down(tmp_path: Path) -> None:
    """GET /quorum of both nodes, and a leader that hands over when it is asked to. Alone it refuses."""
    cloud = Cloud()
    async with member(tmp_path, cloud, "a") as a:
        await leads(a)
        async with operator_of(a.url) as client:
            alone = await client.post("/quorum/step-down", {})
            assert (alone.status, alone.json()["error"]["code"]) == (409, "CONFLICT")
        async with member(tmp_path, cloud, "b") as b:
            await post(a, "one")
            await has(b.node, a.node.scoreboard.seq)
            await until(b, State.FOLLOWING)
            async with operator_of(a.url) as client, operator_of(b.url) as other:
                assert (await client.get("/readyz?role=leader")).status == 200
                assert (await other.get("/readyz?role=leader")).json()["error"]["code"] == "NOT_LEADER"
                own = (await client.get("/quorum")).json()
                seen = (await other.get("/quorum")).json()
                assert (own["role"], own["confirmed"], own["takeovers"]) == ("leading", True, 1)
                assert own["leader"] == seen["leader"] == {"name": "a", "url": a.url}
                assert (seen["role"], seen["confirmed"], seen["seq"]) == ("following", False, own["seq"])
                assert [(node["name"], node["self"]) for node in own["nodes"]] == [("a", True), ("b", False)]
                assert own["stream"]["name"] == "scoreboard"
                done = await client.post("/quorum/step-down", {})
                assert (done.status, done.json()) == (200, {"epoch": 2, "seq": own["seq"]})
            await leads(b)
            await until(a, State.FOLLOWING)
            async with operator_of(a.url) as client:
                ends = (await client.get("/quorum")).json()["stream"]
                assert ends == {"name": "scoreboard"}, "what it saw when it led is not of now"
            assert (await post(b, "two")).json()["epoch"] == 3


async def test_a_leader_that_is_cut_off_is_replaced_and_comes_back_as_a_standby(tmp_path: Path) -> None:
    """What it had in flight is unknown, later writers are told of no quorum, and its frame loses its place."""
    cloud = Cloud()
    async with member(tmp_path, cloud, "a") as a:
        await leads(a)
        await post(a, "one")
        async with member(tmp_path, cloud, "b") as b:
            await has(b.node, a.node.scoreboard.seq)
            cloud.cut("a")
            unknown = await post(a, "lost")
            assert (unknown.status, unknown.json()["error"]["code"]) == (503, "OUTCOME_UNKNOWN")
            assert (await post(a, "later")).status == 503
            await leads(b)
            assert (await post(b, "two")).json()["epoch"] == 3
            cloud.late.clear()
            cloud.mend("a")
            await until(a, State.FOLLOWING)
            await has(a.node, b.node.scoreboard.seq)
            again = await post(b, "lost")
            assert (again.status, again.json()["applied"]) == (200, True)
            await has(a.node, b.node.scoreboard.seq)
            assert state_digest(a.node.scoreboard.capture()) == state_digest(b.node.scoreboard.capture())


async def test_a_frame_whose_answer_was_lost_counts_once(tmp_path: Path) -> None:
    """The same bytes are at the place already: the leader goes on."""
    cloud = Cloud()
    async with member(tmp_path, cloud, "a") as a:
        await leads(a)
        cloud.streams["a"].loses_answers = 1
        first = await post(a, "one")
        assert first.status == 200
        assert first.json()["applied"]
        again = await post(a, "one")
        assert (again.json()["applied"], again.json()["seq"]) == (False, first.json()["seq"])


async def test_a_leader_that_ends_hands_over_at_once(tmp_path: Path) -> None:
    """And what it acknowledged is there; it can come back."""
    cloud = Cloud()
    async with member(tmp_path, cloud, "b") as b, member(tmp_path, cloud, "a") as a:
        first = await leads(a, b)
        await post(first, "one")
        other = b if first is a else a
        await has(other.node, first.node.scoreboard.seq)
        await step_down(first)
        await leads(other)
        assert (await post(other, "one")).json()["applied"] is False


async def test_a_leader_that_is_stopped_resigns_and_says_nothing_more_as_a_leader(tmp_path: Path) -> None:
    """A word of its later on would sound as if it went on, and the others would wait for a silence."""
    cloud = Cloud()
    ear = cloud.stream("ear")
    async with member(tmp_path, cloud, "a") as a:
        await leads(a)
        assert a.node.member is not None
        await a.node.member.end()
        with trio.fail_after(ALARM_SECONDS):
            while not (word := decode(await ear.hear())) or not word.resigns:
                pass
            later = [decode(await ear.hear()) for _ in range(3)]
    assert [word.leads for word in later if word is not None] == [False] * 3


async def test_a_node_that_reads_a_new_epoch_gives_its_leader_a_silence_to_be_heard(tmp_path: Path) -> None:
    """Its own silence was over already. It does not outbid a leader that has just begun and could say nothing yet."""
    cloud = Cloud()
    async with member(tmp_path, cloud, "b") as b:
        assert b.node.member is not None
        stream, read, silence = cloud.streams["b"], cloud.streams["b"].read, b.node.member._silence
        began_s: list[float] = []
        bid_s: list[float] = []

        async def read_after_another_won(place: int, at_most: int) -> Sequence[bytes]:
            if trio.current_time() >= silence.due_s and not began_s:
                event = EpochBegun(1, 1, 2, "takeover", bytes(HISTORY_BYTES))
                assert cloud.put(0, pack_frame([event], epoch=2, previous=cloud.origin.tail.checksum))
                began_s.append(trio.current_time())
            return await read(place, at_most)

        stream.read = read_after_another_won  # type: ignore[method-assign]
        stream.on_place = lambda _place: bid_s.append(trio.current_time())
        await leads(b)
        assert b.node.scoreboard.epoch == 3
        assert bid_s[0] - began_s[0] >= 1.0  # `members.member`: a silence is a second


async def test_a_new_node_shows_nothing_until_it_has_caught_up(tmp_path: Path) -> None:
    """Its snapshot may be older than what it showed before it lost its disk. With its own it is just stale."""
    cloud = Cloud()
    async with member(tmp_path, cloud, "a") as a:
        await leads(a)
        await post(a, "one")
        async with member(tmp_path, cloud, "b") as b:
            await has(b.node, a.node.scoreboard.seq)
        await post(a, "two")
        cloud.cut("b")
        async with member(tmp_path, cloud, "b") as b:
            assert (await top(b)).json()["stale"] is True
        async with member(tmp_path, cloud, "b", is_new=True) as b:
            refused = await top(b)
            assert (refused.status, refused.json()["error"]["code"]) == (503, "REPLICA_BEHIND")
            cloud.mend("b")
            await until(b, State.FOLLOWING)
            assert (await top(b)).json()["seq"] == a.node.scoreboard.seq
