"""Following over real sockets: exact, through cuts and stalls, and over at once when something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest
import trio

from engine.commands import Command, Increment
from engine.record import frame_bytes, pack_frame
from server.replication import frame_queue
from server.replication.feed import FeedFrame
from server.replication.link import LinkEnded, LinkTiming, open_link, parse_leader
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
from server.replication.sharding import Shard, shard_of
from snapshots.digests import StateDigests, difference
from snapshots.promotion import Successor
from tests.cluster.wires import Wire
from tests.engine.logs import increments
from tests.server.replication.network import (
    QUICK,
    TOKEN,
    Leader,
    Served,
    make_bootstrap,
    open_replica,
    open_shard,
    patience,
    start,
)
from tests.snapshots.directories import all_frames, digest

SHORT = LinkTiming(
    heartbeat_seconds=0.02, silence_seconds_max=0.3, open_seconds_max=20.0, close_seconds_max=0.2, lived_seconds=0.0
)


async def test_a_replica_has_the_leaders_log_and_state(tmp_path: Path) -> None:
    """From the beginning on, then frame by frame: byte for byte the same files, digest for digest the same state."""
    leader = Leader(tmp_path / "leader")
    leader.play(20)
    async with patience() as nursery, leader.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        running = await start(nursery, replica.follower)
        await running.reaches(leader.seq)
        for _ in range(10):
            leader.play(2)
            await running.reaches(leader.seq)
        await running.is_in("following")
        status = replica.follower.status()
        assert (status.lag_records, status.lag_ms, status.caught_up_once) == (0, 0, True)
        assert (status.node_name, status.public_url) == ("test", "http://public.example")
        assert digest(running.scoreboard) == leader.writer.digest()
        assert all_frames(tmp_path / "replica") == all_frames(tmp_path / "leader")
        told = [event.seq for applied in replica.applied for event in applied.events]
        assert told == list(range(1, leader.seq + 1))
        await running.stop()


async def test_a_replica_that_was_away_goes_on_where_it_was(tmp_path: Path) -> None:
    """Also when what it missed is no longer in the ring but only on the leader's disk."""
    leader = Leader(tmp_path / "leader", ring_bytes=1000)
    async with patience() as nursery, leader.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        running = await start(nursery, replica.follower)
        leader.play(5)
        await running.reaches(leader.seq)
        await running.stop()
        replica.log.close()
        leader.play(100)
        again = await open_replica(tmp_path / "replica", leader.url)
        assert again.opened.scoreboard.seq < leader.seq
        running = await start(nursery, again.follower)
        await running.reaches(leader.seq)
        assert digest(running.scoreboard) == leader.writer.digest()


async def test_a_cut_link_is_opened_again_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """Cut at any byte: the frames that follow are those that were missing."""
    leader = Leader(tmp_path / "leader")
    async with patience() as nursery, leader.open():
        wire = Wire("leader", leader.port)
        await nursery.start(wire.run)
        replica = await open_replica(tmp_path / "replica", leader.url)
        replica.follower._leader = parse_leader(wire.url)
        running = await start(nursery, replica.follower)
        for bytes_more in (150, 1, 700, 333, 64, 1500, 2):
            wire.cut_after = bytes_more
            leader.play(5)
            await running.reaches(leader.seq)
            wire.cut()
        assert wire.connections > 3
        assert digest(running.scoreboard) == leader.writer.digest()
        assert all_frames(tmp_path / "replica") == all_frames(tmp_path / "leader")


async def test_a_leader_that_is_away_is_told_and_waited_for(tmp_path: Path) -> None:
    """What was applied stays; the age of what was heard last is told."""
    leader = Leader(tmp_path / "leader")
    leader.play(3)
    async with patience() as nursery, leader.open():
        wire = Wire("leader", leader.port)
        await nursery.start(wire.run)
        replica = await open_replica(tmp_path / "replica", wire.url)
        running = await start(nursery, replica.follower)
        await running.is_in("following")
        wire.refusing = True
        wire.cut()
        await running.is_in("disconnected")
        status = replica.follower.status()
        assert status.heard_age_s is not None
        assert (status.seq, status.connected_since_ms, status.caught_up_once) == (leader.seq, None, True)
        leader.play(3)
        wire.refusing = False
        await running.reaches(leader.seq)


