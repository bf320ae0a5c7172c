"""What a node does when a stream gives no answer: it asks again. The servers of a new stream need a moment, too."""

from __future__ import annotations

import trio

from server.quorum.nats_stream import NatsStream
from server.quorum.stream import Unanswered
from tests.quorum.servers import AGAIN_SECONDS, ALARM_SECONDS


async def until_placed(stream: NatsStream, after: int, frame: bytes) -> bool:
    """Send the same bytes to the same place until it is known whether it is taken, as a leader does."""
    with trio.fail_after(ALARM_SECONDS):
        while True:
            try:
                return await stream.place(after, frame)
            except Unanswered:
                await trio.sleep(AGAIN_SECONDS)


async def put(stream: NatsStream, after: int, frame: bytes) -> None:
    """Have a frame at a place, whichever of several attempts it was."""
    if not await until_placed(stream, after, frame):
        assert await got(stream, after + 1, 1) == [frame]


async def got(stream: NatsStream, place: int, at_most: int) -> list[bytes]:
    """Read frames, whichever of several attempts it was."""
    with trio.fail_after(ALARM_SECONDS):
        while True:
            try:
                return list(await stream.read(place, at_most))
            except Unanswered:
                await trio.sleep(AGAIN_SECONDS)


async def got_all(stream: NatsStream, place: int, count: int) -> list[bytes]:
    """Read so many frames. A server that was cut off knows less for a while."""
    with trio.fail_after(ALARM_SECONDS):
        while True:
            frames = await got(stream, place, count)
            if len(frames) == count:
                return frames
            await trio.sleep(AGAIN_SECONDS)


async def beat(stream: NatsStream, word: bytes) -> None:
    """Have a majority take a beat, whichever of several attempts it was."""
    with trio.fail_after(ALARM_SECONDS):
        while True:
            try:
                return await stream.beat(word)
            except Unanswered:
                await trio.sleep(AGAIN_SECONDS)
