"""What the verbs of the command share: exit codes, errors as one sentence, options, output, progress.

Rules:
- Standard output carries only results. Messages to a person go to standard error.
- An expected error becomes one sentence and an exit code, in one place (`CommandGroup`). A stack trace means a bug.
- On a terminal there are tables and bars. Elsewhere a table is tab-separated lines, and there is no bar.
- A reader that closes the pipe early (`| head`) is no error.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from engine.disk import RealDisk
from engine.errors import DirectoryInUse, DiskFault, ScoreboardError
from engine.recovery import Finding
from server.settings.config import Config, ConfigError, build, gather
from server.settings.environment import Key
from server.settings.given import Given
from server.settings.secrecy import open_to_others
from server.settings.values import parse_duration
from snapshots.opening import Progress as StateProgress
from snapshots.opening import log_directory

TOKEN_VARIABLE = "SCOREBOARD_TOKEN"  # noqa: S105  # the name of a variable, not a token
TOKEN_FILE_VARIABLE = "SCOREBOARD_TOKEN_FILE"  # noqa: S105  # as above
"""Where `watch` and `promote` find their token; no keys of the configuration, although they look like some."""

Function = TypeVar("Function", bound=Callable[..., Any])


class CommandRefused(click.ClickException):
    """Something is wrong with the data, the disk or the other side. The command ends with this sentence."""


class BadUsage(CommandRefused):
    """The command or the configuration is at fault; nothing was touched."""

    exit_code = 2


class InUse(CommandRefused):
    """Another process has the data directory."""

    exit_code = 3


class CommandGroup(click.Group):
    """The top group: it imports the module of a verb when the verb is called, and translates errors.

    Imports are late, because `log dump` must not wait for a web framework to load.
    """

    def __init__(self, *, verbs: dict[str, str], **settings: Any) -> None:
        super().__init__(**settings)
        self._verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # as above
        if cmd_name not in self._verbs:
            return None
        module, _, function = self._verbs[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), function or cmd_name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        with errors_as_sentences():
            return super().invoke(ctx)


def _forget_stdout() -> None:
    """Send standard output nowhere. Its reader has left, and Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Turn expected errors into `CommandRefused`."""
    try:
        yield
    except ConfigError as error:
        raise BadUsage(str(error)) from error
    except DirectoryInUse as error:
        raise InUse(str(error)) from error
    except ScoreboardError as error:
        raise CommandRefused(str(error)) from error
    except BrokenPipeError:
        _forget_stdout()
        sys.exit(0)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise CommandRefused(f"{error.strerror or error}{where}") from error


def config_options(function: Function) -> Function:
    """Add --data-dir and --config; the verb gives both to `read_config`."""
    function = click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="TOML file; SCOREBOARD_… variables and flags override it.",
    )(function)
    return click.option(
        "--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Data directory (default: as configured)."
    )(function)


def directory_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --data-dir and --config; the verb gets the data directory, which exists, as its first argument."""

    @config_options
    @functools.wraps(function)
    def with_directory(data_dir: Path | None, config_file: Path | None, **arguments: Any) -> Any:
        return function(existing_directory(read_config(config_file, data_dir)), **arguments)

    return with_directory


def bind_option(function: Function) -> Function:
    """Add --bind, which may come several times."""
    return click.option(
        "--bind",
        metavar="HOST:PORT",
        multiple=True,
        help="Where to listen; port 0 takes a free one. May be given several times.",
    )(function)


def json_option(function: Function) -> Function:
    return click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")(function)


def read_config(
    config_file: Path | None, data_dir: Path | None, bind: Sequence[str] = (), **more: str | Path | None
) -> Config:
    """Load the configuration: flags over environment over file over default. `more` are flags for `[replication]`."""
    return build(gather_settings(config_file, data_dir, bind, **more))


def gather_settings(
    config_file: Path | None, data_dir: Path | None, bind: Sequence[str] = (), **more: str | Path | None
) -> dict[Key, Given]:
    """Collect what is set, for `read_config`; each with its source."""
    named = {
        "data_dir": data_dir,
        "bind": ",".join(bind) or None,
        **{f"replication.{name}": value for name, value in more.items()},
    }
    flags = {key: str(value) for key, value in named.items() if value is not None}
    return gather(config_file, environment(), flags)


