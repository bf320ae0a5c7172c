"""Looking up the users of many increments together, before each is decided. Pure.

    users = look_up(commands, boards, scores_of)          one `Known` for each increment; None: not looked up yet

On a large board each lookup waits for memory. Those of one board that are asked for together wait together.

Where a board feeds others, the scores of its users there are looked up too. They go into `scores_of(board_id)`, which
has the scores of a board's users after the batch: so a user who is in it has that score already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat

from engine.board import Board, Known
from engine.commands import Command, Increment
from engine.slots import MANY, NOBODY

ScoresOf = Callable[[str], dict[str, int]]


def look_up(commands: Sequence[Command], boards: Mapping[str, Board], scores_of: ScoresOf) -> Iterator[Known | None]:
    """Give what each increment among these commands needs to know of its user."""
    if len(commands) < MANY:
        return repeat(None)
    increments = [command for command in commands if type(command) is Increment]
    if not increments:
        return repeat(None)
    board_ids = [increment.board_id for increment in increments]
    user_ids = [increment.user_id for increment in increments]
    if board_ids.count(board_ids[0]) == len(board_ids):
        return iter(_known_on(boards.get(board_ids[0]), user_ids, boards, scores_of))
    users: list[Known | None] = [None] * len(increments)
    for board_id in dict.fromkeys(board_ids):
        places = [place for place, each in enumerate(board_ids) if each == board_id]
        known = _known_on(boards.get(board_id), [user_ids[place] for place in places], boards, scores_of)
        for place, each in zip(places, known, strict=True):
            users[place] = each
    return iter(users)


def _known_on(
    board: Board | None, user_ids: Sequence[str], boards: Mapping[str, Board], scores_of: ScoresOf
) -> Iterable[Known | None]:
    if board is None or len(user_ids) < MANY:
        return repeat(None, len(user_ids))
    for fed_id in () if board.definition is None else board.definition.rules.feeds:
        fed = boards.get(fed_id)
        if fed is not None:
            scores = scores_of(fed_id)
            for user_id, (slot, score, _) in zip(user_ids, fed.look_up_all(user_ids), strict=True):
                if slot != NOBODY:
                    scores.setdefault(user_id, score)
    return board.look_up_all(user_ids)
