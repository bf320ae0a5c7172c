"""Bringing word of a newer epoch to a node that does not know of it yet: a hello of that epoch, until it was heard.

    promoted replica ── hello, its own epoch ──► the leader that it followed           deposed
    promoted replica ── hello ──► a relay ── the same hello, passed on ──► the leader  deposed

Rules:
- As long as the old leader has not heard, two nodes take writes. So it is told again and again, with the waits of a
  follower, and the word goes up through every relay: who was promoted may never have known the leader itself.
- There is one task, and one word: that of the highest epoch.
- Any answer to the hello will do. Who is asked has judged it by then: it was deposed, or is of that epoch already.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog
import trio

from server.replication.link import Endpoint, LinkEnded, LinkTiming, open_link
from server.replication.messages import LOG_PATH, Hello
from server.replication.retry import Backoff
from server.settings.values import address_for

MESSAGE_BYTES_MAX = 2**20
"""The longest answer to a hello that is read: all of them are short, but after a welcome frames may follow."""

log = structlog.get_logger()


class EpochNotifier:
    """Tells one node."""

    def __init__(
        self, node: Endpoint, *, token: Callable[[], str], timing: LinkTiming, uniform: Callable[[float, float], float]
    ) -> None:
        self._node = node
        self._token = token
        self._timing = timing
        self._uniform = uniform
        self._word: Hello | None = None
        self._telling = False

    def tell(self, hello: Hello, tasks: trio.Nursery) -> None:
        """See to it that the node hears of the hello's epoch; does not wait. Nothing is done if it was told as much.

        Of the hello a shard is left out, since nobody wants to follow, and an address that the node could not use.
        """
        if self._word is not None and self._word.epoch >= hello.epoch:
            return
        leader = None if hello.leader is None else address_for(hello.leader, self._node.host)
        self._word = msgspec.structs.replace(hello, shard=None, leader=leader)
        if not self._telling:
            self._telling = True
            tasks.start_soon(self._tell)

    async def _tell(self) -> None:
        backoff, told = Backoff(self._uniform), None
        while (word := self._word) is not told and word is not None:
            reason = await self._knock(word)
            if reason is None:
                told = word
                log.info("newer_epoch_told", epoch=word.epoch, node=self._node.authority, attempts=backoff.attempts + 1)
                continue
            if backoff.attempts == 0:
                log.warning("newer_epoch_not_told", epoch=word.epoch, node=self._node.authority, reason=reason)
            await backoff.wait()
        self._telling = False

    async def _knock(self, word: Hello) -> str | None:
        """Try once; give why it was not heard, None if it was."""
        target, timing = f"{LOG_PATH}?{word.query}", self._timing
        try:
            async with open_link(
                self._node, target, self._token(), message_bytes_max=MESSAGE_BYTES_MAX, timing=timing
            ) as link:
                await link.receive(timing.silence_seconds_max)
        except (LinkEnded, OSError) as error:
            return str(error)
        return None
