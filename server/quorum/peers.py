"""What the other nodes of a quorum said last, and how far the log is in archives. Pure.

    peers = Peers(own_id)
    peers.heard(word, now_s)
    peers.archived(own_place, now_s)      the last place that two nodes have on their disks

Rule: a node that was not heard for PEER_SECONDS counts for nothing, and after PEER_FORGOTTEN_SECONDS is forgotten.
"""

from __future__ import annotations

import msgspec

from server.quorum.words import Word

PEER_SECONDS = 10.0
PEER_FORGOTTEN_SECONDS = 3_600.0
PEERS_MAX = 64
"""More nodes than that are not kept: a quorum has a handful."""


class Peer(msgspec.Struct, frozen=True):
    """What a node said last, and when we heard it."""

    word: Word
    heard_s: float


class Peers:
    """The nodes that were heard, by id, without ourselves."""

    def __init__(self, own_id: str) -> None:
        self._own_id = own_id
        self._peers: dict[str, Peer] = {}

    def heard(self, word: Word, now_s: float) -> None:
        if word.node_id == self._own_id:
            return
        gone = [node for node, peer in self._peers.items() if now_s - peer.heard_s > PEER_FORGOTTEN_SECONDS]
        # A node that was started again has another id and the same address.
        gone += [node for node, peer in self._peers.items() if peer.word.url == word.url and node != word.node_id]
        for node in set(gone):
            del self._peers[node]
        if word.node_id in self._peers or len(self._peers) < PEERS_MAX:
            self._peers[word.node_id] = Peer(word, now_s)

    def all(self) -> list[Peer]:
        """Give all, sorted by name."""
        return sorted(self._peers.values(), key=lambda peer: (peer.word.name, peer.word.node_id))

    def alive(self, now_s: float) -> list[Word]:
        """Give the last words of those that were heard lately, the one with most of the log first."""
        words = [peer.word for peer in self._peers.values() if now_s - peer.heard_s <= PEER_SECONDS]
        return sorted(words, key=lambda word: (word.epoch, word.seq), reverse=True)

    def archived(self, own_place: int, now_s: float) -> int:
        """Give the last place that we and another node have, 0 without another."""
        return min(own_place, max((word.place for word in self.alive(now_s)), default=0))
