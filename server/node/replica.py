"""The role of a replica: a follower writes what the leader wrote, and the same code serves it.

    whole      every board, its own log and snapshots; ships them on (relay); with a data directory it can be promoted
    shard      some boards, in memory; ships nothing, knows no actions

Rules:
- Nothing is served that nobody can vouch for: not before the replica was caught up once, and not after following has
  failed. A directory that was caught up says so in its marker, and is served from its start on, though the leader be
  away; any other may hold less than what was shown before it was emptied, or cut back.
- It is stale when the leader was not heard for STALE_HEARTBEATS, link or no link: silence is what counts. Viewers are
  told when that begins and when it ends.
- Promotion is one way: the follower stops, the next epoch is durable, the marker goes, an actor takes over the same
  scoreboard and log, and only then the gate opens. What fails before the epoch leaves a replica that follows on.
- Who was promoted tells the old leader of it (`server.replication.epoch_notifier`), however long that is out of reach;
  a relay passes such a word on to whom it follows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

import structlog
import trio

from engine.actor import Actor, Applied
from engine.disk import Disk
from engine.errors import DiskFault
from engine.image import StateImage
from engine.record import Tail
from server import bounds
from server.api.dependencies import StorageState
from server.api.standing import Followed
from server.http.messages import Refused
from server.lanes.listener import Lane
from server.node.core import Core, Part
from server.node.leader import Deposition, deposed_reason
from server.node.shipping import Shipping, timing_of
from server.replication.epoch_notifier import EpochNotifier
from server.replication.follower import Follower, FollowerStatus, State
from server.replication.lag import state_age_ms
from server.replication.link import Endpoint
from server.replication.messages import Hello, hello_of
from server.replication.replicas import Replica, ShardReplica, WholeReplica
from snapshots.opening import Opened
from snapshots.promotion import mark_caught_up, remove_marker

log = structlog.get_logger()

MakeFollower = Callable[[Replica, Callable[[State, str], None]], Follower]


class Following:
    """A follower, and what is to be said of it to readers. `vouched`: the directory was caught up before this start."""

    def __init__(self, core: Core, leader: str, *, vouched: bool) -> None:
        self.follower: Follower | None = None
        self.ended = trio.Event()
        self.scope = trio.CancelScope()
        self._core = core
        self._leader = leader
        self._vouched = vouched
        self._began_s = trio.current_time()
        self._was_stale = False
        self.on_stale: Callable[[], None] = lambda: None

    @property
    def status(self) -> FollowerStatus:
        """Where the follower stands."""
        assert self.follower is not None
        return self.follower.status()

    def view(self) -> Followed:
        """Say what readers are told."""
        status = self.status
        age_s = status.heard_age_s
        if age_s is None:
            age_s = trio.current_time() - self._began_s
        fault = None
        if status.state == "failed":
            fault = status.reason
        elif not status.caught_up_once and not self._vouched:
            fault = f"this replica has not caught up yet ({status.state}{': ' if status.reason else ''}{status.reason})"
        limit_s = bounds.STALE_HEARTBEATS * self._core.config.replication.heartbeat_seconds
        scoreboard, never_heard = self._core.scoreboard, status.lag_records is None
        now_ms = self._core.clock_ms()
        return Followed(
            leader=self._leader,
            public_url=status.public_url,
            fault=fault,
            lag_records=status.lag_records,
            lag_ms=state_age_ms(scoreboard.seq, scoreboard.time_ms, now_ms) if never_heard else status.lag_ms,
            age_ms=round(age_s * 1000),
            stale=status.heard_age_s is None or age_s > limit_s,
            connected=status.connected_since_ms is not None,
        )

    def not_ready(self) -> str | None:
        """Give why requests should go elsewhere."""
        status, view = self.status, self.view()
        limit_ms = 1000 * self._core.config.replication.ready_age_seconds
        if view.fault is not None:
            return view.fault
        if not status.caught_up_once:
            return f"this replica has not caught up since it was started ({status.state})"
        if view.age_ms > limit_ms:
            return f"the leader was not heard for {view.age_ms // 1000} seconds"
        if (view.lag_ms or 0) > limit_ms:
            return f"this replica is {view.lag_ms} ms behind"
        return None

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Follow until it fails or is stopped."""
        assert self.follower is not None
        task_status.started()
        try:
            with self.scope:
                await self.follower.run()
                log.critical("following_failed", message=self.status.reason)
                await self._core.live.close_all(bounds.DRAIN_SECONDS_MAX)
        finally:
            self.ended.set()

    async def watch(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Let viewers know when what they see becomes stale, and when it is fresh again."""
        task_status.started()
        while True:
            await trio.sleep(self._core.config.replication.heartbeat_seconds / 4)
            is_stale = self._core.standing.stale_ms() is not None
            if is_stale != self._was_stale:
                self._was_stale = is_stale
                log.warning("stale" if is_stale else "fresh", leader=self._leader)
                if is_stale:
                    self.on_stale()
                self._core.live.board_changed(self._core.scoreboard.boards)

    def told(self, state: State, reason: str) -> None:
        """Log a change of the follower's state."""
        level = log.error if state == "failed" else log.warning if reason else log.info
        level("following", state=state, reason=reason, leader=self._leader, seq=self._core.scoreboard.seq)
        self._core.standing.advanced()
        if state in ("connecting", "following", "catching_up"):
            self._core.live.board_changed(self._core.scoreboard.boards)  # a new bootstrap tells of no frames


class WholeRole:
    """A replica with every board. A `Role`. `durable`: its directory is kept, so it can be promoted.

    `vouched`: the directory's marker says that it was caught up.
    """

    def __init__(
        self, core: Core, disk: Disk, opened: Opened, leader: Endpoint, token: Callable[[], str], make: MakeFollower,
        *, durable: bool, vouched: bool,
    ) -> None:  # fmt: skip
        self._core = core
        self._disk = disk
        self._opened = opened
        self._herald = EpochNotifier(leader, token=token, timing=timing_of(core), uniform=random.uniform)
        self._durable = durable
        self._vouched = vouched
        self._promoting = trio.Lock()
        self._actor: Actor | None = None
        self._following = Following(core, leader.url(""), vouched=vouched)
        self._shipping = Shipping(core, disk, opened, self, Deposition(core, disk).begin, self._pass_on)
        self._replica = WholeReplica(
            disk,
            core.config.data_dir,
            opened.scoreboard,
            opened.log,
            self._shipping.feed,
            on_applied=core.applied,
            durable=durable,
        )
        self._following.on_stale = self._shipping.end_links
        self._shipping.relay(None)
        self._following.follower = make(self._replica, self._told)
        core.standing.view = self._following.view

    @property
    def tail(self) -> Tail:
        """The end of the log, for the checkpointer."""
        return self._replica.tail if self._actor is None else self._actor.tail

    @tail.setter
    def tail(self, _tail: Tail) -> None:
        raise AttributeError("the tail is moved by whoever writes")

    def capture(self) -> tuple[StateImage, Tail]:
        """Copy the state, for the checkpointer."""
        return self._replica.capture() if self._actor is None else self._actor.capture()

    def parts(self) -> Sequence[Part]:
        """See `Role`."""
        return (self._shipping.run_checkpointer, self._following.run, self._watch)

    async def _watch(self, *, task_status: trio.TaskStatus[None]) -> None:
        await self._following.watch(task_status=task_status)

    def lanes(self) -> Sequence[Lane]:
        """See `Role`."""
        return self._shipping.lanes()

    def websocket_lanes(self) -> Sequence[Lane]:
        """See `Role`."""
        return self._shipping.websocket_lanes()

    def close_links(self) -> None:
        """See `Role`."""
        self._shipping.close_links()

    async def end(self) -> None:
        """Stop following, or writing; leave a snapshot behind where it is of use."""
        await self._stop_following()
        if self._actor is not None:
            await self._actor.drain()
        if self._durable:
            await self._shipping.checkpoint()

    async def _stop_following(self) -> None:
        self._following.scope.cancel()
        await self._following.ended.wait()

    def close(self) -> None:
        """See `Role`."""
        self._opened.log.close()

    def storage(self) -> StorageState:
        """See `Role`."""
        return self._shipping.storage()

    def followers(self) -> int:
        """See `Role`."""
        return len(self._shipping.registry)

    def not_ready(self) -> str | None:
        """See `Role`."""
        return deposed_reason(self._core) if self._actor is not None else self._following.not_ready()

    def _told(self, state: State, reason: str) -> None:
        if state == "catching_up":
            self._shipping.relay(self._following.status.public_url)
        if state == "following" and self._durable and not self._vouched:
            self._vouched = True
            assert self._core.tasks is not None, "a follower runs once the node serves"
            self._core.tasks.start_soon(self._mark_caught_up)
        self._following.told(state, reason)

    async def _mark_caught_up(self) -> None:
        """Let the next start serve what is here. A promotion, which removes the marker, is waited for."""
        async with self._promoting:
            try:
                work = partial(mark_caught_up, self._disk, self._core.config.data_dir)
                await trio.to_thread.run_sync(work) if self._disk.blocks else work()
            except DiskFault as fault:
                self._core.disk_failed(fault)

    # Promotion

    async def promote(self) -> tuple[int, int]:
        """See the rules. Raises `Refused`, `WriteFailed`."""
        async with self._promoting:
            self._check_promotable()
            status = self._following.status
            with trio.CancelScope(shield=True):
                await self._stop_following()
                old = self._replica.tail
                try:
                    event = await self._replica.promote(now_ms=self._core.clock_ms(), above=status.leader_epoch or 0)
                    work = partial(remove_marker, self._disk, self._core.config.data_dir)
                    await trio.to_thread.run_sync(work) if self._disk.blocks else work()
                except DiskFault as fault:
                    self._core.disk_failed(fault)
                    raise
                await self._lead()
            log.warning("promoted", epoch=event.epoch, seq=event.seq, after_seq=old.seq)
            self._pass_on(hello_of(self.tail, None, self._address()))
            return event.epoch, event.seq

    def _check_promotable(self) -> None:
        if self._actor is not None:
            raise Refused(409, "CONFLICT", "This node is the leader already.")
        if not self._durable:
            message = "This replica keeps nothing on disk: promote one that was started with --data-dir."
            raise Refused(409, "CONFLICT", message)
        if (fault := self._following.view().fault) is not None:
            raise Refused(409, "CONFLICT", f"Not promoted: {fault}")

    async def _lead(self) -> None:
        tasks = self._core.tasks
        assert tasks is not None
        actor = Actor(self._core.scoreboard, self._opened.log, clock_ms=self._core.clock_ms, on_applied=self._applied)
        await tasks.start(self._core.watched, actor.run)
        self._actor = actor
        self._shipping.lead()
        self._core.gate.actor = actor
        self._core.standing.view = None
        self._core.standing.advanced()
        self._core.live.board_changed(self._core.scoreboard.boards)

    def _applied(self, applied: Applied) -> None:
        self._shipping.applied(applied)
        self._core.applied(applied)

    def _pass_on(self, hello: Hello) -> None:
        """Tell whom we follow, or followed, of a newer epoch: our own, or one that a follower of ours has seen."""
        assert self._core.tasks is not None, "followers come, and promotions, once the node serves"
        self._herald.tell(hello, self._core.tasks)

    def _address(self) -> str | None:
        """Where the old leader may say that writes go: the public address, else the one that we listen on."""
        url = self._core.config.replication.public_url or self._core.url
        return url if len(url) <= bounds.NODE_URL_CHARACTERS_MAX else None


class ShardRole:
    """A replica of some boards, in memory. A `Role`, and the reader of a log that it does not have."""

    blocks = False

    def __init__(self, core: Core, replica: ShardReplica, leader: Endpoint, make: MakeFollower) -> None:
        self._following = Following(core, leader.url(""), vouched=False)
        self._following.follower = make(replica, self._following.told)
        core.standing.view = self._following.view
        self.not_ready = self._following.not_ready

    def event_at(self, seq: int) -> NoReturn:
        """Never called: requests for receipts are sent to the leader."""
        raise AssertionError(f"a shard keeps no log, so nobody reads seq {seq} of it")

    def parts(self) -> Sequence[Part]:
        """See `Role`."""
        return (self._following.run, self._following.watch)

    def lanes(self) -> Sequence[Lane]:
        """None: a shard ships nothing."""
        return ()

    def websocket_lanes(self) -> Sequence[Lane]:
        """None, as above."""
        return ()

    def close_links(self) -> None:
        """Nothing to end."""

    async def end(self) -> None:
        """Stop following."""
        self._following.scope.cancel()
        await self._following.ended.wait()

    def close(self) -> None:
        """Nothing to close."""

    def storage(self) -> StorageState:
        """Nothing on disk."""
        return StorageState(0, 0, None, None)

    def followers(self) -> int:
        """Nobody."""
        return 0

    async def promote(self) -> tuple[int, int]:
        """Refuse: a part is no whole."""
        raise Refused(409, "CONFLICT", "A replica with a shard holds only some boards: promote a whole one.")
