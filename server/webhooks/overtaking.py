"""Who overtook whom among the first ten rows of a board, between two moments. Pure.

    overtaken(["a", "b", "c"], ["b", "d", "a"], behind={"c"})       [(0, ["a"]), (1, ["a", "c"])]

Worked example: b was behind a and is ahead now. d was not there, and is ahead of a and of c, who fell out of the first
rows. b is not said to have overtaken c: b was ahead of c before.

Rules:
- Who was not among the first rows was behind all who were.
- Who left the board, is inactive or was erased was overtaken by nobody: they are neither in `after` nor in `behind`.
- Several moves between the two moments are told as one: who passed and fell back again did not overtake.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence


def overtaken(before: Sequence[str], after: Sequence[str], behind: Collection[str]) -> list[tuple[int, list[str]]]:
    """Give the places in `after` of those who overtook, each with whom, in the order of before.

    `behind` has those of `before` who are on the board, but not among the first rows any more.
    """
    was = {each: place for place, each in enumerate(before)}
    now = {each: place for place, each in enumerate(after)}
    found: list[tuple[int, list[str]]] = []
    for place, each in enumerate(after):
        own = was.get(each, len(before))
        passed = [
            other
            for other in before[:own]
            if other != each and (now[other] > place if other in now else other in behind)
        ]
        if passed:
            found.append((place, passed))
    return found
