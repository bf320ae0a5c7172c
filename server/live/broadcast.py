"""Writes to viewers: to all of them at a tick, to slow ones as their sockets drain, and pings to find the dead ones.

    board_changed ─┬► (wakes) tick ──► the same bytes to every viewer's socket
                   │           │            └─ socket full ──► drain: a task for that viewer, until it is up to date
                   └► (wakes) line tick ──► messages about single users, to the viewers that subscribed
    sweep, all the time: pings viewers, drops silent ones, closes those whose token has expired

A frame to a viewer is not masked, so it is encoded once. All that a viewer costs in a tick is what the kernel does to
send it: a slice of an audience (`server.live.audience`) is one call of the kernel (`server.live.writing`). A queue and
a sending task for each viewer would cost some ten times as much, and the queues would grow under load.

Rules:
- The first change after a quiet time is sent at once. Then there is at most one tick in each interval, and all that
  changed in between is one change. When ticks take long the interval grows, so that other tasks get their turn.
- A tick and a sweep have a checkpoint after each slice of viewers: a write to the board must not wait for ten thousand
  viewers. Viewers come, go and catch up meanwhile, so a viewer's edition is checked just before it is written to.
- Lines (`server.live.lines`) have ticks of their own. A line costs three times as much as the top for a viewer. So a
  tick of many lines takes long, and must not keep the top from anybody. A line tick waits for a tick that is due: a
  viewer sees the top first. It visits only the lines of boards that changed.
- A fault of one viewer's socket ends that viewer alone.
- To wait for a closed socket is a bug of ours. So `gone` is checked before every wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog
import trio

from engine.scoreboard import Scoreboard
from server import bounds
from server.access.lease import TOKEN_EXPIRED
from server.http.websocket import POLICY_VIOLATION
from server.live.board_view import BoardView
from server.live.clics import Version
from server.live.editions import SNAPSHOT, UPDATE, USER, AnyChannel, Channel
from server.live.feed_editions import FeedChannel
from server.live.lines import Lines
from server.live.names import NameForm
from server.live.viewers import Viewer, Viewers
from server.live.writing import Write, one_by_one, writing

REST_SHARE = 0.25
"""The pause after a tick is at least this share of the tick's time."""

log = structlog.get_logger()


class LiveMetrics(Protocol):
    """What the live channel needs of `server.metrics`, which lists the reasons for dropping a viewer."""

    def viewers(self, count: int) -> None: ...
    def live_messages(self, count: int, kind: str) -> None: ...
    def live_tick(self, seconds: float, interval_seconds: float) -> None: ...
    def viewers_dropped(self, reason: str) -> None: ...
    def failed(self, code: str) -> None: ...


