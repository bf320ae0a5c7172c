"""The epoch notifier tells a node that a newer epoch began. It sends a hello of that epoch until the node answers.

    notifier.tell(hello, tasks)                                                   a relay passes a hello on
    notifier.tell(hello, tasks, leads=leads, on_outranked=depose)                 a promoted replica tells its own

    promoted replica ── hello, its own epoch ──► the leader that it followed           deposed
    promoted replica ── hello ──► a relay ── the same hello, passed on ──► the leader  deposed
    promoted replica ◄── deposed, with the mark of another epoch ── the leader         told by another one before

Rules:
- Until the old leader has heard, two nodes take writes. So the notifier tries again without end, with a follower's
  waits. Every relay passes the hello on, because a promoted replica may not know the address of the leader itself.
- There is one task. It sends the hello of the greatest mark (`engine.history`).
- The node has judged the hello before it answers, and the answer is read. If it names an epoch that outranks the one of
  the hello, two replicas were promoted. `on_outranked` gets that epoch.
- The other one may be promoted later, or its word may arrive later. So a node that leads asks again, every
  NOTIFY_AGAIN_HEARTBEATS, as long as it leads. A relay passes each hello on once.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog
import trio

from server import bounds
from server.replication.link import Endpoint, LinkEnded, LinkTiming, open_link
from server.replication.messages import (
    LOG_PATH,
    Deposed,
    Diverged,
    FromLeader,
    Hello,
    MessageFault,
    Welcome,
    decode_from_leader,
)
from server.replication.retry import Backoff
from server.settings.values import address_for
from snapshots.promotion import Successor, successor_of

MESSAGE_BYTES_MAX = 2**20
"""The longest message that is read. Answers are short, but frames may follow a welcome."""

log = structlog.get_logger()


class _Word(msgspec.Struct, frozen=True):
    """What is told: a hello, whether its sender still leads, and what is to be done if another epoch outranks it."""

    hello: Hello
    leads: Callable[[], bool]
    on_outranked: Callable[[Successor], None]


class EpochNotifier:
    """Notifies one node."""

    def __init__(
        self, node: Endpoint, *, token: Callable[[], str], timing: LinkTiming, uniform: Callable[[float, float], float]
    ) -> None:
        self._node = node
        self._token = token
        self._timing = timing
        self._uniform = uniform
        self._word: _Word | None = None
        self._telling = False

    def tell(
        self,
        hello: Hello,
        tasks: trio.Nursery,
        *,
        leads: Callable[[], bool] = lambda: False,
        on_outranked: Callable[[Successor], None] = lambda _successor: None,
    ) -> None:
        """Begin to tell the node of the hello's epoch, unless it is told of that epoch already. Does not wait.

        The hello is sent without its shard, because this node does not follow. An address that the node could not use
        is left out too. `leads`: this node leads the hello's epoch, so the node is asked again and again.
        `on_outranked` gets each epoch in the answers that outranks it.
        """
        if self._word is not None and self._word.hello.mark >= hello.mark:
            return
        leader = None if hello.leader is None else address_for(hello.leader, self._node.host)
        self._word = _Word(msgspec.structs.replace(hello, shard=None, leader=leader), leads, on_outranked)
        if not self._telling:
            self._telling = True
            tasks.start_soon(self._tell)

    async def _tell(self) -> None:
        backoff, told = Backoff(self._uniform), None
        while (word := self._word) is not None and (word is not told or word.leads()):
            epoch, node = word.hello.epoch, self._node.authority
            if word is told:
                await trio.sleep(bounds.NOTIFY_AGAIN_HEARTBEATS * self._timing.heartbeat_seconds)
                if word is not self._word or not word.leads():
                    continue
            reason = await self._try(word)
            if reason is None:
                if word is not told:
                    log.info("newer_epoch_told", epoch=epoch, node=node, attempts=backoff.attempts + 1)
                told = word
                continue
            if backoff.attempts == 0 and word is not told:
                log.warning("newer_epoch_not_told", epoch=epoch, node=node, reason=reason)
            await backoff.wait()
        self._telling = False

    async def _try(self, word: _Word) -> str | None:
        """Send the hello once, and read the answer; give the reason if it was not heard."""
        target, timing = f"{LOG_PATH}?{word.hello.query}", self._timing
        try:
            async with open_link(
                self._node, target, self._token(), message_bytes_max=MESSAGE_BYTES_MAX, timing=timing
            ) as link:
                message = await link.receive(timing.silence_seconds_max)
                answer = decode_from_leader(message) if isinstance(message, str) else None
        except (LinkEnded, MessageFault, OSError) as error:
            return str(error)
        named = _named_in(answer)
        if named is not None and named.mark > word.hello.mark:
            log.warning("epoch_outranked", epoch=word.hello.epoch, by=named.epoch, leader=named.leader)
            word.on_outranked(named)
        return None


def _named_in(answer: FromLeader | None) -> Successor | None:
    """Give the epoch that an answer names, None if it names none."""
    if isinstance(answer, Deposed | Diverged):
        return answer.successor
    if isinstance(answer, Welcome):
        return successor_of(answer.mark, answer.public_url)
    return None
