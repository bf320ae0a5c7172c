"""The way of an increment, traced in the process that production starts, and README's drawing of it.

A room is a file of ours in which a function is called between the accept and the write of the answer. What the actor
does with its frame (deciding, the log, applying, telling others) is the engine's own house, and is not counted.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import trio

from tests.e2e import leader as outside
from tests.server.node.test_start import config_of, serve_and_use

ROOT = Path(__file__).parents[2]

EXPRESS = {
    "server/lanes/express_loop",
    "server/api/pipeline",
    "server/access/auth",
    "server/api/increments",
    "server/api/decoding",
    "engine/actions",
    "engine/table",
    "server/access/rates",
    "engine/actor",
    "server/metrics",
    "server/http/response_head",
}
"""The ordinary way: a kept connection, with a head that is remembered."""

FIRST = {
    "server/lanes/listener",
    "server/lanes/express",
    "server/http/connection",
    "server/http/request_parser",
    "server/http/client_address",
    "server/http/admission",
    "server/http/messages",
}
"""What the first request of a connection enters beside, before its connection is given to the loop."""

OTHER = {
    "server/lanes/listener",
    "server/lanes/hypercorn_lane",
    "server/lanes/hypercorn_pipe",
    "server/lanes/quart_app",
    "server/http/connection",
    "server/http/request_parser",
    "server/http/client_address",
    "server/http/messages",
}
"""What a request through Hypercorn enters beside the pipeline's rooms."""


class Trace:
    """Notes the rooms that are entered while it is `on`."""

    def __init__(self) -> None:
        self.on = False
        self.rooms: list[str] = []

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        """Take a call of a function (`sys.setprofile`)."""
        code = frame.f_code
        if event != "call" or not self.on or not code.co_filename.startswith(f"{ROOT}/"):
            return
        room = code.co_filename.removeprefix(f"{ROOT}/").removesuffix(".py")
        if room.split("/")[0] not in ("engine", "server", "snapshots") or _is_resumed(frame):
            return
        caller: FrameType | None = frame
        while caller is not None:
            if caller.f_code.co_name == "_write_frame" and caller is not frame:
                return
            caller = caller.f_back
        if room == "engine/threads":  # Trio lets go of the log's thread outside of it
            return
        if room not in self.rooms:
            self.rooms.append(room)

    @contextmanager
    def noting(self) -> Iterator[list[str]]:
        """Note what is entered within."""
        self.rooms = []
        self.on = True
        yield self.rooms
        self.on = False


def _is_resumed(frame: FrameType) -> bool:
    """Whether a coroutine goes on, in whose room we have been all the time. RESUME says so in its argument."""
    return frame.f_lasti >= 0 and bool(frame.f_code.co_code[frame.f_lasti + 1] & 3)


def post(number: int, token: str) -> bytes:
    body = b'{"userId":"ann","actionId":"a%d"}' % number
    head = b"POST /scores/increment HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % token.encode()
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


async def ask(stream: trio.SocketStream, request: bytes) -> None:
    """Send a request, and read its answer."""
    await stream.send_all(request)
    answer = b""
    while not answer.endswith(b"}"):
        answer += await stream.receive_some(2**16)
    assert answer.startswith(b"HTTP/1.1 200 ")


async def ways_of(directory: Path) -> dict[str, set[str]]:
    """Trace increments of a token that is known already, on each lane.

    Periodic tasks may run meanwhile. So a way has what each of three increments entered.
    """
    trace = Trace()
    ways: dict[str, set[str]] = {}
    numbers = count()
    token = outside.token("scores:write")

    def note(way: str, rooms: list[str]) -> None:
        ways[way] = ways[way] & set(rooms) if way in ways else set(rooms)

    async def use(url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        async with await trio.open_tcp_stream(host, int(port)) as warm:
            for _ in range(3):
                await ask(warm, post(next(numbers), token))
            for _ in range(3):
                with trace.noting() as rooms:
                    await ask(warm, post(next(numbers), token))
                note("express", rooms)
                with trace.noting() as rooms:
                    async with await trio.open_tcp_stream(host, int(port)) as cold:
                        await ask(cold, post(next(numbers), token))
                note("first", rooms)
        async with await trio.open_tcp_stream(host, int(port)) as other:
            await ask(other, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            for _ in range(3):
                with trace.noting() as rooms:
                    await ask(other, post(next(numbers), token))
                note("other", rooms)
        signal.raise_signal(signal.SIGTERM)

    sys.setprofile(trace)
    try:
        assert await serve_and_use(config_of(directory), use) == 0
    finally:
        sys.setprofile(None)
    return ways


async def test_an_increment_enters_these_rooms_and_no_others(tmp_path: Path) -> None:
    """Nine on the ordinary way, and two to see whether the action is a repeat.

    Seven more for the first request of a connection, eight for Hypercorn.
    """
    ways = await ways_of(tmp_path / "data")
    assert ways["express"] == EXPRESS
    assert len(EXPRESS) == 11
    assert ways["first"] - EXPRESS <= FIRST
    assert ways["other"] - EXPRESS <= OTHER | {"server/http/admission"}


def test_the_drawing_in_the_readme_names_rooms_that_are_entered() -> None:
    """Each file that the drawing names is on one of the ways."""
    text = (ROOT / "README.md").read_text()
    drawing = text.partition("## The way of an increment")[2].partition("```")[2].partition("```")[0]
    named = set(re.findall(r"\b(?:lanes|http|api|access|engine)/\w+", drawing))
    rooms = EXPRESS | FIRST | OTHER
    assert named
    assert all(f"server/{name}" in rooms or name in rooms for name in named), named
