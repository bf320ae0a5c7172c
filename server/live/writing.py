"""Writes a frame to many sockets: with one call of the kernel where it can, else with one for each.

    with writing(256) as write:              # for up to 256 sockets at once
        taken = write(files, frame)          # of each socket: the bytes that it took, or minus an errno

A call for each costs a third more of a processor: the kernel is entered each time, and Python runs in between.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import structlog

from server.live.ring import Files, Ring, Taken

Write = Callable[[Files, bytes], Taken]
"""Writes a frame to each of these sockets, none of which it waits for."""

log = structlog.get_logger()


def one_by_one(files: Files, frame: bytes) -> Taken:
    """Write with a call for each socket."""
    taken = np.empty(len(files), np.int32)
    write = os.write
    for at, file in enumerate(files.tolist()):
        try:
            taken[at] = write(file, frame)
        except OSError as error:
            taken[at] = -(error.errno or 1)
    return taken


@contextmanager
def writing(sockets_max: int) -> Iterator[Write]:
    """Give the quickest way to write that this system has."""
    ring = Ring.open(sockets_max)
    if ring is None:
        log.info("no_io_uring", remedy="nothing is wrong; with it, viewers would cost less (OPERATIONS.md)")
        yield one_by_one
        return
    try:
        yield ring.write
    finally:
        ring.close()