def environment() -> dict[str, str]:
    """Give the environment without the variables that `watch` reads its token from."""
    return {key: text for key, text in os.environ.items() if key not in (TOKEN_VARIABLE, TOKEN_FILE_VARIABLE)}


def existing_directory(config: Config) -> str:
    """Give the data directory of the configuration, or refuse: every verb but `serve` needs an existing one."""
    if not RealDisk().exists(log_directory(config.data_dir)):
        raise BadUsage(f"there is no scoreboard data in {config.data_dir!r} (no log directory in it)")
    return config.data_dir


def read_token(path: Path | None, *, tell: bool = True) -> str:
    """Read the token in the file that --token-file names, "" without one. Refuses what can't be a token.

    A file that others may read is used, and told unless the caller tells it elsewhere.
    """
    if path is None:
        return ""
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not ASCII"
        raise BadUsage(f"--token-file: {path} cannot be read: {reason}") from error
    if not token:
        raise BadUsage(f"--token-file: {path} is empty")
    if not token.isprintable() or " " in token:
        raise BadUsage(f"--token-file: {path} has more in it than a token")
    if tell and (fault := open_to_others(str(path))):
        say(f"Warning: --token-file: {path}: {fault}")
    return token


def token_options(function: Function) -> Function:
    """Add --token and --token-file, each with its variable; the verb gives both to `chosen_token`."""
    function = click.option(
        "--token", envvar=TOKEN_VARIABLE, show_envvar=True, help="The token itself; others on this machine can see it."
    )(function)
    return click.option(
        "--token-file",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar=TOKEN_FILE_VARIABLE,
        show_envvar=True,
        help="A file with the token.",
    )(function)


def chosen_token(token: str | None, token_file: Path | None) -> tuple[str, Path | None]:
    """Give the token or the file that counts: flags before variables. Refuses both of one kind."""
    if token and token_file is not None:
        source = click.get_current_context().get_parameter_source
        if source("token") is source("token_file"):
            both = f"--token ({TOKEN_VARIABLE}) and --token-file ({TOKEN_FILE_VARIABLE})"
            raise BadUsage(f"only one of {both} may be given")
        if source("token") is ParameterSource.COMMANDLINE:
            return token, None
    return ("", token_file) if token_file is not None else (token or "", None)


def say(message: str) -> None:
    """Print a message to the person. It is not part of the result."""
    click.echo(message, err=True)


def warn(found: Finding | DiskFault) -> None:
    """Print a finding or a fault that did not stop the work."""
    text = found.message if isinstance(found, Finding) else found.what
    say(f"Warning: {text} ({found.path}). {found.remedy}".rstrip())


def print_json(value: object) -> None:
    click.echo(msgspec.json.encode(value))


def print_lines(lines: Sequence[str]) -> None:
    """Print lines at once: a script may wait for them. Goes on if nobody reads them."""
    try:
        for line in lines:
            click.echo(line)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: drawn on a terminal, tab-separated elsewhere."""
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            click.echo("\t".join(str(cell) for cell in row))
        return
    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if rows and isinstance(rows[0][number], int) else "left")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    Console().print(table)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function (done, total) that moves a bar on standard error. Without a terminal it does nothing."""
    with _bar(label) as move:
        yield lambda done, total: move(label, done, total)


@contextmanager
def state_bar(label: str) -> Iterator[Callable[[StateProgress], None]]:
    """Do the same for work with stages: reading a snapshot, replaying the log, and so on."""
    with _bar(label) as move:
        yield lambda state: move(f"{label}: {state.stage}", state.bytes_done, state.bytes_total)


@contextmanager
def _bar(label: str) -> Iterator[Callable[[str, int, int], None]]:
    if not sys.stderr.isatty():
        yield lambda _description, _done, _total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None)

        def move(description: str, done: int, total: int) -> None:
            # Without a total the bar only shows that something moves.
            progress.update(task, description=description, completed=done, total=total or None)

        yield move


class Duration(click.ParamType[int]):
    """A duration such as 90s, 15m, 1h or 30d, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


class Moment(click.ParamType[int]):
    """A point in time, as ISO 8601 (UTC unless it says otherwise) or in ms since 1970; as ms."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if re.fullmatch(r"[0-9]{1,15}", value):
            return int(value)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither ISO 8601, such as 2025-12-15T12:34:56Z, nor ms since 1970", param, ctx)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)
