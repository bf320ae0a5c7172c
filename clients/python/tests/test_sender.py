"""A real leader and an outbox: in a thread, on asyncio and on Trio."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from board_server import BACKENDS, Server, free_port

from scoreboard_client import AsyncScoreboard, ClientClosed, Held, Outbox, Scoreboard, SetAside
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


def test_a_drain_waits_for_the_sender_that_is_at_work(server: Server, board_id: str, tmp_path: Path) -> None:
    """Its own thread, or one of another client with a file of its own."""
    outbox, other = Outbox(tmp_path / "outbox.db"), Outbox(tmp_path / "outbox.db")
    with Scoreboard(server.url, token=server.bearer()) as scoreboard, scoreboard.sender(outbox) as sender:
        for number, waits in enumerate((sender, scoreboard.sender(other))):
            outbox.put("bob", action_id=f"{board_id}-{number}", board_id=board_id)
            waits.drain(deadline_s=ALARM_SECONDS)
            assert outbox.count() == 0
        assert scoreboard.board(board_id).score("bob").score == 20


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_drain_waits_for_the_task_that_is_at_work(
    server: Server, board_id: str, tmp_path: Path, backend: str
) -> None:
    """The same on asyncio and Trio."""
    outbox = Outbox(tmp_path / "outbox.db")

    async def main() -> None:
        async with AsyncScoreboard(server.url, token=server.bearer()) as scoreboard, anyio.create_task_group() as tasks:
            sender = scoreboard.sender(outbox)
            tasks.start_soon(sender.run)
            outbox.put("bob", action_id=f"{board_id}-1", board_id=board_id)
            await anyio.lowlevel.checkpoint()
            await sender.drain(deadline_s=ALARM_SECONDS)
            assert outbox.count() == 0
            tasks.cancel_scope.cancel()

    anyio.run(main, backend=backend)


def test_a_closed_client_says_so(tmp_path: Path) -> None:
    """A call, a stream and a sender."""
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.put("bob", action_id="a1")
    scoreboard = Scoreboard("http://127.0.0.1:1")
    scoreboard.close()
    with pytest.raises(ClientClosed, match="closed"):
        scoreboard.board().top()
    with pytest.raises(ClientClosed), scoreboard.board().watch() as states:
        next(iter(states))
    with pytest.raises(ClientClosed):
        scoreboard.sender(outbox).drain()
    assert outbox.count() == 1

    async def main() -> None:
        async with AsyncScoreboard("http://127.0.0.1:1") as scoreboard:
            pass
        with pytest.raises(ClientClosed):
            await scoreboard.board().top()

    anyio.run(main)


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
