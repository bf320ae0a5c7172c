"""The peer for the fan-out: the `websockets` library and its `broadcast`, made for one message to every client.

    python -m bench.peers.websockets_broadcast MESSAGE_FILE [asyncio|uvloop]

It prints its port; a line on standard input makes it send the message to every client. It runs without
permessage-deflate, which would cost time and which no client here asks for. It sends pings, as the library does by
default, and as often as this project: so both find dead clients.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, broadcast, serve

BACKLOG = 4_096
PING_SECONDS = 25.0
SILENCE_SECONDS_MAX = 60.0


async def run(message: str) -> None:
    """Serve until standard input ends."""
    clients: set[ServerConnection] = set()
    ended = asyncio.Event()

    async def stay(client: ServerConnection) -> None:
        clients.add(client)
        try:
            await client.wait_closed()
        finally:
            clients.discard(client)

    def hear() -> None:
        if os.read(0, 4_096):
            broadcast(clients, message)
        else:
            ended.set()

    options: dict[str, Any] = {"compression": None, "backlog": BACKLOG}
    options |= {"ping_interval": PING_SECONDS, "ping_timeout": SILENCE_SECONDS_MAX}
    async with serve(stay, "127.0.0.1", 0, **options) as server:
        asyncio.get_running_loop().add_reader(0, hear)
        print(server.sockets[0].getsockname()[1], flush=True)
        await ended.wait()
        os._exit(0)  # the bench does not measure how thousands of connections are closed


def main() -> None:
    """Run on the event loop that is asked for."""
    message = Path(sys.argv[1]).read_text(encoding="utf-8")
    if sys.argv[2:] == ["uvloop"]:
        import uvloop  # noqa: PLC0415  # only where it is asked for

        uvloop.run(run(message))
    else:
        asyncio.run(run(message))


if __name__ == "__main__":
    main()
