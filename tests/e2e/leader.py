"""A real leader in a process of its own, and the command beside it: the tools of an operator, and nothing more.

Rules:
- What is started here is ended here: `serving` kills its leader at the end, even after an exception.
- Standard error goes to a file, not to a pipe: a full pipe would block the leader.
- PyJWT itself makes the tokens, so these tests do not depend on the code that they test.
- Every wait has an end (`ALARM_SECONDS`), so generous that only a hanging test reaches it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import jwt
import trio

COMMAND = str(Path(sys.executable).with_name("scoreboard"))
SECRET = "only-for-tests-0123456789-abcdefghijklmnop"
ALARM_SECONDS = 60.0
READY = "scoreboard ready on http://"
QUICK_RETRIES = {"server.bounds.RECONNECT_SECONDS_MAX": 0.5}
"""For a replica that must connect again soon after its leader is back."""


class LeaderEnded(Exception):
    """The process ended before it was ready; the text has its exit code and its output."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        super().__init__(f"exit code {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
        self.code = code
        self.stdout = stdout
        self.stderr = stderr


def token(
    *scopes: str, sub: str = "backend", user: str | None = None, seconds: float = 3600, secret: str = SECRET
) -> str:
    """Make a token, as a backend's own identity service would."""
    now = int(time.time())
    claims: dict[str, object] = {
        "sub": sub,
        "aud": "scoreboard",
        "iat": now,
        "exp": now + int(seconds),
        "scope": " ".join(scopes),
    }
    if user is not None:
        claims["uid"] = user
    return jwt.encode(claims, secret, algorithm="HS256")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The test's environment without any SCOREBOARD_ key of the machine, plus `extra`."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SCOREBOARD_")}
    return {**clean, **(extra or {})}


class Leader:
    """One running leader. `host` and `port` are those of its ready line."""

    def __init__(self, process: trio.Process, stderr_path: Path) -> None:
        self.process = process
        self.host = ""
        self.port = 0
        self._stdout = b""
        self._stderr_path = stderr_path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.host}:{self.port}"

    async def wait_ready(self) -> None:
        """Read standard output up to the ready line; raise LeaderEnded when the process ends before it."""
        with trio.fail_after(ALARM_SECONDS):
            while not self._saw_ready_line():
                await self._read_more()

    async def wait_stdout(self, text: str) -> None:
        """Read standard output until it has this text and the line with it is whole."""
        with trio.fail_after(ALARM_SECONDS):
            while "\n" not in self.stdout().partition(text)[2]:
                await self._read_more()

    async def _read_more(self) -> None:
        assert self.process.stdout is not None
        data = await self.process.stdout.receive_some(4096)
        if not data:
            code = await self.process.wait()
            raise LeaderEnded(code, self._stdout.decode(), self.stderr())
        self._stdout += data

    def _saw_ready_line(self) -> bool:
        for line in self._stdout.decode().splitlines(keepends=True):
            if line.startswith(READY) and line.endswith("\n"):
                self.host, _, port = line.strip().removeprefix(READY).rpartition(":")
                self.port = int(port)
                return True
        return False

    async def wait(self) -> int:
        """Read the rest of standard output, wait for the end and return the exit code."""
        assert self.process.stdout is not None
        with trio.fail_after(ALARM_SECONDS):
            async for data in self.process.stdout:
                self._stdout += data
            return await self.process.wait()

    async def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int:
        """SIGTERM, then wait for the end; the exit code."""
        self.signal(signal.SIGTERM)
        return await self.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal without waiting for anything."""
        self.process.send_signal(number)

    def stdout(self) -> str:
        """What it wrote to standard output, as far as we have read it."""
        return self._stdout.decode()

    def stderr(self) -> str:
        """What it wrote to standard error so far."""
        return self._stderr_path.read_text(encoding="utf-8", errors="replace")


async def start(
    directory: Path,
    *,
    config: Path | None = None,
    arguments: Sequence[str] = (),
    extra: Mapping[str, str] | None = None,
    segment_bytes: int | None = None,
    constants: Mapping[str, float] | None = None,
) -> Leader:
    """Start a leader on `directory` without waiting for it. The caller must end it; most want `serving`.

    It binds to a free port of 127.0.0.1 and knows SECRET; `extra` may set SCOREBOARD_AUTH_JWT_SECRET to something else.
    """
    command = ["serve", *_free_port(arguments), "--data-dir", str(directory)]
    if config is not None:
        command += ["--config", str(config)]
    stderr_path = directory.with_name(f"{directory.name}.stderr")
    return await launch(
        [*command, *arguments], stderr_path, extra=extra, segment_bytes=segment_bytes, constants=constants
    )


def _free_port(arguments: Sequence[str]) -> list[str]:
    """Bind to a free port, unless the arguments name an address: each --bind adds one."""
    return [] if "--bind" in arguments else ["--bind", "127.0.0.1:0"]


async def launch(
    arguments: Sequence[str],
    stderr_path: Path,
    *,
    extra: Mapping[str, str] | None = None,
    segment_bytes: int | None = None,
    constants: Mapping[str, float] | None = None,
) -> Leader:
    """Start `scoreboard ARGUMENTS`, a verb that serves, without waiting for it. The caller must end it.

    `constants`, by module and name, are set before the command begins. They make long things short: a segment of full
    length, for example, would hardly ever be sealed during a test.
    """
    command = [COMMAND]
    changed = dict(constants or {})
    if segment_bytes is not None:
        changed["engine.limits.SEGMENT_BYTES"] = segment_bytes
    if changed:
        lines = [f"import {name.rpartition('.')[0]}; {name} = {value}" for name, value in changed.items()]
        command = [sys.executable, "-c", "\n".join([*lines, "from server.cli.main import main; main()"])]
    with stderr_path.open("ab") as stderr:
        process = await trio.lowlevel.open_process(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment({"SCOREBOARD_AUTH_JWT_SECRET": SECRET, **(extra or {})}),
        )
    return Leader(process, stderr_path)


@asynccontextmanager
async def serving(
    directory: Path,
    *,
    config: Path | None = None,
    arguments: Sequence[str] = (),
    extra: Mapping[str, str] | None = None,
    segment_bytes: int | None = None,
    constants: Mapping[str, float] | None = None,
) -> AsyncIterator[Leader]:
    """Run a leader that is ready; kill it at the end if it still runs."""
    leader = await start(
        directory, config=config, arguments=arguments, extra=extra, segment_bytes=segment_bytes, constants=constants
    )
    try:
        await leader.wait_ready()
        yield leader
    finally:
        with trio.CancelScope(shield=True):
            await leader.kill()


@asynccontextmanager
async def following(
    directory: Path,
    name: str,
    url: str,
    *arguments: str,
    extra: Mapping[str, str] | None = None,
    constants: Mapping[str, float] | None = None,
) -> AsyncIterator[Leader]:
    """Run a replica of the node at `url` ("": as its directory says), ready to be asked; kill it at the end.

    Its token and what it writes to standard error are in `directory`; it keeps nothing unless an argument says so.
    """
    tokens = directory / "log-read.token"
    tokens.write_text(token("log:read") + "\n")
    tokens.chmod(0o600)
    command = ["replica", *_free_port(arguments), "--token-file", str(tokens), *(["--leader", url] if url else [])]
    replica = await launch([*command, *arguments], directory / f"{name}.stderr", extra=extra, constants=constants)
    try:
        await replica.wait_ready()
        yield replica
    finally:
        with trio.CancelScope(shield=True):
            await replica.kill()


async def run(
    *arguments: str, extra: Mapping[str, str] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run `scoreboard ARGUMENTS` to its end and return exit code, stdout and stderr."""
    with trio.fail_after(ALARM_SECONDS):
        return await trio.run_process(
            [COMMAND, *arguments],
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(extra),
        )
