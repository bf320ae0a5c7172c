"""Asks the node in this container whether it is alive: exit code 0 if `/healthz` answers 200.

The port is that of SCOREBOARD_BIND, which the image sets. A proxy of the environment is not used. Readiness is another
question: a replica that waits for its leader is not ready, and a restart would not help it.
"""

from __future__ import annotations

import http.client
import os
import sys

TIMEOUT_SECONDS = 3.0


def main() -> int:
    """Ask once; give the exit code."""
    port = os.environ["SCOREBOARD_BIND"].rpartition(":")[2]
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except OSError as error:
        sys.stderr.write(f"port {port} does not answer: {error}\n")
        return 1
    finally:
        connection.close()
    sys.stderr.write(f"port {port} answers {status}\n")
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
