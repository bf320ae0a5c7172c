"""`scoreboard promote`: what is refused before anything is done, and how a node's answers are told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.disk import RealDisk
from snapshots.promotion import Marker, Successor, write_deposed, write_marker
from tests.server.cli.answers import Node, answering
from tests.server.cli.directories import increments, make, open_for_writing, run
from tests.snapshots.leagues import League, play


@pytest.fixture
def node() -> Iterator[Node]:
    """A node that gives the answers that a test wants."""
    with answering() as running:
        yield running


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A file with a token in it."""
    path = tmp_path / "admin.token"
    path.write_text("a-token\n")
    path.chmod(0o600)
    return path


def replica_directory(path: Path) -> Path:
    """A stopped replica's directory with five events."""
    make(path, increments(5))
    write_marker(RealDisk(), str(path), Marker("http://leader.example"))
    return path


@pytest.mark.parametrize("arguments", [[], ["--data-dir", "x", "--url", "http://127.0.0.1:9"]])
def test_it_wants_one_of_directory_and_address(arguments: list[str]) -> None:
    """Both flags are named."""
    done = run("promote", *arguments)
    assert (done.exit_code, done.stderr) == (2, "Error: name either --data-dir DIR or --url URL\n")


@pytest.mark.parametrize(
    "url", ["", "replica:8080", "ftp://replica", "http://", "http://u:p@replica", "http://r:99999"]
)
def test_an_address_that_is_none_is_refused_by_its_flag(url: str) -> None:
    """No node is asked."""
    done = run("promote", "--url", url)
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: --url: must be ")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "cannot be read: it is not ASCII"),
        (b"one\ntwo\n", "has more in it than a token"),
        (b"Bearer one", "has more in it than a token"),
    ],
)
@pytest.mark.parametrize("verb", ["promote", "demote", "replica"])
def test_a_token_file_without_a_token_is_refused_by_its_flag(
    tmp_path: Path, node: Node, verb: str, content: bytes | None, why: str
) -> None:
    """Each verb with the flag refuses it, and no node is asked."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    every: dict[str, list[str | Path]] = {
        "promote": ["--url", node.url],
        "demote": ["--data-dir", make(tmp_path / "data", increments(1)), "--to", node.url],
        "replica": ["--leader", node.url, "--bind", "127.0.0.1:0"],
    }
    done = run(verb, *every[verb], "--token-file", file)
    assert (done.exit_code, done.stderr) == (2, f"Error: --token-file: {file} {why}\n")
    assert node.asked == []


def test_a_token_file_that_may_not_be_read_is_refused_by_its_flag(tmp_path: Path) -> None:
    """A directory stands for such a file, because root may read every file."""
    done = run("promote", "--url", "http://127.0.0.1:9", "--token-file", tmp_path)
    assert done.exit_code == 2
    assert "'--token-file'" in done.stderr


def test_a_running_replica_is_asked_with_the_token(node: Node, token_file: Path) -> None:
    """The token is that of the file or of --token. The answer is told to people and to programs."""
    node.says(200, {"epoch": 3, "seq": 17})
    done = run("promote", "--url", f"{node.url}/", "--token-file", token_file)
    assert (done.exit_code, done.stdout) == (0, "promoted: epoch 3 began with seq 17\n")
    done = run("promote", "--url", node.url, "--token", "another", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"epoch": 3, "seq": 17})
    asked = ("POST", "/replication/promote")
    assert node.asked == [(*asked, "Bearer a-token"), (*asked, "Bearer another")]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (
            409,
            {"error": {"code": "CONFLICT", "message": "This node is the leader already."}},
            "This node is the leader",
        ),
        (401, {"error": {"code": "UNAUTHENTICATED", "message": "A token is required."}}, "status 401: A token"),
        (404, {}, "refused with status 404"),
        (200, b"<html>", "not a scoreboard's"),
        (200, {"epoch": "x"}, "not a scoreboard's"),
        (200, [], "not a scoreboard's"),
    ],
)
def test_a_refusal_is_told_with_its_reason(node: Node, token_file: Path, status: int, body: object, told: str) -> None:
    """Exit code 1, one sentence, and nothing on standard output."""
    node.says(status, body)
    done = run("promote", "--url", node.url, "--token-file", token_file)
    assert (done.exit_code, done.stdout) == (1, "")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_replica_that_does_not_answer_is_told(node: Node) -> None:
    """The sentence names its address."""
    url = node.url
    node.server_close()
    done = run("promote", "--url", url)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {url} does not answer: ")


def test_a_stopped_replicas_directory_is_promoted_once(tmp_path: Path) -> None:
    """The next epoch is in its log, and the directory is a leader's: `serve` takes it, `replica` does not."""
    data = replica_directory(tmp_path / "data")
    done = run("promote", "--data-dir", data)
    assert (done.exit_code, done.stdout) == (0, "promoted: epoch 2 began with seq 6\n")
    assert f"scoreboard serve --data-dir {data}" in done.stderr
    assert not (data / "replica").exists()
    last = json.loads(run("log", "dump", "--data-dir", data, "--from-seq", "6").stdout)
    assert (last["epoch"], last["type"]) == (2, "epoch_begun")
    refused = run("replica", "--leader", "http://127.0.0.1:9", "--data-dir", data, "--bind", "127.0.0.1:0")
    assert refused.exit_code == 2
    assert "is a leader's" in refused.stderr


def test_a_directory_that_lacks_past_periods_is_promoted_and_names_them(tmp_path: Path) -> None:
    """The new leader can't fetch them from anywhere, so the operator must copy them."""
    data = tmp_path / "data"
    league = League(RealDisk(), str(data))
    first, second = play(league)
    league.snapshot()
    league.close()
    Path(league.periods.path(first)).unlink()
    write_marker(RealDisk(), str(data), Marker("http://127.0.0.1:9"))
    done = run("promote", "--data-dir", data)
    assert done.exit_code == 0
    assert f"not here: {league.periods.path(first)}. Copy it" in done.stderr
    assert league.periods.path(second) not in done.stderr


def test_a_directory_in_use_is_not_promoted(tmp_path: Path) -> None:
    """Exit code 3, and the log is as it was."""
    data = replica_directory(tmp_path / "data")
    lock = RealDisk().lock(f"{data}/lock")
    done = run("promote", "--data-dir", data)
    lock.release()
    assert done.exit_code == 3
    opened = open_for_writing(data)
    assert opened.scoreboard.epoch == 1
    opened.log.close()


def test_a_deposed_leaders_directory_is_not_promoted(tmp_path: Path) -> None:
    """The events that it lacks would be lost for good. The message names what to do."""
    data = make(tmp_path / "data", increments(5))
    write_deposed(RealDisk(), str(data), Successor(2))
    done = run("promote", "--data-dir", data)
    assert done.exit_code == 2
    assert "scoreboard demote" in done.stderr


@pytest.mark.parametrize("there", [False, True])
def test_a_directory_without_a_log_is_not_promoted(tmp_path: Path, there: bool) -> None:
    """No log is made."""
    data = tmp_path / "data"
    if there:
        data.mkdir()
    done = run("promote", "--data-dir", data)
    assert done.exit_code == 2
    assert "nothing to promote" in done.stderr
    assert data.exists() == there
