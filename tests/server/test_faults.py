"""Of an exception its kind and its place are told, and nothing that it quotes."""

from __future__ import annotations

from server.faults import FRAMES_MAX, describe


def fail(depth: int, error: Exception) -> None:
    """Raise it from so far down."""
    if depth:
        fail(depth - 1, error)
    raise error


def caught(depth: int, error: Exception) -> Exception:
    """Raise it and catch it."""
    try:
        fail(depth, error)
    except Exception as raised:
        return raised
    raise AssertionError


def test_an_exception_is_its_kind_and_where_it_was_raised() -> None:
    """The innermost frame comes first; there are not too many of them; its words are not among them."""
    fault = describe(caught(20, ValueError("a secret")))
    assert (fault.kind, fault.kinds) == ("ValueError", ["ValueError"])
    assert len(fault.where) == FRAMES_MAX
    assert fault.where[0].startswith(__file__)
    assert fault.where[0].endswith(" fail")
    assert "secret" not in str(fault)


def test_a_group_is_all_its_kinds() -> None:
    """Nested or not, in one order whatever the order they were raised in."""
    inner = ExceptionGroup("a secret", [caught(0, OSError("a secret")), KeyError("a secret")])
    for exceptions in ([inner, ValueError()], [ValueError(), inner]):
        fault = describe(caught(0, ExceptionGroup("a secret", exceptions)))
        assert (fault.kind, fault.kinds) == ("KeyError", ["KeyError", "OSError", "ValueError"])
        assert fault.where[0].endswith(" fail"), "what was never raised itself is where its group was raised"
        assert "secret" not in str(fault)


def test_a_group_of_any_size_is_told_in_one_line() -> None:
    """A thousand tasks may fail at once."""
    fault = describe(ExceptionGroup("", [type(f"Error{i}", (Exception,), {})() for i in range(1_000)]))
    assert len(fault.kinds) == 8
    assert fault.where == []
