"""The peer for the fan-out: the `websockets` library and its `broadcast`, which was made for one message to everybody.

    python -m bench.peers.websockets_broadcast MESSAGE_FILE [asyncio|uvloop]

Prints its port; a line on standard input makes it send the message to every client. Without permessage-deflate, which
would cost it time that nobody here asks for. With pings, which the library sends by default, as often as this project
sends its own: both then find out who is dead.
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
        os._exit(0)  # to close tens of thousands of connections one by one is not what is measured


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
