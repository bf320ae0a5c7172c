"""`scoreboard log`: an auditor gets everything in the log, and damage is found and located."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.commands import Command
from engine.concerned import users_of
from engine.disk import RealDisk
from engine.events import ClockCorrected
from engine.record import events_of
from engine.segment import index_path
from engine.user_index import make_missing
from server.live.encoding import iso_ms
from tests.engine.test_ledger import written
from tests.server.cli.directories import (
    BEGIN_MS,
    flip,
    increment,
    increments,
    make,
    open_for_writing,
    put_user,
    run,
    segments,
    write,
)

GOLDEN = Path(__file__).parents[2] / "engine" / "golden" / "boards" / "00000000000000000001.log"
FRAMES: list[list[Command]] = [
    [increment("alice", "a-1"), increment("bob", "b-1")],
    [put_user("alice", "Alice ☂")],
    [increment("bob", "b-2")],
]


def dump(*arguments: str | Path) -> list[dict[str, Any]]:
    """Dump and decode."""
    done = run("log", "dump", *arguments)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_dump_has_everything_that_an_auditor_wants(tmp_path: Path) -> None:
    """Who, what, how much, why, by whom, when, and where in the history."""
    rows = dump("--data-dir", make(tmp_path / "data", FRAMES))
    assert rows[0] == {
        "seq": 1,
        "epoch": 1,
        "time": "2025-12-15T12:34:56.000Z",
        "timeMs": BEGIN_MS,
        "type": "incremented",
        "boardId": "main",
        "userId": "alice",
        "actionId": "a-1",
        "delta": 10,
        "newScore": 10,
        "reason": "ACTION_COMPLETED",
        "caller": "shop",
    }
    assert rows[2] == {
        "seq": 3,
        "epoch": 1,
        "time": "2025-12-15T12:34:57.000Z",
        "timeMs": BEGIN_MS + 1000,
        "type": "user_put",
        "userId": "alice",
        "displayName": "Alice ☂",
        "active": True,
        "caller": "ops",
    }
    assert [row["seq"] for row in rows] == [1, 2, 3, 4]
    assert rows[3]["newScore"] == 20


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (["--from-seq", "2"], [2, 3, 4]),
        (["--until-seq", "1"], [1]),
        (["--from-seq", "2", "--until-seq", "3"], [2, 3]),
        (["--from-seq", "5"], []),
    ],
)
def test_dump_keeps_to_its_bounds(tmp_path: Path, bounds: list[str], expected: list[int]) -> None:
    """A bound may also be in the middle of a frame."""
    rows = dump("--data-dir", make(tmp_path / "data", FRAMES), *bounds)
    assert [row["seq"] for row in rows] == expected


def test_dump_goes_through_all_segments_compressed_or_not(tmp_path: Path) -> None:
    """Nothing is left out at a join, and the log's directory is left as it is."""
    opened = open_for_writing(tmp_path / "data", segment_bytes=1000)
    write(opened, increments(40))
    for info in opened.log.segments()[:2]:
        opened.log.compress(info)
    before = segments(tmp_path / "data")
    assert len(before) > 4
    assert [row["actionId"] for row in dump("--data-dir", tmp_path / "data")] == [f"action-{n}" for n in range(40)]
    assert segments(tmp_path / "data") == before
    opened.log.close()


def test_dump_of_a_log_that_is_being_written_to_ends_at_what_is_durable(tmp_path: Path) -> None:
    """The owner appends between two dumps; each sees what was there."""
    opened = open_for_writing(tmp_path / "data")
    write(opened, increments(3))
    assert len(dump("--data-dir", tmp_path / "data")) == 3
    write(opened, increments(2, start=3))
    assert len(dump("--data-dir", tmp_path / "data")) == 5
    opened.log.close()


