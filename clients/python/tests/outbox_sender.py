"""A process that sends an outbox until it is killed: `python outbox_sender.py OUTBOX TOKEN URL…`.

It prints a line for each attempt that failed, and for each action that it set aside.
"""

from __future__ import annotations

import sys

from scoreboard_client import Outbox, Scoreboard


def main() -> None:
    """Send for ever."""
    path, token, *urls = sys.argv[1:]
    with Scoreboard(urls, token=token, attempt_s=2.0) as scoreboard:
        scoreboard.sender(Outbox(path), told=lambda told: print(type(told).__name__, flush=True)).run()  # noqa: T201


if __name__ == "__main__":
    main()
