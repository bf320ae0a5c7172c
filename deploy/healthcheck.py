"""Asks the node in this container whether it is alive: exit code 0 if `/healthz` answers 200.

The addresses are those of SCOREBOARD_BIND, which the image sets, as the node reads them. One that answers is enough: a
node listens on all of them or does not start. A proxy of the environment is not used. Readiness is another
question: a replica that waits for its leader is not ready, and a restart would not help it.
"""

from __future__ import annotations

import http.client
import os
import sys
import time

import msgspec

from server.settings.environment import from_text
from server.settings.values import parse_binds

TIMEOUT_SECONDS = 3.0
"""For all addresses together."""

Binds = str | tuple[str, ...]

LOCAL = {"0.0.0.0": ("127.0.0.1",), "::": ("::1", "127.0.0.1")}  # noqa: S104  # none is listened on here
"""Who listens on every address is asked on those of this machine."""


def main() -> int:
    """Ask until an address answers; give the exit code."""
    binds = parse_binds(msgspec.convert(from_text(os.environ["SCOREBOARD_BIND"], Binds), Binds))
    asked = [(host, bind.port) for bind in binds for host in LOCAL.get(bind.host, (bind.host,))]
    end = time.monotonic() + TIMEOUT_SECONDS
    for number, (host, port) in enumerate(asked):
        seconds = max(0.1, end - time.monotonic()) / (len(asked) - number)
        try:
            status = ask(host, port, seconds)
        except (OSError, http.client.HTTPException) as error:
            sys.stderr.write(f"{host} port {port} does not answer: {error}\n")
            continue
        sys.stderr.write(f"{host} port {port} answers {status}\n")
        if status == 200:
            return 0
    return 1


def ask(host: str, port: int, seconds: float) -> int:
    """Give the status of an answer. Raises OSError, HTTPException."""
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
