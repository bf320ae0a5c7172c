"""`scoreboard import`: files and sorted sets, what is refused before a row is written, and going on after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from engine.batch import Batch
from engine.board_rules import BoardRules, Rules
from engine.commands import ImportRow, PutBoard
from engine.disk import RealDisk
from engine.scoreboard import Scoreboard
from server.cli import import_source
from server.cli.import_source import BadSource, read_file, read_zset
from server.cli.main import main
from snapshots.opening import open_directory
from snapshots.state import read_state

MS = 1_765_800_896_000
NOW_MS = 1_795_000_000_000
FAR = "9007199254740991"


def make_directory(path: Path, rules: BoardRules | None = None) -> str:
    """Make a leader's directory whose log has the board `main`."""
    opened = open_directory(RealDisk(), str(path), Rules({}), tell=print)
    batch = Batch(opened.scoreboard, MS)
    batch.decide([PutBoard("main", rules or BoardRules({"WIN": 10}), "ops")])
    opened.log.append(batch.events, 1)
    opened.log.close()
    return str(path)


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A leader's directory."""
    return make_directory(tmp_path / "data")


def run(data: str, *arguments: str) -> Result:
    """Run `scoreboard import`."""
    return CliRunner().invoke(main, ["import", "--data-dir", data, "--board", "main", *arguments])


def state_of(data: str) -> Scoreboard:
    """Read the state of a directory, as a start does."""
    scoreboard, _ = read_state(RealDisk(), data, Rules({}), tell=print)
    scoreboard.end_replay()
    scoreboard._check()
    return scoreboard


def rows_of(data: str) -> list[tuple[int, str, int, str | None]]:
    """The rows of the board, with names."""
    scoreboard = state_of(data)
    board = scoreboard.boards["main"]
    return [(row.rank, row.user_id, row.score, scoreboard.users.name(row.user_id)) for row in board.top(len(board))]


def write(path: Path, text: str) -> str:
    """Write a file; give its path."""
    path.write_text(text, encoding="utf-8", newline="")
    return str(path)


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_a_file_becomes_a_board(tmp_path: Path, data: str, form: str) -> None:
    """Ties go by the time they were reached, then by the order of the rows; rows without a time come last."""
    if form == "csv":
        text = (
            "userId,score,displayName,reachedAt\r\n"
            'z,5,,\r\na,5,"Änn, the 🎯",2025-01-02T00:00:00Z\r\nb,5,,1735689600000\r\n'
            f"c,{FAR},,\r\ny,5,,\r\n"
        )
    else:
        lines: list[dict[str, Any]] = [
            {"userId": "z", "score": 5},
            {"userId": "a", "score": 5, "displayName": "Änn, the 🎯", "reachedAt": "2025-01-02T00:00:00Z"},
            {"userId": "b", "score": 5, "reachedAt": 1_735_689_600_000},
            {"userId": "c", "score": int(FAR)},
            {"userId": "y", "score": 5, "displayName": None},
        ]
        text = "\n".join(json.dumps(line) for line in lines)
    result = run(data, write(tmp_path / f"scores.{form}", text), "--json", "--import-id", "season 1")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["importId"], told["rows"], told["rowsDone"], told["applied"]) == ("season 1", 5, 5, 5)
    assert rows_of(data) == [
        (1, "c", int(FAR), None), (2, "b", 5, None), (3, "a", 5, "Änn, the 🎯"), (4, "z", 5, None), (5, "y", 5, None),
    ]  # fmt: skip
    assert state_of(data).boards["main"].updated_ms("b") == 1_735_689_600_000


def test_the_same_command_again_does_nothing(tmp_path: Path, data: str) -> None:
    """The import is named by its content, so another file is another import, which needs --merge."""
    file = write(tmp_path / "a.csv", "userId,score\nann,5\nben,4\n")
    assert run(data, file).exit_code == 0
    again = run(data, file)
    assert again.exit_code == 0
    assert "0 rows came to board main; 2 were there already" in again.stdout
    other = write(tmp_path / "b.csv", "userId,score\nann,1\n")
    refused = run(data, other)
    assert refused.exit_code == 1
    assert "only an import that merges may add to them" in refused.stderr
    assert run(data, other, "--merge").exit_code == 0
    assert rows_of(data) == [(1, "ann", 6, None), (2, "ben", 4, None)]


