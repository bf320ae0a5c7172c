"""`scoreboard export`: every format is read back by a program of its own, and is exact."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet
import pytest
from msgspec import UNSET

from engine import events as all_events
from engine.batch import Batch
from engine.board_rules import BoardRules, Range, Rules
from engine.commands import Command, Increment, PutBoard, PutUser, ResetBoard
from engine.disk import RealDisk
from engine.erased import MARK, erased_action, pseudonym_of
from engine.events import ClockCorrected, EpochBegun, Incremented
from engine.limits import SCORE_MAX, SEGMENT_BYTES
from engine.log import Log
from engine.log_reader import scan
from engine.record import events_of
from engine.schedule import Period
from server.cli.log import TYPES
from server.export.columns import EVENTS, event_cells, plain, type_name
from server.live.encoding import iso_ms
from snapshots.periods import write_ended
from snapshots.store import Store
from tests.server.cli.directories import (
    BEGIN_MS,
    increment,
    increments,
    make,
    open_for_writing,
    put_user,
    run,
    save_snapshot,
    write,
)

GOLDEN = Path(__file__).parents[2] / "engine" / "golden"
ODD = 'a,b "c" =1+1 é\u00a0☂'
GREAT = "great"
TOP = Increment(GREAT, "top", "ANY", "free", "shop", value=SCORE_MAX)
FREE = PutBoard("free", BoardRules(points={"ANY": Range(0, SCORE_MAX)}), "ops")
MAIN = PutBoard("main", BoardRules(points={"ACTION_COMPLETED": 10}), "ops")
FRAMES: list[list[Command]] = [
    [MAIN],
    [FREE],
    [increment("alice", "a-1"), increment(ODD, "b-1")],
    [put_user("alice", "Alice, ☂"), PutUser("gone", UNSET, False, "ops")],
    [TOP, increment(ODD, "=b-2")],
]


def read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: text or None for name, text in row.items()} for row in csv.DictReader(file)]


def read_ndjson(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_sqlite(path: Path) -> list[dict[str, Any]]:
    database = sqlite3.connect(path)
    [table] = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'about'").fetchone()
    cursor = database.execute(f"SELECT * FROM {table} ORDER BY rowid")
    names = [each[0] for each in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def read_parquet(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


READERS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    "csv": read_csv,
    "ndjson": read_ndjson,
    "sqlite": read_sqlite,
    "parquet": read_parquet,
}


def export(data: Path, form: str, *arguments: str) -> list[dict[str, Any]]:
    """Export, and read it back; nulls are left out."""
    target = data.parent / f"out.{form}"
    done = run("export", "--data-dir", data, "--format", form, "--force", *arguments, target)
    assert done.exit_code == 0, done.output
    assert [each.name for each in data.parent.iterdir() if each.name.endswith(".part")] == []
    return [{name: cell for name, cell in row.items() if cell is not None} for row in READERS[form](target)]


def same(value: Any) -> Any:
    return value


def as_in_csv(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [{name: str(cell) for name, cell in row.items()} for row in rows]


@pytest.mark.parametrize("form", READERS)
def test_a_board_is_exact_in_every_format(form: str, tmp_path: Path) -> None:
    """The best first; the largest score, odd ids and names stay as they are."""
    data = make(tmp_path / "data", FRAMES)
    at = [iso_ms(BEGIN_MS + 1000 * frame) for frame in range(5)]
    rows = [
        {"rank": 1, "userId": ODD, "score": 20, "updatedAt": at[4], "reachedSeq": 8},
        {"rank": 2, "userId": "alice", "displayName": "Alice, ☂", "score": 10, "updatedAt": at[2], "reachedSeq": 3},
    ]
    expected: Any = as_in_csv(rows) if form == "csv" else rows
    assert export(data, form, "--board", "main") == expected
    great = {"rank": 1, "userId": GREAT, "score": SCORE_MAX, "updatedAt": at[4], "reachedSeq": 7}
    assert export(data, form, "--board", "free") == (as_in_csv([great]) if form == "csv" else [great])


@pytest.mark.parametrize("form", READERS)
def test_the_events_are_exact_in_every_format(form: str, tmp_path: Path) -> None:
    """An action has a column for each of its fields; what only other events have is in `more`."""
    rows = export(make(tmp_path / "data", FRAMES), form, "--events")
    texts: Callable[[Any], Any] = same if form == "ndjson" else json.loads
    number: Callable[[Any], Any] = int if form == "csv" else same
    assert [number(row["seq"]) for row in rows] == list(range(1, 9))
    assert texts(rows[1]["more"])["rules"]["points"] == {"ANY": {"min": 0, "max": SCORE_MAX}}
    assert texts(rows[4]["more"]) == {"displayName": "Alice, ☂", "active": True}
    top = rows[6]
    assert (number(top["delta"]), number(top["newScore"]), number(top["value"])) == (SCORE_MAX,) * 3
    assert top["chosen"] in (True, 1, "true")
    last = {
        name: rows[7][name] for name in ("time", "type", "boardId", "userId", "actionId", "reason", "caller")
    }  # fmt: skip
    assert last == {
        "time": iso_ms(BEGIN_MS + 4000), "type": "incremented", "boardId": "main", "userId": ODD, "actionId": "=b-2",
        "reason": "ACTION_COMPLETED", "caller": "shop",
    }  # fmt: skip


def test_what_an_export_is_of_is_in_the_file(tmp_path: Path) -> None:
    """A database has a table for it, and Parquet its metadata."""
    data = make(tmp_path / "data", FRAMES)
    export(data, "sqlite", "--board", "main", "--as-of-seq", "4")
    about = dict(sqlite3.connect(tmp_path / "out.sqlite").execute("SELECT * FROM about"))
    export(data, "parquet", "--board", "main", "--as-of-seq", "4")
    told = json.loads(pyarrow.parquet.read_metadata(tmp_path / "out.parquet").metadata[b"scoreboard"])
    assert told == about
    assert (about["kind"], about["boardId"], about["seq"], about["epoch"]) == ("board", "main", 4, 1)
    assert (about["time"], len(about["history"])) == (iso_ms(BEGIN_MS + 2000), 32)


def test_every_type_of_event_has_the_name_that_a_dump_gives(tmp_path: Path) -> None:
    """Of a type without columns of its own every field is in `more`, bytes as hexadecimal digits."""
    kinds = [kind for kind in vars(all_events).values() if isinstance(kind, type) and "time_ms" in dir(kind)]
    assert set(TYPES) <= set(kinds)
    cells = event_cells(EpochBegun(7, BEGIN_MS, 2, "promoted", b"\x01\xff"), 2)
    row = dict(zip([column.name for column in EVENTS], cells, strict=True))
    assert row["type"] == TYPES[EpochBegun]
    assert row["more"] == {"note": "promoted", "history": "01ff"}
    assert all(type_name(msgspec.convert(_blank(kind), kind)) == name for kind, name in TYPES.items() if _blank(kind))


@pytest.mark.parametrize("golden", [each.name for each in sorted(GOLDEN.iterdir()) if list(each.glob("*.log"))])
def test_no_field_of_any_event_is_left_out(golden: str, tmp_path: Path) -> None:
    """Of all types that there ever were: every value of an event is in its row, in each format the same."""
    log = tmp_path / "data" / "log"
    log.mkdir(parents=True)
    for file in (GOLDEN / golden).glob("*.log"):
        shutil.copy(file, log)
    rows = export(tmp_path / "data", "ndjson", "--events")
    events = [event for frame in scan(RealDisk(), str(log)) for event in events_of(frame)]
    assert [row["seq"] for row in rows] == [event.seq for event in events]
    for row, event in zip(rows, events, strict=True):
        told = {name: value for name, value in row.items() if name not in ("epoch", "time", "type", "more")}
        told |= row.get("more", {})
        told |= {name: f"{MARK}{text}" for name, text in told.pop("erased", {}).items()}
        fields = plain(event)
        assert row["time"] == iso_ms(fields.pop("timeMs"))
        fields.pop("epoch", None)
        assert {name: told.get(name) or None for name in fields} == {name: fields[name] or None for name in fields}
    for form in ("sqlite", "parquet"):
        again = export(tmp_path / "data", form, "--events")
        assert [{**row, "chosen": bool(row.get("chosen"))} for row in map(decoded, again)] == [
            {**row, "chosen": bool(row.get("chosen"))} for row in rows
        ]


@pytest.mark.parametrize("form", READERS)
def test_an_erased_user_has_no_row_and_no_text_has_a_nul(form: str, tmp_path: Path) -> None:
    """At a moment before the erasure the ranks have a gap; the events keep what stands for the user."""
    someone = pseudonym_of(3)
    opened = open_for_writing(tmp_path / "data")
    events = [
        Incremented(seq, BEGIN_MS, "main", user, action, 10, "ACTION_COMPLETED", "shop", 10)
        for seq, user, action in ((1, "ann", "a"), (2, someone, erased_action(bytes(16))), (3, "bob", "b"))
    ]
    opened.log.append(events, 1)
    opened.log.close()
    rows = export(tmp_path / "data", form, "--board", "main")
    assert [(int(row["rank"]), row["userId"]) for row in rows] == [(1, "ann"), (3, "bob")]
    events_out = export(tmp_path / "data", form, "--events")
    assert [row.get("userId") for row in events_out] == ["ann", None, "bob"]
    more = events_out[1]["more"]
    assert (more if form == "ndjson" else json.loads(more)) == {"erased": {"userId": "3", "actionId": "A" * 22}}
    assert all("\0" not in str(cell) for row in events_out for cell in row.values())


def decoded(row: dict[str, Any]) -> dict[str, Any]:
    """Decode the cells of JSON."""
    return {name: json.loads(cell) if name in ("fed", "more") else cell for name, cell in row.items()}


def _blank(kind: type[Any]) -> dict[str, Any]:
    """Give fields for an event of plain fields only, none for any other."""
    plain = {"int": 1, "str": "x", "bool": True, "int | None": 1, "str | None": "x"}
    fields = {field: plain.get(str(hint)) for field, hint in kind.__annotations__.items()}
    return {} if None in fields.values() else fields


@pytest.mark.parametrize("with_snapshot", [False, True])
def test_as_of_every_seq_and_time_it_is_the_board_of_then(with_snapshot: bool, tmp_path: Path) -> None:
    """The same as a plain count of the actions up to there."""
    data = make(tmp_path / "data", increments(6))
    if with_snapshot:
        save_snapshot(data)
        opened = open_for_writing(data)
        write(opened, increments(5, start=6))
        opened.log.close()
    for seq in range(1, 12 if with_snapshot else 7):
        counts = {f"user-{user}": 10 * len(range(user, seq, 2)) for user in range(2)}
        expected = {user: score for user, score in counts.items() if score}
        by_seq = export(data, "ndjson", "--board", "main", "--as-of-seq", str(seq))
        assert {row["userId"]: row["score"] for row in by_seq} == expected
        by_time = export(data, "ndjson", "--board", "main", "--as-of", str(BEGIN_MS + 1000 * (seq - 1)))
        assert by_time == by_seq


def test_as_of_a_time_goes_by_the_corrected_clock(tmp_path: Path) -> None:
    """As `restore --until-time` does: what was logged with the time of a wrong clock counts at its right time."""
    opened = open_for_writing(tmp_path / "data")
    write(opened, increments(3))
    ahead_ms = 3_600_000
    opened.log.append([ClockCorrected(4, BEGIN_MS + 2500 - ahead_ms, 1, ahead_ms, "stepped back")], 1)
    opened.log.close()
    data, until = tmp_path / "data", str(BEGIN_MS + 1000 - ahead_ms)
    assert export(data, "ndjson", "--board", "main", "--as-of-seq", "2") == export(
        data, "ndjson", "--board", "main", "--as-of", until
    )
    assert [row["seq"] for row in export(data, "ndjson", "--events", "--as-of", until)] == [1, 2]
    early = str(BEGIN_MS - 1 - ahead_ms)
    assert export(data, "ndjson", "--board", "main", "--as-of", early) == []
    assert export(data, "ndjson", "--events", "--as-of", early) == []


def test_a_period_is_read_from_its_file_or_from_the_log_or_is_the_running_one(tmp_path: Path) -> None:
    """Inactive users are left out of a past period; without its file the log gives the same rows."""
    opened = open_for_writing(tmp_path / "data")
    write(opened, [[MAIN], *increments(3), [PutUser("user-1", UNSET, False, "ops")]])
    batch = Batch(opened.scoreboard, BEGIN_MS + 60_000)
    batch.decide([ResetBoard("main", "ops")])
    opened.log.append(batch.events, 1)
    batch.settle()
    [ended] = opened.scoreboard.take_ended()
    write(opened, increments(1, start=8))
    data = tmp_path / "data"
    period = ended.past.period.id
    from_log = export(data, "ndjson", "--board", "main", "--period", period)
    assert [(row["rank"], row["userId"], row["score"]) for row in from_log] == [(1, "user-0", 20)]
    write_ended(open_store(data), ended, opened.log.tail.log_id)
    opened.log.close()
    save_snapshot(data)
    assert export(data, "ndjson", "--board", "main", "--period", "previous") == from_log
    assert export(data, "sqlite", "--board", "main", "--period", period) == from_log
    running = ended_following(opened.scoreboard.boards["main"].definition)
    arguments = () if running is None else ("--period", running.id)
    now = export(data, "ndjson", "--board", "main", *arguments)
    assert now == export(data, "ndjson", "--board", "main")
    refused = run("export", "--data-dir", data, "--format", "csv", "--board", "main", "--period", "nope", "-")
    assert refused.exit_code == 2
    assert period in refused.output
    (data / "periods" / f"{ended.past.seq:020}.period").unlink()
    gone = run("export", "--data-dir", data, "--format", "csv", "--board", "main", "--period", period, "-")
    assert gone.exit_code == 1
    assert "has no file here" in gone.output


def ended_following(definition: Any) -> Period | None:
    return None if definition is None else definition.period


def open_store(data: Path) -> Any:
    from snapshots.period_store import PeriodStore

    return PeriodStore(RealDisk(), str(data))


def test_the_filters_of_a_dump_filter_the_events(tmp_path: Path) -> None:
    """By board, user, caller, reason and time; a board takes what fed it, too."""
    data = make(tmp_path / "data", FRAMES)
    for arguments, seqs in (
        (("--board", "free"), [2, 7]),
        (("--user", "alice"), [3, 5]),
        (("--caller", "ops"), [1, 2, 5, 6]),
        (("--reason", "ANY"), [7]),
        (("--since", str(BEGIN_MS + 3000), "--as-of", str(BEGIN_MS + 3000)), [5, 6]),
        (("--as-of-seq", "7", "--user", ODD), [4]),
    ):
        assert [row["seq"] for row in export(data, "ndjson", "--events", *arguments)] == seqs


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--board", "main", "--format", "parquet", "-"), "parquet can't go to standard output"),
        (("--format", "csv", "-"), "name a board with --board"),
        (("--board", "main", "--user", "u", "--format", "csv", "-"), "--user goes with --events"),
        (("--events", "--period", "p", "--format", "csv", "-"), "--period goes with a board"),
        (("--board", "other", "--format", "csv", "-"), "there are: main"),
        (("--board", "main", "--as-of-seq", "9", "--format", "csv", "-"), "--as-of-seq 9: the log ends at seq 2"),
        (("--events", "--as-of-seq", "9", "--format", "csv", "-"), "--as-of-seq 9: the log ends at seq 2"),
        (("--board", "main", "--format", "csv", "{data}/x.csv"), "within the data directory"),
        (("--board", "main", "--format", "csv", "{data}/../none/x.csv"), "there is no directory"),
        (("--board", "main", "--format", "csv", "{data}/../there.csv"), "--force replaces it"),
    ],
)
def test_what_can_not_be_is_refused_and_leaves_no_file(
    arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:  # fmt: skip
    """In one sentence that names the option, with exit code 2."""
    data = make(tmp_path / "data", increments(2))
    (tmp_path / "there.csv").write_text("mine")
    done = run("export", "--data-dir", data, *(each.format(data=data) for each in arguments))
    assert done.exit_code == 2
    assert words in done.output
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data", "there.csv"]
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_damage_leaves_no_half_file(tmp_path: Path) -> None:
    """The rows before it were written already; the file never gets its name."""
    data = make(tmp_path / "data", increments(5))
    [segment] = (data / "log").iterdir()
    content = bytearray(segment.read_bytes())
    content[content.index(b"action-3")] ^= 1
    segment.write_bytes(content)
    done = run("export", "--data-dir", data, "--events", "--format", "sqlite", tmp_path / "out.sqlite")
    assert done.exit_code == 1
    assert [each.name for each in tmp_path.iterdir()] == ["data"]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path) -> None:
    """In a process that can't import it."""
    data = make(tmp_path / "data", increments(1))
    code = "import sys; sys.modules['pyarrow'] = None; from server.cli.main import main; main()"
    arguments = ["export", "--data-dir", data, "--board", "main", "--format", "parquet", tmp_path / "out.parquet"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'scoreboard[parquet]'" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["data"]


def test_more_rows_than_a_row_group_come_back_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parquet files have groups of a bounded size, so memory does not grow with the rows."""
    monkeypatch.setattr("server.export.files.ROW_GROUP", 3)
    rows = export(make(tmp_path / "data", increments(8)), "parquet", "--events")
    assert [row["seq"] for row in rows] == list(range(1, 9))
    assert pyarrow.parquet.ParquetFile(tmp_path / "out.parquet").num_row_groups == 3


def test_the_boards_of_the_operators_file_are_known(tmp_path: Path) -> None:
    """A board that no event defines, in a directory of an older version."""
    assert Rules({"main": BoardRules(points={"X": 1})}).boards
    data = make(tmp_path / "data", increments(1))
    (tmp_path / "c.toml").write_text("[boards.main.points]\nACTION_COMPLETED = 10\n")
    done = run("export", "--config", tmp_path / "c.toml", "--data-dir", data, "--board", "main", "--format", "csv", "-")
    assert done.exit_code == 0, done.output
    assert "user-0,,10," in done.stdout


@pytest.fixture
def begun_anew(tmp_path: Path) -> Path:
    """A replica's directory that began with its leader's snapshot of seq 5, and followed up to seq 8."""
    opened = open_for_writing(make(tmp_path / "leader", increments(5)))
    opened.log.close()
    data, disk, tail = tmp_path / "data", RealDisk(), opened.log.tail
    disk.make_directory(str(data))
    Store(disk, str(data)).save(opened.scoreboard.capture(), tail)
    Log.create(disk, str(data / "log"), log_id=tail.log_id, tail=tail, segment_bytes=SEGMENT_BYTES).close()
    return make(data, increments(3, start=5))


@pytest.mark.parametrize(
    "bound", [("--as-of-seq", "4"), ("--as-of", str(BEGIN_MS + 3000))], ids=["a seq", "a time"]
)  # fmt: skip
@pytest.mark.parametrize("what", [("--board", "main"), ("--events",)], ids=["a board", "events"])
def test_what_is_before_the_log_is_refused_in_words_for_an_operator(
    what: tuple[str, ...], bound: tuple[str, str], begun_anew: Path, tmp_path: Path
) -> None:
    """Nothing is damaged: it was never here. It says where the log begins, and where to ask instead."""
    done = run("export", "--data-dir", begun_anew, *what, *bound, "--format", "csv", tmp_path / "x.csv")
    assert done.exit_code == 2
    flag = " ".join(bound) if bound[0] == "--as-of-seq" else "--as-of"
    assert f"{flag}: the log here begins with seq 6" in done.stderr
    assert "Export on a node that has more." in done.stderr
    assert "back from a backup" not in done.stderr
    assert not (tmp_path / "x.csv").exists()


def test_from_where_the_log_begins_on_it_is_as_anywhere(begun_anew: Path) -> None:
    """The snapshot has the state right before."""
    scores = [export(begun_anew, "ndjson", "--board", "main", "--as-of-seq", str(seq)) for seq in (5, 6, 8)]
    assert [sum(row["score"] for row in rows) for rows in scores] == [50, 60, 80]
    assert [row["seq"] for row in export(begun_anew, "ndjson", "--events", "--as-of-seq", "7")] == [6, 7]
