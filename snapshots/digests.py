"""Digests of a state and of its parts: with them two nodes prove that they hold the same.

    ours = digests_of(image)                                at a leader's checkpoint, on both nodes
    complaint = difference(ours, theirs, shard.holds)       None if nothing differs

The parts are the users, the actions and each board. A replica of one shard has the users and some boards, and compares
their digests only. The parts also show what differs.

The digest of a part is BLAKE2b-256 over its chunks as `snapshots.format` packs them: kind, length and payload of each.
It leaves out their ordinals, because these depend on the other parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b

import msgspec

from engine.image import StateImage
from snapshots.format import actions_payloads, board_payloads, state_digest, users_payloads

DIGEST_BYTES = 32


class StateDigests(msgspec.Struct, frozen=True):
    """The digests of a state, in hex. `boards` has one for each board with an event."""

    whole: str
    users: str
    actions: str
    boards: dict[str, str]


def digests_of(image: StateImage) -> StateDigests:
    """Compute all digests of a state. O(state), about a second a gigabyte, so call it in a worker thread."""
    return StateDigests(
        whole=state_digest(image),
        users=_digest(users_payloads(image.users)),
        actions=_digest(actions_payloads(image.actions)),
        boards={board.board_id: _digest(board_payloads(board)) for board in image.boards},
    )


def difference(ours: StateDigests, theirs: StateDigests, holds: Callable[[str], bool] | None = None) -> str | None:
    """Say what differs between two states, None if nothing does.

    `holds`: we have only the boards that it accepts, and no actions. Then only these boards and the users are compared.
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