def test_a_sound_log_verifies(tmp_path: Path) -> None:
    """Exit code 0, and what was proved; `--json` says the same to programs."""
    make(tmp_path / "data", increments(40), segment_bytes=1000)
    done = run("log", "verify", "--data-dir", tmp_path / "data")
    assert done.exit_code == 0
    assert "seq 1 to 40" in done.stdout
    done = run("log", "verify", "--json", "--data-dir", tmp_path / "data")
    told = json.loads(done.stdout)
    assert (told["ok"], told["records"], told["lastSeq"], told["epochs"]) == (True, 40, 40, [1])


def test_corrections_of_the_clock_are_shown(tmp_path: Path) -> None:
    """Each with all its fields in the dump; counted by `stat` and `verify`."""
    opened = open_for_writing(tmp_path / "data")
    write(opened, increments(2))
    opened.log.append([ClockCorrected(3, BEGIN_MS, 2, 5_000, "stepped back")], 1)
    opened.log.close()
    assert dump("--data-dir", tmp_path / "data")[2] == {
        "seq": 3,
        "epoch": 1,
        "time": iso_ms(BEGIN_MS),
        "timeMs": BEGIN_MS,
        "type": "clock_corrected",
        "fromSeq": 2,
        "aheadMs": 5_000,
        "note": "stepped back",
    }
    assert "corrections of the clock: 1" in run("log", "verify", "--data-dir", tmp_path / "data").stdout
    told = json.loads(run("log", "stat", "--json", "--data-dir", tmp_path / "data").stdout)
    assert told["events"] == {"incremented": 2, "clock_corrected": 1}


def test_boards_and_what_is_more_than_points_are_shown(tmp_path: Path) -> None:
    """The rules of a board as they are logged; the value of an action, whether it was chosen, and what it fed."""
    (tmp_path / "log").mkdir()
    shutil.copy(GOLDEN, tmp_path / "log")
    shown = dump("--data-dir", tmp_path)
    assert [row["type"] for row in shown] == ["board_put"] * 3 + ["incremented"] * 6 + [
        "board_put", "board_closed", "board_closed", "board_put", "incremented", "board_frozen", "board_frozen",
        "incremented", "rows_revealed", "board_unfrozen", "period_changed", "period_changed",
    ]  # fmt: skip
    assert shown[0]["rules"] == {"points": {"WIN": 1}}
    assert shown[1]["rules"]["points"]["größer-🎯"] == {"min": 0, "max": 0}
    assert (shown[4]["value"], shown[4]["chosen"]) == (50, True)
    assert shown[4]["fed"] == [{"boardId": "laps", "delta": 50, "newScore": 50, "value": 50}]
    assert (shown[7]["delta"], shown[7]["value"], shown[7]["chosen"], "fed" in shown[7]) == (0, -4, False, False)
    assert not {"value", "chosen", "fed"} & set(shown[8])
    assert (shown[11]["boardId"], shown[11]["caller"]) == ("laps", "ops")
    assert shown[12]["rules"]["schedule"] == {"every": "week", "zone": "Europe/Berlin", "at": "monday 00:00"}
    week = {"id": "2025-W51", "beginsMs": 1_765_753_200_000, "endsMs": 1_766_358_000_000}
    assert (shown[12]["period"], shown[0]["period"]) == (week, None)
    assert [row["atMs"] for row in shown[14:16]] == [1_765_800_896_007, None]
    assert (shown[17]["step"], shown[18]["boardId"]) == (1, "week")
    assert (shown[19]["ended"], shown[19]["following"]["id"]) == (week, "2026-W01")
    assert [passed["id"] for passed in shown[19]["passed"]] == ["2025-W52"]
    assert (shown[20]["following"], shown[20]["passed"], shown[20]["over"]) == (None, [], False)


def test_damage_is_found_and_placed(tmp_path: Path) -> None:
    """For one flipped bit: exit code 1, the file, the offset of the frame, and the first missing seq."""
    data = make(tmp_path / "data", increments(5))
    [segment] = segments(data)
    offset = flip(segment, b"action-2")
    done = run("log", "verify", "--data-dir", data)
    assert done.exit_code == 1
    assert str(segment) in done.stderr
    assert "seq 3" in done.stderr
    assert "Traceback" not in done.output
    told = json.loads(run("log", "verify", "--json", "--data-dir", data).stdout)
    assert (told["ok"], told["path"], told["seq"]) == (False, str(segment), 3)
    assert told["offset"] < offset < told["offset"] + 200
    assert "restore" in told["remedy"]


