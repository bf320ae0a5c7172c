"""`scoreboard demote`: an old leader's directory becomes a replica's. What only it had is listed and set aside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engine.commands import EraseUser
from engine.disk import RealDisk
from engine.record import Tail, events_of
from engine.traces import Traces
from server.cli.demote import erased_message
from server.replication.messages import fork_of
from snapshots.demotion import DemotionReport
from snapshots.membership import Membership, write_membership
from snapshots.promotion import NO_RULES
from snapshots.state import read_state
from tests.server.cli.answers import Node, answering
from tests.server.cli.directories import increments, make, open_for_writing, run, write

COMMON = 3


@pytest.fixture
def node() -> Iterator[Node]:
    """The new leader, as far as the command asks it."""
    with answering() as running:
        yield running


def end_of(path: Path) -> Tail:
    """Give the end of a directory's log."""
    opened = open_for_writing(path)
    opened.log.close()
    return opened.log.tail


@pytest.fixture
def old(tmp_path: Path, node: Node) -> Path:
    """An old leader's directory. The new leader has its first three events, and not the last two."""
    path = make(tmp_path / "old", increments(COMMON))
    tail = end_of(path)
    node.says(200, msgspec.to_builtins(fork_of(tail)))
    opened = open_for_writing(path)
    write(opened, increments(2, start=COMMON))
    opened.log.close()
    return path


def test_a_directory_of_a_quorum_is_refused_before_anybody_is_asked(old: Path, node: Node) -> None:
    """An answer of the new leader would hide the reason, and its advice would be wrong."""
    write_membership(RealDisk(), str(old), Membership("scoreboard", "0" * 32))
    node.says(404, {"error": {"code": "NOT_FOUND", "message": "This node knows of no epoch after 1."}})
    done = run("demote", "--data-dir", old, "--to", node.url)
    assert (done.exit_code, done.stdout, node.asked) == (1, "", [])
    assert "is of a quorum, whose log is the stream 'scoreboard'" in done.stderr


def test_what_only_it_had_is_listed_and_set_aside(old: Path, node: Node) -> None:
    """Each action is listed so that it can be sent again. Nothing is deleted, and the directory is a replica's."""
    done = run("demote", "--data-dir", old, "--to", f"{node.url}/", "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    aside = Path(report.pop("aside"))
    assert report == {
        "commonSeq": COMMON,
        "epoch": 1,
        "lastSeq": 5,
        "events": 2,
        "erasures": 0,
        "erased": [],
        "actions": [
            {"actionId": "action-3", "userId": "user-1", "boardId": "main", "seq": 4, "delta": 10},
            {"actionId": "action-4", "userId": "user-0", "boardId": "main", "seq": 5, "delta": 10},
        ],
    }
    assert (end_of(old).seq, end_of(aside).seq) == (COMMON, 5)
    assert json.loads((old / "replica").read_text()) == {"leader": node.url, "caught_up": False}
    refused = run("serve", "--data-dir", old, "--bind", "127.0.0.1:0")
    assert (refused.exit_code, f"follows {node.url}" in refused.stderr) == (2, True)


def test_a_person_gets_the_same_as_a_table(old: Path, node: Node) -> None:
    """Standard output has the result and the actions. Standard error says where the events are, and what to start."""
    done = run("demote", "--data-dir", old, "--to", node.url)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("common up to seq 3, set aside: 2 events")
    assert lines[1:] == [
        "actionId\tuserId\tboardId\tseq\tdelta",
        "action-3\tuser-1\tmain\t4\t10",
        "action-4\tuser-0\tmain\t5\t10",
    ]
    assert f"{old}.aside-1-5" in done.stderr
    assert f"scoreboard replica --data-dir {old} --leader {node.url}" in done.stderr


def test_one_that_has_nothing_of_its_own_stays_where_it_is(tmp_path: Path, node: Node) -> None:
    """There is no table, and nothing is set aside."""
    data = make(tmp_path / "data", increments(COMMON))
    node.says(200, msgspec.to_builtins(fork_of(end_of(data))))
    done = run("demote", "--data-dir", data, "--to", node.url)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [f"{data} is a replica's now: common up to seq 3, set aside: 0 events"]
    assert "not in the new leader's history" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def error(message: str) -> dict[str, object]:
    return {"error": {"code": "NOT_FOUND", "message": message}}


def test_the_new_leader_is_asked_with_the_token(tmp_path: Path, old: Path, node: Node) -> None:
    """It is asked where its history leaves our epoch, which the identity names."""
    file = tmp_path / "token"
    file.write_text("a-token\n")
    scoreboard, _ = read_state(RealDisk(), str(old), NO_RULES, tell=lambda _: None)
    done = run("demote", "--data-dir", old, "--to", node.url, "--token-file", file)
    assert done.exit_code == 0
    # Without the token the replica could not follow.
    assert f"scoreboard replica --data-dir {old} --leader {node.url} --token-file {file}\n" in done.stderr
    query = f"epoch=1&history={scoreboard.mark.history}"
    assert node.asked == [("GET", f"/replication/fork?{query}", "Bearer a-token")]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (
            404,
            error("This node knows of no epoch after 1."),
            "epoch 1 part: This node knows of no epoch after 1. Is it",
        ),
        (404, error("The log begins at seq 7."), "part: The log begins at seq 7. Is it the node that took this one's"),
        (404, {"error": {}}, "part: the leader answered with status 404"),
        (401, {"error": {}}, "can't be asked: the leader answered with status 401"),
        (503, {"error": {}}, "can't be asked: the leader answered with status 503"),
        (200, {"error": {}}, "can't be asked: the leader gave no answer"),
    ],
)
def test_who_did_not_take_its_place_is_refused(
    old: Path, node: Node, status: int, body: dict[str, object], told: str
) -> None:
    """A node of our own epoch, such as the old leader itself; a node whose log no longer goes back as far.

    A node that refuses, and a server that is no scoreboard.
    """
    before = sorted((old / "log").iterdir())
    node.says(status, body)
    done = run("demote", "--data-dir", old, "--to", node.url)
    assert (done.exit_code, done.stdout) == (1, "")
    assert told in done.stderr
    assert (end_of(old).seq, (old / "replica").exists()) == (5, False)
    assert sorted((old / "log").iterdir()) == before
    assert list(old.parent.glob("old.*")) == []


