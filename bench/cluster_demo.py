"""A leader and two replicas on this machine, with traffic, for a person to kill one and watch: `make run-cluster`.

The page is served by a replica. Everything is in a temporary directory and ends with Ctrl-C: each process that was
started here is ended here, by its pid.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

import httpx

COMMAND = str(Path(sys.executable).with_name("scoreboard"))
READY = "scoreboard ready on "
PAUSE_SECONDS = 0.2
END_SECONDS_MAX = 15.0
USERS = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "mallory", "niaj")


class Started:
    """One process; `url` is what its ready line says."""

    def __init__(self, name: str, directory: Path, environ: dict[str, str], *arguments: str) -> None:
        self.name = name
        with (directory / f"{name}.log").open("ab") as errors:
            self.process = subprocess.Popen(
                [COMMAND, *arguments, "--bind", "127.0.0.1:0", "--data-dir", str(directory / name)],
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is for us; we end the others in order
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith(READY):
            self.end()
            raise SystemExit(f"{name} did not start; see {directory / f'{name}.log'}")
        self.url = line.removeprefix(READY).strip()

    def end(self) -> None:
        """SIGTERM, and wait; kill what does not end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def token(environ: dict[str, str], scope: str) -> str:
    """Mint a token for the demonstration."""
    command = [COMMAND, "token", "--sub", "demo", "--scope", scope, "--ttl", "1d"]
    return subprocess.run(
        command, env={**os.environ, **environ}, check=True, capture_output=True, text=True
    ).stdout.strip()


def traffic(leader: Started, bearer: str) -> None:
    """Give points until Ctrl-C, whatever becomes of the leader."""
    process = secrets.token_hex(4)
    headers = {"authorization": f"Bearer {bearer}"}
    with httpx.Client(base_url=leader.url, headers=headers, timeout=2.0, trust_env=False) as client:
        for number in count():
            body = {"userId": random.choice(USERS), "actionId": f"{process}-{number}"}  # not a secret
            try:
                client.post("/scores/increment", json=body)
            except httpx.HTTPError:
                time.sleep(1.0)  # the leader was killed: that is what this is for
            time.sleep(PAUSE_SECONDS)


def main() -> None:
    """Start, show, wait, end."""
    environ = {"SCOREBOARD_AUTH_JWT_SECRET": secrets.token_hex(32)}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started: list[Started] = []
    with tempfile.TemporaryDirectory(prefix="scoreboard-cluster-") as name:
        directory = Path(name)
        try:
            following = directory / "log-read.token"
            following.write_text(token(environ, "log:read"))
            (directory / "admin.token").write_text(token(environ, "admin"))
            leader = Started("leader", directory, environ, "serve")
            started.append(leader)
            arguments = ("replica", "--leader", leader.url, "--token-file", str(following))
            started += [Started("replica-1", directory, environ, *arguments)]
            started += [Started("replica-2", directory, environ, *arguments)]
            for each in started:
                print(f"{each.name:10} {each.url}  pid {each.process.pid}")
            print(f"\nOpen {started[1].url}/ : the page of replica-1. Kill any of them (kill -9 PID) and watch.")
            print(f"Promote: {COMMAND} promote --url {started[1].url} --token-file {directory / 'admin.token'}")
            print("Ctrl-C ends all of it.", flush=True)
            traffic(leader, token(environ, "scores:write"))
        except KeyboardInterrupt:
            print("\nending")
        finally:
            for each in reversed(started):
                each.end()


if __name__ == "__main__":
    main()
