"""The identity of a history: which of two epochs with one number an epoch is. Pure.

    mark = scoreboard.mark                          of the current epoch
    if heard > mark: …                              the epoch that was heard of outranks ours

Two replicas that are promoted at once begin two epochs with the same number. From there on (epoch, seq) names two
events. So each epoch has an identity, which its leader draws at random and logs with the event that begins the epoch.

    log       epoch 1                  ├─ EpochBegun 2, 9f31… ─ …       one leader
              identity: the log's id   └── EpochBegun 2, 07c4… ─ …      another one

Rules:
- The identity of the first epoch is the log's id. Each later one is drawn.
- Older versions drew none. The identity is then derived from what every node knows of that epoch: the log's id, the
  epoch, and the seq where it began.
- Marks are ordered: by epoch, then by the seq where the epoch began, then by identity. All three never change, so all
  nodes order two marks alike. Of two leaders in one epoch the greater mark goes on. It has at least as many events of
  the leader before it, and each of those may have been acknowledged.
- A mark without an identity comes from an older version. It is the least of its epoch.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

HISTORY_BYTES = 16
"""Bytes of an identity, as many as a log's id has: it is the identity of the first epoch."""

HISTORY_HEX = 2 * HISTORY_BYTES
"""Digits of an identity as it is sent."""


class EpochMark(msgspec.Struct, frozen=True, order=True):
    """An epoch, the seq of its first event, and its identity in hex; "" if that is not known."""

    epoch: int
    first_seq: int = 0
    history: str = ""


def history_of(log_id: bytes, epoch: int, first_seq: int, drawn: bytes) -> str:
    """Give the identity of an epoch in hex. `drawn` is what its event says, empty for older events."""
    if drawn:
        return drawn.hex()
    if first_seq == 1 and epoch == 1:
        return log_id.hex()
    known = log_id + epoch.to_bytes(8, "little") + first_seq.to_bytes(8, "little")
    return blake2b(known, digest_size=HISTORY_BYTES).hexdigest()
