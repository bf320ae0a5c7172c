"""A backend: it reports actions and names, and runs boards, with its token. Any answer but 200 fails the test."""

from __future__ import annotations

import itertools
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from tests.e2e.leader import ALARM_SECONDS, token


class Backend:
    """A client of the leader at `port`."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token('scores:write', 'users:write', 'boards:write')}"},
            timeout=ALARM_SECONDS,
            trust_env=False,
        )
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Backend:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def report(self, user_id: str, *, reason: str = "ACTION_COMPLETED", board_id: str = "main") -> None:
        """Report one action of a user."""
        action = {
            "userId": user_id,
            "actionId": f"{self.url}-{next(self._numbers)}-{user_id}",
            "reason": reason,
            "boardId": board_id,
        }
        (await self._http.post("/scores/increment", json=action)).raise_for_status()

    async def report_many(self, counts: dict[str, int], *, board_id: str = "main") -> None:
        """Report a number of actions of each user, in this order, as one batch."""
        actions = [
            {"userId": user_id, "actionId": f"{self.url}-{next(self._numbers)}-{user_id}", "boardId": board_id}
            for user_id, count in counts.items()
            for _ in range(count)
        ]
        answer = await self._http.post("/scores/increment/batch", json=actions)
        answer.raise_for_status()
        assert {item["status"] for item in answer.json()} == {200}

    async def name(self, user_id: str, display_name: str) -> None:
        """Give a user a display name."""
        await self._put(f"/users/{quote(user_id, safe='')}", {"displayName": display_name})

    async def show(self, user_id: str, *, active: bool) -> None:
        """Take a user off all boards, or put the user back."""
        await self._put(f"/users/{quote(user_id, safe='')}", {"active": active})

    async def board(self, board_id: str, **rules: Any) -> dict[str, Any]:
        """Make or change a board; gives what the server says of it."""
        return await self._put(f"/boards/{board_id}", {"points": {"ACTION_COMPLETED": 10, "BONUS": 1500}, **rules})

    async def order(self, board_id: str, verb: str, **body: Any) -> None:
        """Freeze, unfreeze, reveal or reset a board."""
        (await self._http.post(f"/boards/{board_id}/{verb}", json=body)).raise_for_status()

    async def _put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self._http.put(path, json=body)
        answer.raise_for_status()
        given: dict[str, Any] = answer.json()
        return given
