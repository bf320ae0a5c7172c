"""The open of a regular file, which never waits.

    descriptor = open_regular(path, os.O_RDONLY)

Only a regular file is opened. The open of a FIFO waits for a writer, beyond SIGTERM, and what is written to a device is
not there at the next start. This is for the files of a data directory. A token or a secret that an operator names may
be a pipe, such as a shell's <(…).
"""

from __future__ import annotations

import errno
import os
import stat

from engine.errors import DiskFault

_REMEDY = "Something else has the name of a file: move it away, and put the file back from a backup if lost."

_FLAGS = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_regular(path: str, flags: int) -> int:
    """Open a regular file and give its descriptor. If it is made now, it is its owner's alone.

    Raises `DiskFault` if something else is there, and OSError. The kind is that of what was opened: the path may lead
    elsewhere a moment later.
    """
    try:
        descriptor = os.open(path, flags | _FLAGS, 0o600)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device without a driver
            raise _no_file(path) from error
        raise
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise _no_file(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _no_file(path: str) -> DiskFault:
    return DiskFault("can't open the file: it is not a regular file", path=path, remedy=_REMEDY)