class Broadcast:
    """Owns the channels, and all writing to the viewers in `viewers`."""

    def __init__(
        self,
        scoreboard: Scoreboard,
        viewers: Viewers,
        metrics: LiveMetrics,
        *,
        interval_s: float,
        now_ms: Callable[[], int],
        stale_ms: Callable[[], int | None] = lambda: None,
        form: NameForm = "shown",
        clics_version: Version = "2023-06",
    ) -> None:
        self.lines = Lines(scoreboard, now_ms, stale_ms, form)
        self._form = form
        self._clics_version = clics_version
        self._stale_ms = stale_ms
        self._scoreboard = scoreboard
        self._viewers = viewers
        self._metrics = metrics
        self._interval_s = interval_s
        self._now_ms = now_ms
        self._channels: dict[BoardView, AnyChannel] = {}
        self._by_board: dict[str, list[AnyChannel]] = {}
        self._changed: set[AnyChannel] = set()
        self._wake = trio.Event()
        self._wake_lines = trio.Event()
        self._publishing = False
        self._lines_turn = False
        self._write: Write = one_by_one
        self._tasks: trio.Nursery | None = None

    def channel(self, view: BoardView) -> AnyChannel | None:
        """Give the channel of a board's view, None if there is no such board."""
        channel = self._channels.get(view)
        if channel is None and self._scoreboard.board(view.board_id) is not None:
            channel = self._channels[view] = self._make_channel(view)
            self._by_board.setdefault(view.board_id, []).append(channel)
        return channel

    def _make_channel(self, view: BoardView) -> AnyChannel:
        if view.as_contest:
            return FeedChannel(view, self._scoreboard, self._now_ms, self._clics_version, self._form)
        return Channel(view, self._scoreboard, self._now_ms, self._stale_ms, self._form)

    def set_interval(self, interval_s: float) -> None:
        """Take another interval, from the next tick on."""
        self._interval_s = interval_s

    def board_changed(self, board_ids: Iterable[str]) -> None:
        """Note that events touched these boards."""
        if not self._channels and not self.lines:
            return  # nobody watches
        for board_id in board_ids:
            for channel in self._by_board.get(board_id, ()):
                self._note(channel)
            if self.lines.board_changed(board_id):
                self._wake_lines.set()

    def _note(self, channel: AnyChannel) -> None:
        """Have a channel that is behind published. An edition of a contest is only made while somebody reads it."""
        if (not channel.view.as_contest or self._viewers.count(channel.view)) and channel.is_behind:
            self._changed.add(channel)
            self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send what changed, sweep and drain until cancelled."""
        try:
            with writing(bounds.SLICE_VIEWERS) as self._write:
                async with trio.open_nursery() as self._tasks:
                    self._tasks.start_soon(self._tick)
                    self._tasks.start_soon(self._tick_lines)
                    self._tasks.start_soon(self._sweep)
                    task_status.started()
        finally:
            self._tasks = None
            self._write = one_by_one

    # All viewers

    async def _tick(self) -> None:
        while True:
            while not self._changed:
                self._wake = trio.Event()
                await self._wake.wait()
            changed, self._changed = self._changed, set()
            self._publishing = True
            started = trio.current_time()
            for channel in changed:
                await self._publish(channel)
            took = trio.current_time() - started
            interval = max(self._interval_s, took * (1 + REST_SHARE))
            self._publishing = False
            self._lines_turn = self.lines.is_due  # if the top changed again meanwhile, it is their turn all the same
            if self._lines_turn:
                self._wake_lines.set()
            self._metrics.live_tick(took, interval)
            await trio.sleep_until(started + interval)

    async def _publish(self, channel: AnyChannel) -> None:
        edition = channel.publish()
        audience = self._viewers.audience(channel.view)
        shown: Counter[str] = Counter()
        for _ in audience.show(edition, self._write, shown, self._start_drain):
            await trio.lowlevel.checkpoint()
        for kind, times in shown.items():
            self._metrics.live_messages(times, kind)

    async def _tick_lines(self) -> None:
        while True:
            while not self.lines.is_due or (not self._lines_turn and (self._changed or self._publishing)):
                self._wake_lines = trio.Event()
                await self._wake_lines.wait()
            self._lines_turn = False
            started = trio.current_time()
            await self._show_lines()
            took = trio.current_time() - started
            await trio.sleep_until(started + max(self._interval_s, took * (1 + REST_SHARE)))

    async def _show_lines(self) -> None:
        for part in self.lines.take_due():
            for number, lines in enumerate(part.begin()):
                if number:
                    await trio.lowlevel.checkpoint()
                for owner in part.look(lines):
                    owner.push()
            part.finish()

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(bounds.SWEEP_SECONDS)
            now = trio.current_time()
            for channel in self._channels.values():
                if channel.view.as_contest:  # a contest begins without an event
                    self._note(channel)
            for count, viewer in enumerate(self._viewers.everyone(), 1):
                if not viewer.as_events and now - viewer.heard >= bounds.VIEWER_SILENCE_SECONDS_MAX:
                    self.drop(viewer, "silent")
                elif viewer.lease is not None and viewer.lease.ended():
                    self._expire(viewer, now)
                elif now - viewer.pinged >= viewer.ping_seconds:
                    viewer.ping(now)
                    self.push(viewer)
                if count % bounds.SLICE_VIEWERS == 0:
                    await trio.lowlevel.checkpoint()

    # One viewer

    def _expire(self, viewer: Viewer, now: float) -> None:
        """Close a viewer whose token is no longer good; cut it off if it does not close in time."""
        if viewer.closing:
            if now - viewer.pinged >= bounds.VIEWER_CLOSE_SECONDS_MAX:
                viewer.hang_up(abort=True)
            return
        viewer.pinged = now  # the last control frame that it gets
        self._metrics.viewers_dropped("expired")
        viewer.close(POLICY_VIOLATION, TOKEN_EXPIRED)
        self.push(viewer)

    def push(self, viewer: Viewer) -> None:
        """Write what a viewer is owed. A task writes what its socket does not take at once."""
        if viewer.busy or viewer.gone:
            return
        try:
            if not viewer.push():
                self._start_drain(viewer)
        except OSError:
            viewer.hang_up()
        self._count_lines(viewer)

    def push_lines(self, viewer: Viewer) -> None:
        """Write what a viewer is owed, unless a close frame was its last."""
        if not viewer.closing:
            self.push(viewer)

    def _count_lines(self, viewer: Viewer) -> None:
        if viewer.lines is not None and (written := viewer.lines.take_written()):
            self._metrics.live_messages(written, USER)

    def drop(self, viewer: Viewer, reason: str) -> None:
        """End a viewer from our side, without a close frame."""
        if viewer.gone:
            return
        log.debug("viewer_dropped", reason=reason, address=viewer.address)
        self._metrics.viewers_dropped(reason)
        viewer.hang_up(abort=True)

    def _start_drain(self, viewer: Viewer) -> None:
        viewer.hold()
        if self._tasks is None:  # the process is ending
            viewer.hang_up(abort=True)
        else:
            self._tasks.start_soon(self._drain, viewer)

    async def _drain(self, viewer: Viewer) -> None:
        """Bring a viewer whose socket is full up to date at its own pace, or drop it when it stops reading."""
        try:
            while not viewer.gone:
                with trio.move_on_after(bounds.VIEWER_DRAIN_SECONDS_MAX) as patience:
                    await trio.lowlevel.wait_writable(viewer.socket)
                if patience.cancelled_caught:
                    self.drop(viewer, "slow")
                if viewer.gone:
                    return
                # The other end has read something: a sign of life, as good as a pong.
                viewer.heard = trio.current_time()
                had = viewer.edition
                done = viewer.push(viewer.channel.published)
                if viewer.edition != had:
                    self._metrics.live_messages(1, SNAPSHOT if viewer.deltas else UPDATE)
                self._count_lines(viewer)
                if done:
                    viewer.release()
                    return
        except (OSError, trio.ClosedResourceError):
            viewer.hang_up()
        except Exception:
            log.exception("viewer_failed", address=viewer.address)
            viewer.hang_up(abort=True)
