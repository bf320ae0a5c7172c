"""Digests of a state, in all and part by part: how two nodes prove to each other that they hold the same.

A replica that holds all boards could compare the digest of the whole; one that holds some compares those, and the
users, which every replica has. With a digest for each part, what a mismatch is about can be told as well.

The digest of a part is BLAKE2b-256 over its chunks as `snapshots.format` packs them, each as kind, length and payload:
where in a file they would stand does not count, for that depends on the other parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b

import msgspec

from engine.image import StateImage
from snapshots.format import actions_payloads, board_payloads, state_digest, users_payloads

DIGEST_BYTES = 32


class StateDigests(msgspec.Struct, frozen=True):
    """The digests of a state, in hex. `boards` has one for each board that any event has touched."""

    whole: str
    users: str
    actions: str
    boards: dict[str, str]


def digests_of(image: StateImage) -> StateDigests:
    """Compute all digests of a state. O(state), about a second a gigabyte; for a worker thread."""
    return StateDigests(
        whole=state_digest(image),
        users=_digest(users_payloads(image.users)),
        actions=_digest(actions_payloads(image.actions)),
        boards={board.board_id: _digest(board_payloads(board)) for board in image.boards},
    )


def difference(ours: StateDigests, theirs: StateDigests, holds: Callable[[str], bool] | None = None) -> str | None:
    """Say what is not the same in two states, None if nothing is.

    `holds`: we hold only the boards whose ids it takes, and no actions. Then these and the users are compared.
    """
    if ours.users != theirs.users:
        return "the registered users"
    wanted = {board_id: digest for board_id, digest in theirs.boards.items() if holds is None or holds(board_id)}
    for board_id in sorted(wanted.keys() | ours.boards.keys()):
        if wanted.get(board_id) != ours.boards.get(board_id):
            return f"the board {board_id!r}"
    if holds is not None:
        return None
    if ours.actions != theirs.actions:
        return "the applied actions"
    return None if ours.whole == theirs.whole else "the state as a whole"


def _digest(payloads: Iterable[tuple[bytes, bytes]]) -> str:
    digest = blake2b(digest_size=DIGEST_BYTES)
    for kind, payload in payloads:
        digest.update(kind + len(payload).to_bytes(4, "little"))
        digest.update(payload)
    return digest.hexdigest()