BAD = {
    "a score with an exponent": ("userId,score\na,1\nb,1e3\n", "line 3: score"),
    "a score with a fraction": ("userId,score\na,12.0\n", "line 2: score"),
    "a score with a space": ("userId,score\na, 12\n", "line 2: score"),
    "a score below 0": ("userId,score\na,-1\n", "line 2: score"),
    "a score with zeros": ("userId,score\na,007\n", "line 2: score"),
    "a score too high": ("userId,score\na,9007199254740992\n", "line 2: score"),
    "no score": ("userId,score\na,\n", "line 2: score"),
    "a user twice": ("userId,score\na,1\nb,1\na,1\n", "line 4: userId 'a' came before, in row 1"),
    "no user": ("userId,score\n,1\n", "line 2: userId must not be empty"),
    "a field less": ("userId,score\na\n", "line 2: it has 1 fields"),
    "an unknown column": ("userId,score,points\na,1,1\n", "column 'points' is unknown"),
    "no column of scores": ("userId,rank\na,1\n", "there is no column score"),
    "a time to come": ("userId,score,reachedAt\na,1,2126-01-01T00:00:00Z\n", "line 2: reachedAt"),
    "a time without a zone": ("userId,score,reachedAt\na,1,2025-01-01T00:00:00\n", "line 2: reachedAt"),
    "a name that shows nothing": ("userId,score,displayName\na,1, \n", "line 2: displayName"),
    "no rows": ("userId,score\n", "no rows"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_refuses_the_file_before_a_row_is_written(tmp_path: Path, data: str, name: str) -> None:
    """The line and the field are named."""
    text, message = BAD[name]
    result = run(data, write(tmp_path / "bad.csv", text))
    assert result.exit_code == 1
    assert message in result.stderr
    assert state_of(data).seq == 1


def test_a_bad_line_of_ndjson_is_named(tmp_path: Path) -> None:
    """Also one that is no JSON, and a number that is not whole."""
    for line, message in (("{", "line 2"), ('{"userId": "b", "score": 1.5}', "line 2"), ('{"user": "b"}', "line 2")):
        file = write(tmp_path / "bad.ndjson", '{"userId": "a", "score": 1}\n' + line + "\n")
        with pytest.raises(BadSource, match=message):
            read_file(Path(file), "ndjson", NOW_MS)
    (tmp_path / "latin.csv").write_bytes(b"userId,score\n\xe4,1\n")
    with pytest.raises(BadSource, match="UTF-8"):
        read_file(tmp_path / "latin.csv", "csv", NOW_MS)


def test_an_export_comes_back_as_it_was(tmp_path: Path, data: str) -> None:
    """Row by row: order, scores, names and times; from CSV and from NDJSON."""
    text = "userId,score,displayName,reachedAt\n" + "".join(
        f"u{n},{n % 7},{'Nö ' + str(n) if n % 3 else ''},{1_700_000_000_000 - n}\n" for n in range(50)
    )
    assert run(data, write(tmp_path / "first.csv", text)).exit_code == 0
    for form in ("csv", "ndjson"):
        exported = str(tmp_path / f"out.{form}")
        arguments = ["export", "--data-dir", data, "--board", "main", "--format", form, exported]
        assert CliRunner().invoke(main, arguments).exit_code == 0
        other = make_directory(tmp_path / form)
        assert run(other, exported).exit_code == 0
        assert rows_of(other) == rows_of(data)
        assert state_of(other).boards["main"].updated_ms("u9") == 1_700_000_000_000 - 9


def test_usage(tmp_path: Path, data: str) -> None:
    """What is missing, or too much, is told; an unknown board names those that there are."""
    file = write(tmp_path / "a.csv", "userId,score\nann,5\n")
    for arguments in (
        [],
        [file, "--from", "redis://127.0.0.1:1"],
        ["--from", "redis://127.0.0.1:1"],
        [file, "--key", "k"],
    ):
        assert run(data, *arguments).exit_code == 2
    assert run(data, write(tmp_path / "a.txt", "x")).exit_code == 2
    result = CliRunner().invoke(main, ["import", "--data-dir", data, "--board", "cup", file])
    assert (result.exit_code, "there are: main" in result.stderr) == (1, True)


def test_an_import_that_was_killed_goes_on(tmp_path: Path, data: str) -> None:
    """Killed with SIGKILL in the middle of it, as the log shows. The second run does the rest, and no row twice."""
    count = 120_000
    file = write(tmp_path / "many.csv", "userId,score\n" + "".join(f"user-{n},{n % 1000}\n" for n in range(count)))
    command = [sys.executable, "-m", "server.cli.main", "import", "--data-dir", data, "--board", "main", file]
    log = Path(data) / "log" / "00000000000000000001.log"
    size = len(log.read_bytes().rstrip(b"\0"))
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 30
        while len(log.read_bytes().rstrip(b"\0")) == size and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    scoreboard = open_directory(RealDisk(), data, Rules({}), tell=print)
    [known] = scoreboard.scoreboard.imports.of_board("main")
    scoreboard.log.close()
    assert 0 < known.rows_done < count
    result = run(data, file, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["applied"] == count - known.rows_done
    board = state_of(data).boards["main"]
    assert len(board) == count
    assert [row.user_id for row in board.top(2)] == ["user-999", "user-1999"]


# Redis


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A Redis server of this test's own."""
    pytest.importorskip("redis", reason="the client of Redis is not installed")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server on this machine")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.01)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()


def client_of(url: str) -> Any:
    """A client of a Redis server."""
    redis: Any = pytest.importorskip("redis")
    return redis.Redis.from_url(url)


@pytest.mark.parametrize("ascending", [False, True])
def test_a_sorted_set_becomes_a_board(tmp_path: Path, redis_url: str, ascending: bool, monkeypatch: Any) -> None:
    """Row by row in the order of Redis, ties too, and read in pieces."""
    monkeypatch.setattr(import_source, "REDIS_ROWS", 7)
    data = make_directory(tmp_path / "data", BoardRules({"A": 1}, order="ascending" if ascending else "descending"))
    with client_of(redis_url) as client:
        client.zadd("board", {f"ü{n}": n % 9 for n in range(40)} | {"max": int(FAR)})
        expected = client.zrange("board", 0, -1, desc=not ascending, withscores=True, score_cast_func=int)
    result = run(data, "--from", redis_url, "--key", "board")
    assert result.exit_code == 0, result.output
    found = [(user.encode(), score) for _, user, score, _ in rows_of(data)]
    assert found == [(user, score) for user, score in expected]


def test_a_sorted_set_that_is_no_board_is_refused(redis_url: str, monkeypatch: Any) -> None:
    """A fraction, a number too large, a member that is no text, no key, another type; and a change meanwhile."""
    with client_of(redis_url) as client:
        client.zadd("half", {"a": 1.5})
        client.zadd("far", {"a": 2.0**53})
        client.zadd("bytes", {b"\xff": 1})
        client.set("text", "x")
        for key, message in (
            ("half", "1.5"),
            ("far", "score"),
            ("bytes", "UTF-8"),
            ("none", "no rows"),
            ("text", "WRONG"),
        ):
            with pytest.raises(BadSource, match=message):
                read_zset(redis_url, key, ascending=False, now_ms=NOW_MS)
        client.zadd("moves", {"a": 1, "b": 2})
        add = import_source._add_member

        def add_and_change(*arguments: Any) -> None:
            add(*arguments)
            client.zadd("moves", {"a": 7})

        monkeypatch.setattr(import_source, "_add_member", add_and_change)
        with pytest.raises(BadSource, match="changed while it was read"):
            read_zset(redis_url, "moves", ascending=False, now_ms=NOW_MS)


def test_a_server_that_does_not_answer_is_told() -> None:
    """Without the password that the address may have."""
    pytest.importorskip("redis")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(BadSource) as refused:
        read_zset(f"redis://user:secret@127.0.0.1:{port}", "k", ascending=False, now_ms=NOW_MS)
    assert "secret" not in str(refused.value)


def test_the_client_of_redis_is_told_when_it_is_missing(monkeypatch: Any) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(BadSource, match=r"pip install 'scoreboard\[redis\]'"):
        read_zset("redis://127.0.0.1:1", "k", ascending=False, now_ms=NOW_MS)


def test_rows_are_given_from_any_row_on(tmp_path: Path) -> None:
    """The rest of an import has the same rows in the same order."""
    source = read_file(Path(write(tmp_path / "a.csv", "userId,score\na,1\nb,2\nc,3\n")), "csv", NOW_MS)
    assert list(source.rows_from(1, 5)) == [[ImportRow("b", 2), ImportRow("c", 3)]]
    assert [len(rows) for rows in source.rows_from(0, 2)] == [2, 1]
