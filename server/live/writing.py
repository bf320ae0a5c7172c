"""Writes a frame to many sockets: with one call of the kernel where it can, else with one for each.

    with writing(256) as write:              # for up to 256 sockets at once
        short = write(files, frame)          # who did not take all of it

A call for each costs a quarter more of a processor: the kernel is entered each time, and Python runs in between.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from server.live.ring import Files, Ring, Short

Write = Callable[[Files, bytes], Short]
"""Writes a frame to each of these sockets, none of which it waits for."""

log = structlog.get_logger()


def one_by_one(files: Files, frame: bytes) -> Short:
    """Write with a call for each socket."""
    short: Short = []
    write, length = os.write, len(frame)
    for index, file in enumerate(files.tolist()):
        try:
            taken = write(file, frame)
        except OSError as error:
            taken = -(error.errno or errno.EIO)
        if taken != length:
            short.append((index, taken))
    return short


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
