"""`scoreboard quorum` and `step-down`: what is refused before a server is asked, and how answers are told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.disk import RealDisk
from server.quorum import nats_limits
from snapshots.membership import Membership, write_membership
from snapshots.promotion import Marker, Successor, write_deposed, write_marker
from tests.server.cli.answers import Node, answering
from tests.server.cli.directories import increments, make, run

NOBODY = "nats://node:hush-hush@127.0.0.1:1"


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure a server that is not there, and do not wait for it."""
    monkeypatch.setenv("SCOREBOARD_QUORUM_SERVERS", NOBODY)
    monkeypatch.setattr(nats_limits, "OPEN_SECONDS", 0.1)


@pytest.mark.parametrize("verb", ["init", "status", "import", "export"])
def test_without_servers_the_key_is_named(verb: str, tmp_path: Path) -> None:
    """Exit code 2."""
    done = run("quorum", verb, "--data-dir", tmp_path)
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: quorum.servers: names no server")


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("verb", ["init", "import", "export"])
def test_servers_that_do_not_answer_are_named(verb: str, tmp_path: Path) -> None:
    """Exit code 1, without the password, and the directory stays as it was."""
    data = make(tmp_path / "data", increments(3))
    if verb == "export":
        write_membership(RealDisk(), str(data), Membership("scoreboard", "00"))
    before = sorted(path.name for path in data.iterdir())
    done = run("quorum", verb, "--data-dir", data, *(["--yes"] if verb == "export" else []))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "(quorum.servers: nats://127.0.0.1:1). Try again when they answer." in done.stderr
    assert "hush" not in done.output
    assert sorted({path.name for path in data.iterdir()} - {"lock"}) == before


@pytest.mark.usefixtures("nobody")
def test_the_status_of_a_quorum_that_is_away(tmp_path: Path) -> None:
    """The tables are there, each fault is a line of its own, and the exit code is 1."""
    done = run("quorum", "status", "--data-dir", tmp_path)
    assert done.exit_code == 1
    assert done.stdout.splitlines()[0] == "server\tversion\tfault"
    assert "Wrong: no server answers" in done.stderr
    told = run("quorum", "status", "--json", "--data-dir", tmp_path)
    assert told.exit_code == 1
    seen = json.loads(told.stdout)
    assert (seen["good"], seen["majority"], seen["stream"], seen["nodes"]) == (False, False, None, [])
    assert "hush" not in done.output + told.output


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("verb", ["import", "export"])
def test_a_directory_that_is_not_there_or_in_use_is_refused(verb: str, tmp_path: Path) -> None:
    """Exit codes 2 and 3, before a server is asked."""
    empty = run("quorum", verb, "--data-dir", tmp_path)
    assert empty.exit_code == 2
    assert "there is no scoreboard data" in empty.stderr
    data = make(tmp_path / "data", increments(3))
    lock = RealDisk().lock(str(data / "lock"))
    try:
        used = run("quorum", verb, "--data-dir", data)
    finally:
        lock.release()
    assert used.exit_code == 3
    assert "is in use" in used.stderr


@pytest.mark.usefixtures("nobody")
def test_a_directory_of_another_role_is_not_imported(tmp_path: Path) -> None:
    """A replica's, and a deposed leader's."""
    replica, deposed = make(tmp_path / "replica", increments(3)), make(tmp_path / "deposed", increments(3))
    write_marker(RealDisk(), str(replica), Marker("http://leader.example"))
    write_deposed(RealDisk(), str(deposed), Successor(2, "http://leader.example"))
    for data, why in ((replica, "is a replica's, which follows http://leader"), (deposed, "epoch 2 began elsewhere")):
        done = run("quorum", "import", "--data-dir", data)
        assert done.exit_code == 2
        assert why in done.stderr


@pytest.mark.usefixtures("nobody")
def test_an_export_asks_first(tmp_path: Path) -> None:
    """A directory that is of no quorum is refused before that. Without an answer nothing is done."""
    data = make(tmp_path / "data", increments(3))
    alone = run("quorum", "export", "--data-dir", data)
    assert alone.exit_code == 2
    assert "is of no quorum" in alone.stderr
    write_membership(RealDisk(), str(data), Membership("scoreboard", "00"))
    done = run("quorum", "export", "--data-dir", data)
    assert done.exit_code == 1
    assert "will be sealed for good" in done.stderr
    assert "Aborted" in done.stderr


@pytest.fixture
def node() -> Iterator[Node]:
    """A node that gives the answers that a test wants."""
    with answering() as running:
        yield running


def test_a_leader_steps_down(node: Node) -> None:
    """The epoch that ended is told to people and to programs."""
    node.says(200, {"epoch": 3, "seq": 17})
    done = run("step-down", "--url", node.url, "--token", "a-token")
    assert (done.exit_code, done.stdout) == (0, "stepped down: epoch 3 ended with seq 17\n")
    told = run("step-down", "--url", node.url, "--token", "a-token", "--json")
    assert json.loads(told.stdout) == {"epoch": 3, "seq": 17}
    assert node.asked == [("POST", "/quorum/step-down", "Bearer a-token")] * 2


def test_a_refusal_to_step_down_has_its_reason(node: Node) -> None:
    """Exit code 1, one sentence."""
    node.says(409, {"error": {"code": "CONFLICT", "message": "This node does not lead: it is following."}})
    done = run("step-down", "--url", node.url)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "refused with status 409: This node does not lead" in done.stderr
    assert run("step-down").exit_code == 2
