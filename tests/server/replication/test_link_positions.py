"""The answers of a leader to a follower that opens a link: by its position, its epoch, its token and its request."""

from __future__ import annotations

from pathlib import Path

import httpx
import msgspec
import pytest
import trio

from engine.erased import Erasures
from server.replication.link import LinkEnded, open_link, parse_leader
from server.replication.messages import (
    LOG_PATH,
    Deposed,
    Diverged,
    Heartbeat,
    Position,
    SnapshotNeeded,
    Welcome,
    decode_from_leader,
    encode,
    hello_of,
)
from snapshots.promotion import Successor
from tests.server.replication.network import QUICK, TOKEN, Leader, open_replica, patience, start


async def raw(leader: Leader, query: str, token: str = TOKEN) -> list[object]:
    """Open a link by hand; give the leader's first message."""
    async with open_link(
        parse_leader(leader.url), f"{LOG_PATH}?{query}", token, message_bytes_max=2**20, timing=QUICK
    ) as link:
        message = await link.receive(5.0)
        assert isinstance(message, str)
        return [decode_from_leader(message)]


async def test_a_position_outside_the_history_is_told(tmp_path: Path) -> None:
    """Another log, another checksum, a place within a frame, a place beyond the end."""
    leader = Leader(tmp_path / "leader")
    leader.play(5)
    tail = leader.writer.log.tail
    earlier = next(leader.writer.log.read_from(1))
    async with patience(), leader.open():
        (welcome,) = await raw(leader, hello_of(tail, None).query)
        assert isinstance(welcome, Welcome)
        assert (welcome.seq, welcome.epoch, welcome.log_id) == (tail.seq, 1, tail.log_id.hex())
        good = msgspec.structs.replace(tail, seq=earlier.last_seq, checksum=earlier.checksum)
        assert isinstance((await raw(leader, hello_of(good, None).query))[0], Welcome)
        for wrong in (
            msgspec.structs.replace(tail, log_id=bytes(15) + b"x"),
            msgspec.structs.replace(tail, checksum=tail.checksum ^ 1),
            msgspec.structs.replace(good, checksum=good.checksum ^ 1),
            msgspec.structs.replace(good, seq=good.seq - 1),
            msgspec.structs.replace(tail, seq=tail.seq + 100),
        ):
            assert isinstance((await raw(leader, hello_of(wrong, None).query))[0], Diverged)
        assert leader.deposed == []


async def test_a_follower_that_saw_a_newer_epoch_deposes_the_leader(tmp_path: Path) -> None:
    """The first follower that knows it tells the old leader."""
    leader = Leader(tmp_path / "leader")
    leader.play(2)
    newer = msgspec.structs.replace(leader.writer.log.tail, epoch=5)
    async with patience(), leader.open():
        assert await raw(leader, hello_of(newer, None).query) == [Deposed(5)]
        assert leader.deposed == [Successor(5)]


async def test_a_deposed_leader_lets_its_followers_go_and_takes_none_again(tmp_path: Path) -> None:
    """Otherwise they would look fresh. The highest epoch counts, and the first address of its leader."""
    leader = Leader(tmp_path / "leader")
    leader.play(5)
    tail = leader.writer.log.tail
    newer = msgspec.structs.replace(tail, epoch=5)
    async with patience() as nursery, leader.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        running = await start(nursery, replica.follower)
        await running.is_in("following")
        assert await raw(leader, hello_of(newer, None).query) == [Deposed(5)]
        await running.is_in("refused_older_leader")
        assert "older epoch than 5" in replica.follower.status().reason
        assert replica.follower.status().leader_epoch == 5, "a promotion begins one above it"
        followed = replica.follower.status().seq
        leader.play(5)
        older = msgspec.structs.replace(tail, epoch=4)
        assert await raw(leader, hello_of(older, None, "http://older").query) == [Deposed(5)]
        assert await raw(leader, hello_of(newer, None, "http://new").query) == [Deposed(5, "http://new")]
        assert await raw(leader, hello_of(newer, None, "http://other").query) == [Deposed(5, "http://new")]
        assert await raw(leader, "after=0&epoch=1") == [Deposed(5, "http://new")]
        assert leader.deposed == [Successor(5)] * 2 + [Successor(5, "http://new")] * 2
        assert replica.follower.status().seq == followed


async def test_an_older_leader_is_never_followed(tmp_path: Path) -> None:
    """The replica goes on serving, says why, and tries again."""
    leader, old = Leader(tmp_path / "leader"), Leader(tmp_path / "old")
    leader.play(3)
    leader.begin_epoch()
    async with patience() as nursery, leader.open(), old.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        running = await start(nursery, replica.follower)
        await running.reaches(leader.seq)
        assert replica.follower.status().epoch == 2
        await running.stop()
        replica.follower._leader = parse_leader(old.url)
        running = await start(nursery, replica.follower)
        await running.is_in("refused_older_leader")
        assert (old.deposed[0].epoch, old.deposed[0].leader) == (2, None)
        assert (replica.follower.status().epoch, replica.follower.status().seq) == (2, leader.seq)


