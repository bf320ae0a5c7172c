"""What stands for a user who was erased: pseudonyms, digests for actionIds, and packed seqs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.actions import key_of, key_of_logged
from engine.erased import Erasures, erased_action, erasures_in, is_erased, pack_seqs, pseudonym_of, unpack_seqs
from engine.limits import SEQ_MAX
from engine.texts import id_fault


def test_no_caller_can_send_what_stands_for_an_erased_id() -> None:
    """A control character begins it, and no id has one."""
    for text in (pseudonym_of(1), pseudonym_of(4711), erased_action(key_of("a"))):
        assert is_erased(text)
        assert id_fault(text) is not None
    assert not is_erased("ann")


def test_the_digest_of_an_erased_action_is_that_of_its_id() -> None:
    """So a retry finds it, before and after the log was rewritten."""
    for action_id in ("a", "order-1", "ÄÖ" * 60):
        key = key_of(action_id)
        assert key_of_logged(action_id) == key_of_logged(erased_action(key)) == key


@given(st.sets(st.integers(1, SEQ_MAX)))
def test_seqs_come_back(seqs: set[int]) -> None:
    """Whatever their distances."""
    assert unpack_seqs(pack_seqs(sorted(seqs))) == sorted(seqs)


def test_seqs_that_are_near_take_a_byte_each() -> None:
    """The layout is fixed: the log has it."""
    assert pack_seqs([5, 9, 300]) == bytes([5, 4, 0x80 | 291 & 0x7F, 291 >> 7])


def test_a_state_without_erasures_has_no_part() -> None:
    """So its image has the bytes that it had in older versions."""
    assert Erasures().parts() == ()
    assert erasures_in(()) == Erasures()
    assert erasures_in(Erasures(2, 99).parts()) == Erasures(2, 99)
