"""`scoreboard restore`: up to a seq or a time, from a directory in any state, into a new directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.live.encoding import iso_ms
from tests.server.cli.directories import BEGIN_MS, flip, increments, make, open_for_writing, run, segments


def restored(*arguments: str | Path) -> dict[str, Any]:
    """Restore, and give the report."""
    done = run("restore", "--json", *arguments)
    assert done.exit_code == 0, done.output
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def actions_in(data: Path) -> list[str]:
    """The actions in a directory's log."""
    rows = [json.loads(line) for line in run("log", "dump", "--data-dir", data).stdout.splitlines()]
    return [row["actionId"] for row in rows if row["type"] == "incremented"]


@pytest.mark.parametrize(
    ("bound", "kept"),
    [
        ([], 5),
        (["--until-seq", "3"], 3),
        (["--until-time", str(BEGIN_MS + 2000)], 3),
        (["--until-time", iso_ms(BEGIN_MS + 2999)], 3),
    ],
)
def test_everything_up_to_the_bound_is_carried_over_and_a_new_epoch_begins(
    tmp_path: Path, bound: list[str], kept: int
) -> None:
    """All of it, up to an event, or up to a time in either form. The new directory can be served from."""
    data = make(tmp_path / "data", increments(5))
    report = restored("--from", data, "--to", tmp_path / "new", *bound)
    assert (report["seq"], report["epoch"], report["actions"]) == (kept, 2, kept)
    assert actions_in(tmp_path / "new") == [f"action-{number}" for number in range(kept)]
    opened = open_for_writing(tmp_path / "new")
    assert (opened.scoreboard.epoch, len(opened.scoreboard.actions)) == (2, kept)
    assert len(actions_in(data)) == 5


def test_what_was_before_damage_can_be_saved(tmp_path: Path) -> None:
    """The command in the message about the damage works unchanged."""
    data = make(tmp_path / "data", increments(5))
    flip(segments(data)[0], b"action-3")
    remedy = run("log", "verify", "--data-dir", data).stderr
    command = remedy.partition("`scoreboard ")[2].partition("`")[0].replace("NEWDIR", str(tmp_path / "new"))
    done = run(*command.split())
    assert done.exit_code == 0, done.output
    assert actions_in(tmp_path / "new") == ["action-0", "action-1", "action-2"]


def test_a_person_is_told_what_was_left_behind(tmp_path: Path) -> None:
    """Standard error has that. Standard output has one line, the result."""
    data = make(tmp_path / "data", increments(5))
    done = run("restore", "--from", data, "--to", tmp_path / "new", "--until-seq", "3")
    assert done.stdout.count("\n") == 1
    assert "2 events after seq 3" in done.stderr
    assert "signing key" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--until-seq", "99"],
        ["--until-seq", "0"],
        ["--until-time", "1999-01-01T00:00:00Z"],
        ["--until-time", "tomorrow"],
        ["--until-seq", "3", "--until-time", "2030-01-01"],
    ],
)
def test_a_bound_that_cannot_be_met_is_a_usage_error(tmp_path: Path, arguments: list[str]) -> None:
    """Exit code 2, a sentence, and nothing is made."""
    data = make(tmp_path / "data", increments(5))
    done = run("restore", "--from", data, "--to", tmp_path / "new", *arguments)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "new").exists()


def test_a_target_within_the_source_is_refused_by_whatever_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative, absolute, or through a link: the source is only read."""
    data = make(tmp_path / "data", increments(2))
    (tmp_path / "link").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    for source, target in (
        ("data", data / "new"),
        (data, "data/new"),
        ("data", "link/new"),
        ("link", "data/../data/new"),
    ):
        done = run("restore", "--from", source, "--to", target)
        assert done.exit_code == 2, done.output
        assert "is within" in done.stderr
    assert not (data / "new").exists()


def test_a_mount_point_is_refused_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory can't be renamed over it, and the disk around it is not the intended one."""
    data = make(tmp_path / "data", increments(2))
    (tmp_path / "volume").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path / "volume")
    done = run("restore", "--from", data, "--to", tmp_path / "volume")
    assert done.exit_code == 2
    assert str(tmp_path / "volume" / "data") in done.stderr
    assert not (tmp_path / "volume.unfinished").exists()
    assert run("restore", "--from", data, "--to", tmp_path / "volume" / "data").exit_code == 0


def test_nothing_is_ever_restored_over_something(tmp_path: Path) -> None:
    """A target that is not empty is refused and stays as it is."""
    data = make(tmp_path / "data", increments(5))
    other = make(tmp_path / "other", increments(2, start=7))
    assert run("restore", "--from", data, "--to", other).exit_code == 2
    assert actions_in(other) == ["action-7", "action-8"]
