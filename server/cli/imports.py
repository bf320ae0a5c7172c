"""`scoreboard import`: scores from a file or from Redis into a board.

The board is in the directory of a stopped leader, or with --url at a leader that runs.

The whole source is read and checked before the first row is written. The import is named by its content, so the same
command goes on where it was after a kill, and does nothing once all rows are there. Both ways name it alike.
"""

from __future__ import annotations

import gc
import hashlib
import time
from pathlib import Path
from typing import Protocol

import click
from click.core import ParameterSource

from engine.commands import ImportReceipt
from engine.disk import RealDisk
from engine.texts import id_fault
from server.cli.import_sender import Leader
from server.cli.import_source import FORMATS, Source, read_file, read_zset
from server.cli.support import (
    BadUsage,
    chosen_token,
    config_options,
    existing_directory,
    json_option,
    print_json,
    progress_bar,
    read_config,
    say,
    state_bar,
    token_options,
    warn,
)
from server.node.directories import check_leads
from server.settings.config import Config
from snapshots.demotion import finish_exchange
from snapshots.importing import ImportPlan, OpenDirectory

CALLER = "scoreboard import"
"""Who imports to a directory, for the log. A leader notes the `sub` of the token."""


class Read(Protocol):
    """Reads and checks the whole source, in the order of the board. Raises `BadSource`."""

    def __call__(self, *, ascending: bool) -> tuple[Source, ImportPlan]: ...


_SUFFIXES = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}


@click.command(name="import")
@config_options
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--board", required=True, help="The board that gets the scores.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="The format of FILE (default: by its name).")
@click.option("--from", "url", metavar="URL", help="A Redis server, such as redis://127.0.0.1:6379, instead of FILE.")
@click.option("--key", help="With --from: the sorted set.")
@click.option("--merge", is_flag=True, help="Import to a board that has scores; what rows do then depends on its mode.")
@click.option("--import-id", help="The name of this import (default: made of the board and its content).")
@click.option("--url", "leader_url", metavar="URL", help="A running leader's address, instead of a directory.")
@token_options
@json_option
def import_scores(
    data_dir: Path | None, config_file: Path | None, file: Path | None, board: str, form: str | None, url: str | None,
    key: str | None, merge: bool, import_id: str | None, leader_url: str | None, token: str | None,
    token_file: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Import scores from FILE, or from a sorted set of Redis.

    Without --url the server must be stopped. With it the scores go to a running leader, and the token needs the scope
    admin.
    """
    if (file is None) == (url is None) or (url is None) != (key is None):
        raise BadUsage("name either FILE, or --from URL and --key KEY")
    if import_id is not None and (fault := id_fault(import_id)):
        raise BadUsage(f"--import-id {fault}")
    if fault := id_fault(board):
        raise BadUsage(f"--board {fault}")
    form = _form_of(file, form) if file is not None else None
    gc.disable()  # an import makes millions of objects that stay

    def read(*, ascending: bool) -> tuple[Source, ImportPlan]:
        source = _read(file, form, url, key, ascending=ascending)
        name = import_id or name_of(board, source.digest)
        return source, ImportPlan(board, name, len(source), source.digest, merge, CALLER)

    if leader_url is not None:
        _refuse_given(("data_dir", "config_file"), "goes with a directory, not with --url")
        receipt = _to_leader(Leader(leader_url, *chosen_token(token, token_file), tell=say), board, read)
    else:
        _refuse_given(("token", "token_file"), "goes with --url")
        receipt = _to_directory(read_config(config_file, data_dir), board, read)
    _tell(receipt, as_json=as_json)


def _refuse_given(names: tuple[str, ...], why: str) -> None:
    """Refuse options that were given and would do nothing. Variables may be there for other commands."""
    context = click.get_current_context()
    for option in context.command.params:
        if option.name in names and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
            raise BadUsage(f"{option.opts[0]} {why}")


def _to_directory(config: Config, board: str, read: Read) -> ImportReceipt:
    disk = RealDisk()
    finish_exchange(disk, config.data_dir)
    directory = existing_directory(config)
    check_leads(disk, directory)
    with state_bar("opening") as show:
        opened = OpenDirectory(disk, directory, config.rules, clock_ms=_now_ms, tell=warn, progress=show)
    with opened:
        source, plan = read(ascending=opened.board_rules(board).order == "ascending")
        with progress_bar("importing") as move:
            return opened.take(plan, source.rows_from, move)


def _to_leader(leader: Leader, board: str, read: Read) -> ImportReceipt:
    with leader:
        source, plan = read(ascending=leader.is_ascending(board))
        with progress_bar("importing") as move:
            return leader.send(plan, source.rows_from, move)


def _form_of(file: Path, form: str | None) -> str:
    found = form or _SUFFIXES.get(file.suffix.lower())
    if found is None:
        raise BadUsage(f"what is {file}? Name its format with --format {'|'.join(FORMATS)}")
    return found


def _read(file: Path | None, form: str | None, url: str | None, key: str | None, *, ascending: bool) -> Source:
    if file is not None and form is not None:
        return read_file(file, form, _now_ms())
    assert url is not None
    assert key is not None
    return read_zset(url, key, ascending=ascending, now_ms=_now_ms())


def _tell(receipt: ImportReceipt, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "importId": receipt.import_id, "boardId": receipt.board_id, "rows": receipt.rows,
                "rowsDone": receipt.rows_done, "applied": receipt.applied, "epoch": receipt.epoch, "seq": receipt.seq,
            }
        )  # fmt: skip
        return
    before = receipt.rows - receipt.applied
    were = f"; {before} were there already" if before else ""
    click.echo(
        f"{receipt.import_id}: {receipt.applied} rows came to board {receipt.board_id}{were}; the log is at seq "
        f"{receipt.seq}"
    )
    if not receipt.applied and receipt.rows:
        click.echo("These rows came before. To bring them once more, after a reset say, name the import: --import-id.")


def name_of(board: str, digest: str) -> str:
    """Give the name of an import that got none: of the board and the content, so a second run goes on with it."""
    return f"import-{hashlib.sha256(f'{board} {digest}'.encode()).hexdigest()[:16]}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