@pytest.mark.parametrize("end", ["follower", "leader"])
async def test_a_link_that_is_open_but_silent_is_dead(tmp_path: Path, end: str) -> None:
    """On both sides: the follower comes again, the leader forgets the follower and what it pinned."""
    leader = Leader(tmp_path / "leader", timing=SHORT if end == "leader" else QUICK)
    leader.play(3)
    async with patience() as nursery, leader.open():
        wire = Wire("leader", leader.port)
        await nursery.start(wire.run)
        timing = SHORT if end == "follower" else QUICK
        replica = await open_replica(tmp_path / "replica", leader.url, timing=timing)
        replica.follower._leader = parse_leader(wire.url)
        running = await start(nursery, replica.follower)
        await running.is_in("following")
        wire.stall()
        if end == "follower":
            await replica.follower.wait_until(lambda status: "nothing was heard for 0.3 seconds" in status.reason)
            wire.mend()
            leader.play(2)
            await running.reaches(leader.seq)
        else:
            while leader.followers.pinned_seq() is not None:
                await trio.lowlevel.checkpoint()


class Impostor(Leader):
    """A leader whose feed gives other bytes than it should."""

    def tamper(self, data: bytes) -> None:
        """Put something into the ring, unchecked, as the frame that comes next."""
        seq = self.feed.seq
        self.feed._ring[seq + 1] = FeedFrame(seq + 1, seq + 1, data)
        self.feed._wake()


def _next_frame(leader: Leader) -> bytes:
    """Make the frame that would come next, without shipping it."""
    before = leader.seq
    leader.writer.play(1)
    return next(frame_bytes(frame) for frame in leader.writer.log.read_from(before + 1))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("flipped", "checksum of the frame is wrong"),
        ("lost", "frames are missing"),
        ("doubled", "here already"),
        ("foreign", "histories differ"),
        ("cut", "cut off"),
        ("older epoch", "epoch 1, which is over"),
        ("unbegun epoch", "does not begin there"),
        ("inconsistent", "do not fit the state"),
    ],
)
async def test_a_wrong_frame_ends_following_for_good(tmp_path: Path, what: str, said: str) -> None:
    """The position, the reason and what to do are told; nothing of it, and nothing after it, is applied."""
    leader = Impostor(tmp_path / "leader")
    leader.play(3)
    if what == "older epoch":
        leader.begin_epoch()
    async with patience() as nursery, leader.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        running = await start(nursery, replica.follower)
        await running.reaches(leader.seq)
        seq, tail = leader.seq, leader.writer.log.tail
        before = digest(running.scoreboard)
        frame = _next_frame(leader)
        wrong = {
            "flipped": frame[:70] + bytes([frame[70] ^ 4]) + frame[71:],
            "lost": _next_frame(leader),
            "doubled": frame_bytes(next(leader.writer.log.read_from(seq))),
            "foreign": pack_frame(increments(seq + 1, 1), epoch=tail.epoch, previous=tail.checksum ^ 1),
            "cut": frame[:-5],
            "older epoch": pack_frame(increments(seq + 1, 1), epoch=1, previous=tail.checksum),
            "unbegun epoch": pack_frame(increments(seq + 1, 1), epoch=7, previous=tail.checksum),
            "inconsistent": pack_frame(increments(seq + 1, 1), epoch=tail.epoch, previous=tail.checksum),
        }[what]
        leader.tamper(wrong)
        reason = await running.fails()
        assert said in reason
        assert f"seq {seq}" in reason
        assert "Move this replica's data directory away" in reason
        assert digest(running.scoreboard) == before
        assert replica.follower.status().state == "failed"
        leader.feed._wake()
        assert running.ended.is_set()


