"""`scoreboard watch`, against a small WebSocket server of our own."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import pytest
import trio
from click.testing import CliRunner, Result
from rich.console import Console
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from server.cli import watch
from server.cli.support import chosen_token, token_options
from server.cli.watch import Message, lines_of, retry_seconds, table_of, watch_board, websocket_url

NO_TOKEN = watch.Headers("", None)

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


async def watch_against(
    handler: Handler, *, once: bool, enough: int = 1, headers: watch.Headers | None = None
) -> tuple[list[Message], str | None]:
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

            refusal = await watch_board(
                f"ws://127.0.0.1:{server.port}/ws/scoreboard", headers or watch.Headers("", None), once, show
            )
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


async def test_with_a_token_file_it_comes_back_with_the_new_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token expires (1008), the old one is refused, and the file gets a new one: the board is shown again."""
    monkeypatch.setattr(watch, "RETRY_SECONDS_MIN", 0.0)
    file = tmp_path / "token"
    file.write_text("old\n")
    came: list[str] = []

    async def handler(request: WebSocketRequest) -> None:
        token = dict(request.headers)[b"authorization"].decode().removeprefix("Bearer ")
        came.append(token)
        if token == "old" and came.count("old") == 2:
            file.write_text("new\n")
            body = json.dumps({"error": {"code": "UNAUTHENTICATED", "message": "Expired.", "details": {}}})
            await request.reject(401, body=body.encode())
            return
        connection = await request.accept()
        await connection.send_message(json.dumps(message("snapshot", len(came))))
        await connection.aclose(1008, "token expired")

    shown, refusal = await watch_against(handler, once=False, enough=2, headers=watch.Headers("", file))
    assert refusal is None
    assert came == ["old", "old", "new"]
    assert [one["seq"] for one in shown] == [1, 3]


def test_a_token_and_a_file_of_it_are_refused_together(tmp_path: Path) -> None:
    """Both variables, or both flags. A flag goes before the variable of the other, as everywhere."""
    file = tmp_path / "token"
    file.write_text("from-file")

    def chosen(*arguments: str, **env: str) -> Result:
        @click.command()
        @token_options
        def verb(token: str | None, token_file: Path | None) -> None:
            click.echo(chosen_token(token, token_file))

        return CliRunner(env=env).invoke(verb, arguments)

    for refused in (
        chosen("--token", "a", "--token-file", str(file)),
        chosen(SCOREBOARD_TOKEN="a", SCOREBOARD_TOKEN_FILE=str(file)),
    ):
        assert refused.exit_code == 2
        assert "--token (SCOREBOARD_TOKEN) and --token-file (SCOREBOARD_TOKEN_FILE)" in refused.output
    assert "('a', None)" in chosen("--token", "a", SCOREBOARD_TOKEN_FILE=str(file)).output
    assert "('', PosixPath" in chosen("--token-file", str(file), SCOREBOARD_TOKEN="a").output
    assert "('', PosixPath" in chosen(SCOREBOARD_TOKEN_FILE=str(file)).output


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
        refusal = await watch_board("ws://127.0.0.1:1/ws/scoreboard", NO_TOKEN, once=True, show=shown_in([]))
    assert refusal
