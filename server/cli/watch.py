"""`scoreboard watch`: the live board in a terminal, or as lines without one.

It goes on for ever. A lost connection is opened again after a random wait whose bound doubles with each failure ("full
jitter"). So a thousand watchers of a restarted leader don't come back at once. Only an answer that will not change (a
wrong token, an unknown board) ends it.

A token from a file is read anew for each connection. So when it has expired, `watch` comes back with the new one, and
waits as long as the file has none. Without a file there is no other token, and `watch` ends.

Rule: what is shown is a pure function of the last message and the connection's state (`lines_of`, `table_of`).
"""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import click
import msgspec
import trio
from rich.live import Live
from rich.table import Table
from rich.text import Text
from trio_websocket import ConnectionClosed, ConnectionRejected, HandshakeError, WebSocketConnection, open_websocket_url

from server.cli.support import (
    BadUsage,
    CommandRefused,
    chosen_token,
    json_option,
    print_json,
    read_token,
    say,
    token_options,
)
from server.live.handshake import LIVE_PATH

CONNECT_SECONDS_MAX = 10.0
PING_SECONDS = 20.0
PONG_SECONDS_MAX = 20.0
MESSAGE_BYTES_MAX = 64 * 1024
RETRY_SECONDS_MIN = 0.5
RETRY_SECONDS_MAX = 30.0

Message = dict[str, Any]
Show = Callable[[Message | None, str], None]


class Headers:
    """The headers of each connection. The token of a file is read anew each time, the last good one counts."""

    def __init__(self, token: str, file: Path | None) -> None:
        self.may_change = file is not None
        self._file = file
        self._token = read_token(file) or token

    def __call__(self) -> list[tuple[bytes, bytes]]:
        with suppress(BadUsage):
            self._token = read_token(self._file) or self._token
        return [(b"Authorization", f"Bearer {self._token}".encode())] if self._token else []


@click.command()
@click.argument("url", default="http://127.0.0.1:8080")
@click.option("--board", default="main", show_default=True, metavar="BOARDID", help="Which board.")
@token_options
@click.option("--once", is_flag=True, help="Show the board as it is now and end.")
@json_option
def watch(url: str, board: str, token: str | None, token_file: Path | None, once: bool, as_json: bool) -> None:
    """Watch the top 10 of a board at URL (default http://127.0.0.1:8080) until Ctrl-C. Private ones need a token."""
    target = websocket_url(url, board)
    headers = Headers(*chosen_token(token, token_file))
    if as_json or once or not sys.stdout.isatty():
        refusal = trio.run(watch_board, target, headers, once, _show_json if as_json else _show_plain)
    else:
        with Live(auto_refresh=False) as live:

            def redraw(message: Message | None, state: str) -> None:
                live.update(table_of(message, state), refresh=True)

            refusal = trio.run(watch_board, target, headers, once, redraw)
    if refusal is not None:
        raise CommandRefused(refusal)


