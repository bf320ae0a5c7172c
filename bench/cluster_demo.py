"""A leader and two replicas on this machine, with traffic; a person kills one of them and watches: `make run-cluster`.

A replica serves the page. What a person may do, and what the demonstration does then:

    kill -9 PID     it says what the death means; Enter starts the node again on its old port
    promote         it gives points to the new leader, demotes the others, and starts them again to follow it
    Enter           starts an old leader too; if another node leads by then, the old one is demoted and follows
    Ctrl-C          ends each process that was started here, by its pid, and removes the directory
"""

from __future__ import annotations

import os
import random
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import httpx

COMMAND = str(Path(sys.executable).with_name("scoreboard"))
READY = b"scoreboard ready on "
PAUSE_SECONDS = 0.2
START_SECONDS_MAX = 30.0
END_SECONDS_MAX = 15.0
LOG_LINES = 8
USERS = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "mallory", "niaj")


class Ending:
    """Whether the person wants it to end. We look where we wait, so no process gets lost while it starts."""

    wanted = False

    @classmethod
    def watch(cls) -> None:
        """From now on, note Ctrl-C, SIGTERM and SIGHUP; a second one changes nothing."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda _number, _frame: setattr(cls, "wanted", True))

    @classmethod
    def check(cls) -> None:
        """Raise KeyboardInterrupt if the person wants it to end."""
        if cls.wanted:
            raise KeyboardInterrupt


def say(text: str) -> None:
    """Tell the person, now."""
    print(text, flush=True)


class Node:
    """A data directory, and the process that serves it while it lives.

    `strayed`: the directory may hold events that the present leader never had.
    """

    def __init__(self, name: str, directory: Path, environ: dict[str, str]) -> None:
        self.name = name
        self.data = directory / name
        self.log = directory / f"{name}.log"
        self.strayed = False
        self.url = ""
        self._environ = environ
        self._bind = "127.0.0.1:0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> bool:
        """Start `scoreboard ARGUMENTS`, on its old port if it had one, and wait until it is ready."""
        with self.log.open("ab") as errors:
            self._process = subprocess.Popen(
                [COMMAND, *arguments, "--bind", self._bind, "--data-dir", str(self.data)],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # Ctrl-C reaches only us; we end the nodes in order
            )
        line = self._first_line()
        if not line.startswith(READY):
            return False
        self.url = line.removeprefix(READY).decode().strip()
        self._bind = self.url.removeprefix("http://")
        return True

    def _first_line(self) -> bytes:
        """Give the first line of its output, or a part of it if the process ends or takes too long."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = b""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not line.endswith(b"\n") and time.monotonic() < deadline:
            Ending.check()
            if select.select([self._process.stdout], [], [], PAUSE_SECONDS)[0]:
                piece = os.read(self._process.stdout.fileno(), 4096)
                if not piece:
                    break
                line += piece
        return line

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    @property
    def lives(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def how_it_ended(self) -> str:
        """Say why the process is gone."""
        assert self._process is not None
        code = self._process.wait()
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def end(self) -> None:
        """SIGTERM, and wait; kill what does not end."""
        if self._process is None:
            return
        if self.lives:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def last_words(self) -> str:
        """Give the end of what it wrote to standard error."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])


class Demonstration:
    """Three nodes, one of them the leader, and a backend that gives points."""

    def __init__(self, directory: Path) -> None:
        self._environ = {**os.environ, "SCOREBOARD_AUTH_JWT_SECRET": secrets.token_hex(32)}
        self._admin = directory / "admin.token"
        self._follow = directory / "log-read.token"
        self._nodes = [Node(name, directory, self._environ) for name in ("leader", "replica-1", "replica-2")]
        self._leader = self._nodes[0]
        self._gone: set[Node] = set()
        self._giving = True
        self._given = 0
        self._run = secrets.token_hex(4)
        self._keyboard = True
        self._http = httpx.Client(timeout=2.0, trust_env=False)

    def begin(self) -> None:
        """Start all nodes, and say what the person can do."""
        for path, scope in ((self._admin, "admin"), (self._follow, "log:read")):
            path.touch(mode=0o600)
            path.write_text(self._token(scope))
        self._http.headers["authorization"] = f"Bearer {self._token('scores:write')}"
        for node in self._nodes:
            if not self._start(node):
                raise SystemExit(f"{node.name} did not start:\n{node.last_words()}")
        page = self._nodes[1]
        say(
            f"\nOpen {page.url}/ : the page of {page.name}, where points come in all the time."
            f"\nKill any of them (kill -9 PID) and watch; Enter starts it again. Logs: {self._admin.parent}"
            f"\nPromote: {self._promotion(page)}"
            "\nCtrl-C ends all of it.\n"
        )

    def _token(self, scope: str) -> str:
        command = [COMMAND, "token", "--sub", "demo", "--scope", scope, "--ttl", "1d"]
        done = subprocess.run(
            command, env=self._environ, check=True, capture_output=True, text=True, start_new_session=True
        )
        return done.stdout.strip()

    def _promotion(self, node: Node) -> str:
        return f"{COMMAND} promote --url {node.url} --token-file {self._admin}"

    def _start(self, node: Node) -> bool:
        """Start a node as what it is now."""
        if node is self._leader:
            good = node.start("serve")
        else:
            if node.strayed and not self._demote(node):
                return False
            node.strayed = False
            good = node.start("replica", "--leader", self._leader.url, "--token-file", str(self._follow))
        if good:
            self._gone.discard(node)
            say(f"{node.name:10} {node.url}  pid {node.pid}  {'leads' if node is self._leader else 'follows'}")
        return good

    def _demote(self, node: Node) -> bool:
        say(f"{node.name} may have what the new leader has not: its directory is demoted first")
        command = [COMMAND, "demote", "--data-dir", str(node.data), "--to", self._leader.url]
        command += ["--token-file", str(self._follow)]
        return subprocess.run(command, env=self._environ, check=False, start_new_session=True).returncode == 0

    # The loop

    def go_on(self) -> None:
        """Look for dead nodes, give points, start nodes at Enter; again and again until the person ends it."""
        while True:
            Ending.check()
            self._look_who_died()
            self._give()
            if self._enter_within(PAUSE_SECONDS):
                self._start_again()

    def _look_who_died(self) -> None:
        for node in self._nodes:
            if node.lives or node in self._gone:
                continue
            self._gone.add(node)
            say(f"{node.name} {node.how_it_ended()}. Enter starts it again.")
            if node is self._leader:
                say("  Nobody takes points now, and pages soon say that they are out of date.")
                others = [other for other in self._nodes if other.lives]
                if others:
                    say(f"  Or promote a replica, the furthest: {self._promotion(max(others, key=self._seq))}")

    def _seq(self, node: Node) -> int:
        """The seq that a node has reached; -1 if it does not answer."""
        with suppress(httpx.HTTPError):
            return int(self._http.get(f"{node.url}/scoreboard/top").json().get("seq", -1))
        return -1

    def _give(self) -> None:
        """Give a user points: ask the leader, then the others. If none takes the action, the next call repeats it."""
        body = {"userId": random.choice(USERS), "actionId": f"{self._run}-{self._given}"}  # not a secret
        for node in sorted(self._nodes, key=lambda node: node is not self._leader):
            if not node.lives:
                continue
            with suppress(httpx.HTTPError):
                if self._http.post(f"{node.url}/scores/increment", json=body).status_code == httpx.codes.OK:
                    self._given += 1
                    self._taken_by(node)
                    return
        self._giving = False

    def _taken_by(self, node: Node) -> None:
        if node is not self._leader:
            say(f"{node.name} was promoted: it takes the points now, and the others are to follow it")
            self._leader = node
            for other in self._nodes:
                other.strayed = other is not node
                if other.strayed and other.lives:
                    other.end()
                    self._try(other)
        elif not self._giving:
            say(f"{node.name} takes points again")
        self._giving = True

    def _enter_within(self, seconds: float) -> bool:
        """Wait a moment; say whether Enter was pressed."""
        if not self._keyboard:
            time.sleep(seconds)
            return False
        if not select.select([0], [], [], seconds)[0]:
            return False
        self._keyboard = bool(os.read(0, 4096))  # no bytes: standard input has ended
        return self._keyboard

    def _start_again(self) -> None:
        for node in sorted(self._gone, key=lambda node: (node is not self._leader, node.name)):
            self._try(node)

    def _try(self, node: Node) -> None:
        if not self._start(node):
            say(f"{node.name} did not start; Enter tries again:\n{node.last_words()}")
            node.end()
            self._gone.add(node)

    def end(self) -> None:
        """End all nodes, replicas first, so that none of them misses its leader."""
        self._http.close()
        for node in sorted(self._nodes, key=lambda node: node is self._leader):
            node.end()


def main() -> None:
    """Start, show, wait, end."""
    Ending.watch()
    with tempfile.TemporaryDirectory(prefix="scoreboard-cluster-") as name:
        demonstration = Demonstration(Path(name))
        try:
            demonstration.begin()
            demonstration.go_on()
        except KeyboardInterrupt:
            print("\nending", flush=True)
        finally:
            demonstration.end()
    print("all have ended")


if __name__ == "__main__":
    main()
