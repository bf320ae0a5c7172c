"""Ticks and sweeps over many viewers: in slices, no more often than the interval, and stretched when they take long."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from engine.board_rules import rules_of_points
from engine.scoreboard import Scoreboard
from server import bounds
from server.live.board_view import BoardView
from server.live.broadcast import Broadcast
from server.live.viewers import Viewer, Viewers
from tests.engine.model import increment, perform
from tests.server.live.client_frames import take_server_frame
from tests.server.live.watching import Told, alarm, errors_in


class Hall:
    """Viewers on socket pairs, without any handshake, and the broadcast to them."""

    def __init__(self, interval_s: float, now_ms: Callable[[], int]) -> None:
        self.scoreboard = Scoreboard(rules_of_points({"main": {"ACTION_COMPLETED": 10}}))
        self.told = Told()
        self.viewers = Viewers(1000, 1000)
        self.broadcast = Broadcast(self.scoreboard, self.viewers, self.told, interval_s=interval_s, now_ms=now_ms)
        self.clients: list[socket.socket] = []
        self.all: list[Viewer] = []
        self._actions = 0

    def enter(self, *, deltas: bool = False) -> Viewer:
        """Add a viewer that has the newest edition."""
        ours, client = socket.socketpair()
        ours.setblocking(False)
        client.setblocking(False)
        channel = self.broadcast.channel(BoardView("main"))
        assert channel is not None
        self.viewers.reserve("192.0.2.1")
        audience = self.viewers.audience(channel.view)
        viewer = Viewer(ours, channel, audience, "192.0.2.1", trio.current_time(), deltas=deltas)
        viewer.edition = channel.newest().number
        self.clients.append(client)
        self.all.append(viewer)
        return viewer

    def score(self) -> None:
        """Change the top."""
        self._actions += 1
        perform(self.scoreboard, [increment("ann", str(self._actions))])
        self.broadcast.board_changed(["main"])

    def frames(self) -> list[int]:
        """Count the frames that each client was sent."""
        counts = []
        for client in self.clients:
            data = bytearray()
            try:
                while received := client.recv(65_536):
                    data += received
            except BlockingIOError:
                pass
            counts.append(0)
            while take_server_frame(data):
                counts[-1] += 1
        return counts


@asynccontextmanager
async def open_hall(
    interval_s: float = 0.25, now_ms: Callable[[], int] = lambda: 0, faults: int = 0
) -> AsyncIterator[Hall]:
    """Run a broadcast until the block ends; then `faults` bugs of ours must have been logged."""
    hall = Hall(interval_s, now_ms)
    with alarm(), capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            await nursery.start(hall.broadcast.run)
            yield hall
            nursery.cancel_scope.cancel()
    assert len(errors_in(lines)) == faults
    for viewer in hall.all:
        viewer.socket.close()
    for client in hall.clients:
        client.close()


async def test_a_tick_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two slices every other task has its turn, so a write never waits for all viewers."""
    monkeypatch.setattr(bounds, "SLICE_VIEWERS", 2)
    async with open_hall() as hall:
        for _ in range(9):
            hall.enter()
        hall.score()
        seen = []
        while not hall.told.ticks:
            await trio.lowlevel.checkpoint()
            seen.append(sum(viewer.edition == 2 for viewer in hall.all))
        assert hall.frames() == [1] * 9
        # Trio shuffles the tasks of a turn, so at times we see two slices at once.
        assert max(after - before for before, after in pairwise([0, *seen])) <= 4