async def test_who_may_not_read_the_log_is_not_let_in(tmp_path: Path) -> None:
    """The answer is an ordinary one, and there is no link."""
    leader = Leader(tmp_path / "leader")
    async with patience(), leader.open():
        with pytest.raises(LinkEnded) as ended:
            await raw(leader, "after=0&epoch=1", token="wrong")
        assert ended.value.status == 401
        with pytest.raises(LinkEnded) as ended:
            await raw(leader, "after=5&epoch=1")
        assert ended.value.status == 400


async def test_heartbeats_come_while_nothing_happens_and_positions_are_heard(tmp_path: Path) -> None:
    """So the lag is known, and a follower's position pins the log."""
    leader = Leader(tmp_path / "leader")
    leader.play(4)
    tail = leader.writer.log.tail
    async with patience(), leader.open():
        target = f"{LOG_PATH}?{hello_of(tail, None).query}"
        async with open_link(parse_leader(leader.url), target, TOKEN, message_bytes_max=2**20, timing=QUICK) as link:
            assert leader.followers.pinned_seq() is not None
            await link.receive(5.0)
            for _ in range(3):
                message = await link.receive(5.0)
                assert isinstance(message, str)
                assert decode_from_leader(message) == Heartbeat(
                    1, tail.seq, 0, 1, tail.log_id.hex(), leader_seq=tail.seq
                )
            await link.send(encode(Position(1, tail.seq - 1, True)))
            while leader.followers.pinned_seq() != tail.seq - 1:
                await trio.lowlevel.checkpoint()
            (info,) = leader.followers.statistics()
            assert (info.durable, info.shard, info.address) == (True, None, "127.0.0.1")


async def test_a_position_that_is_no_longer_kept_needs_a_snapshot(tmp_path: Path) -> None:
    """The answer says where the log begins now."""
    leader = Leader(tmp_path / "leader")
    leader.play(200)
    leader.writer.log.remove_before(150)
    first_seq = leader.writer.log.segments()[0].first_seq
    async with patience(), leader.open():
        (said,) = await raw(leader, "after=0&epoch=1")
        assert isinstance(said, SnapshotNeeded)
        assert said.first_seq == first_seq > 1


async def test_a_position_before_an_erasure_needs_a_snapshot(tmp_path: Path) -> None:
    """The log may be rewritten, so its user is not the one that the follower has. Without a snapshot the link ends."""
    leader = Leader(tmp_path / "leader")
    leader.play(5)
    earlier, tail = next(leader.writer.log.read_from(1)), leader.writer.log.tail
    before = msgspec.structs.replace(tail, seq=earlier.last_seq, checksum=earlier.checksum)
    async with patience(), leader.open():
        assert isinstance((await raw(leader, hello_of(before, None).query))[0], Welcome), "nothing is rewritten"
        leader.writer.scoreboard.erasures = Erasures(1, tail.seq)
        with pytest.raises(LinkEnded):
            await raw(leader, hello_of(before, None).query)
        await leader.checkpointer.take()
        (said,) = await raw(leader, hello_of(before, None).query)
        assert isinstance(said, SnapshotNeeded)
        assert said.first_seq == tail.seq + 1
        assert isinstance((await raw(leader, hello_of(tail, None).query))[0], Welcome)
        assert isinstance((await raw(leader, "after=0&epoch=1"))[0], Welcome), "who has nothing takes it as it is"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 426),
        ({"connection": "upgrade", "upgrade": "websocket"}, 426),
        ({"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "12"}, 426),
        ({"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}, 400),
        (
            {
                "connection": "upgrade",
                "upgrade": "websocket",
                "sec-websocket-version": "13",
                "sec-websocket-key": "short",
            },
            400,
        ),
    ],
)
async def test_a_request_that_is_no_upgrade_gets_an_ordinary_answer(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    """trio-websocket alone would not answer it."""
    leader = Leader(tmp_path / "leader")
    async with patience(), leader.open(), httpx.AsyncClient() as client:
        token = {"authorization": f"Bearer {TOKEN}"}
        answer = await client.get(f"{leader.url}{LOG_PATH}?after=0&epoch=1", headers={**token, **headers})
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == "INVALID_REQUEST"


async def test_a_link_accepts_no_compression(tmp_path: Path) -> None:
    """A follower that offers permessage-deflate gets its link without it, so nothing of it is ever inflated."""
    leader = Leader(tmp_path / "leader")
    async with patience(), leader.open():
        endpoint = parse_leader(leader.url)
        async with await trio.open_tcp_stream(endpoint.host, endpoint.port) as stream:
            await stream.send_all(
                f"GET {LOG_PATH}?{hello_of(leader.writer.log.tail, None).query} HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Bearer {TOKEN}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bKdPyn3u98cTfZJSh4TNeQ==\r\n"
                "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n".encode()
            )
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += await stream.receive_some()
        head = answer.partition(b"\r\n\r\n")[0].lower()
        assert head.startswith(b"http/1.1 101 ")
        assert b"sec-websocket-extensions" not in head
