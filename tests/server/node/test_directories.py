"""Whose a data directory is: who may start in it, what the refusal says, and the token of a replica."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.typing import EventDict

from engine.errors import DiskFault
from engine.record import Tail
from server.node import start
from server.node.directories import TokenFile, check_leads, check_not_deposed, is_vouched, leader_of, mark_replica
from server.replication.bootstrap import Bootstrap, prepare_directory
from server.settings.config import ConfigError
from snapshots.opening import open_directory
from snapshots.promotion import Marker, Successor, read_marker, write_deposed, write_marker
from tests.deadlines import deadline
from tests.server.node.test_start import config_of
from tests.snapshots.directories import LOG_ID, RULES, InlineDisk, Told, history

LEADER = "http://leader.example:8080"
DISK = InlineDisk()


def refusal_of(check: Callable[[], object]) -> tuple[str, str]:
    """The key and the sentence of a refusal."""
    with pytest.raises(ConfigError) as refused:
        check()
    return refused.value.key, refused.value.message


def test_a_leader_starts_where_nobody_has_a_claim(tmp_path: Path) -> None:
    """In an empty directory, and in a leader's."""
    check_leads(DISK, str(tmp_path))
    history(tmp_path, 3)
    check_leads(DISK, str(tmp_path))


def test_a_leader_does_not_start_in_a_replicas_directory(tmp_path: Path) -> None:
    """The refusal has both commands that an operator may want."""
    write_marker(DISK, str(tmp_path), Marker(LEADER))
    key, message = refusal_of(lambda: check_leads(DISK, str(tmp_path)))
    assert key == "data_dir"
    assert f"scoreboard replica --data-dir {tmp_path} --leader {LEADER}" in message
    assert f"scoreboard promote --data-dir {tmp_path}" in message
    check_not_deposed(DISK, str(tmp_path))


@pytest.mark.parametrize("check", [check_leads, check_not_deposed])
def test_nobody_starts_in_the_directory_of_a_deposed_leader(tmp_path: Path, check: Callable[..., None]) -> None:
    """Neither as a leader nor as a replica: it is demoted first."""
    write_deposed(DISK, str(tmp_path), Successor(4, LEADER))
    key, message = refusal_of(lambda: check(DISK, str(tmp_path)))
    assert key == "data_dir"
    assert "epoch 4 began elsewhere" in message
    assert f"scoreboard demote --data-dir {tmp_path} --to {LEADER} " in message


@pytest.mark.parametrize("name", ["deposed", "replica"])
def test_a_pipe_in_the_place_of_a_marker_is_refused_at_once(tmp_path: Path, name: str) -> None:
    """Its open waited for a writer, and the start hung beyond SIGTERM."""
    os.mkfifo(tmp_path / name)
    with deadline(5), pytest.raises(DiskFault, match="not a regular file") as fault:
        check_leads(DISK, str(tmp_path))
    assert fault.value.path == str(tmp_path / name)


def test_a_replica_follows_who_is_named_or_else_whom_it_followed(tmp_path: Path) -> None:
    """Without the slash at the end, which would be doubled later."""
    key, message = refusal_of(lambda: leader_of(DISK, str(tmp_path), ""))
    assert (key, "--leader URL" in message) == ("replication.leader", True)
    assert leader_of(DISK, str(tmp_path), f"{LEADER}/") == LEADER
    write_marker(DISK, str(tmp_path), Marker("http://before:1/"))
    assert leader_of(DISK, str(tmp_path), "") == "http://before:1"
    assert leader_of(DISK, str(tmp_path), LEADER) == LEADER


def test_only_a_marker_that_says_so_vouches_for_a_directory(tmp_path: Path) -> None:
    """No marker and a new one do not."""
    assert not is_vouched(DISK, str(tmp_path))
    write_marker(DISK, str(tmp_path), Marker(LEADER))
    assert not is_vouched(DISK, str(tmp_path))
    write_marker(DISK, str(tmp_path), Marker(LEADER, caught_up=True))
    assert is_vouched(DISK, str(tmp_path))


class EmptyLeader:
    """Stands in for the bootstrap from a leader that has no snapshot yet."""

    def __init__(self) -> None:
        self.asked = 0

    async def fetch(self, _progress: object) -> None:
        """See `Bootstrap`."""
        self.asked += 1

    async def wait_origin(self) -> Tail:
        """See `Bootstrap`."""
        return Tail(LOG_ID, 1, 0, 0)


