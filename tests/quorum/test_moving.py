"""A directory moves into a stream and out of it, on real servers; cut short at any step, it goes on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from engine.disk import RealDisk
from engine.record import frame_bytes
from server.node import moving
from server.node.moving import Exported, export_directory, import_directory, make_stream, new_origin
from server.quorum.nats_connection import NatsOptions
from server.quorum.nats_setup import create
from server.quorum.nats_stream import NatsStream
from server.quorum.stream import StreamRefused
from snapshots.digests import state_digest
from snapshots.membership import Membership, read_membership, write_membership
from snapshots.promotion import promote_directory
from snapshots.store import Store
from tests.quorum.servers import Cluster
from tests.server.cli.directories import increments, make, open_for_writing, write

DISK = RealDisk()
EVENTS = 6
_numbers = count(1)


class Cut(Exception):
    """The process dies here."""


def options_for(cluster: Cluster) -> NatsOptions:
    """Name a stream of its own."""
    return NatsOptions(servers=cluster.urls, stream=f"moving-{next(_numbers)}")


def odd(found: object) -> None:
    """Fail: nothing odd is to be found."""
    raise AssertionError(found)


async def brought_in(path: Path, options: NatsOptions) -> tuple[int, bool]:
    """Import a directory; give its last seq, and whether it was new."""
    tail, made = await import_directory(DISK, str(path), options, tell=odd)
    return tail.seq, made


async def taken_out(path: Path, options: NatsOptions) -> Exported:
    """Export a directory."""
    return await export_directory(DISK, str(path), options, now_ms=time.time_ns() // 1_000_000, tell=odd)


async def written_elsewhere(path: Path, options: NatsOptions, frames: int) -> None:
    """Have another node lead: it begins as this directory, and puts so many frames of an event on the stream."""
    other = path.with_name(f"{path.name}-other")
    shutil.copytree(path, other)
    with closing((opened := open_for_writing(other)).log):
        before = opened.log.tail.seq
        write(opened, increments(frames, 100))
        data = [frame_bytes(frame) for frame in opened.log.read_from(before + 1)]
    async with NatsStream.open(options, name="other") as stream:
        for frame in data:
            assert await stream.place((await stream.bounds()).last, frame)


def digest(path: Path) -> str:
    """Give the digest of the state of a directory."""
    with closing((opened := open_for_writing(path)).log):
        return state_digest(opened.scoreboard.capture())


def epochs(path: Path) -> list[tuple[int, int]]:
    """Give the epochs of a directory's log, each with its first seq."""
    with closing((opened := open_for_writing(path)).log):
        return [(mark.epoch, mark.first_seq) for mark in opened.scoreboard.marks()]


async def test_a_new_stream_is_made_once(cluster: Cluster) -> None:
    """The second time it is found, with the same log."""
    options = options_for(cluster)
    first, made = await make_stream(options, None)
    again, made_again = await make_stream(options, None)
    assert (made, made_again) == (True, False)
    assert first.config["metadata"] == again.config["metadata"]
    with pytest.raises(StreamRefused, match="holds another log"):
        await make_stream(options, new_origin())


async def test_what_went_in_comes_out_with_what_others_wrote(tmp_path: Path, cluster: Cluster) -> None:
    """The stream goes on after the last event. At the end the directory has all of it, and an epoch of its own."""
    path, options = make(tmp_path / "data", increments(EVENTS)), options_for(cluster)
    before = digest(path)
    assert await brought_in(path, options) == (EVENTS, True)
    assert await brought_in(path, options) == (EVENTS, False)
    assert digest(path) == before
    membership = read_membership(DISK, str(path))
    assert membership is not None
    assert membership.stream == options.stream
    assert [info.seq for info in Store(DISK, str(path)).list()] == [EVENTS], "a newcomer gets this snapshot"
    await written_elsewhere(path, options, 2)
    done = await taken_out(path, options)
    assert (done.epoch, done.seq, done.frames) == (2, EVENTS + 2 + 1, 2)
    assert read_membership(DISK, str(path)) is None
    assert epochs(path)[-1] == (2, done.seq)
    with pytest.raises(StreamRefused) as refused:
        async with NatsStream.open(options, name="late"):
            raise AssertionError
    assert refused.value.key == "sealed"


async def test_a_node_that_never_read_a_frame_comes_out_with_all_of_them(tmp_path: Path, cluster: Cluster) -> None:
    """Its log is empty: there is no last event to look at."""
    path, options = make(tmp_path / "data", []), options_for(cluster)
    assert await brought_in(path, options) == (0, True)
    await written_elsewhere(path, options, 2)
    done = await taken_out(path, options)
    assert (done.epoch, done.seq, done.frames) == (2, 3, 2)


