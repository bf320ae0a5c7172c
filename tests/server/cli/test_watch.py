"""`scoreboard watch`, against a small WebSocket server of our own."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import click
import pytest
import trio
from rich.console import Console
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from server.cli import watch
from server.cli.watch import Message, lines_of, retry_seconds, table_of, watch_board, websocket_url

Handler = Callable[[WebSocketRequest], Awaitable[None]]


def message(kind: str, seq: int, *rows: Message) -> Message:
    """A message as the live channel sends it."""
    return {
        "type": f"scoreboard_{kind}",
        "entries": list(rows),
        "generatedAt": "2025-12-15T12:34:56.000Z",
        "boardId": "main",
        "epoch": 1,
        "seq": seq,
    }


ALICE: Message = {"userId": "u1", "displayName": "Alice [bold]", "score": 1500, "rank": 1}
BOB: Message = {"userId": "bob", "score": 20, "rank": 2}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/ws/scoreboard?boardId=main"),
        ("localhost:8080", "ws://localhost:8080/ws/scoreboard?boardId=main"),
        ("https://scores.example/", "wss://scores.example/ws/scoreboard?boardId=main"),
        ("wss://scores.example/live", "wss://scores.example/live?boardId=main"),
    ],
)
def test_the_servers_address_is_enough(url: str, expected: str) -> None:
    """Scheme and path are added if they are missing."""
    assert websocket_url(url, "main") == expected


@pytest.mark.parametrize("url", ["ftp://x", "http://", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    """It is a usage error."""
    with pytest.raises(click.UsageError):
        websocket_url(url, "main")


def test_waits_double_up_to_a_bound_and_are_drawn_by_lot() -> None:
    """The random factor scales the whole wait, so a crowd spreads over all of it."""
    assert [retry_seconds(failures, 1.0) for failures in range(4)] == [0.5, 1.0, 2.0, 4.0]
    assert retry_seconds(1000, 1.0) == 30.0
    assert retry_seconds(3, 0.0) == 0.0


def test_a_message_is_one_line() -> None:
    """With the display name if there is one, else with the id."""
    assert lines_of(message("update", 7, ALICE, BOB)) == (
        "2025-12-15T12:34:56.000Z  main  seq 7  1. Alice [bold] 1500  2. bob 20"
    )


def test_the_table_shows_board_and_state_and_takes_names_literally() -> None:
    """A name that looks like markup of the terminal library is shown as it is."""
    console = Console(width=80, file=None, record=True)
    with console.capture() as captured:
        console.print(table_of(message("update", 7, ALICE, BOB), "live"))
    for text in ("main, seq 7", "Alice [bold]", "1,500", "bob", "live"):
        assert text in captured.get()


def shown_in(shown: list[Message]) -> watch.Show:
    """Collect the messages."""

    def show(one: Message | None, _state: str) -> None:
        if one is not None:
            shown.append(one)

    return show


async def watch_against(handler: Handler, *, once: bool, enough: int = 1) -> tuple[list[Message], str | None]:
    """Serve with `handler` and watch, until the watcher ends or has shown `enough`; give what it showed."""
    shown: list[Message] = []
    refusal = None
    collect = shown_in(shown)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_websocket, handler, "127.0.0.1", 0, None)

            def show(one: Message | None, state: str) -> None:
                collect(one, state)
                if not once and len(shown) >= enough:
                    nursery.cancel_scope.cancel()

            refusal = await watch_board(f"ws://127.0.0.1:{server.port}/ws/scoreboard", [], once, show)
            nursery.cancel_scope.cancel()
    return shown, refusal


async def test_once_shows_the_first_message_and_ends() -> None:
    """The snapshot is enough."""

    async def handler(request: WebSocketRequest) -> None:
        connection = await request.accept(subprotocol="scoreboard.v1")
        await connection.send_message(json.dumps(message("snapshot", 1, BOB)))
        with pytest.raises(ConnectionClosed):
            await connection.get_message()

    shown, refusal = await watch_against(handler, once=True)
    assert refusal is None
    assert [one["seq"] for one in shown] == [1]


async def test_a_lost_connection_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server closes after each message; the watcher comes back for the next."""
    monkeypatch.setattr(watch, "RETRY_SECONDS_MIN", 0.0)
    seq = 0

    async def handler(request: WebSocketRequest) -> None:
        nonlocal seq
        connection = await request.accept()
        seq += 1
        await connection.send_message(json.dumps(message("snapshot", seq)))
        await connection.aclose(1012)

    shown, refusal = await watch_against(handler, once=False, enough=3)
    assert refusal is None
    assert [one["seq"] for one in shown] == [1, 2, 3]


async def test_an_answer_that_will_not_change_ends_it_with_its_reason() -> None:
    """401 and similar answers are told once. They are not tried again."""

    async def handler(request: WebSocketRequest) -> None:
        body = json.dumps({"error": {"code": "UNAUTHENTICATED", "message": "A token is needed.", "details": {}}})
        await request.reject(401, body=body.encode())

    shown, refusal = await watch_against(handler, once=False)
    assert shown == []
    assert refusal == "the server answered 401: A token is needed."


async def test_once_says_why_there_is_nothing() -> None:
    """Without a server there is one sentence, and no waiting."""
    with trio.fail_after(30):
        refusal = await watch_board("ws://127.0.0.1:1/ws/scoreboard", [], once=True, show=shown_in([]))
    assert refusal