async def test_a_state_that_is_not_the_leaders_is_found_at_the_checkpoint(tmp_path: Path) -> None:
    """Frames may all be right and the state wrong all the same, by a fault of the memory or of the program."""
    leader = Leader(tmp_path / "leader")
    leader.play(20)
    async with patience() as nursery, leader.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        running = await start(nursery, replica.follower)
        await running.reaches(leader.seq)
        await leader.checkpointer.take()
        leader.play(1)
        await running.reaches(leader.seq)
        running.scoreboard.boards["main"]._updated[0] += 1
        await leader.checkpointer.take()
        reason = await running.fails()
        assert "the state is not the leader's" in reason
        assert "the board 'main'" in reason


async def test_equal_digests_at_many_checkpoints_leave_it_following(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Captured between the same two frames while writing goes on; the comparison is made each time."""
    compared: list[str] = []
    done = trio.Event()

    def noted(ours: StateDigests, theirs: StateDigests, holds: Callable[[str], bool] | None) -> str | None:
        nonlocal done
        compared.append(ours.whole)
        done.set()
        return difference(ours, theirs, holds)

    monkeypatch.setattr(frame_queue, "difference", noted)
    leader = Leader(tmp_path / "leader")
    expected = []
    async with patience() as nursery, leader.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        running = await start(nursery, replica.follower)
        for _ in range(5):
            done = trio.Event()
            leader.play(3)
            await leader.checkpointer.take()
            expected.append(leader.writer.digest())
            leader.play(3)
            await done.wait()
        await running.reaches(leader.seq)
        await running.is_in("following")
    assert compared == expected


async def raw(leader: Leader, query: str, token: str = TOKEN) -> list[object]:
    """Open a link by hand, and give what the leader says first, as long as it is not log."""
    async with open_link(
        parse_leader(leader.url), f"{LOG_PATH}?{query}", token, message_bytes_max=2**20, timing=QUICK
    ) as link:
        message = await link.receive(5.0)
        assert isinstance(message, str)
        return [decode_from_leader(message)]


async def test_a_position_outside_the_history_is_told(tmp_path: Path) -> None:
    """Another log, another checksum, a place within a frame, beyond the end."""
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
    """The old leader is told by the first one who knows."""
    leader = Leader(tmp_path / "leader")
    leader.play(2)
    newer = msgspec.structs.replace(leader.writer.log.tail, epoch=5)
    async with patience(), leader.open():
        assert await raw(leader, hello_of(newer, None).query) == [Deposed(5)]
        assert leader.deposed == [Successor(5)]


async def test_a_deposed_leader_lets_its_followers_go_and_takes_none_again(tmp_path: Path) -> None:
    """Or they would pass for fresh. The highest epoch counts, and of its leader's addresses the first."""
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
    """The replica goes on serving what it has, says why, and comes again."""
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
        assert old.deposed[0] == Successor(2)
        assert (replica.follower.status().epoch, replica.follower.status().seq) == (2, leader.seq)


async def test_a_diverged_replica_fails(tmp_path: Path) -> None:
    """It has events that the leader never had."""
    leader, other = Leader(tmp_path / "leader"), Leader(tmp_path / "other")
    leader.play(3)
    other.write([*_commands(1)])
    async with patience() as nursery, leader.open(), other.open():
        replica = await open_replica(tmp_path / "replica", other.url)
        running = await start(nursery, replica.follower)
        await running.reaches(other.seq)
        await running.stop()
        replica.follower._leader = parse_leader(leader.url)
        running = await start(nursery, replica.follower)
        assert "not what this log has there" in await running.fails()


def _commands(count: int) -> list[Command]:
    return [Increment("somebody", f"other-{n}", "BONUS", "main", "backend") for n in range(count)]


async def test_who_may_not_read_the_log_is_not_let_in(tmp_path: Path) -> None:
    """An ordinary answer, and no link."""
    leader = Leader(tmp_path / "leader")
    async with patience(), leader.open():
        with pytest.raises(LinkEnded) as ended:
            await raw(leader, "after=0&epoch=1", token="wrong")
        assert ended.value.status == 401
        with pytest.raises(LinkEnded) as ended:
            await raw(leader, "after=5&epoch=1")
        assert ended.value.status == 400


async def test_heartbeats_come_while_nothing_happens_and_positions_are_heard(tmp_path: Path) -> None:
    """So lag is known, and a follower's place pins the log."""
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
                assert decode_from_leader(message) == Heartbeat(1, tail.seq, 0)
            await link.send(encode(Position(1, tail.seq - 1, True)))
            while leader.followers.pinned_seq() != tail.seq - 1:
                await trio.lowlevel.checkpoint()
            (info,) = leader.followers.statistics()
            assert (info.durable, info.shard, info.address) == (True, None, "127.0.0.1")


async def test_a_position_that_is_no_longer_kept_needs_a_snapshot(tmp_path: Path) -> None:
    """And says where the log begins now."""
    leader = Leader(tmp_path / "leader")
    leader.play(200)
    leader.writer.log.remove_before(150)
    first_seq = leader.writer.log.segments()[0].first_seq
    async with patience(), leader.open():
        (said,) = await raw(leader, "after=0&epoch=1")
        assert isinstance(said, SnapshotNeeded)
        assert said.first_seq == first_seq > 1


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_shard_has_its_boards_and_all_users(tmp_path: Path, number: int) -> None:
    """Filtered by the leader; the digests of its part are compared at checkpoints; cuts do no harm."""
    shard = Shard(number, 3)
    leader = Leader(tmp_path / "leader", ring_bytes=1000)
    leader.play(30)
    async with patience() as nursery, leader.open():
        wire = Wire("leader", leader.port)
        await nursery.start(wire.run)
        follower = open_shard(tmp_path / "shard", wire.url, shard)
        running = await start(nursery, follower)
        for _ in range(3):
            leader.play(5)
            await leader.checkpointer.take()
            leader.play(5)
            await running.reaches(leader.seq)
            wire.cut()
        whole = leader.writer.scoreboard
        assert running.scoreboard.users.capture() == whole.users.capture()
        for board_id in ("main", "weekly"):
            held = shard_of(board_id, 3) == number
            mine = running.scoreboard.boards[board_id]
            assert mine.capture() == whole.boards[board_id].capture() if held else len(mine) == 0
        assert len(running.scoreboard.actions) == 0
        leader.begin_epoch()
        await running.reaches(leader.seq)
        assert follower.status().epoch == 2


async def test_a_shard_whose_state_is_wrong_is_found_at_the_checkpoint(tmp_path: Path) -> None:
    """Its own boards are compared, although it has no others."""
    leader = Leader(tmp_path / "leader")
    leader.play(20)
    shard = Shard(shard_of("main", 3), 3)
    async with patience() as nursery, leader.open():
        running = await start(nursery, open_shard(tmp_path / "shard", leader.url, shard))
        await running.reaches(leader.seq)
        running.scoreboard.boards["main"]._updated[0] += 1
        await leader.checkpointer.take()
        assert "the board 'main'" in await running.fails()


async def test_a_relay_serves_a_replica_that_ends_equal(tmp_path: Path) -> None:
    """Frames, checkpoints and the next epoch go through; the leader has one follower only."""
    leader = Leader(tmp_path / "leader")
    leader.play(10)
    async with patience() as nursery, leader.open():
        relay = await open_replica(tmp_path / "relay", leader.url)
        first = await start(nursery, relay.follower)
        served = Served(relay.directory, relay.opened.scoreboard, relay.log, relay.feed, relays=True)
        async with served.open():
            leaf = await open_replica(tmp_path / "leaf", served.url)
            second = await start(nursery, leaf.follower)
            shard = await start(nursery, open_shard(tmp_path / "shard", served.url, Shard(1, 1)))
            for _ in range(3):
                leader.play(5)
                leader.begin_epoch()
                for running in (first, second, shard):
                    await running.reaches(leader.seq)
            assert digest(second.scoreboard) == digest(first.scoreboard) == leader.writer.digest()
            assert all_frames(tmp_path / "leaf") == all_frames(tmp_path / "leader")
            assert len(leader.followers) == 1
            assert len(served.followers) == 2


async def test_a_replica_is_promoted_while_others_follow_it(tmp_path: Path) -> None:
    """They go on in the new epoch; the old leader is refused by them, and told."""
    leader = Leader(tmp_path / "leader")
    leader.play(10)
    async with patience() as nursery, leader.open():
        relay = await open_replica(tmp_path / "relay", leader.url)
        first = await start(nursery, relay.follower)
        served = Served(relay.directory, relay.opened.scoreboard, relay.log, relay.feed, relays=True)
        async with served.open():
            leaf = await open_replica(tmp_path / "leaf", served.url)
            second = await start(nursery, leaf.follower)
            await second.reaches(leader.seq)
            await first.stop()
            event = await relay.replica.promote(now_ms=1)
            assert (event.epoch, event.seq) == (2, leader.seq + 1)
            await second.reaches(event.seq)
            assert leaf.follower.status().epoch == 2
            assert digest(second.scoreboard) == digest(relay.opened.scoreboard)
            assert relay.applied[-1].events == [event]
            assert await make_bootstrap(served.url, tmp_path).fork(1) == leader.writer.log.tail
            await second.stop()
            leaf.follower._leader = parse_leader(leader.url)
            second = await start(nursery, leaf.follower)
            await second.is_in("refused_older_leader")
            assert leader.deposed[0] == Successor(2)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
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
    """What trio-websocket would leave without one."""
    leader = Leader(tmp_path / "leader")
    async with patience(), leader.open(), httpx.AsyncClient() as client:
        token = {"authorization": f"Bearer {TOKEN}"}
        answer = await client.get(f"{leader.url}{LOG_PATH}?after=0&epoch=1", headers={**token, **headers})
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == "INVALID_REQUEST"


async def test_a_leader_that_stops_ends_its_links(tmp_path: Path) -> None:
    """At once, and takes no new ones: its followers look for another, or wait."""
    leader = Leader(tmp_path / "leader")
    leader.play(2)
    async with patience() as nursery, leader.open():
        replica = await open_replica(tmp_path / "replica", leader.url)
        await (await start(nursery, replica.follower)).is_in("following")
        leader.shipper.close()
        status = await replica.follower.wait_until(lambda status: "status 503" in status.reason)
        assert status.seq == leader.seq
        assert len(leader.followers) == 0


async def test_a_replica_that_is_further_than_its_relay_waits_for_it(tmp_path: Path) -> None:
    """It is not diverged: the relay has just not come as far."""
    leader = Leader(tmp_path / "leader")
    leader.play(5)
    async with patience() as nursery, leader.open():
        relay = await open_replica(tmp_path / "relay", leader.url)
        first = await start(nursery, relay.follower)
        await first.reaches(leader.seq)
        await first.stop()
        leaf = await open_replica(tmp_path / "leaf", leader.url)
        second = await start(nursery, leaf.follower)
        leader.play(5)
        await second.reaches(leader.seq)
        await second.stop()
        served = Served(relay.directory, relay.opened.scoreboard, relay.log, relay.feed, relays=True)
        async with served.open():
            leaf.follower._leader = parse_leader(served.url)
            second = await start(nursery, leaf.follower)
            await leaf.follower.wait_until(lambda status: "itself behind" in status.reason)
            await start(nursery, relay.follower)
            leader.play(5)
            await second.reaches(leader.seq)
