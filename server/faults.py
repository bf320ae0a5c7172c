"""Exceptions: what may be told of one (its kind and where it was raised, never its message), the one of a group. Pure.

A message often quotes the value that was at fault, and that value may be a token or a whole request. The stack says
which line of ours it was, and that is what finds the bug.
"""

from __future__ import annotations

import traceback
from types import TracebackType

import msgspec

FRAMES_MAX = 8
LEAVES_MAX = 8


class Fault(msgspec.Struct, frozen=True):
    """`kind` is the class of the exception, in a group the first by name of all `kinds`; `where` its inner frames."""

    kind: str
    kinds: list[str]
    where: list[str]


def describe(error: BaseException) -> Fault:
    """Describe an exception, or a group of them, for a log."""
    # By name, because trio runs tasks, and so collects what they raise, in no certain order.
    leaves = sorted(_leaves(error), key=lambda leaf: type(leaf[0]).__name__)
    first, raised_at = leaves[0]
    # walk_tb, not extract_tb: the latter reads source files.
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(raised_at)][-FRAMES_MAX:]
    return Fault(
        kind=type(first).__name__,
        kinds=sorted({type(leaf).__name__ for leaf, _ in leaves}),
        where=[f"{code.co_filename}:{line} {code.co_name}" for code, line in reversed(frames)],
    )


def first_of(error: BaseException) -> Exception:
    """Give an exception itself, or the first of a group, however deep. What ends a nursery first cancels the others.

    So a group hardly ever holds another one that matters. An error that is no `Exception` is raised as it is.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, Exception):
        raise error
    return error


def _leaves(error: BaseException) -> list[tuple[BaseException, TracebackType | None]]:
    """List the exceptions of a group, each with where it was raised, or else where its group was."""
    found: list[tuple[BaseException, TracebackType | None]] = []
    waiting = [(error, error.__traceback__)]
    while waiting and len(found) < LEAVES_MAX:
        current, raised_at = waiting.pop(0)
        if isinstance(current, BaseExceptionGroup):
            waiting = [(inner, inner.__traceback__ or raised_at) for inner in current.exceptions] + waiting
        else:
            found.append((current, raised_at))
    return found
