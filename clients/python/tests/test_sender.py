"""A real leader and an outbox: in a thread, on asyncio and on Trio."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from board_server import BACKENDS, Server, free_port

from scoreboard_client import AsyncScoreboard, Held, Outbox, Scoreboard, SetAside
from tests.e2e.leader import ALARM_SECONDS


def test_a_thread_sends_what_others_put_in(server: Server, board_id: str, tmp_path: Path) -> None:
    """Poison is set aside and told; the rest counts in its order."""
    outbox = Outbox(tmp_path / "outbox.db")
    told: list[object] = []
    aside = threading.Event()

    def tell(one: object) -> None:
        told.append(one)
        aside.set()

    with Scoreboard(server.url, token=server.bearer()) as scoreboard:
        for number in range(3):
            outbox.put("bob", action_id=f"{board_id}-{number}", board_id=board_id)
        with scoreboard.sender(outbox, told=tell):
            outbox.put("bob", action_id=f"{board_id}-poison", board_id=board_id, reason="NO_SUCH")
            assert aside.wait(ALARM_SECONDS)
        outbox.put("ann", action_id=f"{board_id}-last", board_id=board_id)
        assert scoreboard.sender(outbox).drain() == 1
        top = scoreboard.board(board_id).top()
    assert [(row.user_id, row.score) for row in top.entries] == [("bob", 30), ("ann", 10)]
    (poison,) = told
    assert isinstance(poison, SetAside)
    assert (poison.action.action_id, poison.status) == (f"{board_id}-poison", 400)
    assert outbox.set_aside() == [poison]
    assert outbox.count() == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_task_sends_until_it_is_cancelled(server: Server, board_id: str, tmp_path: Path, backend: str) -> None:
    """Another sender takes its place at once."""
    outbox = Outbox(tmp_path / "outbox.db")

    async def main() -> None:
        async with AsyncScoreboard(server.url, token=server.bearer()) as scoreboard:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(scoreboard.sender(outbox).run)
                outbox.put("bob", action_id=f"{board_id}-1", board_id=board_id)
                with anyio.fail_after(ALARM_SECONDS):
                    while await anyio.to_thread.run_sync(outbox.count):  # noqa: ASYNC110  # the file tells nobody
                        await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()
            outbox.put("bob", action_id=f"{board_id}-2", board_id=board_id)
            assert await scoreboard.sender(outbox).drain() == 1
            assert (await scoreboard.board(board_id).score("bob")).score == 20

    anyio.run(main, backend=backend)


def test_a_board_that_is_down_holds_and_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without `told` a warning says so. A sender that is stopped ends at once."""
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.put("bob", action_id="a1")
    told: list[object] = []
    down = threading.Event()

    def tell(one: object) -> None:
        told.append(one)
        down.set()

    with Scoreboard(f"http://127.0.0.1:{free_port()}") as scoreboard:
        with scoreboard.sender(outbox, told=tell):
            assert down.wait(ALARM_SECONDS)
        assert isinstance(told[0], Held)
        assert outbox.count() == 1
        with caplog.at_level(logging.WARNING, "scoreboard_client"):
            sender = scoreboard.sender(outbox)
            with sender:
                while not caplog.records:
                    down.wait(0.01)
                    down.clear()
        assert "after 1 attempts; 1 or more actions wait" in caplog.text
        assert "bob" not in caplog.text
