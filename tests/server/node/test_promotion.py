"""How a replica becomes the leader: the order of its steps, who is refused, and what a failure leaves behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from structlog.typing import EventDict

from engine.action_reading import ActionReader
from engine.actor import Actor, Submission
from engine.errors import DiskFull, WriteFailed
from engine.local_log import LocalLog
from engine.log import Log, Synced
from engine.machine import Applied, StateMachine
from server import bounds
from server.http.messages import Refused
from server.node.file_boards import FileBoards
from server.node.promotion import NOTHING_KEPT, ONLY_A_SHARD, Promotion, check_promotable, refuse_promotion
from server.node.surroundings import Surroundings
from server.replication.feed import FrameFeed
from server.replication.messages import Hello
from server.replication.progress import Progress
from server.replication.replicas import WholeReplica
from server.role import CurrentRole, Role, State
from snapshots.opening import open_directory
from snapshots.promotion import Marker, Successor, read_marker, write_marker
from tests.server.node.worlds import NOW_MS, URL, open_world
from tests.snapshots.directories import InlineDisk, Told, history

pytestmark = pytest.mark.usefixtures("logged")


class Bench:
    """A replica that stands before its promotion. `steps` are what was done, and the role at that time."""

    def __init__(self, directory: Path, world: Surroundings, state: State) -> None:
        opened = open_directory(InlineDisk(), str(directory), world.config.rules, tell=Told())
        self.log = opened.log
        self.scoreboard = opened.scoreboard
        self.world = world
        self.directory = directory
        self.steps: list[tuple[str, State]] = []
        self.told: list[Hello] = []
        self.deposed: list[Successor] = []
        self.role = CurrentRole(Role(state, leader="http://old:1"), trio.current_time)
        self.role.on_change(lambda before, now: self.note("role") if now.state is not before.state else None)
        self.progress = Progress(self.scoreboard, world.clock_ms)
        self.marking = trio.Lock()
        self.stopped = trio.Event()
        self.stopped.set()
        machine = StateMachine(self.scoreboard, LocalLog(self.log), self.note_events)
        feed = FrameFeed(self.log.tail.seq)
        replica = WholeReplica(InlineDisk(), str(directory), machine, self.log, feed)
        self.actor = Actor(machine, clock=world.clock)
        stand_in = cast(Any, self)  # for the following, the actor and the notifier
        self.promote = Promotion(
            world, self.role, stand_in, self.progress, replica, stand_in, stand_in, self.deposed.append,
            FileBoards(world, self.actor, self.scoreboard).run,
        ).promote  # fmt: skip

    def note(self, step: str) -> None:
        """Note a step."""
        self.steps.append((step, self.role.now.state))

    def note_events(self, applied: Applied) -> None:
        """Note what a frame is about."""
        self.note(" ".join(type(event).__name__ for event in applied.events))

    async def stop(self) -> None:
        """See `Following`."""
        self.note("follower stops")
        await self.stopped.wait()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """See `Actor`."""
        self.note("actor without the marker" if self.marker() is None else "actor with the marker")
        await self.actor.run(task_status=task_status)

    async def run_alarm(self, *, task_status: trio.TaskStatus[None]) -> None:
        """See `Actor`."""
        self.note("alarm")
        await self.actor.run_alarm(task_status=task_status)

    @property
    def reader(self) -> ActionReader[Submission]:
        """See `Actor`."""
        return self.actor.reader

    def tell(
        self, hello: Hello, tasks: trio.Nursery, *, leads: Callable[[], bool], on_outranked: Callable[[Successor], None]
    ) -> None:
        """See `EpochNotifier`."""
        assert leads()
        assert on_outranked == self.deposed.append
        assert tasks is self.world.tasks
        self.note("old leader is told")
        self.told.append(hello)

    def marker(self) -> Marker | None:
        """The marker of the directory."""
        return read_marker(InlineDisk(), str(self.directory))


@asynccontextmanager
async def open_bench(directory: Path, state: State = State.FOLLOWING, *, public_url: str = "") -> AsyncIterator[Bench]:
    """A replica's directory with a history, opened."""
    history(directory, 5)
    write_marker(InlineDisk(), str(directory), Marker("http://old:1"))
    async with open_world(directory, SCOREBOARD_REPLICATION_PUBLIC_URL=public_url) as world:
        bench = Bench(directory, world, state)
        try:
            yield bench
        finally:
            bench.log.close()


async def refusal_of(promotion: Any) -> str:
    """The message with which a promotion is refused."""
    with pytest.raises(Refused) as refused:
        await promotion
    assert (refused.value.status, refused.value.code) == (409, "CONFLICT")
    return refused.value.message


@pytest.mark.parametrize("state", [State.FOLLOWING, State.STALE])
async def test_its_steps_have_one_order(tmp_path: Path, state: State, logged: list[EventDict]) -> None:
    """The follower stops; then the epoch, the marker, the actor, the alarm, the boards, the role; the old leader."""
    async with open_bench(tmp_path, state) as bench:
        seq = bench.log.tail.seq
        assert await bench.promote() == (2, seq + 1)
        assert bench.steps == [
            ("role", State.PROMOTING),
            ("follower stops", State.PROMOTING),
            ("EpochBegun", State.PROMOTING),
            ("actor without the marker", State.PROMOTING),
            ("alarm", State.PROMOTING),
            ("BoardPut", State.PROMOTING),
            ("role", State.LEADING),
            ("old leader is told", State.LEADING),
        ]
        assert (bench.scoreboard.epoch, bench.scoreboard.seq, bench.scoreboard.time_ms) == (2, seq + 2, NOW_MS)
        [hello] = bench.told
        assert (hello.epoch, hello.after, hello.leader) == (2, seq + 2, URL)
    [line] = [line for line in logged if line["event"] == "promoted"]
    assert (line["epoch"], line["seq"], line["after_seq"]) == (2, seq + 1, seq)


