"""`scoreboard snapshot`: taken beside a leader, listed, and proved against the log."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.record import Tail
from snapshots.store import SnapshotInfo, Store
from tests.server.cli.directories import flip, increments, make, open_for_writing, run, save_snapshot, write


def verified(data: Path, exit_code: int) -> list[dict[str, Any]]:
    """Verify, and give the results."""
    done = run("snapshot", "verify", "--json", "--data-dir", data)
    assert done.exit_code == exit_code, done.output
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


def test_take_writes_the_state_at_the_end_of_the_log_beside_its_owner(tmp_path: Path) -> None:
    """The owner has the log open and goes on writing. The snapshot has what was durable."""
    opened = open_for_writing(tmp_path / "data")
    write(opened, increments(3))
    done = run("snapshot", "take", "--json", "--data-dir", tmp_path / "data")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["seq"] == 3
    write(opened, increments(2, start=3))
    opened.log.close()
    [result] = verified(tmp_path / "data", exit_code=0)
    assert result["result"] == "sound; joins the log"
    assert open_for_writing(tmp_path / "data").snapshot_seq == 3


def test_take_twice_makes_one(tmp_path: Path) -> None:
    """There is no new event, so the existing snapshot is named again."""
    data = make(tmp_path / "data", increments(3))
    first = run("snapshot", "take", "--data-dir", data)
    assert run("snapshot", "take", "--data-dir", data).stdout == first.stdout
    assert len(list((data / "snapshots").iterdir())) == 1


def test_list_is_newest_first(tmp_path: Path) -> None:
    """With seq, size and path, separated by tabs."""
    data = make(tmp_path / "data", increments(3))
    save_snapshot(data)
    make(data, increments(2, start=3))
    save_snapshot(data)
    done = run("snapshot", "list", "--data-dir", data)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["seq", "5", "3"]
    assert [info["seq"] for info in json.loads(run("snapshot", "list", "--json", "--data-dir", data).stdout)] == [5, 3]


def test_a_damaged_snapshot_is_found(tmp_path: Path) -> None:
    """Exit code 1; the others are still judged."""
    data = make(tmp_path / "data", increments(3))
    damaged = Path(save_snapshot(data).path)
    make(data, increments(2, start=3))
    save_snapshot(data)
    flip(damaged, b"user-1")
    results = verified(data, exit_code=1)
    assert [(result["seq"], result["ok"]) for result in results] == [(5, True), (3, False)]
    done = run("snapshot", "verify", "--data-dir", data)
    assert "1 of 2 snapshots" in done.stderr
    assert str(damaged) in done.stdout


def test_a_snapshot_of_another_history_is_found(tmp_path: Path) -> None:
    """It is sound by itself, but its log is not this log."""
    other = make(tmp_path / "other", increments(3, start=7))
    foreign = Path(save_snapshot(other).path)
    data = make(tmp_path / "data", increments(3))
    (data / "snapshots").mkdir(exist_ok=True)
    shutil.copy(foreign, data / "snapshots")
    [result] = verified(data, exit_code=1)
    assert "different histories" in result["result"]


def test_a_snapshot_ahead_of_the_log_is_found(tmp_path: Path) -> None:
    """The log under the snapshot is an older copy, so events are lost."""
    data = make(tmp_path / "data", increments(2))
    shutil.copytree(data / "log", tmp_path / "older")
    make(data, increments(1, start=2))
    save_snapshot(data)
    shutil.rmtree(data / "log")
    (tmp_path / "older").rename(data / "log")
    [result] = verified(data, exit_code=1)
    assert "ends before the snapshot" in result["result"]


def test_a_snapshot_that_its_leader_lets_go_meanwhile_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the listing it was replaced by newer ones. Those are judged, and all is well."""
    data = make(tmp_path / "data", increments(3))
    older = Path(save_snapshot(data).path)
    make(data, increments(2, start=3))
    save_snapshot(data)
    verify = Store.verify

    def verify_late(store: Store, info: SnapshotInfo) -> Tail:
        older.unlink(missing_ok=True)
        return verify(store, info)

    monkeypatch.setattr(Store, "verify", verify_late)
    assert [(result["seq"], result["ok"]) for result in verified(data, exit_code=0)] == [(5, True)]


def test_a_snapshot_that_can_not_be_read_does_not_keep_the_others_from_being_judged(tmp_path: Path) -> None:
    """Here a directory has its name. A missing permission is told in the same way."""
    data = make(tmp_path / "data", increments(3))
    odd = Path(save_snapshot(data).path)
    make(data, increments(2, start=3))
    save_snapshot(data)
    odd.unlink()
    odd.mkdir()
    results = verified(data, exit_code=1)
    assert [(result["seq"], result["ok"]) for result in results] == [(5, True), (3, False)]


def test_a_log_that_can_not_be_read_is_told_for_each_snapshot(tmp_path: Path) -> None:
    """The snapshots are sound, and that is told too."""
    data = make(tmp_path / "data", increments(3))
    save_snapshot(data)
    [segment] = (data / "log").iterdir()
    segment.unlink()
    segment.mkdir()
    [result] = verified(data, exit_code=1)
    assert "sound, but the log can't be read" in result["result"]


def test_verify_says_that_there_is_no_snapshot(tmp_path: Path) -> None:
    """Nothing was verified, and that must not look like a proof. The log has everything, so it is no fault."""
    data = make(tmp_path / "data", increments(3))
    done = run("snapshot", "verify", "--data-dir", data)
    assert done.exit_code == 0
    assert f"there is no snapshot in {data}/snapshots: nothing was verified" in done.stdout
    as_json = run("snapshot", "verify", "--data-dir", data, "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (0, [])
    assert "there is no snapshot" in as_json.stderr
    listed = run("snapshot", "list", "--data-dir", data)
    assert (listed.exit_code, listed.stdout) == (0, "seq\tbytes\tpath\n")
    assert "no snapshot" in listed.stderr


def test_without_a_snapshot_a_log_that_was_cut_off_is_a_fault(tmp_path: Path) -> None:
    """Its first events are gone, so the state can't be restored."""
    data = make(tmp_path / "data", increments(3))
    [segment] = (data / "log").iterdir()
    segment.rename(segment.with_name(f"{2:020}.log"))
    for arguments in ([], ["--json"]):
        done = run("snapshot", "verify", "--data-dir", data, *arguments)
        assert done.exit_code == 1
        assert "no snapshot" in done.stderr
