"""A real leader that is watched: by a thread, on asyncio and on Trio."""

from __future__ import annotations

import anyio
import pytest
from board_server import BACKENDS, Server

from scoreboard_client import AsyncScoreboard, InvalidRequest, Scoreboard


def test_a_thread_sees_each_change(server: Server, board_id: str) -> None:
    """The state of now first; closing gives the connection back."""
    with Scoreboard(server.url, token=server.bearer()) as scoreboard:
        board = scoreboard.board(board_id)
        with board.watch() as states:
            first = next(states)
            assert (first.kind, first.entries, first.board_id) == ("snapshot", (), board_id)
            receipt = board.increment("bob", action_id=f"{board_id}-1")
            state = next(states)
            assert (state.kind, state.position) == ("update", receipt.position)
            assert [(row.user_id, row.score) for row in state.entries] == [("bob", 10)]
        with pytest.raises(StopIteration):
            next(states)
        with pytest.raises(InvalidRequest):
            next(scoreboard.board("no-such-board").watch())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_task_sees_each_change(server: Server, board_id: str, backend: str) -> None:
    """And can be cancelled while it waits."""

    async def main() -> None:
        async with AsyncScoreboard(server.url, token=server.bearer()) as scoreboard:
            board = scoreboard.board(board_id)
            seen = []
            async with board.watch() as states:
                async for state in states:
                    seen.append([row.score for row in state.entries])
                    if len(seen) == 3:
                        break
                    await board.increment("bob", action_id=f"{board_id}-{len(seen)}")
            assert seen == [[], [10], [20]]
            states = board.watch()
            await states.__anext__()
            with anyio.move_on_after(0.05) as scope:
                await states.__anext__()
            assert scope.cancelled_caught
            with pytest.raises(StopAsyncIteration):
                await states.__anext__()

    anyio.run(main, backend=backend)
