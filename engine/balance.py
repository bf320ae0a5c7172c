"""Four bytes that give changed data the checksum that it had. Pure.

    four = balance(data, place, checksum)           `data` has four zero bytes at `place`
    crc32c(data[:place] + four + data[place + 4:]) == checksum

Theory: CRC32C is linear over single bits. Each bit of the four bytes changes the checksum by an amount that depends
only on how many bytes follow. These 32 amounts are independent, because four bytes can bring a checksum to any value.
So a set of bits that makes up for the whole difference exists and is unique. It is found by elimination.

Two are enough to see it. If bit 0 changes the checksum by 110 and bit 1 by 011, a difference of 101 needs both.
"""

from __future__ import annotations

import google_crc32c

BALANCE_BYTES = 4


def balance(data: bytes, place: int, checksum: int) -> bytes:
    """Give the bytes for `place` with which `data` has this checksum. O(bytes after `place`)."""
    end = place + BALANCE_BYTES
    assert data[place:end] == bytes(BALANCE_BYTES)
    missing = int(google_crc32c.value(data)) ^ checksum
    amounts = _amounts(len(data) - end)
    found = 0
    for bit, (amount, bits) in sorted(amounts.items(), reverse=True):
        if missing >> bit & 1:
            missing ^= amount
            found ^= bits
    assert not missing, "four bytes bring a CRC32C to any value"
    return found.to_bytes(BALANCE_BYTES, "little")


def _amounts(following: int) -> dict[int, tuple[int, int]]:
    """Give, by its highest bit, an amount by which the checksum can change, and the bits of the four bytes that do it.

    Of two amounts with the same highest bit one is replaced by their difference, so there is one for each bit.
    """
    zeros = bytes(following)
    nothing = int(google_crc32c.extend(google_crc32c.extend(0, bytes(BALANCE_BYTES)), zeros))
    amounts: dict[int, tuple[int, int]] = {}
    for number in range(8 * BALANCE_BYTES):
        bits = 1 << number
        one = google_crc32c.extend(0, bits.to_bytes(BALANCE_BYTES, "little"))
        amount = int(google_crc32c.extend(one, zeros)) ^ nothing
        while amount and (highest := amount.bit_length() - 1) in amounts:
            other, others = amounts[highest]
            amount, bits = amount ^ other, bits ^ others
        assert amount, "the amounts are independent"
        amounts[amount.bit_length() - 1] = (amount, bits)
    return amounts
