"""The lock, the live segment or the whole directory is taken from under a leader with traffic: it stops by itself.

What it had acknowledged before, and what a second leader acknowledges after it, is all there.
"""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import trio

from tests.e2e import leader
from tests.e2e.backends import CONFIG, Backend, Books, Row, check_log, work_until_gone
from tests.seeds import first_seed

SEGMENT_BYTES = 4 * 2**20
NOTICED_SECONDS = 10.0
"""A look every second, two for the last answers, and room for a machine that has other things to do."""


def _config(directory: Path) -> Path:
    path = directory / "scoreboard.toml"
    path.write_text(CONFIG.format(every_events=100_000))
    return path


def _serving(data: Path, config: Path) -> AbstractAsyncContextManager[leader.Leader]:
    return leader.serving(data, config=config, segment_bytes=SEGMENT_BYTES)


def _backends(name: str, books: Books) -> list[Backend]:
    bearer = leader.token("scores:write", "scores:read", "users:write")
    return [Backend(f"{name}-{number}", first_seed("LOST_SEED"), books, bearer) for number in range(4)]


async def _ends(node: leader.Leader, path: Path) -> None:
    """Wait for its end, which it must find by itself, and look for the reason."""
    with trio.fail_after(NOTICED_SECONDS):
        code = await node.wait()
    assert code == 1
    lines = [line for line in node.stderr().splitlines() if "disk_failed" in line]
    assert any(str(path) in line for line in lines), node.stderr()


async def _check(data: Path, books: Books) -> None:
    done = await leader.run("log", "dump", "--data-dir", str(data))
    assert done.returncode == 0, done.stderr.decode()
    rows: list[Row] = [json.loads(line) for line in done.stdout.splitlines()]
    check_log(rows, books)


async def test_a_lock_that_is_removed_does_not_make_two_leaders(tmp_path: Path) -> None:
    """The second one is started at once, in the same directory, with the first one still at work."""
    data, config, books = tmp_path / "data", _config(tmp_path), Books()
    backends = _backends("backend", books)
    async with _serving(data, config) as first, trio.open_nursery() as nursery:
        nursery.start_soon(work_until_gone, backends, first.host, first.port)
        await books.wait_acknowledged(300)
        (data / "lock").unlink()
        second = await leader.start(data, config=config, segment_bytes=SEGMENT_BYTES)
        await _ends(first, data / "lock")
    try:
        await second.wait_ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work_until_gone, backends, second.host, second.port)
            await books.wait_acknowledged(len(books.acknowledged) + 300)
            assert await second.terminate() == 0
    finally:
        await second.kill()
    assert "lock_was_missing" in second.stderr()
    await _check(data, books)


async def test_a_directory_that_is_exchanged_is_not_written_to(tmp_path: Path) -> None:
    """The first leader's events are in the old one, the second leader's in the new one, and nothing is mixed."""
    data, old, config = tmp_path / "data", tmp_path / "old", _config(tmp_path)
    books, later = Books(), Books()
    async with _serving(data, config) as first, trio.open_nursery() as nursery:
        nursery.start_soon(work_until_gone, _backends("backend", books), first.host, first.port)
        await books.wait_acknowledged(300)
        data.rename(old)
        data.mkdir()
        await _ends(first, data)
    assert list(data.iterdir()) == []
    async with _serving(data, config) as second, trio.open_nursery() as nursery:
        nursery.start_soon(work_until_gone, _backends("later", later), second.host, second.port)
        await later.wait_acknowledged(300)
        await second.kill()
    await _check(old, books)
    await _check(data, later)


async def test_a_live_segment_that_is_deleted_ends_the_process(tmp_path: Path) -> None:
    """What is written to it can never be read again, so nothing more is acknowledged."""
    data, config, books = tmp_path / "data", _config(tmp_path), Books()
    async with _serving(data, config) as node, trio.open_nursery() as nursery:
        nursery.start_soon(work_until_gone, _backends("backend", books), node.host, node.port)
        await books.wait_acknowledged(100)
        [segment] = (data / "log").glob("*.log")
        segment.unlink()
        await _ends(node, segment)
