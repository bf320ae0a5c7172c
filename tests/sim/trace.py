"""What happened in a simulated run, in order: a digest of all of it, and the last lines to read."""

from __future__ import annotations

from collections import deque
from hashlib import blake2b

import trio

KEPT_LINES = 60


class Trace:
    """Two runs are the same if their digests are. `lines` are the last ones; all of them if asked for."""

    def __init__(self, *, keep_all: bool = False) -> None:
        self.lines: deque[str] = deque(maxlen=None if keep_all else KEPT_LINES)
        self._digest = blake2b(digest_size=16)

    def note(self, what: str, *details: object) -> None:
        """Note one thing, with the virtual time."""
        line = f"{trio.current_time():10.4f} {what} {' '.join(map(str, details))}"
        self.lines.append(line)
        self._digest.update(line.encode() + b"\n")

    @property
    def digest(self) -> str:
        """The digest so far."""
        return self._digest.hexdigest()
