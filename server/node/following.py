"""The effect of a replica's follower on the role of its node.

    follower ── told(state, reason), heard() ──► Following ──► role: NOT_CAUGHT_UP, FOLLOWING, STALE, FAILED

Rules:
- Nothing is served before the replica caught up once, nor after following failed.
  The marker of a directory says whether its replica caught up (`vouched`). Such a directory is served from the start
  on, even without its leader. Any other may have been emptied or cut back, and hold less than was shown from it before.
- The state is stale when the leader was not heard for STALE_HEARTBEATS, with a link or without. That is counted from
  the time when the leader sent its last word, through any number of relays. Viewers are told when it begins and ends.
- After the begin of a promotion the follower no longer changes the role.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import structlog
import trio

from engine.threads import run
from server import bounds
from server.node.surroundings import LiveChannel, Surroundings
from server.replication.follower import Follower
from server.replication.progress import FollowingState, Progress
from server.role import CurrentRole, Role, State
from snapshots.promotion import mark_caught_up

log = structlog.get_logger()

_FOLLOWS = (State.NOT_CAUGHT_UP, State.FOLLOWING, State.STALE)


def first_role(leader: str, *, vouched: bool) -> Role:
    """Give the role of a replica at its start, before it has heard its leader."""
    if vouched:
        return Role(State.STALE, leader=leader)
    return Role(State.NOT_CAUGHT_UP, leader=leader, reason=not_caught_up("connecting", ""))


class Following:
    """Keeps the role of a replica up to date. `durable`: its directory is kept, so its marker is written.

    `marking` is held while the marker is written, and by a promotion, which removes it.
    """

    def __init__(
        self,
        world: Surroundings,
        role: CurrentRole,
        progress: Progress,
        live: LiveChannel,
        board_ids: Callable[[], Iterable[str]],
        *,
        durable: bool,
    ) -> None:
        self.marking = trio.Lock()
        self._world = world
        self._role = role
        self._progress = progress
        self._live = live
        self._board_ids = board_ids
        self._marks = durable
        self._vouched = role.now.vouches
        self._silence_s = bounds.STALE_HEARTBEATS * world.config.replication.heartbeat_seconds
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._told_stale = False

    async def run(self, follower: Follower, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            with self._scope:
                await follower.run()
                log.critical("following_failed", message=self._progress.reason)
                await self._live.close_all(bounds.DRAIN_SECONDS_MAX)
        finally:
            self._ended.set()

    async def stop(self) -> None:
        self._scope.cancel()
        await self._ended.wait()

    async def watch(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Notice a silent leader even when nobody reads, and log when the state becomes stale, or fresh again."""
        task_status.started()
        while True:
            await trio.sleep(self._world.config.replication.heartbeat_seconds / 4)
            role = self._role.now
            if role.is_aged != self._told_stale:
                self._told_stale = role.is_aged
                log.warning("stale" if role.is_aged else "fresh", leader=role.leader or self._world.url)

    def heard(self) -> None:
        if self._role.now.state in _FOLLOWS:
            heard_at_s = self._progress.heard_at_s
            assert heard_at_s is not None
            self._role.heard_leader(heard_at_s + self._silence_s, self._progress.public_url)

    def told(self, state: FollowingState, reason: str) -> None:
        """Log a change of the follower's state, and change the role."""
        level = log.error if state == "failed" else log.warning if reason else log.info
        level("following", state=state, reason=reason, leader=self._role.now.leader, seq=self._progress.status().seq)
        if self._role.now.state not in _FOLLOWS:
            return
        if state == "failed":
            self._role.become(State.FAILED, reason=reason)
        elif self._role.now.state is State.NOT_CAUGHT_UP:
            self._look_whether_caught_up(state, reason)
        if state == "following" and self._marks and not self._vouched:
            self._vouched = True
            self._world.start(self._mark_caught_up)
        if state in ("connecting", "following", "catching_up"):
            self._live.board_changed(self._board_ids())  # a fetched snapshot may have changed them without any frame

    def _look_whether_caught_up(self, state: FollowingState, reason: str) -> None:
        if self._progress.caught_up_once:
            self._role.become(State.FOLLOWING)
            self.heard()
        else:
            self._role.become(State.NOT_CAUGHT_UP, reason=not_caught_up(state, reason))

    async def _mark_caught_up(self) -> None:
        """Note in the marker that the next start may serve this state. On a full disk, as soon as there is room."""
        await self._world.write_with_room(self._mark_once)

    async def _mark_once(self) -> None:
        disk = self._world.disk
        async with self.marking:
            await run(partial(mark_caught_up, disk, self._world.config.data_dir), blocks=disk.blocks)


def not_caught_up(state: FollowingState, reason: str) -> str:
    """Say why a replica serves nothing yet."""
    return f"this replica has not caught up yet ({state}{': ' if reason else ''}{reason})"
