"""A data directory with a long past: so many users, so many actions, made in minutes by the product's own code.

    build(directory, Past(users=1_000_000, actions=100_000_000, tail=100_000))
    copy_linked(directory, other)               a copy that a server may write to, in milliseconds
    action_id(12_345), user_of(12_345, users)   what the generator sends to repeat an action

    log         │ ImportBegun, a row for each user │ actions 0, 1, 2 …                │ `tail` actions │
    snapshot                                                                          ^
    runs                                            whole blocks, but for the last

A server that opens the directory sees what one sees that was filled over years. It begins with an import, so that
directories with and without actions have the same users and scores as various.

Rules:
- All proofs of an opening hold: frames are in the chain, the snapshot is of the state after them, the files of actions
  are those that a node with this log has (`tests/bench/test_past.py` compares with a replay of the whole log).
- To decide each action would take several times as long. So the frames are made of columns of bytes: only digits and
  score differ from record to record, and all have one length. Keys, chain, appends, index, files and snapshot are made
  by the engine. A board gets only the last score of each user.
- Users come round after round, each once a round, in an order that the generator knows.
- Segments are compressed, as a checkpoint does. Indexes of users are not made: end a server with SIGKILL before its
  first checkpoint, or it makes all of them.
"""

from __future__ import annotations

import os
import shutil
from array import array
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import msgspec
import numpy as np
import trio
from numpy.typing import NDArray

from bench.load import ACTION_DIGITS, PREFIX_CHARACTERS, USER_DIGITS, USER_STEP, item_of
from engine import action_blocks
from engine.actions import Key, key_of, mark_of
from engine.board_rules import rules_of_points
from engine.disk import UnsyncedDisk
from engine.errors import DiskFault
from engine.event_records import encode_events
from engine.events import Event, ImportBegun, Incremented, ScoreImported
from engine.record import Frame, frame_bytes
from engine.recovery import Finding
from snapshots.opening import Opened, open_directory
from snapshots.restore import LOCK_FILE
from snapshots.sealing import IndexRules, Sealer
from snapshots.store import Store

REASON, POINTS = "ACTION_COMPLETED", 10
RULES = rules_of_points({"main": {REASON: POINTS}})
PREFIX = "0" * PREFIX_CHARACTERS
FRAME = 4_000
SCORE_LEAST, SCORE_SPREAD = 100_000, 900_000
"""Imported scores. With all points that follow they take four bytes in a record, so records have one length."""

SEAL_BLOCKS = 64
"""Blocks that are sealed at once. They take 700 MB before; with fewer, files would be joined more often."""

BEGAN_MS = 1_765_000_000_000

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]


class Past(NamedTuple):
    """What a directory has: users, actions in the snapshot, and actions of the log after it."""

    users: int
    actions: int
    tail: int


def action_id(number: int) -> str:
    """Give the id of an action."""
    return item_of(PREFIX, number)["actionId"]


def user_of(number: int, users: int) -> str:
    """Give who did an action."""
    return item_of(PREFIX, number * USER_STEP % users)["userId"]


def build(directory: str, past: Past) -> None:
    """Make a directory. All of its files are durable when this returns."""
    opened = open_directory(UnsyncedDisk(), directory, RULES, tell=tell)
    _Builder(directory, opened, past).build()
    opened.log.close()
    os.sync()  # once, instead of 25,000 times


def tell(what: Finding | DiskFault) -> None:
    """Fail: a directory that was just built has no damage."""
    raise AssertionError(what)


def copy_linked(source: Path, target: Path) -> None:
    """Copy a directory. Files that never change are linked; only the live segment is written to.

    The copy has a lock file, as a directory that was served before. Without it a start waits for whoever may have lost
    it.
    """
    live = max((source / "log").glob("*.log"))
    for path in source.rglob("*"):
        place = target / path.relative_to(source)
        if path.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            if path == live:
                shutil.copyfile(path, place)
            else:
                os.link(path, place)
    (target / LOCK_FILE).touch()


