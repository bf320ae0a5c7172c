"""The words of a member of a quorum: what it says of itself, and what it takes from the words of the others.

    words = MemberWords(world, stream, log, role, progress, ...)
    words.hear, words.tell                tasks of the node
    words.own()                           our word, which is a leader's beat
    words.answered()                      the stream was read: we may have caught up with the leader

Rules:
- A word of an epoch before ours, or of a node that does not lead, tells nothing of the leader.
- The leader was heard when a majority last answered it, as its word says. A word may have waited for this node, which
  was stopped: it counts as heard when we said the newest word of our own that came back before it.
- This node is as fresh as the newest word whose seq is applied here. A word that waits for its frames makes nothing
  fresh.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import trio

from server import bounds
from server.node.following import Following
from server.node.surroundings import Surroundings
from server.quorum.peers import Peers
from server.quorum.quorum_log import QuorumLog
from server.quorum.silence import Silence
from server.quorum.stream import Stream
from server.quorum.words import Word, decode, encode
from server.replication.messages import NodeRef, Welcome
from server.replication.progress import FollowingState, Progress
from server.replication.replicas import WholeReplica
from server.role import CurrentRole, State

BEATS_A_SILENCE = 6
"""So many beats a leader sends in the silence after which another node bids."""

TELL_SECONDS = 0.02
"""The shortest time between two words of a leader that tell how far it is."""

WORDS_MAX = 256
"""So many words of a leader may wait for their seq to be applied here."""


def beat_seconds(silence_s: float) -> float:
    """Give the time between two beats."""
    return silence_s / BEATS_A_SILENCE


class MemberWords:
    """See above. `on_heard` is called when the leader was heard, `on_higher` while we lead and another leads above us.

    `confirmed_s` is when we sent what a majority took last. `next_news` gives an event that is set when the leader has
    more than we have.
    """

    def __init__(
        self, world: Surroundings, stream: Stream, log: QuorumLog, role: CurrentRole, progress: Progress,
        replica: WholeReplica, following: Following, peers: Peers, silence: Silence, *,
        on_heard: Callable[[], None], on_higher: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.confirmed_s = trio.current_time()
        self._world = world
        self._stream = stream
        self._log = log
        self._role = role
        self._progress = progress
        self._replica = replica
        self._following = following
        self._peers = peers
        self._silence = silence
        self._on_heard = on_heard
        self._on_higher = on_higher
        self._silence_s = float(world.config.quorum.silence_seconds)
        self._beat_s = beat_seconds(self._silence_s)
        self._leads = False
        self._leader: Word | None = None
        self._said: deque[tuple[int, float]] = deque(maxlen=WORDS_MAX)  # seqs that the leader had, and when
        self._begun_s = trio.current_time()
        self._echo_s = -math.inf  # when we said the newest word that came back to us
        self._placed = trio.Event()
        self._news = trio.Event()

    async def hear(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take the words of all nodes, until cancelled."""
        task_status.started()
        while True:
            word = decode(await self._stream.hear())
            if word is None:
                continue
            if word.node_id == self._world.node_id:
                self._echo_s = max(self._echo_s, self._begun_s + word.said_ms / 1000)
            else:
                self._take(word)

    async def tell(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Say how far this node is: a leader after each frame, every node now and then. Until cancelled."""
        task_status.started()
        while True:
            self._placed = trio.Event()
            self.say(leads=self._leads)
            await trio.sleep(TELL_SECONDS)
            with trio.move_on_after(self._beat_s):
                await self._placed.wait()

    def lead(self) -> None:
        """Speak as the leader from now on."""
        self._leads, self._leader = True, None
        self._said.clear()

    def follow(self) -> None:
        """Speak as a standby from now on."""
        self._leads = False

    def next_news(self) -> trio.Event:
        """Give the event of the next news."""
        self._news = trio.Event()
        return self._news

    def placed(self) -> None:
        """Note that a frame of ours was placed: the others want to know."""
        self._placed.set()

    def confirmed(self, at_s: float) -> None:
        """Note that a majority took what we sent at `at_s`."""
        self.confirmed_s = max(self.confirmed_s, at_s)

    def own(self, *, leads: bool = True, resigns: bool = False) -> bytes:
        """Give our word."""
        world, tail = self._world, self._replica.tail
        since_s = trio.current_time() - self.confirmed_s
        return encode(
            Word(
                node_id=world.node_id,
                name=world.node.name,
                url=world.url[: bounds.NODE_URL_CHARACTERS_MAX],
                public_url=world.config.replication.public_url or None,
                role=self._role.latest.state.label,
                leads=leads,
                epoch=tail.epoch,
                seq=tail.seq,
                place=max(0, self._log.place),
                confirmed_ms=max(0, round(1000 * since_s)) if leads else 0,
                resigns=resigns,
                said_ms=int(1000 * (trio.current_time() - self._begun_s)),
                has_room=self._log.full is None,
            )
        )

    def say(self, *, leads: bool, resigns: bool = False) -> None:
        """Tell our word to all."""
        self._stream.say(self.own(leads=leads, resigns=resigns))

    def answered(self) -> None:
        """Note that the stream answers, and that frames may have been applied."""
        if self._progress.state in ("disconnected", "bootstrapping"):
            if self._leader is None:
                self._become("connecting", "")
            else:
                self._welcome(self._leader)
        self._applied()

    def _applied(self) -> None:
        if self._progress.applied():
            self._become("following", "")
        seq, fresh_s = self._replica.tail.seq, -math.inf
        while self._said and self._said[0][0] <= seq:
            fresh_s = max(fresh_s, self._said.popleft()[1])
        if self._leader is not None and fresh_s > -math.inf and self._role.now.state in (State.FOLLOWING, State.STALE):
            self._role.heard_leader(fresh_s + self._silence_s, self._leader.public_url)

    def _take(self, word: Word) -> None:
        now_s = trio.current_time()
        self._peers.heard(word, now_s)
        tail = self._replica.tail
        if not word.leads or word.epoch < tail.epoch:
            return
        if self._leads:
            if word.epoch > tail.epoch:
                self._on_higher(f"{word.name} leads epoch {word.epoch}")
            return
        if word.resigns:
            self._silence.resigned(now_s)
        else:
            self._hear_leader(word, min(now_s, self._echo_s) - word.confirmed_ms / 1000)
        if word.seq > tail.seq or word.resigns:
            self._news.set()

    def _hear_leader(self, word: Word, at_s: float) -> None:
        progress, last = self._progress, self._leader
        self._silence.heard(at_s)
        self._leader = word
        if last is None or (last.node_id, last.epoch) != (word.node_id, word.epoch):
            self._role.follow(word.public_url or word.url)
            progress.path = (NodeRef(word.node_id, word.name),)
            if progress.state in ("connecting", "catching_up", "following"):
                self._welcome(word)
        progress.heard(word.epoch, word.seq, word.confirmed_ms / 1000)
        self._said.append((word.seq, at_s))
        self._on_heard()
        self._applied()

    def _welcome(self, word: Word) -> None:
        """Follow this leader from now on: with its words, and with the stream, which answers."""
        log_id = self._replica.tail.log_id.hex()
        self._progress.welcomed(
            Welcome(log_id, word.epoch, word.seq, self._beat_s, word.name, word.public_url, age_ms=word.confirmed_ms)
        )
        self._become("catching_up", "")

    def _become(self, state: FollowingState, reason: str) -> None:
        if self._progress.become(state, reason):
            self._following.told(state, reason)
