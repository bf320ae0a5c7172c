"""Four free bytes that give changed data the checksum that it had."""

from __future__ import annotations

import google_crc32c
from hypothesis import given
from hypothesis import strategies as st

from engine.balance import balance


@given(before=st.binary(max_size=80), after=st.binary(max_size=80), checksum=st.integers(0, 2**32 - 1))
def test_any_data_gets_any_checksum(before: bytes, after: bytes, checksum: int) -> None:
    """At the beginning, in the middle and at the end."""
    four = balance(before + bytes(4) + after, len(before), checksum)
    assert len(four) == 4
    assert google_crc32c.value(before + four + after) == checksum


def test_much_may_follow() -> None:
    """A frame has up to 16 MiB."""
    data = bytes(4) + bytes(range(256)) * 4096
    assert google_crc32c.value(balance(data, 0, 4711) + data[4:]) == 4711
