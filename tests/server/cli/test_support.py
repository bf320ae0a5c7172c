"""What the verbs share: values as people write them, errors as one sentence, output for people and for pipes."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from engine.errors import DirectoryInUse, LogDamaged, NoLongerKept
from server.cli import support
from server.cli.main import VERBS, main
from server.cli.support import BadUsage, CommandRefused, Duration, InUse, Moment, errors_as_sentences
from server.settings.config import ConfigError
from server.settings.secrecy import open_to_others


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    """Run the command as its user would, in this process."""
    return CliRunner(env=env).invoke(main, arguments)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("30d", 2_592_000)])
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    """Each unit counts as it should."""
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "0h", "1w", "1.5h", "1h30m"])
def test_anything_else_is_no_duration(text: str) -> None:
    """It is refused with what is allowed."""
    with pytest.raises(click.UsageError, match="such as"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize(
    "text", ["1765802096789", "2025-12-15T12:34:56.789Z", "2025-12-15T12:34:56.789", "2025-12-15T13:34:56.789+01:00"]
)
def test_a_moment_is_iso_8601_or_milliseconds(text: str) -> None:
    """All four mean the same; without an offset a time is in UTC."""
    assert Moment().convert(text, None, None) == 1_765_802_096_789


def test_anything_else_is_no_moment() -> None:
    """It is refused with what is allowed."""
    with pytest.raises(click.UsageError, match="ISO 8601"):
        Moment().convert("yesterday", None, None)


@pytest.mark.parametrize(
    ("error", "kind", "exit_code"),
    [
        (ConfigError("bind", "must be HOST:PORT"), BadUsage, 2),
        (DirectoryInUse("in use by process 7", path="data/lock"), InUse, 3),
        (LogDamaged("a bad frame", path="data/log/1.log", offset=64, seq=2, remedy="Restore."), CommandRefused, 1),
        (NoLongerKept(1, 100), CommandRefused, 1),
        (FileNotFoundError(2, "No such file or directory", "x.toml"), CommandRefused, 1),
    ],
)
def test_each_expected_error_is_a_sentence_and_an_exit_code(
    error: Exception, kind: type[CommandRefused], exit_code: int
) -> None:
    """The kind of error decides the exit code. The message is told in full."""
    with pytest.raises(kind) as refused, errors_as_sentences():
        raise error
    assert refused.value.exit_code == exit_code
    if not isinstance(error, OSError):
        assert refused.value.message == str(error)


def test_a_bug_is_not_dressed_up() -> None:
    """A failed assertion is a bug of ours, and keeps its stack trace."""
    with pytest.raises(AssertionError), errors_as_sentences():
        raise AssertionError


def test_every_verb_has_help() -> None:
    """Each verb of the table can be imported and says what it does."""
    overview = run("--help")
    assert overview.exit_code == 0
    for verb in VERBS:
        assert f"\n  {verb} " in overview.output
        assert run(verb, "--help").exit_code == 0


def test_the_version_is_told() -> None:
    """`scoreboard --version` names the package's version."""
    assert run("--version").output.startswith("scoreboard 0.")


def test_an_unknown_verb_is_a_usage_error() -> None:
    """Exit code 2, and the unknown word."""
    done = run("serv")
    assert done.exit_code == 2
    assert "serv" in done.stderr


def test_config_check_tells_good_from_bad(tmp_path: Path) -> None:
    """A good file passes. A bad key is named, with exit code 2. No leader is needed."""
    file = tmp_path / "scoreboard.toml"
    file.write_text("[snapshots]\nevery_events = 5\n")
    assert run("config", "check", "--config", str(file)).exit_code == 0
    file.write_text("[snapshots]\nevery_event = 5\n")
    done = run("config", "check", "--config", str(file))
    assert done.exit_code == 2
    assert "snapshots.every_event" in done.stderr
    assert "Traceback" not in done.output


def test_config_check_loads_the_keys_that_a_start_would(tmp_path: Path) -> None:
    """A missing key file or a signing key that others may read is refused. Missing keys are not made."""
    file = tmp_path / "scoreboard.toml"
    file.write_text('[auth]\njwt_public_key_file = "/nowhere.pem"\nalgorithms = ["RS256"]\n')
    done = run("config", "check", "--config", str(file))
    assert done.exit_code == 2
    assert "auth.jwt_public_key_file" in done.stderr
    data = tmp_path / "data"
    assert run("config", "check", "--data-dir", str(data)).exit_code == 0
    assert not data.exists()
    data.mkdir()
    (data / "signing.key").write_text("0" * 64 + "\n")
    (data / "signing.key").chmod(0o644)
    done = run("config", "check", "--data-dir", str(data))
    assert done.exit_code == 2
    assert "chmod 600" in done.stderr


def test_the_watchers_token_is_no_unknown_setting() -> None:
    """With SCOREBOARD_TOKEN exported for `watch` the other verbs still work. Other unknown variables are refused."""
    assert run("config", "check", env={"SCOREBOARD_TOKEN": "abc"}).exit_code == 0
    assert run("config", "check", env={"SCOREBOARD_TOKENS": "abc"}).exit_code == 2


@pytest.mark.parametrize("verb", [["log", "stat"], ["log", "verify"], ["log", "dump"], ["snapshot", "list"]])
def test_a_directory_without_a_scoreboard_is_a_usage_error(tmp_path: Path, verb: list[str]) -> None:
    """A wrong --data-dir must not look like an empty log."""
    done = run(*verb, "--data-dir", str(tmp_path / "nowhere"))
    assert done.exit_code == 2
    assert "nowhere" in done.stderr


def test_a_table_for_a_pipe_is_tab_separated(capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts can split it; numbers have no separators."""
    support.print_table(("seq", "path"), [(1_000_000, "a b"), (2, "c")])
    assert capsys.readouterr().out == "seq\tpath\n1000000\ta b\n2\tc\n"


def test_progress_is_silent_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal the bar draws nothing."""
    with support.progress_bar("reading") as move:
        move(1, 2)
    assert capsys.readouterr() == ("", "")


def test_a_token_file_that_others_can_read_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, without the token; it is used all the same. A pipe has no other readers."""
    path = tmp_path / "token"
    path.write_text("a.b.c\n")
    for mode, told in ((0o600, False), (0o604, True)):
        path.chmod(mode)
        assert support.read_token(path) == "a.b.c"
        said = capsys.readouterr()
        assert said.out == ""
        assert (f"Warning: --token-file: {path}: others can read or write it" in said.err) is told
        assert "a.b.c" not in said.err
    path.unlink()
    path.symlink_to("/dev/stdin")
    assert open_to_others(str(path)) is None
