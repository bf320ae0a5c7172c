"""A headless Chromium: found on this machine, started with a profile of its own, and ended with all its children.

Rules:
- It contacts only the addresses that a test opens: its background traffic is switched off.
- It is the leader of its own process group, so ending it ends its renderers too; no process is looked up by name.
- It writes its port to a file in its profile. We poll that file, because there is nothing to wait on.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
START_SECONDS_MAX = 60.0
END_SECONDS_MAX = 10.0
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--hide-scrollbars",
    "--lang=en-US",
    "--remote-debugging-port=0",
)


def find() -> str | None:
    """The path of the browser, or None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def running(program: str, profile: Path) -> Iterator[str]:
    """Start `program` on the empty directory `profile`; gives the address of its DevTools, `ws://…`."""
    output = profile.with_name(f"{profile.name}.output")
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [program, *SWITCHES, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            env={**os.environ, "LANGUAGE": "en_US", "TZ": "UTC"},
        )
    try:
        yield _wait_address(process, profile / "DevToolsActivePort", output)
    finally:
        _end(process)


def _wait_address(process: subprocess.Popen[bytes], file: Path, output: Path) -> str:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        lines = file.read_text().split() if file.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} did not start:\n{output.read_text(errors='replace')}")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.terminate()
        process.wait(END_SECONDS_MAX)
    # Also after a clean end, because a child that hangs would keep the profile's files open.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