def websocket_url(url: str, board: str) -> str:
    """Make the address of the live channel. The address of the server is enough."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise click.BadParameter(f"{url!r} is not an address such as http://127.0.0.1:8080", param_hint="URL")
    path = parts.path if parts.path not in ("", "/") else LIVE_PATH
    return urlunsplit((scheme, parts.netloc, path, urlencode({"boardId": board}), ""))


def retry_seconds(failures: int, lot: float) -> float:
    """Give the wait after this many failures in a row. `lot` is random, from 0 to 1."""
    return lot * min(RETRY_SECONDS_MAX, RETRY_SECONDS_MIN * 2.0 ** min(failures, 10))


def lines_of(message: Message) -> str:
    rows = "  ".join(f"{row['rank']}. {_name(row)} {row['score']}" for row in message["entries"])
    return f"{message['generatedAt']}  {message['boardId']}  seq {message['seq']}  {rows or '(nobody yet)'}"


def table_of(message: Message | None, state: str) -> Table:
    title = "scoreboard" if message is None else f"{message['boardId']}, seq {message['seq']:,}"
    table = Table(title=Text(title), caption=Text(state))
    table.add_column("rank", justify="right")
    table.add_column("user", min_width=24)
    table.add_column("score", justify="right", min_width=10)
    for row in message["entries"] if message is not None else ():
        # `Text`, because square brackets in a name are no markup.
        table.add_row(str(row["rank"]), Text(_name(row)), f"{row['score']:,}")
    return table


def _name(row: Message) -> str:
    return str(row.get("displayName") or row["userId"])


def _show_json(message: Message | None, _state: str) -> None:
    if message is not None:
        print_json(message)
        sys.stdout.flush()


def _show_plain(message: Message | None, state: str) -> None:
    if message is None:
        say(state)
    else:
        click.echo(lines_of(message))
        sys.stdout.flush()


async def watch_board(url: str, headers: Headers, once: bool, show: Show) -> str | None:
    """Show the board until a signal or, with `once`, until the first message; give the reason if it can't go on."""
    refusal: str | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_on_signal, nursery.cancel_scope)
        refusal = await follow(url, headers, once, show)
        nursery.cancel_scope.cancel()
    return refusal


async def _cancel_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


async def follow(url: str, headers: Headers, once: bool, show: Show) -> str | None:
    """Connect again and again; return why it can't go on."""
    failures = 0
    last: Message | None = None

    def remember(message: Message | None, state: str) -> None:
        nonlocal failures, last
        failures, last = 0, message
        show(message, state)

    while True:
        try:
            trouble = await _one_connection(url, headers(), once, remember)
        except ConnectionRejected as error:
            trouble = f"the server answered {error.status_code}: {_reason(error)}"
            waits = error.status_code == 429 or (error.status_code == 401 and headers.may_change and last is not None)
            if 400 <= error.status_code < 500 and not waits:
                return trouble
        except (HandshakeError, OSError, trio.TooSlowError) as error:
            # trio-websocket's error is empty; its cause is not.
            trouble = str(error) or str(error.__cause__ or "") or "the server does not answer"
        if once:
            return None if last is not None else trouble
        wait_s = retry_seconds(failures, random.random())  # noqa: S311  # spreads load, guards nothing
        failures += 1
        # On a terminal the last board stays on the screen. Lines are printed only once.
        show(last if sys.stdout.isatty() else None, f"{trouble}; next try in {wait_s:.1f} s")
        await trio.sleep(wait_s)


def _reason(error: ConnectionRejected) -> str:
    """Give the message of the error answer, if it is in our format."""
    try:
        return str(msgspec.json.decode(error.body or b"")["error"]["message"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        return "no reason given"


async def _one_connection(url: str, headers: list[tuple[bytes, bytes]], once: bool, show: Show) -> str:
    """Show what one connection brings, until it is closed or falls silent. Give why it ended."""
    trouble = "the connection was closed"
    async with (
        open_websocket_url(
            url,
            subprotocols=["scoreboard.v1"],
            extra_headers=headers,
            max_message_size=MESSAGE_BYTES_MAX,
            connect_timeout=CONNECT_SECONDS_MAX,
            disconnect_timeout=1.0,
        ) as connection,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_ping, connection, nursery.cancel_scope)
        try:
            while True:
                show(msgspec.json.decode(await connection.get_message()), "live")
                if once:
                    break
        except ConnectionClosed as closed:
            if closed.reason is not None and closed.reason.reason:
                trouble += f": {closed.reason.reason}"
        nursery.cancel_scope.cancel()
    return trouble


async def _ping(connection: WebSocketConnection, scope: trio.CancelScope) -> None:
    """End a connection whose other side does not answer pings."""
    try:
        while True:
            await trio.sleep(PING_SECONDS)
            with trio.fail_after(PONG_SECONDS_MAX):
                await connection.ping()
    except (ConnectionClosed, trio.TooSlowError):
        scope.cancel()