def test_a_history_that_is_another_is_refused(tmp_path: Path, node: Node) -> None:
    """The new leader's place is not in our log, so nothing is done."""
    other = make(tmp_path / "other", increments(COMMON))
    node.says(200, msgspec.to_builtins(fork_of(end_of(other))))
    data = make(tmp_path / "data", increments(5))
    done = run("demote", "--data-dir", data, "--to", node.url)
    assert (done.exit_code, done.stdout) == (1, "")
    assert (end_of(data).seq, (data / "replica").exists()) == (5, False)


def test_a_directory_in_use_is_refused_before_anybody_is_asked(old: Path, node: Node) -> None:
    """Exit code 3."""
    lock = RealDisk().lock(f"{old}/lock")
    done = run("demote", "--data-dir", old, "--to", node.url)
    lock.release()
    assert done.exit_code == 3
    assert node.asked == []
    assert end_of(old).seq == 5


@pytest.mark.parametrize(
    "url", ["", "leader:8080", "ftp://leader", "http://u:p@leader", "http://l?x=1", "http://l:99999"]
)
def test_an_address_that_is_none_is_refused_by_its_flag(old: Path, url: str) -> None:
    """Nothing is done."""
    done = run("demote", "--data-dir", old, "--to", url)
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: --to: ")
    assert not (old / "replica").exists()


def test_both_flags_are_needed(tmp_path: Path) -> None:
    """Each missing flag is named, and so is a directory without data."""
    assert "'--to'" in run("demote", "--data-dir", tmp_path).stderr
    assert "'--data-dir'" in run("demote", "--to", "http://127.0.0.1:9").stderr
    done = run("demote", "--data-dir", tmp_path, "--to", "http://127.0.0.1:9")
    assert (done.exit_code, "no log directory in it" in done.stderr) == (2, True)


def test_a_second_demotion_says_that_nothing_is_left_to_do(old: Path, node: Node) -> None:
    """The end of the first one may have been missed. What it set aside stays as it is."""
    assert run("demote", "--data-dir", old, "--to", node.url).exit_code == 0
    kept = shutil.copytree(f"{old}.aside-1-5", old.with_name("kept"))
    done = run("demote", "--data-dir", old, "--to", node.url, "--json")
    assert (done.exit_code, json.loads(done.stdout)["events"]) == (0, 0)
    assert end_of(Path(f"{old}.aside-1-5")) == end_of(Path(kept))


def test_who_was_erased_only_here_is_named(old: Path, node: Node) -> None:
    """The new leader has the user again, so the operator is told whom to erase there."""
    opened = open_for_writing(old)
    traces = Traces("user-1")
    for frame in opened.log.read_from(1):
        for event in events_of(frame):
            traces.take(event)
    write(opened, [[EraseUser("user-1", "dpo", traces)]])
    opened.log.close()
    done = run("demote", "--data-dir", old, "--to", node.url)
    assert done.exit_code == 0, done.stderr
    assert "1 user was erased here and not at the new leader. Erase there, too: user-1. Then remove" in done.stderr


@pytest.mark.parametrize(
    ("count", "named", "words"),
    [
        (2, ("ann", "ben"), "2 users were erased here and not at the new leader. Erase there, too: ann, ben."),
        (3, ("ann",), "Erase there, too: ann. The files here have forgotten 2 of them: look for who it was in your"),
        (1, (), "The files here have forgotten them: look for who it was in your list of erased ids."),
    ],
)
def test_whom_the_files_have_forgotten_is_said_too(count: int, named: tuple[str, ...], words: str) -> None:
    """Then only the operator's list knows who it was."""
    assert words in erased_message(DemotionReport(3, 1, 9, "aside", 6, [], count, named))