async def test_viewers_may_come_and_go_during_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A viewer that left is not written to; a new one has the newest edition; a change meanwhile makes another tick."""
    monkeypatch.setattr(bounds, "SLICE_VIEWERS", 1)
    async with open_hall(interval_s=0.001) as hall:
        for _ in range(6):
            hall.enter()
        hall.score()
        while not any(viewer.edition == 2 for viewer in hall.all):
            await trio.lowlevel.checkpoint()
        for viewer in hall.all:
            if viewer.edition == 1:
                viewer.hang_up()
                hall.viewers.leave(viewer)
                break
        newcomer = hall.enter()
        hall.score()
        await hall.told.wait(lambda told: len(told.ticks) == 2)
        assert [viewer.edition for viewer in hall.all if not viewer.gone] == [3] * 6
        assert sorted(hall.frames()) == [0, 1, 2, 2, 2, 2, 2]
        assert newcomer.edition == 3


async def test_ticks_keep_the_interval(mock_clock: MockClock) -> None:
    """However often the board changes, there is one tick per interval; after a quiet time the first is at once."""
    async with open_hall() as hall:
        hall.enter()
        for quarter in range(1, 5):
            for _ in range(10):
                hall.score()
                await trio.testing.wait_all_tasks_blocked()
            assert len(hall.told.ticks) == quarter
            mock_clock.jump(0.25)
            await trio.testing.wait_all_tasks_blocked()
        assert hall.told.ticks == [(0.0, 0.25)] * 5
        assert hall.frames() == [5]
        mock_clock.jump(60)
        await trio.testing.wait_all_tasks_blocked()
        assert len(hall.told.ticks) == 5, "nothing changed, so there is nothing to tell"
        hall.score()
        await trio.testing.wait_all_tasks_blocked()
        assert len(hall.told.ticks) == 6


async def test_the_interval_stretches_when_ticks_take_long(mock_clock: MockClock) -> None:
    """A tick of one second is followed by a quarter of a second without one, although the interval is shorter."""

    def slowly() -> int:
        mock_clock.jump(1.0)
        return 0

    async with open_hall(now_ms=slowly) as hall:
        hall.enter()
        hall.score()
        await trio.testing.wait_all_tasks_blocked()
        assert hall.told.ticks == [(1.0, 1.25)]
        hall.score()
        mock_clock.jump(0.24)
        await trio.testing.wait_all_tasks_blocked()
        assert len(hall.told.ticks) == 1
        mock_clock.jump(0.01)
        await trio.testing.wait_all_tasks_blocked()
        assert len(hall.told.ticks) == 2


async def test_one_sweep_pings_everybody_and_drops_the_dead(mock_clock: MockClock) -> None:
    """Each viewer when it is time for it: not all at once, and the ones that were heard of stay."""
    async with open_hall() as hall:
        dead = hall.enter()
        mock_clock.jump(10.0)
        await trio.testing.wait_all_tasks_blocked()
        alive = hall.enter()
        for elapsed, expected in ((15.0, [1, 0]), (10.0, [0, 1]), (15.0, [1, 0]), (10.0, [0, 1])):
            mock_clock.jump(elapsed)
            await trio.testing.wait_all_tasks_blocked()
            alive.heard = trio.current_time()
            assert hall.frames() == expected
        assert trio.current_time() == bounds.VIEWER_SILENCE_SECONDS_MAX
        await hall.told.wait(lambda told: told.dropped["silent"] == 1)
        assert (dead.gone, alive.gone) == (True, False)


async def test_a_broken_socket_ends_that_viewer_alone() -> None:
    """The other end of one is gone: it is hung up on, and the others are shown the change."""
    async with open_hall() as hall:
        first, broken, last = hall.enter(), hall.enter(), hall.enter()
        hall.clients[1].close()
        hall.score()
        await hall.told.wait(lambda told: len(told.ticks) == 1)
        assert (first.gone, broken.gone, last.gone) == (False, True, False)
        assert (first.edition, last.edition) == (2, 2)
        assert hall.told.messages == {"update": 2}


async def test_a_viewer_may_go_just_when_its_socket_was_found_full() -> None:
    """The drain task finds nothing to wait for, and all others are served as before."""
    async with open_hall(interval_s=0.001) as hall:
        going, staying = hall.enter(), hall.enter()
        hall.broadcast._start_drain(going)
        going.hang_up()
        hall.score()
        await hall.told.wait(lambda told: len(told.ticks) == 1)
        assert staying.edition == 2
        await trio.testing.wait_all_tasks_blocked()
        hall.score()
        await hall.told.wait(lambda told: len(told.ticks) == 2)
        assert staying.edition == 3


async def test_a_fault_of_ours_with_one_viewer_ends_that_viewer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a bug show while one viewer drains, that one is cut, and the others never hear of it."""
    async with open_hall(faults=1) as hall:
        unlucky, lucky = hall.enter(), hall.enter()
        with monkeypatch.context() as patched:
            patched.setattr(Viewer, "push", lambda self, edition=None: 1 // 0)
            hall.broadcast._start_drain(unlucky)
            await trio.testing.wait_all_tasks_blocked()
        assert unlucky.gone
        hall.score()
        await hall.told.wait(lambda told: len(told.ticks) == 1)
        assert lucky.edition == 2


async def test_what_drains_slowly_counts_as_a_sign_of_life(mock_clock: MockClock) -> None:
    """A viewer that takes in a little now and then is slow, not dead: it is served at its own pace."""
    async with open_hall() as hall:
        viewer = hall.enter()
        client = hall.clients[0]
        big = b"\x82\x7f" + (8_000_000).to_bytes(8, "big") + b"x" * 8_000_000
        assert not viewer.show(1, big)
        hall.broadcast._start_drain(viewer)
        taken = 0
        while taken < len(big):
            mock_clock.jump(bounds.VIEWER_DRAIN_SECONDS_MAX - 0.1)
            received = len(client.recv(1_000_000))
            taken += received
            await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() > bounds.VIEWER_SILENCE_SECONDS_MAX
        assert not viewer.gone
        assert not viewer.busy
        assert not hall.told.dropped


async def test_without_a_running_broadcast_a_full_socket_is_cut() -> None:
    """At the very end of the process there is no drain task any more."""
    hall = Hall(0.25, lambda: 0)
    viewer = hall.enter()
    viewer.control = b"x" * 8_000_000
    hall.broadcast.push(viewer)
    assert viewer.gone
    hall.clients[0].close()
