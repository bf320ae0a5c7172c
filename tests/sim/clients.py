"""Backends and readers of a simulated run. Backends retry with the same actionId until they know the outcome.

They also do what they should not: they send an acknowledged action again, or with another content.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import trio

from server.http.messages import Request, Response
from tests.sim.boards import PLACES, RULES, draw_value
from tests.sim.books import Books, Broken, Content, content_of
from tests.sim.network import Network, NoAnswer
from tests.sim.process import STRANGER
from tests.sim.profile import Profile
from tests.sim.trace import Trace

TIMEOUT_S = 1.0


class Client:
    """A client that sends requests, and waits `timeout_s` for an answer."""

    timeout_s = TIMEOUT_S

    def __init__(self, name: str, network: Network, dice: random.Random, books: Books, trace: Trace) -> None:
        self.name = name
        self._network = network
        self._dice = dice
        self._books = books
        self._trace = trace
        self._position = (0, 0)

    async def _until_known(self, method: str, path: str, body: object = None) -> Response:
        """Send a request again and again until an answer tells its outcome."""
        while True:
            answer = await self._once(method, path, body)
            if answer is not None and answer.status != 503:
                return answer
            await trio.sleep(self._dice.uniform(0.0, 0.5))

    async def _once(self, method: str, path: str, body: object = None, token: str = "") -> Response | None:
        """Send a request; None if there is no answer."""
        path, _, query = path.partition("?")
        data = b"" if body is None else json.dumps(body).encode()
        headers = {"authorization": token} if token else {}
        try:
            answer = await self._network.ask(Request(method, path, query, headers, data), self.timeout_s)
        except NoAnswer:
            self._trace.note(self.name, method, path, "no answer")
            return None
        self._trace.note(self.name, method, path, answer.status)
        if self._books.audience_gone:
            return None
        if method == "GET" and answer.code == "DISK_FULL":
            raise Broken(f"{self.name} was told at {path} that the disk is full, but wanted only to read")
        if answer.code is not None:
            self._books.counts[answer.code] += answer.status in {500, 503}
        return answer

    def _see(self, answer: dict[str, Any]) -> None:
        """Note the position of an answer: it must be on disk."""
        self._books.forward(self.name, (0, 0), (answer["epoch"], answer["seq"]))


class Backend(Client):
    """Does a number of works, one after the other, and rests for about `rest_s` after each."""

    rest_s = 1.0
    kinds = (10, 3, 2, 3, 2)
    """How often a work is a new action, a known one, a known one with another content, a batch, a user."""

    async def work(self, profile: Profile) -> None:
        """Do them all."""
        users = [f"user-{number}" for number in range(profile.users)]
        for number in range(profile.works):
            kind = self._dice.choices(["new", "again", "other", "batch", "user"], self.kinds)[0]
            known = sorted(self._books.acknowledged)
            action_id = f"{self.name}-{number}"
            content = self._content(users)
            if kind == "batch":
                actions = [(f"{action_id}.{item}", self._content(users)) for item in range(self._dice.randint(1, 6))]
                if known:
                    actions.append(self._known(known))
                await self._batch([*actions, self._dice.choice(actions)])
            elif kind == "user":
                await self._user(self._dice.choice(users))
            elif kind == "again" and known:
                await self._increment(*self._known(known))
            elif kind == "other" and known:
                await self._increment(self._dice.choice(known), content)
            else:
                await self._increment(action_id, content)
            await trio.sleep(self._dice.expovariate(1 / self.rest_s))

    def _content(self, users: list[str]) -> Content:
        user = self._dice.choice(users)
        board_id, reason = self._dice.choice(PLACES)
        return user, board_id, reason, draw_value(self._dice, reason)

    def _known(self, known: list[str]) -> tuple[str, Content]:
        """Choose an acknowledged action, with its content."""
        action_id = self._dice.choice(known)
        return action_id, content_of(self._books.plain.actions[action_id])

    async def _increment(self, action_id: str, content: Content) -> None:
        self._books.submit(action_id, content)
        was_erased = self._books.is_erased(action_id)
        answer = await self._until_known("POST", "/scores/increment", body_of(action_id, content))
        self._settle(action_id, content, answer.status, json.loads(answer.body), was_erased)

    async def _batch(self, actions: list[tuple[str, Content]]) -> None:
        for action_id, content in actions:
            self._books.submit(action_id, content)
        erased = [self._books.is_erased(action_id) for action_id, _ in actions]
        body = [body_of(action_id, content) for action_id, content in actions]
        answer = await self._until_known("POST", "/scores/increment/batch", body)
        if answer.status != 200:
            raise Broken(f"a batch was answered with {answer.status}: {answer.body!r}")
        for (action_id, content), was_erased, item in zip(actions, erased, json.loads(answer.body), strict=True):
            self._settle(action_id, content, item["status"], item, was_erased)

    def _settle(self, action_id: str, content: Content, status: int, told: dict[str, Any], was_erased: bool) -> None:
        if status == 200:
            self._see(told)
            self._books.acknowledge(told, content, was_erased=was_erased)
        elif status in {400, 409, 410}:
            self._books.refuse(action_id, content, told["error"]["code"], was_erased=was_erased)
        else:
            raise Broken(f"{action_id} was answered with {status}: {told}")

    async def _user(self, user: str) -> None:
        name = self._dice.choice([None, f"Name {self._dice.randrange(5)}"])
        active = self._dice.choice([True, True, False]) if name is None else None
        self._books.submitted_users.add((user, name, active))
        body = {"displayName": name} if name is not None else {"active": active}
        answer = await self._until_known("PUT", f"/users/{quote(user)}", body)
        if answer.status != 200:
            raise Broken(f"a user was answered with {answer.status}: {answer.body!r}")
        self._see(json.loads(answer.body))


class Reader(Client):
    """Reads tops, scores and receipts, and checks that a board never goes back.

    `may_lag`: it reads at a node that may not know of the last events.
    """

    may_lag = False

    async def read(self, may_be_damaged: Any) -> None:
        """Read until cancelled. `may_be_damaged` tells whether a receipt may not be readable just now."""
        positions = dict.fromkeys(RULES.boards, (0, 0))
        while True:
            await trio.sleep(self._dice.expovariate(1.0))
            board_id = self._dice.choice(list(positions))
            answer = await self._once("GET", f"/scoreboard/top?limit=10&boardId={board_id}")
            if answer is not None and answer.status == 200:
                top = json.loads(answer.body)
                position = (top["epoch"], top["seq"])
                positions[board_id] = self._books.forward(self.name, positions[board_id], position)
                self._books.shown(board_id, top)
            known = sorted(self._books.acknowledged)
            if known:
                await self._receipt(self._dice.choice(known), may_be_damaged)

    async def _receipt(self, action_id: str, may_be_damaged: Any) -> None:
        """Ask for the receipt of an acknowledged action: it must be there, and must be the same."""
        event = self._books.plain.actions[action_id]
        token = self._dice.choice(["", STRANGER])
        frozen, was_erased = self._books.frozen_since(event), self._books.is_erased(action_id)
        answer = await self._once("GET", f"/actions/{quote(action_id)}", token=token)
        if answer is None or answer.status == 503:
            return
        if answer.status == 500 and may_be_damaged():
            self._books.counts["receipts in damage"] += 1
            return
        if answer.status != 200:
            raise Broken(f"the receipt of {action_id} was answered with {answer.status}: {answer.body!r}")
        told = json.loads(answer.body)
        if (told["epoch"], told["seq"]) != self._books.acknowledged[action_id]:
            raise Broken(
                f"{action_id} was acknowledged as {self._books.acknowledged[action_id]}, its receipt is {told}"
            )
        receipt = told["receipt"]
        if told["receiptStatus"] == "ERASED":
            if not self._books.is_erased(action_id) or receipt is not None:
                raise Broken(f"{action_id} was told to be erased: {told}")
            self._books.counts["receipts of erased users"] += 1
            return
        if was_erased and not self.may_lag:
            raise Broken(f"the user of {action_id} is erased, and its receipt is {told}")
        hidden = token == STRANGER and bool({*frozen} & {*self._books.frozen_since(event)})
        if hidden and receipt is not None:
            raise Broken(f"a stranger was told {receipt}, and what it did is hidden by a freeze")
        self._books.counts["receipts hidden by a freeze"] += told["receiptStatus"] == "FROZEN"
        if receipt is not None:
            same = (receipt["userId"], receipt["newScore"], receipt["seq"]) == (
                event.user_id,
                event.new_score,
                event.seq,
            )
            if not same:
                raise Broken(f"the receipt {receipt} is not the event {event}")
            self._books.counts["receipts read"] += 1


class ReplicaReader(Reader):
    """Reads at a replica: tops, and acknowledged actions, for which it asks the replica to wait.

    `follows` tells whether the node is still a replica.
    """

    may_lag = True

    def __init__(
        self, name: str, network: Network, dice: random.Random, books: Books, trace: Trace, follows: Callable[[], bool]
    ) -> None:
        super().__init__(name, network, dice, books, trace)
        self._follows = follows

    async def read(self, may_be_damaged: Any) -> None:
        """See `Reader`."""
        positions = dict.fromkeys(RULES.boards, (0, 0))
        while True:
            await trio.sleep(self._dice.expovariate(1.0))
            board_id = self._dice.choice(list(positions))
            actions = self._books.plain.actions
            known = [one for one in sorted(self._books.acknowledged) if actions[one].board_id == board_id]
            known = [one for one in known if 0 not in actions[one].held]  # what is held changes no board
            wanted = self._dice.choice(known) if known and self._dice.random() < 0.5 else None
            least = (0, 0) if wanted is None else self._books.acknowledged[wanted]
            answer = await self._once("GET", f"/scoreboard/top?limit=10&boardId={board_id}{_least(*least)}")
            if answer is not None and self._is_answered(answer):
                top = json.loads(answer.body)
                position = (top["epoch"], top["seq"])
                positions[board_id] = self._books.forward(self.name, positions[board_id], position)
                self._books.shown(board_id, top)
                if position < least and "frozenAt" not in top:
                    raise Broken(f"{self.name} asked for {least}, and was shown {position}")
                self._books.counts["reads of a replica"] += 1
                self._books.counts["stale reads"] += bool(top.get("stale"))
            if wanted is not None:
                await self._receipt(wanted, may_be_damaged)

    async def _once(self, method: str, path: str, body: object = None, token: str = "") -> Response | None:
        """See `Client`. A receipt is asked for with its position, which its replica may not have yet."""
        if path.startswith("/actions/"):
            action_id = unquote(path.removeprefix("/actions/"))
            path += "?" + _least(*self._books.acknowledged[action_id])[1:]
        answer = await super()._once(method, path, body, token)
        if answer is not None:
            names = {name for name, _ in answer.headers}
            lags = {"x-scoreboard-lag-records", "x-scoreboard-lag-ms"}
            if not names >= lags and self._follows():
                raise Broken(f"{self.name} was not told the lag: {answer.status} {answer.headers}")
        return answer

    def _is_answered(self, answer: Response) -> bool:
        """Whether a read was answered. A refusal may have only one reason."""
        if answer.status == 503 and answer.code == "REPLICA_BEHIND":
            self._books.counts["reads that came too early"] += 1
            return False
        if answer.status != 200:
            raise Broken(f"{self.name} was answered with {answer.status}: {answer.body!r}")
        return True


def _least(epoch: int, seq: int) -> str:
    return f"&minSeq={seq}&minEpoch={epoch}" if seq else ""


def body_of(action_id: str, content: Content) -> dict[str, Any]:
    user, board, reason, value = content
    body: dict[str, Any] = {"userId": user, "actionId": action_id, "boardId": board, "reason": reason}
    return body if value is None else body | {"value": value}
