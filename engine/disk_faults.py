"""The errors of the operating system as errors of our own, each with what an operator can do.

    with blamed("read", path, offset=offset):
        os.pread(...)

Rule: ENOENT alone becomes `FileMissing`. Every other error is one that leaves something unknown or undone.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from engine.errors import DiskFault, NoSpace, WriteFailed


class FileMissing(DiskFault):
    """There is no such file or directory."""


LOST_REMEDY = (
    "Another process may write here now, so this one writes no more. Find out what was moved or removed, and by whom. "
    "What this process wrote is in the old place, if that still exists."
)

_REMEDIES = {
    errno.ENOSPC: "Make room on the disk. If the process has ended, start it again.",
    errno.EDQUOT: "Raise the quota or make room. If the process has ended, start it again.",
    errno.EACCES: "Give the user that scoreboard runs as the right to do this.",
    errno.EPERM: "Give the user that scoreboard runs as the right to do this.",
    errno.EROFS: "The file system is mounted read-only; its own log says why.",
    errno.EFBIG: "Raise the limit on the length of files (ulimit -f), then start again.",
    errno.EMFILE: "Raise the limit on open files (ulimit -n), then start again.",
    errno.EISDIR: "A directory has the name of a file: move it away, and put the file back from a backup if lost.",
    errno.ENOTDIR: "A file has the name of a directory: move it away, and put the directory back from a backup.",
    errno.ENOENT: "Put it back from a backup; if it is a symbolic link, bring back what it leads to.",
    errno.ELOOP: "Symbolic links lead in a circle: put the file itself here.",
    errno.EBUSY: "It is in use by the system, perhaps as a mount point: choose a directory within it.",
    errno.EIO: "The disk or its connection is failing; the kernel's log says more.",
}

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


@contextlib.contextmanager
def blamed(what: str, path: str, *, offset: int | None = None, write: bool = False) -> Iterator[None]:
    """Turn an OSError into one of our own errors."""
    try:
        yield
    except OSError as error:
        raise fault_of(error, what, path, offset=offset, write=write) from error


def fault_of(error: OSError, what: str, path: str, *, offset: int | None = None, write: bool = False) -> DiskFault:
    """Make one of our own errors of an OSError, where entering `blamed` would cost as much as the work."""
    kind = FileMissing if error.errno == errno.ENOENT else WriteFailed if write else DiskFault
    if write and error.errno in _NO_SPACE:
        kind = NoSpace
    reason = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0, "")
    return kind(f"can't {what}: {reason}", path=path, offset=offset, remedy=remedy)
