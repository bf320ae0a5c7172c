"""Three servers of NATS and three nodes on this machine, with traffic; a person kills any of them: `make run-ha`.

    1 to 3, Enter     kill -9 of a node: a, b, c          the same number again starts it
    4 to 6, Enter     kill -9 of a server of NATS: n1, n2, n3
    Ctrl-C            ends each process that was started here, and removes the directory

After each kill it says how long nobody took points, who leads which epoch, and whether the board holds exactly what was
acknowledged. A process that is killed by its pid from elsewhere is noticed, too.

    python -m bench.ha_demo --script "kill leader, kill server leader, start all, kill 2"

does the steps one after the other, compares the log of each node with what was acknowledged, action by action, and
ends: with exit code 1 if they differ.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import httpx

from bench.cluster_demo import Ending, say
from bench.ha_parts import Part, find_nats_server
from bench.ha_traffic import Traffic

SCOREBOARD = str(Path(sys.executable).with_name("scoreboard"))
NODES = ("a", "b", "c")
SERVERS = ("n1", "n2", "n3")
STREAM = "scoreboard"
POINTS = 10
"""What each action is worth on the board `main` without a configuration."""

VERBS = ("kill", "start")
WHOM = ("1", "2", "3", "4", "5", "6", "leader", "standby", "server leader", "server follower", "all")
"""What a step of a script is: a verb, and whom it hits. `start all` starts those that are dead."""

PAUSE_SECONDS = 0.2
WATCH_SECONDS = 2.0
"""The shortest time from a kill to its figures."""

FLOWING_SECONDS = 0.5
"""Points flow if one was taken within this time."""

PATIENCE_SECONDS = 12.0
"""After so long without points it says what the nodes answer."""

READY_SECONDS_MAX = 60.0


class Demonstration:
    """Three nodes, three servers, and a backend that gives points."""

    def __init__(self, directory: Path, nats_server: str) -> None:
        self._environ = {**os.environ, "SCOREBOARD_AUTH_JWT_SECRET": secrets.token_hex(32)}
        command = [SCOREBOARD, "serve", "--quorum"]
        self._nodes = [Part(number, name, directory, command) for number, name in enumerate(NODES, 1)]
        self._servers = [Part(number, name, directory, [nats_server]) for number, name in enumerate(SERVERS, 4)]
        self._parts = {part.number: part for part in [*self._nodes, *self._servers]}
        self._directory = directory
        self._http = httpx.Client(timeout=2.0, trust_env=False)
        self._traffic = Traffic([node.url for node in self._nodes], self._token())
        self._killed: list[str] = []  # what was killed and not told of yet
        self._killed_s = 0.0
        self._complained = False
        self._was_leading: tuple[int | None, int] = (None, 0)

    def begin(self) -> None:
        """Start all, make the stream, and say what the person can do."""
        routes = [f"nats://127.0.0.1:{server.route_port}" for server in self._servers]
        urls = [f"nats://127.0.0.1:{server.port}" for server in self._servers]
        for server in self._servers:
            server.configure_server([route for route in routes if not route.endswith(f":{server.route_port}")])
            self._start(server)
        for node in self._nodes:
            node.configure_node(urls)
        say("waiting until the servers have a leader, and hold the stream")
        self._make_stream()
        for node in self._nodes:
            self._start(node)
        self._traffic.start()
        self._wait(lambda: self._traffic.now().actions > 0, "no node takes points")
        self._was_leading = self._leads()
        say("")
        for part in self._parts.values():
            what = part.url if part in self._nodes else "nats-server"
            say(f"  {part.number}  {part.name:3} pid {part.pid:<8} {what}{self._role(part)}")
        say(
            f"\nOpen {self._nodes[0].url}/ , where points come in all the time; each node has the page."
            "\nA number and Enter kills that process (kill -9); the same number again starts it."
            f"\nLogs: {self._directory}. Ctrl-C ends all of it.\n"
        )

    def _make_stream(self) -> None:
        """Run `scoreboard quorum init` until the servers can make the stream."""
        command = [SCOREBOARD, "quorum", "init", "--config", str(self._nodes[0].config)]
        deadline = time.monotonic() + READY_SECONDS_MAX
        while (done := self._run(command)).returncode:
            Ending.check()
            if time.monotonic() > deadline:
                raise SystemExit(f"the servers of NATS do not make the stream: {done.stderr.decode()}")

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end; Ctrl-C does not reach it."""
        return subprocess.run(command, env=self._environ, check=False, capture_output=True, start_new_session=True)

    def _token(self) -> str:
        command = [SCOREBOARD, "token", "--sub", "demo", "--scope", "scores:write", "--ttl", "1d"]
        return self._run(command).stdout.decode().strip()

    def _role(self, part: Part) -> str:
        given = self._traffic.now()
        if part in self._nodes and given.leader == self._nodes.index(part):
            return f", leads epoch {given.epoch}"
        return ", leads the stream" if part is self._stream_leader() else ""

    def _leads(self) -> tuple[int | None, int]:
        given = self._traffic.now()
        return given.leader, given.epoch

    def _stream_leader(self) -> Part | None:
        """The server that leads the stream, as the servers say."""
        for server in self._servers:
            with suppress(httpx.HTTPError, KeyError):
                address = f"http://127.0.0.1:{server.http_port}/jsz?streams=true"
                for account in self._http.get(address).json()["account_details"]:
                    for stream in account["stream_detail"]:
                        if stream["name"] == STREAM and stream["cluster"].get("leader") == server.name:
                            return server
        return None

    # What a person does

    def go_on(self) -> None:
        """Take numbers from the person and tell of what happens, until the person ends it."""
        listening = True
        while True:
            self._look()
            if not listening:
                time.sleep(PAUSE_SECONDS)
            elif select.select([0], [], [], PAUSE_SECONDS)[0]:
                typed = os.read(0, 4096)
                listening = bool(typed)  # no bytes: standard input has ended
                for word in typed.decode(errors="replace").split():
                    self._number(word)

    def _number(self, word: str) -> None:
        part = self._parts.get(int(word)) if word.isdecimal() else None
        if part is None:
            say(f"{word!r} is none of the numbers 1 to {len(self._parts)}")
        elif part.lives:
            self._kill(part)
        else:
            self._start(part)
            say(f"{part.name} starts again, pid {part.pid}")

    def play(self, steps: Sequence[tuple[str, str]]) -> bool:
        """Do these steps; say whether each node's log holds exactly what was acknowledged."""
        for verb, whom in steps:
            for part in self._those(whom, living=verb == "kill"):
                if verb == "kill":
                    self._kill(part)
                else:
                    self._start(part)
                    say(f"{part.name} starts again, pid {part.pid}")
            self._wait(lambda: not self._killed, f"after {verb} {whom} no points are taken")
        return self._prove()

    def _those(self, whom: str, *, living: bool) -> list[Part]:
        """Give the parts that a step means, those that live or those that are dead."""
        leader, stream_leader = self._nodes[self._traffic.now().leader or 0], self._stream_leader()
        roles = {
            "all": list(self._parts.values()),
            "leader": [leader],
            "standby": [node for node in self._nodes if node.lives and node is not leader][:1],
            "server leader": [stream_leader] if stream_leader else [],
            "server follower": [one for one in self._servers if one.lives and one is not stream_leader][:1],
        }
        those = [self._parts[int(whom)]] if whom.isdecimal() else roles[whom]
        return [part for part in those if part.lives is living]

    def _start(self, part: Part) -> None:
        part.start(self._environ)

    def _kill(self, part: Part) -> None:
        who = f"{part.name}{self._role(part)}"
        if not self._killed:
            self._traffic.begin()
        part.kill()
        self._note_death(part, f"{who}: killed")

    def _note_death(self, part: Part, what: str) -> None:
        part.told_dead = True
        self._killed.append(part.name)
        self._killed_s = time.monotonic()
        self._complained = False
        say(f"{what}; {part.number} starts it again")

    # What it tells

    def _look(self) -> None:
        """Tell of parts that ended, of a new leader, and of what a kill did."""
        Ending.check()
        for part in self._parts.values():
            if not part.lives and not part.told_dead:
                self._note_death(part, f"{part.name} {part.how_it_ended()}")
        given, since_s = self._traffic.now(), time.monotonic() - self._killed_s
        if self._killed and since_s >= WATCH_SECONDS and given.quiet_s < FLOWING_SECONDS:
            self._killed.clear()
            self._tell()
        elif self._killed and given.quiet_s > PATIENCE_SECONDS and not self._complained:
            self._complained = True
            dead = [part.name for part in self._parts.values() if not part.lives]
            say(
                f"  nobody takes points for {given.quiet_s:.0f} s; the nodes say: {given.said}. Dead: {', '.join(dead)}"
            )
        elif not self._killed and self._leads() != self._was_leading:
            self._tell()

    def _tell(self) -> None:
        """Say the gap, the epoch, and what was acknowledged and found."""
        with self._traffic.resting():
            given = self._traffic.now()
            found = self._found(given.leader)
        self._was_leading = self._leads()
        same = "equal" if found == given.actions else "NOT EQUAL"
        say(
            f"  gap {given.longest_s:.2f} s; {self._nodes[given.leader or 0].name} leads epoch {given.epoch};"
            f" acknowledged {given.actions:,}, found {found:,} ({same})"
        )
        self._traffic.begin()

    def _found(self, leader: int | None) -> int:
        """How many actions the leader's board holds; -1 if it does not answer."""
        with suppress(httpx.HTTPError, KeyError):
            board = self._http.get(f"{self._nodes[leader or 0].url}/scoreboard/top?limit=50").json()
            return sum(int(row["score"]) for row in board["entries"]) // POINTS
        return -1

    def _prove(self) -> bool:
        """Compare the log of each node that runs with what was acknowledged, action by action."""
        with self._traffic.resting():
            acknowledged = set(self._traffic.acknowledged)
            leader = self._nodes[self._traffic.now().leader or 0]
            seq = self._http.get(f"{leader.url}/scoreboard/top").json()["seq"]
            good = True
            for node in (node for node in self._nodes if node.lives):
                self._wait(lambda node=node: self._has(node, seq), f"{node.name} does not catch up")  # type: ignore[misc]
                found = list(self._actions_of(node))
                equal = sorted(found) == sorted(acknowledged)
                good = good and equal
                said = "equal" if equal else "NOT EQUAL"
                say(f"log of {node.name}: acknowledged {len(acknowledged):,}, found {len(found):,} ({said})")
        return good

    def _has(self, node: Part, seq: int) -> bool:
        with suppress(httpx.HTTPError):
            answer = self._http.get(f"{node.url}/scoreboard/top?minSeq={seq}")
            return answer.status_code == httpx.codes.OK
        return False

    def _actions_of(self, node: Part) -> Iterator[str]:
        command = [SCOREBOARD, "log", "dump", "--data-dir", str(node.directory / "data")]
        for row in map(json.loads, self._run(command).stdout.splitlines()):
            if row["type"] == "incremented":
                yield row["actionId"]

    def _wait(self, is_so: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not is_so():
            self._look()
            if time.monotonic() > deadline:
                words = "\n".join(f"--- {part.name}\n{part.last_words()}" for part in self._parts.values())
                raise SystemExit(f"{otherwise}\n{words}")
            time.sleep(PAUSE_SECONDS)

    def end(self) -> None:
        """End all: the traffic, the nodes, the servers."""
        self._traffic.end()
        self._http.close()
        for part in self._parts.values():
            part.end()


def steps_of(script: str) -> list[tuple[str, str]]:
    """Read a script: steps of a verb and whom it hits. Ends with what is allowed."""
    steps = [tuple(step.split(maxsplit=1)) for step in script.split(",") if step.strip()]
    for step in steps:
        if len(step) != 2 or step[0] not in VERBS or step[1].strip() not in WHOM:
            allowed = f"{' or '.join(VERBS)}, then one of: {', '.join(WHOM)}"
            raise SystemExit(f"--script: {' '.join(step)!r} is no step. A step is {allowed}.")
    return [(verb, whom.strip()) for verb, whom in steps]


def main() -> None:
    """Start, show, wait, end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", default="", help="steps with commas between, such as: kill leader, start all")
    options = parser.parse_args()
    steps = steps_of(options.script)
    nats_server = find_nats_server()
    Ending.watch()
    good = True
    with tempfile.TemporaryDirectory(prefix="scoreboard-ha-") as name:
        demonstration = Demonstration(Path(name), nats_server)
        try:
            demonstration.begin()
            if steps:
                good = demonstration.play(steps)
            else:
                demonstration.go_on()
        except KeyboardInterrupt:
            print("\nending", flush=True)
        finally:
            demonstration.end()
    print("all have ended", flush=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
