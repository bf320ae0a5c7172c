"""`scoreboard replica`: what is refused before it follows, and which directories it takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.disk import RealDisk
from snapshots.promotion import Marker, Successor, write_deposed, write_marker
from tests.server.cli.directories import increments, make, run

NOBODY = "http://127.0.0.1:9"
BIND = ("--bind", "127.0.0.1:0")


@pytest.mark.parametrize(
    ("shard", "told"),
    [
        ("", "written K/N"),
        ("1", "written K/N"),
        ("a/b", "written K/N"),
        ("-1/2", "written K/N"),
        ("1/2/3", "written K/N"),
        ("1 / 2", "written K/N"),
        ("1/0", "there can be 1 to 1024 shards, not 0"),
        ("1/1025", "there can be 1 to 1024 shards, not 1025"),
        ("0/2", "there is no shard 0"),
        ("3/2", "there is no shard 3"),
    ],
)
def test_a_shard_that_is_none_is_refused_by_its_flag(shard: str, told: str) -> None:
    """The sentence says what is allowed."""
    done = run("replica", "--leader", NOBODY, "--shard", shard, *BIND)
    assert done.exit_code == 2
    assert "'--shard'" in done.stderr
    assert told in done.stderr


@pytest.mark.parametrize(
    "leader", ["leader:8080", "ftp://leader", "http://", "http://u:p@l", "http://l?x=1", "http://l:0x"]
)
def test_a_leader_that_is_none_is_refused_by_its_flag(tmp_path: Path, leader: str) -> None:
    """No directory is made."""
    done = run("replica", "--leader", leader, "--data-dir", tmp_path / "data", *BIND)
    assert done.exit_code == 2
    assert "--leader" in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_token_file_of_the_configuration_is_named_by_its_key(tmp_path: Path) -> None:
    """If it is missing, the replica does not start, as with the flag."""
    config = tmp_path / "scoreboard.toml"
    config.write_text(f'data_dir = "{tmp_path}/data"\n[replication]\nleader = "{NOBODY}"\ntoken_file = "/nowhere"\n')
    done = run("replica", "--config", config, *BIND)
    assert done.exit_code == 2
    assert "replication.token_file: /nowhere cannot be read: No such file or directory" in done.stderr


def test_a_shard_goes_without_a_directory_of_the_configuration_too(tmp_path: Path) -> None:
    """A configured directory is refused like one of the flag; nothing is made."""
    config = tmp_path / "scoreboard.toml"
    config.write_text(f'data_dir = "{tmp_path}/data"\n')
    done = run("replica", "--config", config, "--leader", NOBODY, "--shard", "1/2", *BIND)
    assert (done.exit_code, "--shard goes without a data directory" in done.stderr) == (2, True)
    assert not (tmp_path / "data").exists()


def test_a_leaders_directory_is_not_followed_into(tmp_path: Path) -> None:
    """Events that its leader does not have would be lost. The message has the command to demote it."""
    data = make(tmp_path / "data", increments(3))
    done = run("replica", "--leader", NOBODY, "--data-dir", data, *BIND)
    assert done.exit_code == 2
    assert f"scoreboard demote --data-dir {data} --to {NOBODY}" in done.stderr
    assert not (data / "replica").exists()


def test_a_deposed_leaders_directory_is_to_be_demoted(tmp_path: Path) -> None:
    """The message has the command."""
    data = make(tmp_path / "data", increments(3))
    write_deposed(RealDisk(), str(data), Successor(2))
    done = run("replica", "--leader", NOBODY, "--data-dir", data, *BIND)
    assert (done.exit_code, f"scoreboard demote --data-dir {data}" in done.stderr) == (2, True)


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    """Exit code 3."""
    data = make(tmp_path / "data", increments(3))
    write_marker(RealDisk(), str(data), Marker(NOBODY))
    lock = RealDisk().lock(f"{data}/lock")
    done = run("replica", "--data-dir", data, *BIND)
    lock.release()
    assert done.exit_code == 3


def test_without_a_leader_and_a_marker_nobody_knows_whom_to_follow(tmp_path: Path) -> None:
    """The flag is named. A directory that was prepared before names its leader itself."""
    done = run("replica", "--data-dir", tmp_path / "data", *BIND)
    assert (done.exit_code, "--leader URL" in done.stderr) == (2, True)
    data = make(tmp_path / "with-marker", increments(1))
    (data / "replica").write_text("{}")
    done = run("replica", "--leader", NOBODY, "--data-dir", data, *BIND)
    assert (done.exit_code, "can't be read" in done.stderr) == (1, True)
    assert json.loads((data / "replica").read_text()) == {}
