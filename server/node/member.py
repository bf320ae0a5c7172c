"""A member of a quorum: it follows the stream, bids when nobody leads, leads when it won, and follows again.

    follow ──silence──► bid: read to the end, the next epoch's frame to the next place ──won──► lead
       ▲                 └── lost: another node has that place                                    │
       └────────────────────────── a place was lost, a higher epoch was heard, or it resigned ◄───┘

Invariants:
- One task writes to the machine: this one while it follows, the actor while it leads. Leading begins when our epoch's
  frame is applied here. Following begins when the deposed actor is at rest.
- What is applied here is on the stream. So a change of the leader cuts nobody back.
- The node leads an epoch only if its own bytes have the epoch's place.

Rules:
- Beats tell who leads; they decide nothing. Only the stream decides (`server/quorum/README.md` has the argument).
- A leader is fresh as long as a majority takes its beats. Who follows is as fresh as the newest word of the leader
  whose seq is applied here.
- A node that misses places that are purged goes on from a snapshot of another node (`server.node.newcomer`).
- A leader whose disk is full lets another node lead, if one has room.
- What is not this log's, or can't be written here, ends the process: `StreamRefused`, `DiskFault`. A frame that does
  not follow ends following for good (FAILED).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import msgspec
import structlog
import trio

from engine.actor import Actor
from engine.errors import DiskFault, DiskFull
from engine.events import EpochBegun
from engine.history import HISTORY_BYTES
from engine.record import pack_frame
from server import bounds
from server.faults import first_of
from server.http.messages import Refused
from server.node.following import Following
from server.node.member_words import TELL_SECONDS, MemberWords, beat_seconds
from server.node.shutdown import Task
from server.node.surroundings import Surroundings
from server.quorum.peers import Peers
from server.quorum.places import place_of
from server.quorum.quorum_log import NOWHERE, Observers, QuorumLog
from server.quorum.silence import Silence
from server.quorum.stream import PlacePurged, Stream, StreamRefused, Unanswered
from server.replication.failure import FollowingFailed
from server.replication.progress import FollowingState, Progress
from server.replication.replicas import WholeReplica
from server.role import CurrentRole, State
from snapshots.promotion import Successor

log = structlog.get_logger()

READ_FRAMES = 64
"""How many places are read at once."""

STEP_DOWN_SECONDS = 10.0
"""The longest wait for the frame that is in flight when a leader is told to step down. It steps down all the same."""

ABSTAIN_SILENCES = 3
"""So many silences a node that resigned bids for nothing."""


class MemberStatistics(msgspec.Struct, frozen=True):
    """Counts since the start: epochs won, epochs that this node lost, and appends that were in doubt."""

    place: int
    takeovers: int
    depositions: int
    doubts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberParts:
    """What a member is made of. `put_file_boards` runs at the beginning of leading, `retain` as long as it leads.

    `fetch_snapshot` brings the replica past places that are purged; False if it could not.
    """

    world: Surroundings
    stream: Stream
    log: QuorumLog
    role: CurrentRole
    progress: Progress
    replica: WholeReplica
    following: Following
    actor: Actor
    peers: Peers
    put_file_boards: Task
    retain: Callable[[], Awaitable[None]]
    fetch_snapshot: Callable[[], Awaitable[bool]]
    on_heard: Callable[[], None]


class Member:
    """See above. `run` is called once, and returns when following has failed."""

    def __init__(self, parts: MemberParts) -> None:
        world = parts.world
        self._parts = parts
        self._world = world
        self._stream, self._log = parts.stream, parts.log
        self._role, self._progress = parts.role, parts.progress
        self._silence_s = float(world.config.quorum.silence_seconds)
        self._beat_s = beat_seconds(self._silence_s)
        self._silence = Silence(self._silence_s, world.uniform, trio.current_time())
        self._lost, self._over = trio.Event(), trio.Event()
        self._why_lost = ""
        self._resigns = False
        self._takeovers = self._depositions = self._doubts = 0
        self._leads = self._in_doubt = False
        self._begun = False
        self._words = MemberWords(
            world, parts.stream, parts.log, parts.role, parts.progress, parts.replica, parts.following, parts.peers,
            self._silence, on_heard=parts.on_heard, on_higher=self.lose,
        )  # fmt: skip
        self.hear, self.tell = self._words.hear, self._words.tell
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._log.observe(Observers(on_doubt=self._doubt, on_placed=self._on_placed, on_confirmed=self._confirmed))

    def statistics(self) -> MemberStatistics:
        return MemberStatistics(self._log.place, self._takeovers, self._depositions, self._doubts)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow and lead until cancelled, or until following failed. Raises `StreamRefused`, `DiskFault`."""
        self._begun = True
        task_status.started()
        fault: Exception | None = None
        try:
            with self._scope:
                while await self._follow():
                    await self._lead()
                log.critical("following_failed", message=self._progress.reason)
        except* (StreamRefused, DiskFault) as faults:
            fault = first_of(faults)
        finally:
            self._ended.set()
        if fault is not None:
            raise fault

    # Following

    async def _follow(self) -> bool:
        """Follow until this node has won the next epoch; False if following failed."""
        self._silence.begin(trio.current_time())
        while True:
            news = self._words.next_news()
            try:
                await self._read_on()
                if trio.current_time() >= self._silence.due_s and await self._bid():
                    return True
            except Unanswered as unanswered:
                self._silence.unreadable()
                self._become("disconnected", str(unanswered))
            except PlacePurged as purged:
                self._silence.unreadable()
                self._become("bootstrapping", str(purged))
                if await self._parts.fetch_snapshot():
                    self._log.place = NOWHERE
            except DiskFull as full:
                self._become("disconnected", str(full))
                await self._wait_for_room()
            except FollowingFailed as failure:
                self._become("failed", str(failure))
                return False
            wait_s = min(self._beat_s, max(0.0, self._silence.due_s - trio.current_time()))
            with trio.move_on_after(max(wait_s, TELL_SECONDS)):
                await news.wait()

    async def _read_on(self) -> None:
        """Take what the stream has after our place, to its end as its server knows it."""
        while True:
            if not self._log.is_located:
                self._log.place = await place_of(self._stream, self._log.tail)
            frames = await self._stream.read(self._log.place + 1, READ_FRAMES)
            self._silence.readable(trio.current_time())
            if frames:
                epoch = self._parts.replica.tail.epoch
                try:
                    await self._parts.replica.take(frames)
                finally:
                    self._log.followed(frames)
                if self._parts.replica.tail.epoch > epoch:  # who has just won is to be heard before we bid
                    self._silence.begin(trio.current_time())
            self._words.answered()
            if not frames:
                return

    async def _wait_for_room(self) -> None:
        while True:
            await trio.sleep(bounds.DISK_FULL_RETRY_SECONDS)
            with suppress(DiskFull):
                return await self._parts.replica.make_room()

    async def _bid(self) -> bool:
        """Put the next epoch at the next place, and apply it; False if another frame is there.

        Raises `DiskFull`, `StreamRefused`. Waits until it is known, however long that takes: the frame may be placed at
        any time, and this node must know then that it leads.
        """
        world, scoreboard, replica = self._world, self._parts.replica.scoreboard, self._parts.replica
        epoch = scoreboard.epoch + 1
        history = world.random_bytes(HISTORY_BYTES)
        time_ms = max(world.clock_ms(), scoreboard.time_ms)
        event = EpochBegun(scoreboard.seq + 1, time_ms, epoch, "takeover", history)
        frame = pack_frame([event], epoch=epoch, previous=replica.tail.checksum)
        await self._log.reserve(len(frame))
        log.info("bids", epoch=epoch, seq=event.seq, place=self._log.place + 1)
        if not await self._log.settle(frame):
            log.info("outbid", epoch=epoch, place=self._log.place + 1)
            self._silence.begin(trio.current_time())
            return False
        self._role.become(State.PROMOTING)
        try:
            await replica.take([frame])
        finally:
            self._log.followed([frame])
        return True

    # Leading

    async def _lead(self) -> None:
        """Lead until the epoch is lost or resigned. Afterwards the actor is at rest."""
        parts, tasks, guard = self._parts, self._world.tasks, self._world.guard
        self._lost, self._over = trio.Event(), trio.Event()
        self._why_lost, self._resigns = "", False
        self._leads, self._takeovers = True, self._takeovers + 1
        self._words.lead()
        if self._takeovers == 1:
            await tasks.start(guard.watched, parts.actor.run)
            await tasks.start(guard.watched, parts.actor.run_alarm)
            await tasks.start(guard.watched, parts.actor.reader.run)
        else:
            parts.actor.reinstate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beat)
            await nursery.start(parts.put_file_boards)
            if not self._lost.is_set():
                self._role.become(State.LEADING)
                self._role.confirmed(self._words.confirmed_s, self._silence_s)
                tail = parts.replica.tail
                log.warning("leads", epoch=tail.epoch, seq=tail.seq, place=self._log.place)
                nursery.start_soon(parts.retain)
                nursery.start_soon(self._watch_room)
                await self._lost.wait()
            nursery.cancel_scope.cancel()
        parts.actor.depose()
        if self._role.latest.state is not State.STALE:
            self._role.become(State.STALE)
        await parts.actor.rest()
        self._leads, self._depositions = False, self._depositions + 1
        self._words.follow()
        log.warning("leads_no_more", why=self._why_lost, epoch=parts.replica.tail.epoch, place=self._log.place)
        if self._resigns:
            self._resign()
        self._over.set()

    async def _beat(self) -> None:
        """Have a majority confirm this leader, again and again."""
        while True:
            sent_s = trio.current_time()
            with suppress(Unanswered):
                await self._stream.beat(self._words.own())
                self._confirmed(sent_s)
            await trio.sleep(self._beat_s)

    async def _watch_room(self) -> None:
        """Step down when our disk is full and another's is not: somebody shall take writes."""
        while True:
            await trio.sleep(self._silence_s)
            others = self._parts.peers.alive(trio.current_time())
            if self._log.full is not None and any(word.has_room for word in others):
                self._resigns = True
                self.lose("the disk is full here, and not on another node")

    def lose(self, why: str) -> None:
        """Stop leading, if this node leads: its place was lost, or a higher epoch was heard of."""
        if self._leads and not self._lost.is_set():
            self._why_lost = why
            self._lost.set()

    async def step_down(self) -> tuple[int, int]:
        """Let another node lead; give the epoch that ends and its last seq. Raises `Refused`."""
        role = self._role.now
        if role.state is not State.LEADING:
            leader = role.public_url or role.leader
            message = f"This node does not lead: it is {role.state.label}."
            message += f" The leader is {leader}." if leader else ""
            raise Refused(409, "CONFLICT", message, {"leader": leader or None})
        if role.unconfirmed or self._in_doubt:
            raise Refused(409, "CONFLICT", "No majority of the log's servers answers, so nobody can take over.")
        if not self._parts.peers.alive(trio.current_time()):
            raise Refused(409, "CONFLICT", "No other node was heard, so nobody can take over.")
        epoch, over = self._parts.replica.tail.epoch, self._over
        self._silence.abstain(trio.current_time() + ABSTAIN_SILENCES * self._silence_s)
        self._resigns = True
        self.lose("it was told to step down")
        with trio.move_on_after(STEP_DOWN_SECONDS):
            await over.wait()
        return epoch, self._parts.replica.tail.seq

    def outranked(self, successor: Successor) -> None:
        """Stop leading: a follower has seen a higher epoch. The stream will tell of it."""
        self._progress.heard_of(successor)
        if self._role.now.state is State.LEADING:
            self._role.become(State.STALE)
        self.lose(f"a follower has seen epoch {successor.epoch}")

    async def end(self) -> None:
        """Finish what waits, and stop. A leader resigns, so another takes over at once."""
        leads = self._leads
        if leads:
            with trio.move_on_after(2 * float(self._world.config.quorum.publish_timeout_seconds)):
                await self._parts.actor.drain()
        self._scope.cancel()
        if self._begun:
            await self._ended.wait()
        if leads:
            self._words.follow()  # or a later word would sound like a leader's that goes on
            self._resign()

    def _resign(self) -> None:
        self._words.say(leads=True, resigns=True)

    def _become(self, state: FollowingState, reason: str) -> None:
        if state == "disconnected":
            self._progress.disconnected()
        if self._progress.become(state, reason):
            self._parts.following.told(state, reason)

    # What the log tells

    def _on_placed(self, _seconds: float) -> None:
        self._words.placed()

    def _confirmed(self, sent_s: float) -> None:
        self._words.confirmed(sent_s)
        if self._role.latest.state is State.LEADING:
            self._role.confirmed(sent_s, self._silence_s)

    def _doubt(self, why: str | None) -> None:
        """Take that the frame in flight is in doubt. It is told with each try, and counts once."""
        self._parts.actor.doubt(why)
        if why is not None and not self._in_doubt:
            self._doubts += self._leads
            log.warning("outcome_unknown" if self._leads else "bid_unanswered", why=why, place=self._log.place + 1)
        self._in_doubt = why is not None