async def prepare(directory: Path, bootstrap: EmptyLeader) -> None:
    """Prepare a directory for a replica of LEADER."""
    mark_replica(DISK, str(directory), LEADER)
    await prepare_directory(DISK, str(directory), cast(Bootstrap, cast(Any, bootstrap)), tell=Told())


async def test_an_empty_directory_becomes_a_replicas(tmp_path: Path) -> None:
    """It has a marker, which does not vouch for it, and a log that begins where the leader's does."""
    await prepare(tmp_path, EmptyLeader())
    assert read_marker(DISK, str(tmp_path)) == Marker(LEADER)
    opened = open_directory(DISK, str(tmp_path), RULES, tell=Told())
    assert (opened.log.tail.log_id, opened.log.tail.seq) == (LOG_ID, 0)
    opened.log.close()


async def test_a_replicas_directory_is_left_as_it_is(tmp_path: Path) -> None:
    """What its marker says stays, and the leader is not asked."""
    history(tmp_path, 3)
    write_marker(DISK, str(tmp_path), Marker("http://before:1", caught_up=True))
    leader = EmptyLeader()
    await prepare(tmp_path, leader)
    assert read_marker(DISK, str(tmp_path)) == Marker("http://before:1", caught_up=True)
    assert leader.asked == 0


async def test_a_leaders_directory_is_not_made_a_replicas_by_a_start(tmp_path: Path) -> None:
    """What it has acknowledged may be nowhere else; the refusal names the command that looks after that."""
    history(tmp_path, 3)
    with pytest.raises(ConfigError, match="is a leader's") as refused:
        await prepare(tmp_path, EmptyLeader())
    assert f"scoreboard demote --data-dir {tmp_path} --to {LEADER}" in refused.value.message
    assert read_marker(DISK, str(tmp_path)) is None


def test_a_token_is_read_anew_each_time(tmp_path: Path) -> None:
    """White space around it is not of the token."""
    path = tmp_path / "token"
    path.write_text("first\n")
    token = TokenFile(str(path))
    assert token() == "first"
    path.write_text(" second ")
    assert token() == "second"


def test_a_token_that_can_not_be_read_later_is_the_one_before(tmp_path: Path, logged: list[EventDict]) -> None:
    """That may still be good, so the replica goes on; the log tells of it."""
    path = tmp_path / "token"
    path.write_text("first")
    token = TokenFile(str(path))
    path.unlink()
    assert token() == "first"
    path.write_text("zoë", encoding="utf-8")
    assert token() == "first"
    gone, foreign = [line["reason"] for line in logged if line["event"] == "token_not_read"]
    assert gone.endswith("cannot be read: No such file or directory")
    assert foreign.endswith("cannot be read: it is not ASCII")


def test_a_token_that_can_not_be_read_at_the_start_is_refused(tmp_path: Path) -> None:
    """Without a file there is no token, which is no fault."""
    key, message = refusal_of(lambda: TokenFile(str(tmp_path / "nowhere")))
    assert (key, "cannot be read" in message) == ("replication.token_file", True)
    assert TokenFile("")() == ""


@pytest.mark.parametrize("name", ["deposed", "replica"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ELOOP, errno.ENOTDIR])
async def test_no_leader_starts_while_a_marker_can_not_be_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    """Fencing fails open: not known is refused, with the path, before anything is made there."""
    look, marker = os.lstat, str(tmp_path / "data" / name)

    def fail(path: str) -> os.stat_result:
        if str(path) == marker:
            raise OSError(number, os.strerror(number), path)
        return look(path)

    monkeypatch.setattr(os, "lstat", fail)
    with pytest.raises(DiskFault) as refused:
        await start.serve(config_of(tmp_path / "data"), pytest.fail)
    assert refused.value.path == marker
    assert not (tmp_path / "data" / "log").exists()


def test_a_token_file_that_others_can_read_is_told(tmp_path: Path, logged: list[EventDict]) -> None:
    """Once, at the start, with the remedy; it is used all the same."""
    path = tmp_path / "token"
    path.write_text("a.b.c\n")
    path.chmod(0o600)
    assert TokenFile(str(path))() == "a.b.c"
    assert logged == []
    path.chmod(0o644)
    token = TokenFile(str(path))
    assert (token(), token()) == ("a.b.c", "a.b.c")
    (line,) = logged
    assert (line["event"], line["log_level"], line["path"]) == ("token_file_open", "warning", str(path))
    assert line["fault"] == f"others can read or write it (mode 644); run: chmod 600 {path}"
