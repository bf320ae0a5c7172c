"""The epoch notifier tells a node that a newer epoch began. It sends a hello of that epoch until the node answers.

    notifier.tell(hello, tasks)

    promoted replica ── hello, its own epoch ──► the leader that it followed           deposed
    promoted replica ── hello ──► a relay ── the same hello, passed on ──► the leader  deposed

Rules:
- Until the old leader has heard, two nodes take writes. So the notifier tries again without end, with a follower's
  waits. Every relay passes the hello on, because a promoted replica may not know the address of the leader itself.
- There is one task. It sends the hello of the highest epoch.
- Any answer ends it: the node has judged the hello before it answers.
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
"""The longest message that is read. Answers are short, but frames may follow a welcome."""

log = structlog.get_logger()


class EpochNotifier:
    """Notifies one node."""

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
        """Begin to tell the node of the hello's epoch, unless it is told of that epoch already. Does not wait.

        The hello is sent without its shard, because this node does not follow. An address that the node could not use
        is left out too.
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
            reason = await self._try(word)
            if reason is None:
                told = word
                log.info("newer_epoch_told", epoch=word.epoch, node=self._node.authority, attempts=backoff.attempts + 1)
                continue
            if backoff.attempts == 0:
                log.warning("newer_epoch_not_told", epoch=word.epoch, node=self._node.authority, reason=reason)
            await backoff.wait()
        self._telling = False

    async def _try(self, word: Hello) -> str | None:
        """Send the hello once; give the reason if it was not heard."""
        target, timing = f"{LOG_PATH}?{word.query}", self._timing
        try:
            async with open_link(
                self._node, target, self._token(), message_bytes_max=MESSAGE_BYTES_MAX, timing=timing
            ) as link:
                await link.receive(timing.silence_seconds_max)
        except (LinkEnded, OSError) as error:
            return str(error)
        return None
