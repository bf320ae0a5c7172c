"""`scoreboard import --url` to a real leader that is killed meanwhile, through a replica, beside increments."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import trio

from tests.e2e import leader
from tests.e2e.client import Client

ROWS = 60_000
CONFIG = "[boards.main.points]\nWIN = 1\n[boards.old.points]\nWIN = 1\n"


def write_rows(path: Path) -> list[tuple[str, int]]:
    """Write a file of rows, the best first, with many ties; give them."""
    rows = [(f"user-{number * 7919 % ROWS}", (ROWS - number) // 10) for number in range(ROWS)]
    lines = "".join(f"{user},{score}\n" for user, score in rows)
    path.write_text(f"userId,score\n{lines}")
    return rows


async def start_import(url: str, file: Path, token: Path) -> trio.Process:
    """Start the command."""
    arguments = ["import", "--board", "old", "--url", url, "--token-file", str(token), "--json", str(file)]
    return await trio.lowlevel.open_process(
        [leader.COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=leader.environment()
    )


async def ended(process: trio.Process) -> tuple[int, str, str]:
    """Read a process to its end."""
    assert process.stdout is not None
    assert process.stderr is not None
    with trio.fail_after(leader.ALARM_SECONDS):
        out = b"".join([data async for data in process.stdout])
        err = b"".join([data async for data in process.stderr])
        return await process.wait(), out.decode(), err.decode()


async def exported(node: leader.Leader) -> list[tuple[str, int]]:
    """Export the board."""
    async with Client(node.host, node.port) as client:
        answer = await client.get("/boards/old/export?format=csv")
    assert answer.status == 200
    cells = [line.split(",") for line in answer.body.decode().splitlines()[1:]]
    return [(cell[1], int(cell[3])) for cell in cells]


async def begun(node: leader.Leader) -> None:
    """Wait until the import has rows."""
    with trio.fail_after(leader.ALARM_SECONDS):
        async with Client(node.host, node.port, leader.token("admin")) as client:
            while True:
                if (await client.get("/boards/old/imports")).json()["imports"]:
                    return
                await trio.sleep(0.01)


async def test_an_import_goes_on_over_a_killed_leader(tmp_path: Path) -> None:
    """The leader dies in the middle and comes back on its port. The command goes on, and no row is lost or doubled."""
    data, file, token, config = (tmp_path / name for name in ("data", "rows.csv", "token", "scoreboard.toml"))
    rows = write_rows(file)
    token.write_text(leader.token("admin", sub="mover"))
    token.chmod(0o600)
    config.write_text(CONFIG)
    async with leader.serving(data, config=config) as first:
        process = await start_import(first.url, file, token)
        await begun(first)
        await first.kill()
    async with leader.serving(data, config=config, arguments=["--bind", f"127.0.0.1:{first.port}"]) as second:
        code, out, err = await ended(process)
        assert code == 0, err
        assert "next try in" in err
        told = json.loads(out)
        assert (told["boardId"], told["rows"], told["rowsDone"]) == ("old", ROWS, ROWS)
        assert await exported(second) == rows
        line = next(line for line in second.stderr().splitlines() if '"import_finished"' in line)
        assert json.loads(line)["caller"] == "mover"


async def test_rows_that_go_to_a_replica_come_to_its_leader(tmp_path: Path) -> None:
    """And the replica shows them, in the same order."""
    file, token, config = (tmp_path / name for name in ("rows.csv", "token", "scoreboard.toml"))
    rows = write_rows(file)
    token.write_text(leader.token("admin"))
    token.chmod(0o600)
    config.write_text(CONFIG)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    public = {"SCOREBOARD_REPLICATION_PUBLIC_URL": f"http://{address}"}
    async with (
        leader.serving(tmp_path / "data", config=config, arguments=["--bind", address], extra=public) as node,
        leader.following(tmp_path, "replica", node.url) as replica,
    ):
        code, out, err = await ended(await start_import(replica.url, file, token))
        assert code == 0, err
        assert f"is a replica; the rows go to its leader, {node.url}" in err
        seq = json.loads(out)["seq"]
        async with Client(replica.host, replica.port, leader.token("admin")) as client:
            told = (await client.get(f"/boards/old/imports?minSeq={seq}")).json()
        assert told["imports"][0]["finished"] is True
        assert await exported(replica) == rows