class _Records:
    """The records of a frame of `count` increments, as rows of bytes. Made once, then only its digits are written."""

    def __init__(self, users: int, count: int) -> None:
        self._users = users
        event = Incremented(
            1, 1, "main", item_of(PREFIX, 0)["userId"], action_id(0), POINTS, REASON, "bench", SCORE_LEAST
        )  # fmt: skip
        record = encode_events([event])
        self._user_at = record.index(event.user_id.encode()) + len(event.user_id) - USER_DIGITS
        self._action_at = record.index(event.action_id.encode())
        self._action_bytes = len(event.action_id)
        self._rows: Bytes = np.tile(np.frombuffer(record, np.uint8), (count, 1))

    def fill(self, numbers: Numbers) -> tuple[bytes, str]:
        """Write the records of these actions; give them, and the ids of the actions, one after the other."""
        rows = self._rows[: len(numbers)]
        users = numbers * USER_STEP % self._users
        ids_end = self._action_at + self._action_bytes
        _write_digits(rows[:, self._user_at : self._user_at + USER_DIGITS], users)
        _write_digits(rows[:, ids_end - ACTION_DIGITS : ids_end], numbers)
        scores = first_scores(users) + POINTS * (1 + numbers // self._users)
        assert int(scores.max()) < 2**32
        rows[:, -4:] = scores.astype(">u4")[:, np.newaxis].view(np.uint8)
        return rows.tobytes(), rows[:, self._action_at : ids_end].tobytes().decode()


def first_scores(users: Numbers) -> Numbers:
    """Give the scores that were imported for these users."""
    return SCORE_LEAST + users * 7_368_787 % SCORE_SPREAD


def _write_digits(columns: Bytes, values: Numbers) -> None:
    rest = values.copy()
    for place in reversed(range(columns.shape[1])):
        columns[:, place] = 48 + rest % 10
        rest //= 10


class _Builder:
    """Builds one directory, step by step. The scoreboard is in the middle of a replay: only its files are wanted."""

    def __init__(self, directory: str, opened: Opened, past: Past) -> None:
        self._directory, self._past = directory, past
        self._log, self._scoreboard = opened.log, opened.scoreboard
        self._scoreboard.begin_replay()
        rules = IndexRules(index="disk")
        self._sealer = Sealer(self._scoreboard, UnsyncedDisk(), directory, self._log, rules, tell=tell)
        self._records = _Records(past.users, FRAME)
        self._frames = 0

    def build(self) -> None:
        """Build all of it, in the order of the log."""
        users, actions, tail = self._past
        self._import()
        marks = array("Q", (mark_of(user_of(number, users), "main", REASON) for number in range(min(users, actions))))
        last_seq = self._log.tail.seq
        for start in range(0, actions, FRAME):
            numbers = np.arange(start, min(start + FRAME, actions))
            first_seq, keys = self._append(numbers)
            places = (numbers % users).tolist()
            self._scoreboard.actions.add(keys, first_seq, [marks[place] for place in places])
            if self._scoreboard.actions.recent >= (SEAL_BLOCKS + 1) * action_blocks.BLOCK_ACTIONS:
                self._tidy()
        if actions:
            self._record_last(last_seq + 1)
        self._tidy()
        Store(UnsyncedDisk(), self._directory).save(self._scoreboard.capture(), self._log.tail)
        for start in range(actions, actions + tail, FRAME):
            self._append(np.arange(start, min(start + FRAME, actions + tail)))
        self._tidy_log()

    def _import(self) -> None:
        users, begun = self._past.users, "past"
        time_ms = BEGAN_MS
        first: list[Event] = [ImportBegun(1, time_ms, "main", begun, users, "none", False, "bench")]
        self._apply(first)
        for start in range(0, users, FRAME):
            numbers = np.arange(start, min(start + FRAME, users))
            names = [item_of(PREFIX, number)["userId"] for number in numbers.tolist()]
            rows = zip(numbers.tolist(), names, first_scores(numbers).tolist(), strict=True)
            seq = self._log.tail.seq + 1 - start
            self._apply([
                ScoreImported(seq + number, time_ms, "main", name, score, score, None, begun, number, "bench")
                for number, name, score in rows
            ])  # fmt: skip

    def _apply(self, events: list[Event]) -> None:
        self._log.append(events, self._scoreboard.epoch)
        for event in events:
            self._scoreboard.apply(event, self._scoreboard.epoch)

    def _append(self, numbers: Numbers) -> tuple[int, list[Key]]:
        """Append the frame of these actions; give its first seq, and the keys of the actions."""
        body, ids = self._records.fill(numbers)
        tail = self._log.tail
        frame = Frame(tail.epoch, tail.seq + 1, self._time_of(numbers), len(numbers), tail.checksum, 0, body)
        checksum = google_crc32c.value(frame_bytes(frame)[8:])  # all but the magic and the checksum
        self._log.append_frame(tail.seq, frame_bytes(msgspec.structs.replace(frame, checksum=checksum)))
        length = len(ids) // len(numbers)
        return tail.seq + 1, [key_of(ids[at : at + length]) for at in range(0, len(ids), length)]

    def _time_of(self, numbers: Numbers) -> int:
        return BEGAN_MS + int(numbers[0])

    def _record_last(self, first_seq: int) -> None:
        """Give each user the score after all actions. `first_seq` is the seq of action 0."""
        users, actions, _ = self._past
        board = self._scoreboard.boards["main"]
        for start in range(0, actions, FRAME):
            if start + FRAME <= actions - users:
                continue
            numbers = np.arange(start, min(start + FRAME, actions))
            scores = first_scores(numbers * USER_STEP % users) + POINTS * (1 + numbers // users)
            for number, score in zip(numbers.tolist(), scores.tolist(), strict=True):
                board.record(user_of(number, users), score, first_seq + number, self._time_of(numbers))
        self._scoreboard.advance(self._log.tail.seq, self._time_of(numbers))

    def _tidy(self) -> None:
        """Seal what is due, as a checkpoint does."""
        trio.run(self._sealer.seal)
        trio.run(self._sealer.tidy)
        self._tidy_log()

    def _tidy_log(self) -> None:
        for info in self._log.segments()[:-1]:
            self._log.compress(info)
