"""Files with secrets: who else may read them.

fault = open_to_others(path)        # None, or a sentence for a warning
"""

from __future__ import annotations

import os
import stat

OTHERS = 0o077
"""The rights of everybody but the owner."""


def open_to_others(path: str) -> str | None:
    """Say that others than its owner may read or write a file, and what to do; None: they may not, or it is not there.

    Symbolic links are followed: the file counts, not the link.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None  # whoever reads it says what is wrong
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode) or not mode & OTHERS:
        return None  # a pipe, such as a shell's <(…), has no other reader
    return f"others can read or write it (mode {mode:03o}); run: chmod 600 {path}"