async def test_the_epoch_is_above_every_epoch_that_is_known(tmp_path: Path) -> None:
    """Another one was promoted meanwhile, and this node heard only of its epoch."""
    async with open_bench(tmp_path) as bench:
        bench.progress.heard_of(Successor(7))
        epoch, _ = await bench.promote()
        assert epoch == 8


@pytest.mark.parametrize(
    ("role", "why_not", "message"),
    [
        (Role(State.LEADING), "", "This node is the leader already."),
        (Role(State.LEADING, draining=True), NOTHING_KEPT, "This node is the leader already."),
        (Role(State.DEPOSED, successor=Successor(3)), "", "epoch 3 began elsewhere; this node is no longer the leader"),
        (Role(State.FOLLOWING), NOTHING_KEPT, NOTHING_KEPT),
        (Role(State.NOT_CAUGHT_UP, reason="not yet"), ONLY_A_SHARD, ONLY_A_SHARD),
        (Role(State.NOT_CAUGHT_UP, reason="not caught up"), "", "Not promoted: not caught up"),
        (Role(State.FAILED, reason="the histories differ"), "", "Not promoted: the histories differ"),
        (Role(State.PROMOTING), "", "This node is being promoted already."),
        (Role(State.FOLLOWING, draining=True), "", "Not promoted: the server is stopping"),
    ],
)
async def test_who_can_not_lead_is_told_why(role: Role, why_not: str, message: str) -> None:
    """Nothing is done for it."""
    current = CurrentRole(role, trio.current_time)
    assert await refusal_of(refuse_promotion(current, why_not)) == message
    assert current.now is role


@pytest.mark.parametrize("state", [State.FOLLOWING, State.STALE])
def test_who_can_lead_is_not_refused(state: State) -> None:
    """A whole replica with a directory that vouches for what it has."""
    check_promotable(CurrentRole(Role(state), lambda: 0.0))


async def test_there_is_no_second_promotion(tmp_path: Path) -> None:
    """Neither while the first is on its way, nor after it."""
    async with open_bench(tmp_path) as bench:
        bench.stopped = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.promote)
            await trio.testing.wait_all_tasks_blocked()
            assert await refusal_of(bench.promote()) == "This node is being promoted already."
            bench.stopped.set()
        assert await refusal_of(bench.promote()) == "This node is the leader already."
        assert bench.scoreboard.epoch == 2


async def test_nothing_cancels_a_promotion_that_has_begun(tmp_path: Path) -> None:
    """The client that asked for it may go away."""
    async with open_bench(tmp_path) as bench:
        bench.stopped = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.promote)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            bench.stopped.set()
        assert (bench.role.now.state, bench.marker()) == (State.LEADING, None)


async def test_the_marker_is_removed_after_the_follower_wrote_it(tmp_path: Path) -> None:
    """A promotion waits for a note that the replica has caught up."""
    async with open_bench(tmp_path) as bench, trio.open_nursery() as nursery:
        async with bench.marking:
            nursery.start_soon(bench.promote)
            await trio.testing.wait_all_tasks_blocked()
            assert bench.steps[-1] == ("follower stops", State.PROMOTING)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.role.now.state is State.LEADING


async def test_a_disk_that_fails_ends_the_process_and_not_the_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marker is still there, no write is taken, and nobody is told of an epoch."""

    def fail(_log: Log, *_: object) -> Synced:
        raise WriteFailed("can't sync: Input/output error", path="log/1.log")

    async with open_bench(tmp_path) as bench:
        monkeypatch.setattr(Log, "append", fail)
        with pytest.raises(WriteFailed):
            await bench.promote()
        assert bench.world.shutdown.wanted.is_set()
        assert isinstance(bench.world.shutdown.fault, WriteFailed)
        assert bench.steps == [("role", State.PROMOTING), ("follower stops", State.PROMOTING)]
        assert bench.marker() == Marker("http://old:1")


@pytest.mark.parametrize(("path", "is_told"), [("", True), ("/" + "x" * bounds.NODE_URL_CHARACTERS_MAX, False)])
async def test_the_old_leader_is_told_the_public_address(tmp_path: Path, path: str, is_told: bool) -> None:
    """Unless it is too long to be told. Then the old leader knows no address, rather than a wrong one."""
    public_url = f"https://scores.example{path}"
    async with open_bench(tmp_path, public_url=public_url) as bench:
        await bench.promote()
        assert bench.told[0].leader == (public_url if is_told else None)


async def test_it_is_refused_while_its_event_does_not_fit_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk ends the service: there is no way back from PROMOTING, so the replica just follows on."""
    async with open_bench(tmp_path) as bench:
        monkeypatch.setattr(Log, "check_room", _no_room)
        with pytest.raises(Refused) as refused:
            await bench.promote()
        assert (refused.value.status, refused.value.code) == (503, "DISK_FULL")
        assert dict(refused.value.headers)["retry-after"]
        assert bench.steps == []
        assert bench.role.now.is_replica
        monkeypatch.undo()
        await bench.promote()
        assert bench.role.now.takes_writes
        await bench.actor.drain()


def _no_room(_self: Log, _length: int) -> None:
    raise DiskFull("the next segment does not fit", path="log")