def test_damage_in_a_compressed_segment_is_found(tmp_path: Path) -> None:
    """The middle of the archive counts as much as the end."""
    opened = open_for_writing(tmp_path / "data", segment_bytes=1000)
    write(opened, increments(40))
    compressed = Path(opened.log.compress(opened.log.segments()[1]).path)
    opened.log.close()
    content = bytearray(compressed.read_bytes())
    content[len(content) // 2] ^= 0x01
    compressed.write_bytes(content)
    done = run("log", "verify", "--data-dir", tmp_path / "data")
    assert done.exit_code == 1
    assert str(compressed) in done.stderr


def test_a_missing_segment_is_found(tmp_path: Path) -> None:
    """A gap is damage, even if each file by itself is sound."""
    data = make(tmp_path / "data", increments(40), segment_bytes=1000)
    segments(data)[1].unlink()
    done = run("log", "verify", "--data-dir", data)
    assert done.exit_code == 1
    assert "missing" in done.stderr


def test_dump_gives_what_is_sound_before_it_tells_of_damage(tmp_path: Path) -> None:
    """An auditor gets the events before the damage, and is told that there may be more."""
    data = make(tmp_path / "data", increments(5))
    flip(segments(data)[0], b"action-2")
    done = run("log", "dump", "--data-dir", data)
    assert done.exit_code == 1
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [1, 2]
    assert len(dump("--data-dir", data, "--until-seq", "2")) == 2


def test_stat_counts(tmp_path: Path) -> None:
    """Segments, bytes, seqs, epochs, events by type; for programs also each file."""
    data = make(tmp_path / "data", FRAMES)
    told = json.loads(run("log", "stat", "--json", "--data-dir", data).stdout)
    [segment] = segments(data)
    size = segment.stat().st_size
    assert told == {
        "segments": 1,
        "compressed": 0,
        "bytes": size,
        "frames": 3,
        "records": 4,
        "firstSeq": 1,
        "lastSeq": 4,
        "firstTime": "2025-12-15T12:34:56.000Z",
        "lastTime": "2025-12-15T12:34:58.000Z",
        "epochs": [1],
        "events": {"incremented": 3, "user_put": 1},
        "files": [{"path": str(segment), "firstSeq": 1, "compressed": False, "bytes": size}],
    }
    table = run("log", "stat", "--data-dir", data).stdout
    assert "events: incremented\t3\n" in table


def test_a_log_without_events_is_sound_and_empty(tmp_path: Path) -> None:
    """The leader was started and never used."""
    data = make(tmp_path / "data", [])
    assert dump("--data-dir", data) == []
    assert run("log", "verify", "--data-dir", data).exit_code == 0
    assert json.loads(run("log", "stat", "--json", "--data-dir", data).stdout)["lastSeq"] is None


def test_verify_tells_a_program_of_trouble_that_is_no_damage_too(tmp_path: Path) -> None:
    """A directory has the name of a segment: one document with what, where and what to do, and exit code 1."""
    data = make(tmp_path / "data", increments(3))
    [segment] = segments(data)
    segment.unlink()
    segment.mkdir()
    done = run("log", "verify", "--json", "--data-dir", data)
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert (found["ok"], found["path"]) == (False, str(segment))
    assert found["remedy"]


def test_a_range_with_nothing_in_it_is_a_usage_error(tmp_path: Path) -> None:
    """An empty audit would look like a clean one."""
    data = make(tmp_path / "data", increments(3))
    assert run("log", "dump", "--data-dir", data, "--from-seq", "3", "--until-seq", "2").exit_code == 2
    assert run("log", "dump", "--data-dir", data, "--from-seq", "2", "--until-seq", "2").stdout.count("\n") == 1


def seqs(data: Path, *filters: str) -> list[int]:
    """The seqs that a dump with these filters has."""
    return [row["seq"] for row in dump("--data-dir", data, *filters)]


def test_a_dump_of_a_user_says_the_same_with_indexes(tmp_path: Path) -> None:
    """Of sealed segments with an index only the user's frames are read; a damaged or missing one changes nothing."""
    log = written(tmp_path / "log", 2)
    users, seqs_wanted = ("user-1", "user-3", "usér/8", "nobody"), ("--from-seq", "9", "--until-seq", "60")
    whole = dump("--data-dir", tmp_path)
    events = {event.seq: event for frame in log.read_from(1) for event in events_of(frame)}
    expected = {user: [row for row in whole if user in users_of(events[row["seq"]])] for user in users}
    assert all(expected[user] for user in users[:-1])

    def check() -> None:
        for user in users:
            assert dump("--data-dir", tmp_path, "--user", user) == expected[user]
            part = [row for row in expected[user] if 9 <= row["seq"] <= 60]
            assert dump("--data-dir", tmp_path, "--user", user, *seqs_wanted) == part

    check()
    log.compress(log.segments()[0])
    make_missing(RealDisk(), log)
    check()
    paths = [Path(index_path(info.path)) for info in log.segments()[:-1]]
    paths[0].unlink()
    flip(paths[1], paths[1].read_bytes()[-6:])
    check()
    log.close()


def test_a_dump_may_be_of_a_user_a_caller_a_reason_or_a_time(tmp_path: Path) -> None:
    """All filters must match. What has no such field is left out. Both ends of a time count."""
    data = make(tmp_path / "data", FRAMES)
    rows = dump("--data-dir", data)
    assert seqs(data, "--user", "bob") == [2, 4]
    assert seqs(data, "--user", "alice") == [1, 3]
    assert seqs(data, "--user", "alice", "--reason", "ACTION_COMPLETED") == [1]
    assert seqs(data, "--caller", "shop", "--user", "bob") == [2, 4]
    assert seqs(data, "--caller", "nobody") == seqs(data, "--reason", "NONE") == seqs(data, "--board", "none") == []
    assert seqs(data, "--board", "main") == [1, 2, 4]
    assert seqs(data, "--since", rows[2]["time"]) == [3, 4]
    assert seqs(data, "--until", str(rows[2]["timeMs"])) == [1, 2, 3]
    assert seqs(data, "--since", rows[2]["time"], "--until", rows[2]["time"], "--user", "alice") == [3]
    assert seqs(data, "--from-seq", "2", "--user", "bob") == [2, 4]


def test_a_dump_of_a_board_has_what_it_was_fed(tmp_path: Path) -> None:
    """And what happened to the board itself."""
    (tmp_path / "data" / "log").mkdir(parents=True)
    shutil.copy(GOLDEN, tmp_path / "data" / "log")
    rows = dump("--data-dir", tmp_path / "data", "--board", "year")
    assert [(row["seq"], row["type"]) for row in rows] == [
        (1, "board_put"), (4, "incremented"), (9, "incremented"), (21, "period_changed")
    ]  # fmt: skip


def test_times_of_a_dump_are_those_after_a_correction(tmp_path: Path) -> None:
    """What a clock stamped a day ahead happened before the correction."""
    data = make(tmp_path / "data", FRAMES)
    opened = open_for_writing(data)
    seq, time_ms = opened.scoreboard.seq + 1, opened.scoreboard.time_ms - 86_400_000
    opened.log.append([ClockCorrected(seq, time_ms, 3, 86_400_000, "test")], 1)
    opened.log.close()
    assert seqs(data, "--until", iso_ms(time_ms)) == [1, 2, 3, 4, 5]
    assert seqs(data, "--since", iso_ms(time_ms + 1)) == []


def test_a_time_that_ends_before_it_begins_is_refused(tmp_path: Path) -> None:
    done = run("log", "dump", "--data-dir", make(tmp_path / "data", FRAMES), "--since", "2", "--until", "1")
    assert (done.exit_code, "--until is earlier" in done.stderr) == (2, True)
