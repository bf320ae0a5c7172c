"""What is put into an outbox is there after a crash, in its order, until it is sent or set aside."""

from __future__ import annotations

import multiprocessing
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from board_server import CLIENT

from scoreboard_client import Conflict, Outbox, OutboxFault, OutboxFull
from scoreboard_client.requests import Action

PUT_AND_DIE = """
import os, sys
from scoreboard_client import Outbox
outbox = Outbox(sys.argv[1])
for number in range(20):
    outbox.put("bob", action_id=f"a{number}", reason="WIN", value=number)
assert outbox.try_lock()
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    """Give an empty one."""
    return Outbox(tmp_path / "outbox.db")


def test_what_was_put_survives_a_kill(tmp_path: Path) -> None:
    """In its order, with all its fields; the dead process holds no lock."""
    path = tmp_path / "outbox.db"
    ended = subprocess.run([sys.executable, "-c", PUT_AND_DIE, str(path)], cwd=CLIENT, check=False)
    assert ended.returncode == -9
    outbox = Outbox(path)
    waiting = outbox.waiting()
    assert [one.action for one in waiting] == [Action("bob", f"a{n}", "main", "WIN", n) for n in range(20)]
    assert [one.number for one in waiting] == list(range(1, 21))
    assert outbox.count() == 20
    assert outbox.try_lock()


def test_one_sender_at_a_time(tmp_path: Path) -> None:
    """Whether it is in the same process or, as SQLite's lock is, in another one."""
    first, second = Outbox(tmp_path / "outbox.db"), Outbox(tmp_path / "outbox.db")
    assert first.try_lock()
    assert not first.try_lock()
    assert not second.try_lock()
    first.unlock()
    assert second.try_lock()


def test_what_is_settled_goes_or_is_set_aside(outbox: Outbox) -> None:
    """A refused action is kept with the reason, until somebody sends it again or discards it."""
    numbers = [outbox.put("bob", action_id=f"a{number}") for number in range(4)]
    error = Conflict(409, "CONFLICT", "It was used.", {})
    (aside, other) = outbox.settle(numbers[:2], [(numbers[2], error), (numbers[3], error)])
    assert (aside.action.action_id, aside.status, aside.code, aside.message) == ("a2", 409, "CONFLICT", "It was used.")
    assert outbox.waiting() == []
    assert outbox.set_aside() == [aside, other]
    again = outbox.put_back(aside.number)
    assert again > numbers[-1]
    assert [one.action.action_id for one in outbox.waiting()] == ["a2"]
    outbox.discard(other.number)
    assert outbox.set_aside() == []
    for gone in (outbox.discard, outbox.put_back):
        with pytest.raises(KeyError, match=f"number {other.number}"):
            gone(other.number)


def test_nothing_is_half_settled(outbox: Outbox) -> None:
    """A fault in the middle leaves all as it was."""
    number = outbox.put("bob", action_id="a1")
    broken = Conflict(409, "CONFLICT", "", {})
    broken.code = None  # type: ignore[assignment]  # the table refuses it
    with pytest.raises(sqlite3.IntegrityError):
        outbox.settle([number], [(number, broken)])
    assert outbox.count() == 1


def test_an_outbox_has_a_bound(tmp_path: Path) -> None:
    """`put` says so, and does not lose the others."""
    outbox = Outbox(tmp_path / "outbox.db", rows_max=2)
    first = outbox.put("bob", action_id="a1")
    outbox.put("bob", action_id="a2")
    with pytest.raises(OutboxFull, match="2 actions"):
        outbox.put("bob", action_id="a3")
    outbox.settle([first], [])
    outbox.put("bob", action_id="a3")
    assert outbox.count() == 2


@pytest.mark.parametrize("rows_max", [0, -1, True, 1.5, None])
def test_a_bound_that_lets_nothing_in_is_refused(tmp_path: Path, rows_max: Any) -> None:
    """Before a file is made."""
    with pytest.raises(ValueError, match="rows_max"):
        Outbox(tmp_path / "outbox.db", rows_max=rows_max)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("put", "field"),
    [
        (lambda outbox: outbox.put("", action_id="a"), "user_id"),
        (lambda outbox: outbox.put("bob", action_id="\ud800"), "action_id"),
        (lambda outbox: outbox.put("bob", action_id="a", value=2**63), "value"),
    ],
)
def test_what_can_never_be_sent_is_refused_at_once(outbox: Outbox, put: Callable[[Outbox], Any], field: str) -> None:
    """Where the caller can still do something about it."""
    with pytest.raises(ValueError, match=field):
        put(outbox)
    assert outbox.count() == 0


def test_a_file_that_is_no_outbox_is_refused(tmp_path: Path) -> None:
    """Something else, a folder that is not there, and a file of a newer version."""
    other = tmp_path / "other.db"
    other.write_text("not a database, but long enough to be looked at as one" * 20)
    newer = tmp_path / "newer.db"
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    for path in (other, newer, tmp_path / "missing" / "outbox.db"):
        with pytest.raises(OutboxFault, match=path.name):
            Outbox(path)
    assert other.read_text().startswith("not a database")


def put_from_child(outbox: Outbox) -> None:
    outbox.put("bob", action_id="child")


def test_a_forked_worker_opens_the_file_anew(outbox: Outbox) -> None:
    """As those of Celery and gunicorn do."""
    outbox.put("bob", action_id="parent-1")
    child = multiprocessing.get_context("fork").Process(target=put_from_child, args=(outbox,))
    child.start()
    child.join()
    assert child.exitcode == 0
    outbox.put("bob", action_id="parent-2")
    assert [one.action.action_id for one in outbox.waiting()] == ["parent-1", "child", "parent-2"]