async def test_a_directory_whose_stream_is_gone_is_told_the_way_out(tmp_path: Path, cluster: Cluster) -> None:
    """And the way leads out: a leader's directory with all that this node had, in the next epoch."""
    path, options = make(tmp_path / "data", increments(EVENTS)), options_for(cluster)
    write_membership(DISK, str(path), Membership(options.stream, log_id_of(path)))
    with pytest.raises(StreamRefused, match="remove the file quorum in it, and run: scoreboard promote --data-dir"):
        await taken_out(path, options)
    (path / "quorum").unlink()
    promoted = promote_directory(DISK, str(path), now_ms=1, tell=odd)
    assert (promoted.epoch, promoted.seq) == (2, EVENTS)


async def test_an_export_that_is_cut_short_goes_on(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut before and after each of its steps in turn: at the end everything is there, and one epoch has begun."""
    path, options = make(tmp_path / "data", increments(EVENTS)), options_for(cluster)
    await brought_in(path, options)
    await written_elsewhere(path, options, 1)
    for step, is_async in (("seal", True), ("_read_on", True), ("begin_epoch", False), ("remove_membership", False)):
        for after in (False, True) if step != "remove_membership" else (False,):
            with monkeypatch.context() as patch:
                patch.setattr(moving, step, (cut_async if is_async else cut)(getattr(moving, step), after))
                with pytest.raises(Cut):
                    await taken_out(path, options)
            assert read_membership(DISK, str(path)) is not None
    done = await taken_out(path, options)
    assert (done.epoch, done.seq, done.frames) == (2, EVENTS + 1 + 1, 0)
    assert read_membership(DISK, str(path)) is None
    assert [epoch for epoch, _ in epochs(path)] == [1, 2]


def cut(real: Callable[..., object], after: bool) -> Callable[..., object]:
    """Make a step that ends the process before it, or after it."""

    def step(*arguments: object, **more: object) -> object:
        if after:
            real(*arguments, **more)
        raise Cut

    return step


def cut_async(real: Callable[..., Awaitable[object]], after: bool) -> Callable[..., Awaitable[object]]:
    """Do the same to a step that waits."""

    async def step(*arguments: object, **more: object) -> object:
        if after:
            await real(*arguments, **more)
        raise Cut

    return step


async def test_an_import_that_was_cut_short_goes_on(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the marker, before and after the streams are made: nobody can lead alone meanwhile."""
    path, options = make(tmp_path / "data", increments(EVENTS)), options_for(cluster)
    for after in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(moving, "create", cut_async(create, after))
            with pytest.raises(Cut):
                await brought_in(path, options)
        assert read_membership(DISK, str(path)) is not None
    assert await brought_in(path, options) == (EVENTS, False)


async def test_a_refused_import_leaves_the_directory_as_it_was(tmp_path: Path, cluster: Cluster) -> None:
    """Another log is on the stream of this name."""
    path, options = make(tmp_path / "data", increments(EVENTS)), options_for(cluster)
    await make_stream(options, None)
    with pytest.raises(StreamRefused, match="holds another log"):
        await brought_in(path, options)
    assert read_membership(DISK, str(path)) is None
    mine = options_for(cluster)
    await brought_in(path, mine)
    with pytest.raises(StreamRefused, match=f"is of the stream {mine.stream} already"):
        await brought_in(path, options)
    with pytest.raises(StreamRefused, match="and not of this one"):
        await taken_out(path, options)
    assert read_membership(DISK, str(path)) == Membership(mine.stream, log_id_of(path))


def log_id_of(path: Path) -> str:
    """Give the id of a directory's log in hex."""
    with closing((opened := open_for_writing(path)).log):
        return opened.log.tail.log_id.hex()


async def test_a_directory_that_cannot_get_everything_seals_nothing(tmp_path: Path, cluster: Cluster) -> None:
    """The stream has lost what follows. A directory that is further can be exported."""
    path, options = make(tmp_path / "data", increments(EVENTS)), options_for(cluster)
    await brought_in(path, options)
    await written_elsewhere(path, options, 2)
    async with NatsStream.open(options, name="other") as stream:
        await stream.purge(2)
        with pytest.raises(StreamRefused, match="no longer has what follows") as refused:
            await taken_out(path, options)
        assert "a node that is further" in str(refused.value)
        assert read_membership(DISK, str(path)) is not None
        assert not (await stream.info()).config.get("sealed")
    done = await taken_out(path.with_name("data-other"), options)
    assert (done.frames, done.seq) == (0, EVENTS + 2 + 1)


async def test_a_directory_of_another_history_is_not_exported(tmp_path: Path, cluster: Cluster) -> None:
    """It has an event that the stream does not have; nothing is sealed."""
    path, options = make(tmp_path / "data", increments(EVENTS)), options_for(cluster)
    await brought_in(path, options)
    await written_elsewhere(path, options, 1)
    with closing((opened := open_for_writing(path)).log):
        write(opened, increments(1, 200))
    with pytest.raises(StreamRefused, match="another history"):
        await taken_out(path, options)
    assert read_membership(DISK, str(path)) is not None
