"""Actions on disk that must not be lost while the board is down: a SQLite file.

    outbox = Outbox("/var/lib/shop/outbox.db")
    outbox.put("bob", action_id="order-4711")           durable when it returns; from any thread and process
    with scoreboard.sender(outbox): …                   sends what is there, in its order

    outbox     number ▸ action         waits to be sent; the row goes when the server has it on disk
    set_aside  number ▸ action, error  the server refused it for good: kept until somebody decides

Rules:
- A row is deleted after the receipt, never before. So a process that is killed sends some rows again, and the actionId
  sees to it that they count once.
- At most one sender sends: it holds an exclusive lock on a second file (`.sender`). The kernel gives it back when the
  process ends, however it ends. Others wait for it.
- `put` syncs the disk (`synchronous=FULL`). The file must lie on a local disk, as SQLite's own rules say.
- A connection belongs to the process that opened it: after a fork a new one is opened.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from scoreboard_client.errors import ApiError, OutboxFault, OutboxFull
from scoreboard_client.requests import DEFAULT_BOARD, Action

ROWS_MAX = 1_000_000
"""Some hundred megabytes, and a minute of a sender's work."""

VALUE_MAX = 2**63 - 1
"""What SQLite stores."""

BUSY_S = 30.0
"""How long a process waits for another that writes."""

_VERSION = 1

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, action_id TEXT NOT NULL, board_id TEXT NOT NULL,
    reason TEXT, value INTEGER, put_at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS set_aside (
    number INTEGER PRIMARY KEY, user_id TEXT NOT NULL, action_id TEXT NOT NULL, board_id TEXT NOT NULL,
    reason TEXT, value INTEGER, put_at TEXT NOT NULL,
    status INTEGER NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL, set_aside_at TEXT NOT NULL);
