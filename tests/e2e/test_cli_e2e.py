"""The command beside a leader that is busy, and in the places where it really runs: pipes and terminals."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.e2e import leader
from tests.e2e.backends import CONFIG, Backend, Books
from tests.e2e.client import Client

BEARER = leader.token("scores:write", "scores:read", "users:write")


@asynccontextmanager
async def busy_leader(tmp_path: Path) -> AsyncIterator[tuple[leader.Leader, Books]]:
    """A leader under steady load, with segments so short that they are sealed and compressed during the test."""
    config = tmp_path / "scoreboard.toml"
    config.write_text(CONFIG.format(every_events=500))
    books = Books()
    async with (
        leader.serving(tmp_path / "data", config=config, segment_bytes=32 * 1024) as node,
        trio.open_nursery() as nursery,
    ):
        for number in range(2):
            nursery.start_soon(Backend(f"backend-{number}", number, books, BEARER).work, node.host, node.port)
        await books.wait_acknowledged(100)
        yield node, books
        nursery.cancel_scope.cancel()


async def dump(data: Path) -> list[dict[str, Any]]:
    """The whole log."""
    done = await leader.run("log", "dump", "--data-dir", str(data))
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_the_log_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    """Each dump is whole, has everything that was acknowledged before it, and begins with the dump before it."""
    async with busy_leader(tmp_path) as (_, books):
        before: list[dict[str, Any]] = []
        for _ in range(4):
            acknowledged = set(books.acknowledged)
            rows = await dump(tmp_path / "data")
            assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
            assert rows[: len(before)] == before
            assert acknowledged <= {row.get("actionId") for row in rows}
            before = rows
        verified = await leader.run("log", "verify", "--json", "--data-dir", str(tmp_path / "data"))
        assert json.loads(verified.stdout)["ok"]


async def test_a_snapshot_taken_beside_a_leader_serves_the_next_start(tmp_path: Path) -> None:
    """The snapshot is written while increments go on; after a kill and a start nothing is missing."""
    data = tmp_path / "data"
    async with busy_leader(tmp_path) as (_, books):
        done = await leader.run("snapshot", "take", "--json", "--data-dir", str(data))
        assert done.returncode == 0, done.stderr.decode()
        assert json.loads(done.stdout)["seq"] > 0
        verified = await leader.run("snapshot", "verify", "--data-dir", str(data))
        assert verified.returncode == 0, verified.stdout.decode() + verified.stderr.decode()
    acknowledged = set(books.acknowledged)
    async with leader.serving(data, config=tmp_path / "scoreboard.toml"):
        assert acknowledged <= {row.get("actionId") for row in await dump(data)}


async def test_a_restored_directory_serves_the_past_in_a_new_epoch(tmp_path: Path) -> None:
    """A directory in use is restored up to a seq: later actions are not there, and can count again."""
    no_secret = {"SCOREBOARD_AUTH_JWT_SECRET": ""}
    data, new = tmp_path / "data", tmp_path / "new"
    async with leader.serving(data, extra=no_secret) as node:
        minted = await leader.run("token", "--sub", "shop", "--data-dir", str(data))
        bearer = minted.stdout.decode().strip()
        async with Client(node.host, node.port, bearer) as client:
            actions = [{"userId": "alice", "actionId": f"a-{number}"} for number in range(5)]
            seqs = [(await client.post("/scores/increment", action)).json()["seq"] for action in actions]
        done = await leader.run("restore", "--from", str(data), "--to", str(new), "--until-seq", str(seqs[2]))
        assert done.returncode == 0, done.stderr.decode()
    async with leader.serving(new, extra=no_secret) as node, Client(node.host, node.port, bearer) as client:
        assert (await client.get("/scores/alice")).json()["score"] == 30
        kept = (await client.post("/scores/increment", {"userId": "alice", "actionId": "a-2"})).json()
        assert (kept["applied"], kept["epoch"], kept["seq"]) == (False, 1, seqs[2])
        anew = (await client.post("/scores/increment", {"userId": "alice", "actionId": "a-3"})).json()
        assert (anew["applied"], anew["epoch"], anew["newScore"]) == (True, 2, 40)


async def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    """`dump | head -1`: one line, no complaint, exit codes of a pipe that went well."""
    async with busy_leader(tmp_path) as (node, books):
        await books.wait_acknowledged(2000)  # more than fits into a pipe
        await node.kill()
    script = f"set -o pipefail; {leader.COMMAND} log dump --data-dir {tmp_path / 'data'} | head -n 1"
    done = await trio.run_process(
        ["bash", "-c", script], capture_stdout=True, capture_stderr=True, check=False, env=leader.environment()
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["seq"] == 1


async def test_a_bad_configuration_is_one_sentence(tmp_path: Path) -> None:
    """Exit code 2, the key, what is allowed; no stack trace, and no data directory."""
    config = tmp_path / "scoreboard.toml"
    config.write_text("[live]\ninterval_ms = 'soon'\n")
    done = await leader.run("serve", "--data-dir", str(tmp_path / "data"), "--config", str(config))
    said = done.stderr.decode()
    assert done.returncode == 2
    assert "live.interval_ms" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "data").exists()


async def increment(node: leader.Leader, action_id: str) -> None:
    """Increment Alice once."""
    async with Client(node.host, node.port, BEARER) as client:
        assert (await client.post("/scores/increment", {"userId": "alice", "actionId": action_id})).status == 200


async def read_until(stream: trio.abc.ReceiveStream, text: str) -> str:
    """Read until this text has come."""
    said = ""
    with trio.fail_after(leader.ALARM_SECONDS):
        while text not in said:
            data = await stream.receive_some(4096)
            assert data, f"ended without {text!r}: {said!r}"
            said += data.decode("utf-8", "replace")
    return said


async def test_watch_goes_on_through_a_restart_and_ends_well(tmp_path: Path) -> None:
    """In a pipe it prints a line for each change; when the leader comes back at the same address, so do the lines."""
    async with leader.serving(tmp_path / "data") as node:
        await increment(node, "a-1")
        watch = await trio.lowlevel.open_process(
            [leader.COMMAND, "watch", f"127.0.0.1:{node.port}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=leader.environment(),
        )
        try:
            assert watch.stdout is not None
            await read_until(watch.stdout, "1. alice 10\n")
            await increment(node, "a-2")
            await read_until(watch.stdout, "1. alice 20\n")
            await node.kill()
            again = ["--bind", f"127.0.0.1:{node.port}"]
            async with leader.serving(tmp_path / "data", arguments=again) as successor:
                await increment(successor, "a-3")
                await read_until(watch.stdout, "1. alice 30\n")
            watch.send_signal(signal.SIGINT)
            with trio.fail_after(leader.ALARM_SECONDS):
                assert await watch.wait() == 0
        finally:
            watch.kill()


async def test_watch_draws_a_table_on_a_terminal(tmp_path: Path) -> None:
    """On a pseudo terminal: the board, redrawn when it changes, and the state of the connection."""
    async with leader.serving(tmp_path / "data") as node:
        await increment(node, "a-1")
        own, theirs = pty.openpty()
        screen = trio.lowlevel.FdStream(own)
        watch = await trio.lowlevel.open_process(
            [leader.COMMAND, "watch", f"127.0.0.1:{node.port}"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=leader.environment({"TERM": "xterm-256color", "COLUMNS": "80"}),
        )
        os.close(theirs)
        try:
            assert "alice" in await read_until(screen, "live")
            await increment(node, "a-2")
            await read_until(screen, "20")
        finally:
            watch.kill()
            await watch.wait()
            await screen.aclose()


async def test_watch_shows_its_token_where_reads_are_not_public(tmp_path: Path) -> None:
    """Without a token it says why it ends; with one from the environment it shows the board."""
    private = {"SCOREBOARD_AUTH_PUBLIC_READS": "false"}
    async with leader.serving(tmp_path / "data", extra=private) as node:
        await increment(node, "a-1")
        address = f"http://127.0.0.1:{node.port}"
        refused = await leader.run("watch", "--once", address)
        assert refused.returncode == 1
        assert b"401" in refused.stderr
        shown = await leader.run("watch", "--once", "--json", address, extra={"SCOREBOARD_TOKEN": BEARER})
        assert shown.returncode == 0, shown.stderr
        assert json.loads(shown.stdout)["entries"][0]["userId"] == "alice"
