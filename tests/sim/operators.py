"""An operator of boards in a simulated run, and a reader of what boards show beside their present rows.

The operator puts rules, freezes, unfreezes, reveals, resets and closes boards by chance, in most of the runs, and may
not wait for an answer. At the end `rest` closes each board to which something would happen by itself, so that the nodes
come to one state and stay there.

The reader asks for past periods, of the public and of the present, and for the present of frozen boards. The public may
know only of periods that ended before a freeze, in files or in memory, on any node.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import trio
from msgspec.structs import replace

from engine.board_rules import BoardRules
from engine.events import BoardEvent
from server.live.encoding import iso_ms
from server.settings.board_form import form_of
from tests.sim.boards import BOARDS, SPARE, draw_rules
from tests.sim.books import Books, Broken
from tests.sim.clients import Client
from tests.sim.network import DELAY_S_MAX, Network
from tests.sim.profile import START_MS
from tests.sim.trace import Trace

OPERATOR = "operator"
"""The name of its generators, so the dice of all others fall as without it."""

WORKS = 0.7
"""So often a run has one that works."""

VERBS = ("freeze", "freeze later", "unfreeze", "reveal", "reset", "put", "close")
WEIGHTS = (4, 1, 4, 6, 3, 3, 1)
LATER_MS = (500, 2_000, 6_000)
EXPECTED = {200, 201, 400, 404, 409, 410}


class Operator(Client):
    """See above."""

    def __init__(
        self, name: str, network: Network, dice: random.Random, books: Books, trace: Trace, *, busy: bool = False
    ) -> None:
        """`busy`: freezes the board that has periods more often, and makes boards on which the last action counts."""
        super().__init__(name, network, dice, books, trace)
        self._busy = busy
        self._done = trio.Event()

    async def work(self, until_s: float) -> None:
        """Change boards until a time."""
        works = self._dice.random() < WORKS or self._busy
        pause_s = self._dice.choice([0.3, 1.0, 3.0])
        if self._busy:
            await self._put(SPARE[0])
        while works and trio.current_time() < until_s:
            await trio.sleep(self._dice.expovariate(1 / pause_s))
            verb = self._dice.choices(VERBS, WEIGHTS)[0]
            board_id = self._dice.choice(self._boards_for(verb))
            if self._busy and verb in {"freeze", "reveal"} and self._dice.random() < 0.5:
                board_id = "minutes"
            if (verb == "close" and board_id not in SPARE) or (verb == "put" and board_id == "main"):
                continue  # others watch it, and count on it to the end
            await self._do(verb, board_id)
        self._done.set()

    def _boards_for(self, verb: str) -> Sequence[str]:
        """List the boards for which a verb makes sense; any board, now and then."""
        if self._dice.random() < 0.2:
            return BOARDS
        if verb in {"put", "close"}:
            return SPARE
        boards = self._books.plain.boards.items()
        frozen = [board_id for board_id, board in boards if board.frozen_face is not None]
        return frozen if frozen and verb in {"reveal", "unfreeze"} else BOARDS

    async def rest(self) -> None:
        """Close the boards to which something would happen by itself, once no request is on its way any more."""
        await self._done.wait()
        await trio.sleep(DELAY_S_MAX)
        for board_id in BOARDS:
            board = self._books.plain.boards.get(board_id)
            while board is not None and board.definition is not None and board.definition.due_ms is not None:
                if board.definition.freeze_at_ms is not None:
                    self._books.order("unfreeze", board_id, None)
                    await self._until_known("POST", f"/boards/{board_id}/unfreeze")
                    continue
                self._books.order("close", board_id, None)
                await self._until_known("DELETE", f"/boards/{board_id}")

    async def _do(self, verb: str, board_id: str) -> None:
        method, path = "POST", f"/boards/{board_id}/{verb}"
        body: object = None
        order: object = None
        if verb == "freeze later":
            verb, path = "freeze", f"/boards/{board_id}/freeze"
            at_ms = self._now_ms() + self._dice.choice(LATER_MS)
            order, body = at_ms, {"at": iso_ms(at_ms)}
        elif verb == "reveal":
            order = self._dice.choice([1, 1, 2, 20])
            body = {"step": order}
        elif verb == "reset" and self._dice.random() < 0.5:
            board = self._books.plain.boards.get(board_id)
            order = "another" if board is None or board.period is None else board.period.id
            body = {"period": order}
        elif verb == "put":
            await self._put(board_id)
            return
        elif verb == "close":
            method, path = "DELETE", f"/boards/{board_id}"
        self._books.order(verb, board_id, order)
        await self._send(verb, board_id, method, path, body)

    def _now_ms(self) -> int:
        """Give the time of the last event: the clock of the leader may be wrong."""
        events = self._books.plain.events
        return events[-1].time_ms if events else START_MS

    async def _put(self, board_id: str) -> None:
        board = self._books.plain.boards.get(board_id)
        old = None if board is None or board.definition is None else board.definition.rules
        rules: BoardRules = draw_rules(self._dice, old, self._now_ms())
        if self._busy and old is None:
            rules = replace(rules, score="last")
        self._books.order("put", board_id, rules)
        await self._send("put", board_id, "PUT", f"/boards/{board_id}", msgspec.to_builtins(form_of(rules)))

    async def _send(self, verb: str, board_id: str, method: str, path: str, body: object) -> None:
        answer = await self._once(method, path, body)
        if answer is None or answer.status == 503:
            return
        if answer.status not in EXPECTED:
            raise Broken(f"{method} {path} {body} was answered with {answer.status}: {answer.body!r}")
        if answer.status > 201:
            self._books.counts[f"{verb}: {answer.code}"] += 1
            return
        told = json.loads(answer.body)
        self._see(told)
        self._books.counts[verb if told["applied"] else f"{verb}: nothing to do"] += 1
        if told["applied"]:
            event = self._books.plain.events[told["seq"] - 1]
            if not isinstance(event, BoardEvent) or event.board_id != board_id:
                raise Broken(f"{verb} of {board_id} was acknowledged as seq {told['seq']}: {event}")


class BoardReader(Client):
    """Reads past periods, and the present of boards that may be frozen. `node` is for the figures."""

    def __init__(self, name: str, network: Network, dice: random.Random, books: Books, trace: Trace) -> None:
        super().__init__(name, network, dice, books, trace)
        self._last: dict[tuple[str, str], int] = {}

    async def read(self) -> None:
        """Read until cancelled."""
        while True:
            await trio.sleep(self._dice.expovariate(0.7))
            board_id = self._dice.choice(["minutes", "minutes", *BOARDS])
            view = self._dice.choice(["", "", "&view=live"])
            if self._dice.random() < 0.4:
                await self._present(board_id)
            else:
                await self._previous(board_id, view)

    async def _present(self, board_id: str) -> None:
        answer = await self._once("GET", f"/scoreboard/top?limit=10&boardId={board_id}&view=live")
        if answer is not None and answer.status == 200:
            self._books.shown(board_id, self._seen(answer.body), live=True)

    async def _previous(self, board_id: str, view: str) -> None:
        answer = await self._once("GET", f"/scoreboard/top?limit=10&boardId={board_id}&period=previous{view}")
        if answer is None:
            return
        if answer.status == 200:
            told = self._seen(answer.body)
            self._books.shown_past(board_id, told, live=bool(view), whole=False)
            last = self._last.get((board_id, view), 0)
            if told["seq"] < last and not self._books.audience_gone:
                raise Broken(f"{self.name} saw the period until {last}, and then the one until {told['seq']}")
            self._last[board_id, view] = told["seq"]
        elif answer.code == "PERIOD_UNAVAILABLE":
            self._books.counts["past periods that were not there"] += 1
        elif answer.status not in {400, 404, 503}:  # it has no past period, or is not there at all
            raise Broken(f"{self.name} was answered with {answer.status}: {answer.body!r}")

    def _seen(self, body: bytes) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(body)
        self._see(told)
        return told