PRAGMA user_version = 1;
COMMIT;
"""
_ROW = "number, user_id, action_id, board_id, reason, value"
_KEPT = "user_id, action_id, board_id, reason, value, put_at"


@dataclass(frozen=True, slots=True)
class Waiting:
    """An action that waits to be sent. Numbers grow, and are not used again."""

    number: int
    action: Action


@dataclass(frozen=True, slots=True)
class SetAside:
    """An action that the server refused for good, with what it said."""

    number: int
    action: Action
    status: int
    code: str
    message: str


class Outbox:
    """See above. `rows_max` bounds it: beyond that `put` raises `OutboxFull`."""

    def __init__(self, path: str | os.PathLike[str], *, rows_max: int = ROWS_MAX) -> None:
        if isinstance(rows_max, bool) or not isinstance(rows_max, int) or rows_max < 1:
            raise ValueError(f"rows_max must be a whole number from 1, not {rows_max!r}")
        self.path = Path(path).absolute()
        self._rows_max = rows_max
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._sender: sqlite3.Connection | None = None
        with self._open() as connection:
            connection.execute("SELECT 1 FROM outbox LIMIT 1")

    def put(
        self,
        user_id: str,
        *,
        action_id: str,
        board_id: str = DEFAULT_BOARD,
        reason: str | None = None,
        value: int | None = None,
    ) -> int:
        """Keep an action to be sent, and give its number. It is on disk then.

        Raises ValueError or TypeError for what can't be sent, and `OutboxFull`.
        """
        action = Action(user_id, action_id, board_id, reason, value)
        if value is not None and abs(value) > VALUE_MAX:
            raise ValueError(f"value must be from {-VALUE_MAX} to {VALUE_MAX}")
        with self._writing() as connection:
            # Rows go in their order, so their numbers are close together; counting them would take time.
            first, last = connection.execute("SELECT min(number), max(number) FROM outbox").fetchone()
            if last is not None and last - first + 1 >= self._rows_max:
                raise OutboxFull(f"{self.path} has {self._rows_max} actions that were not sent yet")
            row = (action.user_id, action.action_id, action.board_id, action.reason, action.value, _now())
            done = connection.execute(f"INSERT INTO outbox ({_KEPT}) VALUES (?, ?, ?, ?, ?, ?)", row)  # noqa: S608  # our own names
            assert done.lastrowid is not None
            return done.lastrowid

    def waiting(self, limit: int = 100) -> list[Waiting]:
        """Give the actions that are to be sent next, in their order."""
        with self._open() as connection:
            rows = connection.execute(f"SELECT {_ROW} FROM outbox ORDER BY number LIMIT ?", (limit,)).fetchall()  # noqa: S608
        return [Waiting(number, Action(*fields)) for number, *fields in rows]

    def count(self) -> int:
        """Count the actions that wait to be sent."""
        with self._open() as connection:
            return int(connection.execute("SELECT count(*) FROM outbox").fetchone()[0])

    def settle(self, done: Sequence[int], refused: Sequence[tuple[int, ApiError]]) -> list[SetAside]:
        """Remove what the server has, and set aside what it refused for good; all of it or nothing."""
        with self._writing() as connection:
            for number, error in refused:
                connection.execute(
                    f"INSERT INTO set_aside SELECT number, {_KEPT}, ?, ?, ?, ? FROM outbox WHERE number = ?",  # noqa: S608
                    (error.status, error.code, error.message, _now(), number),
                )
            numbers = [(number,) for number in (*done, *(number for number, _ in refused))]
            connection.executemany("DELETE FROM outbox WHERE number = ?", numbers)
            return [self._aside(connection, number) for number, _ in refused]

    def set_aside(self, limit: int = 100) -> list[SetAside]:
        """Give the actions that the server refused for good, the oldest first."""
        with self._open() as connection:
            found = connection.execute("SELECT number FROM set_aside ORDER BY number LIMIT ?", (limit,)).fetchall()
            return [self._aside(connection, number) for (number,) in found]

    def put_back(self, number: int) -> int:
        """Send an action that was set aside once more, after all others. Give its new number. Raises KeyError."""
        with self._writing() as connection:
            insert = f"INSERT INTO outbox ({_KEPT}) SELECT {_KEPT} FROM set_aside WHERE number = ?"  # noqa: S608
            done = connection.execute(insert, (number,))
            if done.rowcount == 0 or done.lastrowid is None:
                raise _not_set_aside(number)
            connection.execute("DELETE FROM set_aside WHERE number = ?", (number,))
            return done.lastrowid

    def discard(self, number: int) -> None:
        """Forget an action that was set aside. Raises KeyError."""
        with self._writing() as connection:
            if connection.execute("DELETE FROM set_aside WHERE number = ?", (number,)).rowcount == 0:
                raise _not_set_aside(number)

    def try_lock(self) -> bool:
        """Become the one sender, if there is none in any process."""
        with self._lock:
            if self._sender is not None:
                return False
            connection = self._connect(Path(f"{self.path}.sender"), 0.0)
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                connection.close()
                return False
            self._sender = connection
            return True

    def unlock(self) -> None:
        """Be the sender no more."""
        with self._lock:
            sender, self._sender = self._sender, None
            if sender is not None:
                sender.close()

    def close(self) -> None:
        """Close the file. It is opened again when it is used."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None and self._process == os.getpid():
                connection.close()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._connection is None or self._process != os.getpid():
                self._connection = self._prepared()
                self._process = os.getpid()
            yield self._connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Make one transaction of what happens within."""
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _prepared(self) -> sqlite3.Connection:
        connection = self._connect(self.path, BUSY_S)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise OutboxFault(f"{self.path} was written by a newer version of this package")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            if version < _VERSION:
                connection.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            connection.close()
            raise OutboxFault(f"{self.path} can't be used as an outbox: {error}") from error
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _connect(path: Path, wait_s: float) -> sqlite3.Connection:
        # Transactions are begun by hand. The lock of the object lets one thread in at a time.
        try:
            return sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False)
        except sqlite3.OperationalError as error:
            raise OutboxFault(f"{path}: {error}") from error

    @staticmethod
    def _aside(connection: sqlite3.Connection, number: int) -> SetAside:
        select = f"SELECT {_ROW}, status, code, message FROM set_aside WHERE number = ?"  # noqa: S608
        number, *fields, status, code, message = connection.execute(select, (number,)).fetchone()
        return SetAside(number, Action(*fields), status, code, message)


def _not_set_aside(number: object) -> KeyError:
    return KeyError(f"no action is set aside as number {number!r}: see set_aside()")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
