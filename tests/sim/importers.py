"""An importer in a simulated run, who brings scores of another system to boards, some rows at a time.

The importer may be killed: then nobody knows what was done, and the next one sends the rows again from the first. Some
rows are sent twice, some before their turn. Most imports merge; a board may have scores by then.

That each row counts once is checked where events are taken (`tests.sim.plain_imports`), and by the books: a row must
be one of its source. Here it is checked that answers and refusals are true.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial

import trio

from engine.commands import ImportReceipt, ImportRow, ImportRows, Outcome, Rejection
from engine.errors import DiskFull, LeaderDeposed, OutcomeUnknown, Overloaded
from server.role import State
from tests.sim.books import Books, Broken
from tests.sim.clients import TIMEOUT_S, Client
from tests.sim.network import Network, NoAnswer
from tests.sim.process import Process
from tests.sim.trace import Trace

IMPORTER = "importer"
"""The name of its generators, and who imports."""

BOARDS = ("main", "main", "weekly", "laps", "cup", "all-time", "minutes", "spare-1")
USERS = 24
"""More than the backends know: some users have rows only."""

VALUES = (1, 5, 20, 20, 60, 300)
ROWS_MAX = 12
LONG_AGO_MS = (1, 2, 3)
"""Times that a row may say: before any clock that is behind."""

PERHAPS = (OutcomeUnknown, Overloaded, LeaderDeposed, DiskFull)


@dataclass(frozen=True)
class Source:
    """What is imported. A source has one id, and is never changed."""

    import_id: str
    board_id: str
    merge: bool
    rows: tuple[ImportRow, ...]

    def piece(self, first: int, count: int) -> ImportRows:
        """Give the command for some of the rows."""
        rows = self.rows[first : first + count]
        return ImportRows(
            self.board_id, self.import_id, first, len(self.rows), f"of {self.import_id}", self.merge, rows, IMPORTER
        )


class Importer(Client):
    """See above."""

    def __init__(self, name: str, network: Network, dice: random.Random, books: Books, trace: Trace) -> None:
        super().__init__(name, network, dice, books, trace)
        self._sources: list[Source] = []
        self._next: dict[str, int] = {}

    async def work(self, until_s: float) -> None:
        """Import until a time."""
        pause_s = self._dice.choice([0.3, 1.0])
        while trio.current_time() < until_s:
            await trio.sleep(self._dice.expovariate(1 / pause_s))
            again = self._sources and self._dice.random() < 0.5
            await self._import(self._dice.choice(self._sources) if again else self._draw())

    def _draw(self) -> Source:
        """Make a source: each user at most once."""
        users = self._dice.sample([f"user-{number}" for number in range(USERS)], self._dice.randint(1, ROWS_MAX))
        rows = tuple(self._row(user) for user in users)
        merge = self._dice.random() < 0.8
        source = Source(f"import-{len(self._sources)}", self._dice.choice(BOARDS), merge, rows)
        self._sources.append(source)
        self._books.sources[source.import_id] = rows
        for row in rows:
            if row.display_name is not None:
                self._books.submitted_users.add((row.user_id, row.display_name, None))
        return source

    def _row(self, user: str) -> ImportRow:
        reached_ms = self._dice.choice(LONG_AGO_MS) if self._dice.random() < 0.4 else None
        name = f"Name {self._dice.randrange(5)}" if self._dice.random() < 0.2 else None
        return ImportRow(user, self._dice.choice(VALUES), reached_ms, name)

    async def _import(self, source: Source) -> None:
        """Send pieces until all rows are done, until it is refused, or until this importer is killed."""
        first = self._next.get(source.import_id, 0)
        while self._dice.random() < 0.85:
            known = self._next.get(source.import_id, 0)
            kind = self._dice.choices(["next", "again", "gap"], [12, 2, 1])[0]
            first = {"next": first, "again": 0, "gap": min(first + 1, len(source.rows) - 1)}[kind]
            outcome = await self._send(source.piece(first, self._dice.randint(1, 5)))
            if isinstance(outcome, Rejection):
                self._judge(source, first, known, outcome)
                if outcome.details["field"] != "firstRow":
                    return
                first = known
            elif isinstance(outcome, ImportReceipt):
                first = self._take(source, outcome)
                if first == len(source.rows):
                    return
            else:
                first = known

    async def _send(self, command: ImportRows) -> Outcome | None:
        try:
            outcome = await self._network.have(partial(_submit, command), TIMEOUT_S)
        except NoAnswer:
            outcome = None
        told = type(outcome).__name__
        self._trace.note(self.name, command.import_id, command.first_row, len(command.rows), told)
        return outcome

    def _take(self, source: Source, receipt: ImportReceipt) -> int:
        """Check a receipt: all that it calls done must be on disk. Give the row that comes next."""
        self._books.forward(self.name, (0, 0), (receipt.epoch, receipt.seq))
        plain = self._books.plain.imports.known.get(source.import_id)
        if plain is None or not plain.done >= receipt.rows_done >= self._next.get(source.import_id, 0):
            raise Broken(f"{receipt} was told, and it is {plain}")
        if (receipt.board_id, receipt.rows) != (source.board_id, len(source.rows)):
            raise Broken(f"{receipt} is the receipt of {source}")
        self._next[source.import_id] = receipt.rows_done
        self._books.counts["import pieces applied" if receipt.applied else "import pieces known before"] += 1
        self._books.counts["imports finished"] += receipt.applied > 0 and receipt.rows_done == receipt.rows
        return receipt.rows_done

    def _judge(self, source: Source, first: int, known: int, refusal: Rejection) -> None:
        """A refusal must have its reason in what the model knows."""
        books, field = self._books, refusal.details["field"]
        books.counts[f"import: {refusal.code} {field}"] += 1
        board, begun = books.plain.boards.get(source.board_id), books.plain.imports.known.get(source.import_id)
        if refusal.code == "CONFLICT":
            is_true = {
                "firstRow": first > known,
                "merge": not source.merge,
                "importId": begun is not None and board is not None and max(board.finals, default=0) > begun.begun.seq,
            }[str(field)]
        elif refusal.code == "BOARD_CLOSED":
            is_true = books.was_shut(source.board_id)
        else:
            is_true = refusal.code in {"NOT_FOUND", "BOARD_NOT_OPEN"}
        if not is_true:
            raise Broken(f"{source} was refused at row {first}: {refusal}")


async def _submit(command: ImportRows, process: Process) -> Outcome | None:
    """Have the leader's actor do it; None if it is not known whether it was done, or if nothing was."""
    actor = process.node.actor
    if actor is None or process.node.role.now.state is not State.LEADING:
        return None
    try:
        [outcome] = await actor.submit([command])
    except PERHAPS:
        return None
    return outcome
