r"""What stands in the log for a user who was erased, and for the actions of this user. Pure.

    pseudonym_of(3)                     "\x003": no id that a caller sends has a control character
    erased_action(key)                  "\x00" and the digest of the actionId, in base64
    pack_seqs([5, 9, 300])              each as the difference from the one before, seven bits a byte

Rules:
- A pseudonym is the number of the erasure in its log. It says nothing of the user, and is as short as most ids.
- An erased action keeps the digest of its id: by this alone the index of actions knows that it was applied.
- Seqs ascend and are above 0. Equal lists have equal bytes.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable

import msgspec

MARK = "\x00"
_PADDING = b"=="  # of 16 bytes


class Erasures(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """How many users were erased, and the seq of the last erasure; zeros if none was."""

    count: int = 0
    last_seq: int = 0

    def parts(self) -> tuple[tuple[str, bytes], ...]:
        """Give the part of an image that this is; none if no user was erased."""
        return (("erasures", msgspec.msgpack.encode(self)),) if self.count else ()


def erasures_in(parts: Iterable[tuple[str, bytes]]) -> Erasures:
    """Read the part of an image. Raises `msgspec.DecodeError`."""
    data = dict(parts).get("erasures")
    return Erasures() if data is None else msgspec.msgpack.decode(data, type=Erasures)


def pseudonym_of(number: int) -> str:
    """Give the id that stands for the user of an erasure."""
    return f"{MARK}{number}"


def is_erased(text: str) -> bool:
    """Whether this stands for an id that was erased."""
    return text.startswith(MARK)


def erased_action(key: bytes) -> str:
    """Give what stands for an actionId with this digest."""
    return MARK + urlsafe_b64encode(key).removesuffix(_PADDING).decode()


def key_in(action_id: str) -> bytes:
    """Give the digest in what stands for an actionId."""
    return urlsafe_b64decode(action_id.removeprefix(MARK).encode() + _PADDING)


def pack_seqs(seqs: Iterable[int]) -> bytes:
    """Pack ascending seqs."""
    packed = bytearray()
    before = 0
    for seq in seqs:
        assert seq > before, "seqs must ascend"
        step, before = seq - before, seq
        while step > 0x7F:
            packed.append(0x80 | step & 0x7F)
            step >>= 7
        packed.append(step)
    return bytes(packed)


def unpack_seqs(packed: bytes) -> list[int]:
    """Give the seqs. Bytes that are no list of seqs give other numbers, never an error."""
    seqs: list[int] = []
    seq = step = shift = 0
    for byte in packed:
        step |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            seq += step
            seqs.append(seq)
            step = shift = 0
    return seqs
