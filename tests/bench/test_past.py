"""The directory with a long past of the benches: what it says is what a replay of its whole log gives."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.load import Workload, prepare
from bench.past import PREFIX, RULES, Past, action_id, build, copy_linked, tell, user_of
from engine import action_blocks
from engine.actions import key_of, mark_of
from engine.batch import Batch
from engine.commands import Increment
from engine.disk import RealDisk
from engine.record import events_of, frame_bytes, pack_frame
from engine.sealed_actions import read_wants
from snapshots.opening import Opened, open_directory

PAST = Past(users=60, actions=6_000, tail=50)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with small blocks."""
    monkeypatch.setattr(action_blocks, "BLOCK_ACTIONS", 256)
    build(str(tmp_path / "made"), PAST)
    return tmp_path / "made"


def opened(directory: Path) -> Opened:
    """Open a directory as a server does."""
    return open_directory(RealDisk(), str(directory), RULES, tell=tell)


def test_its_snapshot_is_the_state_that_its_log_gives(made: Path) -> None:
    """Scores, times and seqs of users, and every action."""
    leader = opened(made)
    shutil.copytree(made, made.with_name("bare"), ignore=shutil.ignore_patterns("snapshots", "actions"))
    replayed = opened(made.with_name("bare"))
    assert leader.snapshot is not None
    actions, all_actions = leader.scoreboard.actions, replayed.scoreboard.actions
    assert actions.sealed.blocks == 22
    assert len(actions) == len(all_actions) == PAST.actions + PAST.tail
    assert leader.scoreboard.capture().boards == replayed.scoreboard.capture().boards
    for number in (0, 59, 60, 2_500, 5_999, 6_049):
        key, user = key_of(action_id(number)), user_of(number, PAST.users)
        actions.sealed.note(read_wants(actions.unread([key])))
        place, place_there = actions.find(key), all_actions.find(key)
        assert actions.seq_at(place) == all_actions.seq_at(place_there)
        assert actions.mark_at(place) == all_actions.mark_at(place_there) == mark_of(user, "main", "ACTION_COMPLETED")


def test_its_frames_are_those_that_the_engine_packs(made: Path) -> None:
    """The columns of bytes hold nothing that the engine would write otherwise."""
    frames = list(opened(made).log.read_from(1))
    assert sum(frame.count for frame in frames) == 1 + PAST.users + PAST.actions + PAST.tail
    for frame in frames:
        assert pack_frame(events_of(frame), epoch=frame.epoch, previous=frame.previous) == frame_bytes(frame)


def test_a_server_may_write_to_a_linked_copy(made: Path) -> None:
    """Its live segment is a file of its own."""
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    copy_linked(made, made.with_name("copy"))
    leader = opened(made.with_name("copy"))
    batch = Batch(leader.scoreboard, leader.scoreboard.time_ms)
    batch.decide([Increment("user-0000001", "another", "ACTION_COMPLETED", "main", "bench")])
    leader.log.append(batch.events, leader.scoreboard.epoch)
    leader.log.close()
    assert before == {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}


def test_the_generator_repeats_these_actions() -> None:
    """A request with the prefix has the ids, in the place of its digits."""
    request = prepare(Workload(port=1, connections=1, seconds=1, prefix=PREFIX))
    assert action_id(0).encode() in request.data
    assert request.data[request.action_at :].startswith(b"000000000")
