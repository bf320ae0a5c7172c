"""The reader of the past: `python -m server.past.worker`, started and ended by the server (`server.past.reader`).

Rules:
- It has the lowest priority, and if memory runs out the kernel ends it before the server.
- It ends with the server: as soon as its standard input does, whatever it is doing.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from engine.disk import RealDisk
from server.past.questions import decode_question, decode_start, line
from server.past.reading import read_top

NICE = 19
OOM_SCORE_ADJUSTMENT = "800"


def main() -> None:
    """Answer questions until standard input ends."""
    os.nice(NICE)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE_ADJUSTMENT, encoding="ascii")
    lines: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_receive, args=(lines,), daemon=True).start()
    start = decode_start(lines.get())
    while True:
        reply = read_top(RealDisk(), start, decode_question(lines.get()))
        sys.stdout.buffer.write(line(reply))
        sys.stdout.buffer.flush()


def _receive(lines: SimpleQueue[bytes]) -> None:
    for each in sys.stdin.buffer:
        lines.put(each)
    os._exit(0)


if __name__ == "__main__":
    main()
