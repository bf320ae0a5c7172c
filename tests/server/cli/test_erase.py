"""`scoreboard erase users` and `erase verify`, and `restore --erase-list`: what they print, and their exit codes."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from engine.disk import RealDisk
from tests.server.cli.directories import increment, make, put_user, run, save_snapshot


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory with two users, and a snapshot."""
    path = make(
        tmp_path / "data",
        [[put_user("ann", "Ann Kathrin")], [increment("ann", "a1"), increment("ben", "b1")], [increment("ann", "a2")]],
    )
    save_snapshot(path)
    return path


def test_a_user_is_found_erased_and_not_found_again(data: Path) -> None:
    """Exit codes 1, 0, 0; a table of places, a line for each user, and what was rewritten."""
    before = run("erase", "verify", "--data-dir", data, "--user", "ann", "--name", "Ann Kathrin")
    assert before.exit_code == 1
    assert "00000000000000000001.log\tuserId\t" in before.stdout
    assert "displayName" in before.stdout
    assert "places of this directory name the user" in before.stderr
    done = run("erase", "users", "--data-dir", data, "--user", "ann", "--user", "nobody")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == (
        "ann: erased at seq 5; 2 actions stay used\n"
        "nobody: neither in the log nor on a board of this directory\n"
        "rewritten: 1 segments, 0 past periods; removed: 1 files\n"
    )
    assert "PRIVACY.md" in done.stderr
    after = run("erase", "verify", "--data-dir", data, "--user", "ann", "--name", "Ann Kathrin")
    assert (after.exit_code, after.stdout) == (0, "")
    assert run("log", "verify", "--data-dir", data).exit_code == 0
    assert run("snapshot", "verify", "--data-dir", data).exit_code == 0


def test_what_is_left_is_told(data: Path) -> None:
    """What was set aside is not touched. The exit code is 1 until it is gone."""
    (data / "aside-1-2").mkdir()
    (data / "aside-1-2" / "notes.txt").write_text("ann asked")
    done = run("erase", "users", "--data-dir", data, "--user", "ann")
    assert done.exit_code == 1
    assert f"Still there: {data / 'aside-1-2' / 'notes.txt'} userId 0" in done.stderr


def test_the_answers_are_json_if_asked_for(data: Path) -> None:
    """For scripts of those who must prove it."""
    found = run("erase", "verify", "--data-dir", data, "--user", "ann", "--json")
    assert {place["seq"] for place in msgspec.json.decode(found.stdout)} >= {1, 2, 4}
    done = run("erase", "users", "--data-dir", data, "--user", "ann", "--json")
    assert msgspec.json.decode(done.stdout)["erased"] == [
        {"userId": "ann", "pseudonym": "\x001", "seq": 5, "actions": 2, "applied": True}
    ]
    assert msgspec.json.decode(run("erase", "verify", "--data-dir", data, "--user", "ann", "--json").stdout) == []


def test_the_log_shows_an_erasure_without_the_user(data: Path) -> None:
    """With the pseudonym, who did it, and the seqs of the actions."""
    run("erase", "users", "--data-dir", data, "--user", "ann")
    lines = [msgspec.json.decode(line) for line in run("log", "dump", "--data-dir", data).stdout.splitlines()]
    assert [line["type"] for line in lines][-1] == "user_erased"
    assert {name: lines[-1][name] for name in ("userId", "pseudonym", "caller", "actions")} == {
        "userId": "\x001", "pseudonym": "\x001", "caller": "scoreboard erase", "actions": [2, 4],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [((), "name a user with --user"), (("--user", ""), "'' is no userId"), (("--list", "missing"), "can't be read")],
)
def test_a_wrong_use_is_told(data: Path, arguments: tuple[str, ...], sentence: str) -> None:
    """Exit code 2, and nothing is done."""
    result = run("erase", "users", "--data-dir", data, *arguments)
    assert (result.exit_code, sentence in result.stderr) == (2, True), result.stderr


def test_a_directory_in_use_is_refused(data: Path) -> None:
    """A running server has it: exit code 3."""
    lock = RealDisk().lock(str(data / "lock"))
    try:
        assert run("erase", "users", "--data-dir", data, "--user", "ann").exit_code == 3
    finally:
        lock.release()


def test_a_restore_of_an_older_copy_says_what_it_brings_back_and_can_erase_again(data: Path, tmp_path: Path) -> None:
    """Before anybody can use the new directory."""
    backup = tmp_path / "backup"
    shutil.copytree(data, backup)
    run("erase", "users", "--data-dir", data, "--user", "ann")
    plain = run("restore", "--from", backup, "--to", tmp_path / "plain")
    assert plain.exit_code == 0
    assert "Who was erased after seq 4 is in it again: --erase-list FILE" in plain.stderr
    assert run("erase", "verify", "--data-dir", tmp_path / "plain", "--user", "ann").exit_code == 1
    (tmp_path / "list").write_text("ann\n\nnobody\n")
    again = run("restore", "--from", backup, "--to", tmp_path / "again", "--erase-list", tmp_path / "list")
    assert again.exit_code == 0, again.stderr
    assert "Erased again: 1 of the 2 users" in again.stderr
    assert run("erase", "verify", "--data-dir", tmp_path / "again", "--user", "ann").exit_code == 0
    assert run("erase", "verify", "--data-dir", backup, "--user", "ann").exit_code == 1, "a copy is not changed"
