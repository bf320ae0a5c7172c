"""Digests of a state and of its parts: with them two nodes prove that they hold the same.

    ours = digests_of(image)                                at a leader's checkpoint, on both nodes
    complaint = difference(ours, theirs, shard.holds)       None if nothing differs

The parts are the users, the actions and each board. A replica of one shard has the users and some boards, and compares
their digests only. The parts also show what differs.

The digest of a part is BLAKE2b-256 over its chunks as `snapshots.format` packs them: kind, length and payload of each.
It leaves out their ordinals, because these depend on the other parts.

Two nodes may have sealed other numbers of actions (`engine.sealed_actions`) and hold the same. `state_digest` says so:
of actions it has the digests of their blocks, sealed or not, and which were forgotten. Nodes of older versions know
only `whole` and `actions`, which a state with sealed actions leaves empty: then the rest is compared.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from hashlib import blake2b

import msgspec
import numpy as np
from msgspec.structs import replace

from engine import action_blocks
from engine.action_blocks import FORGOTTEN, block_digest
from engine.erased import unpack_seqs
from engine.image import ACTIONS, ActionsImage, StateImage, UsersImage
from engine.sealed_actions import Manifest, manifest_in
from snapshots.format import actions_payloads, board_payloads, file_digest, users_payloads

DIGEST_BYTES = 32
NO_USERS = UsersImage(0, [], [], b"")
NO_ACTIONS = ActionsImage(0, array("Q"), array("Q"), array("Q"))


class StateDigests(msgspec.Struct, frozen=True):
    """The digests of a state, in hex. `boards` has one for each board with an event. Empty ones are not known."""

    whole: str
    users: str
    actions: str
    boards: dict[str, str]
    state: str = ""


def digests_of(image: StateImage) -> StateDigests:
    """Compute all digests of a state. O(state), about a second a gigabyte, so call it in a worker thread."""
    is_sealed = any(name == ACTIONS for name, _ in image.parts)
    users, boards = _users_and_boards(image)
    return StateDigests(
        whole="" if is_sealed else file_digest(image),
        users=users,
        actions="" if is_sealed else _digest(actions_payloads(image.actions)),
        boards=boards,
        state=_state_digest(image, users, boards),
    )


def state_digest(image: StateImage) -> str:
    """Give the BLAKE2b-256 of a state, in hex. Two nodes have the same one exactly if they hold the same. O(state).

    It leaves out the marks of actions, which follow from their events.
    """
    return _state_digest(image, *_users_and_boards(image))


def _users_and_boards(image: StateImage) -> tuple[str, dict[str, str]]:
    """Digest the users and each board."""
    boards = {board.board_id: _digest(board_payloads(board)) for board in image.boards}
    return _digest(users_payloads(image.users)), boards


def _state_digest(image: StateImage, users: str, boards: dict[str, str]) -> str:
    """Join the digests of users and boards with those of the actions and of all the rest."""
    others = tuple(part for part in image.parts if part[0] != ACTIONS)
    rest = replace(image, boards=[], users=NO_USERS, actions=NO_ACTIONS, parts=others)
    digest = blake2b(digest_size=DIGEST_BYTES)
    for each in (file_digest(rest), users, *boards.values()):
        digest.update(bytes.fromhex(each))
    digest.update(_actions_digest(image.actions, manifest_in(image.parts)))
    return digest.hexdigest()


def _actions_digest(actions: ActionsImage, sealed: Manifest | None) -> bytes:
    """Digest all actions: their blocks, what is after the last whole block, and which were forgotten."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    forgotten = b""
    if sealed is not None:
        digest.update(sealed.digests)
        forgotten = sealed.forgotten
    forgotten_seqs = unpack_seqs(forgotten)
    length = action_blocks.BLOCK_ACTIONS
    for start in range(0, actions.count, length):
        end = min(start + length, actions.count)
        digests, seqs = actions.digests[2 * start : 2 * end], actions.seqs[start:end]
        digest.update(block_digest(digests, seqs))
        marks = np.frombuffer(actions.marks[start:end], np.uint64)
        forgotten_seqs += np.frombuffer(seqs, np.uint64)[marks == FORGOTTEN].tolist()
    digest.update(np.array(forgotten_seqs, "<u8").tobytes())
    return digest.digest()


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
    if ours.actions and theirs.actions and ours.actions != theirs.actions:
        return "the applied actions"
    for one, other in ((ours.whole, theirs.whole), (ours.state, theirs.state)):
        if one and other:
            return None if one == other else "the state as a whole"
    return None


def _digest(payloads: Iterable[tuple[bytes, bytes]]) -> str:
    digest = blake2b(digest_size=DIGEST_BYTES)
    for kind, payload in payloads:
        digest.update(kind + len(payload).to_bytes(4, "little"))
        digest.update(payload)
    return digest.hexdigest()
