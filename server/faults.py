"""Exceptions, as a log may show them: kind and place, never the message. Also the first of a group. Pure.

    fault = describe(error)
    log.error("internal_error", kind=fault.kind, where=fault.where)

A message often quotes the wrong value, which may be a token or a whole request. The stack is enough to find the bug.
"""

from __future__ import annotations

import traceback
from types import TracebackType

import msgspec

FRAMES_MAX = 8
LEAVES_MAX = 8


class Fault(msgspec.Struct, frozen=True):
    """`kind` is the exception's class; in a group, the first by name of all `kinds`. `where` are its inner frames."""

    kind: str
    kinds: list[str]
    where: list[str]


def describe(error: BaseException) -> Fault:
    """Describe an exception or a group."""
    # By name, because Trio runs tasks in no certain order, and collects their exceptions in it.
    leaves = sorted(_leaves(error), key=lambda leaf: type(leaf[0]).__name__)
    first, raised_at = leaves[0]
    # walk_tb, because extract_tb reads source files.
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(raised_at)][-FRAMES_MAX:]
    return Fault(
        kind=type(first).__name__,
        kinds=sorted({type(leaf).__name__ for leaf, _ in leaves}),
        where=[f"{code.co_filename}:{line} {code.co_name}" for code, line in reversed(frames)],
    )


def first_of(error: BaseException) -> Exception:
    """Give an exception, or the first of a group at any depth: it has cancelled the other tasks of its nursery.

    An error that is no `Exception` is raised as it is.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, Exception):
        raise error
    return error


def _leaves(error: BaseException) -> list[tuple[BaseException, TracebackType | None]]:
    """List the exceptions of a group, each with its traceback, or else its group's."""
    found: list[tuple[BaseException, TracebackType | None]] = []
    waiting = [(error, error.__traceback__)]
    while waiting and len(found) < LEAVES_MAX:
        current, raised_at = waiting.pop(0)
        if isinstance(current, BaseExceptionGroup):
            waiting = [(inner, inner.__traceback__ or raised_at) for inner in current.exceptions] + waiting
        else:
            found.append((current, raised_at))
    return found
