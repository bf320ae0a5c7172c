"""The boards of the operator's file: the beginning, applied once. Afterwards the log says what boards there are.

    check_file_boards(config, scoreboard, now_ms)                     before the node is built: raises `ConfigError`
    await FileBoards(world, actor, scoreboard).run()          once the actor runs

A board that the log does not have is written into it. A board that it has stays as the log says, and a difference is
told: the operator may have changed the file and expect that it counts.

Rules:
- Boards are written before the first request is served, so no client sees a node without them. On a full disk the node
  serves all the same, and writes them as soon as there is room. Until then the first boards of a log count as the file
  says. A later board of the file is unknown until then.
- All boards that are missing come in one submission, so they may feed each other in any way. A file has no more than
  fit into one: the others are for the API.
- Boards of older logs have no rules in the log. Those of the file are written for them at the first start.
"""

from __future__ import annotations

import msgspec
import structlog
import trio

from engine.actor import Actor
from engine.board_decisions import decide_board
from engine.board_rules import BoardRules
from engine.calendar import period_at
from engine.commands import PutBoard, Rejection
from engine.errors import DiskFull, LeaderDeposed, OutcomeUnknown, Overloaded
from engine.limits import BATCH_COMMANDS_MAX, FRAME_BYTES_MAX
from engine.scoreboard import Scoreboard
from server import bounds
from server.node.surroundings import Surroundings
from server.settings.config import Config
from server.settings.values import ConfigError

CALLER = "configuration"
"""The caller of these events, where others have the subject of a token."""

RULES_BYTES_MAX = FRAME_BYTES_MAX // 2
"""Bytes of the rules that are written at once: they have one frame."""

log = structlog.get_logger()


def check_file_boards(config: Config, scoreboard: Scoreboard, now_ms: int) -> None:
    """Check that the log can take the boards of the file that it does not have. Raises `ConfigError`."""
    commands = _missing(config, scoreboard)
    size = sum(len(msgspec.msgpack.encode(command.rules)) for command in commands)
    if len(commands) > BATCH_COMMANDS_MAX or size > RULES_BYTES_MAX:
        what = f"{len(commands)} new boards of {size} bytes are too much at once"
        raise ConfigError("boards", f"{what}: name at most {BATCH_COMMANDS_MAX}, and put the others by the API")
    names = {command.board_id for command in commands}
    for command in commands:
        decided = decide_board(
            scoreboard, command, made=names, seq=scoreboard.seq + 1, now_ms=now_ms, period_at=period_at
        )
        if isinstance(decided, Rejection):
            known = scoreboard.boards.get(command.board_id)
            why = " (the log has this board already)" if known is not None and len(known) else ""
            raise ConfigError(f"boards.{command.board_id}.{decided.details['field']}", f"{decided.message}{why}")


class FileBoards:
    """Writes the boards of the file at the beginning of leading, and tells differences."""

    def __init__(self, world: Surroundings, actor: Actor, scoreboard: Scoreboard) -> None:
        self._world = world
        self._actor = actor
        self._scoreboard = scoreboard

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write and tell; return when all is written, or when this node writes no more."""
        config = self._world.config
        for board_id, differing in differences(config, self._scoreboard):
            log.warning(
                "board_differs_from_file",
                board_id=board_id,
                fields=differing,
                counts="what the log says",
                remedy=f"PUT /boards/{board_id} changes a board; the file is only its beginning",
            )
        waits = False
        try:
            while commands := _missing(config, self._scoreboard):
                try:
                    outcomes = await self._actor.submit(commands)
                except (DiskFull, Overloaded):
                    if not self._actor.statistics().accepting:
                        break  # the node writes no more, and says so itself
                    if not waits:
                        task_status.started()
                        waits = True
                    await trio.sleep(bounds.DISK_FULL_RETRY_SECONDS)
                    continue
                refused = [outcome for outcome in outcomes if isinstance(outcome, Rejection)]
                for outcome in refused:
                    log.error("board_of_file_refused", reason=outcome.message)
                if refused:
                    break
        except (LeaderDeposed, OutcomeUnknown):
            pass  # the node writes no more, and says so itself
        if not waits:
            task_status.started()


def differences(config: Config, scoreboard: Scoreboard) -> list[tuple[str, list[str]]]:
    """List the boards of the file that the log has otherwise, each with the fields that differ."""
    found = []
    for board_id, rules in config.boards.items():
        board = scoreboard.boards.get(board_id)
        if board is not None and board.is_logged and board.definition is not None:
            logged = board.definition.rules
            fields = [name for name in BoardRules.__struct_fields__ if getattr(rules, name) != getattr(logged, name)]
            if fields:
                found.append((board_id, fields))
    return found


def _missing(config: Config, scoreboard: Scoreboard) -> list[PutBoard]:
    """List what the log lacks."""
    boards = scoreboard.boards
    return [
        PutBoard(board_id, rules, CALLER)
        for board_id, rules in config.boards.items()
        if board_id not in boards or not boards[board_id].is_logged
    ]
